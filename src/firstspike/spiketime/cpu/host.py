"""Both passes from tensors: which kernels do what, their memory, threads and calls.

Where all neurons share the order of arrival and the time constants, the kernels of ``scan`` and ``unwind`` do the work.
The rest is in ``per_neuron_host``.
"""

import math
from functools import partial

import torch
from torch import Tensor

from firstspike.spiketime.backend import Arguments, Gradients, Needs, Result
from firstspike.spiketime.cpu.constants import constants_array
from firstspike.spiketime.cpu.crossing import NARROW, TILE
from firstspike.spiketime.cpu.parallel import is_small, run, scratch, threads_for, work_of
from firstspike.spiketime.cpu.per_neuron_host import backward_per_neuron, forward_per_neuron, name_of, tau_gradients
from firstspike.spiketime.cpu.rows import N_BACKWARD, N_FORWARD, PAD
from firstspike.spiketime.cpu.scan import forward_kernel
from firstspike.spiketime.cpu.unwind import SAMPLES, backward_kernel
from firstspike.spiketime.parts import Size, backward_in_parts, zero_gradients

_MAX_BLOCK = 32  # samples whose rows fit into the second-level cache beside a tile of weights
MAX_GROUPS = 8  # parts into which gradients by times are summed
_FEW, _MANY = 8, 16  # tasks wanted for each network, and where they cost little
_SHORT, _LONG = 8, 96  # samples for which a task may, and should, have a part of the weights' gradient of its own
_MEMORY = 1 << 26  # bytes of a backward pass beside its results
_ROWS = 12  # numbers for each input of a sample, at most: rows, and parts of the gradient by its time


def forward(given: Arguments) -> Result:
    """First spike times, ``inf`` for silent neurons. See ``backend`` for the contract."""
    ensemble, batch, inputs = given.times.shape
    outputs = given.weight.shape[1]
    spikes = torch.empty((ensemble, batch, outputs), dtype=given.times.dtype)
    if 0 in (ensemble, batch, inputs, outputs):
        return Result(spikes.fill_(math.inf))
    if given.delay is not None or isinstance(given.constants.tau_mem, Tensor):
        return Result(spikes, forward_per_neuron(given, spikes))
    return Result(spikes, _forward(given, spikes))


