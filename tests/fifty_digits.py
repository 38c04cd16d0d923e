"""The truth about spike times, from sums of exponentials in 50 digits. Shares no code with the package."""

import functools
import heapq
import itertools
import math

import mpmath as mp

DIGITS = 50
# Ratios tau_mem / tau_syn: the closed forms, and some that have none.
RATIOS = [1.0, 2.0, 0.5, math.inf, 1.37, 10.0, 100.0, 1 + 1e-9, 0.3]
EXTREME = 150  # digits where the time constants, or times and waits, are 1e60 apart


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
def first_spike(times, weights, tau_mem, tau_syn, threshold, digits=DIGITS):
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
    digits=DIGITS,
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


def train_gradients(spikes, times, weights, tau_mem, tau_syn, refractory=0.0, reset=0.0, threshold=1.0):
    """Of each of these spikes by each time, each weight and the threshold: the derivative, and the sum of its |terms|.

    After the end of a refractory time, what arrived before is a current. No spike comes at that end.
    """
    with mp.workdps(DIGITS):
        mem, syn, refractory, reset, threshold = (mp.mpf(x) for x in (tau_mem, tau_syn, refractory, reset, threshold))
        inputs = [(mp.mpf(x), mp.mpf(w)) for x, w in zip(times, weights, strict=True)]

        def rates(s):
            return mp.exp(-s / syn) / syn, -response(s, mem, syn) / mem

        found, released = [], None
        for t in map(mp.mpf, spikes):
            assert released is None or t > released
            steep = current(t, times, weights, syn) / syn - threshold / mem
            by_times, by_weights, by_release = [], [], []
            for x, w in inputs:
                one, wait = mp.mpf(x < t), t - x
                if released is not None and x <= released:
                    one, wait = mp.exp((x - released) / syn), t - released
                    by_times.append([w * one * response(wait, mem, syn) / syn])
                    by_release += [-w * one * y for y in (response(wait, mem, syn) / syn, *rates(wait))]
                else:
                    by_times.append([-w * one * y for y in rates(wait)] if one else [])
                by_weights.append([one * response(wait, mem, syn)])
            if released is not None:
                by_release.append(reset * mp.exp((released - t) / mem) / mem)
            before = found[-1] if found else [(mp.mpf(0), mp.mpf(0))] * (2 * len(inputs) + 1)
            through = mp.fsum(by_release), mp.fsum(by_release, absolute=True)
            rows = zip([*by_times, *by_weights, [mp.mpf(-1)]], before, strict=True)
            found.append(
                [
                    (-(mp.fsum(x) + through[0] * y) / steep, (mp.fsum(x, absolute=True) + through[1] * size) / steep)
                    for x, (y, size) in rows
                ]
            )
            released = mp.mpf(float(t + refractory))
        return found


class _Cell:
    """One neuron: membrane v and current i at time ``now``; it is held at the reset until ``released``."""

    def __init__(self, mem, syn, threshold, refractory, reset):
        self.mem, self.syn, self.threshold, self.refractory, self.reset = mem, syn, threshold, refractory, reset
        self.now, self.v, self.i, self.released = -mp.inf, mp.mpf(0), mp.mpf(0), -mp.inf

    def move(self, t):
        """Without input up to ``t``."""
        for end in (min(self.released, t), t):
            if end > self.now:
                s, held = end - self.now, end <= self.released
                if mp.isinf(s):
                    assert not self.v
                    assert not self.i
                else:
                    v = self.v * mp.exp(-s / self.mem) + self.i * response(s, self.mem, self.syn)
                    self.v, self.i = self.v if held else v, self.i * mp.exp(-s / self.syn)
                self.now = end

    def next_spike(self, until):
        """When it spikes without further input, if at all and before ``until``."""
        if not self.i:
            return mp.inf
        wait = max(self.released - self.now, mp.mpf(0))
        start, v, i = self.now + wait, self.v, self.i * mp.exp(-wait / self.syn)
        if start >= until or i / self.syn <= v / self.mem:
            return mp.inf

        def level(s):
            return v * mp.exp(-s / self.mem) + i * response(s, self.mem, self.syn)

        def rise(s):
            return i * mp.exp(-s / self.syn) / self.syn - level(s) / self.mem

        stop = min(summit(v, i, self.mem, self.syn), until - start, 440 * self.syn)
        return start + climb(level, rise, self.threshold, stop) if level(stop) >= self.threshold else mp.inf

    def spike(self, t):
        self.move(t)
        self.v, self.released = self.reset, t + self.refractory


def recurrent_trains(
    times, weight, recurrent, delay, recurrent_delay, tau_mem, tau_syn, threshold, refractory, reset, duration
):
    """All spikes up to ``duration`` of neurons that are connected to each other: for each neuron a list of mpf.

    There are no windows: the next arrival anywhere is compared with the next spike of any neuron.

    Args:
        times: of each input a list of spikes.
        weight: ``weight[j][i]`` from input i to neuron j.
        recurrent: ``recurrent[j][i]`` from neuron i to neuron j.
        delay: of the synapses of the inputs, like ``weight``.
        recurrent_delay: whole delays of the recurrent synapses, like ``recurrent``.
    """
    with mp.workdps(DIGITS):
        duration = mp.mpf(duration)
        constants = [mp.mpf(x) for x in (tau_mem, tau_syn, threshold, refractory, reset)]
        cells = [_Cell(*constants) for _ in weight]
        queues = [
            sorted(
                (mp.mpf(t) + mp.mpf(d), mp.mpf(w))
                for train, w, d in zip(times, row, delays, strict=True)
                for t in train
                if t < math.inf
            )
            for row, delays in zip(weight, delay, strict=True)
        ]
        trains = [[] for _ in cells]
        expected = [mp.inf] * len(cells)
        while True:
            arrivals = [queue[0][0] if queue else mp.inf for queue in queues]
            now = min(*arrivals, *expected)
            if now > duration or mp.isinf(now):
                return trains
            changed = [j for j, t in enumerate(arrivals) if t == now]
            for j in changed:
                cells[j].move(now)
                while queues[j] and queues[j][0][0] == now:
                    cells[j].i += heapq.heappop(queues[j])[1]
            for i in [i for i, t in enumerate(expected) if t == now]:
                cells[i].spike(now)
                trains[i].append(now)
                changed.append(i)
                for queue, row, delays in zip(queues, recurrent, recurrent_delay, strict=True):
                    heapq.heappush(queue, (now + mp.mpf(delays[i]), mp.mpf(row[i])))
            for j in changed:
                expected[j] = cells[j].next_spike(queues[j][0][0] if queues[j] else mp.inf)
