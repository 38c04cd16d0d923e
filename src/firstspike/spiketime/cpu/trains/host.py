"""Spike trains: both passes from tensors. What the kernels do not know, plain torch does; see ``kernels_know``."""

import math
from operator import itemgetter

import torch
from torch import Tensor

from firstspike.spiketime.backend import each_tensor
from firstspike.spiketime.cpu.constants import N_CONSTANTS, constants_array
from firstspike.spiketime.cpu.crossing import NARROW, TILE
from firstspike.spiketime.cpu.host import MAX_GROUPS, chunks_of
from firstspike.spiketime.cpu.per_neuron.host import name_of
from firstspike.spiketime.cpu.rows import N_BACKWARD, N_FORWARD, PAD
from firstspike.spiketime.cpu.runtime.parallel import is_small, run, threads_for, work_of
from firstspike.spiketime.cpu.trains.scan import TRAIN_FORWARD, train_forward_kernel
from firstspike.spiketime.cpu.trains.unwind import SAMPLES, TRAIN_BACKWARD, train_backward_kernel
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
    dtype, tiles = times.dtype, -(-outputs // TILE)
    threads = threads_for(work_of(ensemble * batch, inputs * copies, outputs))
    sizes = _sizes(times, weight, most, N_FORWARD, threads=threads, taken=0, states=4)
    row = N_FORWARD * sizes["stride"] * times.element_size()
    sizes["block"] = block = max(1, min(_MAX_BLOCK, -(-batch // (2 * threads)), _ROWS_AT_ONCE // row))
    held = torch.zeros((ensemble, 4, batch, outputs), dtype=dtype)
    if given.state is not None:
        held[:, 0], held[:, 1] = given.state.voltage, given.state.current

    def memory(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.empty((ensemble, batch, *shape), dtype=dtype)

    order, source = (memory(sizes["marks"], dtype=torch.int32) for _ in range(2))
    arrival, count = memory(sizes["padded"]), memory(dtype=torch.int32)
    trains, slopes, overflows = memory(outputs, most), memory(outputs, most), memory(outputs, dtype=torch.uint8)
    found, places = (memory(tiles, most * TILE, dtype=torch.int32) for _ in range(2))
    totals, counts = memory(tiles, dtype=torch.int32), memory(outputs, dtype=torch.int32)
    _c, c = constants_array(*given.constants, name_of(dtype))
    window = torch.tensor([given.start, given.until], dtype=dtype)
    numbers = TRAIN_FORWARD.fill(name_of(dtype), sizes, {
        "c": c, "window": window, "times": times, "weight": weight,
        "threshold": threshold, "reset": reset, "held": held, "order": order, "source": source, "arrival": arrival,
        "count": count, "trains": trains, "slopes": slopes, "counts": counts, "overflows": overflows, "found": found,
        "places": places, "totals": totals,
    })  # fmt: skip
    phases = ensemble * tiles, ensemble * -(-batch // block)
    run(train_forward_kernel(name_of(dtype), outputs <= NARROW), phases, numbers, threads)
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
    outputs, dtype, tiles = given.weight.shape[1], given.times.dtype, -(-given.weight.shape[1] // TILE)
    grad, trains, weight, threshold, reset = (
        x.contiguous() for x in (grads.trains, result.trains, given.weight, given.threshold, given.reset)
    )
    order, source, arrival, count, slopes, counts, found, places, totals = (x.contiguous() for x in result.saved)
    window = torch.tensor([given.start, given.until], dtype=dtype)
    groups = min(tiles, MAX_GROUPS) if needs.times else tiles
    chunks = 1 if is_small(work_of(batch, inputs * copies, outputs)) else chunks_of(batch, groups)
    sizes = _sizes(
        given.times, weight, given.max_spikes, N_BACKWARD, groups=groups, chunks=chunks, states=2,
        wants_weight=needs.weight, wants_times=needs.times, asks_end=grads.state is not None,
        all_spikes=grad[0].numel(),
    )  # fmt: skip
    by_weight = torch.empty_like(weight) if needs.weight else None
    by_times = torch.empty(given.times.shape, dtype=dtype) if needs.times else None
    by_threshold, ends = torch.empty_like(threshold), (ensemble, 2, batch, outputs)
    by_start = None if given.state is None else torch.empty(ends, dtype=dtype)
    of_end = None if grads.state is None else torch.stack(grads.state[:2], 1).contiguous()
    _c, c = constants_array(*given.constants, name_of(dtype), max_weight_grad)
    arrays: dict[str, Tensor | int] = {
        "c": c, "window": window, "grad": grad, "trains": trains, "overflows": result.overflows.to(torch.uint8),
        "weight": weight, "threshold": threshold, "reset": reset, "order": order, "source": source, "arrival": arrival,
        "count": count, "slopes": slopes, "counts": counts, "found": found, "places": places, "totals": totals,
        "by_threshold": by_threshold,
    }  # fmt: skip
    optional = {"by_weight": by_weight, "by_times": by_times, "by_start": by_start, "of_end": of_end}
    arrays |= {name: 0 if x is None else x for name, x in optional.items()}
    arrays |= {} if needs.weight else {"weight_parts": 0}
    arrays |= {} if needs.times else {"times_parts": 0}
    blocks = -(-batch // SAMPLES)
    phases = (
        ensemble * (tiles + blocks),
        ensemble * groups * chunks,
        ensemble * (tiles + (blocks if needs.times else 0)),
    )
    numbers = TRAIN_BACKWARD.fill(name_of(dtype), sizes, arrays)
    threads = threads_for(work_of(ensemble * batch, inputs * copies, outputs))
    run(train_backward_kernel(name_of(dtype), outputs <= NARROW), phases, numbers, threads)
    state = None if by_start is None else Held(by_start[:, 0], by_start[:, 1], torch.zeros_like(by_start[:, 0]))
    return Gradients(by_times, by_weight, by_threshold if needs.threshold else None, state=state)


def _sizes(times: Tensor, weight: Tensor, most: int, rows: int, **others: int) -> dict[str, int]:
    """Those of both kernels, and others."""
    ensemble, batch, inputs, copies = times.shape
    outputs, marks = weight.shape[1], inputs * copies + 2
    return {
        "ensemble": ensemble, "batch": batch, "inputs": inputs, "copies": copies, "outputs": outputs, "most": most,
        "tiles": -(-outputs // TILE), "packed_size": (inputs + 1) * TILE, "events": inputs * copies, "marks": marks,
        "padded": marks + PAD, "stride": -(-marks // 16) * 16 + PAD, "row_kinds": rows, "constants": N_CONSTANTS + 1,
        "places_size": most * TILE, "ends_of_window": 2, **others,
    }  # fmt: skip
