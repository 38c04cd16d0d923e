"""Both passes from tensors: sorting, coefficients, memory, and the launches of kernels.

Neurons with synaptic delays, which see their inputs in an order of their own, and gradients by time constants are left
to ``reference``, which works in parts.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from firstspike.spiketime import reference
from firstspike.spiketime.backend import Arguments, Constants, Gradients, Needs, Result
from firstspike.spiketime.response import kappa, leakless
from firstspike.spiketime.triton.kernels import forward_kernel, gradient_kernel, slope_kernel
from firstspike.spiketime.units import unit_of_weights

TILE = 64  # neurons of a program
_CHUNKS = 16  # parts of the samples, each with a gradient by weights of its own
_TILES = 8  # tiles at a time, each with a gradient by times of its own
_STEPS = 60  # of Newton's method; about 6 are needed, and many only next to a tangent


def forward(given: Arguments) -> Result:
    """First spike times, ``inf`` for silent neurons. See ``backend`` for the contract."""
    times, weight, _, delay, constants = given
    ensemble, batch, inputs = times.shape
    outputs = weight.shape[1]
    if delay is not None:
        return reference.forward(given)
    if 0 in (ensemble, batch, inputs, outputs):
        return Result(times.new_full((ensemble, batch, outputs), math.inf))
    saved = _sorted(times)
    unit, theta = _in_units(given)
    common, options = _common(given, saved, unit, theta)
    start, limit, wait = (times.new_empty((ensemble, batch, outputs)) for _ in range(3))
    forward_kernel[(ensemble * batch, -(-outputs // TILE))](
        *common[:6],
        theta,
        common[6],
        start,
        limit,
        wait,
        *(batch, inputs, outputs),
        LEAKY=not leakless(constants.tau_mem),
        STEPS=_STEPS,
        EPS=2 * torch.finfo(times.dtype).eps,
        **options,
    )
    # too soon after the input for the floats: the input stays causal
    spikes = torch.maximum(start + wait, torch.nextafter(start, limit))
    return Result(torch.minimum(spikes, limit), saved)


def backward(
    grad: Float[Tensor, "E B O"], result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
) -> Gradients:
    """Gradients at the given spike times. See ``backend`` for the contract."""
    times, weight, _, delay, _ = given
    ensemble, batch, inputs = times.shape
    outputs = weight.shape[1]
    if delay is not None or 0 in (ensemble, batch, inputs, outputs):
        return reference.backward(grad, result, given, max_weight_grad, needs)
    found = Gradients(None, None, None, None)
    if needs.tau_mem or needs.tau_syn:
        of_taus = Needs(False, False, False, False, needs.tau_mem, needs.tau_syn)
        found = reference.backward(grad, result, given, None, of_taus)
    if not any(needs[:3]):
        return found
    unit, theta = _in_units(given)
    common, options = _common(given, result.saved or _sorted(times), unit, theta)
    mem, syn, _ = common[6].unbind(dim=-2 if common[6].ndim > 1 else 0)
    at = torch.where(result.spikes.isfinite(), result.spikes, -math.inf).contiguous()
    current, largest = torch.empty_like(at), torch.empty_like(at)
    tiles, sizes = -(-outputs // TILE), (batch, inputs, outputs)
    slope_kernel[(ensemble * batch, tiles)](*common, at, current, largest, *sizes, **options)
    slope = current * _over_samples(syn) - _over_samples(theta * mem)
    scale = torch.where(slope > 0, grad / torch.where(slope > 0, slope, 1.0), 0.0)
    kept = scale / unit[:, None]
    by_threshold = kept.sum(dim=1) if needs.threshold else None
    if max_weight_grad is not None:
        kept = torch.where(largest * kept.abs() > max_weight_grad, 0.0, kept)
    at = torch.where(scale != 0, at, -math.inf)
    chunks = min(_CHUNKS, batch)
    by_weight = weight.new_zeros((ensemble, chunks, inputs, outputs) if needs.weight else 0)
    by_times = times.new_zeros(times.shape)
    for first in range(0, tiles, _TILES):
        some = min(_TILES, tiles - first)
        parts = times.new_zeros((some, *times.shape) if needs.times else 0)
        gradient_kernel[(ensemble * chunks, some)](
            *(*common, at, scale, kept, by_weight, parts, *sizes, chunks, first),
            WEIGHT=needs.weight,
            TIMES=needs.times,
            **options,
        )
        if needs.times:
            by_times += parts.sum(dim=0)
    order = common[2].long()
    return found._replace(
        times=torch.zeros_like(by_times).scatter_(-1, order, by_times) if needs.times else None,
        weight=by_weight.sum(dim=1).transpose(1, 2) if needs.weight else None,
        threshold=by_threshold,
    )


def _sorted(times: Float[Tensor, "E B I"]) -> tuple[Float[Tensor, "E B I"], Int[Tensor, "E B I"], Int[Tensor, "E B"]]:
    """Times in order of arrival, whose they are, and how many arrive."""
    arrival, order = times.sort(dim=-1)
    return arrival, order.int(), arrival.isfinite().sum(dim=-1).int()


def _common(
    given: Arguments, saved: tuple[Tensor, ...], unit: Tensor, theta: Tensor
) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """What all kernels take, and their options."""
    arrival, order, count = (x.contiguous() for x in saved)
    following = torch.cat([arrival[..., 1:], torch.full_like(arrival[..., :1], math.inf)], dim=-1)
    gaps = torch.where(following.isfinite(), following - arrival, 0.0)
    mem, syn, top = _rates(given.constants, theta)
    per_neuron = isinstance(given.constants.tau_mem, Tensor)
    coefficients = gaps
    if not per_neuron:
        slow, fast = torch.minimum(mem, syn), torch.maximum(mem, syn)
        response = kappa(gaps, *given.constants)
        coefficients = torch.stack([torch.exp(-gaps * slow), torch.exp(-gaps * fast), response], dim=-1)
    weight = (given.weight / unit.unsqueeze(-1)).transpose(1, 2).contiguous()
    rates = torch.stack([mem, syn, top], dim=1 if per_neuron else 0).contiguous()
    options = {
        "PER_NEURON": per_neuron,
        "TERMS": 9 if gaps.dtype == torch.float32 else 17,
        "TILE": TILE,
        "enable_fp_fusion": True,
    }
    return (arrival, gaps, order, count, coefficients, weight, rates), options


def _in_units(given: Arguments) -> tuple[Float[Tensor, "E O"], Float[Tensor, "E O"]]:
    """The unit of each neuron's weights, and its threshold in it."""
    unit = unit_of_weights(given.weight, given.threshold)
    return unit, (given.threshold / unit).contiguous()


def _rates(constants: Constants, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``1/tau_mem``, ``1/tau_syn``, and the time of kappa's maximum in units of ``tau_syn``: ``()`` or ``(E, O)``."""
    mem, syn = (
        1 / tau if isinstance(tau, Tensor) else torch.full((), 1 / tau, dtype=like.dtype, device=like.device)
        for tau in constants
    )
    ratio = (mem / syn).double() - 1
    top = torch.where(ratio == 0, 1.0, torch.log1p(ratio) / torch.where(ratio == 0, 1.0, ratio))
    return mem, syn, torch.where(mem > 0, top, 1.0).to(like.dtype)


def _over_samples(x: Tensor) -> Tensor:
    return x[:, None] if x.ndim else x
