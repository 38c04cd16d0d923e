"""Host side of the backward pass: memory, threads, and the kernel's call."""

import math

import numpy as np
import torch
from torch import Tensor

from firstspike.spiketime.backend import Constants, Gradients, Needs
from firstspike.spiketime.cpu.constants import constants_array
from firstspike.spiketime.cpu.crossing import NARROW, TILE
from firstspike.spiketime.cpu.delayed_host import delayed_backward
from firstspike.spiketime.cpu.forward import DTYPES
from firstspike.spiketime.cpu.parallel import is_small, run, scratch, threads_for, work_of
from firstspike.spiketime.cpu.rows import N_BACKWARD, PAD
from firstspike.spiketime.cpu.unwind import SAMPLES, backward_kernel

_MAX_GROUPS = 8  # parts into which gradients by times are summed
_FEW, _MANY = 8, 16  # tasks wanted for each network, and where they cost little
_SHORT, _LONG = 8, 96  # samples for which a task may, and should, have a part of the weights' gradient of its own


def backward(
    grad: Tensor,
    spikes: Tensor,
    times: Tensor,
    weight: Tensor,
    threshold: Tensor,
    delay: Tensor | None,
    saved: tuple[Tensor, ...],
    constants: Constants,
    max_weight_grad: float | None,
    needs: Needs,
) -> Gradients:
    """Gradients at the given spike times. See ``backend`` for the contract."""
    ensemble, batch, inputs = times.shape
    outputs = weight.shape[1]
    empty = 0 in (ensemble, batch, inputs, outputs)
    if delay is not None and not empty:
        return delayed_backward(grad, spikes, times, weight, threshold, delay, constants, max_weight_grad, needs)
    dtype, make = DTYPES[times.dtype], torch.zeros if empty else torch.empty

    def memory(*shape: int, dtype: torch.dtype = times.dtype) -> Tensor:
        return make(shape, dtype=dtype)

    none = memory(0)
    by_times = memory(*times.shape) if needs.times else none
    by_weight = memory(*weight.shape) if needs.weight else none
    by_threshold = memory(*threshold.shape) if needs.threshold else none
    if not empty:
        grad, spikes, times = grad.contiguous(), spikes.contiguous(), times.contiguous()
        weight, threshold = weight.contiguous(), threshold.contiguous()
        tiles, stride = -(-outputs // TILE), -(-inputs // 16) * 16 + PAD
        groups = min(tiles, _MAX_GROUPS) if needs.times else tiles
        chunks = 1 if is_small(work_of(batch, inputs, outputs)) else _chunks(batch, groups)
        order, arrival, count, last, slope = tuple(x.contiguous() for x in saved) or (
            memory(ensemble, batch, inputs, dtype=torch.int32),
            memory(ensemble, batch, inputs + PAD),
            memory(ensemble, batch, dtype=torch.int32),
            memory(*spikes.shape, dtype=torch.int32),
            memory(*spikes.shape),
        )
        c = constants_array(*constants, dtype)
        c = np.append(c, c.dtype.type(math.inf if max_weight_grad is None else max_weight_grad))
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
        given = (grad, spikes, times, weight, threshold)
        addresses = (
            *(x.data_ptr() for x in given),
            packed,
            *(x.data_ptr() for x in (order, arrival, count, last, slope)),
            rows,
            ends,
            segments,
            *parts,
            *(x.data_ptr() for x in (by_weight, by_times, by_threshold)),
            unit,
        )
        flags = (needs.weight, needs.times, needs.threshold, not saved)
        blocks = -(-batch // SAMPLES)
        run(
            backward_kernel(dtype, outputs <= NARROW),
            (
                ensemble * (tiles + blocks),
                ensemble * groups * chunks,
                ensemble * (tiles + (blocks if needs.times else 0)),
            ),
            (ensemble, batch, inputs, outputs, groups, chunks, *flags, c.ctypes.data, *addresses),
            threads_for(work_of(ensemble * batch, inputs, outputs)),
        )
    return Gradients(
        by_times if needs.times else None,
        by_weight if needs.weight else None,
        by_threshold if needs.threshold else None,
        torch.zeros_like(delay) if needs.delay and delay is not None else None,
    )


def _chunks(batch: int, groups: int) -> int:
    """Parts of the batch with a gradient each; of one network's shape alone, so that sums never depend on threads."""
    return max(1, min(-(-_FEW // groups), batch // _SHORT), min(_MANY // groups, batch // _LONG))
