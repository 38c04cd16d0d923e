"""Host side of neurons with synaptic delays or their own time constants, and of time constants' gradients."""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from firstspike.spiketime.contract import Arguments, Gradients, Grads, Held, Needs, Result, Sizes, empty_gradients
from firstspike.spiketime.cpu.arrays import LANES, PAD, SAVED, STATES, held_for, numbers, saved_for, saved_size
from firstspike.spiketime.cpu.lanes.carried import N_ADJOINT
from firstspike.spiketime.cpu.lanes.kernels import BACKWARD, FORWARD, SAMPLES, backward_kernel, forward_kernel
from firstspike.spiketime.cpu.lanes.windows import BLOCK
from firstspike.spiketime.cpu.runtime.kernels import REFUSED
from firstspike.spiketime.cpu.runtime.parallel import Call, call, name_of
from firstspike.spiketime.cpu.sort import sorting_for
from firstspike.spiketime.cpu.vectors.shuffles import rows_for
from firstspike.spiketime.shared import threads_for
from firstspike.spiketime.values import check_values

PARTS, CHUNKS = 8, 4  # into which the sums over neurons and over samples are cut
_COST = 4  # of a synapse, in units of one of the usual kernels. Trains cost twice as much
_NEEDS = Needs(Arguments._fields).difference(Held._fields)  # gradients with respect to states are one array
_VALUES = "mem", "syn", "bounds", "times", "weight", "threshold", "delay"  # what both passes are given
_ROOM = 8  # spikes of a neuron, on average, that may arrive in a window, and beyond those asked for. More are tried
_OF_TRAINS = "slopes", "again", "counts", "full", "order", "source", "count", "arrival", "sent", "sent_at"
SENT = _OF_TRAINS.index("sent")


class _Kind(NamedTuple):
    """The kind for which a kernel is compiled."""

    real: str
    delayed: bool
    several: bool


def forward_lanes(given: Arguments, holds: bool = False) -> Result:
    """First spikes or trains, with ``holds`` if these have refractory times.

    First spikes save the arrays of ``arrays``, with delays the slopes alone, and raise the errors of ``check_values``.
    Trains save the slopes at spikes and at releases, the sorted inputs, and in recurrent layers the spikes in order.
    """
    if not given.max_spikes:
        outputs = given.sizes[-1]
        spikes, saved = given.times.new_empty((*given.times.shape[:-1], outputs)), saved_for(given.times, outputs)
        left = _first_call(*_settings(given))(*_values(given), spikes, *saved)
        if left[REFUSED]:
            check_values(given)
        return Result(spikes, saved)
    bounds, _, budget = given.windows
    most = given.max_spikes
    if given.recurrence is not None and given.observed is None:
        most = max(most, (len(bounds) - 1) * budget)
    room, waiting = min(given.max_spikes + _ROOM, most), _ROOM
    while True:
        found, lacks = _forward_trains(given, holds, room, waiting)
        if not lacks:
            return found
        room, waiting = min(2 * room, most), 2 * waiting


@lru_cache(maxsize=256)
def _first_call(kind: _Kind, shape: Sizes, taus: int, threads: int) -> Call:
    """The call for first spikes of that many samples."""
    sizes = _sizes(kind, shape, taus, threads)
    phases = _add_scan(sizes, kind.delayed, not kind.delayed)
    return Call(forward_kernel(*kind), phases, FORWARD.plan(kind.real, sizes, (*_VALUES, "spikes", *SAVED)), threads)


def _forward_trains(given: Arguments, holds: bool, room: int, waiting: int) -> tuple[Result, bool]:
    """The result, and whether there was too little room for it."""
    sizes, arrays = _of_trains(given, room)
    delayed, recurrent, dues = given.delay is not None, given.recurrence is not None, sizes["inside"] + PAD
    presorted = recurrent or not delayed
    sizes |= {"padded": dues if presorted else 0, "releases": holds * (room + 1)}
    sizes["dues"] = dues + (sizes["outputs"] * waiting if recurrent else 0)
    sizes["listed"] = LANES * (sizes["dues"] + 3 * PAD) * (recurrent and delayed)
    phases = _add_scan(sizes, delayed, presorted)
    arrays |= FORWARD.tensors((*_OF_TRAINS, "spikes", "overflows", "lacks"), given.times, sizes)
    for name in ("overflows", "lacks", "sent_at"):
        arrays[name].zero_()
    arrays["spikes"].fill_(math.inf)
    if given.observed is not None:
        arrays["spikes"].copy_(given.observed.flatten(0, 1))
    call(forward_kernel(*_kind(given)), FORWARD, phases, sizes, arrays)
    state = None if given.until == math.inf else Held(*arrays["held"][:, :, STATES:].unbind(2))
    each = {name: arrays[name].unflatten(0, given.times.shape[:2]) for name in (*_OF_TRAINS, "spikes", "overflows")}
    saved = tuple(each[name] for name in (*_OF_TRAINS, *(["spikes"] if recurrent else [])))
    spikes = each["spikes"][..., : given.max_spikes].contiguous() if recurrent else each["spikes"]
    return Result(spikes, saved, each["overflows"].bool(), state), bool(arrays["lacks"].any())


