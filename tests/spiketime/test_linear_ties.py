"""Linear neurons where much happens at once, against 50 digits: all numbers are multiples of 1/8.

Inputs come together, at the end of refractory times, at the start and the end of the window; spikes follow at once
where the membrane is above the threshold when it is released.
"""

import math
import random

import mpmath as mp
import pytest
import torch

from firstspike.neurons import AdaptiveLIF
from firstspike.spiketime import TrainState, spike_window
from linear_digits import DIGITS, Cell, train


def draw(seed):
    """A neuron, inputs ``(times, weights, receptors)``, and options of a window."""
    source = random.Random(seed)

    def eighths(low, high):
        return source.randint(round(8 * low), round(8 * high)) / 8

    tau_mem = source.choice([1.0, 0.5, 2.0, 4.0, math.inf])
    bias = source.choice([0.0, 0.0, 0.5, 1.0, 1.5]) if tau_mem < math.inf else 0.0
    reset, refractory = source.choice([(0.0, 0.0), (-0.25, 0.25), (0.5, 0.5), (0.0, 1.0), (None, 0.25), (None, 1.0)])
    neuron = AdaptiveLIF(
        tau_mem, (source.choice([1.0, 0.5, 2.0]), source.choice([1.0, 0.25, 3.0])), 1.0, reset, refractory,
        (source.choice([0.0, 0.0, 0.5, 1.0]), 0.0), bias,
        adaptation=[(4.0, eighths(-0.25, 0.5))] * source.randint(0, 1),
        threshold_adaptation=[(source.choice([1.0, 4.0]), eighths(0, 0.5)) for _ in range(source.randint(0, 2))],
    )  # fmt: skip
    inputs = source.randint(1, 5)
    times = [[eighths(0, 3) for _ in range(2)] for _ in range(inputs)]
    weights, receptors = ([f() for _ in range(inputs)] for f in (lambda: eighths(-2, 6), lambda: source.randint(0, 1)))
    until, state, start = source.choice([eighths(2, 5), 4.0 if neuron.bias else math.inf]), None, None
    if source.random() < 0.3:
        parts = [eighths(0, 1) if x.kind == "threshold" else eighths(-1, 2) for x in neuron.components]
        state, start = ([eighths(-0.5, 0.75), *parts], source.choice([0.0, 0.25, 0.5])), 0.5
    options = {"until": until, "state": state, "start": 0.0 if neuron.bias and start is None else start}
    return neuron, (times, weights, receptors), options, source.choice([12, 2])


def truth_of(neuron, inputs, options, most):
    parts = neuron.components
    cell = Cell(
        tuple(x.kind for x in parts), tuple(x.tau for x in parts), tuple(x.jump for x in parts), neuron.tau_mem,
        neuron.threshold, neuron.reset, neuron.refractory, neuron.bias,
    )  # fmt: skip
    arrivals = [(mp.mpf(t), cell.receptors[r], w) for ts, w, r in zip(*inputs, strict=True) for t in ts]
    with mp.workdps(DIGITS):
        return train(cell, arrivals, most=most, **options)


SEEDS = [pytest.param(k, marks=[pytest.mark.exhaustive] * (k >= 12)) for k in range(300)]


@pytest.mark.parametrize("seed", SEEDS)
def test_ties(seed, backend):
    neuron, inputs, options, most = draw(seed)
    truth = truth_of(neuron, inputs, options, most)
    state = None
    if options["state"] is not None:
        (voltage, *parts), left = options["state"]
        levels = (torch.tensor([[x]], dtype=torch.float64) for x in (voltage, parts, left))
        state = TrainState(*levels, options["start"])
    times, weight = (torch.tensor([x], dtype=torch.float64) for x in inputs[:2])
    found = spike_window(
        times, weight, neuron, receptor=inputs[2], max_spikes=most, overflow="drop", until=options["until"],
        state=state, backend=backend,
    )  # fmt: skip
    spikes = found.trains[found.trains.isfinite()].tolist()
    assert len(spikes) == len(truth.spikes)
    assert bool(found.overflows) == truth.more
    slowest = 1.0
    for t, exact, slope in zip(spikes, truth.spikes, truth.slopes, strict=True):
        slowest = min(slowest, float(slope or 1))
        assert abs(t - exact) < 1e-13 / slowest
    if truth.end is not None:
        end = [found.state.voltage.item(), *found.state.current.flatten().tolist()]
        for x, exact in zip(end, truth.end, strict=True):
            assert abs(x - exact) < 1e-13
