import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import firstspike as fs
from agreement import with_rest
from firstspike import plots
from firstspike.layers.synapses import Arriving
from firstspike.neurons import AdaptiveLIF
from firstspike.plots.look import time_label
from firstspike.plots.membranes import traces, unit_of
from firstspike.plots.voltages import chosen_of, voltages
from firstspike.spiketime import spike_window


def integrated(at, times, weight, neuron, delay):
    """Voltage (out, points) from the differential equations, event by event, for finite times."""
    arrival = (times + delay).numpy()
    voltages = []
    for arrivals, weights in zip(arrival, weight.numpy(), strict=True):
        order = np.argsort(arrivals)
        state, last, trace = np.zeros(2), 0.0, np.zeros(len(at))
        ends = [*arrivals[order], at[-1] + 1]

        def slope(_, state):
            voltage, current = state
            leak = 0.0 if math.isinf(neuron.tau_mem) else voltage / neuron.tau_mem
            return [current / neuron.tau_syn - leak, -current / neuron.tau_syn]

        for end, jump in zip(ends, [*weights[order], 0.0], strict=True):
            inside = (at >= last) & (at < end)
            if end > last:
                solution = solve_ivp(slope, (last, end), state, rtol=1e-11, atol=1e-12, dense_output=True)
                trace[inside] = [solution.sol(t)[0] for t in at[inside]]
                state = solution.y[:, -1]
            state, last = state + np.array([0.0, jump]), end
        voltages.append(trace)
    return np.array(voltages)


def without_spikes(at, times, weight, neuron, delay=None):
    return voltages(at, neuron, Arriving(times, weight, delay, math.inf), torch.empty(len(weight), 0)).voltage


@pytest.mark.parametrize(("tau_mem", "tau_syn"), [(1.0, 1.0), (2.0, 1.0), (5.0, 10.0), (math.inf, 1.0)])
def test_voltage_solves_the_differential_equation(tau_mem, tau_syn, source):
    neuron = fs.LIF(tau_mem, tau_syn)
    weight = torch.randn(2, 6, generator=source, dtype=torch.float64)
    times = torch.rand(6, generator=source, dtype=torch.float64) * 2
    delay = torch.rand(2, 6, generator=source, dtype=torch.float64)
    at = torch.linspace(0, 5, 101, dtype=torch.float64)
    voltage = without_spikes(at, times, weight, neuron, delay)
    np.testing.assert_allclose(voltage, integrated(at.numpy(), times, weight, neuron, delay), atol=1e-8)


def test_silent_inputs_add_nothing(source):
    weight = torch.randn(2, 3, generator=source, dtype=torch.float64)
    times = torch.tensor([0.1, math.inf, 0.4], dtype=torch.float64)
    at = torch.linspace(-1, 3, 9, dtype=torch.float64)
    without = without_spikes(at, times[[0, 2]], weight[:, [0, 2]], fs.LIF())
    torch.testing.assert_close(without_spikes(at, times, weight, fs.LIF()), without)
    assert not without[:, at <= 0.1].any()


@pytest.mark.parametrize("delay", [None, fs.DelayRule()])
@pytest.mark.parametrize("threshold", [1.0, torch.linspace(0.5, 1.5, 4, dtype=torch.float64)])
@pytest.mark.parametrize("learnt", [(), ("tau_mem", "tau_syn", "threshold")])
def test_traces_reach_the_threshold_at_the_spike(ax, source, delay, threshold, learnt):
    options = {"trainable": learnt, "per_neuron": bool(learnt), "backend": "reference"}
    layer = fs.LIFLinear(
        20, 4, fs.LIF(2.0, 1.0, threshold), delay=delay, generator=source, dtype=torch.float64, **options
    )
    for parameter in (layer.log_tau_mem, layer.log_tau_syn) if learnt else ():
        parameter.data += torch.linspace(-0.3, 0.3, 4)
    times = torch.rand(20, generator=source, dtype=torch.float64) * 2
    spikes = layer(times).tolist()
    assert sum(map(math.isfinite, spikes)) >= 3
    assert plots.membrane(layer, times, ax, names=list("abcd")) is ax
    ax.figure.draw_without_rendering()
    shown = {line.get_label(): line for line in ax.lines}
    for name, spike in zip("abcd", spikes, strict=True):
        x, y = shown[name].get_data()
        if math.isfinite(spike):
            assert x[-1] == spike
            assert y[-1] == pytest.approx(1, abs=1e-9)
        assert (y[x < spike] < 1).all()