def backward_lanes(
    grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
) -> Gradients:
    """The gradients, also of neurons that share their time constants."""
    found, by_taus = empty_gradients(given, _NEEDS), not needs.isdisjoint(("tau_mem", "tau_syn"))
    by, bound = {f"by_{name}": x for name, x in found.items()}, numbers(given.times.dtype, max_weight_grad or math.inf)
    if not given.max_spikes:
        saved = result.saved or saved_for(given.times, given.sizes[-1])
        before = (x.contiguous() for x in (result.spikes, *saved, grads.spikes))
        run = _first_backward_call(*_settings(given), not result.saved, by_taus, tuple(by))
        run(*_values(given), *before, bound, *by.values())
        return found
    kept = {"spikes": result.spikes} | dict(zip((*_OF_TRAINS, "spikes"), result.saved, strict=False))
    sizes, arrays = _of_trains(given, kept["spikes"].shape[-1])
    releases, sendings, pieces = kept["again"].shape[-1], kept["sent"].shape[-1], 0
    if given.delay is not None:
        most = min(sizes["budget"], int(kept["counts"].max()))
        pieces = ((1 + (releases > 0)) * most + 2) * min(BLOCK, sizes["windows"])
    sizes |= {
        "releases": releases, "padded": kept["arrival"].shape[-1], "sendings": sendings,
        "dues": sizes["inside"] + sendings + PAD, "asks_end": grads.state is not None,
    }  # fmt: skip
    phases = _add_parts(sizes, 1 if given.recurrence is not None else PARTS, pieces, by_taus)
    arrays |= kept | by | {"overflows": result.overflows.to(torch.uint8), "grad": grads.spikes, "bound": bound}
    if grads.state is not None:
        arrays["of_end"] = torch.stack(tuple(grads.state), 2)
    if given.state is not None:
        arrays["by_start"] = torch.empty_like(torch.stack(tuple(given.state), 2))
    call(backward_kernel(*_kind(given)), BACKWARD, phases, sizes, arrays)
    return found if given.state is None else found | dict(zip(Held._fields, arrays["by_start"].unbind(2), strict=True))


@lru_cache(maxsize=256)
def _first_backward_call(
    kind: _Kind, shape: Sizes, taus: int, threads: int, observes: bool, by_taus: bool, by: tuple[str, ...]
) -> Call:
    """The call for the gradients, named ``by``, at first spikes of that many samples."""
    sizes = _sizes(kind, shape, taus, threads) | {"observes": observes, "asks_end": False}
    sizes["grown"] = 0 if by_taus else sizes["delay_inputs"]
    phases = _add_parts(sizes, PARTS, 0, by_taus, observes and not kind.delayed)
    plan = BACKWARD.plan(kind.real, sizes, (*_VALUES, "spikes", *SAVED, "grad", "bound", *by))
    return Call(backward_kernel(*kind), phases, plan, threads)


