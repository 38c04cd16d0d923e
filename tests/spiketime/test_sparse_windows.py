"""Kernels of sparse recurrent layers against those of dense ones, which have zeros where no synapse is."""

import math

import pytest
import torch
from torch import Tensor, nn

from agreement import DOUBLE
from firstspike import LIF
from firstspike.layers.windows import window_bounds
from firstspike.neurons import AdaptiveLIF, Neuron
from firstspike.spiketime import TrainState, shared, spike_window
from firstspike.spiketime.contract import Recurrence, Rows
from firstspike.spiketime.cpu.lanes import sizes
from firstspike.spiketime.cpu.runtime import parallel
from firstspike.spiketime.cpu.sparse import host

INPUTS, UNTIL, WINDOW = 20, 12.0, 1.5
LISTED, SIGN = {"receptor": True}, {"receptor": "sign"}


def own(low: float, high: float) -> nn.Parameter:
    """Values of 100 neurons."""
    return nn.Parameter(low + (high - low) * torch.rand(100, generator=torch.Generator().manual_seed(3), **DOUBLE))


def learnt(value: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(value, **DOUBLE))


NEURONS: dict[str, tuple[Neuron, dict]] = {
    "lif": (LIF(2.0, 1.0), {}),
    "refractory": (LIF(2.0, 1.0, refractory=0.5, reset=-0.3), {}),
    "learnt": (LIF(learnt(2.0), learnt(1.0), threshold=learnt(1.1), refractory=learnt(0.2)), {}),
    "own": (LIF(own(1.5, 3.0), own(0.5, 1.2)), {}),
    "receptors": (LIF(2.0, (1.0, 0.6)), LISTED),
    "receptors by sign": (LIF(2.0, (1.0, 0.6)), SIGN),
    "own receptors": (LIF(own(1.5, 300.0), (own(0.5, 1.2), own(0.01, 0.5)), threshold=own(0.8, 1.2)), LISTED),
    "bias": (LIF(2.0, 1.0, bias=0.5), {}),
    "rises": (LIF(2.0, (1.0, 0.7), tau_rise=(0.4, 0.3)), LISTED),
    "own rises": (
        LIF(own(1.5, 3), (own(0.5, 1.2), own(0.2, 0.5)), tau_rise=(own(0.1, 0.4), own(0.1, 0.3)), bias=own(0.1, 0.3)),
        SIGN,
    ),
    "threshold": (AdaptiveLIF(2.0, 1.0, threshold_adaptation=[(5.0, 0.3)]), {}),
    "adaptation": (AdaptiveLIF(2.0, learnt(1.0), adaptation=[(5.0, 0.3)]), {}),
    "no reset": (LIF(2.0, (1.0, 0.6), reset=None, refractory=0.3), SIGN),
}


def structure(there: Tensor) -> tuple[Rows, tuple[Tensor, Tensor]]:
    """Synapses where a matrix ``(outputs, sources)`` is true, and their places in it."""
    source, target = there.T.nonzero(as_tuple=True)
    offsets = torch.searchsorted(source, torch.arange(there.shape[1] + 1))
    return Rows(offsets, target.int(), len(there)), (target, source)


