"""The truth about first spike times, from sums of exponentials in 50 digits. Shares no code with the package."""

import functools
import itertools
import math
from types import SimpleNamespace

import mpmath as mp
import pytest
import torch

_DIGITS = 50
_EXTREME = 150  # digits where the time constants, or times and waits, are 1e60 apart


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


def current(t, times, weights, tau_syn):
    """Synaptic current just after t."""
    return mp.fsum(
        mp.mpf(w) * mp.exp(-(t - mp.mpf(x)) / mp.mpf(tau_syn)) for x, w in zip(times, weights, strict=True) if x <= t
    )


def slope(t, times, weights, tau_mem, tau_syn):
    """Slope of the membrane just after t, from its differential equation."""
    rise = current(t, times, weights, tau_syn) / mp.mpf(tau_syn)
    return rise - membrane(t, times, weights, tau_mem, tau_syn) / mp.mpf(tau_mem)


def climb(level, rise, threshold, high):
    """The time at which a membrane that rises from 0 to ``high`` reaches the threshold.

    It is concave, so that Newton's steps never pass the crossing. Bisection ends them, and would do without them.
    """
    low = mp.mpf(0)
    for _ in range(200):
        step = (threshold - level(low)) / rise(low)
        low += step
        if step <= low * mp.mpf(10) ** (10 - mp.mp.dps):
            break
    margin = low * mp.mpf(10) ** (-mp.mp.dps // 2)
    near, low = low + margin, low - margin
    if near < high and level(near) >= threshold:
        high = near
    assert level(low) < threshold <= level(high)
    for _ in range(2 * mp.mp.dps if high == near else 4 * mp.mp.dps):
        middle = (low + high) / 2
        low, high = (middle, high) if level(middle) < threshold else (low, middle)
    return high


def summit(v, i, tau_mem, tau_syn):
    """When the membrane has its maximum after a rising state: where the two exponentials' slopes cancel; else inf."""
    if mp.isinf(tau_mem):
        return mp.inf
    if tau_mem == tau_syn:
        return tau_syn * (1 - v / i) if i > 0 else mp.inf
    fast = -i * tau_mem / (tau_mem - tau_syn)
    slow = v - fast
    ratio = -fast * tau_mem / (slow * tau_syn) if slow else mp.mpf(0)
    return mp.log(ratio) / (1 / tau_syn - 1 / tau_mem) if ratio > 0 else mp.inf


@functools.cache
def first_spike(times, weights, tau_mem, tau_syn, threshold, digits=_DIGITS):
    """The first time at which the membrane reaches the threshold, as mpf; inf if it never does."""
    with mp.workdps(digits):
        taus = mp.mpf(tau_mem), mp.mpf(tau_syn)
        arrived = [(mp.mpf(x), mp.mpf(w)) for x, w in zip(times, weights, strict=True) if x < math.inf]
        arrivals = sorted({x for x, _ in arrived})
        for start, end in itertools.zip_longest(arrivals, arrivals[1:]):
            known = [(x, w) for x, w in arrived if x <= start]
            neuron = [x for x, _ in known], [w for _, w in known]
            v, i = membrane(start, *neuron, *taus), current(start, *neuron, taus[1])

            def level(s, v=v, i=i):
                return v * mp.exp(-s / taus[0]) + i * response(s, *taus)

            def rise(s, i=i, level=level):
                return i * mp.exp(-s / taus[1]) / taus[1] - level(s) / taus[0]

            rises = i / taus[1] > v / taus[0]
            top = summit(v, i, *taus) if rises else mp.inf
            length = end - start if end is not None else mp.inf
            stop = min(top, length, 440 * taus[1]) if mp.isinf(taus[0]) else min(top, length)
            if rises and stop < mp.inf and level(stop) >= threshold:
                return start + climb(level, rise, threshold, stop)
        return mp.inf


def spike_train(
    times,
    weights,
    tau_mem,
    tau_syn,
    threshold,
    refractory=0.0,
    reset=0.0,
    most=200,
    state=None,
    until=mp.inf,
    digits=_DIGITS,
):
    """All spikes of one neuron as mpf, and its state (V, I, rest of the refractory time) at a finite ``until``.

    From event to event: an input, the end of the refractory time, a spike. ``state`` is (time, V, I, left).
    """
    with mp.workdps(digits):
        mem, syn, threshold, refractory, reset = (mp.mpf(x) for x in (tau_mem, tau_syn, threshold, refractory, reset))
        until = mp.mpf(until)
        now, v, i, left = (mp.mpf(x) for x in state) if state else (-mp.inf, mp.mpf(0), mp.mpf(0), mp.mpf(0))
        released = now + left if left > 0 else -mp.inf
        events = sorted((mp.mpf(x), mp.mpf(w)) for x, w in zip(times, weights, strict=True) if now <= x < until)
        if not state:
            now = events[0][0] if events else until
        spikes = []
        while True:
            while events and events[0][0] == now:
                i += events.pop(0)[1]
            held = now < released
            end = min([until, *([released] if held else []), *(x for x, _ in events[:1])])
            if not held:

                def level(s, v=v, i=i):
                    return v * mp.exp(-s / mem) + i * response(s, mem, syn)

                def rise(s, i=i, level=level):
                    return i * mp.exp(-s / syn) / syn - level(s) / mem

                rises = i / syn > v / mem
                stop = min(summit(v, i, mem, syn) if rises else mp.inf, end - now)
                stop = min(stop, 440 * syn) if mp.isinf(mem) else stop
                if rises and stop < mp.inf and level(stop) >= threshold:
                    s = climb(level, rise, threshold, stop)
                    now, v, i = now + s, reset, i * mp.exp(-s / syn)
                    spikes.append(now)
                    released = now + refractory
                    if len(spikes) > most:
                        return spikes, None
                    continue
            if mp.isinf(end):
                return spikes, None
            s = end - now
            now, v, i = end, v if held else level(s), i * mp.exp(-s / syn)
            if now == until:
                return spikes, (v, i, max(released - until, mp.mpf(0)))


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
        digits=_DIGITS,
        extreme=_EXTREME,
        response=response,
        membrane=membrane,
        slope=slope,
        first_spike=first_spike,
        spikes=spikes,
        spike_train=spike_train,
    )