def _part(given: Arguments) -> Size:
    _, batch, inputs = given.times.shape
    samples = max(1, _MEMORY // (_ROWS * (inputs + PAD) * given.times.element_size()))
    return Size(samples // max(1, batch), samples, given.weight.shape[1])


@partial(backward_in_parts, size=_part)
def backward(grad: Tensor, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """Gradients at the given spike times. See ``backend`` for the contract."""
    if 0 in (*given.times.shape, given.weight.shape[1]):
        return zero_gradients(given, needs)
    of_taus = Needs(False, False, False, False, needs.tau_mem, needs.tau_syn)
    if given.delay is not None or isinstance(given.constants.tau_mem, Tensor):
        return backward_per_neuron(grad, result, given, max_weight_grad, needs)
    found = Gradients(None, None, None, None)
    if any(needs[:4]):
        found = _shared(grad, result, given, max_weight_grad, needs)
    if not any(of_taus):
        return found
    taus = dict(zip(("tau_mem", "tau_syn"), tau_gradients(grad, result.spikes, given), strict=True))
    taus = {name: x for name, x in taus.items() if getattr(needs, name)}
    return found._replace(tau_mem=taus.get("tau_mem"), tau_syn=taus.get("tau_syn"))


def _forward(given: Arguments, spikes: Tensor) -> tuple[Tensor, ...]:
    """Fill ``spikes``.

    Returns:
        The order of arrival and sorted times of each sample's inputs, how many arrive, and for each neuron the place of
        its last causal input (-1: silent) and dV/dt at the spike in units of the threshold.
    """
    times, weight, threshold = (x.contiguous() for x in given[:3])
    ensemble, batch, inputs = times.shape
    outputs = weight.shape[1]
    dtype = name_of(times.dtype)
    tiles = -(-outputs // TILE)
    threads = threads_for(work_of(ensemble * batch, inputs, outputs))
    block = max(1, min(_MAX_BLOCK, -(-batch // (2 * threads))))
    stride, size = -(-inputs // 16) * 16 + PAD, times.element_size()
    packed, rows, ends = scratch(
        ensemble * tiles * inputs * TILE * size,
        threads * block * N_FORWARD * stride * size,
        threads * block * inputs * 4,
    )
    order = torch.empty((ensemble, batch, inputs), dtype=torch.int32)
    arrival = torch.empty((ensemble, batch, inputs + PAD), dtype=times.dtype)
    count = torch.empty((ensemble, batch), dtype=torch.int32)
    last = torch.empty((ensemble, batch, outputs), dtype=torch.int32)
    slope = torch.empty((ensemble, batch, outputs), dtype=times.dtype)
    _c, c_address = constants_array(*given.constants, dtype)
    filled = (order, arrival, count, last, slope, spikes)
    addresses = (
        *(x.data_ptr() for x in (times, weight, threshold)), packed, *(x.data_ptr() for x in filled), rows, ends,
    )  # fmt: skip
    run(
        forward_kernel(dtype, outputs <= NARROW),
        (ensemble * tiles, ensemble * -(-batch // block)),
        (ensemble, batch, inputs, outputs, block, c_address, *addresses, threads, 0),
        threads,
    )
    return order, arrival, count, last, slope


def _shared(grad: Tensor, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """Gradients without those by time constants, of neurons that share the order of arrival."""
    grad, spikes, times, weight, threshold = (x.contiguous() for x in (grad, result.spikes, *given[:3]))
    ensemble, batch, inputs = times.shape
    outputs, dtype = weight.shape[1], name_of(times.dtype)

    def memory(*shape: int, dtype: torch.dtype = times.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype)

    by_times = memory(*times.shape) if needs.times else memory(0)
    by_weight = memory(*weight.shape) if needs.weight else memory(0)
    by_threshold = memory(*threshold.shape) if needs.threshold else memory(0)
    tiles, stride = -(-outputs // TILE), -(-inputs // 16) * 16 + PAD
    groups = min(tiles, MAX_GROUPS) if needs.times else tiles
    chunks = 1 if is_small(work_of(batch, inputs, outputs)) else chunks_of(batch, groups)
    order, arrival, count, last, slope = tuple(x.contiguous() for x in result.saved) or (
        memory(ensemble, batch, inputs, dtype=torch.int32),
        memory(ensemble, batch, inputs + PAD),
        memory(ensemble, batch, dtype=torch.int32),
        memory(*spikes.shape, dtype=torch.int32),
        memory(*spikes.shape),
    )
    _c, c_address = constants_array(*given.constants, dtype, max_weight_grad)
    size = times.element_size()
    packed, rows, ends, segments, unit, *parts = scratch(
        ensemble * tiles * inputs * TILE * size,
        ensemble * batch * N_BACKWARD * stride * size,
        ensemble * batch * inputs * 4,
        ensemble * batch * 4,
        ensemble * outputs * size,
        ensemble * chunks * tiles * inputs * TILE * size if needs.weight else 0,
        ensemble * groups * batch * stride * size if needs.times else 0,
        ensemble * chunks * outputs * size,
    )
    addresses = (
        *(x.data_ptr() for x in (grad, spikes, times, weight, threshold)),
        packed,
        *(x.data_ptr() for x in (order, arrival, count, last, slope)),
        rows,
        ends,
        segments,
        *parts,
        *(x.data_ptr() for x in (by_weight, by_times, by_threshold)),
        unit,
    )
    flags = (needs.weight, needs.times, needs.threshold, not result.saved)
    blocks = -(-batch // SAMPLES)
    run(
        backward_kernel(dtype, outputs <= NARROW),
        (
            ensemble * (tiles + blocks),
            ensemble * groups * chunks,
            ensemble * (tiles + (blocks if needs.times else 0)),
        ),
        (ensemble, batch, inputs, outputs, groups, chunks, *flags, c_address, *addresses),
        threads_for(work_of(ensemble * batch, inputs, outputs)),
    )
    return Gradients(
        by_times if needs.times else None,
        by_weight if needs.weight else None,
        by_threshold if needs.threshold else None,
        None,
    )


def chunks_of(batch: int, groups: int) -> int:
    """Parts of the batch with a gradient each; of one network's shape alone, so that sums never depend on threads."""
    return max(1, min(-(-_FEW // groups), batch // _SHORT), min(_MANY // groups, batch // _LONG))
