"""The scan on a GPU. One program works on one sample, or some, and a tile of neurons, whose states are in registers.

Time constants are given as rates: ``mem`` and ``syn`` are ``1/tau_mem`` and ``1/tau_syn``, ``slow`` and ``fast`` the
smaller and the larger of the two. The response

    kappa(s) = exp(-s slow) (1 - exp(-s (fast - slow))) / (fast - slow) / tau_syn

does not depend on which is which, but for the last factor. ``rates (E, 3, R)`` has ``mem``, ``syn`` and ``top``, see
``peak``, of each neuron (``OWN``), or of each network. Neurons see their inputs in the order of arrival of the
sample, ``arrival (E, B, I)``, or with synaptic delays (``DELAYED``) each in one of its own.

Coefficients of the interval after each input, ``exp(-gap slow)``, ``exp(-gap fast)`` and ``kappa(gap)``, which all
neurons of a sample share, are computed once, before. Neurons with an order or time constants of their own compute
theirs.
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
def log1p_over(z, TERMS: tl.constexpr):
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
def kappa(s, slow, fast, syn, TERMS: tl.constexpr):
    """Membrane at the finite time ``s >= 0`` after an input of weight 1."""
    y = s * (fast - slow)
    near = y < 0.5
    rise = tl.where(
        near, s * _decay_series(tl.where(near, y, 0.0), TERMS), (1.0 - tl.exp(-y)) / tl.where(near, 1.0, fast - slow)
    )
    return tl.exp(-s * slow) * rise * syn


@triton.jit
def peak(voltage, current, mem, syn, top, TERMS: tl.constexpr):
    """Time and height of the maximum after a rising state with a positive current, see ``response.peak``.

    ``top`` is ``-log(tau_syn/tau_mem) / (1 - tau_syn/tau_mem)``.
    """
    ratio = mem / syn
    r = voltage / current
    rest = tl.minimum(r * log1p_over(tl.maximum((1.0 - ratio) * r, -1.0), TERMS), top)
    return (top - rest) / syn, current * tl.exp(rest - ratio * top)


@triton.jit
def kappa_by_taus(s, mem, syn, response, TERMS: tl.constexpr):
    """Derivatives of ``kappa`` by ``tau_mem`` and ``tau_syn`` at the finite time ``s >= 0``, where it is ``response``.

    ``G_1`` and ``G_2`` as in ``spiketime.reference.response``, for ``y < 1/2`` from a series.
    """
    slow, fast = tl.minimum(mem, syn), tl.maximum(mem, syn)
    y = s * (fast - slow)
    near = y < 0.5
    small, large = tl.where(near, y, 0.0), tl.where(near, 1.0, y)
    series = tl.zeros_like(y) + 1.0
    for n in tl.static_range(TERMS):
        series = 1.0 - small * series * (1.0 / (TERMS + 2 - n))
    series = 0.5 * series
    decay = tl.exp(-large)
    first = tl.where(near, series, (large - 1.0 + decay) / large)  # G_1 for small y, and y G_1 for large
    second = tl.where(near, 1.0 - (1.0 + small) * series, (1.0 - (1.0 + large) * decay) / large)
    common = s * syn * tl.exp(-s * slow)
    by_mem = tl.where(mem <= syn, first, second) * (s * mem / large)
    by_syn = tl.where(mem <= syn, second, first) * (s * syn / large)
    return common * by_mem * mem, (common * by_syn - response) * syn


@triton.jit
def _constants(rates, e, columns, outputs, OWN: tl.constexpr):
    """``1/tau_mem``, ``1/tau_syn`` and ``top`` of these neurons, or of their network."""
    if OWN:
        base, inside = rates + e * 3 * outputs, columns < outputs
        mem = tl.load(base + columns, mask=inside, other=1.0)
        syn = tl.load(base + outputs + columns, mask=inside, other=1.0)
        top = tl.load(base + 2 * outputs + columns, mask=inside, other=1.0)
    else:
        base = rates + e * 3
        mem, syn, top = tl.load(base), tl.load(base + 1), tl.load(base + 2)
    return mem, syn, top


@triton.jit
def forward_kernel(
    arrival, order, count, coefficients, weight, rates, threshold, start, limit, wait,
    batch, inputs, outputs,
    LEAKY: tl.constexpr, OWN: tl.constexpr, DELAYED: tl.constexpr, TERMS: tl.constexpr, STEPS: tl.constexpr,
    EPS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The interval in which each neuron of a tile reaches the threshold first, and the time from its start.

    ``weight`` is ``(E, I, O)``. With delays ``arrival`` and ``weight`` are ``(E, B, I, O)``, in the order of each
    neuron, and ``count`` is ``(E, B, O)``. ``start`` and ``limit`` become the ends of the interval, ``inf`` and ``inf``
    where the neuron is silent.
    """
    sample, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    e = sample // batch
    columns = tile * TILE + tl.arange(0, TILE)
    inside = columns < outputs
    mem, syn, top = _constants(rates, e, columns, outputs, OWN)
    slow, fast = tl.minimum(mem, syn), tl.maximum(mem, syn)
    theta = tl.load(threshold + e * outputs + columns, mask=inside, other=1.0)
    row, place = sample * inputs, sample * outputs + columns
    n = tl.load(count + place, mask=inside, other=0) if DELAYED else tl.load(count + sample)
    voltage, current = tl.zeros_like(theta), tl.zeros_like(theta)
    found_voltage, found_current = tl.zeros_like(theta), tl.zeros_like(theta) + 1.0
    begin, length = tl.zeros_like(theta), tl.zeros_like(theta)
    waiting = inside & (n > 0)  # for their first crossing
    fires = theta != theta
    k = 0
    while tl.max(waiting.to(tl.int32), axis=0) > 0:
        last = k == n - 1
        next_one = tl.where(k < n - 1, k + 1, k)
        if DELAYED:
            at = (row + k) * outputs + columns
            time = tl.load(arrival + at, mask=waiting, other=0.0)
            gap = tl.load(arrival + (row + next_one) * outputs + columns, mask=waiting, other=0.0) - time
            current += tl.load(weight + at, mask=waiting, other=0.0)
        else:
            time = tl.load(arrival + row + k)
            gap = tl.load(arrival + row + next_one) - time  # 0 after the last input
            index = tl.load(order + row + k).to(tl.int64)
            current += tl.load(weight + (e * inputs + index) * outputs + columns, mask=inside, other=0.0)
        if OWN or DELAYED:
            decay_slow, decay_fast = tl.exp(-gap * slow), tl.exp(-gap * fast)
            response = kappa(gap, slow, fast, syn, TERMS)
        else:
            interval = coefficients + (row + k) * 3
            decay_slow, decay_fast, response = tl.load(interval), tl.load(interval + 1), tl.load(interval + 2)
        decay_mem = tl.where(mem <= syn, decay_slow, decay_fast)
        decay_syn = tl.where(mem <= syn, decay_fast, decay_slow)
        end = voltage * decay_mem + current * response
        if LEAKY:
            crosses = waiting & (end >= theta) & (k < n - 1)
            rising = current * syn - voltage * mem
            # while it rises the membrane is concave, and stays below its tangent
            peaks = waiting & (rising > 0.0) & (current > 0.0) & (~crosses)
            peaks = peaks & (last | (voltage + gap * rising >= 0.999 * theta))
            if tl.max(peaks.to(tl.int32), axis=0) > 0:
                summit, height = peak(
                    tl.where(peaks, voltage, 0.0), tl.where(peaks, current, 1.0), mem, syn, top, TERMS
                )
                crosses = crosses | (peaks & (height >= theta) & (last | (summit <= gap)))
        else:
            crosses = waiting & (last | (end >= theta)) & (voltage + current > theta)
        found_voltage = tl.where(crosses, voltage, found_voltage)
        found_current = tl.where(crosses, current, found_current)
        begin = tl.where(crosses, time, begin)
        length = tl.where(crosses, tl.where(last, float("inf"), gap), length)
        fires = fires | crosses
        waiting = waiting & (~crosses) & (k < n - 1)
        voltage = end
        current = current * decay_syn
        k += 1
    lack = theta - found_voltage
    rises = found_current * syn > found_voltage * mem
    moves = fires & rises
    found_voltage, found_current = tl.where(moves, found_voltage, 0.0), tl.where(moves, found_current, 4.0 * theta)
    lack = tl.where(moves, lack, theta)
    if LEAKY:
        summit, height = peak(found_voltage, found_current, mem, syn, top, TERMS)
        bend = found_current * tl.exp(-summit * syn) * syn * syn
        # where the peak is inside, the parabola at the peak is a better start than the interval's begin
        s = summit - tl.sqrt(tl.maximum(2.0 * (height - theta) / tl.where(bend > 0.0, bend, 1.0), 0.0))
        s = tl.where((s > 0.0) & (summit <= length) & (bend > 0.0), s, 0.0)
        step = 0
        while (step < STEPS) & (tl.max(moves.to(tl.int32), axis=0) > 0):
            value = found_voltage * tl.exp(-s * mem) + found_current * kappa(s, slow, fast, syn, TERMS)
            slope = found_current * tl.exp(-s * syn) * syn - value * mem
            ahead = tl.where(slope > 0.0, (theta - value) / tl.where(slope > 0.0, slope, 1.0), 0.0)
            following = tl.maximum(tl.minimum(s + ahead, summit), 0.0)
            moves = moves & (following - s > EPS * following)
            s = tl.where(moves, following, s)
            step += 1
    else:
        part = tl.minimum(lack / found_current, 1.0)
        s = part * log1p_over(-part, TERMS) / syn
    # a membrane that does not rise can only be rounded up to the threshold, at the interval's end
    s = tl.where(rises, s, length)
    tl.store(start + place, tl.where(fires, begin, float("inf")), mask=inside)
    tl.store(limit + place, tl.where(fires, begin + length, float("inf")), mask=inside)
    tl.store(wait + place, tl.where(fires, tl.minimum(s, length), 0.0), mask=inside)


