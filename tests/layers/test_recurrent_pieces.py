"""Recurrent layers in pieces of any length, from any time on: the same spikes and gradients."""

import math

import pytest
import torch

from agreement import with_rest
from firstspike import LIF, DelayRule, IntegralReadout, LIFRecurrent, Network, spike_trains
from firstspike.layers.ensembles import Ensemble

INF = math.inf
RULES = {
    "plain": {},
    "recurrent delays": {"recurrent_delay": DelayRule(scale=2.0)},
    "input delays": {"delay": DelayRule(scale=2.0)},
    "both": {"delay": DelayRule(scale=1.0), "recurrent_delay": DelayRule("clip", scale=0.5, shift=0.2, mean=0.4)},
    "at their bounds": {"delay": DelayRule("clip", std=0.0), "recurrent_delay": DelayRule("clip", mean=1.0, std=0.0)},
    "refractory": {"refractory": 0.4, "reset": -0.1},
}
CUTS = {
    "shorter than the window": [0.25 * k for k in range(1, 49)],
    "uneven": [0.1, 0.15, 2.0, 2.05, 2.1, 2.1 + 1e-6, 5.0, 5.3, 7.7, 12.0],
}


# the reference takes seconds; it is tested with what has most parts
BACKENDS = pytest.mark.parametrize(("rule", "backend"), [*((rule, "cpu") for rule in RULES), ("both", "reference")])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def trains(samples=3, spikes=3, dtype=torch.float64):
    times = torch.rand(samples, 4, spikes, generator=seeded(), dtype=torch.float64) * 5
    times[0, 1] = INF
    return times.sort(-1).values.to(dtype)


def layer(seed=0, duration=12.0, **options):
    make = {"dtype": torch.float64, "generator": seeded(seed), "weight_mean": 0.6, "weight_std": 0.4}
    make |= {"recurrent_mean": 0.1, "recurrent_std": 0.5, "window": 0.75, "window_spikes": 20}
    neuron, make = with_rest(LIF(2.0), make | options)
    return LIFRecurrent(4, 5, 40, duration, neuron, **make)


def in_pieces(lif, times, ends, observed=None, state=None):
    """Spikes and the state at the end."""
    found, begin = [], -INF
    for until in ends:
        seen = None
        if observed is not None:
            inside = (observed > begin) & (observed <= until)
            count = max(1, int(inside.sum(-1).max()))
            seen = torch.where(inside, observed, INF).sort(-1).values[..., :count]
        piece, state = lif.proceed(times, until, state, observed=seen)
        found.append(piece)
        begin = until
    return torch.cat(found, dim=-1).sort(dim=-1).values[..., : lif.max_spikes], state


def gradients(found, inputs):
    total = torch.where(found.isfinite(), found, 0.0).sin().sum()
    return torch.autograd.grad(total, inputs)


