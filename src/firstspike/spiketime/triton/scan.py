"""The forward pass on a GPU. A program takes one sample and a tile of neurons, whose states are in registers.

Neurons see their inputs in the order of arrival of the sample, ``arrival (E, B, N)``, or with synaptic delays
(``DELAYED``) each in one of its own. ``order`` says where the weights of each begin in ``weight (E, I, W)``, whose rows
are filled up to whole tiles. The effect of the interval after an input on any neuron of the sample, ``exp(-gap mem)``,
``exp(-gap syn)`` and ``kappa(gap)``, is computed before, as ``coefficients (E, B, N, 3)``. Neurons with an order or
their own time constants (``OWN``) compute theirs.

Inputs are taken in blocks, as if nobody spiked. After a crossing upwards the current is positive for the rest of the
interval, so that the membrane ends it at ``theta exp(-gap mem)`` at least: only blocks with an end so high are done
again, with the exact tests. A neuron that spikes again starts this block anew from where its refractory time ends,
until a round finds no further spike.
"""

# mypy: disable-error-code="no-untyped-def"
import triton
import triton.language as tl

from firstspike.spiketime.triton.membrane import any_of, coefficients_of, constants_of, kappa, peak, spike_time

BLOCK = tl.constexpr(16)  # inputs whose weights are loaded together
FEW = tl.constexpr(2)  # of which the coefficients are computed together where neurons have their own
_NEAR = tl.constexpr(0.9999)  # of the threshold: bounds and membranes are rounded differently


