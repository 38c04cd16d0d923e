"""Host side of linear neurons."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from firstspike.neurons.base import receptors_of
from firstspike.spiketime.contract import Arguments, Gradients, Grads, Held, Needs, Result, empty_gradients, of_several
from firstspike.spiketime.cpu.arrays import LANES, PAD, numbers
from firstspike.spiketime.cpu.lanes.host import CHUNKS, PARTS
from firstspike.spiketime.cpu.linear.alone_adjoint import BY_LEAK, BY_PARTS, BY_RESET, BY_THRESHOLD
from firstspike.spiketime.cpu.linear.flow import BIAS, FIRST, KINDS, PER, SLOPES
from firstspike.spiketime.cpu.linear.kernels import BACKWARD, FORWARD, SAMPLES, backward_kernel, forward_kernel
from firstspike.spiketime.cpu.linear.lanes import JUMPS
from firstspike.spiketime.cpu.linear.search import TERMS
from firstspike.spiketime.cpu.runtime.parallel import call, name_of
from firstspike.spiketime.cpu.sort import sorting_for
from firstspike.spiketime.cpu.vectors.shuffles import rows_for
from firstspike.spiketime.shared import threads_for

_COST = 8  # of a synapse, in units of one of the kernels of first spikes
_SUMMED = "threshold", "reset", "jumps", "tau_mem", "tau_syn", "bias"  # over samples, for each neuron
_DIRECT = Needs(("times", "weight", "delay", *Held._fields))  # whose gradients are not sums over samples of a group
_OWN = "slopes", "ups", "overflows"
_SHARED = "order", "source", "inside", "arrival", "rows"
ENDS = "end_voltage", "end_current", "end_left"


def _shares(given: Arguments) -> bool:
    """Whether neurons of a network share their order of arrival and their time constants."""
    taus = (x for x in (given.tau_mem, given.tau_syn) if isinstance(x, Tensor))
    return given.delay is None and all(torch.equal(x, x[:, :1].expand_as(x)) for x in taus)


@of_several
def forward(given: Arguments) -> Result:
    """Spike times. See ``contract``."""
    given = _without_spikes(given)
    own, sizes, arrays = _both(given, given.observed)
    real = given.times.new_empty
    lead, most = (*given.times.shape[:2], sizes["outputs"]), sizes["most"]
    spikes = real((*lead, most)).fill_(math.inf)
    if given.observed is not None:
        spikes.copy_(given.observed)
    saved = {"slopes": real((*lead, most)), "ups": real((*lead, most + 1))}
    saved["overflows"] = torch.zeros(lead, dtype=torch.uint8)
    if not own:
        samples, padded = lead[:2], sizes["padded"]
        for name in ("order", "source"):
            saved[name] = torch.empty((*samples, padded), dtype=torch.int32)
        saved["inside"] = torch.empty((*samples, 1), dtype=torch.int32)
        saved["arrival"] = real((*samples, padded))
        saved["rows"] = real((*samples, sizes["intervals"], sizes["parts_of_row"]))
    ends = {}
    if given.max_spikes and given.until < math.inf:
        ends = dict(zip(ENDS, (real(lead), real((*lead, sizes["variables"])), real(lead)), strict=True))
    sizes["ends"] = len(ends) > 0
    arrays |= saved | ends | {"spikes": spikes}
    groups, batch = sizes["all_groups"], sizes["batch"]
    phases = groups + (0 if own else sizes["blocks"]), groups * -(-batch // SAMPLES)
    call(forward_kernel(name_of(given.times.dtype), own), FORWARD, phases, sizes, arrays)
    if not given.max_spikes:
        return Result(spikes.squeeze(-1), tuple(saved.values()))
    return Result(spikes, tuple(saved.values()), saved["overflows"].bool(), Held(*ends.values()) if ends else None)


@of_several
def backward(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """Gradients at the given spike times. See ``contract``."""
    if not result.saved:
        spikes = result.spikes if given.max_spikes else result.spikes.unsqueeze(-1)
        result = result._replace(saved=forward(given._replace(observed=spikes)).saved)
    whole, given = given, _without_spikes(given)
    own, sizes, arrays = _both(given, result.spikes)
    arrays |= zip((*_OWN, *_SHARED), result.saved, strict=False)
    if result.overflows is not None:
        arrays["overflows"] = result.overflows.to(torch.uint8)
    count, events = sizes["count"], sizes["events"]
    by_taus = not needs.isdisjoint(("tau_mem", "tau_syn"))
    parts, chunks = min(PARTS, max(1, sizes["groups"])), min(CHUNKS, max(1, sizes["batch"]))
    sizes |= {
        "parts": parts, "chunks": chunks, "stride": (events + 16) // 16 * 16, "by_taus": by_taus,
        "by_time": not needs.isdisjoint(("times", "delay")), "asks_end": grads.state is not None,
        "bounded": max_weight_grad is not None, "parts_of_slopes": 1 + SLOPES * count,
        "sloped": sizes["intervals"] * by_taus, "own_sloped": sizes["own_intervals"] * by_taus,
        "total_rows": (BY_PARTS + 2 * count + 1) * LANES, "largest_rows": sizes["most"] * LANES,
        "segments_each": 2 * sizes["most"] + 3, "noted": 1 + count, "jumping": max(1, count) * LANES,
        "observes": True, "once": False, "firsts": given.max_spikes == 0 and given.bias is None,
        "taped": (sizes["intervals"] + sizes["own_intervals"]) * by_taus,
    }  # fmt: skip
    bound = numbers(given.times.dtype, max_weight_grad or 0.0)
    arrays |= {"spikes": result.spikes, "grad": grads.spikes, "bound": bound}
    if grads.state is not None:
        arrays |= zip(("of_voltage", "of_current", "of_left"), grads.state, strict=True)
    by: dict[str, Any] = empty_gradients(given, _DIRECT)
    if given.state is not None:
        by["left"].zero_()
    made = {f"by_{name}": x for name, x in by.items()}
    made["summed"] = summed = given.times.new_empty((sizes["ensemble"], sizes["groups"], sizes["total_rows"]))
    groups, blocks = sizes["all_groups"], sizes["blocks"]
    phases = groups + (blocks if by_taus and not own else 0), sizes["ensemble"] * parts * chunks, groups + blocks
    call(backward_kernel(name_of(given.times.dtype), own), BACKWARD, phases, sizes, arrays | made)
    if not needs.isdisjoint(_SUMMED):
        by |= _of_parameters(summed.unflatten(2, (-1, LANES)), whole, given)
    return by


def _of_parameters(totals: Tensor, whole: Arguments, given: Arguments) -> dict[str, Tensor]:
    """Gradients of the neurons' parameters, from the sums of groups. ``given`` is as ``_without_spikes`` returns it."""
    assert isinstance(given.tau_syn, Tensor)
    totals = totals.transpose(1, 2).flatten(2)[..., : whole.sizes[3]]
    kept, count, more = len(given.components), len(given.components) + (given.bias is not None), len(whole.components)
    parts, jumps = (totals[:, place : place + kept].transpose(1, 2) for place in (BY_PARTS, BY_PARTS + count))
    by_mem, by_syn = -totals[:, BY_LEAK] / _tau_mem(given) ** 2, -parts / given.tau_syn.double() ** 2
    return {
        "threshold": totals[:, BY_THRESHOLD], "reset": totals[:, BY_RESET], "bias": totals[:, -1],
        "tau_mem": by_mem.to(totals), "tau_syn": functional.pad(by_syn.to(totals), (0, more - kept)),
        "jumps": functional.pad(jumps, (0, more - kept)),
    }  # fmt: skip


