"""Host side of neurons with synaptic delays or time constants of their own, and of gradients by time constants."""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from firstspike.spiketime.contract import Arguments, Gradients, Grads, Held, Needs, Result, Sizes
from firstspike.spiketime.cpu.constants import (
    BOTH,
    LANES,
    N_RATES,
    PAD,
    numbers,
    saved_for,
    saved_sizes,
    saved_within,
)
from firstspike.spiketime.cpu.lanes import scan, train_adjoint
from firstspike.spiketime.cpu.lanes.kernels import BACKWARD, FORWARD, SAMPLES, SCRATCH, backward_kernel, forward_kernel
from firstspike.spiketime.cpu.runtime.kernels import Layout, Plan
from firstspike.spiketime.cpu.runtime.parallel import Call, name_of
from firstspike.spiketime.cpu.vectors.lanes import rows_for
from firstspike.spiketime.kernels import threads_for

PARTS, _CHUNKS = 8, 4  # into which the sums over neurons and over samples are cut
_COST = 4  # of a synapse, in units of one of the usual kernels; trains cost twice as much
_STATES = len(Held._fields)
_N_SUMS = 17 * 16  # numbers that sums over lanes take, and a row of sums
_GRADIENTS = "by_times", "by_weight", "by_threshold", "by_delay", "by_mem", "by_syn"
_MOST_EVENTS = (1 << 24) - 1  # which float32 can count


class _Case(NamedTuple):
    """What a kernel and its sizes follow from."""

    real: str
    sizes: Sizes
    delayed: bool
    several: bool
    taus: int
    """How many time constants of each kind."""
    observes: bool
    copies: int = 1
    """Times of each input."""
    most: int = 1
    """Spikes of a neuron."""
    inside: int = 0
    """Input spikes of the sample of trains that has most."""
    padded: int = 0
    """Room for those of each sample."""
    releases: int = 0
    """Slopes at releases that are kept of each neuron of trains, 0 without refractory times."""


def forward_lanes(given: Arguments, holds: bool = False) -> Result:
    """First spikes or trains; ``holds`` says whether these have refractory times.

    Saved are, of first spikes, dV/dt at the spikes in units of the threshold, and without delays what ``cpu.saved``
    has; of trains the slopes at the spikes and at releases, and without delays what the inputs were sorted to.
    """
    case, arrays = _both(given, given.observed is not None)
    new, lead = given.times.new_empty, (*given.times.shape[: given.weight.ndim - 1], given.weight.shape[-2])
    saved: tuple[Tensor, ...]
    if case.several:
        case = case._replace(releases=given.max_spikes + 1 if holds else 0)
        saved = new((*lead, case.most)), new((*lead, case.releases))
        if not case.delayed:
            sizes, _ = _sorted(case, 0)
            saved += new((*lead[:2], sizes["ints"]), dtype=torch.int32), new((*lead[:2], sizes["reals"]))
        spikes = torch.full_like(saved[0], math.inf)
        if given.observed is not None:
            spikes.copy_(given.observed)
        arrays["overflows"] = new(lead, dtype=torch.uint8)
    else:
        spikes = new(lead)
        saved = (new(lead),) if case.delayed else saved_for(given.times, lead[-1])
    arrays |= {"spikes": spikes, **dict(zip(_saved_names(case), saved, strict=True))}
    _run(_forward_call(case, tuple(arrays), _threads(case)), arrays)
    if not case.several:
        return Result(spikes, saved)
    state = None if given.until == math.inf else Held(*arrays["held"][:, :, _STATES:].unbind(2))
    return Result(spikes, saved, arrays["overflows"].bool(), state)


