"""Spike trains: both passes from tensors. What the kernels do not know, plain torch does; see ``kernels_know``."""

import math
from operator import itemgetter

import torch
from torch import Tensor

from firstspike.spiketime.backend import each_tensor
from firstspike.spiketime.cpu.constants import constants_array
from firstspike.spiketime.cpu.crossing import NARROW, TILE
from firstspike.spiketime.cpu.host import MAX_GROUPS, chunks_of
from firstspike.spiketime.cpu.parallel import is_small, run, scratch, threads_for, work_of
from firstspike.spiketime.cpu.per_neuron_host import name_of
from firstspike.spiketime.cpu.rows import N_BACKWARD, N_FORWARD, PAD
from firstspike.spiketime.cpu.train_scan import train_forward_kernel
from firstspike.spiketime.cpu.train_unwind import SAMPLES, train_backward_kernel
from firstspike.spiketime.trains import reference, reference_gradient
from firstspike.spiketime.trains.backend import Arguments, Gradients, Grads, Held, Needs, Result

_ROWS_AT_ONCE = 1 << 20  # bytes of a task's samples beside a tile of weights
_MAX_BLOCK = 32
_MEMORY = 1 << 27  # bytes of a backward pass beside its results


def kernels_know(given: Arguments) -> bool:
    """Whether neurons share their order of arrival and their time constants, without a refractory time."""
    shared = given.delay is None and not isinstance(given.constants.tau_mem, Tensor)
    started = given.state is not None and bool((given.state.refractory > 0).any())
    return shared and not started and not bool((given.refractory > 0).any())


