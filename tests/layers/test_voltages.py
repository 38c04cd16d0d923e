"""Membranes at given times as data."""

import math

import pytest
import torch

import firstspike as fs
from firstspike.layers import states_at
from firstspike.spiketime import spike_window, states

AT = torch.tensor([0.3, 4.0, 1.1, 1.1, 2.7, 7.5], dtype=torch.float64)
NEURONS = {
    "lif": fs.LIF(tau_mem=2.0, refractory=0.2),
    "receptors": fs.LIF(tau_mem=2.0, tau_syn=(1.0, 0.5), bias=0.2, refractory=0.3),
    "adaptive": fs.neurons.AdaptiveLIF(adaptation=[(2.0, 0.3)], refractory=0.1),
}
LAYERS = {
    "first": (fs.SpikingLinear, ()),
    "trains": (fs.SpikeTrains, (30,)),
    "recurrent": (fs.SpikingRecurrent, (30, 8.0)),
}


def built(layer, neuron):
    kind, sizes = LAYERS[layer]
    options = {"generator": torch.Generator().manual_seed(0), "dtype": torch.float64}
    if isinstance(neuron.values["tau_syn"], tuple):
        options["receptor"] = [0, 0, 0, 1, 1]
    if layer == "recurrent":
        options |= {"window_spikes": 20, "recurrent_std": 0.3}
        options |= {"recurrent_receptor": [0] * 4} if "receptor" in options else {}
    return kind(5, 4, *sizes, neuron, **options)


