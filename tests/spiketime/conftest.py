"""The truth about first spike times, from sums of exponentials in 50 digits. Shares no code with the package."""

import functools
import itertools
import math
from types import SimpleNamespace

import mpmath as mp
import pytest
import torch

_DIGITS = 50
_SAMPLES = 16
_BISECTIONS = 110


def response(s, tau_mem, tau_syn):
    """Membrane at time s after an input of weight 1."""
    s, tau_mem, tau_syn = mp.mpf(s), mp.mpf(tau_mem), mp.mpf(tau_syn)
    if s <= 0:
        return mp.mpf(0)
    if mp.isinf(tau_mem):
        return 1 - mp.exp(-s / tau_syn)
    if tau_mem == tau_syn:
        return s / tau_syn * mp.exp(-s / tau_syn)
    return tau_mem / (tau_mem - tau_syn) * (mp.exp(-s / tau_mem) - mp.exp(-s / tau_syn))


def membrane(t, times, weights, tau_mem, tau_syn):
    return mp.fsum(mp.mpf(w) * response(t - mp.mpf(x), tau_mem, tau_syn) for x, w in zip(times, weights, strict=True))


def slope(t, times, weights, tau_mem, tau_syn):
    """Slope of the membrane just after t, from its differential equation."""
    current = mp.fsum(
        mp.mpf(w) * mp.exp(-(t - mp.mpf(x)) / mp.mpf(tau_syn)) for x, w in zip(times, weights, strict=True) if x <= t
    )
    return current / mp.mpf(tau_syn) - membrane(t, times, weights, tau_mem, tau_syn) / mp.mpf(tau_mem)


def bisect(is_before, low, high):
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_before(middle) else (low, middle)
    return high


@functools.cache
def first_spike(times, weights, tau_mem, tau_syn, threshold):
    """The first time at which the membrane reaches the threshold, as mpf; inf if it never does."""
    with mp.workdps(_DIGITS):
        arrived = [(x, w) for x, w in zip(times, weights, strict=True) if x < math.inf]
        arrivals = sorted({mp.mpf(x) for x, _ in arrived})
        horizon = 40 * tau_syn + (400 * tau_syn if math.isinf(tau_mem) else 10 * tau_mem)
        for start, end in itertools.zip_longest(arrivals, arrivals[1:]):
            known = [(x, w) for x, w in arrived if x <= start]
            neuron = ([x for x, _ in known], [w for _, w in known], tau_mem, tau_syn)
            length = min(end - start if end is not None else mp.inf, mp.mpf(horizon))
            points = [start + length * (mp.mpf(k) / _SAMPLES) ** 2 for k in range(_SAMPLES + 1)]
            rising = [slope(t, *neuron) > 0 for t in points]
            for k in range(_SAMPLES):
                if rising[k] and not rising[k + 1]:
                    points.append(bisect(lambda t, neuron=neuron: slope(t, *neuron) > 0, points[k], points[k + 1]))
            points.sort()
            for before, after in itertools.pairwise(points):
                if membrane(after, *neuron) >= threshold:
                    return bisect(lambda t, neuron=neuron: membrane(t, *neuron) < threshold, before, after)
        return mp.inf


@pytest.fixture(scope="session")
def exact():
    """Exact spike times of single neurons, and of all in a batch."""

    def spikes(times, weight, lif):
        """Times (batch, out) in float64 for ``times (batch, in)`` and ``weight (out, in)``."""
        rows = [
            [
                float(first_spike(tuple(x.tolist()), tuple(w.tolist()), lif.tau_mem, lif.tau_syn, float(lif.threshold)))
                for w in weight
            ]
            for x in times
        ]
        return torch.tensor(rows, dtype=torch.float64)

    return SimpleNamespace(
        digits=_DIGITS, response=response, membrane=membrane, slope=slope, first_spike=first_spike, spikes=spikes
    )
