"""Host side of recurrent layers whose neurons are LIF neurons, with synaptic delays or without."""

import math
from typing import Any

import torch

from firstspike.spiketime.contract import Arguments, Gradients, Grads, Held, Needs, Result, empty_gradients
from firstspike.spiketime.cpu.arrays import LANES, PAD, STATES, held_for, numbers
from firstspike.spiketime.cpu.runtime.parallel import call, name_of
from firstspike.spiketime.cpu.sort import sorting_for
from firstspike.spiketime.cpu.vectors.shuffles import rows_for
from firstspike.spiketime.cpu.windows.carry import N_ADJOINT
from firstspike.spiketime.cpu.windows.events import BLOCK
from firstspike.spiketime.cpu.windows.kernels import BACKWARD, FORWARD, SAMPLES, backward_kernel, forward_kernel
from firstspike.spiketime.shared import threads_for

CHUNKS = 4  # into which the sums over samples are cut
_COST = 8  # of a synapse, in units of one of the kernels of first spikes
_NEEDS = Needs(Arguments._fields).difference(Held._fields)  # gradients with respect to states are one array
_ROOM = 8  # spikes of a neuron, on average, that may arrive in a window, and beyond those asked for. More are tried
_SAVED = "slopes", "again", "counts", "full", "order", "source", "count", "arrival", "sent", "sent_at"
SENT = _SAVED.index("sent")


def forward(given: Arguments, holds: bool) -> Result:
    """Trains, with ``holds`` if neurons have refractory times. See ``contract``.

    Saves the slopes at spikes and at releases, the sorted inputs, and the spikes in the order in which they were found.
    """
    bounds, _, budget = given.windows
    most = given.max_spikes
    if given.observed is None:
        most = max(most, (len(bounds) - 1) * budget)
    room, waiting = min(given.max_spikes + _ROOM, most), _ROOM
    while True:
        found, lacks = _forward(given, holds, room, waiting)
        if not lacks:
            return found
        room, waiting = min(2 * room, most), 2 * waiting