@lru_cache(maxsize=256)
def _forward_call(case: _Case, names: tuple[str, ...], threads: int) -> Call:
    ensemble, batch, inputs, outputs = case.sizes
    sizes, within = _sizes(case, threads, outputs)
    sizes |= {"n_state": scan.N_STATE if case.several else 3 * LANES, "n_whole": LANES if case.several else 1}
    if case.delayed:
        sizes["sorted"] = rows_for.py_func(case.inside if case.several else inputs) * LANES
    groups, blocks = sizes["groups"], -(-batch // SAMPLES)
    phases = ensemble * (groups if case.delayed else groups + blocks), ensemble * blocks * groups
    kernel = forward_kernel(case.real, case.delayed, case.several)
    return Call(kernel, phases, _plan(FORWARD, case, sizes, names, within), threads)


def backward_lanes(
    grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
) -> Gradients:
    """All gradients, also of neurons that share their time constants."""
    several = given.max_spikes > 0
    case, arrays = _both(given, not (several or result.saved))
    if several:  # which may be some of the samples
        padded = case.padded if case.delayed else result.saved[-1].shape[-1]
        case = case._replace(releases=result.saved[1].shape[-1], padded=padded)
    everything, taus = any(needs[:4]) or needs.state, needs.tau_mem or needs.tau_syn
    saved = result.saved
    if case.observes and not case.delayed:
        saved = saved_for(given.times, 0)  # what is known of neurons is not asked for
    arrays |= zip(_saved_names(case), saved, strict=False)
    arrays |= {"spikes": result.spikes, "grad": grads.spikes}
    arrays["bound"] = numbers(given.times.dtype, max_weight_grad or math.inf)
    if case.several:
        arrays["overflows"] = result.overflows.to(torch.uint8)
    if grads.state is not None:
        arrays["of_end"] = torch.stack(tuple(grads.state), 2)
    if given.state is not None:
        arrays["by_start"] = torch.empty_like(torch.stack(tuple(given.state), 2))
    like = *given[:4], given.threshold, given.threshold
    for name, x in zip(_GRADIENTS, like, strict=True):
        if x is not None and (everything or x is given.threshold):
            arrays[name] = given.times.new_empty(x.shape)
    _run(_backward_call(case, tuple(arrays), everything, taus, _threads(case)), arrays)
    times, weight, threshold, delay, mem, syn = (
        arrays.get(name) if need else None for name, need in zip(_GRADIENTS, needs, strict=False)
    )
    state = Held(*arrays["by_start"].unbind(2)) if needs.state and given.state is not None else None
    return Gradients(times, weight, threshold, delay, mem, syn, state)


@lru_cache(maxsize=256)
def _backward_call(case: _Case, names: tuple[str, ...], everything: bool, taus: bool, threads: int) -> Call:
    ensemble, batch, inputs, outputs = case.sizes
    sizes, within = _sizes(case, threads, 0 if case.observes and not case.delayed else outputs)
    groups, blocks = sizes["groups"], -(-batch // SAMPLES)
    parts, chunks = min(PARTS, groups), min(_CHUNKS, batch)
    sizes |= {
        "parts": parts, "chunks": chunks, "stride": -(-sizes["events"] // 16) * 16, "lanes": groups * LANES,
        "n_totals": 3 * LANES, "one": 1, "n_sums": _N_SUMS, "everything": everything, "by_taus": taus,
        "asks_end": "of_end" in names, "three": _STATES, "part_inputs": inputs * LANES if everything else 0,
        "part_delays": inputs * LANES if everything and case.delayed else 0, "part_batch": batch if everything else 0,
        "rows": case.inside * LANES if everything else 0, "n_state": train_adjoint.N_STATE if case.several else 1,
        "n_whole": train_adjoint.N_WHOLE if case.several else 1,
    }  # fmt: skip
    if case.delayed and case.several:
        sizes["sorted"] = rows_for.py_func(case.inside) * LANES
    phases = (
        ensemble * (groups + blocks if case.observes and not case.delayed else groups),
        ensemble * parts * chunks,
        ensemble * (groups + blocks if everything else groups),
    )
    kernel = backward_kernel(case.real, case.delayed, case.several)
    return Call(kernel, phases, _plan(BACKWARD, case, sizes, names, within), threads)


def _both(given: Arguments, observes: bool) -> tuple[_Case, dict[str, Any]]:
    """What both passes have in common. States at the start are copied, and have room for those at the end."""
    dtype, several, (outputs, inputs) = given.times.dtype, given.max_spikes > 0, given.weight.shape[-2:]
    mem, syn = (numbers(dtype, x) if isinstance(x, (int, float)) else x for x in given.constants)
    arrays: dict[str, Any] = {"mem": mem, "syn": syn, "bounds": numbers(dtype, given.start, given.until)}
    arrays |= zip(("times", "weight", "threshold", "delay"), given[:4], strict=True)
    networks, batch = len(given.weight) if given.weight.ndim == 3 else 1, given.times.shape[given.weight.ndim - 2]
    sizes = networks, batch, inputs, outputs
    case = _Case(name_of(dtype), sizes, given.delay is not None, several, mem.numel(), observes)
    if not several:
        return case, arrays
    arrays |= {"reset": given.reset, "refractory": given.refractory}
    held = arrays["held"] = given.times.new_zeros((*given.times.shape[:2], 2 * _STATES, given.weight.shape[1]))
    for number, x in enumerate(given.state or ()):
        held[:, :, number] = x
    inside = int((given.times < math.inf).sum((-1, -2)).max())
    if inside > _MOST_EVENTS:
        raise ValueError(f"a sample has {inside} input spikes; with delays the kernels count up to {_MOST_EVENTS}")
    padded = max(1, inside) + PAD
    return case._replace(copies=given.times.shape[-1], most=given.max_spikes, inside=inside, padded=padded), arrays


def _saved_names(case: _Case) -> tuple[str, ...]:
    """The arrays that ``forward_lanes`` saves."""
    own = ("slopes", "again") if case.several else ("slope",) if case.delayed else ()
    return own if case.delayed else (*own, *BOTH)


def _sorted(case: _Case, outputs: int) -> tuple[dict[str, int], dict[str, tuple[str, int]]]:
    """How many whole and real numbers are saved of each sample, and which arrays lie where among them."""
    if case.delayed:
        return {"ints": 1, "reals": outputs}, {}
    if not case.several:
        return saved_sizes(case.sizes[2], outputs), saved_within(case.sizes[2])
    room = case.padded
    return {"ints": 2 * room + 1, "reals": room}, {"source": ("order", room), "count": ("order", 2 * room)}


def _sizes(case: _Case, threads: int, outputs: int) -> tuple[dict[str, int], dict[str, tuple[str, int]]]:
    """Sizes of both kernels, and which arrays lie within others; ``outputs`` are those of which something is saved."""
    ensemble, batch, inputs, neurons = case.sizes
    sizes, within = _sorted(case, outputs)
    return sizes | {
        "ensemble": ensemble, "batch": batch, "inputs": inputs, "copies": case.copies, "events": inputs * case.copies,
        "outputs": neurons, "most": case.most, "groups": -(-neurons // LANES), "group_inputs": inputs * LANES,
        "delay_inputs": inputs * LANES if case.delayed else 0, "n_rates": N_RATES, "width": LANES, "taus": case.taus,
        "threads": threads, "sorted": 1, "n_arrived": case.inside + 1, "observes": case.observes,
        "holds": case.releases > 0, "releases": case.releases, "states": 2 * _STATES, "two": 2,
    }, within  # fmt: skip


def _plan(
    layout: Layout, case: _Case, sizes: dict[str, int], names: tuple[str, ...], within: dict[str, tuple[str, int]]
) -> Plan:
    unused = set(layout.arrays).difference(names, within, SCRATCH)
    return layout.plan(case.real, sizes, names, sorted(unused), within)


def _run(call: Call, arrays: dict[str, Any]) -> None:
    call(*(x if x is None else x.contiguous() for x in arrays.values()))


def _threads(case: _Case) -> int:
    _, batch, inputs, outputs = case.sizes
    return threads_for((2 * _COST if case.several else _COST) * case.sizes[0] * batch * inputs * case.copies * outputs)
