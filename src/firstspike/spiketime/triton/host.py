"""Both passes from tensors: sorting, coefficients, memory, and the launches of kernels.

Nothing here reads a value of a tensor, so that no pass waits for the GPU.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from firstspike.spiketime.contract import Arguments, Constants, Gradients, Grads, Needs, Result, of_several
from firstspike.spiketime.parts import forward_in_parts, zero_gradients
from firstspike.spiketime.reference.response import kappa, leakless
from firstspike.spiketime.triton.kernels import forward_kernel, gradient_kernel, slope_kernel
from firstspike.spiketime.units import unit_of_weights

TILE = 64  # neurons of a program
_CHUNKS = 16  # parts of the samples, each with a gradient by weights of its own
_TILES = 8  # tiles at a time, each with a gradient by times of its own
_STEPS = 60  # of Newton's method; about 6 are needed, and many only next to a tangent
_MEMORY = 1 << 28  # bytes in which the inputs of neurons with synaptic delays are sorted
_COPIES = 12  # numbers for each synapse and sample meanwhile: arrivals, weights, 64-bit places, those of torch.sort


class _Common(NamedTuple):
    """What all kernels take first, in this order, and their options."""

    arrival: Tensor
    order: Tensor
    arriving: Tensor
    coefficients: Tensor
    weight: Tensor
    rates: Tensor
    options: dict[str, Any]


@of_several
def forward(given: Arguments) -> Result:
    """First spike times, ``inf`` for silent neurons. See ``backend`` for the contract."""
    times, weight, _, delay, *_ = given
    ensemble, batch, inputs = times.shape
    if 0 in (ensemble, batch, inputs, weight.shape[1]):
        return Result(times.new_full((ensemble, batch, weight.shape[1]), math.inf))
    if delay is not None:
        return _forward_delayed(given)
    saved = _sorted(times)
    return Result(_launched(given, _common(given, *saved, _in_units(given)[2])), saved)


def saves(given: Arguments) -> tuple[Tensor, ...]:
    """Tensors like those that ``forward`` saves."""
    return _sorted(given.times) if given.delay is None else ()


@partial(
    forward_in_parts, samples=lambda given: _MEMORY // (_COPIES * given.weight.numel() * given.times.element_size())
)
def _forward_delayed(given: Arguments) -> Result:
    """Each neuron has an order of arrival of its own."""
    times, _, _, delay, *_ = given
    assert delay is not None
    arrival, order = (times[:, :, None] + delay[:, None]).sort(dim=-1)
    weight = _in_units(given)[2][:, None].expand(arrival.shape).gather(-1, order)
    count = arrival.isfinite().sum(dim=-1).int()
    common = _common(given, arrival.transpose(2, 3), count, count, weight.transpose(2, 3))
    return Result(_launched(given, common))


def _launched(given: Arguments, common: _Common) -> Float[Tensor, "E B O"]:
    """What the forward kernel finds."""
    ensemble, batch, inputs = given.times.shape
    outputs = given.weight.shape[1]
    start, limit, wait = (given.times.new_empty((ensemble, batch, outputs)) for _ in range(3))
    forward_kernel[(ensemble * batch, -(-outputs // TILE))](
        *(*common[:6], _in_units(given)[1], start, limit, wait, batch, inputs, outputs),
        LEAKY=not leakless(given.constants.tau_mem),
        STEPS=_STEPS,
        EPS=2 * torch.finfo(given.times.dtype).eps,
        **common.options,
    )
    # too soon after the input for the floats: the input stays causal
    return torch.minimum(torch.maximum(start + wait, torch.nextafter(start, limit)), limit)


@of_several
def backward(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """Gradients at the given spike times. See ``backend`` for the contract."""
    times, weight, _, delay, *_ = given
    ensemble, batch, inputs = times.shape
    outputs = weight.shape[1]
    if 0 in (ensemble, batch, inputs, outputs):
        return zero_gradients(given, needs)
    unit, theta, scaled = _in_units(given)
    if delay is None:
        arrival, order, count = result.saved or _sorted(times)
        common, later = _common(given, arrival, order, count, scaled), scaled
    else:  # sums over causal inputs need no order
        none = times.new_empty(0, dtype=torch.int32)
        common, later = _common(given, times, none, none, scaled), delay
    later = later.transpose(1, 2).contiguous()
    arguments = (*common[:5], later, common.rates)
    taus = needs.tau_mem or needs.tau_syn
    at = torch.where(result.spikes.isfinite(), result.spikes, -math.inf).contiguous()
    current, largest = torch.empty_like(at), torch.empty_like(at)
    by_taus = [at.new_empty(at.shape if taus else 0) for _ in range(2)]
    tiles, sizes = -(-outputs // TILE), (batch, inputs, outputs)
    slope_kernel[(ensemble * batch, tiles)](
        *arguments, at, current, largest, *by_taus, *sizes, TAUS=taus, **common.options
    )
    mem, syn, _ = common.rates.unbind(dim=1)
    slope = current * syn[:, None] - (theta * mem)[:, None]
    scale = torch.where(slope > 0, grads.spikes / torch.where(slope > 0, slope, 1.0), 0.0)
    by_mem, by_syn = (-(scale * x).sum(dim=1) if taus else None for x in by_taus)
    kept = scale / unit[:, None]
    by_threshold = kept.sum(dim=1) if needs.threshold else None
    if max_weight_grad is not None:
        kept = torch.where(largest * kept.abs() > max_weight_grad, 0.0, kept)
    at = torch.where(scale != 0, at, -math.inf)
    chunks = min(_CHUNKS, batch)
    by_weight, by_delay = (
        weight.new_zeros((ensemble, chunks, inputs, outputs) if need else 0) for need in (needs.weight, needs.delay)
    )
    by_times = torch.zeros_like(times, memory_format=torch.contiguous_format)
    for first in range(0, tiles if needs.times or needs.weight or needs.delay else 0, _TILES):
        some = min(_TILES, tiles - first)
        parts = times.new_zeros((some, *times.shape) if needs.times else 0)
        gradient_kernel[(ensemble * chunks, some)](
            *(*arguments, at, scale, kept, by_weight, parts, by_delay, *sizes, chunks, first),
            WEIGHT=needs.weight,
            TIMES=needs.times,
            DELAY=needs.delay,
            **common.options,
        )
        if needs.times:
            by_times += parts.sum(dim=0)
    return Gradients(
        times=by_times if needs.times else None,
        weight=by_weight.sum(dim=1).transpose(1, 2) if needs.weight else None,
        threshold=by_threshold,
        delay=by_delay.sum(dim=1).transpose(1, 2) if needs.delay else None,
        tau_mem=by_mem if needs.tau_mem else None,
        tau_syn=by_syn if needs.tau_syn else None,
    )


def _sorted(times: Float[Tensor, "E B I"]) -> tuple[Float[Tensor, "E B I"], Int[Tensor, "E B I"], Int[Tensor, "E B"]]:
    """Times in order of arrival, whose they are, and how many arrive."""
    arrival, order = times.sort(dim=-1)
    return arrival, order.int(), arrival.isfinite().sum(dim=-1).int()


def _common(given: Arguments, arrival: Tensor, order: Tensor, count: Tensor, weight: Tensor) -> _Common:
    """Arguments of the kernels, and their options.

    ``weight`` is in units, ``(E, O, I)``, or ``(E, B, I, O)`` in the order of arrival at each neuron.
    """
    constants = _of_networks(given.constants)
    rates = _rates(constants, given.threshold)
    own, delayed = rates.shape[-1] > 1, given.delay is not None
    coefficients = rates
    if not own and not delayed:
        following = torch.cat([arrival[..., 1:], torch.full_like(arrival[..., :1], math.inf)], dim=-1)
        gaps = torch.where(following.isfinite(), following - arrival, 0.0)
        mem, syn, _ = rates.unsqueeze(-1).unbind(dim=1)
        slow, fast = torch.minimum(mem, syn), torch.maximum(mem, syn)
        response = kappa(gaps, *(x.unsqueeze(-1) if isinstance(x, Tensor) else x for x in constants))
        coefficients = torch.stack([torch.exp(-gaps * slow), torch.exp(-gaps * fast), response], dim=-1)
    options = {
        "OWN": own,
        "DELAYED": delayed,
        "TERMS": 9 if arrival.dtype == torch.float32 else 17,
        "TILE": TILE,
        "enable_fp_fusion": True,
        "num_warps": 1,  # a program asks all of its lanes at every input, which costs nothing within a warp
    }
    weight = weight.transpose(1, 2) if weight.ndim == 3 else weight
    arrival, order, count, coefficients, weight, rates = (
        x.contiguous() for x in (arrival, order, count, coefficients, weight, rates)
    )
    return _Common(arrival, order, count, coefficients, weight, rates, options)


def _in_units(given: Arguments) -> tuple[Float[Tensor, "E O"], Float[Tensor, "E O"], Float[Tensor, "E O I"]]:
    """The unit of each neuron's weights, and its threshold and its weights in it."""
    unit = unit_of_weights(given.weight, given.threshold)
    return unit, (given.threshold / unit).contiguous(), given.weight / unit.unsqueeze(-1)


def _of_networks(constants: Constants) -> Constants:
    """Tensors ``(E, 1)`` where the neurons of each network share them, as memory layout tells; else unchanged."""
    taus = [tau for tau in constants if isinstance(tau, Tensor)]
    if any(tau.shape[-1] > 1 and tau.stride(-1) != 0 for tau in taus):
        return constants
    return Constants(*(tau[:, :1] if isinstance(tau, Tensor) else tau for tau in constants))


def _rates(constants: Constants, like: Float[Tensor, "E O"]) -> Float[Tensor, "E 3 R"]:
    """``1/tau_mem``, ``1/tau_syn``, and the time of kappa's maximum in units of ``tau_syn``; R is 1 or O."""
    mem, syn = torch.broadcast_tensors(
        *(1 / tau if isinstance(tau, Tensor) else like.new_full((len(like), 1), 1 / tau) for tau in constants)
    )
    ratio = (mem / syn).double() - 1
    top = torch.where(ratio == 0, 1.0, torch.log1p(ratio) / torch.where(ratio == 0, 1.0, ratio))
    return torch.stack([mem, syn, torch.where(mem > 0, top, 1.0).to(like.dtype)], dim=1)
