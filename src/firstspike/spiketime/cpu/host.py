"""Both passes from tensors: which kernels do what, their memory, threads and calls.

Where all neurons share the order of arrival and the time constants, the kernels of ``scan`` and ``unwind`` do the work.
The rest, and gradients by time constants, are in ``per_neuron_host``.
"""

import math
from functools import partial

import torch
from torch import Tensor

from firstspike.spiketime.backend import Arguments, Gradients, Needs, Result
from firstspike.spiketime.cpu.constants import N_CONSTANTS, constants_array
from firstspike.spiketime.cpu.crossing import TILE, lanes_for
from firstspike.spiketime.cpu.per_neuron.host import backward_per_neuron, forward_per_neuron, name_of
from firstspike.spiketime.cpu.rows import N_BACKWARD, N_FORWARD, PAD
from firstspike.spiketime.cpu.runtime.parallel import is_small, run, threads_for, work_of
from firstspike.spiketime.cpu.scan import FORWARD, REFUSED, forward_kernel
from firstspike.spiketime.cpu.unwind import BACKWARD, SAMPLES, backward_kernel
from firstspike.spiketime.parts import Size, backward_in_parts, zero_gradients
from firstspike.spiketime.values import check_values

_BLOCK = 600_000  # bytes of a block's rows, which fit into the second-level cache beside a tile of weights
MAX_GROUPS = 8  # parts into which gradients by times are summed
_FEW, _MANY = 8, 16  # tasks wanted for each network, and where they cost little
_SHORT, _LONG = 8, 96  # samples for which a task may, and should, have a part of the weights' gradient of its own
_MEMORY = 1 << 26  # bytes of a backward pass beside its results
_ROWS = 12  # numbers for each input of a sample, at most: rows, and parts of the gradient by its time


def forward(given: Arguments) -> Result:
    """First spike times, ``inf`` for silent neurons. See ``backend`` for the contract."""
    spikes = torch.empty((*given.times.shape[:-1], given.weight.shape[-2]), dtype=given.times.dtype)
    own = given.delay is not None or isinstance(given.constants.tau_mem, Tensor)
    empty = 0 in given.sizes
    if not own and not empty:
        return Result(spikes, _forward(given, spikes))
    check_values(*given[:4])
    return Result(spikes.fill_(math.inf)) if empty else Result(spikes, forward_per_neuron(given, spikes))


