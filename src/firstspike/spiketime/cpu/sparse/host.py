"""Host side of sparse recurrent layers."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
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
from firstspike.spiketime.cpu.lanes.sizes import CHUNKS, Settings, settings_of, sizes_back
from firstspike.spiketime.cpu.lanes.state import SYNAPSE
from firstspike.spiketime.cpu.runtime.parallel import call, call_in_turns
from firstspike.spiketime.cpu.sort import sorting_for
from firstspike.spiketime.cpu.sparse.kernels import BACKWARD, FORWARD, LEVELS, PARTS, backward_kernel, forward_kernel
from firstspike.spiketime.cpu.sparse.sums import CURRENT, N_LEFT
from firstspike.spiketime.cpu.windows.host import ROOM, SAVED, sizes_of_windows
from firstspike.spiketime.units import unit_of_weights

MANY = 2048  # neurons of which several threads take a part each
SELDOM = 128  # a sample has so many windows for each spike of a neuron that most groups have no event in one
LONG = 1 << 23  # windows of a neuron after which Python looks at signals: less than a second, as a rule


def forward(given: Arguments) -> Result:
    """Trains. See ``contract``. Saves the spikes in the order in which they were found, too."""
    assert given.rows is not None
    bounds, _, budget = given.windows
    most = given.max_spikes if given.observed is not None else max(given.max_spikes, (len(bounds) - 1) * budget)
    room, waiting, length = min(given.max_spikes + ROOM, most), ROOM, 16
    while length * 32 < len(given.rows.targets) / given.rows.outputs:  # of the synapses of a neuron, those of a window
        length *= 2
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
    dues, groups, planes = sizes["padded"] + sizes["outputs"] * waiting, sizes["groups"], sizes["planes"]
    keyed, rows = groups * (length + 1) * LANES, (length << LEVELS) + 1
    sizes |= {
        "dues": dues, "room": length, "lanes": groups * LANES, "keyed": keyed, "keyed_receptors": keyed * (planes > 1),
        "turned": rows * LANES * by.delayed * (planes > 1), "sorted": rows, "sorted_keys": 0,
        "sorted_values": rows * LANES * planes * (planes > 1),
        **sorting_for(max(sizes["events"], dues, sizes["longest"])),
    }  # fmt: skip
    adds = by.taus == 1 and not by.observes and all(by.kinds[place] == SYNAPSE for place in by.places)
    rows, receptors = CURRENT + len(by.places), len(by.places)
    sizes |= {"adds": adds, "added_size": rows * groups * LANES * adds, "fading_size": N_LEFT * receptors * adds}
    arrays = room_for_trains(FORWARD, (*SAVED[:-1], "lacks", "short", "levels", "place"), given, sizes)
    for name in ("lacks", "short", "levels", "sent_at"):
        arrays[name].zero_()
    results = arrays.keys() - {"place"}
    arrays |= arrays_of(given, by) | _arrays(given)
    phases = groups + PARTS + sizes["blocks"], -(-sizes["batch"] // sizes["block"])
    kernel, arrays["turn"] = forward_kernel(*by.kind, "sparse"), torch.tensor([0, sizes["windows"], 0])
    if sizes["lasting"]:
        call_in_turns(kernel, FORWARD, _turns(phases[0], sizes, arrays), sizes, arrays)
    else:
        call(kernel, FORWARD, phases, sizes, arrays)
    found = trains_in({name: arrays[name] for name in results}, SAVED, given)
    spikes = found.spikes[..., : given.max_spikes].contiguous()
    found = found._replace(spikes=spikes, saved=(*found.saved, arrays["place"]))
    return found, bool(arrays["lacks"].any()), bool(arrays["short"].any())


def backward(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """The gradients. See ``contract``."""
    kept = dict(zip((*SAVED, "place"), result.saved, strict=True))
    room = kept["spikes"].shape[-1]
    by, sizes = _sizes(given, room, kept["sent_at"].shape[2])
    grads = grads._replace(spikes=functional.pad(grads.spikes, (0, room - given.max_spikes)))
    found, arrays = arrays_back(grads, result, given, by, max_weight_grad)
    dues, sendings, groups = sizes["padded"] + sizes["sendings"], sizes["sendings"], sizes["groups"]
    sizes |= {"padded": kept["arrival"].shape[-1], "dues": dues, "sorted": 0, "sorted_keys": 0, "sorted_values": 0}
    sizes |= sorting_for(max(sizes["events"], dues, sizes["longest"]))
    asked = not needs.isdisjoint(TAUS), max_weight_grad is not None, grads.state is not None
    sizes = sizes_back(by, sizes, *asked, room)
    pieces = (1 + by.holds) * min(sizes["budget"], most_in(kept)) + 2
    sizes |= {
        "parts": 1, "stride": -(-(sizes["events"] + sendings) // 16) * 16,
        "pieces_size": pieces * (ADJOINT + len(by.kinds) * EACH), "table_size": (2 + len(by.kinds)) * groups * LANES,
    }  # fmt: skip
    arrays["summed"] = given.times.new_empty((sizes["all_groups"], sizes["total_rows"]))
    unit = unit_of_weights(given.weight, given.threshold)
    padding = 0, groups * LANES - unit.shape[-1]
    arrays |= {"unit": functional.pad(unit, padding, value=1.0)}
    arrays |= {"level": functional.pad(given.threshold / unit, padding, value=1.0)}
    arrays |= _arrays(given) | kept | {"turn": torch.tensor([0, sizes["windows"], 0])}
    arrays["lasts"] = (kept["numbers"].sum(dim=-1) * SELDOM < sizes["outputs"] * sizes["windows"]).int()
    phases = groups + PARTS + sizes["chunks"], sizes["chunks"], groups + PARTS + sizes["blocks"]
    kernel = backward_kernel(*by.kind, "sparse")
    if sizes["lasting"]:
        call_in_turns(kernel, BACKWARD, _turns_back(phases[0], phases[2], sizes, arrays["turn"]), sizes, arrays)
    else:
        call(kernel, BACKWARD, phases, sizes, arrays)
    return gradients_in(found, arrays["summed"][None, :groups], given, given, by, needs)


def _turns(first: int, sizes: dict[str, int], arrays: dict[str, Any]) -> Iterator[tuple[int, int]]:
    """The phases of calls that each take samples, or ranges of their neurons, through some windows."""
    for start in range(0, sizes["windows"], sizes["together"]):
        arrays["turn"][0], arrays["turn"][1] = start, min(start + sizes["together"], sizes["windows"])
        yield first, sizes["tasks"]
        first = 0
        if arrays["short"].any() or arrays["lacks"].any():
            return


def _turns_back(first: int, last: int, sizes: dict[str, int], turn: Tensor) -> Iterator[tuple[int, int, int]]:
    """Backward, all neurons are at the begin of a window before gradients are added that several ranges share."""
    for stop in range(sizes["windows"], 0, -sizes["together"]):
        turn[0], turn[1] = max(stop - sizes["together"], 0), stop
        for settles in range(min(sizes["ranges"], 2)):
            turn[2] = settles
            yield first, sizes["tasks"], 0
            first = 0
    yield first, 0, last


def _arrays(given: Arguments) -> dict[str, Any]:
    """The arrays of both passes that neurons on their own do not have."""
    assert given.rows is not None
    bounds, lag, _ = given.windows
    (offsets, targets, outputs), inputs, dtype = given.rows, given.times.shape[2], given.times.dtype
    reach, found = (0.0, lag), {"offsets": offsets, "targets": targets}
    if given.delay is None:
        found["head"] = targets
    else:
        parts = given.delay[0, 0, : offsets[inputs]], given.delay[0, 0, offsets[len(offsets) - 1 - outputs] :]
        reach = tuple(float(x.max()) if x.numel() else 0.0 for x in parts)
    return found | {"bounds_of": numbers(dtype, *bounds), "reach": numbers(dtype, *reach)}


def _sizes(given: Arguments, room: int, ranges: int | None = None) -> tuple[Settings, dict[str, int]]:
    """The settings, and the sizes of both passes. There is one group more for each thread, of synapses.

    Where there are fewer samples than threads, these take the ``ranges`` of a sample's neurons through each window.
    """
    assert given.rows is not None
    by = settings_of(given)
    sizes = sizes_of_windows(given, by, room)
    (_, batch, *_), threads, windows = by.shape, sizes["threads"], len(given.windows.bounds) - 1
    if ranges is None:
        shared = batch < threads and batch <= CHUNKS and sizes["outputs"] >= MANY
        ranges = min(threads, sizes["groups"]) if shared else 1
    each = sizes["outputs"] * batch
    lasting = ranges > 1 or (batch <= CHUNKS and each * windows > LONG)
    threads = threads if lasting else max(1, min(threads, batch))
    owners = batch if lasting else threads
    return by, sizes | {
        "threads": threads, "kept": owners * sizes["groups"] + threads, "all_groups": sizes["groups"] + threads,
        "owners": owners, "seers": owners * ranges, "seen_size": (sizes["events"] + sizes["sendings"]) * by.delayed,
        "lasting": lasting, "ranges": ranges, "tasks": batch * ranges,
        "together": 1 if ranges > 1 else max(1, LONG // max(1, each)),
        "block": max(1, -(-batch // threads)), "group_inputs": 0, "delay_inputs": 0, "alike": 0, "quick": 0,
        "rated": 0, "intervals": 0, "intervals_size": 0, "ends": len(given.rows.offsets),
        "longest": int(given.rows.offsets.diff().max()), "synapses": len(given.rows.targets),
        "delays_size": len(given.rows.targets) * by.delayed,
    }  # fmt: skip
