"""The response of a linear neuron's membrane to one input without spikes, for each of its receptors.

A current that jumps gives ``kappa``. One that rises with ``tau_rise`` gives the convolution of three exponentials, a
divided difference of the exponential function: a difference of two that are ``kappa``, or, where all three time
constants are nearly the same for the time that has passed, a series.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from firstspike.neurons import Neuron
from firstspike.spiketime.reference.response import Tau, Values, differentiable_kappa, kappa

_NEAR, _TERMS = 0.5, 14  # exponents that differ by less, for which the series has no more terms in double precision


class Receptor(NamedTuple):
    """Time constants of one."""

    tau_syn: Tau
    tau_rise: Tau | None


def time_constants_of(neuron: Neuron) -> list[Receptor]:
    """The receptors' time constants (a LIF has one receptor), each a number, or a tensor ``()`` or ``(out,)``."""
    parts, found = neuron.components, []
    if not parts:
        return [Receptor(neuron.values["tau_syn"], None)]
    for place in neuron.receptors:
        rises = parts[place].kind == "rise"
        found.append(Receptor(parts[place + rises].tau, parts[place].tau if rises else None))
    return found


def reaching(
    weight: Float[Tensor, "*rows inputs"], receptor: Int64[Tensor, "*#rows inputs"] | None, number: int
) -> Float[Tensor, "*rows inputs"]:
    """The weights of the inputs that reach one receptor, 0 for others. Without ``receptor`` the signs tell."""
    reached = (weight <= 0).long() if receptor is None else receptor
    return torch.where(reached == number, weight, 0.0)


def response(since: Values, tau_mem: Tau, receptor: Receptor) -> Values:
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
