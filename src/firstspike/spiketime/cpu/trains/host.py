"""Spike trains: both passes from tensors, and which kernels do what.

Where all neurons share the order of arrival and the time constants, the kernels of ``rows`` do the work.
The rest, and gradients by time constants, are in ``lanes``.
"""

import math
from operator import itemgetter

import torch
from torch import Tensor

from firstspike.spiketime import reference
from firstspike.spiketime.contract import Arguments, Backward, Gradients, Grads, Held, Needs, Result, each_tensor
from firstspike.spiketime.cpu.constants import N_CONSTANTS, constants_array
from firstspike.spiketime.cpu.host import MAX_GROUPS, chunks_of
from firstspike.spiketime.cpu.lanes.host import PARTS, backward_lanes, forward_lanes
from firstspike.spiketime.cpu.pack import TILE, lanes_for
from firstspike.spiketime.cpu.rows import train_adjoint
from firstspike.spiketime.cpu.rows.backward import CARRIED, SAMPLES, TRAIN_BACKWARD, train_backward_kernel
from firstspike.spiketime.cpu.rows.coefficients import N_BACKWARD, N_FORWARD
from firstspike.spiketime.cpu.rows.forward import TRAIN_FORWARD, train_forward_kernel
from firstspike.spiketime.cpu.rows.intervals import N_LANES
from firstspike.spiketime.cpu.rows.train_adjoint import N_SPIKES
from firstspike.spiketime.cpu.rows.windows import STATES
from firstspike.spiketime.cpu.runtime.parallel import Call, is_small, name_of, threads_for, work_of
from firstspike.spiketime.cpu.saved import PAD
from firstspike.spiketime.values import check_memory

_ROWS_AT_ONCE = 1 << 18  # bytes of a task's samples beside a tile of weights
_MAX_BLOCK = 32
_MEMORY = 1 << 27  # bytes of a backward pass beside its results
_SAVED = (
    "order", "source", "arrival", "starts", "count", "found", "places", "moments", "slopes", "upto", "full", "counts",
    "held", "holds",
)  # fmt: skip


def _shares(given: Arguments) -> bool:
    """Whether neurons share their order of arrival and their time constants."""
    return given.delay is None and not isinstance(given.constants.tau_mem, Tensor)


def _holds(given: Arguments) -> bool:
    """Whether membranes do something between two inputs that does not follow from themselves."""
    started = given.state is not None and bool((given.state.refractory > 0).any())
    return started or given.observed is not None or bool((given.refractory > 0).any())


def forward(given: Arguments) -> Result:
    """Spike trains. See ``contract`` for the contract."""
    if 0 in given.times.shape or 0 in given.weight.shape:
        return reference.forward(given)
    holds = _holds(given)
    if not _shares(given):
        return forward_lanes(given, holds)
    windows, budget = 1 if given.windows is None else len(given.windows.bounds) - 1, _budget(given)
    a_window = 2 * budget + 1 if holds else budget
    entries, waiting = (2 if holds else 1) * given.max_spikes + a_window, 2 * budget
    while True:
        entries, waiting = min(entries, windows * a_window), min(waiting, windows * budget)
        found, lacks = _forward(given, holds, entries, waiting)
        if not lacks:
            return found
        assert entries < windows * a_window or waiting < windows * budget, "there is room for all spikes"
        entries, waiting = 2 * entries, 2 * waiting