def inputs(samples=2):
    return torch.rand(samples, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3


@pytest.mark.parametrize(
    ("layer", "neuron"),
    [
        pytest.param(
            layer, neuron, marks=[pytest.mark.slow] * (layer != "trains" and neuron in ("receptors", "adaptive"))
        )
        for layer in LAYERS
        for neuron in NEURONS
    ],
)
def test_as_the_states_of_windows_that_end_there(layer, neuron):
    made, times = built(layer, NEURONS[neuron]), inputs()
    spikes = made(times).detach()
    found = made.voltages(times, AT).detach()
    assert found.shape == (2, 4, len(AT))
    seen = made.fed(times, spikes if layer == "recurrent" else None)
    given = {"delay": seen.delay, "receptor": seen.receptor, "max_spikes": 30, "backend": "reference"}
    for point, time in enumerate(AT.tolist()):
        runs = made.neuron.without_spikes() if layer == "first" else made.neuron
        expected = spike_window(seen.times, seen.weight, runs, until=time, **given).state.voltage
        torch.testing.assert_close(found[..., point], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layer", LAYERS)
def test_gradients(layer):
    made, times = built(layer, NEURONS["lif"]), inputs().requires_grad_()
    assert torch.autograd.gradcheck(lambda times: made.voltages(times, AT), times, atol=1e-6)

    weight = made.weight.detach().clone()
    (slope,) = torch.autograd.grad(made.voltages(times, AT).sin().sum(), made.weight)
    step = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 1e-6
    with torch.no_grad():
        values = []
        for side in (1, -1):
            made.weight.copy_(weight + side * step)
            values.append(made.voltages(times, AT).sin().sum())
    torch.testing.assert_close((values[0] - values[1]) / 2, (slope * step).sum(), rtol=1e-5, atol=1e-12)


def test_neurons_from_equations_begin_at_their_start():
    layer = fs.SpikeTrains(5, 4, 20, fs.neurons.AdEx(), until=50.0, dtype=torch.float64)
    found = layer.voltages(inputs() * 5, torch.tensor([-1.0, 0.0, 20.0]))
    assert (found[..., :2] == -70.6).all()
    assert (found[..., 2] > -70.6).any()


def test_readout():
    readout = fs.MembraneReadout(5, 3, time=2.5, dtype=torch.float64)
    torch.testing.assert_close(readout.voltages(inputs(), torch.tensor([2.5]))[..., 0], readout(inputs()))


def test_observed_spikes_reset():
    layer, times = built("trains", fs.LIF()), inputs()
    observed = torch.tensor([1.0, math.inf], dtype=torch.float64).expand(2, 4, 2)
    before, after = layer.voltages(times, torch.tensor([0.9, 1.0]), observed).unbind(-1)
    assert (after.abs() < 1e-15).all()
    assert (before.abs() > 1e-6).all()


def test_layers_of_a_network():
    network = fs.Network(*(built("trains", fs.LIF()) for _ in range(1)), fs.IntegralReadout(4, 2, dtype=torch.float64))
    times = inputs()
    torch.testing.assert_close(network.voltages(times, AT, layer=0), network[0].voltages(times, AT))
    torch.testing.assert_close(network.voltages(times, AT), network[1].voltages(network[0](times), AT))
    with pytest.raises(ValueError, match=r"layer: expected one with neurons, of \[0, 1\], got 5"):
        network.voltages(times, AT, layer=5)


@pytest.mark.parametrize(
    ("layer", "at", "message"),
    [
        ("trains", torch.tensor([math.inf]), r"at: expected finite times \(points,\)"),
        ("trains", torch.rand(2, 2), r"at: expected finite times \(points,\)"),
        ("trains", [1.0], r"at: expected finite times \(points,\), such as torch.tensor\(\[1.0, 2.0\]\), got \[1.0\]"),
        ("trains", 1.0, r"at: expected finite times \(points,\), .* got 1.0"),
        ("trains", torch.tensor([1j]), "at: .* got torch.complex64"),
        ("recurrent", torch.tensor([9.0]), "at: the layer stops at 8, got a time of 9"),
    ],
)
def test_wrong_times(layer, at, message):
    with pytest.raises(ValueError, match=message):
        built(layer, fs.LIF()).voltages(inputs(), at)
    conv = fs.LIFConv2d((1, 4, 4), 2, 3)
    with pytest.raises(ValueError, match="has no voltages"):
        conv.voltages(torch.rand(1, 16), torch.tensor([1.0]))


@pytest.mark.parametrize("neuron", [fs.LIF(), fs.LIF(bias=0.1), fs.neurons.AdLIF()])
@pytest.mark.parametrize("observed", [False, True])
def test_no_points(neuron, observed):
    end = {} if neuron.equations is None else {"until": 8.0}
    layer = fs.SpikeTrains(5, 4, 30, neuron, dtype=torch.float64, **end)
    spikes = torch.full((2, 4, 30), math.inf, dtype=torch.float64) if observed else None
    assert layer.voltages(inputs(), AT[:0], spikes).shape == (2, 4, 0)


def linear(neuron, at, observed=None, dtype=torch.float64, **options):
    """Voltages and other states of three neurons with random inputs."""
    draw = torch.Generator().manual_seed(7)
    times = torch.rand(2, 5, 3, generator=draw, dtype=torch.float64) * 6
    times[:, 1] = times[:, 0]  # several at a time
    weight = torch.rand(3, 5, generator=draw, dtype=torch.float64) * 1.2
    if isinstance(neuron.values["tau_syn"], tuple):
        options["receptor"] = [0, 0, 0, 1, 1]
    return states_at(
        at,
        times.to(dtype),
        weight.to(dtype),
        neuron,
        observed=observed,
        **({} if observed is not None else {"max_spikes": 30}),
        **options,
    )


SEEN = torch.tensor([[[0.7, 1.9, 3.3], [1.1, 5.3, math.inf], [math.inf] * 3]] * 2, dtype=torch.float64)


@pytest.mark.parametrize("neuron", NEURONS.values(), ids=NEURONS)
@pytest.mark.parametrize("at", [torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_and_spikes_of_different_dtypes(neuron, at, dtype):
    points = torch.tensor([0.5, 1.0, 1.5, 2.0, 3.25, 5.5, 8.0], dtype=torch.float64)
    expected = linear(neuron, points, SEEN)
    for one, other in zip(linear(neuron, points.to(at), SEEN, dtype), expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-5)
    seen = SEEN.to(torch.float32)  # at a spike that is the same number in another dtype, it is over
    assert (linear(neuron, seen[0, 0], seen.double(), torch.float64)[0][:, 0] == 0).all()


def test_a_reset_is_not_rounded():
    seen = torch.tensor([1.0], dtype=torch.float64).expand(2, 3, 1)
    neuron = fs.neurons.AdaptiveLIF(reset=-0.3, refractory=0.1, threshold_adaptation=[(2.0, 0.7)])
    voltage, others = linear(neuron, torch.tensor([1.0, 1.1], dtype=torch.float64), seen)
    assert (voltage == -0.3).all()
    assert (others[..., 0, -1] == 0.7).all()
    izhikevich = fs.neurons.Izhikevich(c=-65.3)
    voltage, _ = states_at(seen[0, 0], 60.0 * seen[:, :1], seen[0, :, :1], izhikevich, observed=seen)
    assert (voltage == -65.3).all()


@pytest.mark.slow  # it has kernels of its own to compile
def test_just_after_an_input():
    """Also where it moves the membrane at once, and where the inputs of a neuron have delays."""
    times = torch.tensor([[[0.0, 2.0], [1.0, math.inf]]], dtype=torch.float64)
    weight, at = torch.tensor([[0.5, 0.25]], dtype=torch.float64), torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    jumping = fs.Neuron("dv/dt = -v/tau", threshold="v > 1", reset="v = 0", receptors=["v"], tau=1.0)
    e = math.exp(-1.0)
    expected = torch.tensor([0.5, 0.5 * e + 0.25, (0.5 * e + 0.25) * e + 0.5], dtype=torch.float64)
    for delay in (None, torch.zeros_like(weight)):
        voltage, _ = states_at(at, times, weight, jumping, delay=delay)
        torch.testing.assert_close(voltage[0, 0], expected)
        for neuron in (fs.LIF(), fs.LIF(bias=0.1)):
            torch.testing.assert_close(states_at(at, times, weight, neuron, delay=delay)[1][0, 0, :, 0], expected)
    late = states_at(at + 0.5, times, weight, jumping, delay=torch.full_like(weight, 0.5))[0]
    torch.testing.assert_close(late[0, 0], expected)


@pytest.mark.parametrize("seen", [None, SEEN], ids=["own", "observed"])
def test_linear_neurons_take_one_call(seen, monkeypatch):
    calls = []

    def counted(*given, **options):
        calls.append(given)
        return spike_window(*given, **options)

    monkeypatch.setattr("firstspike.layers.voltages.spike_window", counted)
    for neuron in NEURONS.values():
        linear(neuron, torch.linspace(-1, 8, 500, dtype=torch.float64), seen)
    assert len(calls) == (len(NEURONS) if seen is None else 0)


@pytest.mark.parametrize("seen", [None, SEEN], ids=["own", "observed"])
@pytest.mark.parametrize("neuron", NEURONS.values(), ids=NEURONS)
def test_blocks_of_points_change_nothing(neuron, seen, monkeypatch):
    results = []
    at = torch.linspace(-1, 8, 40, dtype=torch.float64)[torch.randperm(40, generator=torch.Generator().manual_seed(0))]
    for size in (1 << 20, 42):
        monkeypatch.setattr(states, "_AT_ONCE", size)
        tau = torch.tensor([1.5, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
        voltage, others = linear(neuron.with_values(tau_mem=tau), at, seen)
        slope = torch.autograd.grad(voltage.sin().sum() + others.cos().sum(), tau)
        results.append((voltage.detach(), others.detach(), *slope))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("neuron", [fs.LIF(refractory=0.1), fs.LIF(refractory=0.1, bias=0.6)])
def test_neurons_without_room_stay_at_their_reset(neuron):
    """From the first spike on that there is no room for, whichever points there are."""
    at = torch.linspace(0, 8, 200, dtype=torch.float64)
    draw = torch.Generator().manual_seed(7)
    times = torch.rand(1, 5, 3, generator=draw, dtype=torch.float64) * 6
    weight = torch.rand(3, 5, generator=draw, dtype=torch.float64) * 1.2
    spikes = fs.spike_trains(times, weight, neuron, max_spikes=30, until=8.0)
    found, whole = (states_at(at, times, weight, neuron, max_spikes=most)[0] for most in (2, 30))
    assert spikes[..., 2].isfinite().all()
    after = at >= spikes[..., 2:3]
    assert (found[after] == 0).all()
    torch.testing.assert_close(found[~after], whole[~after])


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by torch itself, in forward mode
@pytest.mark.parametrize("seen", [None, SEEN], ids=["own", "observed"])
@pytest.mark.parametrize("kind", ["lif", "rise", "adaptive"])
def test_gradients_in_all_numbers(kind, seen):
    def run(tau_mem, tau_syn, other, refractory):
        shared = {"tau_mem": tau_mem, "tau_syn": tau_syn, "refractory": refractory}
        if kind == "lif":
            neuron = fs.LIF(reset=-other, **shared)
        elif kind == "rise":
            neuron = fs.LIF(tau_rise=other, bias=0.3, **shared)
        else:
            neuron = fs.neurons.AdaptiveLIF(adaptation=[(other, 0.2)], threshold_adaptation=[(2.0, other)], **shared)
        return linear(neuron, AT, seen)[0].sum(dim=0)

    numbers = [1.5, 1.0, 2.0], [1.0, 1.0, 0.5], [0.4, 1.0, 0.7], [0.2, 0.2, 0.2]
    given = [torch.tensor(x, dtype=torch.float64) for x in numbers]
    assert torch.autograd.gradcheck(run, [x.clone().requires_grad_() for x in given], atol=1e-6)
    along = [torch.rand_like(x) for x in given]
    _, forward = torch.func.jvp(run, tuple(given), tuple(along))
    slopes = torch.func.jacrev(run, argnums=(0, 1, 2, 3))(*given)
    assert all(slope.any() for slope in slopes)
    torch.testing.assert_close(forward, sum(slope @ x for slope, x in zip(slopes, along, strict=True)))


@pytest.mark.parametrize("neuron", [*NEURONS.values(), pytest.param(fs.neurons.EIF(), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("seen", [False, True])
def test_each_neuron_has_points_of_its_own(neuron, seen, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    times, at, weight, observed = (
        size * torch.rand(*shape, generator=generator, dtype=torch.float64)
        for size, shape in ((3.0, (4, 3, 2)), (6.0, (4, 2, 5)), (2.0, (2, 3)), (5.0, (4, 2, 2)))
    )
    given = {"max_spikes": 30, "observed": observed.sort(dim=-1).values if seen else None}
    given |= {"receptor": [0, 1, 0]} if len(neuron.receptors) > 1 else {}
    weight.requires_grad_()
    shared = [x.unflatten(2, at.shape) for x in states_at(at.flatten(), times, weight, neuron, **given)]
    both = [torch.stack([torch.stack([x[b, j, b, j] for j in range(2)]) for b in range(4)]) for x in shared]
    monkeypatch.setattr(states, "_AT_ONCE", 60)
    found = states_at(at, times, weight, neuron, **given)
    for one, other in zip(found, both, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    by = [torch.autograd.grad(x.square().sum(), weight)[0] for x in (found[0], both[0])]
    torch.testing.assert_close(*by, rtol=1e-8, atol=1e-10)
    with pytest.raises(ValueError, match=r"those of each neuron are \(4, 2, 'points'\)"):
        states_at(at[:2], times, weight, neuron, **given)