def _part(given: Arguments) -> Size:
    _, batch, inputs, outputs = given.sizes
    samples = max(1, _MEMORY // (_ROWS * (inputs + PAD) * given.times.element_size()))
    return Size(samples // max(1, batch), samples, outputs)


@partial(backward_in_parts, size=_part)
def backward(grad: Tensor, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """Gradients at the given spike times. See ``backend`` for the contract."""
    if 0 in given.sizes:
        return zero_gradients(given, needs)
    own = given.delay is not None or isinstance(given.constants.tau_mem, Tensor)
    if own or needs.tau_mem or needs.tau_syn:
        return backward_per_neuron(grad, result, given, max_weight_grad, needs)
    return _shared(grad, result, given, max_weight_grad, needs)


def _forward(given: Arguments, spikes: Tensor) -> tuple[Tensor, ...]:
    """Fill ``spikes``.

    Returns:
        The order of arrival and sorted times of each sample's inputs, how many arrive, and for each neuron the place of
        its last causal input (-1: silent) and dV/dt at the spike in units of the threshold.

    Raises:
        ValueError: see ``check_values``.
    """
    times, weight, threshold = (x.contiguous() for x in given[:3])
    ensemble, batch, inputs, outputs = given.sizes
    dtype = name_of(times.dtype)
    threads = threads_for(work_of(ensemble * batch, inputs, outputs))
    sizes = _sizes(given, N_FORWARD, threads=threads, taken=0, refused=0)
    most = _BLOCK // (N_FORWARD * sizes["stride"] * times.element_size())
    sizes["block"] = block = max(1, min(most, -(-batch // (2 * threads))))
    order, arrival, count, last, slope = saved = _saved(times, spikes)
    _c, c = constants_array(*given.constants, dtype)
    numbers = FORWARD.fill(dtype, sizes, {
        "c": c, "times": times, "weight": weight, "threshold": threshold, "order": order, "arrival": arrival,
        "count": count, "last": last, "slope": slope, "spikes": spikes,
    })  # fmt: skip
    phases = ensemble * sizes["tiles"], ensemble * -(-batch // block)
    left = run(forward_kernel(dtype, lanes_for(outputs)), phases, numbers, threads)
    if left[REFUSED]:
        check_values(*given[:4])
    return saved


def _shared(grad: Tensor, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """Gradients without those by time constants, of neurons that share the order of arrival."""
    grad, spikes, times, weight, threshold = (x.contiguous() for x in (grad, result.spikes, *given[:3]))
    ensemble, batch, inputs, outputs = given.sizes
    dtype = name_of(times.dtype)
    by_times, by_weight, by_threshold = (
        torch.empty_like(x) if need else None for x, need in zip((times, weight, threshold), needs, strict=False)
    )
    tiles = -(-outputs // TILE)
    groups = min(tiles, MAX_GROUPS) if needs.times else tiles
    chunks = 1 if is_small(work_of(batch, inputs, outputs)) else chunks_of(batch, groups)
    sizes = _sizes(
        given, N_BACKWARD, groups=groups, chunks=chunks, wants_weight=needs.weight, wants_times=needs.times,
        wants_threshold=needs.threshold, observes=not result.saved,
    )  # fmt: skip
    order, arrival, count, last, slope = tuple(x.contiguous() for x in result.saved) or _saved(times, spikes)
    _c, c = constants_array(*given.constants, dtype, max_weight_grad)
    arrays: dict[str, Tensor | int] = {
        "c": c, "grad": grad, "spikes": spikes, "times": times, "weight": weight, "threshold": threshold,
        "order": order, "arrival": arrival, "count": count, "last": last, "slope": slope,
    }  # fmt: skip
    for name, x in (("by_weight", by_weight), ("by_times", by_times), ("by_threshold", by_threshold)):
        arrays[name] = 0 if x is None else x
    arrays |= {} if needs.weight else {"weight_parts": 0}
    arrays |= {} if needs.times else {"times_parts": 0}
    blocks = -(-batch // SAMPLES)
    phases = (
        ensemble * (tiles + blocks),
        ensemble * groups * chunks,
        ensemble * (tiles + (blocks if needs.times else 0)),
    )
    threads = threads_for(work_of(ensemble * batch, inputs, outputs))
    run(backward_kernel(dtype, lanes_for(outputs)), phases, BACKWARD.fill(dtype, sizes, arrays), threads)
    return Gradients(by_times, by_weight, by_threshold, None)


def _sizes(given: Arguments, rows: int, **others: int) -> dict[str, int]:
    """Those of both kernels, and others."""
    ensemble, batch, inputs, outputs = given.sizes
    stride = -(-inputs // 16) * 16 + PAD
    return {
        "ensemble": ensemble, "batch": batch, "inputs": inputs, "outputs": outputs, "tiles": -(-outputs // TILE),
        "packed_size": inputs * TILE, "padded": inputs + PAD, "stride": stride, "row_kinds": rows,
        "constants": N_CONSTANTS + 1, **others,
    }  # fmt: skip


def _saved(times: Tensor, spikes: Tensor) -> tuple[Tensor, ...]:
    """Memory for what ``_forward`` returns."""
    *lead, inputs = times.shape
    return (
        torch.empty(times.shape, dtype=torch.int32),
        torch.empty((*lead, inputs + PAD), dtype=times.dtype),
        torch.empty(lead, dtype=torch.int32),
        torch.empty(spikes.shape, dtype=torch.int32),
        torch.empty(spikes.shape, dtype=times.dtype),
    )


def chunks_of(batch: int, groups: int) -> int:
    """Parts of the batch with a gradient each; of one network's shape alone, so that sums never depend on threads."""
    return max(1, min(-(-_FEW // groups), batch // _SHORT), min(_MANY // groups, batch // _LONG))
