"""Injected currents, against the bias, closed formulas, scipy and NEST."""

import math
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import firstspike as fs
from firstspike.layers.voltages import states_at
from firstspike.neurons import QIF, AdaptiveLIF, AdEx, ConductanceLIF, Izhikevich

DOUBLE = {"dtype": torch.float64}
NOTHING = torch.full((1, 1, 1), math.inf, **DOUBLE)
ALONE = NOTHING, torch.zeros(1, 1, **DOUBLE)
NEURONS = {
    "LIF": (fs.LIF(tau_mem=10.0, tau_syn=5.0, refractory=2.0), 1.5),
    "no reset": (fs.LIF(tau_mem=10.0, tau_syn=5.0, refractory=2.0, reset=None), 1.5),
    "adapting": (AdaptiveLIF(tau_mem=10.0, refractory=2.0, adaptation=[(50.0, 0.5)]), 1.5),
    "alpha": (fs.LIF(tau_mem=10.0, tau_syn=(5.0, 2.0), tau_rise=(5.0, 1.0)), 1.5),
    "AdEx": (AdEx(), 900.0),
    "QIF": (QIF(tau_mem=5.0), 1.0),
    "conductances": (ConductanceLIF(tau_mem=10.0), 1.5),
    "Izhikevich": (Izhikevich(), 10.0),
}
SLOW = {"AdEx", "QIF", "conductances", "Izhikevich"}
EACH = [pytest.param(*x, id=name, marks=[pytest.mark.slow] * (name in SLOW)) for name, x in NEURONS.items()]


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), **DOUBLE)


def finite(x):
    return x[x.isfinite()]


