"""The operator in plain PyTorch: any device, float32 and float64, one line for one formula.

Forward. The state just after input k, membrane ``V_k`` and current ``Q_k``, gives everything until the next input:

    V(t_k + s) = V_k exp(-s/tau_mem) + Q_k kappa(s),          I(t_k + s) = Q_k exp(-s/tau_syn)

States add over groups of inputs once they are brought to the same time, so all of them follow from a doubling scan
(Hillis and Steele 1986) in log2(inputs) steps, without an overflow at any time scale. The first interval in which V
reaches the threshold is found by the signs of V and dV/dt at its ends; the crossing itself is solved there alone, in
the closed form of the ratio of time constants (``solutions``). Weights and thresholds of a neuron are in a unit of its
own, so that nothing overflows.

Backward. The implicit function theorem at the spike time T, with ``s_i = T - t_i - delay_i > 0`` for causal inputs:

    dV/dt(T) = I(T)/tau_syn - threshold/tau_mem
    dT/dw_i  = -kappa(s_i) / V'(T),     dT/dt_i = dT/d delay_i = w_i kappa'(s_i) / V'(T),     dT/d threshold = 1 / V'(T)
    dT/dtau  = -(dV/dtau)(T) / V'(T),   dV/dtau = sum_i w_i dkappa(s_i)/dtau               for both tau_mem and tau_syn

Source: Göltz et al. 2021, eqs. 2 to 6 (ratios 1 and 2); Göltz et al. 2025 (delays); Wunderlich and Pehle 2021 (any
ratio). Memory is O(batch x inputs x outputs): kernels do with less, this file is what they are tested against.

Shapes: E ensemble, B batch, I inputs, O outputs.
"""

import math
from functools import partial

import torch
from jaxtyping import Float64
from torch import Tensor

from firstspike.spiketime.contract import Arguments, Constants, Gradients, Grads, Needs, Result, of_several
from firstspike.spiketime.parts import Size, backward_in_parts, forward_in_parts
from firstspike.spiketime.reference.response import Tau, kappa, kappa_by_taus, kappa_slope
from firstspike.spiketime.reference.scan import accumulate, first_crossing, in_order, settled
from firstspike.spiketime.units import unit_of_weights

_MEMORY = 1 << 28  # bytes
_COPIES = 16  # tensors of the size of a part that are alive at the same time, at most


def _part(given: Arguments) -> Size:
    _, batch, inputs = given.times.shape
    outputs = given.weight.shape[1]
    neurons = _MEMORY // (_COPIES * max(1, inputs) * given.times.element_size())
    samples = neurons // max(1, outputs)
    return Size(samples // max(1, batch), samples, neurons)


@of_several
@partial(forward_in_parts, size=_part)
def forward(given: Arguments) -> Result:
    """First spike times, ``inf`` for silent neurons. See ``backend`` for the contract."""
    times, weight, threshold, delay, constants, *_ = given
    if times.shape[-1] == 0:
        return Result(times.new_full((*times.shape[:2], weight.shape[1]), math.inf))
    unit = unit_of_weights(weight, threshold)
    weight, threshold = weight / unit.unsqueeze(-1), threshold / unit
    arrival = times[:, :, None, :] if delay is None else times[:, :, None, :] + delay[:, None]
    arrival, current = settled(*in_order(arrival, weight[:, None])[:2])
    voltage, taus = torch.zeros_like(current), _of_neurons(constants)
    accumulate(arrival, voltage, current, *taus)
    return Result(first_crossing(arrival, voltage, current, math.inf, threshold[:, None], *taus).spike)


@of_several
@partial(backward_in_parts, size=_part)
def backward(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """Gradients at the given spike times. See ``backend`` for the contract."""
    grad, spikes, (times, weight, threshold, delay, constants, *_) = grads.spikes, result.spikes, given
    tau_mem, tau_syn = _broadcast(constants)
    arrival = times[:, :, None, :] if delay is None else times[:, :, None, :] + delay[:, None]
    causal = (arrival < spikes[..., None]) & torch.isfinite(spikes[..., None])
    zero = torch.zeros((), dtype=times.dtype, device=times.device)
    elapsed = torch.where(causal, spikes[..., None] - arrival, zero)

    unit = unit_of_weights(weight, threshold)
    weight, threshold, by_unit = weight / unit.unsqueeze(-1), threshold / unit, 1 / unit[:, None]
    slope = _slope(spikes, arrival, causal, weight, threshold, tau_mem, tau_syn).to(times.dtype)
    fires = torch.isfinite(spikes) & (slope > 0)
    scale = torch.where(fires, grad / torch.where(fires, slope, torch.ones_like(slope)), zero)

    by_weight = by_times = by_delay = by_threshold = by_mem = by_syn = None
    if needs.weight:
        each = torch.where(causal, -kappa(elapsed, tau_mem, tau_syn) * scale[..., None] * by_unit[..., None], zero)
        if max_weight_grad is not None:
            chopped = each.abs().amax(dim=-1, keepdim=True) > max_weight_grad if each.shape[-1] else each > 0
            each = torch.where(chopped, zero, each)
        by_weight = each.sum(dim=1)
    if needs.times or needs.delay:
        slopes = kappa_slope(elapsed / tau_syn, tau_mem / tau_syn, 1.0)  # with time in units of tau_syn
        each = torch.where(causal, slopes * weight[:, None] * (scale[..., None] / tau_syn), zero)
        by_times = each.sum(dim=2) if needs.times else None
        by_delay = each.sum(dim=1) if needs.delay else None
    if needs.threshold:
        by_threshold = (scale * by_unit).sum(dim=1)
    if needs.tau_mem or needs.tau_syn:
        by_mem, by_syn = (
            -(torch.where(causal, each, zero) * weight[:, None] * (scale[..., None] / tau_syn)).sum(dim=(1, 3))
            if need
            else None
            for each, need in zip(kappa_by_taus(elapsed / tau_syn, tau_mem / tau_syn, 1.0), needs[4:6], strict=True)
        )
    return Gradients(by_times, by_weight, by_threshold, by_delay, by_mem, by_syn)


def _slope(
    spikes: Tensor, arrival: Tensor, causal: Tensor, weight: Tensor, threshold: Tensor, tau_mem: Tau, tau_syn: Tau
) -> Float64[Tensor, "E B O"]:
    """dV/dt at the spikes, in double precision: next to a peak it is a small difference."""
    tau_mem, tau_syn = (tau.double() if isinstance(tau, Tensor) else tau for tau in (tau_mem, tau_syn))
    zero = torch.zeros((), dtype=torch.float64, device=spikes.device)
    elapsed = torch.where(causal, spikes.double()[..., None] - arrival.double(), zero)
    drive = (torch.where(causal, torch.exp(-elapsed / tau_syn), zero) * weight.double()[:, None]).sum(-1, keepdim=True)
    return (drive / tau_syn - threshold.double()[:, None, :, None] / tau_mem).squeeze(-1)


def _broadcast(constants: Constants) -> tuple[Tau, Tau]:
    """The time constants as numbers, or in the shape (E, 1, O, 1)."""
    mem, syn = (tau[:, None, :, None] if isinstance(tau, Tensor) else tau for tau in constants)
    return mem, syn


def _of_neurons(constants: Constants) -> tuple[Tau, Tau]:
    """The time constants as numbers, or in the shape (E, 1, O)."""
    mem, syn = (tau[:, None] if isinstance(tau, Tensor) else tau for tau in constants)
    return mem, syn