def _add_scan(sizes: dict[str, int], delayed: bool, presorted: bool) -> tuple[int, ...]:
    """Add the sizes of a forward pass. Returns its phases."""
    sizes |= sorting_for(max(sizes["events"], sizes["dues"]))
    sizes["sorted"] = rows_for.py_func(sizes["dues"]) * LANES if delayed else 1
    tasks = sizes["ensemble"] * -(-sizes["batch"] // sizes["block"]) * sizes["tasks"]
    return sizes["all_groups"] + sizes["blocks"] * presorted, tasks


def _add_parts(sizes: dict[str, int], most: int, pieces: int, by_taus: bool, sorts: bool = False) -> tuple[int, ...]:
    """Add the sizes of a backward pass that divides the neurons into at most ``most`` parts. Returns its phases."""
    parts, chunks = min(most, sizes["groups"]), min(CHUNKS, sizes["batch"])
    sizes |= {
        "parts": parts, "chunks": chunks, "lanes": sizes["groups"] * LANES, "by_taus": by_taus,
        "stride": -(-(sizes["events"] + sizes["sendings"]) // 16) * 16, "pieces_size": pieces * N_ADJOINT,
        "sorted": 1, **sorting_for(max(sizes["events"], sizes["dues"])),
    }  # fmt: skip
    groups, blocks = sizes["all_groups"], sizes["blocks"]
    return groups + blocks * sorts, sizes["ensemble"] * parts * chunks, groups + blocks


def _kind(given: Arguments) -> _Kind:
    return _Kind(name_of(given.times.dtype), given.delay is not None, given.max_spikes > 0)


def _settings(given: Arguments) -> tuple[_Kind, Sizes, int, int]:
    """What the sizes of a call follow from: its kind and shape, the number of time constants, and the threads."""
    taus = given.tau_mem.numel() if isinstance(given.tau_mem, torch.Tensor) else 1
    work = (2 if given.max_spikes else 1) * _COST * given.times.numel() * given.sizes[-1]
    return _kind(given), given.sizes, taus, threads_for(work)


def _values(given: Arguments) -> tuple[torch.Tensor | None, ...]:
    """The arrays of both passes."""
    dtype = given.times.dtype
    mem, syn = (numbers(dtype, x) if isinstance(x, (int, float)) else x for x in given.constants)
    bounds = numbers(dtype, *given.windows.bounds)
    values = mem, syn, bounds, given.times, given.weight, given.threshold, given.delay
    return tuple(x if x is None else x.contiguous() for x in values)


def _sizes(kind: _Kind, shape: Sizes, taus: int, threads: int) -> dict[str, int]:
    """Sizes of both passes, those of first spikes where trains differ."""
    ensemble, batch, inputs, outputs = shape
    groups = -(-outputs // LANES)
    return {
        "ensemble": ensemble, "batch": batch, "samples": ensemble * batch, "inputs": inputs, "outputs": outputs,
        "copies": 1, "events": inputs, "inside": inputs, "padded": 0, "most": 1, "room": 1, "budget": 1, "releases": 0,
        "observes": False, "taus": taus, "groups": groups, "all_groups": ensemble * groups,
        "threads": threads, "blocks": -(-ensemble * batch // SAMPLES), "group_inputs": inputs * LANES,
        "delay_inputs": inputs * LANES if kind.delayed else 0, "n_saved": saved_size(inputs, outputs), "windows": 1,
        "bounds_size": 2, "sendings": 0, "tasks": groups, "kept": threads, "block": SAMPLES, "dues": inputs + PAD,
        "listed": 0, "grown": 0,
    }  # fmt: skip


def _of_trains(given: Arguments, room: int) -> tuple[dict[str, int], dict[str, Any]]:
    """The sizes and arrays of both passes. States at the start are copied, and have room for those at the end."""
    arrays: dict[str, Any] = dict(zip(_VALUES, _values(given), strict=True))
    sizes, (bounds, lag, budget) = _sizes(*_settings(given)), given.windows
    batch, outputs, threads = sizes["batch"], sizes["outputs"], sizes["threads"]
    sizes |= {
        "copies": given.times.shape[-1], "events": given.times[0, 0].numel(), "most": given.max_spikes, "room": room,
        "inside": int((given.times < math.inf).sum((-1, -2)).max()), "budget": budget, "windows": len(bounds) - 1,
        "bounds_size": len(bounds), "observes": given.observed is not None,
    }  # fmt: skip
    if given.recurrence is not None:
        block = min(SAMPLES, -(-batch // (2 * threads)))
        sizes |= {"sendings": outputs * room, "tasks": 1, "kept": threads * sizes["groups"], "block": block}
        parts = () if given.delay is None else (given.delay[..., : given.times.shape[2]], given.delay[..., -outputs:])
        longest = [float(x.max()) if x.numel() else 0.0 for x in parts] or (0.0, lag)
        arrays["reach"] = numbers(given.times.dtype, *longest)
    arrays |= {"reset": given.reset, "refractory": given.refractory, "held": held_for(given)}
    return sizes, arrays