def test_chosen_neurons_and_end_of_the_axis(ax, source):
    layer = fs.LIFLinear(5, 9, generator=source)
    plots.membrane(layer, torch.rand(5, generator=source), ax, neurons=[7, 2], until=4.0)
    labels = {line.get_label() for line in ax.lines}
    assert {"7", "2"} <= labels
    assert ax.get_xlim() == (0.0, 4.0)


def test_membrane_without_input_spikes(ax):
    plots.membrane(fs.LIFLinear(2, 3), torch.full((2,), math.inf), ax).figure.draw_without_rendering()


def trains_layer(source, kind, **options):
    shape = {"weight_mean": 0.6, "weight_std": 0.4, "generator": source, "dtype": torch.float64}
    neuron, options = with_rest(fs.LIF(2.0, 1.0, 0.8), options)
    if kind is fs.LIFRecurrent:
        shape |= {"duration": 9.0, "window_spikes": 20, "recurrent_std": 0.5}
    return kind(6, 4, 60, neuron=neuron, **shape, **options)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (fs.LIFSpikeTrains, {}),
        (fs.LIFSpikeTrains, {"refractory": 0.4, "reset": -0.2, "delay": fs.DelayRule("softplus")}),
        (fs.LIFRecurrent, {"refractory": 0.1}),
        (fs.LIFRecurrent, {"recurrent_delay": fs.DelayRule("clip", scale=1.0, mean=0.5, std=0.2)}),
    ],
)
def test_membranes_are_at_the_threshold_at_each_spike_and_then_at_the_reset(source, kind, options):
    layer = trains_layer(source, kind, **options)
    times = (5 * torch.rand(6, 3, generator=source, dtype=torch.float64)).sort(-1).values
    with torch.no_grad():
        trains = layer(times.unsqueeze(0))[0]
    assert int(torch.isfinite(trains).sum()) > 15
    for neuron, train in enumerate(trains):
        spikes = train[torch.isfinite(train)]
        rest = 0.99 * layer.neuron.refractory
        before, after = (
            voltages(spikes + shift, *chosen_of(layer, range(4), times, trains)).voltage[neuron]
            for shift in (0.0, max(rest, 1e-9))
        )
        torch.testing.assert_close(before, torch.full_like(before, 0.8), atol=1e-9, rtol=0)
        torch.testing.assert_close(after, torch.full_like(after, layer.neuron.reset), atol=1e-7, rtol=0)
    at = torch.linspace(0, 8, 4001, dtype=torch.float64)
    assert float(voltages(at, *chosen_of(layer, range(4), times, trains)).voltage.max()) <= 0.8 + 1e-9


def test_neurons_without_room_for_more_spikes_stay_at_the_reset(source):
    layer = trains_layer(source, fs.LIFSpikeTrains, reset=0.1, overflow="drop")
    layer.max_spikes = 3
    times = (5 * torch.rand(6, 3, generator=source, dtype=torch.float64)).sort(-1).values
    trains = layer(times.unsqueeze(0))[0].detach()
    at = torch.linspace(0, 8, 2001, dtype=torch.float64)
    voltage = voltages(at, *chosen_of(layer, range(4), times, trains)).voltage
    assert bool(torch.isfinite(trains[:, -1]).any())
    assert float(voltage.max()) <= 0.8 + 1e-9
    late = at > trains[0, -1]
    torch.testing.assert_close(voltage[0, late], torch.full_like(at[late], 0.1), atol=0, rtol=0)


