"""What arrives in a window, added up: of neurons without spikes, what it leaves at the end is all that counts.

A group none of whose neurons may spike, or be released, is taken to the end of the window at once. The others are
given lists of what arrives.
"""

# mypy: disable-error-code="no-untyped-def"
import numpy as np

from firstspike.spiketime.cpu.arrays import LANES, named_rates
from firstspike.spiketime.cpu.lanes.flow import add_up, constants, held, loaded, step, stored
from firstspike.spiketime.cpu.lanes.shared import rates_at
from firstspike.spiketime.cpu.lanes.state import BUFFERS, NOW, RELEASE, longest_wait, unit_of
from firstspike.spiketime.cpu.membrane import ENOUGH, responses
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.sparse.lists import arriving, of_groups
from firstspike.spiketime.cpu.vectors.simd import fill16, fill32, load16, load32, store

FEW = 0.5  # arrivals at a neuron in a window. With more, so many groups may spike that their lists cost less
VOLTAGE, MOST, CURRENT = range(3)  # rows of sums: of V at the end, and bounds of it before; then of each receptor
GAIN, LIMIT, OWN, N_LEFT = 0, 16, 32, 48  # what is left of the weight of 16 synapses, for one receptor


@jit
def is_quiet(g, slot, window):
    """Whether little arrives in a window."""
    total = 0
    for event in range(window.n):
        first, last = arriving(g, slot, window, event)
        total += last - first
    return total < FEW * g.outputs


@inlined
def fill_left(g, left, wait):
    """Fill in what is left of 16 weights after a time, for each receptor."""
    for k in range(g.receptors):
        r, to = rates_at(g.rates[0, g.places[k]], 0), k * N_LEFT
        _, own, gain = responses(wait, r)
        store(left, to + GAIN, gain)
        store(left, to + LIMIT, wait * r.syn)
        store(left, to + OWN, own)


@inlined
def add_one(g, sums, left, s, receptor, lane):
    """Add what arrives through a synapse."""
    j, w, size = np.uintp(g.head[s]), g.scaled[s], np.uintp(g.lanes)
    k = np.uintp(w < 0.0 if g.signed != 0 else receptor)
    at = k * np.uintp(N_LEFT) + np.uintp(lane)
    sums[j] += w * left[at]
    sums[size + j] += max(w, 0) * left[at + np.uintp(LIMIT)]
    sums[(np.uintp(CURRENT) + k) * size + j] += w * left[at + np.uintp(OWN)]


@jit
def add_window(g, slot, window, first, last):
    """Add up what arrives in a window at the neurons of some groups."""
    sums, left, unit, longest = g.added[slot], g.fading[slot], named_rates(g.rates[0, 0])[0].unit, longest_wait(g.added)
    picked, kinds, waits, none, n = g.picked[slot], g.picked_kinds[slot], g.picked_times[slot], fill16(sums, 0.0), 0
    for row in range(CURRENT + g.receptors):
        sums[row * g.lanes + first * LANES : row * g.lanes + last * LANES] = 0
    for event in range(window.n):
        i, sent = np.intp(window.sources[event]), window.times[event]
        begin, end = of_groups(g, *arriving(g, slot, window, event), first, last)
        receptor = np.intp(g.receptor[0, i]) if g.planes > 1 else 0
        if g.delayed == 0:
            fill_left(g, left, min(none + (window.end - sent) * unit, longest))
        for s in range(begin, end):
            if g.delayed == 0:
                add_one(g, sums, left, s, receptor, 0)
            elif first * LANES <= g.head[s] < last * LANES:
                picked[n], kinds[n], waits[n] = s, receptor, window.end - max(sent + g.lag[s], window.begin)
                n += 1
                if n == 16:
                    add_some(g, slot, n, unit)
                    n = 0
    if n > 0:
        add_some(g, slot, n, unit)


@jit
def add_some(g, slot, n, unit):
    """Add what arrives through up to 16 synapses that are picked."""
    sums, left, picked = g.added[slot], g.fading[slot], g.picked[slot]
    fill_left(g, left, max(min(load16(g.picked_times[slot], 0) * unit, longest_wait(sums)), 0.0))
    for lane in range(n):
        add_one(g, sums, left, np.intp(picked[lane]), np.intp(g.picked_kinds[slot, lane]), lane)


@jit
def pass_window(g, at):
    """Take a group to the end of a window. Returns whether that is so: no neuron may spike, or be released."""
    rows, sums, unit = g.state[at.kept], g.added[at.slot], unit_of(g, at)
    rests, x, c, none = np.uint64(0), loaded(g, at, NOW), constants(g, at), fill32(rows, 0.0)
    if g.holds != 0:
        release = load32(rows, RELEASE)
        rests = (release > at.begin) & at.every
        if rests & (at.end >= release):
            return False
    wait = min(none + (at.end - at.begin) * unit, longest_wait(rows))
    after, height, _ = step(g, at, c, x, wait, False)
    if (height + load32(sums, MOST * g.lanes + at.first) >= ENOUGH) & at.every & ~rests:
        return False
    g.full[at.b, at.window.number, at.first // LANES] = 0
    after = stored(g, at, held(g, at, add_up(g, at, after, sums, at.first, g.lanes), rests))
    for row in range(0, (1 + g.count) * LANES if after != 0 else 0, LANES):
        store(rows, BUFFERS + row, load32(rows, BUFFERS + after * (1 + g.count) * LANES + row))
    return True
