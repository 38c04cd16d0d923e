"""The membrane between two inputs, for a tile of neurons: every formula of the kernels.

Time constants are given as rates: ``mem`` and ``syn`` are ``1/tau_mem`` and ``1/tau_syn``, ``slow`` and ``fast`` the
smaller and the larger of the two. The response

    kappa(s) = exp(-s slow) (1 - exp(-s (fast - slow))) / (fast - slow) / tau_syn

does not depend on which is which, but for the last factor. ``rates (E, 3, R)`` has ``mem``, ``syn`` and ``top``, see
``peak``, of each neuron (``OWN``), or of each network.
"""

# mypy: disable-error-code="no-untyped-def"
import triton
import triton.language as tl


@triton.jit
def any_of(x):
    """Whether it is true for a neuron of the tile."""
    return tl.max(x.to(tl.int32), axis=0) > 0


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
    """Derivatives of ``kappa`` at a finite ``s >= 0``, where it is ``response``, with respect to both time constants.

    ``G_1`` and ``G_2`` as in ``spiketime.response``, for ``y < 1/2`` from a series.
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
def constants_of(rates, e, columns, outputs, OWN: tl.constexpr):
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
def coefficients_of(coefficients, gap, one, other, syn, OWN: tl.constexpr, TERMS: tl.constexpr):
    """Two quantities after an interval, in which they decay at the one rate and the other, and kappa of its length.

    Values that neurons share stand at the pointer.
    """
    if OWN:
        left, other_left = tl.exp(-gap * one), tl.exp(-gap * other)
        response = kappa(gap, tl.minimum(one, other), tl.maximum(one, other), syn, TERMS)
    else:
        left, other_left, response = tl.load(coefficients), tl.load(coefficients + 1), tl.load(coefficients + 2)
    return left, other_left, response


@triton.jit
def following(x, WHOLE: tl.constexpr):
    """The next larger number after a finite one. ``WHOLE`` is the type of whole numbers of the same size."""
    bits = (x + 0.0).to(WHOLE, bitcast=True)  # -0 becomes 0
    return tl.where(bits < 0, bits - 1, bits + 1).to(x.dtype, bitcast=True)


@triton.jit
def spike_time(voltage, current, begin, end, theta, crosses, mem, syn, top,
               LEAKY: tl.constexpr, STEPS: tl.constexpr, EPS: tl.constexpr, TERMS: tl.constexpr,
               WHOLE: tl.constexpr):  # fmt: skip
    """When membranes that cross reach the threshold, from the state at the begin of the interval.

    While it rises the membrane is concave, so that Newton's method from the left never passes the crossing.
    """
    above, length = voltage >= theta, tl.where(crosses, end - begin, 0.0)
    rises = current * syn > voltage * mem
    moves = crosses & rises
    voltage, current = tl.where(moves, voltage, 0.0), tl.where(moves, current, 4.0 * theta)
    if LEAKY:
        slow, fast = tl.minimum(mem, syn), tl.maximum(mem, syn)
        summit, height = peak(voltage, current, mem, syn, top, TERMS)
        bend = current * tl.exp(-summit * syn) * syn * syn
        # where the peak is inside, the parabola at the peak is a better start than the interval's begin
        s = summit - tl.sqrt(tl.maximum(2.0 * (height - theta) / tl.where(bend > 0.0, bend, 1.0), 0.0))
        s = tl.where((s > 0.0) & (summit <= length) & (bend > 0.0), s, 0.0)
        step = 0
        while (step < STEPS) & any_of(moves):
            value = voltage * tl.exp(-s * mem) + current * kappa(s, slow, fast, syn, TERMS)
            slope = current * tl.exp(-s * syn) * syn - value * mem
            ahead = tl.where(slope > 0.0, (theta - value) / tl.where(slope > 0.0, slope, 1.0), 0.0)
            nearer = tl.maximum(tl.minimum(s + ahead, summit), 0.0)
            moves = moves & (nearer - s > EPS * nearer)
            s = tl.where(moves, nearer, s)
            step += 1
    else:
        part = tl.minimum((theta - voltage) / current, 1.0)
        s = part * log1p_over(-part, TERMS) / syn
    # a membrane that does not rise can only be rounded up to the threshold, at the interval's end
    wait = tl.where(above, 0.0, tl.where(rises, tl.minimum(s, length), length))
    # too soon after the input for the floats: the input stays causal
    return tl.minimum(tl.maximum(begin + wait, following(begin, WHOLE)), end)
