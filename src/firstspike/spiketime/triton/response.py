"""Closed forms on a GPU, as in ``reference.response``: the response to one input, its derivatives, and the peak.

Time constants are given as rates: ``mem`` and ``syn`` are ``1/tau_mem`` and ``1/tau_syn``, ``slow`` and ``fast`` the
smaller and the larger of the two. The response

    kappa(s) = exp(-s slow) (1 - exp(-s (fast - slow))) / (fast - slow) / tau_syn

does not depend on which is which, but for the last factor.
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
