"""Host side of sparse recurrent layers."""

from typing import Any

from torch.nn import functional

from firstspike.spiketime.contract import TAUS, Arguments, Gradients, Grads, Needs, Result
from firstspike.spiketime.cpu.arrays import LANES, numbers
from firstspike.spiketime.cpu.lanes.adjoint import EACH
from firstspike.spiketime.cpu.lanes.adjoint import PARTS as ADJOINT
from firstspike.spiketime.cpu.lanes.host import (
    arrays_back,
    arrays_of,
    gradients_in,
    most_in,
    room_for_trains,
    trains_in,
)
from firstspike.spiketime.cpu.lanes.sizes import Settings, settings_of, sizes_back
from firstspike.spiketime.cpu.runtime.parallel import call
from firstspike.spiketime.cpu.sort import sorting_for
from firstspike.spiketime.cpu.sparse.kernels import BACKWARD, FORWARD, PARTS, backward_kernel, forward_kernel
from firstspike.spiketime.cpu.vectors.shuffles import rows_for
from firstspike.spiketime.cpu.windows.host import ROOM, SAVED, sizes_of_windows
from firstspike.spiketime.units import unit_of_weights


def forward(given: Arguments) -> Result:
    """Trains. See ``contract``. Saves the spikes in the order in which they were found, too."""
    bounds, _, budget = given.windows
    most = given.max_spikes if given.observed is not None else max(given.max_spikes, (len(bounds) - 1) * budget)
    room, waiting, length = min(given.max_spikes + ROOM, most), ROOM, 16
    while True:
        found, lacks, short = _forward(given, room, waiting, length)
        if not (lacks or short):
            return found
        if lacks:
            room, waiting = min(2 * room, most), 2 * waiting
        if short:
            length *= 2


def _forward(given: Arguments, room: int, waiting: int, length: int) -> tuple[Result, bool, bool]:
    """The result, and whether there was too little room for spikes, or for what arrives at a neuron in a window."""
    by, sizes = _sizes(given, room)
    dues, rows, groups = sizes["padded"] + sizes["outputs"] * waiting, rows_for.py_func(length), sizes["groups"]
    keyed, planes = groups * rows * LANES, sizes["planes"]
    sizes |= {
        "dues": dues, "length": rows, "lanes": groups * LANES, "keyed": keyed, "keyed_planes": keyed * planes,
        "turned": rows * LANES * by.delayed * (planes > 1), "sorted": rows, "sorted_keys": 0,
        "sorted_values": rows * LANES * planes * by.delayed, **sorting_for(max(sizes["events"], dues)),
    }  # fmt: skip
    arrays = room_for_trains(FORWARD, (*SAVED[:-1], "lacks", "short"), given, sizes)
    for name in ("lacks", "short", "sent_at"):
        arrays[name].zero_()
    phases = groups + PARTS + sizes["blocks"], -(-sizes["batch"] // sizes["block"])
    call(forward_kernel(*by.kind, "sparse"), FORWARD, phases, sizes, arrays_of(given, by) | _arrays(given) | arrays)
    found = trains_in(arrays, SAVED, given)
    found = found._replace(spikes=found.spikes[..., : given.max_spikes].contiguous())
    return found, bool(arrays["lacks"].any()), bool(arrays["short"].any())


def backward(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """The gradients. See ``contract``."""
    kept = dict(zip(SAVED, result.saved, strict=True))
    room = kept["spikes"].shape[-1]
    by, sizes = _sizes(given, room)
    grads = grads._replace(spikes=functional.pad(grads.spikes, (0, room - given.max_spikes)))
    found, arrays = arrays_back(grads, result, given, by, max_weight_grad)
    dues, sendings, groups = sizes["padded"] + sizes["sendings"], sizes["sendings"], sizes["groups"]
    sizes |= {"padded": kept["arrival"].shape[-1], "dues": dues, "sorted": 0, "sorted_keys": 0, "sorted_values": 0}
    sizes |= sorting_for(max(sizes["events"], dues))
    asked = not needs.isdisjoint(TAUS), max_weight_grad is not None, grads.state is not None
    sizes = sizes_back(by, sizes, *asked, room)
    pieces = (1 + by.holds) * min(sizes["budget"], most_in(kept)) + 2
    sizes |= {
        "parts": 1, "stride": -(-(sizes["events"] + sendings) // 16) * 16,
        "pieces_size": pieces * (ADJOINT + len(by.kinds) * EACH), "table_size": (1 + len(by.kinds)) * groups * LANES,
    }  # fmt: skip
    arrays["summed"] = given.times.new_empty((sizes["all_groups"], sizes["total_rows"]))
    unit = unit_of_weights(given.weight, given.threshold)
    padding = 0, groups * LANES - unit.shape[-1]
    arrays |= {"unit": functional.pad(unit, padding, value=1.0)}
    arrays |= {"level": functional.pad(given.threshold / unit, padding, value=1.0)}
    phases = groups + PARTS + sizes["chunks"], sizes["chunks"], groups + PARTS + sizes["blocks"]
    call(backward_kernel(*by.kind, "sparse"), BACKWARD, phases, sizes, arrays | _arrays(given) | kept)
    return gradients_in(found, arrays["summed"][None, :groups], given, given, by, needs)


def _arrays(given: Arguments) -> dict[str, Any]:
    """The arrays of both passes that neurons on their own do not have."""
    assert given.rows is not None
    bounds, lag, _ = given.windows
    (offsets, targets, outputs), inputs, dtype = given.rows, given.times.shape[2], given.times.dtype
    reach = 0.0, lag
    if given.delay is not None:
        parts = given.delay[0, 0, : offsets[inputs]], given.delay[0, 0, offsets[len(offsets) - 1 - outputs] :]
        reach = tuple(float(x.max()) if x.numel() else 0.0 for x in parts)
    return {
        "bounds_of": numbers(dtype, *bounds), "reach": numbers(dtype, *reach), "offsets": offsets, "targets": targets,
    }  # fmt: skip


def _sizes(given: Arguments, room: int) -> tuple[Settings, dict[str, int]]:
    """The settings, and the sizes of both passes. There is one group more for each thread, of synapses."""
    assert given.rows is not None
    by = settings_of(given)
    sizes = sizes_of_windows(given, by, room)
    threads = max(1, min(sizes["threads"], by.shape[1]))
    return by, sizes | {
        "threads": threads, "kept": threads * (sizes["groups"] + 1), "all_groups": sizes["groups"] + threads,
        "block": max(1, -(-by.shape[1] // threads)), "group_inputs": 0, "delay_inputs": 0, "alike": 0, "quick": 0,
        "rated": 0, "intervals": 0, "intervals_size": 0, "ends": len(given.rows.offsets),
        "synapses": len(given.rows.targets), "delays_size": len(given.rows.targets) * by.delayed,
    }  # fmt: skip
