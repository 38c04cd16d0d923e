"""The scan on a GPU. One program works on one sample, or some, and a tile of neurons, whose states are in registers.

Time constants are given as rates. ``slow`` and ``fast`` are the smaller and the larger of ``1/tau_mem`` and
``1/tau_syn``, and the response to one input

    kappa(s) = exp(-s slow) (1 - exp(-s (fast - slow))) / (fast - slow) / tau_syn

does not depend on which is which, but for the last factor. Coefficients of the interval after each input, which all
neurons of a sample share, are computed once, before; neurons with time constants of their own compute theirs.
"""

# mypy: disable-error-code="no-untyped-def"
import triton
import triton.language as tl


@triton.jit
def _decay_series(y, TERMS: tl.constexpr):
    """``(1 - exp(-y)) / y`` for ``0 <= y < 1/2``."""
    total = tl.zeros_like(y) + 1.0
    for n in tl.static_range(TERMS):
        total = 1.0 - y * total * (1.0 / (TERMS + 1 - n))
    return total


@triton.jit
def _log1p_over(z, TERMS: tl.constexpr):
    """``log(1 + z) / z`` for ``z >= -1``; 1 at 0."""
    near = tl.abs(z) < 0.5
    small = tl.where(near, z, 0.0)
    ratio = small / (2.0 + small)  # log(1 + z) = 2 artanh(z / (2 + z))
    square = ratio * ratio
    total = tl.zeros_like(z)
    for n in tl.static_range(TERMS):
        total = total * square + 1.0 / (2 * (TERMS - 1 - n) + 1)
    large = tl.where(near, 1.0, z)
    return tl.where(near, 2.0 / (2.0 + small) * total, tl.log(1.0 + large) / large)


@triton.jit
def _kappa(s, slow, fast, syn, TERMS: tl.constexpr):
    """Membrane at the finite time ``s >= 0`` after an input of weight 1."""
    y = s * (fast - slow)
    near = y < 0.5
    rise = tl.where(
        near, s * _decay_series(tl.where(near, y, 0.0), TERMS), (1.0 - tl.exp(-y)) / tl.where(near, 1.0, fast - slow)
    )
    return tl.exp(-s * slow) * rise * syn


@triton.jit
def _peak(voltage, current, mem, syn, top, TERMS: tl.constexpr):
    """Time and height of the maximum after a rising state with a positive current, see ``response.peak``.

    ``top`` is ``-log(tau_syn/tau_mem) / (1 - tau_syn/tau_mem)``.
    """
    ratio = mem / syn
    r = voltage / current
    rest = tl.minimum(r * _log1p_over(tl.maximum((1.0 - ratio) * r, -1.0), TERMS), top)
    return (top - rest) / syn, current * tl.exp(rest - ratio * top)


@triton.jit
def _constants(rates, e, columns, outputs, PER_NEURON: tl.constexpr):
    """``1/tau_mem``, ``1/tau_syn`` and ``top`` of these neurons, or of all."""
    if PER_NEURON:
        base, inside = rates + e * 3 * outputs, columns < outputs
        mem = tl.load(base + columns, mask=inside, other=1.0)
        syn = tl.load(base + outputs + columns, mask=inside, other=1.0)
        top = tl.load(base + 2 * outputs + columns, mask=inside, other=1.0)
    else:
        mem, syn, top = tl.load(rates), tl.load(rates + 1), tl.load(rates + 2)
    return mem, syn, top


@triton.jit
def _interval(gap, coefficients, row, slow, fast, syn, PER_NEURON: tl.constexpr, TERMS: tl.constexpr):
    """``exp(-gap slow)``, ``exp(-gap fast)`` and ``kappa(gap)`` of the interval after an input."""
    if PER_NEURON:
        decay_slow, decay_fast = tl.exp(-gap * slow), tl.exp(-gap * fast)
        response = _kappa(gap, slow, fast, syn, TERMS)
    else:
        place = coefficients + row * 3
        decay_slow, decay_fast, response = tl.load(place), tl.load(place + 1), tl.load(place + 2)
    return decay_slow, decay_fast, response


