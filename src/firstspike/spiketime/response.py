"""The membrane's response, in one form that is accurate for every ratio of time constants.

With the slower constant ``tau_slow`` and ``rate = |1/tau_syn - 1/tau_mem|``

    kappa(s) = exp(-s/tau_slow) (1 - exp(-s rate)) / (rate tau_syn)       -> (s/tau_syn) exp(-s/tau_slow) for rate -> 0

is the membrane at time s after an input of weight 1 (Göltz et al. 2021, eq. 1 solved), without a difference of almost
equal terms and without an overflow. Its derivatives with respect to the time constants, at fixed s, have such a form as
well: with ``y = s rate`` and

    G_1(y) = (y - 1 + exp(-y)) / y^2,     G_2(y) = (1 - (1 + y) exp(-y)) / y^2               both -> 1/2 for y -> 0

they are, where tau_mem is the slower one (the other way round the two functions change places)

    dkappa/dtau_mem = s^2 / (tau_mem^2 tau_syn) exp(-s/tau_slow) G_1(y)
    dkappa/dtau_syn = s^2 / tau_syn^3 exp(-s/tau_slow) G_2(y) - kappa(s) / tau_syn

Time constants are numbers, or tensors that broadcast with the times. ``tau_mem`` may be ``inf``.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from firstspike.deferred import is_host
from firstspike.neurons import Neuron
from firstspike.neurons.base import ROLES

Tau = float | Tensor
Values = Float[Tensor, "..."]
"""Numbers of inputs or neurons, whose shapes broadcast."""

_NEAR, _TERMS = 0.5, 14  # exponents that differ by less, for which the series has no more terms in double precision
# of (y - 1 + exp(-y)) / y^2 in powers of -y: below y = 1/2 the rest is smaller than half a unit in the last place
_SERIES = tuple(1 / math.factorial(n + 2) for n in range(14))


def where(condition: bool | Tensor, yes: Tau, no: Tau) -> Tau:
    """``torch.where``, or a choice where the condition is the same for all."""
    return torch.where(condition, yes, no) if isinstance(condition, Tensor) else yes if condition else no


def leakless(tau_mem: Tau) -> bool:
    """Whether the neurons have no leak; on a GPU those with a tensor have one."""
    if isinstance(tau_mem, Tensor):
        return is_host(tau_mem.device) and bool(tau_mem.isinf().all())
    return math.isinf(tau_mem)


def _rate(tau_mem: Tau, tau_syn: Tau) -> Tau:
    rate: Tau = abs(1 / tau_syn - 1 / tau_mem)  # type: ignore[assignment]
    return rate


def kappa(s: Values, tau_mem: Tau, tau_syn: Tau) -> Values:
    """Membrane at the finite time ``s >= 0`` after an input of weight 1."""
    rate = _rate(tau_mem, tau_syn)
    equal = rate == 0
    rise = where(equal, s / tau_syn, -torch.expm1(-s * rate) / ((rate + equal) * tau_syn))
    return torch.exp(-s / where(tau_mem >= tau_syn, tau_mem, tau_syn)) * rise


def kappa_slope(s: Values, tau_mem: Tau, tau_syn: Tau, response: Values | None = None) -> Values:
    """Time derivative of ``kappa``, whose value at ``s`` saves work as the ``response``.

    ``exp(-s/tau_syn)/tau_syn - kappa(s)/tau_mem``, or the same with ``exp(-s/tau_mem)`` and ``kappa(s)/tau_syn``: of
    the two, the one whose terms do not cancel where one time constant is much longer than the other.
    """
    slower = tau_mem >= tau_syn
    fast, slow = where(slower, tau_syn, tau_mem), where(slower, tau_mem, tau_syn)
    response = kappa(s, tau_mem, tau_syn) if response is None else response
    return torch.exp(-s / fast) / tau_syn - response / slow


def kappa_by_taus(s: Values, tau_mem: Tau, tau_syn: Tau) -> tuple[Values, Values]:
    """Derivatives of ``kappa`` with respect to ``tau_mem`` and ``tau_syn`` at the finite time ``s >= 0``."""
    y = s * _rate(tau_mem, tau_syn)
    large = y.clamp(min=0.5)
    decay = torch.exp(-large)
    series = torch.full_like(y, _SERIES[-1])
    for coefficient in _SERIES[-2::-1]:
        series = coefficient - y * series
    first = (series, (large - 1 + decay) / large)  # G_1 for small y, and y G_1 for large
    second = (1 - (1 + y) * series, (1 - (1 + large) * decay) / large)

    def product(g: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        return torch.where(y < 0.5, g[0] * x, g[1] * (x / large))

    slower = tau_mem >= tau_syn
    common = (s / tau_syn) * torch.exp(-s / where(slower, tau_mem, tau_syn))
    by_mem = where(slower, product(first, s / tau_mem), product(second, s / tau_mem))
    by_syn = where(slower, product(second, s / tau_syn), product(first, s / tau_syn))
    return common * by_mem / tau_mem, (common * by_syn - kappa(s, tau_mem, tau_syn)) / tau_syn


def membrane(s: Values, voltage: Values, current: Values, tau_mem: Tau, tau_syn: Tau) -> Values:
    """Membrane at time ``s >= 0`` after a state ``(voltage, current)``, without further input."""
    return voltage * torch.exp(-s / tau_mem) + current * kappa(s, tau_mem, tau_syn)


def peak(voltage: Values, current: Values, tau_mem: Tau, tau_syn: Tau) -> tuple[Values, Values]:
    """Time and height of the maximum after a state with ``dV/dt > 0`` and ``current > 0``, for a finite ``tau_mem``.

    From ``dV/dt = 0``: with ``x = 1 - tau_syn/tau_mem`` and ``r = voltage/current``

        s_peak = -tau_syn (log(1 - x) + log(1 + x r)) / x   -> tau_syn (1 - r) for x -> 0
        V_peak = current (1 + x r)^(1/x) kappa_max          -> current exp(r - 1) for x -> 0

    where ``kappa_max = (1 - x)^((1 - x)/x)`` is the maximum of kappa. Nothing in V_peak grows with the ratio of the
    time constants. A state that rises towards 0 from below without ever getting there has no maximum: time ``inf``,
    height 0. For a state that does not rise the values have no meaning.
    """
    ratio = tau_syn / tau_mem
    if not isinstance(ratio, Tensor):
        ratio = voltage.new_full((), ratio, dtype=torch.float64)
    ratio = ratio.clamp(min=torch.finfo(voltage.dtype).tiny)
    equal = ratio == 1
    x = 1 - ratio + equal
    log_ratio = torch.log(ratio) / x
    r = voltage / torch.where(current > 0, current, torch.ones_like(current))
    # a state that barely rises may be rounded to one that falls, with its maximum in the past
    rest = torch.minimum(torch.log1p((x * r).clamp(min=-1)) / x, -log_ratio)
    time = torch.where(equal, tau_syn * (1 - r), -tau_syn * (log_ratio + rest))
    height = current * torch.exp(torch.where(equal, r - 1, ratio * log_ratio + rest))
    return time, torch.where(current > 0, height, torch.zeros_like(height))


def differentiable_kappa(since: Tensor, tau_mem: Tensor, tau_syn: Tensor, arrived: bool = False) -> Tensor:
    """``kappa`` with derivatives with respect to all three that hold where the time constants are equal, too.

    Kappa has a kink at 0. There its slope is 0, as of spikes that have not arrived, unless all have ``arrived``.
    """
    if not torch.is_grad_enabled():  # faster
        return kappa(since, tau_mem, tau_syn)
    found: Tensor = _Kappa.apply(since, tau_mem, tau_syn, arrived)
    return found


class _Kappa(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(since: Tensor, tau_mem: Tensor, tau_syn: Tensor, arrived: bool) -> Tensor:
        return kappa(since, tau_mem, tau_syn)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, bool], output: Tensor) -> None:
        *tensors, ctx.arrived = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        given = ctx.saved_tensors
        found = zip(_slopes(given, ctx.arrived, ctx.needs_input_grad), given, strict=True)
        return *(None if x is None else (grad * x).sum_to_size(y.shape) for x, y in found), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        asks = [x is not None for x in tangents]
        slopes = zip(_slopes(ctx.saved_tensors, ctx.arrived, asks), tangents, strict=False)
        return torch.stack([x * y for x, y in slopes if x is not None and y is not None]).sum(dim=0)


def _slopes(given: Sequence[Tensor], arrived: bool, asks: Sequence[bool]) -> list[Tensor | None]:
    """The derivatives of kappa that are asked for."""
    since, tau_mem, tau_syn = given
    found: list[Tensor | None] = [None] * 3
    if asks[0]:
        slope = kappa_slope(since, tau_mem, tau_syn)
        # at s = 0 stand spikes that have not arrived, unless all have. kappa has a kink there
        found[0] = slope if arrived else torch.where(since > 0, slope, 0.0)
    if any(asks[1:3]):
        found[1:3] = kappa_by_taus(since, tau_mem, tau_syn)
    return found


class ReceptorTaus(NamedTuple):
    """Time constants of one."""

    tau_syn: Tau
    tau_rise: Tau | None


def time_constants_of(neuron: Neuron) -> list[ReceptorTaus]:
    """The receptors' time constants (a LIF has one receptor), each a number, or a tensor ``()`` or ``(out,)``."""
    parts, found = neuron.components, []
    if not parts:
        return [ReceptorTaus(neuron.values["tau_syn"], None)]
    for place in neuron.receptors:
        rises = ROLES[parts[place].kind].feeds
        found.append(ReceptorTaus(parts[place + rises].tau, parts[place].tau if rises else None))
    return found


