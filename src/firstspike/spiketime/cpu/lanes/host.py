"""Host side of neurons on their own."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from firstspike.neurons.base import receptors_of
from firstspike.spiketime.contract import (
    CONSTANTS,
    Arguments,
    Gradients,
    Grads,
    Held,
    Needs,
    Result,
    Sizes,
    empty_gradients,
    of_several,
)
from firstspike.spiketime.cpu.arrays import LANES, PAD, SAVED, numbers, saved_for, saved_size
from firstspike.spiketime.cpu.lanes.adjoint import BY_BIAS, BY_MEM, BY_PARTS, BY_RESET, BY_THRESHOLD, EACH
from firstspike.spiketime.cpu.lanes.adjoint import PARTS as ADJOINT
from firstspike.spiketime.cpu.lanes.back import N_OTHERS
from firstspike.spiketime.cpu.lanes.kernels import BACKWARD, FORWARD, SAMPLES, backward_kernel, forward_kernel
from firstspike.spiketime.cpu.lanes.search import TERMS
from firstspike.spiketime.cpu.lanes.shared import EACH_ROW, FIRST
from firstspike.spiketime.cpu.lanes.state import BIAS, BUFFERS, KINDS, N_BUFFERS, RISE, SYNAPSE, THRESHOLD
from firstspike.spiketime.cpu.runtime.kernels import REFUSED, Layout
from firstspike.spiketime.cpu.runtime.parallel import Call, name_of
from firstspike.spiketime.cpu.sort import sorting_for
from firstspike.spiketime.cpu.vectors.shuffles import rows_for
from firstspike.spiketime.shared import threads_for
from firstspike.spiketime.units import unit_of_weights
from firstspike.spiketime.values import check_values

PARTS, CHUNKS = 8, 4  # into which the sums over neurons and over samples are cut
_DIRECT = Needs(("times", "weight", "delay", *Held._fields))  # whose gradients are not sums over samples of a group
_SUMMED = "threshold", "reset", "jumps", "tau_mem", "tau_syn", "bias"  # over samples, for each neuron
_ROWS = {"threshold": BY_THRESHOLD, "reset": BY_RESET, "bias": BY_BIAS}
_COST = {"closed": 4, "linear": 8}  # of a synapse, in units of one of the usual kernels. Trains cost twice as much
_QUICK = (SYNAPSE,), (SYNAPSE, SYNAPSE), (SYNAPSE, THRESHOLD)  # kinds of components of states in registers
OF_TRAINS = "slopes", "ups", "numbers", "order", "source", "numbered", "arrival"
ENDS = "end_voltage", "end_current", "end_left"


class Settings(NamedTuple):
    """What the sizes of a call follow from, but for those of its results."""

    real: str
    kinds: tuple[int, ...]
    """Of components; a plain LIF neuron has one."""
    places: tuple[int, ...]
    """Components of receptors."""
    closed: bool
    delayed: bool
    shape: Sizes
    taus: int
    """How many neurons have time constants of their own, 1 if all share them."""
    jumps: bool = False
    signed: bool = False
    copies: int = 1
    most: int = 0
    """Spikes, 0 for first spikes. This and what follows is of trains."""
    resets: bool = True
    starts: bool = False
    observes: bool = False
    holds: bool = False
    ends: bool = False
    recurs: bool = False

    @property
    def kind(self) -> tuple[str, str, bool, bool]:
        """The kind of kernels of neurons on their own."""
        return self.real, "closed" if self.closed else "linear", self.delayed, self.most > 0


def settings_of(given: Arguments) -> Settings:
    """The settings of a call."""
    real, several, syn = name_of(given.times.dtype), given.max_spikes > 0, given.tau_syn
    taus = given.threshold.numel()
    if not isinstance(syn, Tensor) or (not given.closed and taus > 0 and _alike(given)):
        taus = 1
    if given.closed:
        by = Settings(real, (SYNAPSE,), (0,), True, given.delay is not None, given.sizes, taus)
    else:
        kinds = (*(KINDS[kind] for kind in given.components), *(BIAS,) * (given.bias is not None))
        places = tuple(receptors_of(given.components))
        by = Settings(real, kinds, places, False, given.delay is not None, given.sizes, taus)
        by = by._replace(
            jumps="current" in given.components or "threshold" in given.components, signed=given.receptor is None
        )
    if not several:
        return by
    observes = given.observed is not None
    holds = observes or bool((given.refractory > 0).any()) or (given.left is not None and bool((given.left > 0).any()))
    return by._replace(
        copies=given.times.shape[-1], most=given.max_spikes, resets=given.closed or given.resets,
        starts=given.voltage is not None, observes=observes, holds=holds, ends=given.until < math.inf,
        recurs=given.recurrence is not None,
    )  # fmt: skip


def _alike(given: Arguments) -> bool:
    """Whether all neurons have the same time constants."""
    parts, one = len(given.components) or 1, given.tau_mem
    assert isinstance(given.tau_syn, Tensor)
    several = [given.tau_syn.reshape(-1, parts), *([one.reshape(-1)] if isinstance(one, Tensor) else [])]
    return all(not len(x) or bool((x == x[0]).all()) for x in several)


def sizes_of_neurons(shape: Sizes, copies: int, most: int, receptors: int, variables: int, cost: int) -> dict[str, int]:
    """Most of the sizes of ``NEURONS``, where a synapse is this much work, in units of one of the usual kernels."""
    ensemble, batch, inputs, outputs = shape
    events = inputs * copies
    work = (2 if most else 1) * cost * ensemble * batch * max(1, events) * outputs
    return {
        "ensemble": ensemble, "batch": batch, "samples": ensemble * batch, "inputs": inputs, "copies": copies,
        "events": events, "outputs": outputs, "most": max(1, most), "variables": variables, "receptors": receptors,
        **sorting_for(events), "threads": threads_for(work),
    }  # fmt: skip


@lru_cache(maxsize=256)
def sizes_of(by: Settings) -> dict[str, int]:
    """The sizes of a forward pass."""
    ensemble, batch, inputs, outputs = by.shape
    groups, events, count = -(-outputs // LANES), inputs * by.copies, len(by.kinds)
    biased, several = by.kinds[-1] == BIAS, by.most > 0
    planes = 1 if by.signed else len(by.places)
    rows = rows_for.py_func(events) if by.delayed else 0
    alike = not (by.closed or by.delayed) and by.taus == 1
    sizes = sizes_of_neurons(by.shape, by.copies, by.most, len(by.places), count - biased, _COST[by.kind[1]])
    return sizes | {
        "kept": sizes["threads"] * (groups if by.recurs else 1), "tables": sizes["threads" if by.recurs else "samples"],
        "delayed": outputs * by.delayed, "signed": by.signed, "observes": by.observes, "ends": by.ends,
        "starts": by.starts, "groups": groups, "all_groups": ensemble * groups,
        "group_inputs": inputs * LANES, "delay_inputs": inputs * LANES * by.delayed, "taus": by.taus, "count": count,
        "planes": planes, "reached_inputs": inputs if planes > 1 else 0, "sorted": rows,
        "sorted_keys": rows * LANES, "sorted_values": rows * LANES * planes,
        "padded": (events + PAD) * (several and not by.delayed), "releases": (by.most + 1) * several,
        "n_saved": 0 if several else saved_size(inputs, outputs), "holds": by.holds, "biased": biased,
        "resets": by.resets, "jumping": count * LANES * by.jumps,
        "alike": alike, "pairs": by.kinds in _QUICK[:2], "quick": alike and by.kinds in _QUICK,
        "rated": count * alike, **sizes_of_intervals(events, count * alike),
        "state_rows": BUFFERS + N_BUFFERS * (1 + count) * LANES,
        "series_rows": 0 if by.closed else (TERMS + count) * LANES, "blocks": -(-ensemble * batch // SAMPLES),
    }  # fmt: skip


def sizes_of_intervals(events: int, count: int) -> dict[str, int]:
    """The sizes of what neurons alike share of the intervals between so many events, 0 without components."""
    intervals = -(-(events + 1) // 16) * 16 * (count > 0)
    return {"intervals": intervals, "intervals_size": (FIRST + EACH_ROW * count) * intervals}


def arrays_of(given: Arguments, by: Settings) -> dict[str, Tensor | None]:
    """The arrays of both passes that are given."""
    dtype, mem, syn = given.times.dtype, given.tau_mem, given.tau_syn
    if isinstance(syn, Tensor):
        syn = syn.reshape(-1, len(given.components) or 1)[: by.taus]
        if by.kinds[-1] == BIAS:
            syn = functional.pad(syn, (0, 1), value=math.inf)
    mem = numbers(dtype, mem).expand(by.taus) if isinstance(mem, int | float) else mem.reshape(-1)[: by.taus]
    found: dict[str, Tensor | None] = {
        "mem": mem, "syn": syn if isinstance(syn, Tensor) else numbers(dtype, syn),
        "kinds": numbers(torch.int32, *by.kinds), "places": numbers(torch.int32, *by.places),
        "bounds": numbers(dtype, given.start, given.until),
        "times": given.times, "weight": given.weight, "threshold": given.threshold, "delay": given.delay,
    }  # fmt: skip
    if not by.closed:
        found |= {"bias": given.bias, "jumps": turned(given.jumps, given)}
        found["receptor"] = None if given.receptor is None else given.receptor.to(torch.int32)
    if by.most:
        found |= {name: getattr(given, name) for name in ("reset", "refractory", "voltage", "left")}
        found["current"] = turned(given.current, given)
    return found


def forward(given: Arguments) -> Result:
    """Spike times. See ``contract``."""
    given = without_spikes(given)
    by = settings_of(given)
    arrays = arrays_of(given, by)
    if not by.most:
        outputs = by.shape[-1]
        spikes, saved = given.times.new_empty((*given.times.shape[:-1], outputs)), saved_for(given.times, outputs)
        arrays |= {"spikes": spikes} | dict(zip(SAVED, saved, strict=True))
        if _run(by, arrays)[REFUSED]:
            check_values(given)
        return Result(spikes, saved)
    found = room_for_trains(FORWARD, OF_TRAINS, given, by, sizes_of(by))
    _run(by, arrays | found)
    return trains_in(found, OF_TRAINS, given, by)


def room_for_trains(
    layout: Layout, saved: Sequence[str], given: Arguments, by: Settings, sizes: dict[str, int]
) -> dict[str, Tensor]:
    """The arrays for trains, what is ``saved`` with them, and states at the end."""
    found = layout.tensors((*saved, "overflows", "spikes", *(ENDS if by.ends else ())), given.times, sizes)
    found["overflows"].zero_()
    found["spikes"].fill_(math.inf)
    if given.observed is not None:
        found["spikes"].copy_(given.observed.flatten(0, 1))
    return found


def trains_in(found: dict[str, Tensor], saved: Sequence[str], given: Arguments, by: Settings) -> Result:
    """The result of a pass of trains that filled these arrays."""
    each = {name: x.unflatten(0, given.times.shape[:2]) for name, x in found.items()}
    state = Held(*(each[name] for name in ENDS)) if by.ends else None
    if state is not None:
        current = state.current.squeeze(-1) if by.closed else turned(state.current, given)
        state = state._replace(current=current)
    return Result(each["spikes"], tuple(each[name] for name in saved), each["overflows"].bool(), state)


def backward(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """Gradients at the given spike times. See ``contract``."""
    if not result.saved and given.max_spikes:
        result = result._replace(saved=forward(given._replace(observed=result.spikes)).saved)
    elif not result.saved:
        return _at_observed(grads, result, given, max_weight_grad, needs)
    whole, given = given, without_spikes(given)
    by = settings_of(given)
    saved = dict(zip(OF_TRAINS if by.most else SAVED, result.saved, strict=True))
    found, arrays = arrays_back(grads, result, given, by, max_weight_grad)
    asked = not needs.isdisjoint(CONSTANTS), max_weight_grad is not None, grads.state is not None
    call = _backward_call(by, *asked, most_in(saved), (*arrays, *saved))
    arrays |= saved
    call(*(x if x is None else x.contiguous() for x in arrays.values()))
    return gradients_in(found, arrays["summed"], whole, given, by, needs)


def most_in(saved: dict[str, Tensor]) -> int:
    """The most spikes that a neuron has."""
    found = saved.get("numbers")
    return 1 if found is None or not found.numel() else int(found.max())


def arrays_back(
    grads: Grads, result: Result, given: Arguments, by: Settings, max_weight_grad: float | None
) -> tuple[Gradients, dict[str, Any]]:
    """Room for gradients, and the arrays of a backward pass but for those that were saved."""
    found, arrays = empty_gradients(given, _DIRECT), arrays_of(given, by)
    arrays |= {"spikes": result.spikes, "grad": grads.spikes}
    if by.most:
        arrays["overflows"] = result.overflows.to(torch.uint8)
    arrays["bound"] = numbers(given.times.dtype, max_weight_grad or math.inf)
    if grads.state is not None:
        arrays |= zip(("of_voltage", "of_current", "of_left"), grads.state, strict=True)
        arrays["of_current"] = turned(arrays["of_current"], given)
    rows = BY_PARTS + 2 * len(by.kinds) * LANES
    summed = given.times.new_empty((by.shape[0], -(-by.shape[-1] // LANES), rows))
    return found, arrays | {f"by_{name}": x for name, x in found.items()} | {"summed": summed}


def gradients_in(
    found: Gradients, summed: Tensor, whole: Arguments, given: Arguments, by: Settings, needs: Needs
) -> Gradients:
    """The gradients of a pass that filled these arrays. ``given`` is as ``without_spikes`` returns it."""
    if "current" in found:
        found["current"] = turned(found["current"], given)
    if needs.isdisjoint(_SUMMED):
        return found
    more = _of_parameters(summed, whole, given, by, needs)
    return found | (more if given.weight.ndim == 3 else {name: x[0] for name, x in more.items()})


@lru_cache(maxsize=256)
def _backward_call(
    by: Settings, by_taus: bool, bounded: bool, asks_end: bool, most: int, given: tuple[str, ...]
) -> Call:
    sizes = sizes_back(by, dict(sizes_of(by)), by_taus, bounded, asks_end, most)
    all_groups = sizes["all_groups"]
    phases = (
        all_groups + sizes["blocks"] * sizes["alike"],
        sizes["ensemble"] * sizes["parts"] * sizes["chunks"],
        all_groups + sizes["blocks"],
    )
    return Call(backward_kernel(*by.kind), phases, BACKWARD.plan(by.real, sizes, given), sizes["threads"])


def sizes_back(
    by: Settings, sizes: dict[str, int], by_taus: bool, bounded: bool, asks_end: bool, most: int
) -> dict[str, int]:
    """The sizes of a backward pass for neurons of at most so many spikes, from those of the forward pass."""
    batch, count, groups = by.shape[1], len(by.kinds), sizes["groups"]
    parts, chunks = max(1, min(PARTS, groups)), max(1, min(CHUNKS, batch))
    adjoint, rows = ADJOINT + count * EACH, BY_PARTS + 2 * count * LANES
    return sizes | {
        "parts": parts, "chunks": chunks, "stride": -(-sizes["events"] // 16) * 16, "lanes": groups * LANES,
        "pieces_size": (2 * most + 2) * adjoint * by.delayed, "by_taus": by_taus, "bounded": bounded,
        "bounded_spikes": most * bounded, "largest_rows": most * LANES * bounded, "asks_end": asks_end,
        "rising": RISE in by.kinds, "scratch_place": adjoint + N_OTHERS, "state_rows": 2 * adjoint + N_OTHERS,
        "grown": sizes["delay_inputs"] * (by.closed and not by.most and not by_taus), "total_rows": rows,
        "joining": sizes["intervals"] * (not by.most),
    }  # fmt: skip


@of_several
def _at_observed(
    grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
) -> Gradients:
    """The gradients at first spikes from elsewhere. Their slopes are those of trains of one spike."""
    none = torch.zeros_like(given.threshold)
    trains = given._replace(
        times=given.times.unsqueeze(-1), observed=result.spikes.unsqueeze(-1), max_spikes=1, reset=none, refractory=none
    )
    slopes, saved = forward(trains).saved[OF_TRAINS.index("slopes")].squeeze(-1), forward(given).saved
    saved[1][..., : slopes.shape[-1]] = slopes
    return backward(grads, result._replace(saved=saved), given, max_weight_grad, needs)


def _of_parameters(summed: Tensor, whole: Arguments, given: Arguments, by: Settings, needs: Needs) -> dict[str, Tensor]:
    """Gradients of the neurons' parameters, from the sums of groups."""
    ensemble, _, _, outputs = by.shape
    rows = summed.unflatten(2, (-1, LANES)).transpose(1, 2).flatten(2)[..., :outputs]
    biased, more = by.kinds[-1] == BIAS, max(1, len(whole.components))
    parts = rows[:, BY_PARTS // LANES :]
    kept = parts.shape[1] // 2 - biased
    by_syn, by_jumps = (parts[:, number : 2 * kept : 2].transpose(1, 2) for number in (0, 1))
    found = {}
    if "tau_mem" in needs:
        found["tau_mem"] = rows[:, BY_MEM // LANES] / given.tau_mem
    if "tau_syn" in needs:
        if by.closed:
            by_tau = by_syn.squeeze(-1) / given.tau_syn
        else:
            by_tau = functional.pad(by_syn / given.tau_syn, (0, more - kept))
        found["tau_syn"] = by_tau
    if needs.isdisjoint((*_ROWS, "jumps")):
        return found
    unit = unit_of_weights(given.weight, given.threshold).reshape(ensemble, outputs)
    found |= {name: rows[:, row // LANES] / unit for name, row in _ROWS.items()}
    if not by.closed:
        found["jumps"] = turned(functional.pad(by_jumps / unit.unsqueeze(-1), (0, more - kept)), whole)
    return found


def _run(by: Settings, arrays: dict[str, Tensor | None]) -> Any:
    return _forward_call(by, tuple(arrays))(*(x if x is None else x.contiguous() for x in arrays.values()))


@lru_cache(maxsize=256)
def _forward_call(by: Settings, given: tuple[str, ...]) -> Call:
    sizes = sizes_of(by)
    groups, blocks = sizes["all_groups"], sizes["blocks"]
    phases = groups + blocks * (not by.delayed), groups * -(-by.shape[1] // SAMPLES)
    return Call(forward_kernel(*by.kind), phases, FORWARD.plan(by.real, sizes, given), sizes["threads"])


def turned(x: Any, given: Arguments) -> Any:
    """Numbers of components, with the other sign of those of adaptation currents."""
    if x is None or "current" not in given.components:
        return x
    return x * x.new_tensor([-1.0 if kind == "current" else 1.0 for kind in given.components])


def without_spikes(given: Arguments) -> Arguments:
    """The arguments of first spikes without components that only spikes change, which come after the synapses'."""
    kept = sum(kind in ("synapse", "rise") for kind in given.components)
    if given.max_spikes or kept == len(given.components):
        return given
    assert isinstance(given.tau_syn, Tensor)
    assert given.jumps is not None
    parts: Any = {"tau_syn": given.tau_syn[..., :kept], "jumps": given.jumps[..., :kept]}
    return given._replace(components=given.components[:kept], **parts)
