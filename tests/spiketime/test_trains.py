"""Spike trains against 50 digits: every ratio, refractory times, resets, ties, inhibition, bursts, windows."""

import math

import pytest
import torch

from firstspike import LIF, first_spike_time, spike_trains
from firstspike.spiketime import operator as module
from firstspike.spiketime import spike_window

pytestmark = pytest.mark.usefixtures("poisoned_memory")

INF = math.inf


def draw(seed=0, samples=2, inputs=6, copies=3, outputs=4, scale=2.5, span=4.0, dtype=torch.float64):
    """Some weights inhibit, some inputs arrive together, some never."""
    generator = torch.Generator().manual_seed(seed)
    times = torch.rand(samples, inputs, copies, generator=generator, dtype=torch.float64) * span
    times[:, 1] = times[:, 0]
    times[0, 2, 1:] = INF
    weight = (torch.rand(outputs, inputs, generator=generator, dtype=torch.float64) - 0.25) * scale
    weight[3:4] = -weight[3:4].abs()
    return times.to(dtype), weight.to(dtype)


def exact_trains(exact, times, weight, neuron, size, **options):
    """The trains (batch, out, size) in float64, and which of them do not hang on the last digits."""
    outputs, copies = len(weight), times.shape[-1]
    found = torch.full((len(times), outputs, size), INF, dtype=torch.float64)
    for b, sample in enumerate(times.double()):
        for o, row in enumerate(weight.double()):
            events = sample.flatten().tolist(), row.repeat_interleave(copies).tolist()
            spikes, _ = exact.spike_train(*events, neuron.tau_mem, neuron.tau_syn, neuron.threshold, **options)
            found[b, o, : len(spikes)] = torch.tensor([float(x) for x in spikes[:size]], dtype=torch.float64)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("refractory", "reset"), [(0.0, 0.0), (0.3, 0.0), (0.0, -0.5), (0.2, 0.4)])
def test_against_50_digits(refractory, reset, ratio, exact, backends_under_test):
    times, weight = draw()
    options = {"refractory": refractory, "reset": reset}
    neuron = LIF(ratio, 1.0, 0.6, **options)
    wanted = exact_trains(exact, times, weight, neuron, 40, **options)
    assert (wanted < INF).sum() > 20
    assert (wanted[:, 3] == INF).all()
    for backend in backends_under_test:
        found = spike_trains(times, weight, neuron, max_spikes=40, backend=backend)
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)


@pytest.mark.slow
def test_a_hundred_spikes(exact, backend):
    """Bursts: many spikes between two inputs."""
    times = torch.tensor([[[0.0], [3.0], [INF]]], dtype=torch.float64)
    weight = torch.tensor([[60.5, 60.0, 5.0], [90.5, -30.0, 1.0]], dtype=torch.float64)
    for ratio in (1.37, INF):
        found = spike_trains(times, weight, LIF(ratio), max_spikes=130, backend=backend)
        wanted = exact_trains(exact, times, weight, LIF(ratio), 130)
        assert (wanted < INF).sum(-1).max() >= 100
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [1, 63])
def test_float32(outputs, exact, backend):
    times, weight = draw(samples=1, outputs=outputs, dtype=torch.float32)
    found = spike_trains(times, weight, LIF(2.0), max_spikes=40, backend=backend)
    wanted = exact_trains(exact, times, weight, LIF(2.0), 40)
    same = (found < INF) == (wanted < INF)
    assert found.dtype == torch.float32
    assert same.all()
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)


def test_reset_by_subtraction_is_a_reset_to_zero(backend):
    """Between the spikes the membrane is that of all inputs, minus the threshold's decay from each spike."""
    times, weight = draw(copies=2)
    trains = spike_trains(times, weight, LIF(2.0), max_spikes=30, backend=backend)
    events, weights = times.flatten(1), weight.repeat_interleave(2, 1)

    def membrane(t, b, o):
        s = (t - events[b]).clamp(min=0).nan_to_num(0, 0, 0)
        free = (weights[o] * 2 * (torch.exp(-s / 2) - torch.exp(-s))).sum()
        before = trains[b, o][trains[b, o] < t]
        return free - torch.exp((before - t) / 2).sum()

    for b, o, k in (trains < INF).nonzero().tolist():
        assert membrane(trains[b, o, k], b, o).item() == pytest.approx(1.0, abs=1e-11)


@pytest.mark.parametrize("delayed", [False, True])
def test_one_spike_is_the_first(delayed, ratio, backend):
    times, weight = draw(copies=1)
    delay = torch.rand_like(weight) if delayed else None
    grads = []
    for trains in (False, True):
        x, w = times.clone().requires_grad_(), weight.clone().requires_grad_()
        if trains:
            out = spike_trains(x, w, LIF(ratio), max_spikes=1, backend=backend, delay=delay, overflow="drop")
            out = out.squeeze(-1)
        else:
            out = first_spike_time(x.squeeze(-1), w, LIF(ratio), delay=delay, backend=backend)
        torch.where(out < INF, out, 0.0).square().sum().backward()
        grads.append((out.detach(), x.grad, w.grad))
    for one, other in zip(*grads, strict=True):
        assert torch.equal(one, other)


