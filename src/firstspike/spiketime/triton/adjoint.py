"""The backward pass on a GPU, at given spikes.

A spike that moves by ``-P`` times its slope adds ``P kappa(T - t)`` to the gradient with respect to the weight of each
input that arrives before, and from later inputs to earlier ones

    c(t - gap) = c exp(-gap x) + e kappa(gap),        e(t - gap) = e exp(-gap y)

where x is the smaller rate and y the larger one, or x that of the current and y that of the membrane, so that c and e
are the adjoints of current and membrane (EventProp). All is linear: a neuron's events are a list of jumps
``(time, P)`` that join these sums. A neuron that spikes again has one for each spike and one for the end of each
refractory time, which takes from e what lies behind it. A program walks through a chunk of samples with a tile of
neurons, back from the last jump, in the blocks of ``scan``. The gain of the sums at a jump is computed afresh.
"""

# mypy: disable-error-code="no-untyped-def"
import triton
import triton.language as tl

from firstspike.spiketime.triton.membrane import any_of, coefficients_of, constants_of, kappa, kappa_by_taus
from firstspike.spiketime.triton.scan import BLOCK


@triton.jit
def terms_kernel(
    arrival, order, count, weight, delay, rates, spikes, current, largest, by_mem, by_syn,
    batch, inputs, events, outputs, width,
    OWN: tl.constexpr, DELAYED: tl.constexpr, TAUS: tl.constexpr, TERMS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Terms of each neuron at its spike: synaptic current, largest response to one input, dV/dtau_mem and dV/dtau_syn.

    ``spikes`` of neurons without a gradient are ``-inf``. With delays ``delay`` is like ``weight``, and ``arrival`` in
    the order of the inputs. Each term of the sums is computed by itself, for which delays need no order.
    """
    sample, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    e = (tl.program_id(0) // batch).to(tl.int64)
    columns = tile * TILE + tl.arange(0, TILE)
    inside = columns < outputs
    mem, syn, _ = constants_of(rates, e, columns, outputs, OWN)
    slow, fast = tl.minimum(mem, syn), tl.maximum(mem, syn)
    place = sample * outputs + columns
    at = tl.load(spikes + place, mask=inside, other=float("-inf"))
    total, high = tl.zeros_like(at), tl.zeros_like(at)
    total_mem, total_syn = tl.zeros_like(at), tl.zeros_like(at)
    for k in tl.range(0, _causal(arrival, count, sample, events, at, DELAYED)):
        w, s, decayed, response, _index = _direct(
            arrival, order, weight, delay, k, e, sample, inputs, events, width, columns, at, slow, fast, syn,
            DELAYED, TERMS,
        )  # fmt: skip
        total += w * tl.where(mem <= syn, decayed, decayed + response * (fast - slow) / syn)
        high = tl.maximum(high, response)
        if TAUS:
            of_mem, of_syn = kappa_by_taus(s, mem, syn, response, TERMS)
            total_mem += w * of_mem
            total_syn += w * of_syn
    tl.store(current + place, total, mask=inside)
    tl.store(largest + place, high, mask=inside)
    if TAUS:
        tl.store(by_mem + place, total_mem, mask=inside)
        tl.store(by_syn + place, total_syn, mask=inside)


@triton.jit
def _causal(arrival, count, sample, events, at, DELAYED: tl.constexpr):
    """How many inputs of the sample arrive before the latest of the times. With delays all may."""
    if DELAYED:
        found = events
    else:
        found, stop, latest = 0, tl.load(count + sample), tl.max(at, axis=0)
        while found < stop:
            middle = (found + stop) // 2
            early = tl.load(arrival + sample * events + middle) < latest
            found, stop = tl.where(early, middle + 1, found), tl.where(early, stop, middle)
    return found


@triton.jit
def _direct(
    arrival, order, weight, delay, k, e, sample, inputs, events, width, columns, at, slow, fast, syn,
    DELAYED: tl.constexpr, TERMS: tl.constexpr,
):  # fmt: skip
    """One input: its weights, the time s from it to each spike, ``exp(-s fast)``, ``kappa(s)``, its place in weights.

    The times and values derived from them are 0 where the input does not arrive before the spike.
    """
    time = tl.load(arrival + sample * events + k)
    if DELAYED:
        index = k * width
        time += tl.load(delay + e * inputs * width + index + columns)
    else:
        index = tl.load(order + sample * events + k)
    causal = time < at
    s = tl.where(causal, at - time, 0.0)
    decayed = tl.where(causal, tl.exp(-s * fast), 0.0)
    response = tl.where(causal, kappa(s, slow, fast, syn, TERMS), 0.0)
    return tl.load(weight + e * inputs * width + index + columns), s, decayed, response, index


@triton.jit
def jump_kernel(
    spikes, currents, released, count, rates, threshold, reset, refractory, grads, of_end, largest, limit, since,
    at, scale, kept, last, by_threshold, by_reset, by_start, window, batch, outputs,
    SPIKES: tl.constexpr, START: tl.constexpr, ENDS: tl.constexpr, BOUND: tl.constexpr, OWN: tl.constexpr,
    TERMS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Jumps of neurons that spike again, from their last spike to their first.

    The membrane from one release to the next spike k, or to the end of the ``window``, has two: at ``2 k + 1`` that of
    the spike, at ``2 k`` that of the release. ``last`` is the place of the last one. ``by_start (E, B, O, 2)`` has the
    gradients with respect to the voltage at the start and to the rest of the refractory time then.
    """
    sample, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    e = (tl.program_id(0) // batch).to(tl.int64)
    columns = tile * TILE + tl.arange(0, TILE)
    inside = columns < outputs
    mem, syn, _ = constants_of(rates, e, columns, outputs, OWN)
    of_neurons, place = e * outputs + columns, sample * outputs + columns
    theta = tl.load(threshold + of_neurons, mask=inside, other=1.0)
    low = tl.load(reset + of_neurons, mask=inside, other=0.0)
    hold = tl.load(refractory + of_neurons, mask=inside, other=0.0)
    number = tl.load(count + place, mask=inside, other=-1)
    pull, kept_pull, slope = tl.zeros_like(theta), tl.zeros_like(theta), tl.zeros_like(theta)
    total, resets = tl.zeros_like(theta), tl.zeros_like(theta)
    waits = inside & (number < -1)  # of the neurons that are held at the start: none
    if START:
        waits = tl.load(since + place, mask=inside, other=0.0) > tl.load(window)
    for step in tl.range(0, SPIKES + 1):
        k = tl.zeros_like(number) + (SPIKES - step)
        spikes_k, there = place * SPIKES + k, inside & (k < number)
        time = tl.load(spikes + spikes_k, mask=there, other=float("-inf"))
        release = tl.load(spikes + spikes_k - 1, mask=inside & (k > 0) & (k <= number), other=float("-inf")) + hold
        if START:
            first = tl.load(since + place, mask=inside & (k == 0), other=float("-inf"))
            release = tl.maximum(release, first)
        rise = tl.load(currents + spikes_k, mask=there, other=0.0) * syn - theta * mem
        fires = there & (rise > 0.0) & (time > release)
        asked = tl.load(grads + spikes_k, mask=there, other=0.0)
        rise = tl.where(fires, rise, 1.0)
        moved = tl.where(fires, (slope * pull - asked) / rise, 0.0)
        kept_moved = tl.where(fires, (slope * kept_pull - asked) / rise, 0.0)
        total += moved
        if BOUND:
            most = tl.load(largest + spikes_k, mask=there, other=0.0)
            bound = tl.load(limit + of_neurons, mask=inside, other=0.0)
            kept_moved = tl.where(there & (most * tl.abs(kept_moved) > bound), 0.0, kept_moved)
        if ENDS:
            of_voltage = tl.load(of_end + place, mask=inside & (k == number), other=0.0)
            moved, kept_moved = moved + of_voltage, kept_moved + of_voltage
            time = tl.where(k == number, tl.load(window + 1), time)
        lasted = (release > float("-inf")) & (time > float("-inf"))
        left = tl.where(lasted, tl.exp(tl.minimum(tl.where(lasted, release - time, 0.0), 0.0) * mem), 0.0)
        pull, kept_pull = moved * left, kept_moved * left
        resets += tl.where((k > 0) | waits, pull, 0.0)
        then = tl.load(released + place * (SPIKES + 1) + k, mask=inside, other=0.0)
        slope = tl.where(lasted, then * syn - low * mem, 0.0)
        jump = place * (2 * SPIKES + 2) + 2 * k
        tl.store(at + jump, release, mask=inside)
        tl.store(at + jump + 1, time, mask=inside)
        tl.store(scale + jump, -pull, mask=inside)
        tl.store(scale + jump + 1, moved, mask=inside)
        if BOUND:
            tl.store(kept + jump, -kept_pull, mask=inside)
            tl.store(kept + jump + 1, kept_moved, mask=inside)
    tl.store(last + place, 2 * number + 1 if ENDS else 2 * number - 1, mask=inside)
    tl.store(by_threshold + place, -total, mask=inside)
    tl.store(by_reset + place, resets, mask=inside)
    if START:
        tl.store(by_start + 2 * place, tl.where(waits, 0.0, pull), mask=inside)
        tl.store(by_start + 2 * place + 1, tl.where(waits, -slope * pull, 0.0), mask=inside)


@triton.jit
def gradient_kernel(
    arrival, order, count, coefficients, weight, delay, rates, at, scale, kept, last, final,
    by_weight, by_times, by_delay, by_current,
    batch, inputs, events, outputs, width, chunks, first_tile,
    JUMPS: tl.constexpr, AGAIN: tl.constexpr, START: tl.constexpr, ENDS: tl.constexpr, BOUND: tl.constexpr,
    WEIGHT: tl.constexpr, TIMES: tl.constexpr, DELAY: tl.constexpr, OWN: tl.constexpr, DELAYED: tl.constexpr,
    TERMS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Sums over a chunk of samples and over a tile of neurons.

    ``at``, ``scale`` and, for weights with a ``BOUND``, ``kept`` are the jumps ``(E, B, O, JUMPS)``, in order of time.
    ``by_weight`` and ``by_delay (E, chunks, I, W)``, and ``by_times (tiles, E, B, N)`` in the order of arrival, are
    zeros at the beginning. c begins as ``final`` where there is a loss by the current at the end (``ENDS``), and is
    the gradient with respect to that at the start (``START``). Other arguments are as in ``forward_kernel`` and
    ``terms_kernel``. Each number of a sum has one program that adds to it, one after the other.
    """
    part, tile = tl.program_id(0), tl.program_id(1)
    e, chunk = (part // chunks).to(tl.int64), part % chunks
    samples = (tl.num_programs(0) // chunks).to(tl.int64) * batch
    columns = (first_tile + tile) * TILE + tl.arange(0, TILE)
    inside = columns < outputs
    mem, syn, _ = constants_of(rates, e, columns, outputs, OWN)
    slow, fast = tl.minimum(mem, syn), tl.maximum(mem, syn)
    one, other = (syn, mem) if AGAIN else (slow, fast)
    rows, targets = e * inputs * width + columns, part.to(tl.int64) * inputs * width + columns
    b = chunk * batch // chunks
    stop = (chunk + 1) * batch // chunks
    while b < stop:
        sample = e * batch + b
        row, place, sums = sample * events, sample * outputs + columns, (tile * samples + sample) * events
        nth = tl.load(last + place, mask=inside, other=-1) if AGAIN else tl.where(inside, 0, -1)
        jump = place * JUMPS
        time = tl.load(at + jump + nth, mask=nth >= 0, other=float("-inf"))
        pull = tl.load(scale + jump + nth, mask=nth >= 0, other=0.0)
        kept_pull = tl.load(kept + jump + nth, mask=nth >= 0, other=0.0) if BOUND else pull
        c, d = tl.zeros_like(pull), tl.zeros_like(pull)
        if ENDS:
            c = tl.load(final + place, mask=inside, other=0.0)
        kept_c, kept_d = c, d
        n = events if DELAYED else tl.load(count + sample)
        stop_at = n if ENDS else _causal(arrival, count, sample, events, time, DELAYED)
        if DELAYED:
            for i in tl.range(0, stop_at):
                w, _s, decayed, response, index = _direct(
                    arrival, order, weight, delay, i, e, sample, inputs, events, width, columns, time, slow, fast, syn,
                    DELAYED, TERMS,
                )  # fmt: skip
                if WEIGHT:
                    tl.atomic_add(by_weight + targets + index, response * kept_pull, sem="relaxed")
                if TIMES or DELAY:
                    each = w * pull * (response * slow - decayed * syn)
                if DELAY:
                    tl.atomic_add(by_delay + targets + index, each, sem="relaxed")
                if TIMES:
                    tl.store(by_times + sums + i, tl.sum(each, axis=0))
        else:
            k = (stop_at - 1) // BLOCK * BLOCK
            while k >= 0:
                joined = k + BLOCK > stop_at  # or an input of the block is the last one before a jump
                joined = k >= 0 if OWN else joined | any_of(time > tl.load(arrival + row + k))
                if joined:
                    steps = tl.minimum(BLOCK, stop_at - k)
                    for step in tl.range(0, steps):
                        i = k + steps - 1 - step
                        begin = tl.load(arrival + row + i)
                        gap = 0.0
                        if OWN:
                            gap = tl.load(arrival + row + tl.minimum(i + 1, n - 1)) - begin
                        left, other_left, response = coefficients_of(
                            coefficients + (row + i) * 3, gap, one, other, syn, OWN, TERMS
                        )
                        c, d = c * left + d * response, d * other_left
                        if BOUND:
                            kept_c, kept_d = kept_c * left + kept_d * response, kept_d * other_left
                        joins = time > begin
                        while any_of(joins):
                            s = tl.where(joins, time - begin, 0.0)
                            gained = tl.where(joins, kappa(s, slow, fast, syn, TERMS), 0.0)
                            gained_d = tl.where(joins, tl.exp(-s * other), 0.0)
                            c, d = c + pull * gained, d + pull * gained_d
                            if BOUND:
                                kept_c, kept_d = kept_c + kept_pull * gained, kept_d + kept_pull * gained_d
                            nth -= joins.to(tl.int32)
                            more = joins & (nth >= 0)
                            if AGAIN:
                                pull = tl.where(joins, tl.load(scale + jump + nth, mask=more, other=0.0), pull)
                                if BOUND:
                                    earlier = tl.load(kept + jump + nth, mask=more, other=0.0)
                                    kept_pull = tl.where(joins, earlier, kept_pull)
                                earlier = tl.load(at + jump + nth, mask=more, other=float("-inf"))
                                time = tl.where(joins, earlier, time)
                            else:
                                time = tl.where(joins, float("-inf"), time)
                            joins = time > begin
                        index = tl.load(order + row + i)
                        if WEIGHT:
                            tl.atomic_add(by_weight + targets + index, kept_c if BOUND else c, sem="relaxed")
                        if TIMES:
                            each = tl.load(weight + rows + index) * (c * one - d * syn)
                            tl.store(by_times + sums + i, tl.sum(each, axis=0))
                elif not OWN:
                    indices, of_weights, of_times = (), (), ()
                    for step in tl.static_range(BLOCK):
                        i = BLOCK - 1 - step
                        left, other_left, response = coefficients_of(
                            coefficients + (row + k) * 3 + 3 * i, 0.0, one, other, syn, OWN, TERMS
                        )
                        c, d = c * left + d * response, d * other_left
                        if BOUND:
                            kept_c, kept_d = kept_c * left + kept_d * response, kept_d * other_left
                        index = tl.multiple_of(tl.load(order + row + k + i), TILE)
                        indices, of_weights = indices + (index,), of_weights + (kept_c if BOUND else c,)
                        if TIMES:
                            each = tl.load(weight + rows + index) * (c * one - d * syn)
                            of_times = of_times + (tl.sum(each, axis=0),)
                    for step in tl.static_range(BLOCK):  # after all loads, which would otherwise wait for each other
                        if WEIGHT:
                            tl.atomic_add(by_weight + targets + indices[step], of_weights[step], sem="relaxed")
                        if TIMES:
                            tl.store(by_times + sums + k + (BLOCK - 1 - step), of_times[step])
                k -= BLOCK
        if START:
            tl.store(by_current + place, c, mask=inside)
        b += 1
