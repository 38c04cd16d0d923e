"""Host side of neurons with synaptic delays or their own time constants, and of time constants' gradients."""

import math
from typing import Any, NamedTuple

import torch

from firstspike.spiketime.contract import Arguments, Gradients, Grads, Held, Needs, Recurrence, Result, empty_gradients
from firstspike.spiketime.cpu.arrays import LANES, PAD, SAVED, STATES, numbers, saved_for, saved_size
from firstspike.spiketime.cpu.lanes.carried import N_ADJOINT
from firstspike.spiketime.cpu.lanes.kernels import BACKWARD, FORWARD, SAMPLES, backward_kernel, forward_kernel
from firstspike.spiketime.cpu.lanes.windows import BLOCK
from firstspike.spiketime.cpu.runtime.parallel import call, name_of
from firstspike.spiketime.cpu.sort import sorting_for
from firstspike.spiketime.cpu.vectors.shuffles import rows_for
from firstspike.spiketime.shared import threads_for

PARTS, CHUNKS = 8, 4  # into which the sums over neurons and over samples are cut
_COST = 4  # of a synapse, in units of one of the usual kernels. Trains cost twice as much
_NEEDS = Needs(Arguments._fields).difference(Held._fields)  # gradients with respect to states are one array
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

    First spikes save the arrays of ``arrays``, with delays the slopes alone. Trains save the slopes at spikes and at
    releases, the sorted inputs, and in recurrent layers the spikes in order.
    """
    bounds, _, budget = _recurrence(given)
    most = given.max_spikes
    if given.recurrence is not None and given.observed is None:
        most = max(most, (len(bounds) - 1) * budget)
    room, waiting = min(given.max_spikes + _ROOM, most), _ROOM
    while True:
        found, lacks = _forward_lanes(given, holds, room, waiting)
        if not lacks:
            return found
        room, waiting = min(2 * room, most), 2 * waiting


def _forward_lanes(given: Arguments, holds: bool, room: int, waiting: int) -> tuple[Result, bool]:
    """The result, and whether there was too little room for it."""
    kind, sizes, arrays = _both(given, given.observed is not None, room)
    lead, outputs = given.times.shape[: given.weight.ndim - 1], sizes["outputs"]
    recurrent = given.recurrence is not None
    sizes |= {"dues": sizes["inside"] + (outputs * waiting if recurrent else 0) + PAD, "releases": holds * (room + 1)}
    sizes |= sorting_for(max(sizes["events"], sizes["dues"]))
    sizes |= {"listed": LANES * (sizes["dues"] + 3 * PAD) * (recurrent and kind.delayed)}
    sizes |= {"holds": holds, "sorted": rows_for.py_func(sizes["dues"]) * LANES if kind.delayed else 1}
    presorted, names = recurrent or not kind.delayed, _OF_TRAINS if kind.several else tuple(SAVED)
    if kind.several:
        sizes["padded"] = sizes["inside"] + PAD if presorted else 0
        arrays |= FORWARD.tensors((*names, "spikes", "overflows", "lacks"), given.times, sizes)
        for name in ("overflows", "lacks", "sent_at"):
            arrays[name].zero_()
        arrays["spikes"].fill_(math.inf)
        if given.observed is not None:
            arrays["spikes"].copy_(given.observed.flatten(0, 1))
    else:
        arrays["spikes"] = given.times.new_empty((*lead, outputs))
        arrays |= zip(names, saved_for(given.times, outputs), strict=True)
    tasks = sizes["ensemble"] * -(-sizes["batch"] // sizes["block"]) * sizes["tasks"]
    phases = sizes["all_groups"] + sizes["blocks"] * presorted, tasks
    call(forward_kernel(*kind), FORWARD, phases, sizes, arrays)
    if not kind.several:
        return Result(arrays["spikes"], tuple(arrays[name] for name in names)), False
    state = None if given.until == math.inf else Held(*arrays["held"][:, :, STATES:].unbind(2))
    each = {name: arrays[name].unflatten(0, lead) for name in (*names, "spikes", "overflows")}
    saved = tuple(each[name] for name in (*names, *(["spikes"] if recurrent else [])))
    spikes = each["spikes"][..., : given.max_spikes].contiguous() if recurrent else each["spikes"]
    return Result(spikes, saved, each["overflows"].bool(), state), bool(arrays["lacks"].any())


def backward_lanes(
    grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
) -> Gradients:
    """The gradients, also of neurons that share their time constants."""
    saved = result.saved or saved_for(given.times, given.weight.shape[-2])
    several, recurrent = given.max_spikes > 0, given.recurrence is not None
    kept = {"spikes": result.spikes} | dict(zip((*(_OF_TRAINS if several else SAVED), "spikes"), saved, strict=False))
    kind, sizes, arrays = _both(given, not (several or result.saved), kept["spikes"].shape[-1] if several else 1)
    groups, blocks, pieces = sizes["all_groups"], sizes["blocks"], 0
    if several:
        arrays["overflows"] = result.overflows.to(torch.uint8)
        releases, count = kept["again"].shape[-1], int(kept["counts"].max())
        if kind.delayed:
            pieces = ((1 + (releases > 0)) * min(_recurrence(given).budget, count) + 2) * min(BLOCK, sizes["windows"])
        sizes |= {"releases": releases, "padded": kept["arrival"].shape[-1], "sendings": kept["sent"].shape[-1]}
    parts = 1 if recurrent else min(PARTS, sizes["groups"])
    sizes |= {
        "parts": parts, "chunks": min(CHUNKS, sizes["batch"]), "lanes": sizes["groups"] * LANES,
        "stride": -(-(sizes["events"] + sizes["sendings"]) // 16) * 16, "pieces_size": pieces * N_ADJOINT,
        "by_taus": not needs.isdisjoint(("tau_mem", "tau_syn")), "asks_end": grads.state is not None,
        "dues": sizes["inside"] + sizes["sendings"] + PAD, "sorted": 1, "listed": 0,
    }  # fmt: skip
    sizes |= sorting_for(max(sizes["events"], sizes["dues"]))
    arrays |= kept | {"grad": grads.spikes, "bound": numbers(given.times.dtype, max_weight_grad or math.inf)}
    if grads.state is not None:
        arrays["of_end"] = torch.stack(tuple(grads.state), 2)
    if given.state is not None:
        arrays["by_start"] = torch.empty_like(torch.stack(tuple(given.state), 2))
    found = empty_gradients(given, _NEEDS)
    arrays |= {f"by_{name}": x for name, x in found.items()}
    unwound = sizes["ensemble"] * parts * sizes["chunks"]
    phases = groups + blocks * (sizes["observes"] and not kind.delayed), unwound, groups + blocks
    call(backward_kernel(*kind), BACKWARD, phases, sizes, arrays)
    return found if given.state is None else found | dict(zip(Held._fields, arrays["by_start"].unbind(2), strict=True))


def _both(given: Arguments, observes: bool, room: int) -> tuple[_Kind, dict[str, int], dict[str, Any]]:
    """The kind, sizes and arrays of both passes. States at the start are copied, and have room for those at the end."""
    dtype, (outputs, inputs) = given.times.dtype, given.weight.shape[-2:]
    kind = _Kind(name_of(dtype), given.delay is not None, given.max_spikes > 0)
    ensemble, batch = len(given.weight) if given.weight.ndim == 3 else 1, given.times.shape[given.weight.ndim - 2]
    groups, recurrent, (bounds, lag, budget) = -(-outputs // LANES), given.recurrence is not None, _recurrence(given)
    mem, syn = (numbers(dtype, x) if isinstance(x, (int, float)) else x for x in given.constants)
    arrays: dict[str, Any] = {"mem": mem, "syn": syn, "bounds": torch.tensor(bounds, dtype=dtype, device="cpu")}
    arrays |= {name: getattr(given, name) for name in ("times", "weight", "threshold", "delay")}
    copies = given.times.shape[-1] if kind.several else 1
    events = given.times.shape[-2] * copies if kind.several else inputs
    inside = int((given.times < math.inf).sum((-1, -2)).max()) if kind.several else inputs
    threads = threads_for((2 * _COST if kind.several else _COST) * ensemble * batch * events * outputs)
    sizes = {
        "ensemble": ensemble, "batch": batch, "samples": ensemble * batch, "inputs": inputs, "outputs": outputs,
        "copies": copies, "events": events, "inside": inside, "padded": 0, "most": max(given.max_spikes, 1),
        "room": max(room, 1), "budget": max(budget, 1), "releases": 0, "holds": False, "observes": observes,
        "taus": mem.numel(), "groups": groups, "all_groups": ensemble * groups, "threads": threads,
        "blocks": -(-ensemble * batch // SAMPLES), "group_inputs": inputs * LANES,
        "delay_inputs": inputs * LANES if kind.delayed else 0, "n_saved": saved_size(inputs, outputs),
        "windows": len(bounds) - 1, "bounds_size": len(bounds), "sendings": outputs * room if recurrent else 0,
        "tasks": 1 if recurrent else groups, "kept": threads * (groups if recurrent else 1),
        "block": min(SAMPLES, -(-batch // (2 * threads))) if recurrent else SAMPLES,
    }  # fmt: skip
    if kind.several:
        arrays |= {"reset": given.reset, "refractory": given.refractory}
        held = arrays["held"] = given.times.new_zeros((ensemble, batch, 2 * STATES, outputs))
        for number, x in enumerate(given.state or ()):
            held[:, :, number] = x
    if recurrent:
        parts = () if given.delay is None else (given.delay[..., : events // copies], given.delay[..., -outputs:])
        longest = [float(x.max()) if x.numel() else 0.0 for x in parts] or (0.0, lag)
        arrays["reach"] = numbers(dtype, *longest)
    return kind, sizes, arrays


def _recurrence(given: Arguments) -> Recurrence:
    """The recurrence, or one window without any."""
    return given.recurrence or Recurrence((given.start, given.until), 0.0, given.max_spikes)
