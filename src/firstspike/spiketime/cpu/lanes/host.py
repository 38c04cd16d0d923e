"""Host side of neurons on their own."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from firstspike.neurons.base import ROLES
from firstspike.spiketime.contract import (
    TAUS,
    Arguments,
    Gradients,
    Grads,
    Held,
    Needs,
    Result,
    empty_gradients,
    of_several,
)
from firstspike.spiketime.cpu.arrays import LANES, SAVED, numbers, saved_for, states
from firstspike.spiketime.cpu.lanes.adjoint import BY_BIAS, BY_HOLD, BY_MEM, BY_PARTS, BY_RESET, BY_THRESHOLD
from firstspike.spiketime.cpu.lanes.kernels import BACKWARD, FORWARD, SAMPLES, backward_kernel, forward_kernel
from firstspike.spiketime.cpu.lanes.sizes import Settings, settings_of, sizes_back, sizes_of
from firstspike.spiketime.cpu.lanes.state import BIAS
from firstspike.spiketime.cpu.runtime.kernels import REFUSED, Layout
from firstspike.spiketime.cpu.runtime.parallel import Call
from firstspike.spiketime.units import unit_of_weights
from firstspike.spiketime.values import check_values

_DIRECT = Needs(("times", "weight", "delay", *Held._fields))  # whose gradients are not sums over samples of a group
_SUMMED = "threshold", "reset", "jumps", "tau_mem", "tau_syn", "bias", "refractory"  # over samples, for each neuron
_ROWS = {"threshold": BY_THRESHOLD, "reset": BY_RESET, "bias": BY_BIAS}
OF_TRAINS = "slopes", "ups", "numbers", "order", "source", "numbered", "arrival"
_ENDS = tuple(states("end_"))


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
    found = room_for_trains(FORWARD, OF_TRAINS, given, sizes_of(by))
    _run(by, arrays | found)
    return trains_in(found, OF_TRAINS, given)


def room_for_trains(layout: Layout, saved: Sequence[str], given: Arguments, sizes: dict[str, int]) -> dict[str, Tensor]:
    """The arrays for trains, what is ``saved`` with them, and states at the end."""
    found = layout.tensors((*saved, "overflows", "spikes", *(_ENDS if sizes["ends"] else ())), given.times, sizes)
    found["overflows"].zero_()
    found["spikes"].fill_(math.inf)
    if given.observed is not None:
        found["spikes"].copy_(given.observed.flatten(0, 1))
    return found


def trains_in(found: dict[str, Tensor], saved: Sequence[str], given: Arguments) -> Result:
    """The result of a pass of trains that filled these arrays."""
    each = {name: x.unflatten(0, given.times.shape[:2]) for name, x in found.items()}
    state = None if given.until == math.inf else Held(*(each[name] for name in _ENDS))
    if state is not None:
        current = state.current.squeeze(-1) if given.closed else turned(state.current, given)
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
    asked = not needs.isdisjoint(TAUS), max_weight_grad is not None, grads.state is not None
    call = _backward_call(by, *asked, most_in(saved), (*arrays, *saved))
    arrays |= saved
    call(*(x if x is None else x.contiguous() for x in arrays.values()))
    return gradients_in(found, arrays["summed"], whole, given, by, needs)


def most_in(saved: dict[str, Tensor]) -> int:
    """The most spikes that a neuron has."""
    found = saved.get("numbers")
    return 1 if found is None or not found.numel() else int(found.max())


def arrays_asked(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None) -> dict[str, Any]:
    """The arrays that tell of the result and the loss."""
    bound = numbers(given.times.dtype, max_weight_grad or math.inf)
    found: dict[str, Any] = {"spikes": result.spikes, "grad": grads.spikes, "bound": bound}
    if given.max_spikes:
        found["overflows"] = result.overflows.to(torch.uint8)
    if grads.state is not None:
        found |= zip(states("of_"), grads.state, strict=True)
        found["of_current"] = turned(found["of_current"], given)
    return found


def arrays_back(
    grads: Grads, result: Result, given: Arguments, by: Settings, max_weight_grad: float | None
) -> tuple[Gradients, dict[str, Any]]:
    """Room for gradients, and the arrays of a backward pass but for those that were saved."""
    found, arrays = empty_gradients(given, _DIRECT), arrays_of(given, by)
    arrays |= arrays_asked(grads, result, given, max_weight_grad)
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
    found = {"refractory": rows[:, BY_HOLD // LANES]}
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
    """Numbers of components, with the other sign of those that pull the membrane down."""
    signs = [-1.0 if ROLES[kind].sign < 0 else 1.0 for kind in given.components]
    return x if x is None or -1.0 not in signs else x * x.new_tensor(signs)


def without_spikes(given: Arguments) -> Arguments:
    """The arguments of first spikes without components that only spikes change, which come after the synapses'."""
    kept = sum(not ROLES[kind].own for kind in given.components)
    if given.max_spikes or kept == len(given.components):
        return given
    assert isinstance(given.tau_syn, Tensor)
    assert given.jumps is not None
    parts: Any = {"tau_syn": given.tau_syn[..., :kept], "jumps": given.jumps[..., :kept]}
    return given._replace(components=given.components[:kept], **parts)