@triton.jit
def _causal(arrival, count, sample, inputs, at, DELAYED: tl.constexpr):
    """How many inputs of the sample arrive before the latest of the spikes; with delays all may."""
    if DELAYED:
        found = inputs
    else:
        found, stop, latest = 0, tl.load(count + sample), tl.max(at, axis=0)
        while found < stop:
            middle = (found + stop) // 2
            early = tl.load(arrival + sample * inputs + middle) < latest
            found, stop = tl.where(early, middle + 1, found), tl.where(early, stop, middle)
    return found


@triton.jit
def _back(
    arrival, order, coefficients, weight, delay, k, e, sample, inputs, outputs, columns, at,
    joined, decayed, response, slow, fast, syn,
    OWN: tl.constexpr, DELAYED: tl.constexpr, TERMS: tl.constexpr,
):  # fmt: skip
    """One input of the sample: its index and weights, the time s from it to each spike, ``exp(-s fast)``, ``kappa(s)``.

    These three are 0 where the input does not arrive before the spike. ``joined`` are the neurons for which it does.
    Where neurons share the coefficients of the intervals, inputs come in the reverse order of arrival, and an input's
    values follow from those of the next one, which are given.
    """
    inside, row = columns < outputs, sample * inputs
    time = tl.load(arrival + row + k)
    if DELAYED:
        index = k + tl.zeros_like(sample)
        time += tl.load(delay + (e * inputs + index) * outputs + columns, mask=inside, other=0.0)
    else:
        index = tl.load(order + row + k).to(tl.int64)
    causal = time < at
    s = tl.where(causal, at - time, 0.0)
    if OWN or DELAYED:
        decayed = tl.where(causal, tl.exp(-s * fast), 0.0)
        response = tl.where(causal, kappa(s, slow, fast, syn, TERMS), 0.0)
    else:
        place = coefficients + (row + k) * 3
        response = response * tl.load(place) + decayed * tl.load(place + 2)
        decayed = decayed * tl.load(place + 1)
        joins = causal & (~joined)
        if tl.max(joins.to(tl.int32), axis=0) > 0:
            decayed = tl.where(joins, tl.exp(-s * fast), decayed)
            response = tl.where(joins, kappa(s, slow, fast, syn, TERMS), response)
    w = tl.load(weight + (e * inputs + index) * outputs + columns, mask=inside, other=0.0)
    return index, w, s, causal, decayed, response


