"""Host side of neurons with synaptic delays or time constants of their own, and of gradients by time constants."""

import math

import torch
from torch import Tensor

from firstspike.spiketime.backend import Arguments, Gradients, Needs, Result, of_several
from firstspike.spiketime.cpu.per_neuron.kernels import BACKWARD, FORWARD, SAMPLES, backward_kernel, forward_kernel
from firstspike.spiketime.cpu.per_neuron.scan import LANES, N_RATES
from firstspike.spiketime.cpu.rows import PAD
from firstspike.spiketime.cpu.runtime.parallel import run, threads_for

_PARTS, _CHUNKS = 8, 4  # into which the sums over neurons and over samples are cut
_COST = 4  # of a synapse, in units of one of the usual kernels
_SORTED = ("order", "arrival", "count", "last")
_GRADIENTS = ("by_times", "by_weight", "by_threshold", "by_delay", "by_mem", "by_syn")


@of_several
def forward_per_neuron(given: Arguments, spikes: Tensor) -> tuple[Tensor, ...]:
    """Fill ``spikes``.

    Returns:
        What ``Result`` saves: dV/dt at the spikes in units of the threshold. Without delays also, before it, the order
        of arrival and sorted times of each sample's inputs, how many arrive, and for each neuron the place of its last
        causal input (-1: silent).
    """
    times, weight, threshold = (x.contiguous() for x in given[:3])
    delayed, slopes = given.delay is not None, torch.empty_like(spikes)
    sizes, arrays = _common(times, weight, threshold, given)
    saved = (slopes,)
    if not delayed:
        order, arrival, count = _sorted(times)
        saved = order, arrival, count, torch.empty(spikes.shape, dtype=torch.int32), slopes
    arrays |= (
        {"spikes": spikes, "slopes": slopes} | dict.fromkeys(_SORTED, 0) | dict(zip(_SORTED, saved[:-1], strict=False))
    )
    ensemble, groups, blocks = sizes["ensemble"], sizes["groups"], -(-sizes["batch"] // SAMPLES)
    dtype = name_of(times.dtype)
    run(
        forward_kernel(dtype, delayed),
        (ensemble * (groups if delayed else groups + blocks), ensemble * blocks * groups),
        FORWARD.fill(dtype, sizes, arrays),
        threads_for(_COST * sizes["batch"] * weight.numel()),
    )
    return saved


@of_several
def backward_per_neuron(
    grad: Tensor, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
) -> Gradients:
    """All gradients, also of neurons that share their time constants, from what ``scan`` saved."""
    grad, spikes, times, weight, threshold = (x.contiguous() for x in (grad, result.spikes, *given[:3]))
    sizes, arrays = _common(times, weight, threshold, given)
    bound = torch.tensor([max_weight_grad or math.inf], dtype=times.dtype)
    everything, delayed = any(needs[:4]), given.delay is not None
    ensemble, groups, blocks = sizes["ensemble"], sizes["groups"], -(-sizes["batch"] // SAMPLES)
    parts, chunks = min(_PARTS, groups), min(_CHUNKS, sizes["batch"])
    sizes |= {
        "parts": parts, "chunks": chunks, "stride": -(-sizes["inputs"] // 16) * 16, "lanes": groups * LANES,
        "n_totals": 3 * LANES, "one": 1, "everything": everything, "by_taus": needs.tau_mem or needs.tau_syn,
        "observes": not result.saved,
    }  # fmt: skip
    saved = tuple(x.contiguous() for x in result.saved)
    slopes = saved[-1] if saved else 0
    saved = () if delayed else saved or _sorted(times)
    found = {
        name: None if x is None else torch.empty(x.shape, dtype=times.dtype)
        for name, x in zip(_GRADIENTS, (*(given[:4] if everything else [None] * 4), threshold, threshold), strict=True)
    }
    found["by_threshold"] = torch.empty(threshold.shape, dtype=times.dtype)
    arrays |= {"grad": grad, "spikes": spikes, "bound": bound, "slopes": slopes} | dict.fromkeys(_SORTED, 0)
    arrays |= dict(zip(_SORTED, saved, strict=False)) | {name: 0 if x is None else x for name, x in found.items()}
    if not everything:
        arrays |= {"weight_parts": 0, "times_parts": 0}
    if not everything or not delayed:
        arrays |= {"delay_parts": 0}
    dtype = name_of(times.dtype)
    run(
        backward_kernel(dtype, delayed),
        (
            ensemble * (groups if result.saved or delayed else groups + blocks),
            ensemble * parts * chunks,
            ensemble * (groups + blocks if everything else groups),
        ),
        BACKWARD.fill(dtype, sizes, arrays),
        threads_for(_COST * sizes["batch"] * weight.numel()),
    )
    return Gradients(*(x if need else None for x, need in zip(found.values(), needs, strict=True)))


def _common(
    times: Tensor, weight: Tensor, threshold: Tensor, given: Arguments
) -> tuple[dict[str, int], dict[str, Tensor | int]]:
    """Sizes and arrays of both kernels."""
    (ensemble, batch, inputs), outputs = times.shape, weight.shape[1]
    groups = -(-outputs // LANES)
    mem, syn = (
        x.contiguous() if isinstance(x, Tensor) else torch.tensor([x], dtype=times.dtype) for x in given.constants
    )
    sizes = {
        "ensemble": ensemble, "batch": batch, "inputs": inputs, "outputs": outputs, "groups": groups,
        "group_inputs": inputs * LANES, "padded": inputs + PAD, "n_rates": N_RATES, "taus": mem.numel(),
    }  # fmt: skip
    arrays: dict[str, Tensor | int] = {"mem": mem, "syn": syn, "times": times, "weight": weight, "threshold": threshold}
    if given.delay is None:
        return sizes, arrays | {"delay": 0, "delays": 0}
    return sizes, arrays | {"delay": given.delay.contiguous()}


def _sorted(times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for the order of arrival, the sorted times, and how many arrive."""
    ensemble, batch, inputs = times.shape
    return (
        torch.empty((ensemble, batch, inputs), dtype=torch.int32),
        torch.empty((ensemble, batch, inputs + PAD), dtype=times.dtype),
        torch.empty((ensemble, batch), dtype=torch.int32),
    )


def name_of(dtype: torch.dtype) -> str:
    """``"float32"`` or ``"float64"``."""
    return str(dtype).removeprefix("torch.")
