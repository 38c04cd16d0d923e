"""The states of LIF neurons just after each of their inputs, and the maxima in between.

The state just after input k, membrane ``V_k`` and current ``Q_k``, gives everything until the next input:

    V(t_k + s) = V_k exp(-s/tau_mem) + Q_k kappa(s),          I(t_k + s) = Q_k exp(-s/tau_syn)

States add once they are brought to the same time, so that inputs need not be taken one after the other: all states take
up the one of the input before, then those 2, 4, 8, ... inputs earlier. Nothing overflows at any time scale. Inputs are
in the first dimension of all tensors. Times broadcast: neurons without their own delays share them.
"""

import math

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from firstspike.spiketime.response import Tau, Values, kappa, leakless, peak

_LATE = 40.0  # time constants


def in_order(arrival: Values, weight: Values, most: int | None = None) -> tuple[Values, Values, Int64[Tensor, "N ..."]]:
    """Inputs sorted by time: when they arrive, with which weight, and which they are; the first ``most`` of them."""
    time, order = (x[..., :most].movedim(-1, 0).contiguous() for x in arrival.sort(dim=-1, stable=True))
    shape = torch.broadcast_shapes(arrival.shape, weight.shape)[:-1]
    weight = weight.movedim(-1, 0).contiguous().expand(-1, *shape).gather(0, order.expand(-1, *shape))
    return time, weight, order


def settled(time: Values, weight: Values) -> tuple[Values, Values]:
    """Sorted inputs, of which those that never arrive become such of weight 0 at the time of the last that does."""
    arrives = torch.isfinite(time)
    last = torch.where(arrives, time, -math.inf).amax(0, keepdim=True)
    last = torch.where(torch.isfinite(last), last, 0.0)
    return torch.where(arrives, time, last), torch.where(arrives, weight, 0.0)


def accumulate(time: Values, voltage: Values, current: Values, tau_mem: Tau, tau_syn: Tau) -> None:
    """Add the rest of all earlier inputs to the change by each input, in place: states just after each."""
    reach = 1  # of how many inputs, up to its own, each state knows
    while reach < len(time):
        elapsed = time[reach:] - time[:-reach]
        before, drive = voltage[:-reach] * torch.exp(-elapsed / tau_mem), current[:-reach]
        before.addcmul_(drive, kappa(elapsed, tau_mem, tau_syn))
        drive = drive * torch.exp(-elapsed / tau_syn)
        voltage[reach:] += before
        current[reach:] += drive
        reach *= 2


def peaks_within(
    length: Values, voltage: Values, current: Values, tau_mem: Tau, tau_syn: Tau
) -> tuple[Bool[Tensor, "..."], Values, Values]:
    """Which membranes have a maximum within a time after their states, how long after, and how high it is.

    Without leak, where V rises towards V + I for ever, it is a late time.
    """
    if leakless(tau_mem):
        return (current > 0) & length.isinf(), torch.full_like(voltage, _LATE) * tau_syn, voltage + current
    since, height = peak(voltage, current, tau_mem, tau_syn)
    rises = current / tau_syn > voltage / tau_mem
    return rises & (since <= length), since, height
