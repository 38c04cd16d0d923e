"""The membrane's response, in one form that is accurate for every ratio of time constants.

With the slower constant ``tau_slow`` and ``rate = |1/tau_syn - 1/tau_mem|``

    kappa(s) = exp(-s/tau_slow) (1 - exp(-s rate)) / (rate tau_syn)       -> (s/tau_syn) exp(-s/tau_slow) for rate -> 0

is the membrane at time s after an input of weight 1 (Göltz et al. 2021, eq. 1 solved), without a difference of almost
equal terms and without an overflow.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def kappa(s: Float[Tensor, "..."], tau_mem: float, tau_syn: float) -> Float[Tensor, "..."]:
    """Membrane at the finite time ``s >= 0`` after an input of weight 1."""
    rate = abs(1 / tau_syn - 1 / tau_mem)
    rise = s / tau_syn if rate == 0 else -torch.expm1(-s * rate) / (rate * tau_syn)
    return torch.exp(-s / max(tau_mem, tau_syn)) * rise


def kappa_slope(s: Float[Tensor, "..."], tau_mem: float, tau_syn: float) -> Float[Tensor, "..."]:
    """Time derivative of ``kappa``: ``exp(-s/tau_syn)/tau_syn - kappa(s)/tau_mem``."""
    return torch.exp(-s / tau_syn) / tau_syn - kappa(s, tau_mem, tau_syn) / tau_mem


def membrane(
    s: Float[Tensor, "..."],
    voltage: Float[Tensor, "..."],
    current: Float[Tensor, "..."],
    tau_mem: float,
    tau_syn: float,
) -> Float[Tensor, "..."]:
    """Membrane at time ``s >= 0`` after a state ``(voltage, current)``, without further input."""
    return voltage * torch.exp(-s / tau_mem) + current * kappa(s, tau_mem, tau_syn)


def peak(
    voltage: Float[Tensor, "..."], current: Float[Tensor, "..."], tau_mem: float, tau_syn: float
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Time and height of the maximum after a state with ``dV/dt > 0`` and ``current > 0``, for a finite ``tau_mem``.

    From ``dV/dt = 0``: with ``x = 1 - tau_syn/tau_mem`` and ``r = voltage/current``

        s_peak = -tau_syn (log(1 - x) + log(1 + x r)) / x   -> tau_syn (1 - r) for x -> 0
        V_peak = (tau_mem/tau_syn) current exp(-s_peak/tau_syn)

    A state that rises towards 0 from below without ever getting there has no maximum: time ``inf``, height 0. For a
    state that does not rise the values have no meaning.
    """
    x = 1 - tau_syn / tau_mem
    r = voltage / torch.where(current > 0, current, torch.ones_like(current))
    if x == 0:
        time = tau_syn * (1 - r)
    else:
        time = -tau_syn * (math.log(tau_syn / tau_mem) + torch.log1p((x * r).clamp(min=-1))) / x
    height = (tau_mem / tau_syn) * current * torch.exp(-time / tau_syn)
    return time, torch.where(current > 0, height, torch.zeros_like(height))
