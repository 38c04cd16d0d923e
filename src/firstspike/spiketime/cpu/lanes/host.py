"""Host side of neurons with synaptic delays or time constants of their own, and of gradients by time constants."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from firstspike.spiketime.contract import Arguments, Gradients, Grads, Held, Needs, Result, empty_gradients
from firstspike.spiketime.cpu.arrays import LANES, PAD, SAVED, STATES, numbers, saved_for, saved_size
from firstspike.spiketime.cpu.lanes.kernels import BACKWARD, FORWARD, SAMPLES, backward_kernel, forward_kernel
from firstspike.spiketime.cpu.runtime.parallel import call, name_of
from firstspike.spiketime.cpu.sort import sorting_for
from firstspike.spiketime.cpu.vectors.shuffles import rows_for
from firstspike.spiketime.shared import threads_for

PARTS, CHUNKS = 8, 4  # into which the sums over neurons and over samples are cut
_COST = 4  # of a synapse, in units of one of the usual kernels; trains cost twice as much
_NEEDS = Needs(Arguments._fields).difference(Held._fields)  # gradients by states are one array
_MOST_EVENTS = (1 << 24) - 1  # which float32 can count


class _Kind(NamedTuple):
    """What a kernel is compiled for."""

    real: str
    delayed: bool
    several: bool

    @property
    def saved(self) -> tuple[str, ...]:
        """The arrays that ``forward_lanes`` saves."""
        if not self.several:
            return tuple(SAVED)
        return ("slopes", "again") if self.delayed else ("slopes", "again", "order", "source", "count", "arrival")


def forward_lanes(given: Arguments, holds: bool = False) -> Result:
    """First spikes or trains; ``holds`` says whether these have refractory times.

    Saved are, of first spikes, what ``arrays`` tells, with delays the slopes alone; of trains the slopes at the spikes
    and at releases, and without delays what the inputs were sorted to.
    """
    kind, sizes, arrays = _both(given, given.observed is not None, given.max_spikes + 1 if holds else 0)
    groups, padded = sizes["all_groups"], sizes["padded"]
    new, lead = given.times.new_empty, (*given.times.shape[: given.weight.ndim - 1], sizes["outputs"])
    saved: tuple[Tensor, ...]
    if kind.several:
        saved = new((*lead, given.max_spikes)), new((*lead, sizes["releases"]))
        if not kind.delayed:
            saved += *(new((*lead[:2], n), dtype=torch.int32) for n in (padded, padded, 1)), new((*lead[:2], padded))
        spikes = torch.full_like(saved[0], math.inf)
        if given.observed is not None:
            spikes.copy_(given.observed)
        arrays["overflows"] = new(lead, dtype=torch.uint8)
    else:
        spikes, saved = new(lead), saved_for(given.times, sizes["outputs"])
    arrays |= {"spikes": spikes, **dict(zip(kind.saved, saved, strict=True))}
    sorted_blocks = 0 if kind.delayed else sizes["blocks"]
    phases = groups + sorted_blocks, -(-sizes["batch"] // SAMPLES) * groups
    call(forward_kernel(*kind), FORWARD, phases, sizes, arrays)
    if not kind.several:
        return Result(spikes, saved)
    state = None if given.until == math.inf else Held(*arrays["held"][:, :, STATES:].unbind(2))
    return Result(spikes, saved, arrays["overflows"].bool(), state)


def backward_lanes(
    grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
) -> Gradients:
    """All gradients, also of neurons that share their time constants."""
    saved = result.saved or saved_for(given.times, given.weight.shape[-2])
    kind, sizes, arrays = _both(given, not (given.max_spikes or result.saved), saved[1].shape[-1])
    groups, blocks = sizes["all_groups"], sizes["blocks"]
    if kind.several:
        sizes["padded"] = saved[-1].shape[-1]  # of these samples it may be less
        arrays["overflows"] = result.overflows.to(torch.uint8)
    parts, chunks = min(PARTS, sizes["groups"]), min(CHUNKS, sizes["batch"])
    sizes |= {
        "parts": parts, "chunks": chunks, "stride": -(-sizes["events"] // 16) * 16, "lanes": sizes["groups"] * LANES,
        "by_taus": not needs.isdisjoint(("tau_mem", "tau_syn")), "asks_end": grads.state is not None,
        "rows": sizes["inside"] * LANES if kind.several else 0,
    }  # fmt: skip
    arrays |= zip(kind.saved, saved, strict=True)
    arrays |= {"spikes": result.spikes, "grad": grads.spikes}
    arrays["bound"] = numbers(given.times.dtype, max_weight_grad or math.inf)
    if grads.state is not None:
        arrays["of_end"] = torch.stack(tuple(grads.state), 2)
    if given.state is not None:
        arrays["by_start"] = torch.empty_like(torch.stack(tuple(given.state), 2))
    found = empty_gradients(given, _NEEDS)
    arrays |= {f"by_{name}": x for name, x in found.items()}
    unwound = sizes["ensemble"] * parts * chunks
    phases = groups + blocks * (sizes["observes"] and not kind.delayed), unwound, groups + blocks
    call(backward_kernel(*kind), BACKWARD, phases, sizes, arrays)
    return found if given.state is None else found | dict(zip(Held._fields, arrays["by_start"].unbind(2), strict=True))


def _both(given: Arguments, observes: bool, releases: int) -> tuple[_Kind, dict[str, int], dict[str, Any]]:
    """The kind, sizes and arrays of both passes. States at the start are copied, and have room for those at the end."""
    dtype, (outputs, inputs) = given.times.dtype, given.weight.shape[-2:]
    kind = _Kind(name_of(dtype), given.delay is not None, given.max_spikes > 0)
    ensemble, batch = len(given.weight) if given.weight.ndim == 3 else 1, given.times.shape[given.weight.ndim - 2]
    groups = -(-outputs // LANES)
    mem, syn = (numbers(dtype, x) if isinstance(x, (int, float)) else x for x in given.constants)
    arrays: dict[str, Any] = {"mem": mem, "syn": syn, "bounds": numbers(dtype, given.start, given.until)}
    arrays |= {name: getattr(given, name) for name in ("times", "weight", "threshold", "delay")}
    sizes = {
        "ensemble": ensemble, "batch": batch, "samples": ensemble * batch, "inputs": inputs, "outputs": outputs,
        "copies": 1, "events": inputs, "inside": inputs, "padded": 0, "most": 1, "releases": 0, "holds": False,
        "observes": observes,
        "taus": mem.numel(), "groups": groups, "all_groups": ensemble * groups,
        "blocks": -(-ensemble * batch // SAMPLES), "group_inputs": inputs * LANES,
        "delay_inputs": inputs * LANES if kind.delayed else 0, "n_saved": saved_size(inputs, outputs),
    }  # fmt: skip
    if kind.several:
        copies, inside = given.times.shape[-1], int((given.times < math.inf).sum((-1, -2)).max())
        if inside > _MOST_EVENTS:
            raise ValueError(f"a sample has {inside} input spikes; with delays the kernels count up to {_MOST_EVENTS}")
        sizes |= {
            "copies": copies, "events": inputs * copies, "inside": inside, "padded": max(1, inside) + PAD,
            "most": given.max_spikes, "releases": releases, "holds": releases > 0,
        }  # fmt: skip
        arrays |= {"reset": given.reset, "refractory": given.refractory}
        held = arrays["held"] = given.times.new_zeros((ensemble, batch, 2 * STATES, outputs))
        for number, x in enumerate(given.state or ()):
            held[:, :, number] = x
    work = (2 * _COST if kind.several else _COST) * ensemble * batch * sizes["events"] * outputs
    sizes |= {"threads": threads_for(work), "n_arrived": sizes["inside"] + 1, **sorting_for(sizes["events"])}
    sizes["sorted"] = rows_for.py_func(sizes["inside"]) * LANES if kind.delayed else 1
    return kind, sizes, arrays