def forward(given: Arguments) -> Result:
    """Spike trains. See ``trains.backend`` for the contract."""
    ensemble, batch, inputs, copies = given.times.shape
    outputs, most = given.weight.shape[1], given.max_spikes
    if 0 in (ensemble, batch, inputs, outputs) or not kernels_know(given):
        return reference.forward(given)
    times = given.times
    if given.start > -math.inf or given.until < math.inf:
        times = torch.where((times >= given.start) & (times < given.until), times, math.inf)
    times, weight, threshold, reset = (x.contiguous() for x in (times, given.weight, given.threshold, given.reset))
    dtype, events, tiles = times.dtype, inputs * copies, -(-outputs // TILE)
    held = torch.zeros((ensemble, 4, batch, outputs), dtype=dtype)
    if given.state is not None:
        held[:, 0], held[:, 1] = given.state.voltage, given.state.current

    def memory(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.empty((ensemble, batch, *shape), dtype=dtype)

    order, source = (memory(events + 2, dtype=torch.int32) for _ in range(2))
    arrival, count = memory(events + 2 + PAD), memory(dtype=torch.int32)
    trains, slopes, overflows = memory(outputs, most), memory(outputs, most), memory(outputs, dtype=torch.uint8)
    found, places = (memory(tiles, most * TILE, dtype=torch.int32) for _ in range(2))
    totals, counts = memory(tiles, dtype=torch.int32), memory(outputs, dtype=torch.int32)
    threads = threads_for(work_of(ensemble * batch, events, outputs))
    size, stride = times.element_size(), -(-(events + 2) // 16) * 16 + PAD
    block = min(_MAX_BLOCK, -(-batch // (2 * threads)), _ROWS_AT_ONCE // (N_FORWARD * stride * size))
    block = max(1, block)
    packed, rows, ends = scratch(
        ensemble * tiles * (inputs + 1) * TILE * size,
        threads * block * N_FORWARD * stride * size,
        threads * block * (events + 2) * 4,
    )
    _c, c_address = constants_array(*given.constants, name_of(dtype))
    window = torch.tensor([given.start, given.until], dtype=dtype)
    filled = (order, source, arrival, count, trains, slopes, overflows, found, places, totals, counts)
    run(
        train_forward_kernel(name_of(dtype), outputs <= NARROW),
        (ensemble * tiles, ensemble * -(-batch // block)),
        (
            ensemble, batch, inputs, copies, outputs, most, block, c_address, window.data_ptr(),
            *(x.data_ptr() for x in (times, weight, threshold, reset, held)), packed,
            *(x.data_ptr() for x in filled), rows, ends, threads, 0,
        ),
        threads,
    )  # fmt: skip
    state = None if given.until == math.inf else Held(held[:, 2], held[:, 3], torch.zeros_like(held[:, 2]))
    return Result(
        trains, overflows.bool(), state, (order, source, arrival, count, slopes, counts, found, places, totals)
    )


def backward(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """Gradients at the given trains. See ``trains.backend`` for the contract."""
    if not result.saved:
        return reference_gradient.backward(grads, result, given, max_weight_grad, needs)
    found = _in_parts(grads, result, given, max_weight_grad, needs)
    if not (needs.tau_mem or needs.tau_syn):
        return found
    of_taus = Needs(False, False, False, False, needs.tau_mem, needs.tau_syn, False)
    taus = reference_gradient.backward(grads, result, given, None, of_taus)
    return found._replace(tau_mem=taus.tau_mem, tau_syn=taus.tau_syn)


def _in_parts(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """``_backward`` of some samples after the others, where all together would need too much memory."""
    ensemble, batch, inputs, copies = given.times.shape
    numbers = (N_BACKWARD + 1 + MAX_GROUPS) * (inputs * copies + 2 * PAD)
    samples = max(1, _MEMORY // (ensemble * numbers * given.times.element_size()))
    if batch <= samples:
        return _backward(grads, result, given, max_weight_grad, needs)
    parts = []
    for begin in range(0, batch, samples):
        some = itemgetter((slice(None), slice(begin, begin + samples)))
        own = given._replace(times=some(given.times), state=each_tensor(some, given.state))
        parts.append(_backward(*each_tensor(some, (grads, result)), own, max_weight_grad, needs))

    def joined(name: str) -> Tensor | None:
        tensors = [x for x in (getattr(part, name) for part in parts) if x is not None]
        if not tensors:
            return None
        return torch.cat(tensors, 1) if name == "times" else torch.stack(tensors).sum(0)

    states = [part.state for part in parts if part.state is not None]
    state = Held(*(torch.cat(x, 1) for x in zip(*states, strict=True))) if states else None
    return Gradients(joined("times"), joined("weight"), joined("threshold"), state=state)


def _backward(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """Gradients without those by time constants."""
    ensemble, batch, inputs, copies = given.times.shape
    outputs, most, events = given.weight.shape[1], given.max_spikes, inputs * copies
    dtype, tiles = given.times.dtype, -(-outputs // TILE)
    grad, trains, weight, threshold, reset = (
        x.contiguous() for x in (grads.trains, result.trains, given.weight, given.threshold, given.reset)
    )
    saved, overflows = [x.contiguous() for x in result.saved], result.overflows.to(torch.uint8)

    def memory(wanted: bool, *shape: int) -> Tensor:
        return torch.empty(shape if wanted else (0,), dtype=dtype)

    asks_end = grads.state is not None
    of_end = memory(asks_end, ensemble, 2, batch, outputs)
    if grads.state is not None:
        of_end[:, 0], of_end[:, 1] = grads.state.voltage, grads.state.current
    by_weight = memory(needs.weight, *weight.shape)
    by_times = memory(needs.times, *given.times.shape)
    by_threshold = memory(True, *threshold.shape)
    by_start = memory(given.state is not None, ensemble, 2, batch, outputs)
    groups = min(tiles, MAX_GROUPS) if needs.times else tiles
    chunks = 1 if is_small(work_of(batch, events, outputs)) else chunks_of(batch, groups)
    size, stride = grad.element_size(), -(-(events + 2) // 16) * 16 + PAD
    _c, c_address = constants_array(*given.constants, name_of(dtype), max_weight_grad)
    window = torch.tensor([given.start, given.until], dtype=dtype)
    working = scratch(
        ensemble * tiles * (inputs + 1) * TILE * size,
        ensemble * batch * N_BACKWARD * stride * size,
        ensemble * batch * stride * size,
        ensemble * batch * (events + 2) * 4,
        ensemble * batch * 4,
        ensemble * outputs * size,
        ensemble * chunks * tiles * (inputs + 1) * TILE * size if needs.weight else 0,
        ensemble * groups * batch * stride * size if needs.times else 0,
        ensemble * chunks * outputs * size,
    )
    blocks = -(-batch // SAMPLES)
    run(
        train_backward_kernel(name_of(dtype), outputs <= NARROW),
        (ensemble * (tiles + blocks), ensemble * groups * chunks, ensemble * (tiles + (blocks if needs.times else 0))),
        (
            ensemble, batch, inputs, copies, outputs, most, groups, chunks, needs.weight, needs.times, asks_end,
            c_address, window.data_ptr(), *(x.data_ptr() for x in (grad, of_end, trains, overflows)),
            *(x.data_ptr() for x in (weight, threshold, reset, *saved)), *working,
            *(x.data_ptr() for x in (by_weight, by_times, by_threshold, by_start)),
        ),
        threads_for(work_of(ensemble * batch, events, outputs)),
    )  # fmt: skip
    state = None
    if given.state is not None:
        state = Held(by_start[:, 0], by_start[:, 1], torch.zeros_like(by_start[:, 0]))
    return Gradients(
        times=by_times if needs.times else None,
        weight=by_weight if needs.weight else None,
        threshold=by_threshold if needs.threshold else None,
        state=state,
    )