def both(
    neuron: Neuron, more: dict, delays: bool, *, outputs: int = 100, batch: int = 2, window: float = WINDOW,
    strength: float = 1.0, dtype=torch.float64,
):  # fmt: skip
    """Trains, state and gradients of all that has one, by the dense kernels and by the sparse ones."""
    draw = torch.Generator().manual_seed(outputs + batch)
    there = torch.rand(outputs, INPUTS + outputs, generator=draw) < 0.2
    drawn = torch.randn(there.shape, generator=draw, **DOUBLE) * 0.9 + 0.25
    weight = torch.where(there, drawn * strength * math.sqrt(100 / outputs), 0.0)
    weight[:, INPUTS:] *= 0.5
    times = UNTIL * 0.8 * torch.rand(batch, INPUTS, 3, generator=draw, **DOUBLE)
    times[torch.rand(times.shape, generator=draw) < 0.1] = math.inf
    delay = 2 * torch.rand(there.shape, generator=draw, **DOUBLE)
    delay[:, INPUTS:] += window
    receptor = more.get("receptor")
    receptor = [k % 2 for k in range(there.shape[1])] if receptor is True else receptor
    bounds = window_bounds(0.0 if neuron.begins else None, UNTIL, window, dtype, times)
    rows, places = structure(there)
    parameters = [x for each in neuron.values.values() for x in (each if isinstance(each, tuple) else (each,))]
    parameters = [x for x in parameters if isinstance(x, nn.Parameter)]
    found = []
    for sparse in (None, rows):
        given = [times, weight, *[delay] * delays]
        if sparse is not None:
            given = [times, *(x[places] for x in given[1:])]
        given = [x.to(dtype).requires_grad_() for x in given]
        result = spike_window(
            given[0], given[1], neuron, windows=Recurrence(tuple(bounds), window, 4), rows=sparse, max_spikes=12,
            delay=given[2] if delays else None, receptor=receptor, overflow="drop",
        )  # fmt: skip
        draw = torch.Generator().manual_seed(1)
        outcomes = [torch.where(result.trains.isfinite(), result.trains, 0.0), *result.state[:3]]
        loss = sum((x * torch.randn(x.shape, generator=draw, **DOUBLE).to(dtype)).sum() for x in outcomes)
        by = list(torch.autograd.grad(loss, given + parameters)) if loss.requires_grad else []
        if sparse is None:
            by[1 : len(given)] = [x[places] for x in by[1 : len(given)]]
        found.append((result.trains, result.state, by))
    return found


def close(found, times: float, gradients: float) -> None:
    (trains, state, by), (other, other_state, other_by) = found
    torch.testing.assert_close(other, trains, rtol=0, atol=times)
    for x, y in zip(state[:3], other_state[:3], strict=True):
        torch.testing.assert_close(y, x, rtol=0, atol=gradients)
    for x, y in zip(by, other_by, strict=True):
        largest = float(x.abs().max()) if x.numel() else 0.0
        torch.testing.assert_close(y, x, rtol=0, atol=gradients * largest)


QUICK = ("lif", "refractory", "learnt", "own")
SLOW = pytest.mark.slow  # there are kernels of their own without delays, and for linear neurons
DELAYS = pytest.mark.parametrize("delays", [pytest.param(False, id="", marks=SLOW), pytest.param(True, id="delays")])


@DELAYS
@pytest.mark.parametrize("name", [pytest.param(name, marks=[SLOW] * (name not in QUICK)) for name in NEURONS])
def test_equals_the_dense_layer(name, delays):
    found = both(*NEURONS[name], delays)
    assert int(found[0][0].isfinite().sum()) > 500
    close(found, 1e-12, 1e-9)


@DELAYS
@pytest.mark.parametrize(("outputs", "batch"), [(1, 2), (33, 1), (63, 3), (64, 0)])
def test_sizes_that_do_not_fit_lanes(outputs, batch, delays):
    close(both(LIF(2.0, 1.0, refractory=0.2), {}, delays, outputs=outputs, batch=batch), 1e-12, 1e-9)


@DELAYS
@pytest.mark.parametrize("name", [pytest.param(name, marks=[SLOW] * (name not in QUICK)) for name in NEURONS])
def test_short_windows_in_which_little_happens(name, delays):
    """What arrives is added up, and groups of neurons without a spike are passed by, in both directions."""
    strength = {"own receptors": 0.2, "no reset": 0.27, "bias": 0.3, "own": 0.4, "receptors": 0.4, "own rises": 0.4}
    found = both(*NEURONS[name], delays, window=0.05, strength=strength.get(name, 0.5))
    spikes = int(found[0][0].isfinite().sum(dim=(-1, -2)).max())
    assert 20 < spikes < 100 * (UNTIL / 0.05) / host.SELDOM
    close(found, 1e-12, 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "delays"), [("refractory", True), ("receptors by sign", False)])
def test_single_precision(name, delays):
    """Until rounding changes the order of spikes, which in a network that excites itself it does soon."""
    (_, _, exact), (trains, _, by) = both(*NEURONS[name], delays)
    for found in both(*NEURONS[name], delays, dtype=torch.float32):
        early = trains < 6.0
        torch.testing.assert_close(found[0][early].double(), trains[early], rtol=0, atol=1e-3)
    assert len(exact) == len(by)