@triton.jit
def slope_kernel(
    arrival, order, count, coefficients, weight, delay, rates, spikes, current, largest, by_mem, by_syn,
    batch, inputs, outputs,
    OWN: tl.constexpr, DELAYED: tl.constexpr, TAUS: tl.constexpr, TERMS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Each neuron at its spike: the synaptic current, its largest response to one input, dV/dtau_mem and dV/dtau_syn.

    ``spikes`` of neurons without a gradient are ``-inf``. ``weight`` and ``delay`` are ``(E, I, O)``, ``arrival`` is in
    the order of the inputs if there are delays.
    """
    sample, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    e = sample // batch
    columns = tile * TILE + tl.arange(0, TILE)
    inside = columns < outputs
    mem, syn, _ = _constants(rates, e, columns, outputs, OWN)
    slow, fast = tl.minimum(mem, syn), tl.maximum(mem, syn)
    place = sample * outputs + columns
    at = tl.load(spikes + place, mask=inside, other=float("-inf"))
    total, high = tl.zeros_like(at), tl.zeros_like(at)
    total_mem, total_syn = tl.zeros_like(at), tl.zeros_like(at)
    decayed, response, joined = tl.zeros_like(at), tl.zeros_like(at), at != at
    k = _causal(arrival, count, sample, inputs, at, DELAYED) - 1
    while k >= 0:
        _index, w, s, joined, decayed, response = _back(
            arrival, order, coefficients, weight, delay, k, e, sample, inputs, outputs, columns, at,
            joined, decayed, response, slow, fast, syn, OWN, DELAYED, TERMS,
        )  # fmt: skip
        total += w * tl.where(mem <= syn, decayed, decayed + response * (fast - slow) / syn)
        high = tl.maximum(high, response)
        if TAUS:
            of_mem, of_syn = kappa_by_taus(s, mem, syn, response, TERMS)
            total_mem += w * of_mem
            total_syn += w * of_syn
        k -= 1
    tl.store(current + place, total, mask=inside)
    tl.store(largest + place, high, mask=inside)
    if TAUS:
        tl.store(by_mem + place, total_mem, mask=inside)
        tl.store(by_syn + place, total_syn, mask=inside)


@triton.jit
def gradient_kernel(
    arrival, order, count, coefficients, weight, delay, rates, spikes, scale, kept, by_weight, by_times, by_delay,
    batch, inputs, outputs, chunks, first_tile,
    OWN: tl.constexpr, DELAYED: tl.constexpr, WEIGHT: tl.constexpr, TIMES: tl.constexpr, DELAY: tl.constexpr,
    TERMS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Sums over a chunk of samples and over a tile of neurons.

    ``by_weight`` and ``by_delay (E, chunks, I, O)``, and ``by_times (tiles, E, B, I)``, are zeros at the beginning.
    ``scale`` is dL/dT by the slope at the spike, and ``kept`` that for the weights. Other arguments as in
    ``slope_kernel``.
    """
    part, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    e, chunk = part // chunks, part % chunks
    columns = (first_tile + tile) * TILE + tl.arange(0, TILE)
    inside = columns < outputs
    mem, syn, _ = _constants(rates, e, columns, outputs, OWN)
    slow, fast = tl.minimum(mem, syn), tl.maximum(mem, syn)
    b = chunk * batch // chunks
    stop = (chunk + 1) * batch // chunks
    while b < stop:
        sample = e * batch + b
        place = sample * outputs + columns
        at = tl.load(spikes + place, mask=inside, other=float("-inf"))
        for_times = tl.load(scale + place, mask=inside, other=0.0)
        for_weight = tl.load(kept + place, mask=inside, other=0.0)
        decayed, response, joined = tl.zeros_like(at), tl.zeros_like(at), at != at
        k = _causal(arrival, count, sample, inputs, at, DELAYED) - 1
        while k >= 0:
            index, w, _s, joined, decayed, response = _back(
                arrival, order, coefficients, weight, delay, k, e, sample, inputs, outputs, columns, at,
                joined, decayed, response, slow, fast, syn, OWN, DELAYED, TERMS,
            )  # fmt: skip
            target = (part * inputs + index) * outputs + columns
            if WEIGHT:
                earlier = tl.load(by_weight + target, mask=inside, other=0.0)
                tl.store(by_weight + target, earlier - response * for_weight, mask=inside)
            if TIMES or DELAY:
                each = w * for_times * (decayed * syn - response * slow)
            if DELAY:
                earlier = tl.load(by_delay + target, mask=inside, other=0.0)
                tl.store(by_delay + target, earlier + each, mask=inside)
            if TIMES:
                samples = (tl.num_programs(0) // chunks) * batch
                tl.store(by_times + (tile * samples + sample) * inputs + index, tl.sum(each, axis=0))
            k -= 1
        b += 1