def test_traces_of_trains(ax, source):
    layer = trains_layer(source, fs.LIFSpikeTrains, refractory=0.3)
    times = 3 * torch.rand(6, 2, generator=source, dtype=torch.float64).sort(-1).values
    plots.membrane(layer, times, ax, names=list("abcd"))
    ax.figure.draw_without_rendering()
    trains = layer(times.unsqueeze(0))[0].detach()
    marks = [line for line in ax.lines if line.get_linestyle() == "None" and line.get_marker() != "|"]
    for train, line in zip(trains, marks, strict=True):
        assert list(line.get_xdata()) == train[torch.isfinite(train)].tolist()


@pytest.mark.parametrize("until", [None, 20.0])
@pytest.mark.parametrize("late", [7.0, 8.9])
def test_a_recurrent_layer_is_followed_up_to_its_duration(ax, source, until, late):
    layer = trains_layer(source, fs.LIFRecurrent)
    times = late + (3 * torch.rand(6, 6, generator=source, dtype=torch.float64)).sort(-1).values
    with torch.no_grad():
        spikes = layer(times.unsqueeze(0))[0]
    drawn = traces(layer, times, spikes, range(4), until=until)
    assert drawn.at.max() <= layer.duration
    assert float(drawn.voltage.max()) <= 1 + 1e-9
    plots.membrane(layer, times, ax, until=until)
    assert ax.get_xlim()[1] <= layer.duration


@pytest.mark.parametrize(
    ("tau", "other", "label"),
    [
        (1.0, 1.0, "time [$\\tau_\\mathrm{syn}$]"),
        (5.0, 5.0, "time [$\\tau_\\mathrm{syn}$/5]"),
        (5.0, torch.tensor(5.0), "time [$\\tau_\\mathrm{syn}$/5]"),
        (5.0, 10.0, "time"),
    ],
)
def test_times_have_the_unit_of_the_layers(axes, source, tau, other, label):
    hidden = fs.LIFLinear(5, 4, fs.LIF(20.0, tau), generator=source)
    net = fs.Network(hidden, fs.LIFLinear(4, 3, fs.LIF(20.0, other), generator=source))
    record = net.record(10 * torch.rand(1, 5, generator=source))
    plots.raster(net, record, axes[0])
    plots.raster(net, record, axes[1], unit="ms")
    plots.membrane(net[0], record.inputs[0], axes[2])
    assert axes[0].get_xlabel() == label
    assert axes[1].get_xlabel() == "time [ms]"
    assert axes[2].get_xlabel() == ("time [$\\tau_\\mathrm{syn}$]" if tau == 1 else "time [$\\tau_\\mathrm{syn}$/5]")


@pytest.mark.parametrize(
    ("neuron", "other", "label"),
    [
        (fs.LIF(20.0, 5.0, unit="ms"), fs.LIF(20.0, 10.0, unit="ms").with_values(tau_mem=10.0), "time [ms]"),
        (fs.LIF(20.0, 5.0, unit="$"), fs.LIF(20.0, 5.0, unit="$"), r"time [\$]"),
        (fs.LIF(20.0, 5.0, unit="ms"), fs.LIF(20.0, 5.0), "time"),
        (fs.neurons.AdEx(), fs.neurons.Izhikevich(), "time [ms]"),
        (fs.neurons.QIF(unit="ms"), fs.neurons.AdLIF(unit="ms"), "time [ms]"),
    ],
    ids=str,
)
def test_a_unit_of_the_neurons_names_the_times(neuron, other, label):
    """It changes nothing else."""
    options = {"dtype": torch.float64, "until": 50.0, "device": "meta"}
    network = fs.Network(*(fs.SpikingLinear(4, 4, x, **options) for x in (neuron, other)))
    assert time_label(unit_of(network)) == label
    assert neuron == neuron.with_values()
    assert hash(neuron) == hash(neuron.with_values())
    assert str(neuron) == str(neuron.with_values())
    assert neuron.with_values().unit == neuron.unit
    assert fs.LIF(unit="ms") == fs.LIF()