def _forward(given: Arguments, holds: bool, room: int, waiting: int) -> tuple[Result, bool]:
    """The result, and whether there was too little room for it."""
    sizes, arrays = _both(given, room)
    delayed, dues = given.delay is not None, sizes["inside"] + PAD
    sizes |= {"padded": dues, "releases": holds * (room + 1), "dues": dues + sizes["outputs"] * waiting}
    sizes["listed"] = LANES * (sizes["dues"] + 3 * PAD) * delayed
    sizes |= sorting_for(max(sizes["events"], sizes["dues"]))
    sizes["sorted"] = rows_for.py_func(sizes["dues"]) * LANES if delayed else 1
    arrays |= FORWARD.tensors((*_SAVED, "spikes", "overflows", "lacks"), given.times, sizes)
    for name in ("overflows", "lacks", "sent_at"):
        arrays[name].zero_()
    arrays["spikes"].fill_(math.inf)
    if given.observed is not None:
        arrays["spikes"].copy_(given.observed.flatten(0, 1))
    tasks = sizes["ensemble"] * -(-sizes["batch"] // sizes["block"])
    call(forward_kernel(*_kind(given)), FORWARD, (sizes["all_groups"] + sizes["blocks"], tasks), sizes, arrays)
    state = None if given.until == math.inf else Held(*arrays["held"][:, :, STATES:].unbind(2))
    each = {name: arrays[name].unflatten(0, given.times.shape[:2]) for name in (*_SAVED, "spikes", "overflows")}
    saved = tuple(each[name] for name in (*_SAVED, "spikes"))
    spikes = each["spikes"][..., : given.max_spikes].contiguous()
    return Result(spikes, saved, each["overflows"].bool(), state), bool(arrays["lacks"].any())


def backward(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """The gradients, also of neurons that share their time constants. See ``contract``."""
    found, by_taus = empty_gradients(given, _NEEDS), not needs.isdisjoint(("tau_mem", "tau_syn"))
    by, bound = {f"by_{name}": x for name, x in found.items()}, numbers(given.times.dtype, max_weight_grad or math.inf)
    kept = {"spikes": result.spikes} | dict(zip((*_SAVED, "spikes"), result.saved, strict=False))
    sizes, arrays = _both(given, kept["spikes"].shape[-1])
    releases, sendings, pieces = kept["again"].shape[-1], kept["sent"].shape[-1], 0
    if given.delay is not None:
        most = min(sizes["budget"], int(kept["counts"].max()))
        pieces = ((1 + (releases > 0)) * most + 2) * min(BLOCK, sizes["windows"])
    chunks, groups, dues = min(CHUNKS, sizes["batch"]), sizes["all_groups"], sizes["inside"] + sendings + PAD
    sizes |= {
        "releases": releases, "padded": kept["arrival"].shape[-1], "sendings": sendings, "dues": dues,
        "asks_end": grads.state is not None, "chunks": chunks, "lanes": sizes["groups"] * LANES, "by_taus": by_taus,
        "stride": -(-(sizes["events"] + sendings) // 16) * 16, "pieces_size": pieces * N_ADJOINT, "sorted": 1,
        "listed": 0, **sorting_for(max(sizes["events"], dues)),
    }  # fmt: skip
    arrays |= kept | by | {"overflows": result.overflows.to(torch.uint8), "grad": grads.spikes, "bound": bound}
    if grads.state is not None:
        arrays["of_end"] = torch.stack(tuple(grads.state), 2)
    if given.state is not None:
        arrays["by_start"] = torch.empty_like(torch.stack(tuple(given.state), 2))
    phases = groups, sizes["ensemble"] * chunks, groups + sizes["blocks"]
    call(backward_kernel(*_kind(given)), BACKWARD, phases, sizes, arrays)
    return found if given.state is None else found | dict(zip(Held._fields, arrays["by_start"].unbind(2), strict=True))


def _kind(given: Arguments) -> tuple[str, bool]:
    """The kind for which a kernel is compiled."""
    return name_of(given.times.dtype), given.delay is not None


def _both(given: Arguments, room: int) -> tuple[dict[str, int], dict[str, Any]]:
    """The sizes and arrays of both passes. States at the start are copied, and have room for those at the end."""
    (ensemble, batch, inputs, outputs), (bounds, lag, budget), dtype = given.sizes, given.windows, given.times.dtype
    groups, threads = -(-outputs // LANES), threads_for(_COST * given.times.numel() * outputs)
    mem, syn = (numbers(dtype, x) if isinstance(x, (int, float)) else x for x in given.constants)
    parts = () if given.delay is None else (given.delay[..., : given.times.shape[2]], given.delay[..., -outputs:])
    reach = [float(x.max()) if x.numel() else 0.0 for x in parts] or (0.0, lag)
    arrays: dict[str, Any] = {
        "mem": mem, "syn": syn, "bounds": numbers(dtype, *bounds), "reach": numbers(dtype, *reach),
        "times": given.times, "weight": given.weight, "threshold": given.threshold, "delay": given.delay,
        "reset": given.reset, "refractory": given.refractory, "held": held_for(given),
    }  # fmt: skip
    sizes = {
        "ensemble": ensemble, "batch": batch, "samples": ensemble * batch, "inputs": inputs, "outputs": outputs,
        "copies": given.times.shape[-1], "events": given.times[0, 0].numel(), "most": given.max_spikes, "room": room,
        "inside": int((given.times < math.inf).sum((-1, -2)).max()), "budget": budget, "windows": len(bounds) - 1,
        "bounds_size": len(bounds), "observes": given.observed is not None, "groups": groups,
        "taus": given.tau_mem.numel() if isinstance(given.tau_mem, torch.Tensor) else 1,
        "all_groups": ensemble * groups, "threads": threads, "blocks": -(-ensemble * batch // SAMPLES),
        "group_inputs": inputs * LANES, "delay_inputs": inputs * LANES * (given.delay is not None),
        "sendings": outputs * room, "kept": threads * groups, "block": min(SAMPLES, -(-batch // (2 * threads))),
    }  # fmt: skip
    return sizes, arrays