@DELAYS
@pytest.mark.parametrize(
    ("name", "batch"),
    [("own", 9), ("own", 1), pytest.param("receptors", 1, marks=SLOW), pytest.param("learnt", 2, marks=SLOW)],
)
def test_any_number_of_threads_gives_the_same_bits(name, batch, delays, monkeypatch):
    """Samples are shared out among them, or the neurons of a sample; then each call takes them through a window."""
    found, turns = [], []
    calls = host.call_in_turns
    monkeypatch.setattr(host, "MANY", 1)
    monkeypatch.setattr(host, "call_in_turns", lambda *given: turns.append(given[3]["ranges"]) or calls(*given))
    for threads in (1, 2, 4):
        monkeypatch.setattr(sizes, "threads_for", lambda work, threads=threads: threads)
        found.append(both(*NEURONS[name], delays, batch=batch)[1])
    assert set(turns) == {9: set(), 2: {4}, 1: {2, 4}}[batch]
    for other in found[1:]:
        assert torch.equal(other[0], found[0][0])
        assert all(torch.equal(x, y) for x, y in zip(other[2], found[0][2], strict=True))
    close((found[-1], found[0]), 0.0, 0.0)


def test_python_looks_at_signals_in_long_calls(monkeypatch):
    """Calls of some windows each add up to the same numbers, and an exception ends them in between."""
    expected = both(*NEURONS["own"], True, batch=1)[1]
    seen, run = [], parallel.run
    monkeypatch.setattr(host, "LONG", 300)
    monkeypatch.setattr(parallel, "run", lambda *given: seen.append(given[1]) or run(*given))
    found = both(*NEURONS["own"], True, batch=1)[1]
    assert len(seen) > 6
    assert all(torch.equal(x, y) for x, y in zip([found[0], *found[2]], [expected[0], *expected[2]], strict=True))

    def interrupted(*given):
        if (0, 1) in seen:
            raise KeyboardInterrupt
        return seen.append(given[1]) or run(*given)

    seen.clear()
    monkeypatch.setattr(parallel, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        both(*NEURONS["own"], True, batch=1)
    monkeypatch.setattr(parallel, "run", run)
    found = both(*NEURONS["own"], True, batch=1)[1]
    assert torch.equal(found[0], expected[0])


@pytest.mark.usefixtures("unguarded")
def test_a_changed_number_of_threads_is_seen(monkeypatch):
    """Also where these shapes have been computed before."""
    seen, run = [], parallel.run
    monkeypatch.setattr(shared, "_SMALL", 0)
    monkeypatch.setattr(parallel, "run", lambda *given: seen.append(given[3]) or run(*given))
    for threads in (1, 2):
        shared.use_threads(threads)
        both(*NEURONS["own"], True, batch=9)
        assert set(seen) == {threads}
        seen.clear()
    shared.use_threads(None)


@pytest.mark.parametrize("outputs", [40, 300])
@DELAYS
def test_lists_that_grow(delays, outputs):
    """Of neurons at which more arrives in a window than there is room for at first: some after the others get it."""
    spikes = 70
    there = torch.ones(outputs, 2 + outputs, dtype=torch.bool)
    rows, (target, _) = structure(there)
    times = torch.linspace(0.1, 1.4, 2 * spikes, **DOUBLE).view(1, spikes, 2).mT.contiguous()
    weight = torch.full((len(target),), 0.05, **DOUBLE)
    delay = torch.where(torch.arange(len(target)) < 2 * outputs, 0.0, WINDOW).double() if delays else None
    windows = Recurrence(tuple(window_bounds(None, 3.0, WINDOW, torch.float64, times)), WINDOW, 4)
    options = {"windows": windows, "max_spikes": 4, "overflow": "drop"}
    trains = spike_window(times, weight, LIF(), rows=rows, delay=delay, **options).trains
    dense = torch.full((outputs, 2 + outputs), 0.05, **DOUBLE)
    matrix = None if delay is None else delay.view(2 + outputs, outputs).T.contiguous()
    twin = spike_window(times, dense, LIF(), delay=matrix, **options).trains
    assert bool(trains.isfinite().any())
    torch.testing.assert_close(trains, twin, rtol=0, atol=1e-12)


@DELAYS
def test_pieces_and_observed_spikes(delays):
    """A second piece begins with the state, sees the spikes of the first, and may be given its own."""
    there = torch.rand(30, 50, generator=torch.Generator().manual_seed(0)) < 0.3
    rows, places = structure(there)
    draw = torch.Generator().manual_seed(1)
    times = 10 * torch.rand(2, 20, 3, generator=draw, **DOUBLE)
    weight = torch.where(there, torch.randn(30, 50, generator=draw, **DOUBLE) * 0.7 + 0.4, 0.0)
    delay = torch.rand(30, 50, generator=draw, **DOUBLE)
    delay[:, 20:] += WINDOW
    state = TrainState(*(0.3 * torch.rand(2, 30, generator=draw, **DOUBLE) for _ in range(3)), 1.0)
    sent = torch.rand(2, 30, 1, generator=draw, **DOUBLE)
    given = torch.cat([times, torch.full((2, 30, 3), math.inf, **DOUBLE)], dim=1)
    given[:, 20:, :1] = sent if delays else sent + WINDOW
    windows = Recurrence(tuple(window_bounds(1.0, 10.0, WINDOW, torch.float64, times)), WINDOW, 4)
    options = {"windows": windows, "max_spikes": 24, "overflow": "drop"}
    found = []
    for observes in (False, True):
        for sparse in (None, rows):
            held = TrainState(*(x.clone().requires_grad_() for x in state[:3]), state.time)
            w, d = (x if sparse is None else x[places] for x in (weight, delay))
            w, seen = w.clone().requires_grad_(), given.clone().requires_grad_()
            observed = torch.where(found[0][0] < 9.9, found[0][0] + 0.01, math.inf) if observes else None
            trains, *_ = spike_window(
                seen, w, LIF(2.0, refractory=0.3), rows=sparse, state=held, delay=d if delays else None,
                observed=observed, **options,
            )  # fmt: skip
            loss = torch.where(trains.isfinite(), trains, 0.0).square().sum()
            by = list(torch.autograd.grad(loss, [seen, w, *held[:3]]))
            by[1] = by[1][places] if sparse is None else by[1]
            found.append((trains.detach(), by))
    for dense, sparse in ((found[0], found[1]), (found[2], found[3])):
        torch.testing.assert_close(sparse[0], dense[0], rtol=0, atol=1e-12)
        for x, y in zip(dense[1], sparse[1], strict=True):
            torch.testing.assert_close(y, x, rtol=0, atol=1e-9 * float(x.abs().max()))


@pytest.mark.slow  # it has kernels of its own to compile
def test_without_synapses():
    rows, _ = structure(torch.zeros(3, 5, dtype=torch.bool))
    weight, times = torch.empty(0, requires_grad=True), torch.rand(2, 2, 1)
    windows = Recurrence((0.0, 1.0), 1.0, 2)
    trains = spike_window(
        times, weight, LIF(bias=1.5), rows=rows, windows=windows, max_spikes=2, overflow="drop"
    ).trains
    torch.testing.assert_close(trains[..., 0], torch.full((2, 3), math.inf))
    long = Recurrence((0.0, 1.0, 2.0), 1.0, 2)
    trains = spike_window(times, weight, LIF(bias=1.5), rows=rows, windows=long, max_spikes=2, overflow="drop").trains
    torch.testing.assert_close(trains[..., 0], torch.full((2, 3), math.log(3)))
    trains[..., 0].sum().backward()
    assert weight.grad.shape == (0,)


def test_what_is_not_recorded():
    there = torch.ones(3, 5, dtype=torch.bool)
    rows, _ = structure(there)
    windows = Recurrence((0.0, 1.0), 1.0, 2)

    def run(times: Tensor) -> Tensor:
        return spike_window(times, torch.ones(15), LIF(), rows=rows, windows=windows, max_spikes=2).trains

    with pytest.raises(NotImplementedError, match=r"vmap takes no layers with sparse synapses"):
        torch.func.vmap(run)(torch.rand(2, 1, 2, 1))