def test_one_spike_per_input_is_a_train_of_one(source):
    layer = trains_layer(source, fs.LIFSpikeTrains)
    times = torch.rand(6, generator=source, dtype=torch.float64)
    at = torch.linspace(0, 3, 50, dtype=torch.float64)
    trains = layer(times.unsqueeze(0))[0].detach()
    one, other = (voltages(at, *chosen_of(layer, range(4), x, trains)).voltage for x in (times, times.unsqueeze(-1)))
    torch.testing.assert_close(one, other)


ADAPTIVE = {
    "everything": AdaptiveLIF(
        *(2.0, (0.7, 1.9)),
        tau_rise=(0.2, 0.0),
        bias=0.3,
        reset=-0.2,
        refractory=0.3,
        adaptation=[(3.0, 0.5), (1.0, 0.2)],
        threshold_adaptation=[(1.5, 0.4)],
    ),
    "not reset": AdaptiveLIF(
        2.0, (0.7, 1.9), reset=None, refractory=0.2, threshold_adaptation=[(1.0, 1.0), (5.0, 0.2)]
    ),
    "receptors": fs.LIF(2.0, (torch.linspace(0.5, 1.0, 3).double(), 1.9)),
}


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_voltages_currents_and_thresholds_are_the_operator_s(source, kind):
    neuron, shape = ADAPTIVE[kind], {"max_spikes": 300, "receptor": [0, 0, 0, 0, 1, 1], "dtype": torch.float64}
    layer = fs.SpikeTrains(6, 3, neuron=neuron, signs=[1, 1, 1, 1, -1, -1], generator=source, **shape)
    times = (10 * torch.rand(6, 8, generator=source, dtype=torch.float64)).sort(-1).values
    weight = layer.weight.detach()
    given = {"max_spikes": 300, "receptor": layer.reached, "backend": "reference"}
    spikes = fs.spike_trains(times, weight, neuron, **given)
    assert int(spikes.isfinite().sum()) > 8
    at = torch.tensor([0.4, 1.7, 3.1, 5.0, 8.8, 12.0], dtype=torch.float64)
    drawn = voltages(at, *chosen_of(layer, range(3), times, spikes))
    kinds = [part.kind for part in neuron.components]
    for place, time in enumerate(at.tolist()):
        state = spike_window(times, weight, neuron, until=time, **given).state
        torch.testing.assert_close(drawn.voltage[:, place], state.voltage, rtol=1e-9, atol=1e-10)
        currents = [x[:, place].abs() for x in drawn.currents.values()]
        expected = [
            x.abs() for x, part in zip(state.current.unbind(-1), kinds, strict=True) if part in ("synapse", "current")
        ]
        torch.testing.assert_close(currents, expected, rtol=1e-9, atol=1e-10)
        lifted = sum(x for x, part in zip(state.current.unbind(-1), kinds, strict=True) if part == "threshold")
        torch.testing.assert_close(drawn.threshold[:, place], 1.0 + lifted + torch.zeros(3).double(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_membranes_with_currents_are_in_rows(source, kind, ax):
    shape = {"receptor": [0, 0, 0, 1, 1, 1], "generator": source, "dtype": torch.float64}
    layer = fs.SpikeTrains(6, 3, neuron=ADAPTIVE[kind], max_spikes=60, **shape)
    plots.membrane(layer, 3 * torch.rand(6, generator=source, dtype=torch.float64), ax)
    labels = {line.get_label() for line in ax.lines}
    assert {"receptor 0", "receptor 1"} <= labels
    assert ("adaptation 0" in labels) == (kind == "everything")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "1", "2"]
    bases = ax.get_yticks()
    assert bool((np.diff(bases) < -1.9).all())


def test_neurons_in_one_panel_have_different_colours(ax, source):
    wide = fs.LIFSpikeTrains(6, 12, 50)
    times = 3 * torch.rand(6, 2, generator=source).sort(-1).values
    plots.membrane(wide, times, ax, [0, 4, 10])
    solid = [line for line in ax.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 900]
    assert len({line.get_color() for line in solid}) == 3