@pytest.mark.slow
@BACKENDS
@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_any_pieces_are_the_whole(rule, cuts, backend):
    lif, times = layer(backend=backend, **RULES[rule]), trains().requires_grad_()
    whole, parameters = lif(times), [times, *lif.parameters()]
    pieces, state = in_pieces(lif, times, cuts)
    assert int(whole.isfinite().sum()) > 40
    assert torch.equal(pieces.isfinite(), whole.isfinite())
    torch.testing.assert_close(pieces, whole, rtol=1e-10, atol=1e-10)
    for one, other in zip(gradients(pieces, parameters), gradients(whole, parameters), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
    assert float(state.pending.detach().amin()) >= 12.0 - 3.0  # what has arrived everywhere is not kept


@pytest.mark.parametrize("rule", ["plain", "both", "at their bounds"])
def test_observed_spikes_in_pieces(rule):
    lif, times = layer(**RULES[rule]), trains().requires_grad_()
    seen, parameters = lif(times).detach(), [times, *lif.parameters()]
    pieces, _ = in_pieces(lif, times, CUTS["shorter than the window"], seen)
    assert torch.equal(pieces, seen)
    for one, other in zip(gradients(pieces, parameters), gradients(lif(times, seen), parameters), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("window", [0.7, 0.1, 1 / 3])
@pytest.mark.parametrize("options", [RULES["plain"], RULES["recurrent delays"]], ids=["plain", "delays"])
def test_rounded_windows_lose_no_spike(window, options):
    """Spikes just after a window begins arrive when a later one begins, whatever rounding does."""
    lif = layer(window=window, dtype=torch.float32, duration=20 * window, **options)
    with torch.no_grad():
        lif.weight.fill_(0.0)
        lif.recurrent_weight.copy_(0.3 * torch.ones(5, 5))
    begin = torch.tensor(3 * window, dtype=torch.float32)
    observed = torch.full((1, 5, 4), INF)
    for k in range(4):
        begin = torch.nextafter(begin, torch.tensor(INF))
        observed[0, k, 0] = begin
    times = torch.full((1, 4, 1), INF)
    by_weight = gradients(lif(times, torch.nn.functional.pad(observed, (0, 36), value=INF)), [lif.recurrent_weight])[0]
    assert by_weight.isfinite().all()
    _, state = lif.proceed(times, 6 * window, observed=observed)
    late = torch.full_like(lif.recurrent_weight, window) if lif.recurrent_delay is None else lif.own_delay
    arrival = 6 * window - (observed[0, :, 0] + late)
    current = torch.where(arrival > 0, torch.exp(-arrival), 0.0).sum(-1) * 0.3
    torch.testing.assert_close(state.neurons.current[0], current, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@BACKENDS
@pytest.mark.parametrize("shift", [-5.0, -0.3, -40.0, 3.1])
def test_all_times_may_be_shifted(shift, rule, backend):
    lif, times = layer(backend=backend, **RULES[rule]), trains().requires_grad_()
    here, parameters = lif.proceed(times, 8.0), [times, *lif.parameters()]
    there = lif.proceed(times + shift, 8.0 + shift)
    here, there = (x[0].sort(-1).values[..., :40] for x in (here, there))
    assert int(here.isfinite().sum()) > 40
    torch.testing.assert_close(there - shift, here, rtol=0, atol=1e-10)
    for one, other in zip(gradients(there - shift, parameters), gradients(here, parameters), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_inputs_before_0_against_one_call():
    lif, times = layer(duration=6.0), trains() - 5.0
    weight = torch.cat([lif.weight, lif.recurrent_weight], dim=1)
    delay = torch.cat([torch.zeros_like(lif.weight), lif.own_delay], dim=1)
    found = torch.full((3, 5, 40), INF, dtype=times.dtype)
    inputs = torch.nn.functional.pad(times, (0, 37), value=INF)
    for _ in range(60):
        arriving = torch.cat([inputs, found], dim=-2)
        found = spike_trains(arriving, weight, lif.neuron, max_spikes=40, delay=delay, until=6.0).detach()
    assert int((found < 0).sum()) > 10
    torch.testing.assert_close(lif(times), found, rtol=0, atol=1e-10)


def test_nothing_arrives():
    lif = layer()
    for times in (torch.full((2, 4, 1), INF, dtype=torch.float64), torch.full((2, 4, 1), 30.0, dtype=torch.float64)):
        found, state = lif.proceed(times, -7.0)
        assert not found.isfinite().any()
        assert state.neurons.time == -7.0
        assert not lif(times).isfinite().any()


@pytest.mark.parametrize("options", [RULES["plain"], RULES["both"]], ids=["plain", "delays"])
def test_members_of_an_ensemble_begin_before_their_inputs(options):
    """Two recurrent layers, of which the second sees other times in each member."""
    members = []
    for seed in range(3):
        second = LIFRecurrent(
            5, 3, 60, 6.0, LIF(2.0), window=0.75, window_spikes=30, weight_mean=0.4, weight_std=0.2, recurrent_std=0.4,
            dtype=torch.float64, generator=seeded(seed), **options,
        )  # fmt: skip
        read = IntegralReadout(3, 2, dtype=torch.float64, generator=seeded(seed))
        members.append(Network(layer(seed, duration=6.0, **options), second, read))
    times = trains() - 4.0
    together = Ensemble(members)
    torch.testing.assert_close(together(times), torch.stack([member(times) for member in members]))


def test_values_that_no_time_has():
    lif = layer()
    for value in (math.nan, -INF):
        with pytest.raises(ValueError, match="times must be real numbers or inf"):
            lif(torch.full((2, 4, 1), value, dtype=torch.float64))
    with pytest.raises(ValueError, match="until must be finite, got inf"):
        lif.proceed(trains(), INF)
