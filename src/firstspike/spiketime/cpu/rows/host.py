"""Calls kernels with tensors, where all neurons share the order of arrival and the time constants."""

import math
from functools import lru_cache
from typing import Any

import torch

from firstspike.spiketime.contract import Arguments, Gradients, Grads, Held, Needs, Result, Sizes, empty_gradients
from firstspike.spiketime.cpu.arrays import (
    PAD,
    SAVED,
    TILE,
    constants_array,
    lanes_for,
    numbers,
    padded,
    saved_for,
    saved_size,
    states,
)
from firstspike.spiketime.cpu.rows.backward import SAMPLES, backward_kernel
from firstspike.spiketime.cpu.rows.forward import forward_kernel
from firstspike.spiketime.cpu.rows.intervals import N_FORWARD
from firstspike.spiketime.cpu.rows.layouts import BACKWARD, FORWARD, KEPT, TRAIN_BACKWARD, TRAIN_FORWARD
from firstspike.spiketime.cpu.runtime.kernels import REFUSED
from firstspike.spiketime.cpu.runtime.parallel import Call, call, name_of
from firstspike.spiketime.cpu.sort import sorting_for
from firstspike.spiketime.shared import is_small, threads_for, work_of
from firstspike.spiketime.values import check_memory, check_values

_BLOCK = 600_000  # bytes of a block's rows, which fit into the second-level cache beside a tile of weights
_TRAIN_BLOCK, _MOST_SAMPLES = 1 << 18, 32  # the same where a block has all windows, and samples of one at most
MAX_GROUPS = 8  # parts into which gradients with respect to times are summed
_BY = "times", "weight", "threshold"  # what first spikes have gradients by, here
_FEW, _MANY = 8, 16  # tasks wanted for each network, and where they cost little
_SHORT, _LONG = 8, 96  # samples for which a task may, and should, have a part of the weights' gradient of its own


def forward_rows(given: Arguments) -> Result:
    """First spike times. The saved tensors are those of ``arrays``. Raises the errors of ``check_values``."""
    times, weight, threshold = given.times.contiguous(), given.weight.contiguous(), given.threshold.contiguous()
    ensemble, batch, inputs, outputs = sizes = given.sizes
    spikes, saved = times.new_empty((*times.shape[:-1], outputs)), saved_for(times, outputs)
    real, threads = name_of(times.dtype), threads_for(work_of(ensemble * batch, inputs, outputs))
    c, call = constants_array(given.tau_mem, given.tau_syn, real), _forward_call(sizes, real, threads)
    left = call(c, times, weight, threshold, spikes, *saved)
    if left[REFUSED]:
        check_values(given)
    return Result(spikes, saved)


