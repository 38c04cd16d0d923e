"""Recurrent layers against an event-driven solver in 50 digits: spikes, and gradients by its central differences."""

import math

import mpmath as mp
import pytest
import torch

from fifty_digits import DIGITS, recurrent_trains
from firstspike import LIF, DelayRule, LIFRecurrent

INF = math.inf
STEP = 1e-15  # of the differences, whose error is its square
DURATION = 4.0
DELAYED = {"delay": DelayRule("clip", 2.0), "recurrent_delay": DelayRule("clip", 2.0)}


def draw(ratio, window=0.5, refractory=0.0, reset=0.0, **delays):
    """A layer and its inputs: some weights inhibit, two inputs and two neurons are equal, one input is on a border."""
    generator = torch.Generator().manual_seed(11)

    def rand(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    layer = LIFRecurrent(
        4, 4, 80, DURATION, LIF(ratio, 1.0, 0.7, refractory=refractory, reset=reset), window=window, window_spikes=40,
        dtype=torch.float64, generator=generator, **delays,
    )  # fmt: skip
    times = (rand(1, 4, 2) * 2.5).sort(-1).values
    times[0, 1] = times[0, 0]
    times[0, 2, 0] = 2 * window
    times[0, 3, 1] = INF
    with torch.no_grad():
        layer.weight.copy_((rand(4, 4) + 0.3) * 2 / (1 + min(ratio, 3.0) ** 0.5))
        layer.recurrent_weight.copy_((rand(4, 4) - 0.5) * (0.5 if ratio > 3 else 1.5))
        layer.weight[:, 3] = -0.4
        layer.weight[1] = layer.weight[0]
        layer.recurrent_weight[1] = layer.recurrent_weight[0]
        if delays:
            layer.delay_raw.copy_(rand(4, 4))
            layer.recurrent_delays.delay_raw.copy_(rand(4, 4))
            for delay in (layer.delay_raw, layer.recurrent_delays.delay_raw):
                delay[1] = delay[0]
    return layer, times


def parts(layer, times):
    """What gradients are taken by."""
    found = {"times": times, "weight": layer.weight, "recurrent": layer.recurrent_weight}
    if layer.delay is not None:
        found |= {"delay": layer.delay_raw, "recurrent_delay": layer.recurrent_delays.delay_raw}
    return found


def solved(layer, values):
    """The 50 digits' trains with these values of ``parts``, as nested lists."""
    none = [[mp.mpf(0)] * 4] * 4
    own = [[layer.window + x for x in row] for row in values.get("recurrent_delay", none)]
    neuron = layer.neuron
    constants = neuron.tau_mem, neuron.tau_syn, neuron.threshold, neuron.refractory, neuron.reset, layer.duration
    return recurrent_trains(
        values["times"], values["weight"], values["recurrent"], values.get("delay", none), own, *constants
    )


def lists(x, direction=None, step=0.0):
    """A tensor (of one sample), moved, as nested lists of mpf."""
    x = x.detach().reshape(x.shape[-2:]).tolist()
    if direction is None:
        return [[mp.mpf(a) for a in row] for row in x]
    rows = zip(x, direction.reshape(direction.shape[-2:]).tolist(), strict=True)
    return [[mp.mpf(a) + mp.mpf(step) * b for a, b in zip(row, way, strict=True)] for row, way in rows]


def as_tensor(trains, most):
    return torch.tensor([[[*(float(t) for t in x), *[INF] * (most - len(x))] for x in trains]], dtype=torch.float64)


def directions(x, each, generator):
    """A random direction for the whole tensor, or one for each of its rows."""
    direction = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    rows = torch.eye(4, dtype=torch.float64).unsqueeze(-1) if each else [1.0]
    return [direction * row for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("delays", [{}, DELAYED], ids=["window", "delays"])
@pytest.mark.parametrize(("refractory", "reset"), [(0.0, 0.0), (0.3, -0.2)])
@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0, 100.0, INF])
def test_spikes_and_gradients(ratio, refractory, reset, delays):
    layer, times = draw(ratio, refractory=refractory, reset=reset, **delays)
    times.requires_grad_()
    found = layer(times)
    generator = torch.Generator().manual_seed(2)
    factors = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    given = parts(layer, times)
    total = (torch.where(found < INF, found, 0.0) * factors).sum()
    gradients = torch.autograd.grad(total, list(given.values()))
    each = ratio == 2.0 and refractory > 0  # rows one by one
    with mp.workdps(DIGITS):
        values = {name: lists(x) for name, x in given.items()}
        exact = solved(layer, values)
        torch.testing.assert_close(found, as_tensor(exact, found.shape[-1]), rtol=1e-11, atol=1e-12)
        counts = [len(train) for train in exact]
        assert sum(counts) >= 8
        assert counts[0] == counts[1]  # the two equal neurons

        def loss(name, direction, step):
            moved = solved(layer, values | {name: lists(given[name], direction, step)})
            assert [len(train) for train in moved] == counts
            rows = zip(moved, factors[0].tolist(), strict=True)
            return mp.fsum(t * f for train, row in rows for t, f in zip(train, row, strict=False))

        for (name, x), gradient in zip(given.items(), gradients, strict=True):
            for direction in directions(x, each, generator):
                moves = torch.where(x.isfinite(), direction, 0.0)
                slope = (loss(name, moves, STEP) - loss(name, moves, -STEP)) / (2 * mp.mpf(STEP))
                scale = float((gradient * moves).abs().sum()) + 1e-3
                assert float((gradient * moves).sum()) == pytest.approx(float(slope), rel=1e-8, abs=1e-9 * scale), name


def test_the_recurrence_matters():
    """Without it there are other spikes, so that the comparison above is one of recurrent spikes."""
    layer, times = draw(2.0)
    found = layer(times)
    with torch.no_grad():
        layer.recurrent_weight.zero_()
    assert not torch.equal(found.isfinite(), layer(times).isfinite())


@pytest.mark.parametrize("window", [0.3, 2.0])
def test_windows_that_do_not_divide_the_duration(window):
    layer, times = draw(1.37, window=window)
    with mp.workdps(DIGITS):
        exact = solved(layer, {name: lists(x) for name, x in parts(layer, times).items()})
    torch.testing.assert_close(layer(times), as_tensor(exact, 80), rtol=1e-11, atol=1e-12)
