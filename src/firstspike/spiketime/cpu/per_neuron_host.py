"""Host side of neurons with synaptic delays or time constants of their own, and of gradients by time constants."""

import math

import numpy as np
import torch
from torch import Tensor

from firstspike.spiketime.backend import Arguments, Constants, Gradients, Needs, Result
from firstspike.spiketime.cpu.parallel import run, scratch, threads_for
from firstspike.spiketime.cpu.per_neuron import LANES, N_RATES
from firstspike.spiketime.cpu.per_neuron_kernels import SAMPLES, backward_kernel, forward_kernel
from firstspike.spiketime.cpu.rows import PAD

_PARTS, _CHUNKS = 8, 4  # into which the sums over neurons and over samples are cut
_COST = 4  # of a synapse, in units of one of the usual kernels


def forward_per_neuron(given: Arguments, spikes: Tensor) -> tuple[Tensor, ...]:
    """Fill ``spikes``.

    Returns:
        What ``Result`` saves: dV/dt at the spikes in units of the threshold. Without delays also, before it, the order
        of arrival and sorted times of each sample's inputs, how many arrive, and for each neuron the place of its last
        causal input (-1: silent).
    """
    times, weight, threshold = (x.contiguous() for x in given[:3])
    delay = times if given.delay is None else given.delay.contiguous()  # not looked at without delays
    ensemble, batch, inputs = times.shape
    outputs, dtype, size = weight.shape[1], name_of(times.dtype), times.element_size()
    mem, syn = _taus(given.constants, dtype)
    groups, blocks, sorts = -(-outputs // LANES), -(-batch // SAMPLES), given.delay is None
    saved = (torch.empty_like(spikes),)
    if sorts:
        shapes = ((ensemble, batch, inputs), (ensemble, batch), spikes.shape)
        order, count, last = (torch.empty(shape, dtype=torch.int32) for shape in shapes)
        saved = order, torch.empty((ensemble, batch, inputs + PAD), dtype=times.dtype), count, last, *saved
    packed = ensemble * groups * inputs * LANES * size
    places = scratch(ensemble * groups * N_RATES * size, packed, 0 if sorts else packed)
    tensors = (times, weight, threshold, delay, spikes, saved[-1], *(saved[:-1] if sorts else [spikes] * 4))
    run(
        forward_kernel(dtype, not sorts),
        (ensemble * (groups + blocks if sorts else groups), ensemble * blocks * groups),
        (
            *(ensemble, batch, inputs, outputs, len(mem) == 1, mem.ctypes.data, syn.ctypes.data),
            *(x.data_ptr() for x in tensors),
            *places,
        ),
        threads_for(_COST * batch * weight.numel()),
    )
    return saved


def backward_per_neuron(
    grad: Tensor, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
) -> Gradients:
    """All gradients, also of neurons that share their time constants, from what ``scan`` saved."""
    grad, spikes, times, weight, threshold = (x.contiguous() for x in (grad, result.spikes, *given[:3]))
    delay = times if given.delay is None else given.delay.contiguous()
    ensemble, batch, inputs = times.shape
    outputs, dtype, size = weight.shape[1], name_of(times.dtype), times.element_size()
    mem, syn = _taus(given.constants, dtype)
    bound = np.array([max_weight_grad or math.inf], dtype)
    everything, delayed = any(needs[:4]), given.delay is not None
    groups, blocks = -(-outputs // LANES), -(-batch // SAMPLES)
    parts, chunks = min(_PARTS, groups), min(_CHUNKS, batch)
    saved = tuple(x.contiguous() for x in result.saved)
    if not saved:
        saved = (spikes,)  # not looked at
        if not delayed:
            order, count = (torch.empty(n, dtype=torch.int32) for n in ((ensemble, batch, inputs), (ensemble, batch)))
            saved = order, torch.empty((ensemble, batch, inputs + PAD), dtype=times.dtype), count, spikes, spikes
    synapses = ensemble * groups * inputs * LANES * size
    places = scratch(
        ensemble * groups * N_RATES * size,
        synapses,
        synapses if delayed else 0,
        ensemble * 2 * groups * LANES * size,
        synapses * chunks if everything else 0,
        synapses * chunks if everything and delayed else 0,
        ensemble * parts * batch * -(-inputs // 16) * 16 * size if everything else 0,
        ensemble * groups * chunks * 3 * LANES * size,
    )
    shape = weight.shape if everything else (0,)
    by_weight, by_delay = (torch.empty(shape, dtype=times.dtype) for _ in range(2))
    by_times = torch.empty(times.shape if everything else (0,), dtype=times.dtype)
    totals = [torch.empty((ensemble, outputs), dtype=times.dtype) for _ in range(3)]
    order, arrival, count, last = saved[:-1] if not delayed else [spikes] * 4
    tensors = (grad, spikes, saved[-1], last, order, arrival, count, times, weight, threshold, delay)
    found = (by_weight, by_delay, by_times, *totals)
    flags = (everything, needs.tau_mem or needs.tau_syn, not result.saved)
    run(
        backward_kernel(dtype, delayed),
        (
            ensemble * (groups if result.saved or delayed else groups + blocks),
            ensemble * parts * chunks,
            ensemble * (groups + blocks if everything else groups),
        ),
        (
            *(ensemble, batch, inputs, outputs, len(mem) == 1, parts, chunks, *flags),
            *(x.ctypes.data for x in (mem, syn, bound)),
            *(x.data_ptr() for x in tensors),
            *places,
            *(x.data_ptr() for x in found),
        ),
        threads_for(_COST * batch * weight.numel()),
    )
    return Gradients(
        by_times if needs.times else None,
        by_weight if needs.weight else None,
        totals[0] if needs.threshold else None,
        by_delay if needs.delay and delayed else None,
        totals[1] if needs.tau_mem else None,
        totals[2] if needs.tau_syn else None,
    )


def _taus(constants: Constants, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """The time constants of all networks' neurons, or one that all share."""
    mem, syn = (
        x.detach().contiguous().numpy().ravel() if isinstance(x, Tensor) else np.array([x], dtype) for x in constants
    )
    return mem, syn


def name_of(dtype: torch.dtype) -> str:
    """``"float32"`` or ``"float64"``."""
    return str(dtype).removeprefix("torch.")