@lru_cache(maxsize=256)
def _forward_call(sizes: Sizes, real: str, threads: int) -> Call:
    ensemble, batch, inputs, outputs = sizes
    found = _common(sizes, inputs, threads) | sorting_for(inputs)
    most = _BLOCK // (N_FORWARD * found["stride"] * (4 if real == "float32" else 8))
    found["block"] = block = max(1, min(most, -(-batch // (2 * threads))))
    plan = FORWARD.plan(real, found, ("c", "times", "weight", "threshold", "spikes", *SAVED))
    phases = ensemble * found["tiles"], ensemble * -(-batch // block)
    return Call(forward_kernel(real, lanes_for(outputs), False), phases, plan, threads)


def backward_rows(
    grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
) -> Gradients:
    """Gradients with respect to first spikes, without those by time constants."""
    tensors = grads.spikes, result.spikes, given.times, given.weight, given.threshold, *result.saved
    grad, spikes, times, weight, threshold, *saved = [x.contiguous() for x in tensors]
    ensemble, batch, inputs, outputs = sizes = given.sizes
    found = empty_gradients(given, needs & {"times", "weight"} | {"threshold"})
    real, threads = name_of(times.dtype), threads_for(work_of(ensemble * batch, inputs, outputs))
    c = constants_array(given.tau_mem, given.tau_syn, real, max_weight_grad)
    call = _backward_call(sizes, real, needs, not saved, threads)
    call(c, grad, spikes, times, weight, threshold, *(saved or saved_for(times, outputs)), *map(found.get, _BY))
    return found


@lru_cache(maxsize=256)
def _backward_call(sizes: Sizes, real: str, needs: Needs, observes: bool, threads: int) -> Call:
    inputs, outputs = sizes[2:]
    found = _common(sizes, inputs, threads) | sorting_for(inputs)
    phases = _add_parts(found, needs, False)
    found |= {"observes": observes, "room": found["stride"]}
    given = ("c", "grad", "spikes", "times", "weight", "threshold", *SAVED, "by_times", "by_weight", "by_threshold")
    return Call(backward_kernel(real, lanes_for(outputs), False), phases, BACKWARD.plan(real, found, given), threads)


def forward_trains(given: Arguments, holds: bool) -> Result:
    """Spike trains. ``holds`` says whether there are refractory times or observed spikes."""
    bounds, _, budget = given.windows
    windows, a_window = len(bounds) - 1, 2 * budget + 1 if holds else budget
    entries, waiting = (2 if holds else 1) * given.max_spikes + a_window, 2 * budget
    while True:
        entries, waiting = min(entries, windows * a_window), min(waiting, windows * budget)
        found, lacks = _forward_trains(given, holds, entries, waiting)
        if not lacks:
            return found
        assert entries < windows * a_window or waiting < windows * budget, "there is room for all spikes"
        entries, waiting = 2 * entries, 2 * waiting


def _forward_trains(given: Arguments, holds: bool, entries: int, waiting: int) -> tuple[Result, bool]:
    """The result, and whether there was too little room for it.

    There is room for so many ``entries`` of a neuron, on average, and so many spikes ``waiting`` to arrive at others.
    """
    (ensemble, batch, _, copies), outputs, real = given.times.shape, given.weight.shape[1], given.times.dtype
    own = 0 if given.recurrence is None else outputs * waiting
    sizes, arrays = _of_trains(given, holds, entries * outputs, own + 2, None)
    windows = sizes["windows"]
    row = N_FORWARD * (sizes["stride"] // min(windows, 8)) * real.itemsize
    sizes |= {
        # each window's inputs begin at its own place
        "room": sizes["events"] + windows * (2 + 15 + PAD) + (0 if own == 0 else outputs * entries),
        "block": max(1, min(_MOST_SAMPLES, -(-batch // (2 * sizes["threads"])), _TRAIN_BLOCK // row)),
        "waiting": max(own, 1), "seen": 0 if given.observed is None else given.max_spikes,
        **sorting_for(max(sizes["events"], own)),
    }  # fmt: skip
    _check_room(given, sizes)
    arrays |= {name: getattr(given, name) for name in ("times", "refractory", "observed")}
    arrays["lag"] = numbers(real, given.windows.lag)
    arrays |= TRAIN_FORWARD.tensors((*KEPT, *states("end_"), "trains", "overflows", "lacks"), given.times, sizes)
    phases = ensemble * sizes["tiles"], ensemble * -(-batch // sizes["block"])
    call(forward_kernel(name_of(real), lanes_for(outputs), True), TRAIN_FORWARD, phases, sizes, arrays)
    used = int(arrays["starts"][..., -1].max()) if windows > 1 or copies > 1 else sizes["room"]
    if used < sizes["room"] // 2:
        arrays |= {name: arrays[name][..., :used].contiguous() for name in ("order", "source", "arrival")}
    state = None if given.until == math.inf else Held(*map(arrays.__getitem__, states("end_")))
    # a copy, as autograd takes one tensor for one result
    saved = *(arrays[name] for name in KEPT), arrays["end_left"].clone(), torch.full_like(arrays["lacks"], holds)
    return Result(arrays["trains"], saved, arrays["overflows"].bool(), state), bool(arrays["lacks"].any())


def backward_trains(
    grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
) -> Gradients:
    """Gradients with respect to spike trains, without those by time constants."""
    kept, holds = dict(zip((*KEPT, "end_left"), result.saved, strict=False)), bool(result.saved[-1][0, 0])
    recurrent, entries, room = given.recurrence is not None, kept["found"].shape[-1], kept["order"].shape[-1]
    sizes, arrays = _of_trains(given, holds, entries, 0, max_weight_grad)
    phases = _add_parts(sizes, needs, recurrent)
    found = empty_gradients(given, needs & {"times", "weight"} | {"threshold", "reset", *Held._fields})
    sizes |= {
        "room": room, "asks_end": grads.state is not None,
        "asked_size": int(kept["upto"][..., -1].max()) + 16,
        "slots": (2 * sizes["budget"] + 1 if holds else sizes["budget"]) * TILE + 16,
    }  # fmt: skip
    arrays |= kept | {
        "grad": grads.spikes,
        **dict(zip(states("of_"), grads.state or (None,) * 3, strict=True)),
        **{f"by_{name}": found.get(name) for name in (*_BY, "reset", *Held._fields)},
    }
    kernel = backward_kernel(name_of(given.times.dtype), lanes_for(sizes["outputs"]), True)
    call(kernel, TRAIN_BACKWARD, phases, sizes, arrays)
    return found


def _common(sizes: Sizes, events: int, threads: int) -> dict[str, int]:
    """Sizes of all kernels. ``inputs`` are those that neurons have weights for."""
    ensemble, batch, inputs, outputs = sizes
    return {
        "ensemble": ensemble, "batch": batch, "inputs": inputs, "outputs": outputs, "events": events,
        "tiles": -(-outputs // TILE), "packed_size": inputs * TILE, "stride": padded.py_func(events), "windows": 1,
        "threads": threads, "n_saved": saved_size(inputs, outputs),
    }  # fmt: skip


def _add_parts(sizes: dict[str, int], needs: Needs, recurrent: bool) -> tuple[int, ...]:
    """Add into which parts the sums of a backward pass are cut, by the shapes alone. Returns its phases."""
    asked = "times" in needs
    ensemble, batch, tiles = sizes["ensemble"], sizes["batch"], sizes["tiles"]
    blocks = -(-batch // SAMPLES)
    groups = 1 if recurrent else min(tiles, MAX_GROUPS) if asked else tiles
    small = is_small(work_of(batch, sizes["events"], sizes["outputs"]))
    most = max(1, min(-(-_FEW // groups), batch // _SHORT), min(_MANY // groups, batch // _LONG))
    chunks = 1 if small else most
    sizes |= {
        "groups": groups, "chunks": chunks, "time_groups": groups if asked or recurrent else 0,
        "weight_chunks": chunks if "weight" in needs else 0,
    }  # fmt: skip
    return ensemble * (tiles + blocks), ensemble * groups * chunks, ensemble * (tiles + (blocks if asked else 0))


def _of_trains(
    given: Arguments, holds: bool, entries: int, more: int, bound: float | None
) -> tuple[dict[str, int], dict[str, Any]]:
    """Sizes and arrays, None for those not used, of both kernels. A window has at most ``more`` events than inputs."""
    (ensemble, batch, inputs, copies), (outputs, sources) = given.times.shape, given.weight.shape[1:]
    threads = threads_for(work_of(ensemble * batch, inputs * copies, outputs))
    sizes = _common((ensemble, batch, sources, outputs), inputs * copies, threads)
    bounds, _, budget = given.windows
    arrays: dict[str, Any] = {name: getattr(given, name) for name in ("weight", "threshold", "reset", *states(""))}
    arrays["c"] = constants_array(*given.constants, name_of(given.times.dtype), bound)
    arrays["bounds"] = torch.tensor(bounds, dtype=given.times.dtype, device="cpu")
    return sizes | {
        "packed_size": (sources + 1) * TILE, "stride": padded.py_func(inputs * copies + more), "copies": copies,
        "most": given.max_spikes, "budget": budget, "windows": len(bounds) - 1, "bounds_size": len(bounds),
        "parts_size": (len(bounds) - 1) * sizes["tiles"] + 1,
        "entries": entries, "carried_lanes": sizes["tiles"] * TILE, "holds": holds,
    }, arrays  # fmt: skip


def _check_room(given: Arguments, sizes: dict[str, int]) -> None:
    """Raise ValueError for more than the kernels can count, or than the machine has memory for."""
    real, samples, windows = given.times.element_size(), sizes["ensemble"] * sizes["batch"], sizes["windows"]
    events, spikes = sizes["room"], sizes["entries"]
    what = f"{samples} samples and {sizes['outputs']} neurons with max_spikes={given.max_spikes}"
    if given.recurrence is not None:
        what += f", window_spikes={sizes['budget']} and {windows} windows"
    if max(events, spikes) >= 1 << 31:
        raise ValueError(f"{what} make more events or spikes of a sample than kernels can count; lower these numbers")
    check_memory(
        samples * ((8 + real) * events + (8 + 3 * real) * spikes + (8 + 12 * sizes["tiles"]) * windows),
        f"the events and spikes of {what}",
    )