def test_the_first_of_several_is_the_first(ratio, backend):
    times, weight = draw()
    first = first_spike_time(times.flatten(1), weight.repeat_interleave(3, 1), LIF(ratio), backend=backend)
    found = spike_trains(times, weight, LIF(ratio), max_spikes=40, backend=backend)
    torch.testing.assert_close(found[..., 0], first, rtol=1e-12, atol=1e-13)


def test_overflow(backend):
    times, weight = draw()
    trains = spike_trains(times, weight, LIF(2.0), max_spikes=40, backend=backend)
    count = (trains < INF).sum(-1)
    most = int(count.max()) - 1
    over = int((count > most).sum())
    with pytest.raises(ValueError, match=rf"{over} of 8 neurons .* spike more than max_spikes={most} times; raise"):
        spike_trains(times, weight, LIF(2.0), max_spikes=most, backend=backend)
    with pytest.warns(UserWarning, match=rf"{over} of 8 neurons .* later spikes are dropped"):
        found = spike_trains(times, weight, LIF(2.0), max_spikes=most, backend=backend, overflow="warn")
    assert torch.equal(found, trains[..., :most])
    window = spike_window(times, weight, LIF(2.0), max_spikes=most, backend=backend, overflow="drop")
    assert torch.equal(window.trains, found)
    assert torch.equal(window.overflows, count > most)
    assert torch.equal(
        spike_trains(times, weight, LIF(2.0), max_spikes=most + 1, backend=backend), trains[..., : most + 1]
    )
    with pytest.raises(ValueError, match="max_spikes=1 times"):
        spike_trains(times[..., :1], 9 * weight, LIF(2.0), max_spikes=1, backend=backend)