def _without_spikes(given: Arguments) -> Arguments:
    """The arguments of first spikes without components that only spikes change, which come after the synapses'."""
    kept = sum(kind in ("synapse", "rise") for kind in given.components)
    if given.max_spikes or kept == len(given.components):
        return given
    assert isinstance(given.tau_syn, Tensor)
    assert given.jumps is not None
    parts: Any = {"tau_syn": given.tau_syn[..., :kept], "jumps": given.jumps[..., :kept]}
    return given._replace(components=given.components[:kept], **parts)


def _tau_mem(given: Arguments) -> Tensor:
    mem = given.tau_mem
    return mem.double() if isinstance(mem, Tensor) else torch.full_like(given.threshold, mem, dtype=torch.float64)


def sizes_and_arrays(
    given: Arguments, places: Sequence[int], variables: int, cost: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sizes and arrays of ``NEURONS``, with receptors at these places, and ``cost`` as the work for a synapse."""
    ensemble, batch, inputs, outputs = given.sizes
    copies = given.times.shape[-1] if given.max_spikes else 1
    events = inputs * copies
    sizes: dict[str, Any] = {
        "ensemble": ensemble, "batch": batch, "samples": ensemble * batch, "inputs": inputs, "copies": copies,
        "events": events, "outputs": outputs, "most": max(1, given.max_spikes), "variables": variables,
        "receptors": len(places), "delayed": outputs * (given.delay is not None), "signed": given.receptor is None,
        "observes": given.observed is not None, "ends": False, **sorting_for(events),
        "threads": threads_for(cost * ensemble * batch * max(1, events) * outputs),
    }  # fmt: skip
    arrays: dict[str, Any] = {
        "times": given.times, "weight": given.weight, "delay": given.delay, "voltage": given.voltage,
        "current": given.current, "left": given.left, "places": numbers(torch.int32, *places),
        "receptor": None if given.receptor is None else given.receptor.to(torch.int32),
    }  # fmt: skip
    return sizes, arrays


def _both(given: Arguments, spikes: Tensor | None) -> tuple[bool, dict[str, Any], dict[str, Any]]:
    """Whether neurons have their own order or constants, and sizes and arrays of both passes."""
    own, dtype, several, biased = not _shares(given), given.times.dtype, given.max_spikes > 0, given.bias is not None
    kinds = [KINDS[kind] for kind in given.components] + [BIAS] * biased
    count = len(kinds)
    sizes, arrays = sizes_and_arrays(given, receptors_of(given.components), count - biased, _COST)
    events, group_inputs = sizes["events"], sizes["inputs"] * LANES
    start, until = given.start, given.until
    if spikes is not None and start == -math.inf and spikes.numel():
        # a spike before all inputs is after the start, too
        earliest = float(spikes.min())
        if earliest <= (float(given.times.min()) if events else math.inf) and earliest < math.inf:
            start = earliest - max(1.0, abs(earliest))
    assert isinstance(given.tau_syn, Tensor)
    rates = given.tau_syn.double().reciprocal()
    if biased:
        rates = torch.cat([rates, torch.zeros_like(rates[..., :1])], -1)
    none = given.reset if several else torch.zeros_like(given.threshold)
    arrays |= {
        "threshold": given.threshold, "jumps": given.jumps, "reset": none, "bias": given.bias, "rates": rates,
        "refractory": given.refractory if several else none, "leak": _tau_mem(given).reciprocal(),
        "kinds": numbers(torch.int32, *kinds), "bounds": numbers(dtype, start, until),
        "tiny": numbers(dtype, torch.finfo(dtype).eps),
    }  # fmt: skip
    rows, groups = rows_for.py_func(events), -(-sizes["outputs"] // LANES)
    sizes |= {
        "releases": sizes["most"] + 1, "groups": groups, "all_groups": sizes["ensemble"] * groups,
        "group_inputs": group_inputs, "parts_of_row": FIRST + PER * count, "count": count, "padded": events + PAD,
        "intervals": 0 if own else events + 1, "own_intervals": rows + 1 if own else 0, "biased": biased,
        "resets": given.resets or not several, "starts": given.state is not None, "once": not several,
        "taped": 0, "state_rows": (3 * (1 + count) + 2 + JUMPS + count) * LANES,
        "width": max(TERMS, FIRST + PER * count, 1 + SLOPES * count), "lanes": (rows + 1) * LANES if own else 0,
        "delay_inputs": group_inputs if given.delay is not None else 0, "tape_rows": (1 + count) * LANES,
        "drives_each": 2 * count + 1, "rising": "rise" in given.components, "series_rows": 2 * TERMS * LANES,
        "blocks": -(-sizes["samples"] // SAMPLES),
    }  # fmt: skip
    return own, sizes, arrays