@pytest.mark.parametrize(("neuron", "amplitude"), EACH)
def test_a_constant_current_is_a_bias(neuron, amplitude):
    current = fs.Current(torch.zeros(1, **DOUBLE), torch.tensor([amplitude], **DOUBLE, requires_grad=True))
    bias = torch.tensor(amplitude, **DOUBLE, requires_grad=True)
    receptor = [0] if len(neuron.receptors) > 1 else None
    options = {"max_spikes": 60, "receptor": receptor}
    points = torch.linspace(0, 100, 57, **DOUBLE)
    found, expected = (
        (
            fs.spike_trains(*ALONE, cell, until=100.0, **options, **more),
            states_at(points, *ALONE, cell, **options, **more),
        )
        for cell, more in ((neuron, {"current": current}), (neuron.with_values(bias=bias), {}))
    )
    assert finite(found[0]).numel() > 0
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-10)
    (by_value,), (by_bias,) = (
        torch.autograd.grad(finite(x[0]).sum() + x[1][0].sum(), y)
        for x, y in ((found, current.values), (expected, bias))
    )
    torch.testing.assert_close(by_value[0], by_bias, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", ["cpu", pytest.param("reference", marks=pytest.mark.slow)])
def test_noise_against_the_closed_formula(backend):
    """Within a step the membrane decays to the value of the current; 1 000 steps, with refractory times."""
    values, step, tau, refractory = 1.5 + 0.6 * noise(1000), 0.1, 10.0, 2.0
    current = fs.Current.sampled(values, step)
    neuron = fs.LIF(tau_mem=tau, refractory=refractory, reset=-0.1)
    found = fs.spike_trains(*ALONE, neuron, max_spikes=30, until=100.0, current=current, backend=backend)
    voltage, free, spikes = 0.0, -math.inf, []
    for level, begin, end in zip(
        values.tolist(), current.times.tolist(), [*current.times[1:].tolist(), 100.0], strict=True
    ):
        now = begin
        while now < end:
            if free > now:
                now, voltage = min(free, end), -0.1
                continue
            later = level + (voltage - level) * math.exp((now - end) / tau)
            if later < 1:
                now, voltage = end, later
                continue
            now += tau * math.log((level - voltage) / (level - 1))
            spikes.append(now)
            free = now + refractory
    assert len(spikes) > 4
    np.testing.assert_allclose(finite(found).numpy(), spikes, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_a_neuron_from_equations_against_scipy():
    values = 1.0 + 0.8 * noise(40)
    current = fs.Current.sampled(values, 2.5)
    neuron = fs.Neuron(
        "dv/dt = (v*(v - 1) + bias + i) / tau; di/dt = -i / 3", threshold="v > 3", reset="v = 0",
        receptors=["i"], tau=10.0, bias=0.1,
    )  # fmt: skip
    times, weight = torch.tensor([[[4.0, 31.0]]], **DOUBLE), torch.ones(1, 1, **DOUBLE)
    found = finite(fs.spike_trains(times, weight, neuron, max_spikes=20, until=100.0, current=current)).tolist()

    def crosses(t, y, *_):
        return y[0] - 3

    crosses.terminal, crosses.direction = True, 1
    ends, state, now, spikes = sorted({*(2.5 * k for k in range(1, 41)), 4.0, 31.0}), np.zeros(2), 0.0, []
    for end in ends:
        level = float(current.at(torch.tensor([now], **DOUBLE)))
        while now < end:
            run = solve_ivp(
                lambda t, y, level: [(y[0] * (y[0] - 1) + 0.1 + level + y[1]) / 10, -y[1] / 3], (now, end), state,
                args=(level,), events=crosses, rtol=1e-12, atol=1e-13,
            )  # fmt: skip
            now, state = run.t[-1], run.y[:, -1]
            if run.status == 1:
                spikes.append(now)
                state = np.array([0.0, state[1]])
        if end in (4.0, 31.0):
            state = state + np.array([0.0, 1.0])
    assert len(spikes) > 2
    np.testing.assert_allclose(found, spikes, rtol=0, atol=1e-8)


@pytest.mark.parametrize("neuron", [fs.LIF(tau_mem=2.0), pytest.param(AdEx(tau_mem=2.0), marks=pytest.mark.slow)])
def test_gradients_with_respect_to_values(neuron):
    scale = 1.0 if type(neuron) is fs.LIF else 4000.0
    steps, values = torch.linspace(0, 8, 6, **DOUBLE), scale * (1.5 + 0.3 * noise(1, 6))

    def spikes(values):
        current = fs.Current(steps, values)
        return finite(fs.spike_trains(*ALONE, neuron, max_spikes=40, until=10.0, current=current))[:4] * scale

    assert len(spikes(values)) > 2
    assert torch.autograd.gradcheck(spikes, values.requires_grad_(), eps=1e-5 * scale, atol=1e-6, rtol=1e-5)


def test_gradients_with_respect_to_a_time_constant():
    """A current adds to the bias, so that it is not divided by tau_mem as synaptic currents are."""
    tau = torch.tensor(10.0, **DOUBLE, requires_grad=True)
    current = fs.Current(torch.zeros(1, **DOUBLE), torch.full((1,), 1.5, **DOUBLE))
    found = fs.spike_trains(*ALONE, fs.LIF(tau_mem=tau), max_spikes=5, until=30.0, current=current)
    (slope,) = torch.autograd.grad(found[0, 0, 0], tau)
    assert float(slope) == pytest.approx(math.log(3), rel=1e-12)


@pytest.mark.parametrize("receptor", [[0, 1, 0], "sign"])
@pytest.mark.parametrize("delays", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_beside_inputs(receptor, delays):
    """A current for each neuron, for each sample and for both are what a call for each finds."""
    times, weight = (3 * noise(2, 3, 4).abs()).sort(-1).values, 0.6 * noise(5, 3, seed=1)
    neuron = fs.LIF(tau_mem=2.0, tau_syn=(1.0, 2.0), refractory=0.1)
    options = {"max_spikes": 30, "until": 10.0, "receptor": receptor}
    options["delay"] = noise(5, 3, seed=2).abs() if delays else None
    steps, values = torch.linspace(-1, 8, 7, **DOUBLE), 1.5 + 0.5 * noise(2, 5, 7, seed=3)

    def run(values, some=slice(None), chosen=slice(None)):
        given = dict(options, current=fs.Current(steps, values))
        given["delay"] = None if options["delay"] is None else options["delay"][chosen]
        return fs.spike_trains(times[some], weight[chosen], neuron, **given)

    whole = run(values)
    assert finite(whole).numel() > 20
    for sample in (0, 1):
        one = slice(sample, sample + 1)
        torch.testing.assert_close(whole[one], run(values[sample], one), rtol=0, atol=0)
        for j in range(5):
            chosen = slice(j, j + 1)
            torch.testing.assert_close(whole[one, chosen], run(values[sample, j], one, chosen), rtol=0, atol=1e-12)
    torch.testing.assert_close(run(values[:, :1]), run(values[:, :1].expand(2, 5, 7)), rtol=0, atol=0)


@pytest.mark.parametrize("recurrent", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_layers(recurrent):
    generator = torch.Generator().manual_seed(0)
    neuron = AdaptiveLIF(tau_mem=2.0, refractory=0.1, adaptation=[(5.0, 0.3)])
    options = {"neuron": neuron, "generator": generator, "dtype": torch.float64}
    if recurrent:
        layer = fs.SpikingRecurrent(2, 5, 60, 10.0, recurrent_std=0.4, window_spikes=8, **options)
    else:
        layer = fs.SpikeTrains(2, 5, 60, until=10.0, **options)
    times = (4 * noise(3, 2, 3).abs()).sort(-1).values
    current = fs.Current.sampled(0.9 + 0.6 * noise(3, 5, 20), 0.5, start=-0.25)
    found = layer(times, current=current)
    assert finite(found).numel() > 50
    layer.backend = "reference"
    torch.testing.assert_close(layer(times, current=current), found, rtol=0, atol=1e-12)
    layer.backend = "auto"
    torch.testing.assert_close(layer(times, found, current=current), found, rtol=0, atol=0)
    points = torch.linspace(-0.5, 10, 43, **DOUBLE)
    voltages = layer.voltages(times, points, current=current)
    assert float(voltages.detach().max()) < 1 + 1e-9
    just_before = finite(found.detach()[0, 0])[:3] - 1e-9
    torch.testing.assert_close(
        layer.voltages(times, just_before, current=current)[0, 0], torch.ones(3, **DOUBLE), rtol=0, atol=1e-7
    )
    if recurrent:
        state, pieces = None, []
        for until in (1.3, 4.0, 10.0):
            piece, state = layer.proceed(times, until, state, current=current)
            pieces.append(piece)
        pieced = torch.cat(pieces, dim=-1).sort(dim=-1).values[..., :60]
        torch.testing.assert_close(pieced, found, rtol=0, atol=1e-12)


def test_pieces_with_their_own_state():
    """The state shows no current; the next piece injects it again, from the value that holds there."""
    neuron, current = fs.LIF(tau_mem=2.0, tau_syn=1.0), fs.Current.sampled(1.0 + 0.6 * noise(1, 30), 0.3)
    whole = fs.spike_trains(*ALONE, neuron, max_spikes=20, until=10.0, current=current)
    state, pieces = None, []
    for until in (0.75, 4.1, 10.0):
        piece, state, _ = fs.spiketime.spike_window(
            *ALONE, neuron, max_spikes=20, state=state, until=until, current=current
        )
        assert state.current.shape == (1, 1)
        pieces.append(finite(piece))
    torch.testing.assert_close(torch.cat(pieces), finite(whole), rtol=0, atol=1e-13)


def test_values_at_times():
    current = fs.Current(torch.tensor([1.0, 2.0]), torch.tensor([[3.0, -1.0], [0.5, 0.0]]))
    found = current.at(torch.tensor([0.5, 1.0, 1.9, 2.0, 7.0]))
    assert found.tolist() == [[0.0, 3.0, 3.0, -1.0, -1.0], [0.0, 0.5, 0.5, 0.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_values_that_are_whole_numbers(dtype):
    """Their times are not, and that of a step down has a sign."""
    values = torch.tensor([3, 0, 2, 0, 5]).to(dtype)
    found, expected = (
        fs.spike_trains(*ALONE, fs.LIF(threshold=0.4), max_spikes=99, until=5.0, current=fs.Current.sampled(x, 0.7))
        for x in (values, values.double())
    )
    assert finite(expected).numel() > 2
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def steps(count):
    return torch.arange(count, **DOUBLE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fs.Current([0.0, 1.0], torch.ones(2)), "times must be a torch tensor, got list of shape (2,)"),
        (lambda: fs.Current(steps(2), torch.ones(3)), "times (2,) and values (3,)"),
        (lambda: fs.Current(-steps(2), torch.ones(2)), "times of a current must be sorted, got some that are before"),
        (lambda: fs.Current(steps(2), torch.full((2,), math.nan)), "values of a current must be finite, got 2 NaN"),
        (lambda: fs.Current.sampled([1.0, 2.0], 0.1), "values must be a torch tensor, got list of shape (2,)"),
        (lambda: fs.Current.sampled(torch.tensor(1.0), 0.1), "got times (1,) and values ()"),
        (lambda: fs.Current.sampled(torch.ones(2), -0.1), "dt must be > 0 and finite, got -0.1"),
        (lambda: fs.Current(steps(2), torch.ones(3, 2, 1, 2)), "(samples, neurons, steps), got"),
    ],
)
def test_what_is_no_current(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(
    ("neuron", "values", "more", "message"),
    [
        (fs.LIF(), torch.ones(3, 2), {}, "values (1, steps), got (3, 2)"),
        (fs.LIF(), torch.ones(4, 1, 2), {}, "a current for each sample needs times (samples, inputs, spikes), got"),
        (fs.LIF(tau_mem=math.inf), torch.ones(2), {}, "a current adds to the bias, which a neuron without leak"),
        (fs.Neuron("dv/dt = -v", threshold="v > 1", reset="v = 0", receptors=["v"]), torch.ones(2), {},
         "a current adds to the parameter bias, which the equations do not have"),
        (fs.LIF(), torch.ones(2), {"receptor": "sign"}, "receptor needs a neuron with several"),
        (fs.LIF(), torch.ones(2), {"current": torch.ones(2)}, "current must be a firstspike.Current, got Tensor"),
    ],
)  # fmt: skip
def test_currents_that_do_not_fit(neuron, values, more, message):
    given = {"current": fs.Current(steps(2), values)} | more
    with pytest.raises(ValueError, match=re.escape(message)):
        fs.spike_trains(*ALONE, neuron, max_spikes=2, until=5.0, **given)


NEST_RUN = textwrap.dedent(
    """
    import sys
    import nest
    import numpy as np

    given = np.load(sys.argv[1])
    nest.set_verbosity("M_ERROR")
    nest.ResetKernel()
    nest.resolution = 0.1
    cell = nest.Create("iaf_psc_exp_ps_lossless", 1, {
        "tau_m": 10.0, "tau_syn_ex": 3.0, "tau_syn_in": 3.0, "C_m": 10.0, "E_L": 0.0, "V_m": 0.0, "V_th": 1.0,
        "V_reset": 0.0, "t_ref": 2.0, "I_e": 0.0,
    })
    source = nest.Create("step_current_generator", 1, {
        "amplitude_times": given["times"].tolist(), "amplitude_values": given["values"].tolist(),
    })
    nest.Connect(source, cell, syn_spec={"weight": 1.0, "delay": 0.1})
    recorder = nest.Create("spike_recorder")
    nest.Connect(cell, recorder, syn_spec={"delay": 0.1})
    nest.Simulate(510.0)
    np.save(sys.argv[2], np.sort(recorder.get("events")["times"]))
    """
)


@pytest.mark.nest
@pytest.mark.slow
def test_as_nest_injects_it(tmp_path):
    """With 10 pF and 10 ms, pA are membranes at rest. What a generator says at a time arrives its delay later."""
    values = (1.1 + 0.5 * noise(5000)).numpy()
    times = np.round(0.1 * np.arange(1, 5001), 1)
    np.savez(tmp_path / "given.npz", times=times, values=values)
    command = [sys.executable, "-c", NEST_RUN, str(tmp_path / "given.npz"), str(tmp_path / "found.npy")]
    subprocess.run(command, check=True, capture_output=True, env={"PYNEST_QUIET": "1"})
    theirs = np.load(tmp_path / "found.npy")
    current = fs.Current(torch.from_numpy(times + 0.1), torch.from_numpy(values))
    neuron = fs.LIF(tau_mem=10.0, tau_syn=3.0, refractory=2.0)
    own = finite(fs.spike_trains(*ALONE, neuron, max_spikes=200, until=500.0, current=current)).numpy()
    assert len(own) > 15
    np.testing.assert_allclose(theirs[: len(own)], own, rtol=0, atol=1e-9)