def _forward(given: Arguments, holds: bool, entries: int, waiting: int) -> tuple[Result, bool]:
    """The result, and whether there was too little room for it.

    Args:
        given: by the caller.
        holds: whether there are refractory times or observed spikes.
        entries: spikes and releases of a neuron, on average, that there is room for.
        waiting: spikes of a neuron, on average, that may be on their way to others.
    """
    ensemble, batch, inputs, copies = given.times.shape
    outputs, dtype = given.weight.shape[1], given.times.dtype
    times, weight, threshold, reset, refractory = (
        x.contiguous() for x in (given.times, given.weight, given.threshold, given.reset, given.refractory)
    )
    threads = threads_for(work_of(ensemble * batch, inputs * copies, outputs))
    sizes = _sizes(
        given, entries * min(outputs, TILE), N_FORWARD, holds, threads=threads, two=2, state_rows=N_LANES,
        counted=2 * TILE + 2,
    )  # fmt: skip
    own = 0 if given.windows is None else outputs * waiting
    sizes["room"] = _room(sizes) + (0 if own == 0 else outputs * entries)
    sizes |= {"waiting": max(own, 1), "carried_lanes": sizes["tiles"] * TILE}
    sizes["stride"] = -(-(inputs * copies + own + 2) // 16) * 16 + PAD
    sizes["seen"] = 0 if given.observed is None else given.max_spikes
    row = N_FORWARD * (sizes["stride"] // min(sizes["windows"], 8)) * times.element_size()
    sizes["block"] = block = max(1, min(_MAX_BLOCK, -(-batch // (2 * threads)), _ROWS_AT_ONCE // row))
    held = torch.zeros((ensemble, batch, 2 * STATES, outputs), dtype=dtype, device="cpu")
    if given.state is not None:
        for number, x in enumerate(given.state):
            held[:, :, number] = x

    def memory(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.empty((ensemble, batch, *shape), dtype=dtype, device="cpu")

    tiles, room, windows, most, entries = (sizes[x] for x in ("tiles", "room", "windows", "most", "entries"))
    _check_room(given, sizes)
    saved = {name: memory(room, dtype=torch.int32) for name in ("order", "source")} | {"arrival": memory(room)}
    saved |= {"starts": memory(windows + 1, dtype=torch.int32), "count": memory(windows, dtype=torch.int32)}
    saved |= {name: memory(tiles, entries, dtype=torch.int32) for name in ("found", "places")}
    saved |= {name: memory(tiles, entries) for name in ("moments", "slopes")}
    saved |= {"upto": memory(tiles, windows + 1, dtype=torch.int32), "full": memory(tiles, windows, dtype=torch.int64)}
    saved |= {"counts": memory(outputs, dtype=torch.int32)}
    trains, overflows = memory(outputs, most), memory(outputs, dtype=torch.uint8)
    lacks = memory(dtype=torch.int32)
    c = constants_array(*given.constants, name_of(dtype))
    lags = torch.tensor([0.0 if given.windows is None else given.windows.lag, 0.0], dtype=dtype, device="cpu")
    bounds, observed = _bounds(given), None if given.observed is None else given.observed.contiguous()
    arrays = {
        "c": c, "bounds": bounds, "lags": lags, "times": times, "weight": weight, "threshold": threshold,
        "reset": reset, "refractory": refractory, "held": held, "trains": trains, "overflows": overflows,
        "observed": observed, "lacks": lacks, **saved,
    }  # fmt: skip
    phases = ensemble * tiles, ensemble * -(-batch // block)
    plan = TRAIN_FORWARD.plan(name_of(dtype), sizes, arrays)
    Call(train_forward_kernel(name_of(dtype), lanes_for(outputs)), phases, plan, threads)(*arrays.values())
    used = int(saved["starts"][..., -1].max()) if windows > 1 or copies > 1 else room
    if used < room // 2:
        saved |= {name: saved[name][..., :used].contiguous() for name in ("order", "source", "arrival")}
    state = None if given.until == math.inf else Held(held[:, :, 3], held[:, :, 4], held[:, :, 5])
    saved |= {"held": held, "holds": torch.full_like(lacks, holds)}
    return Result(trains, tuple(saved.values()), overflows.bool(), state), bool(lacks.any())


def backward(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """Gradients at the given trains. See ``contract`` for the contract."""
    if not result.saved:
        if given.windows is not None:  # no samples, or no spikes: also none of the neurons' own
            return _zeros(given, needs)
        return reference.backward(grads, result, given, max_weight_grad, needs)
    if _shares(given) and not (needs.tau_mem or needs.tau_syn):
        numbers = (N_BACKWARD + 1 + MAX_GROUPS) * (result.saved[0].shape[-1] + 2 * PAD)
        return _in_parts(_backward, numbers, grads, result, given, max_weight_grad, needs)
    if _shares(given):  # what its kernels save is not what the others need
        again = forward_lanes(given._replace(observed=result.spikes), _holds(given))
        result = result._replace(saved=again.saved)
    numbers = PARTS * given.times[0, 0].numel()
    return _in_parts(backward_lanes, numbers, grads, result, given, max_weight_grad, needs)


def _zeros(given: Arguments, needs: Needs) -> Gradients:
    """Gradients of what depends on nothing."""
    like = given.times, given.weight, given.threshold
    times, weight, threshold = (torch.zeros_like(x) if need else None for x, need in zip(like, needs[:3], strict=True))
    return Gradients(times, weight, threshold, state=given.state and Held(*map(torch.zeros_like, given.state)))


def _in_parts(
    whole: Backward,
    numbers: int,
    grads: Grads,
    result: Result,
    given: Arguments,
    max_weight_grad: float | None,
    needs: Needs,
) -> Gradients:
    """``whole``, in parts of the batch where all samples together, ``numbers`` numbers each, need much memory."""
    ensemble, batch = given.times.shape[:2]
    samples = max(1, _MEMORY // (ensemble * numbers * given.times.element_size()))
    if batch <= samples:
        return whole(grads, result, given, max_weight_grad, needs)
    parts = []
    for begin in range(0, batch, samples):
        some = itemgetter((slice(None), slice(begin, begin + samples)))
        own = given._replace(times=some(given.times), state=each_tensor(some, given.state))
        parts.append(whole(*each_tensor(some, (grads, result)), own, max_weight_grad, needs))

    def joined(name: str) -> Tensor | None:
        tensors = [x for x in (getattr(part, name) for part in parts) if x is not None]
        if not tensors:
            return None
        return torch.cat(tensors, 1) if name == "times" else torch.stack(tensors).sum(0)

    states = [part.state for part in parts if part.state is not None]
    state = Held(*(torch.cat(x, 1) for x in zip(*states, strict=True))) if states else None
    times, weight, threshold, delay, mem, syn = (joined(name) for name in Gradients._fields[:6])
    return Gradients(times, weight, threshold, delay, mem, syn, state)


def _backward(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """Gradients without those by time constants."""
    ensemble, batch, inputs, copies = given.times.shape
    outputs, dtype, tiles = given.weight.shape[1], given.times.dtype, -(-given.weight.shape[1] // TILE)
    grad, weight, threshold, reset = (
        x.contiguous() for x in (grads.spikes, given.weight, given.threshold, given.reset)
    )
    saved = {name: x.contiguous() for name, x in zip(_SAVED, result.saved, strict=True)}
    recurrent, entries = given.windows is not None, saved["found"].shape[-1]
    groups = 1 if recurrent else min(tiles, MAX_GROUPS) if needs.times else tiles
    chunks = 1 if is_small(work_of(batch, inputs * copies, outputs)) else chunks_of(batch, groups)
    room, threads = saved["order"].shape[-1], threads_for(work_of(ensemble * batch, inputs * copies, outputs))
    sizes = _sizes(
        given, entries, N_BACKWARD, bool(saved.pop("holds")[0, 0]), groups=groups, chunks=chunks, room=room,
        wants_weight=needs.weight, wants_times=needs.times or recurrent, wants_threshold=True,
        asks_end=grads.state is not None,
        all_rows=N_BACKWARD * room, own_entries=entries if recurrent else 0, carried_kinds=CARRIED,
        carried_lanes=tiles * TILE, threads=threads, state_rows=train_adjoint.N_LANES, summed=256, spike_kinds=N_SPIKES,
    )  # fmt: skip
    sizes["slots"] = ((2 * sizes["budget"] + 1) if sizes["holds"] else sizes["budget"]) * TILE
    by_weight = torch.empty_like(weight) if needs.weight else None
    by_times = torch.empty(given.times.shape, dtype=dtype, device="cpu") if needs.times else None
    by_threshold, ends = torch.empty_like(threshold), (ensemble, batch, STATES, outputs)
    by_start = None if given.state is None else torch.empty(ends, dtype=dtype, device="cpu")
    of_end = None if grads.state is None else torch.stack(tuple(grads.state), 2).contiguous()
    c, bounds = constants_array(*given.constants, name_of(dtype), max_weight_grad), _bounds(given)
    arrays: dict[str, Tensor | None] = {
        "c": c, "bounds": bounds, "grad": grad,
        "weight": weight, "threshold": threshold, "reset": reset, "by_threshold": by_threshold, **saved,
    }  # fmt: skip
    arrays |= {"by_weight": by_weight, "by_times": by_times, "by_start": by_start, "of_end": of_end}
    arrays |= {} if needs.weight else {"weight_parts": None}
    arrays |= {} if sizes["wants_times"] else {"times_parts": None}
    blocks = -(-batch // SAMPLES)
    phases = (
        ensemble * (tiles + blocks),
        ensemble * groups * chunks,
        ensemble * (tiles + (blocks if needs.times else 0)),
    )
    plan = TRAIN_BACKWARD.plan(name_of(dtype), sizes, arrays)
    Call(train_backward_kernel(name_of(dtype), lanes_for(outputs)), phases, plan, threads)(*arrays.values())
    state = None if by_start is None else Held(*by_start.unbind(2))
    return Gradients(by_times, by_weight, by_threshold if needs.threshold else None, state=state)


def _budget(given: Arguments) -> int:
    """Most spikes of a neuron in a window."""
    return given.max_spikes if given.windows is None else given.windows.budget


def _bounds(given: Arguments) -> Tensor:
    """Start and end of each window."""
    bounds = (given.start, given.until) if given.windows is None else given.windows.bounds
    return torch.tensor(bounds, dtype=given.times.dtype, device="cpu")


def _room(sizes: dict[str, int]) -> int:
    """For the inputs of a sample: each window begins at a place of its own."""
    return sizes["events"] + sizes["windows"] * (2 + 15 + PAD)


def _check_room(given: Arguments, sizes: dict[str, int]) -> None:
    """Raise ValueError for more than the kernels can count, or than the machine has memory for."""
    real, samples, windows = given.times.element_size(), sizes["ensemble"] * sizes["batch"], sizes["windows"]
    events, spikes = sizes["room"], sizes["tiles"] * sizes["entries"]
    what = f"{samples} samples and {sizes['outputs']} neurons with max_spikes={given.max_spikes}"
    if given.windows is not None:
        what += f", window_spikes={sizes['budget']} and {windows} windows"
    if max(events, spikes) >= 1 << 31:
        raise ValueError(f"{what} make more events or spikes of a sample than kernels can count; lower these numbers")
    check_memory(
        samples * ((8 + real) * events + (8 + 2 * real) * spikes + (8 + 12 * sizes["tiles"]) * windows),
        f"the events and spikes of {what}",
    )


def _sizes(given: Arguments, entries: int, rows: int, holds: bool, **others: int) -> dict[str, int]:
    """Those of both kernels, and others."""
    ensemble, batch, inputs, copies = given.times.shape
    outputs, sources = given.weight.shape[1:]  # of recurrent neurons also their own spikes
    windows = 1 if given.windows is None else len(given.windows.bounds) - 1
    return {
        "ensemble": ensemble, "batch": batch, "inputs": sources, "copies": copies,
        "outputs": outputs, "most": given.max_spikes, "budget": _budget(given), "windows": windows,
        "tiles": -(-outputs // TILE), "packed_size": (sources + 1) * TILE, "events": inputs * copies,
        "row_kinds": rows, "constants": N_CONSTANTS + 1, "entries": entries, "bounds_size": windows + 1,
        "states": STATES, "both_states": 2 * STATES, "tile": TILE, "holds": int(holds), **others,
    }  # fmt: skip
