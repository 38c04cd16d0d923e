"""Neurons that are found by their spikes, by their membrane, or both."""

import math

import pytest
import torch

import firstspike as fs
from firstspike.fitting import with_named
from firstspike.fitting.recording import within

pytestmark = pytest.mark.filterwarnings(  # torch itself, when forward mode is first used
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
)
NONE, WEIGHT = torch.full((1, 1, 1), math.inf), torch.zeros(1, 1, dtype=torch.float64)
UNTIL = 300.0
MAT = fs.neurons.AdaptiveLIF(12.0, 3.0, 10.0, None, 2.0, threshold_adaptation=[(50.0, 3.0)])


def noise(mean, std, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return fs.Current.sampled(mean + std * torch.randn(int(UNTIL), generator=generator, dtype=torch.float64), 1.0)


def recorded(neuron, current):
    found = fs.spike_trains(NONE, WEIGHT, neuron, max_spikes=100, until=UNTIL, current=current)[0, 0]
    return found[found.isfinite()]


def seen(neuron, current, spikes, count=20):
    at = torch.linspace(3.0, UNTIL - 1, count, dtype=torch.float64)
    given = {"observed": spikes[None, None], "current": current}
    return at, fs.layers.states_at(at, NONE, WEIGHT, neuron, **given)[0][0, 0]


def check(fit, rtol=1e-6, **values):
    for name, value in values.items():
        assert fit.values[name] == pytest.approx(value, rel=rtol), name
    assert len(str(fit).splitlines()) == len(values)


def test_lif_neurons_are_found_by_their_spikes():
    """In units of a resistance: the current is in pA, and the membrane in mV."""
    hidden, current = fs.LIF(15.0, 3.0, 12.0, refractory=2.0), noise(20.0, 20.0)
    spikes = recorded(hidden, current)
    in_pa = fs.Current(current.times, current.values / 0.05)
    bounds = {"tau_mem": (5, 50), "gain": (0.01, 0.2)}
    fit = fs.fit_neuron(hidden.with_values(tau_mem=30.0), bounds, fs.Recording(spikes, in_pa), starts=8, keep=2)
    check(fit, tau_mem=15.0, gain=0.05)
    assert fit.neuron == hidden.with_values(tau_mem=fit.values["tau_mem"])
    assert fit.at_spikes < 1e-8
    assert math.isnan(fit.of_voltage)
    assert list(fit.costs) == sorted(fit.costs)


def test_by_the_membrane_alone_which_has_a_rest():
    hidden, current = fs.LIF(15.0, 3.0, 12.0), noise(5.0, 5.0)
    at, voltage = seen(hidden, current, torch.empty(0, dtype=torch.float64))
    recording = fs.Recording(torch.empty(0), current, voltage=(at, voltage - 65.0))
    fit = fs.fit_neuron(hidden, {"tau_mem": (5, 50), "rest": (-90, -40)}, recording, starts=8, keep=2)
    check(fit, tau_mem=15.0, rest=-65.0)


def test_thresholds_that_adapt_and_weights_that_depend_on_the_neuron():
    generator = torch.Generator().manual_seed(0)
    times = (UNTIL * torch.rand(20, 12, generator=generator, dtype=torch.float64)).sort(dim=-1).values
    jumps = 0.2 + torch.rand(20, generator=generator, dtype=torch.float64)
    spikes = fs.spike_trains(times, 3.0 * jumps[None], MAT, max_spikes=100, until=UNTIL)[0]
    spikes = spikes[spikes.isfinite()]
    recording = fs.Recording(spikes, times=times, weight=lambda one: one.tau_syn[:, None] * jumps)
    bounds = {"tau_syn": (1, 9), "threshold": (5, 20), "threshold_jump_0": (1, 9), "threshold_tau_0": (20, 120)}
    fit = fs.fit_neuron(MAT, bounds, [recording, recording], starts=32, keep=4)
    check(fit, tau_syn=3.0, threshold=10.0, threshold_jump_0=3.0, threshold_tau_0=50.0)


def test_errors_are_those_of_a_jitter():
    hidden, current = fs.LIF(15.0, 3.0, 12.0, refractory=2.0), noise(20.0, 20.0)
    spikes = recorded(hidden, current)
    off = 0.1 * torch.randn(len(spikes), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    bounds = {"tau_mem": (5, 50), "threshold": (5, 30)}
    given = fs.Recording((spikes + off).sort().values, current)
    fit = fs.fit_neuron(hidden, bounds, given, noise="times", starts=8, keep=2)
    assert 0.05 < fit.at_spikes < 0.15
    for name, value in (("tau_mem", 15.0), ("threshold", 12.0)):
        assert 0 < abs(fit.values[name] - value) < 2 * fit.errors[name] < 0.3 * value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hidden", "current", "bounds"),
    [
        (fs.neurons.QIF(10.0, 5.0), (0.8, 0.8), {"tau_mem": (3, 30)}),
        (fs.neurons.AdEx(refractory=2.0, b=60.0), (900.0, 700.0), {"tau_mem": (4, 40), "b": (10, 200)}),
        (
            fs.Neuron("dv/dt = (bias - v)/tau", threshold="v > 1", reset="v = 0", receptors=["v"], tau=9.0, bias=0.0),
            (1.5, 1.0), {"tau": (3, 30), "bias": (-0.4, 0.4)},
        ),
    ],
    ids=["QIF", "AdEx", "own"],
)  # fmt: skip
def test_neurons_from_equations_are_found(hidden, current, bounds):
    current = noise(*current)
    spikes = recorded(hidden, current)
    assert len(spikes) > 4
    voltage = None if isinstance(hidden, fs.neurons.QIF) else seen(hidden, current, spikes)  # it is infinite at spikes
    recording = fs.Recording(spikes, current, voltage=voltage)
    fit = fs.fit_neuron(hidden, bounds, recording, starts=16, keep=2)
    for name in bounds:
        assert fit.values[name] == pytest.approx(getattr(hidden, name), rel=1e-6, abs=1e-9)


def test_membranes_that_run_away_wait_at_their_reset():
    """The recorded spikes are late: without waiting, the membrane has no value between."""
    neuron, current = fs.neurons.AdEx(refractory=2.0), noise(800.0, 600.0)
    assert neuron.equations.runs_away
    assert not fs.neurons.AdLIF().equations.runs_away
    spikes = recorded(neuron, current)
    at = spikes[0] + torch.tensor([-1.0, 0.5, 4.5, 8.0], dtype=torch.float64)
    given = {"observed": spikes[None, None] + 5.0, "current": current}
    voltage = fs.layers.states_at(at, NONE, WEIGHT, neuron, **given)[0][0, 0]
    assert voltage.isfinite().all()
    assert (voltage == -70.6).tolist() == [False, True, True, False]


def test_only_steps_that_matter():
    current = fs.Current(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    assert within(current, 2.0, 3.5).times.tolist() == [2.0, 3.0]
    assert within(current, 0.0, 0.5).times.tolist() == [1.0]
    assert within(current, 9.0, 9.5).values.tolist() == [[4.0]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"spikes": torch.tensor([2.0, 1.0])}, "sorted"),
        ({"spikes": torch.tensor([1.0, math.inf])}, "finite numbers"),
        ({"spikes": torch.empty(0)}, "got neither"),
        ({"spikes": torch.ones(1), "times": torch.ones(2, 1)}, r"weight \(inputs,\)"),
        ({"spikes": torch.ones(1), "voltage": (torch.ones(1), torch.ones(2))}, "as many times of a voltage"),
        ({"spikes": torch.ones(1), "current": torch.ones(3)}, r"a current of one neuron, fs.Current\(times, values\)"),
        ({"spikes": torch.ones(1), "current": fs.Current(torch.ones(1), torch.ones(3, 1))}, "a current of one neuron"),
    ],
    ids=["order", "inf", "nothing", "weights", "voltage", "current", "currents"],
)
def test_recordings_are_checked(given, message):
    with pytest.raises(ValueError, match=message):
        fs.Recording(**given)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bounds": {"tau": (1, 2)}}, "the neuron has tau_mem, .*, got tau"),
        ({"bounds": {"tau_mem": (2, 1)}}, "a lower and an upper one for tau_mem"),
        ({"bounds": {"tau_mem": ("1", "2")}}, "a lower and an upper one for tau_mem"),
        ({"bounds": {"tau_mem": (0, 2)}}, "tau_mem must be > 0, got 0"),
        ({"bounds": {"reset": (-1, 2)}}, "reset must be finite and below the threshold"),
        ({"bounds": {}}, "at least one"),
        ({"bounds": [("tau_mem", 1, 2)]}, "at least one, such as"),
        ({"recordings": []}, "recordings: expected an fs.Recording, or a list"),
        ({"recordings": torch.ones(2)}, "recordings: expected an fs.Recording, or a list"),
        ({"neuron": fs.LIF}, "neuron must be a LIF"),
        ({"neuron": fs.LIF(torch.ones(3))}, "one value of each, got several of tau_mem"),
        ({"starts": 0}, "starts must be > 0"),
        ({"keep": 0}, "keep must be > 0"),
        ({"steps": -1}, "steps must be > 0"),
    ],
)
def test_arguments_are_checked(wrong, message):
    given = {"neuron": fs.LIF(), "bounds": {"tau_mem": (1, 2)}} | wrong
    with pytest.raises(ValueError, match=message):
        fs.fit_neuron(**({"recordings": fs.Recording(torch.ones(1), noise(1.0, 1.0))} | given))


def test_several_values_have_names():
    assert with_named(MAT, {"threshold_tau_0": 9.0}).threshold_tau == (9.0,)
