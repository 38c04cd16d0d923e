"""Host side of neurons with synaptic delays or time constants of their own, and of gradients by time constants."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from firstspike.spiketime.contract import Arguments, Gradients, Grads, Held, Needs, Result
from firstspike.spiketime.cpu.arrays import BOTH, LANES, PAD, STATES, numbers, saved_for, saved_sizes, saved_within
from firstspike.spiketime.cpu.lanes.kernels import BACKWARD, FORWARD, SAMPLES, SCRATCH, backward_kernel, forward_kernel
from firstspike.spiketime.cpu.runtime.kernels import Kernel, Layout
from firstspike.spiketime.cpu.runtime.parallel import Call, name_of
from firstspike.spiketime.cpu.sort import sorting_for
from firstspike.spiketime.cpu.vectors.lanes import rows_for
from firstspike.spiketime.kernels import threads_for

PARTS, _CHUNKS = 8, 4  # into which the sums over neurons and over samples are cut
_COST = 4  # of a synapse, in units of one of the usual kernels; trains cost twice as much
_GRADIENTS = "by_times", "by_weight", "by_threshold", "by_delay", "by_mem", "by_syn"
_MOST_EVENTS = (1 << 24) - 1  # which float32 can count


class _Kind(NamedTuple):
    """What a kernel is compiled for."""

    real: str
    delayed: bool
    several: bool

    @property
    def saved(self) -> tuple[str, ...]:
        """The arrays that ``forward_lanes`` saves."""
        own = ("slopes", "again") if self.several else ("slope",) if self.delayed else ()
        return own if self.delayed else (*own, *BOTH)


def forward_lanes(given: Arguments, holds: bool = False) -> Result:
    """First spikes or trains; ``holds`` says whether these have refractory times.

    Saved are, of first spikes, dV/dt at the spikes in units of the threshold, and without delays what ``arrays``
    tells of; of trains the slopes at the spikes and at releases, and without delays what the inputs were sorted to.
    """
    kind, sizes, arrays = _both(given, given.observed is not None)
    outputs, groups, blocks = sizes["outputs"], sizes["all_groups"], sizes["blocks"]
    sizes["releases"] = given.max_spikes + 1 if holds else 0
    sizes["sorted"] = rows_for.py_func(sizes["inside"]) * LANES if kind.delayed else 1
    within = _sort_into(sizes, kind, outputs)
    new, lead = given.times.new_empty, (*given.times.shape[: given.weight.ndim - 1], outputs)
    saved: tuple[Tensor, ...]
    if kind.several:
        saved = new((*lead, given.max_spikes)), new((*lead, sizes["releases"]))
        if not kind.delayed:
            saved += new((*lead[:2], sizes["ints"]), dtype=torch.int32), new((*lead[:2], sizes["reals"]))
        spikes = torch.full_like(saved[0], math.inf)
        if given.observed is not None:
            spikes.copy_(given.observed)
        arrays["overflows"] = new(lead, dtype=torch.uint8)
    else:
        spikes = new(lead)
        saved = (new(lead),) if kind.delayed else saved_for(given.times, outputs)
    arrays |= {"spikes": spikes, **dict(zip(kind.saved, saved, strict=True))}
    phases = groups if kind.delayed else groups + blocks, -(-sizes["batch"] // SAMPLES) * groups
    _run(forward_kernel, FORWARD, kind, phases, sizes, arrays, within)
    if not kind.several:
        return Result(spikes, saved)
    state = None if given.until == math.inf else Held(*arrays["held"][:, :, STATES:].unbind(2))
    return Result(spikes, saved, arrays["overflows"].bool(), state)


def backward_lanes(
    grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
) -> Gradients:
    """All gradients, also of neurons that share their time constants."""
    kind, sizes, arrays = _both(given, not (given.max_spikes or result.saved))
    everything, taus = any(needs[:4]) or needs.state, needs.tau_mem or needs.tau_syn
    inputs, groups, blocks = sizes["inputs"], sizes["all_groups"], sizes["blocks"]
    saved, outputs, sorts = result.saved, sizes["outputs"], sizes["observes"] and not kind.delayed
    if sorts:
        saved, outputs = saved_for(given.times, 0), 0  # what is known of neurons is not asked for
    if kind.several:  # which may be some of the samples
        sizes |= {"releases": saved[1].shape[-1], "padded": saved[-1].shape[-1]}
        sizes["sorted"] = rows_for.py_func(sizes["inside"]) * LANES if kind.delayed else 1
        arrays["overflows"] = result.overflows.to(torch.uint8)
    within, parts, chunks = _sort_into(sizes, kind, outputs), min(PARTS, sizes["groups"]), min(_CHUNKS, sizes["batch"])
    sizes |= {
        "parts": parts, "chunks": chunks, "stride": -(-sizes["events"] // 16) * 16, "lanes": sizes["groups"] * LANES,
        "everything": everything, "by_taus": taus, "asks_end": grads.state is not None,
        "part_inputs": inputs * LANES if everything else 0,
        "part_delays": inputs * LANES if everything and kind.delayed else 0,
        "part_samples": sizes["samples"] if everything else 0,
        "rows": sizes["inside"] * LANES if everything and kind.several else 0,
    }  # fmt: skip
    arrays |= zip(kind.saved, saved, strict=False)
    arrays |= {"spikes": result.spikes, "grad": grads.spikes}
    arrays["bound"] = numbers(given.times.dtype, max_weight_grad or math.inf)
    if grads.state is not None:
        arrays["of_end"] = torch.stack(tuple(grads.state), 2)
    if given.state is not None:
        arrays["by_start"] = torch.empty_like(torch.stack(tuple(given.state), 2))
    like = *given[:4], given.threshold, given.threshold
    for name, x in zip(_GRADIENTS, like, strict=True):
        if x is not None and (everything or x is given.threshold):
            arrays[name] = given.times.new_empty(x.shape)
    unwound = sizes["ensemble"] * parts * chunks
    phases = groups + blocks if sorts else groups, unwound, groups + blocks if everything else groups
    _run(backward_kernel, BACKWARD, kind, phases, sizes, arrays, within)
    times, weight, threshold, delay, mem, syn = (
        arrays.get(name) if need else None for name, need in zip(_GRADIENTS, needs, strict=False)
    )
    state = Held(*arrays["by_start"].unbind(2)) if needs.state and given.state is not None else None
    return Gradients(times, weight, threshold, delay, mem, syn, state)


def _both(given: Arguments, observes: bool) -> tuple[_Kind, dict[str, int], dict[str, Any]]:
    """The kind, sizes and arrays of both passes. States at the start are copied, and have room for those at the end."""
    dtype, (outputs, inputs) = given.times.dtype, given.weight.shape[-2:]
    kind = _Kind(name_of(dtype), given.delay is not None, given.max_spikes > 0)
    ensemble, batch = len(given.weight) if given.weight.ndim == 3 else 1, given.times.shape[given.weight.ndim - 2]
    groups = -(-outputs // LANES)
    mem, syn = (numbers(dtype, x) if isinstance(x, (int, float)) else x for x in given.constants)
    arrays: dict[str, Any] = {"mem": mem, "syn": syn, "bounds": numbers(dtype, given.start, given.until)}
    arrays |= zip(("times", "weight", "threshold", "delay"), given[:4], strict=True)
    sizes = {
        "ensemble": ensemble, "batch": batch, "samples": ensemble * batch, "inputs": inputs, "outputs": outputs,
        "copies": 1, "events": inputs, "inside": inputs, "padded": 0, "most": 1, "releases": 0, "observes": observes,
        "taus": mem.numel(), "groups": groups, "all_groups": ensemble * groups,
        "blocks": -(-ensemble * batch // SAMPLES), "group_inputs": inputs * LANES,
        "delay_inputs": inputs * LANES if kind.delayed else 0, "sorted": 1,
    }  # fmt: skip
    if not kind.several:
        return kind, sizes, arrays
    copies, inside = given.times.shape[-1], int((given.times < math.inf).sum((-1, -2)).max())
    if inside > _MOST_EVENTS:
        raise ValueError(f"a sample has {inside} input spikes; with delays the kernels count up to {_MOST_EVENTS}")
    sizes |= {"copies": copies, "events": inputs * copies, "inside": inside, "padded": max(1, inside) + PAD}
    sizes["most"] = given.max_spikes
    arrays |= {"reset": given.reset, "refractory": given.refractory}
    held = arrays["held"] = given.times.new_zeros((ensemble, batch, 2 * STATES, outputs))
    for number, x in enumerate(given.state or ()):
        held[:, :, number] = x
    return kind, sizes, arrays


def _sort_into(sizes: dict[str, int], kind: _Kind, outputs: int) -> dict[str, tuple[str, int]]:
    """Set how many whole and real numbers there are of each sample; returns which arrays lie where among them.

    ``outputs`` are those of which something is saved.
    """
    if kind.delayed:
        sizes |= {"ints": 1, "reals": outputs}
        return {}
    if not kind.several:
        sizes |= saved_sizes(sizes["inputs"], outputs)
        return saved_within(sizes["inputs"]) | {"source": ("order", 0)}
    room = sizes["padded"]
    sizes |= {"ints": 2 * room + 1, "reals": room}
    return {"source": ("order", room), "count": ("order", 2 * room)}


def _run(
    kernel: Callable[..., Kernel],
    layout: Layout,
    kind: _Kind,
    phases: tuple[int, ...],
    sizes: dict[str, int],
    arrays: dict[str, Any],
    within: Mapping[str, tuple[str, int]],
) -> None:
    synapses = sizes["samples"] * sizes["events"] * sizes["outputs"]
    threads = threads_for((2 * _COST if kind.several else _COST) * synapses)
    sizes |= {"threads": threads, "n_arrived": sizes["inside"] + 1, "holds": sizes["releases"] > 0}
    sizes |= sorting_for(sizes["events"])
    plan = layout.plan(kind.real, sizes, arrays, SCRATCH, within)
    Call(kernel(*kind), phases, plan, threads)(*(x if x is None else x.contiguous() for x in arrays.values()))