@triton.jit
def forward_kernel(
    arrival, gaps, order, count, coefficients, weight, threshold, rates, start, limit, wait,
    batch, inputs, outputs,
    LEAKY: tl.constexpr, PER_NEURON: tl.constexpr, TERMS: tl.constexpr, STEPS: tl.constexpr, EPS: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """The interval in which each neuron of a tile reaches the threshold first, and the time from its start.

    ``weight`` is ``(E, I, O)``. ``start`` and ``limit`` become the ends of the interval, ``inf`` and ``inf`` where the
    neuron is silent.
    """
    sample, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    e = sample // batch
    columns = tile * TILE + tl.arange(0, TILE)
    inside = columns < outputs
    mem, syn, top = _constants(rates, e, columns, outputs, PER_NEURON)
    slow, fast = tl.minimum(mem, syn), tl.maximum(mem, syn)
    theta = tl.load(threshold + e * outputs + columns, mask=inside, other=1.0)
    n = tl.load(count + sample)
    row = sample * inputs
    voltage, current = tl.zeros_like(theta), tl.zeros_like(theta)
    found_voltage, found_current = tl.zeros_like(theta), tl.zeros_like(theta) + 1.0
    begin, length = tl.zeros_like(theta), tl.zeros_like(theta)
    waiting = inside  # for their first crossing
    k = 0
    while (k < n) & (tl.max(waiting.to(tl.int32), axis=0) > 0):
        index = tl.load(order + row + k).to(tl.int64)
        current += tl.load(weight + (e * inputs + index) * outputs + columns, mask=inside, other=0.0)
        last = k == n - 1
        gap = tl.load(gaps + row + k)  # 0 after the last input
        decay_slow, decay_fast, response = _interval(gap, coefficients, row + k, slow, fast, syn, PER_NEURON, TERMS)
        decay_mem = tl.where(mem <= syn, decay_slow, decay_fast)
        decay_syn = tl.where(mem <= syn, decay_fast, decay_slow)
        end = voltage * decay_mem + current * response
        if LEAKY:
            crosses = waiting & (end >= theta) & (not last)
            rising = current * syn - voltage * mem
            # while it rises the membrane is concave, and stays below its tangent
            peaks = waiting & (rising > 0.0) & (current > 0.0) & (~crosses)
            peaks = peaks & (last | (voltage + gap * rising >= 0.999 * theta))
            if tl.max(peaks.to(tl.int32), axis=0) > 0:
                summit, height = _peak(
                    tl.where(peaks, voltage, 0.0), tl.where(peaks, current, 1.0), mem, syn, top, TERMS
                )
                crosses = crosses | (peaks & (height >= theta) & (last | (summit <= gap)))
        else:
            crosses = waiting & (last | (end >= theta)) & (voltage + current > theta)
        time = tl.load(arrival + row + k)
        found_voltage = tl.where(crosses, voltage, found_voltage)
        found_current = tl.where(crosses, current, found_current)
        begin = tl.where(crosses, time, begin)
        length = tl.where(crosses, tl.where(last, float("inf"), gap), length)
        waiting = waiting & (~crosses)
        voltage = end
        current = current * decay_syn
        k += 1
    fires = inside & (~waiting)
    lack = theta - found_voltage
    rises = found_current * syn > found_voltage * mem
    moves = fires & rises
    found_voltage, found_current = tl.where(moves, found_voltage, 0.0), tl.where(moves, found_current, 4.0 * theta)
    lack = tl.where(moves, lack, theta)
    if LEAKY:
        summit, height = _peak(found_voltage, found_current, mem, syn, top, TERMS)
        bend = found_current * tl.exp(-summit * syn) * syn * syn
        # where the peak is inside, the parabola at the peak is a better start than the interval's begin
        s = summit - tl.sqrt(tl.maximum(2.0 * (height - theta) / tl.where(bend > 0.0, bend, 1.0), 0.0))
        s = tl.where((s > 0.0) & (summit <= length) & (bend > 0.0), s, 0.0)
        step = 0
        while (step < STEPS) & (tl.max(moves.to(tl.int32), axis=0) > 0):
            value = found_voltage * tl.exp(-s * mem) + found_current * _kappa(s, slow, fast, syn, TERMS)
            slope = found_current * tl.exp(-s * syn) * syn - value * mem
            ahead = tl.where(slope > 0.0, (theta - value) / tl.where(slope > 0.0, slope, 1.0), 0.0)
            following = tl.maximum(tl.minimum(s + ahead, summit), 0.0)
            moves = moves & (following - s > EPS * following)
            s = tl.where(moves, following, s)
            step += 1
    else:
        part = tl.minimum(lack / found_current, 1.0)
        s = part * _log1p_over(-part, TERMS) / syn
    # a membrane that does not rise can only be rounded up to the threshold, at the interval's end
    s = tl.where(rises, s, length)
    place = sample * outputs + columns
    tl.store(start + place, tl.where(fires, begin, float("inf")), mask=inside)
    tl.store(limit + place, tl.where(fires, begin + length, float("inf")), mask=inside)
    tl.store(wait + place, tl.where(fires, tl.minimum(s, length), 0.0), mask=inside)


@triton.jit
def _back(
    time, spikes, joined, decayed, response, gap, coefficients, place, slow, fast, syn,
    PER_NEURON: tl.constexpr, TERMS: tl.constexpr,
):  # fmt: skip
    """``exp(-s fast)`` and ``kappa(s)`` of the time from an input to each spike, from those of the next input.

    ``joined`` are the neurons for which the next input was causal; this input's become the result's.
    """
    decay_slow, decay_fast, between = _interval(gap, coefficients, place, slow, fast, syn, PER_NEURON, TERMS)
    response = response * decay_slow + decayed * between
    decayed = decayed * decay_fast
    joins = (time < spikes) & (~joined)
    if tl.max(joins.to(tl.int32), axis=0) > 0:
        s = tl.where(joins, spikes - time, 0.0)
        decayed = tl.where(joins, tl.exp(-s * fast), decayed)
        response = tl.where(joins, _kappa(s, slow, fast, syn, TERMS), response)
    return joined | joins, decayed, response


@triton.jit
def slope_kernel(
    arrival, gaps, order, count, coefficients, weight, rates, spikes, current, largest,
    batch, inputs, outputs,
    PER_NEURON: tl.constexpr, TERMS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The synaptic current of each neuron at its spike, and its largest response to one input.

    ``spikes`` of neurons without a gradient are ``-inf``.
    """
    sample, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    e = sample // batch
    columns = tile * TILE + tl.arange(0, TILE)
    inside = columns < outputs
    mem, syn, _ = _constants(rates, e, columns, outputs, PER_NEURON)
    slow, fast = tl.minimum(mem, syn), tl.maximum(mem, syn)
    place = sample * outputs + columns
    at = tl.load(spikes + place, mask=inside, other=float("-inf"))
    row = sample * inputs
    total, high = tl.zeros_like(at), tl.zeros_like(at)
    decayed, response = tl.zeros_like(at), tl.zeros_like(at)
    joined = at != at
    k = tl.load(count + sample) - 1
    while k >= 0:
        time = tl.load(arrival + row + k)
        if tl.max(at, axis=0) > time:
            gap = tl.load(gaps + row + k)
            joined, decayed, response = _back(
                time, at, joined, decayed, response, gap, coefficients, row + k, slow, fast, syn, PER_NEURON, TERMS
            )
            index = tl.load(order + row + k).to(tl.int64)
            w = tl.load(weight + (e * inputs + index) * outputs + columns, mask=inside, other=0.0)
            total += w * tl.where(mem <= syn, decayed, decayed + response * (fast - slow) / syn)
            high = tl.maximum(high, response)
        k -= 1
    tl.store(current + place, total, mask=inside)
    tl.store(largest + place, high, mask=inside)


@triton.jit
def gradient_kernel(
    arrival, gaps, order, count, coefficients, weight, rates, spikes, scale, kept, by_weight, by_times,
    batch, inputs, outputs, chunks, first_tile,
    PER_NEURON: tl.constexpr, WEIGHT: tl.constexpr, TIMES: tl.constexpr, TERMS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Sums over a chunk of samples and over a tile of neurons.

    ``by_weight (E, chunks, I, O)`` are zeros at the beginning, ``by_times`` is ``(tiles, E, B, I)`` in the order of
    arrival. ``scale`` is dL/dT by the slope at the spike, and ``kept`` that for the weights.
    """
    part, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    e, chunk = part // chunks, part % chunks
    columns = (first_tile + tile) * TILE + tl.arange(0, TILE)
    inside = columns < outputs
    mem, syn, _ = _constants(rates, e, columns, outputs, PER_NEURON)
    slow, fast = tl.minimum(mem, syn), tl.maximum(mem, syn)
    b = chunk * batch // chunks
    stop = (chunk + 1) * batch // chunks
    while b < stop:
        sample = e * batch + b
        row = sample * inputs
        place = sample * outputs + columns
        at = tl.load(spikes + place, mask=inside, other=float("-inf"))
        for_times = tl.load(scale + place, mask=inside, other=0.0)
        for_weight = tl.load(kept + place, mask=inside, other=0.0)
        decayed, response = tl.zeros_like(at), tl.zeros_like(at)
        joined = at != at
        k = tl.load(count + sample) - 1
        while k >= 0:
            time = tl.load(arrival + row + k)
            if tl.max(at, axis=0) > time:
                gap = tl.load(gaps + row + k)
                joined, decayed, response = _back(
                    time, at, joined, decayed, response, gap, coefficients, row + k, slow, fast, syn, PER_NEURON, TERMS
                )
                index = tl.load(order + row + k).to(tl.int64)
                if WEIGHT:
                    target = by_weight + (part * inputs + index) * outputs + columns
                    earlier = tl.load(target, mask=inside, other=0.0)
                    tl.store(target, earlier - response * for_weight, mask=inside)
                if TIMES:
                    w = tl.load(weight + (e * inputs + index) * outputs + columns, mask=inside, other=0.0)
                    each = w * for_times * (decayed * syn - response * slow)
                    samples = (tl.num_programs(0) // chunks) * batch
                    tl.store(by_times + (tile * samples + sample) * inputs + k, tl.sum(each, axis=0))
            k -= 1
        b += 1