def reaching(
    weight: Float[Tensor, "*rows inputs"], receptor: Int64[Tensor, "*#rows inputs"] | None, number: int
) -> Float[Tensor, "*rows inputs"]:
    """The weights of the inputs that reach one receptor, 0 for others. Without ``receptor`` the signs tell."""
    reached = (weight <= 0).long() if receptor is None else receptor
    return torch.where(reached == number, weight, 0.0)


def response(since: Values, tau_mem: Tau, receptor: ReceptorTaus) -> Values:
    """Membrane at the finite time ``since >= 0`` after an input of weight 1; differentiable by all tensors."""
    tau_syn, tau_rise = receptor
    if tau_rise is not None:
        return _rising(since, *(_like(since, x) for x in (tau_mem, tau_syn, tau_rise)))
    if not isinstance(tau_mem, Tensor) and not isinstance(tau_syn, Tensor):
        return kappa(since, tau_mem, tau_syn)
    return differentiable_kappa(since, _like(since, tau_mem), _like(since, tau_syn))


def at_rest(since: Values, tau_mem: Tau, bias: Tau) -> Values:
    """The membrane at rest under a constant input."""
    held: Tensor = bias * -torch.expm1(-since / tau_mem)
    return held


def _like(since: Values, tau: Tau) -> Tensor:
    return tau if isinstance(tau, Tensor) else since.new_tensor(tau)


def _rising(since: Values, tau_mem: Tensor, tau_syn: Tensor, tau_rise: Tensor) -> Values:
    taus = torch.stack(torch.broadcast_tensors(tau_mem, tau_syn, tau_rise), -1).sort(-1, descending=True).values
    slow, mid, fast = taus.unbind(-1)
    spread = 1 / fast - 1 / slow
    near = since * spread < _NEAR
    first, second = mid * differentiable_kappa(since, slow, mid), fast * differentiable_kappa(since, mid, fast)
    far = (first - second) / torch.where(near, 1.0, spread)
    # the homogeneous polynomials of the two exponents, from that in the middle on
    less = torch.where(near, since, 0.0)
    ahead, behind = less * (1 / mid - 1 / slow), less * (1 / mid - 1 / fast)
    power = symmetric = torch.ones_like(ahead)
    series = symmetric / 2
    for n in range(1, _TERMS):
        power = power * behind
        symmetric = symmetric * ahead + power
        series = series + symmetric / math.factorial(n + 2)
    return torch.where(near, less**2 * torch.exp(-less / mid) * series, far) / (tau_syn * tau_rise)
