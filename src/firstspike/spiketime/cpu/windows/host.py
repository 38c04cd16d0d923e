"""Host side of recurrent layers, but for LIF neurons that share the order of arrival and have no delays."""

import math
from typing import Any

from torch.nn import functional

from firstspike.spiketime.contract import TAUS, Arguments, Gradients, Grads, Needs, Result
from firstspike.spiketime.cpu.arrays import LANES, PAD, numbers
from firstspike.spiketime.cpu.lanes.adjoint import EACH
from firstspike.spiketime.cpu.lanes.adjoint import PARTS as ADJOINT
from firstspike.spiketime.cpu.lanes.host import (
    OF_TRAINS,
    arrays_back,
    arrays_of,
    gradients_in,
    most_in,
    room_for_trains,
    trains_in,
)
from firstspike.spiketime.cpu.lanes.kernels import SAMPLES
from firstspike.spiketime.cpu.lanes.sizes import Settings, settings_of, sizes_back, sizes_of, sizes_of_intervals
from firstspike.spiketime.cpu.lanes.windows import BLOCK
from firstspike.spiketime.cpu.runtime.parallel import call
from firstspike.spiketime.cpu.sort import sorting_for
from firstspike.spiketime.cpu.vectors.shuffles import rows_for
from firstspike.spiketime.cpu.windows.kernels import BACKWARD, FORWARD, backward_kernel, forward_kernel

ROOM = 8  # spikes of a neuron, on average, that may arrive in a window, and beyond those asked for. More are tried
SAVED = *OF_TRAINS, "full", "sent", "sent_at", "spikes"
SENT = SAVED.index("sent")


def forward(given: Arguments) -> Result:
    """Trains. See ``contract``. Saves the spikes in the order in which they were found, too."""
    bounds, _, budget = given.windows
    most = given.max_spikes
    if given.observed is None:
        most = max(most, (len(bounds) - 1) * budget)
    room, waiting = min(given.max_spikes + ROOM, most), ROOM
    while True:
        found, lacks = _forward(given, room, waiting)
        if not lacks:
            return found
        room, waiting = min(2 * room, most), 2 * waiting


def _forward(given: Arguments, room: int, waiting: int) -> tuple[Result, bool]:
    """The result, and whether there was too little room for it."""
    by = settings_of(given)
    sizes = sizes_of_windows(given, by, room)
    dues = sizes["padded"] + sizes["outputs"] * waiting
    sizes |= {"dues": dues, "listed": LANES * (dues + 3 * PAD) * by.delayed} | sorting_for(max(sizes["events"], dues))
    rows = rows_for.py_func(dues) * LANES if by.delayed else 1
    sizes |= {"sorted": rows // LANES, "sorted_keys": rows, "sorted_values": rows * sizes["planes"]}
    sizes |= sizes_of_intervals(dues, sizes["rated"])
    arrays = room_for_trains(FORWARD, (*SAVED[:-1], "lacks"), given, sizes)
    for name in ("lacks", "sent_at"):
        arrays[name].zero_()
    tasks = sizes["ensemble"] * -(-sizes["batch"] // sizes["block"])
    phases = sizes["all_groups"] + sizes["blocks"], tasks
    given_arrays = arrays_of(given, by) | _arrays(given)
    call(forward_kernel(*by.kind, "windows"), FORWARD, phases, sizes, given_arrays | arrays)
    found = trains_in(arrays, SAVED, given)
    return found._replace(spikes=found.spikes[..., : given.max_spikes].contiguous()), bool(arrays["lacks"].any())


def backward(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """The gradients, also of neurons that share their time constants. See ``contract``."""
    by, kept = settings_of(given), dict(zip(SAVED, result.saved, strict=True))
    room = kept["spikes"].shape[-1]
    grads = grads._replace(spikes=functional.pad(grads.spikes, (0, room - given.max_spikes)))
    found, arrays = arrays_back(grads, result, given, by, max_weight_grad)
    sizes = sizes_of_windows(given, by, room)
    dues, sendings = sizes["padded"] + sizes["sendings"], sizes["sendings"]
    sizes |= {"padded": kept["arrival"].shape[-1], "dues": dues, "listed": 0}
    sizes |= {"sorted": 0, "sorted_keys": 0, "sorted_values": 0} | sorting_for(max(sizes["events"], dues))
    sizes |= sizes_of_intervals(dues, sizes["rated"])
    asked = not needs.isdisjoint(TAUS), max_weight_grad is not None, grads.state is not None
    sizes = sizes_back(by, sizes, *asked, room)
    most = min(sizes["budget"], most_in(kept))
    pieces = ((1 + by.holds) * most + 2) * min(BLOCK, sizes["windows"]) * by.delayed
    sizes |= {
        "parts": 1, "stride": -(-(sizes["events"] + sendings) // 16) * 16,
        "pieces_size": pieces * (ADJOINT + len(by.kinds) * EACH),
    }  # fmt: skip
    groups = sizes["all_groups"]
    phases = groups, sizes["ensemble"] * sizes["chunks"], groups + sizes["blocks"]
    call(backward_kernel(*by.kind, "windows"), BACKWARD, phases, sizes, arrays | _arrays(given) | kept)
    return gradients_in(found, arrays["summed"], given, given, by, needs)


def _arrays(given: Arguments) -> dict[str, Any]:
    """The arrays of both passes that neurons on their own do not have."""
    bounds, lag, _ = given.windows
    inputs, outputs, dtype = given.times.shape[2], given.weight.shape[1], given.times.dtype
    parts = () if given.delay is None else (given.delay[..., :inputs], given.delay[..., -outputs:])
    reach = [float(x.max()) if x.numel() else 0.0 for x in parts] or (0.0, lag)
    return {"bounds_of": numbers(dtype, *bounds), "reach": numbers(dtype, *reach)}


def sizes_of_windows(given: Arguments, by: Settings, room: int) -> dict[str, int]:
    """The sizes of both passes. Inputs of the neurons' own spikes are beyond the events."""
    bounds, _, budget = given.windows
    sizes = dict(sizes_of(by))
    counts = (given.times < math.inf).sum((-1, -2))
    inside = int(counts.max()) if counts.numel() else 0
    return sizes | {
        "events": math.prod(given.times.shape[2:]), "most": room, "asked": given.max_spikes, "releases": room + 1,
        "padded": inside + PAD, "budget": budget, "windows": len(bounds) - 1, "bounds_size": len(bounds),
        "sendings": sizes["outputs"] * room, "ranges": 1,
        "block": min(SAMPLES, -(-by.shape[1] // (2 * sizes["threads"]))),
    }  # fmt: skip