@triton.jit
def forward_kernel(
    arrival, order, count, coefficients, weight, rates, threshold, spikes, currents, held, released, refractory, reset,
    batch, inputs, events, outputs, width,
    SPIKES: tl.constexpr, AGAIN: tl.constexpr, OBSERVED: tl.constexpr, FINITE: tl.constexpr, LEAKY: tl.constexpr,
    OWN: tl.constexpr, DELAYED: tl.constexpr, TERMS: tl.constexpr, STEPS: tl.constexpr, EPS: tl.constexpr,
    WHOLE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Spike times ``(E, B, O, SPIKES)``, which are given if ``OBSERVED``, and the current at each.

    With delays ``arrival`` and ``weight`` are ``(E, B, N, W)``, in the order of each neuron, and ``count`` is ``(E, B,
    O)``. Neurons that spike ``AGAIN`` have a state ``held (3, E, B, O)`` from their first event to the last if that is
    the end of a window (``FINITE``): voltage, current, and when they are released, ``inf`` of those that would spike
    more often than there is room for. ``released (E, B, O, SPIKES + 1)`` becomes the current at the initial release
    and after each spike.
    """
    sample, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    e = (tl.program_id(0) // batch).to(tl.int64)
    columns = tile * TILE + tl.arange(0, TILE)
    inside = columns < outputs
    mem, syn, top = constants_of(rates, e, columns, outputs, OWN)
    slow, fast = tl.minimum(mem, syn), tl.maximum(mem, syn)
    theta = tl.load(threshold + e * outputs + columns, mask=inside, other=1.0)
    row, place, states = sample * events, sample * outputs + columns, tl.num_programs(0).to(tl.int64) * outputs
    rows = weight + (row if DELAYED else e * inputs) * width + columns
    n = tl.load(count + place, mask=inside, other=0) if DELAYED else tl.load(count + sample)
    n = tl.zeros_like(columns) + (n - 1 if FINITE else n)  # intervals
    most = tl.max(n, axis=0)
    stream = (arrival, order, coefficients, rows, row, width, columns)
    nothing = tl.zeros_like(theta)
    voltage, current, since, low = nothing, nothing, nothing, nothing
    if AGAIN:
        voltage = tl.load(held + place, mask=inside, other=0.0)
        current = tl.load(held + states + place, mask=inside, other=0.0)
        since = tl.load(held + 2 * states + place, mask=inside, other=float("-inf"))
        hold = tl.load(refractory + e * outputs + columns, mask=inside, other=0.0)
        low = tl.load(reset + e * outputs + columns, mask=inside, other=0.0)
    spike = nothing + float("inf")
    if OBSERVED:
        spike = tl.load(spikes + place * SPIKES, mask=inside, other=float("inf"))
    number, looked = tl.zeros_like(columns), tl.zeros_like(columns) - 1
    voltage_of, current_of, begin_of, end_of, fires = nothing, nothing + 1.0, nothing, nothing, theta != theta
    waiting = inside & (n > 0)  # for their first spike, or for the last event
    k = 0
    while any_of(waiting):
        v, q, again = voltage, current, k >= 0
        if k + BLOCK < most:
            v, q, highest, least = _skimmed(voltage, current, k, stream, mem, syn, OWN, DELAYED, TERMS, TILE)
            may = waiting & (highest >= _NEAR * theta * least)
            if OBSERVED or AGAIN:
                end = nothing + tl.load(arrival + row + k + BLOCK)
            if OBSERVED:
                may = waiting & (spike <= end)
            if AGAIN:
                v = tl.where(since > end, low, v)
                may = (may & (OBSERVED | (since <= end))) | ((since > tl.load(arrival + row + k)) & (since <= end))
            if DELAYED:
                may = may | (waiting & (k + BLOCK >= n))
            again = any_of(may)
        while again:
            v, q, seen, seen_at, interval = _first_candidates(
                voltage, current, k, n, most, waiting, looked, since, spike, number, theta, low, stream,
                released, place, inside, events, mem, syn, slow, fast, SPIKES, AGAIN, OBSERVED, OWN, DELAYED, TERMS,
            )  # fmt: skip
            crosses = _crosses(seen, interval, theta, mem, syn, top, OBSERVED, LEAKY, TERMS)
            seen_voltage, seen_current, _after, seen_begin, seen_end = interval
            if AGAIN:
                crosses = crosses | (seen & (seen_voltage >= theta))
                if any_of(crosses):
                    if not OBSERVED:
                        spike = spike_time(
                            seen_voltage, seen_current, seen_begin, seen_end, theta, crosses, mem, syn, top,
                            LEAKY, STEPS, EPS, TERMS, WHOLE,
                        )  # fmt: skip
                    room = crosses & (number < SPIKES)
                    if not OBSERVED:
                        tl.store(spikes + place * SPIKES + number, spike, mask=room)
                    then = seen_current * tl.exp(tl.where(crosses, seen_begin - spike, 0.0) * syn)
                    then = tl.where(spike > seen_begin, then, 0.0)
                    tl.store(currents + place * SPIKES + number, then, mask=room)
                    since = tl.where(crosses, tl.where(room, spike + hold, float("inf")), since)
                    number += room.to(tl.int32)
                    if OBSERVED:
                        more = inside & (number < SPIKES)
                        spike = tl.load(spikes + place * SPIKES + number, mask=more, other=float("inf"))
                looked = tl.where(seen, tl.where(crosses, seen_at - 1, seen_at), looked)
                again = any_of(seen)
            else:
                voltage_of = tl.where(crosses, seen_voltage, voltage_of)
                current_of = tl.where(crosses, seen_current, current_of)
                begin_of, end_of = tl.where(crosses, seen_begin, begin_of), tl.where(crosses, seen_end, end_of)
                fires, waiting = fires | crosses, waiting & (crosses == 0)
                looked = tl.where(seen, seen_at, looked)
                again = any_of(seen & (crosses == 0))
        voltage, current = v, q
        k += BLOCK
        waiting = waiting & (k < n)
        if AGAIN and not FINITE:
            waiting = waiting & (since < float("inf"))
    if AGAIN:
        tl.store(held + place, voltage, mask=inside)
        tl.store(held + states + place, current, mask=inside)
        tl.store(held + 2 * states + place, since, mask=inside)
    else:
        if not OBSERVED:
            spike = spike_time(
                voltage_of, current_of, begin_of, end_of, theta, fires, mem, syn, top, LEAKY, STEPS, EPS, TERMS, WHOLE
            )
            spike = tl.where(fires, spike, float("inf"))
            tl.store(spikes + place, spike, mask=inside)
        caused = fires & (spike > begin_of)
        then = current_of * tl.exp(tl.where(caused, begin_of - spike, 0.0) * syn)
        tl.store(currents + place, tl.where(caused, then, 0.0), mask=inside)


@triton.jit
def _skimmed(
    voltage, current, k, stream, mem, syn,
    OWN: tl.constexpr, DELAYED: tl.constexpr, TERMS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Membrane and current after a whole block from input ``k`` on, as if nobody spiked.

    Also the highest membrane at the end of an interval, and the least that an interval leaves of one.
    """
    arrival, order, coefficients, rows, row, width, columns = stream
    v, q, highest = voltage, current, voltage
    least = (tl.zeros_like(voltage) if DELAYED else mem * 0.0) + 1.0
    for j in tl.range(0, BLOCK, loop_unroll_factor=FEW if OWN or DELAYED else BLOCK):
        gap = 0.0
        if DELAYED:
            at = arrival + (row + k) * width + columns + j * width
            gap = tl.load(at + width) - tl.load(at)
            q += tl.load(rows + k * width + j * width)
        else:
            if OWN:
                gap = tl.load(arrival + row + k + (j + 1)) - tl.load(arrival + row + k + j)
            q += tl.load(rows + tl.multiple_of(tl.load(order + row + k + j), TILE))
        left, syn_left, response = coefficients_of(
            coefficients + (row + k) * 3 + 3 * j, gap, mem, syn, syn, OWN or DELAYED, TERMS
        )
        v = v * left + q * response
        q = q * syn_left
        highest, least = tl.maximum(highest, v), tl.minimum(least, left)
    return v, q, highest, least


@triton.jit
def _first_candidates(
    voltage, current, k, n, most, waiting, looked, since, spike, number, theta, low, stream,
    released, place, inside, events, mem, syn, slow, fast,
    SPIKES: tl.constexpr, AGAIN: tl.constexpr, OBSERVED: tl.constexpr, OWN: tl.constexpr, DELAYED: tl.constexpr,
    TERMS: tl.constexpr,
):  # fmt: skip
    """Membrane and current after the block from input ``k`` on, and where each neuron may first spike.

    Only inputs after the one ``looked`` at last count. Of the neurons ``seen`` these are the input, and the interval
    after it: membrane and current at the begin, membrane at the end, begin and end.
    """
    arrival, order, coefficients, rows, row, width, columns = stream
    nothing = tl.zeros_like(theta)
    v, q, seen = voltage, current, theta != theta
    if AGAIN:
        v = tl.where(since > tl.load(arrival + row + k), low, voltage)
    seen_voltage, seen_current, seen_after, seen_at = nothing, nothing + 1.0, nothing, looked
    seen_begin, seen_end = nothing, nothing
    for j in tl.range(0, tl.minimum(BLOCK, most - k), loop_unroll_factor=1 if AGAIN or OWN or DELAYED else 4):
        i = k + j
        if DELAYED:
            at = arrival + (row + i) * width + columns
            begin = tl.load(at)
            end = tl.load(at + width, mask=i + 1 < n, other=float("inf"))
            q += tl.load(rows + i * width)
        else:
            begin = tl.load(arrival + row + i)
            end = tl.load(arrival + row + i + 1, mask=i + 1 < events, other=float("inf"))
            q += tl.load(rows + tl.load(order + row + i))
        if AGAIN:
            begin, end = nothing + begin, nothing + end
        gap = tl.where(end < float("inf"), end - begin, 0.0)
        left, syn_left, response = coefficients_of(
            coefficients + (row + i) * 3, gap, mem, syn, syn, OWN or DELAYED, TERMS
        )
        since_then, at_then = q, begin
        if AGAIN:
            left, response, since_then, at_then = _from_release(
                left, response, since, begin, end, q, released, place, number, inside, mem, syn, slow, fast,
                SPIKES, TERMS,
            )  # fmt: skip
        after = v * left + since_then * response
        if OBSERVED:
            near = (spike <= end) & (spike < float("inf"))
            since_then, at_then = q, begin
        else:
            # while it rises the membrane is concave, and stays below its tangent
            tangent = v + (end - at_then) * (since_then * syn - v * mem)
            near = (tangent >= _NEAR * theta) | (after >= theta)
            if AGAIN:
                near = (near | (v >= theta)) & (since <= end)
        if DELAYED:
            near = near & (i < n)
        hit = waiting & near & (i > looked) & (seen == 0)
        seen_voltage, seen_current = tl.where(hit, v, seen_voltage), tl.where(hit, since_then, seen_current)
        seen_begin, seen_end = tl.where(hit, at_then, seen_begin), tl.where(hit, end, seen_end)
        seen_after, seen_at = tl.where(hit, after, seen_after), tl.where(hit, i, seen_at)
        seen = seen | hit
        v = tl.where(since > end, low, after) if AGAIN else after
        q = q * syn_left
    return v, q, seen, seen_at, (seen_voltage, seen_current, seen_after, seen_begin, seen_end)


@triton.jit
def _from_release(
    left, response, since, begin, end, q, released, place, number, inside, mem, syn, slow, fast,
    SPIKES: tl.constexpr, TERMS: tl.constexpr,
):  # fmt: skip
    """Neurons after an interval in which they may be released, with the current and the time where that begins.

    The current at the release is written to ``released``.
    """
    left, response, current = left + tl.zeros_like(begin), response + tl.zeros_like(begin), q
    joins = (since > begin) & (since <= end)
    at = tl.maximum(begin, tl.where(joins, since, begin))
    if any_of(joins):
        rest = tl.where(joins & (end < float("inf")), end - at, 0.0)
        current = q * tl.exp((begin - at) * syn)
        left = tl.where(joins, tl.exp(-rest * mem), left)
        response = tl.where(joins, kappa(rest, slow, fast, syn, TERMS), response)
        tl.store(released + place * (SPIKES + 1) + number, current, mask=inside & joins)
    return left, response, current, at


@triton.jit
def _crosses(seen, interval, theta, mem, syn, top, OBSERVED: tl.constexpr, LEAKY: tl.constexpr, TERMS: tl.constexpr):
    """The neurons ``seen`` that reach the threshold in their interval, at the end or at a peak before."""
    voltage, current, after, begin, end = interval
    endless = end == float("inf")
    if OBSERVED:
        crosses = seen
    elif LEAKY:
        crosses = seen & (after >= theta) & (endless == 0)
        peaks = seen & (current * syn > voltage * mem) & (current > 0.0) & (crosses == 0)
        if any_of(peaks):
            summit, height = peak(tl.where(peaks, voltage, 0.0), tl.where(peaks, current, 1.0), mem, syn, top, TERMS)
            crosses = crosses | (peaks & (height >= theta) & (endless | (summit <= end - begin)))
    else:
        crosses = seen & (endless | (after >= theta)) & (voltage + current > theta)
    return crosses