@pytest.mark.parametrize("dtype", [torch.float64, pytest.param(torch.float32, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("until", "refractory"), [(2.5, 0.0), (INF, 0.1)])
@pytest.mark.parametrize("unit", [2.0**13, 2.0**-13, 5000.0, 1e-6, 1e-3, 5e30])
def test_any_unit_of_time(unit, until, refractory, dtype, backend):
    """The same trains, and silence, up to an end, also in units that are far from the table of invariances."""
    times, weight = draw(samples=6, dtype=dtype)
    plain, scaled = (
        spike_trains(times * x, weight, LIF(2.0 * x, x, refractory=refractory * x), max_spikes=40, until=until * x,
                     backend=backend)
        for x in (1.0, unit)
    )  # fmt: skip
    assert 20 < int(plain.isfinite().sum()) < plain.numel() - 10
    assert torch.equal(scaled.isfinite(), plain.isfinite())
    assert bool((scaled[scaled < INF] <= until * unit).all())
    torch.testing.assert_close(scaled / unit, plain, rtol=1e-4 if dtype == torch.float32 else 1e-11, atol=0)


@pytest.mark.parametrize("ratio", [1.0, 1.37, INF])
@pytest.mark.parametrize("refractory", [0.0, 0.35])
def test_windows_are_one_long_call(refractory, ratio, exact, backend):
    times, weight = draw()
    options = {"refractory": refractory, "reset": 0.1}
    neuron = LIF(ratio, 1.0, 0.6, **options)
    whole = spike_trains(times, weight, neuron, max_spikes=40, backend=backend)
    state, parts = None, []
    for until in (0.7, 1.1, 1.3, 2.0, 6.0, INF):
        window = spike_window(times, weight, neuron, max_spikes=30, backend=backend, state=state, until=until)
        parts.append(window.trains)
        state = window.state
        if until == 1.3:
            for b in range(2):
                for o in range(4):
                    events = times[b].flatten().tolist(), weight[o].repeat_interleave(3).tolist()
                    _, wanted = exact.spike_train(*events, ratio, 1.0, 0.6, until=until, **options)
                    found = [float(x[b, o]) for x in state[:3]]
                    assert found == pytest.approx([float(x) for x in wanted], abs=1e-11)
    joined = torch.cat(parts, -1).sort(-1).values[..., :40]
    assert whole.isfinite().sum() > 20
    torch.testing.assert_close(joined, whole, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("observes", [False, True])
@pytest.mark.parametrize("delayed", [False, True])
def test_results_may_be_changed_in_place(delayed, observes, backend):
    """What is returned is no view of something else, of which autograd refuses that."""
    times, weight = draw()
    options = {"delay": torch.zeros_like(weight) if delayed else None, "max_spikes": 20, "until": 3.0}
    options["observed"] = spike_window(times, weight, LIF(2.0), **options).trains if observes else None
    found = spike_window(times, weight.requires_grad_(), LIF(2.0), backend=backend, **options)
    for x in (found.trains, *found.state[:3]):
        before = x.detach().clone()
        assert torch.equal(x.mul_(2).detach(), before * 2)


def test_nothing_happens(backend):
    """No inputs, none that arrives, no excitation, no neurons, no samples."""
    weight = torch.ones(3, 2, dtype=torch.float64)
    silent = torch.full((4, 3, 5), INF, dtype=torch.float64)
    never = torch.full((4, 2, 6), INF, dtype=torch.float64)
    options = {"neuron": LIF(), "max_spikes": 5, "backend": backend}
    assert torch.equal(spike_trains(never, weight, **options), silent)
    assert torch.equal(spike_trains(torch.zeros(4, 2, 0).double(), weight, **options), silent)
    assert torch.equal(spike_trains(torch.zeros(4, 0, 6).double(), weight[:, :0], **options), silent)
    assert torch.equal(spike_trains(torch.zeros(4, 2, 6).double(), -weight, **options), silent)
    assert spike_trains(never, weight[:0], **options).shape == (4, 0, 5)
    assert spike_trains(never[:0], weight, **options).shape == (0, 3, 5)
    assert spike_trains(never[0], weight, **options).shape == (3, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": torch.zeros(3)}, r"expected times \(\.\.\., inputs, K\) and weight .*, got times \(3,\)"),
        ({"times": torch.zeros(2, 4, 3)}, "same number of inputs"),
        ({"max_spikes": 0}, "max_spikes must be a whole number >= 1, got 0"),
        ({"max_spikes": 2.0}, "max_spikes must be a whole number"),
        ({"overflow": "ignore"}, "overflow must be one of error, warn, drop, got 'ignore'"),
        ({"observed": torch.zeros(2, 5, 3)}, r"observed must have the shape \(2, 5, 4\)"),
        ({"observed": torch.tensor([2.0, 1.0, INF, INF]).expand(2, 5, 4)}, "observed trains must be sorted"),
        ({"until": 1.0, "observed": torch.tensor([0.5, 2.0, INF, INF]).expand(2, 5, 4)}, "not after until=1.0"),
        ({"backend": "gpu"}, "backend must be one of"),
        ({"times": torch.full((2, 3, 2), math.nan)}, "times must be real numbers or inf"),
        ({"until": 1e39}, r"until must be .*float32"),
        ({"until": 1e30, "times": torch.zeros(2, 3, 2), "neuron": LIF(2e-13, 1e-13)}, r"until must be .*float32"),
    ],
)
def test_refused(change, message):
    given = {"times": torch.rand(2, 3, 2), "weight": torch.rand(5, 3), "neuron": LIF(), "max_spikes": 4}
    with pytest.raises(ValueError, match=message):
        spike_trains(**(given | change))


def test_refused_states(backend):
    times, weight = draw(copies=1)
    state = spike_window(times, weight, LIF(), max_spikes=20, backend=backend, until=1.0).state
    assert state.time == 1.0
    with pytest.raises(ValueError, match=r"until must be later than the time of the state, got 1\.0 and 1\.0"):
        spike_window(times, weight, LIF(), max_spikes=20, backend=backend, state=state, until=1.0)
    with pytest.raises(ValueError, match=r"state\.voltage must have the shape \(2, 4\)"):
        spike_window(
            times, weight, LIF(), max_spikes=20, backend=backend, state=state._replace(voltage=state.voltage[0])
        )
    with pytest.raises(ValueError, match=r"state\.current must be finite"):
        spike_window(
            times, weight, LIF(), max_spikes=20, backend=backend, state=state._replace(current=state.current + INF)
        )


@pytest.mark.parametrize("observes", [False, True])
def test_one_spike_is_computed_once(observes, monkeypatch, backend):
    """By the kernels of first spikes where nobody asks for a second one, otherwise by those of trains."""
    times, weight = draw(copies=1)
    seen = torch.full((2, 4, 1), 2.0, dtype=torch.float64) if observes else None
    calls, first = [], module.first_spike_time
    monkeypatch.setattr(
        module, "first_spike_time", lambda *args, **options: calls.append("single") or first(*args, **options)
    )
    for overflow in ("drop", "error"):
        options = {"max_spikes": 1, "overflow": overflow, "backend": backend, "observed": seen}
        spike_trains(times, 0.3 * weight, LIF(2.0), **options)
    assert calls == (["single", "single"] if observes else ["single"])
    with pytest.raises(ValueError, match="reset must be finite and below the threshold"):
        spike_trains(times, weight, LIF(2.0, reset=2.0), max_spikes=1, overflow="drop", backend=backend)
    assert spike_window(times, weight, LIF(2.0), max_spikes=1, overflow="drop", backend=backend).overflows.any()
