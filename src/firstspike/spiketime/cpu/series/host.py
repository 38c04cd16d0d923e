"""Host side of neurons from equations."""

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from firstspike.neurons.expressions import names_in, short, shown
from firstspike.spiketime.contract import Arguments, Gradients, Grads, Held, Needs, Result, of_several, zero_gradients
from firstspike.spiketime.cpu.arrays import LANES, numbers
from firstspike.spiketime.cpu.lanes.host import arrays_asked, room_for_trains, trains_in
from firstspike.spiketime.cpu.lanes.sizes import sizes_of_neurons
from firstspike.spiketime.cpu.runtime.kernels import REFUSED, Layout
from firstspike.spiketime.cpu.runtime.parallel import call
from firstspike.spiketime.cpu.series.expansion import ROW, code_of
from firstspike.spiketime.cpu.series.kernels import BACKWARD, FORWARD, backward_kernel, forward_kernel
from firstspike.spiketime.series import Program, Programs, programs_of, slot_values
from firstspike.spiketime.statuses import check_statuses

_COST = 40  # of a synapse, in units of one of the kernels of first spikes
_DIRECT = Needs(("times", *Held._fields))  # whose gradients are not sums over the chunks
TURNS = 1 << 14  # steps of 32 neurons by a thread, after which Python looks at signals: less than a second, as a rule
_GIVEN = "times", "weight", "delay", "voltage", "current", "left"
_CHUNKS = 16  # parts of the samples of a network, with gradients of their own


@lru_cache(maxsize=64)
def _codes(key: str) -> dict[str, Tensor]:
    """Programs as the kernels read them."""
    found = programs_of(key)._asdict().items()
    return {name: torch.tensor(code_of(x), dtype=torch.int32) for name, x in found if isinstance(x, Program)}


def _check_slots(programs: Programs, values: Tensor) -> None:
    """Raise a ValueError where numbers or expressions of parameters are not finite."""
    if not bool(values.isfinite().all()):
        e, j, k = (~values.isfinite()).nonzero()[0].tolist()
        formula = short(shown(programs.slots[k]))
        raise ValueError(f"{formula} must be finite, got {float(values[e, j, k])} for neuron {j}")


@of_several
def forward(given: Arguments) -> Result:
    """Spike times. See ``contract``."""
    sizes, arrays = _both(given)
    _check_slots(programs_of(given.equations), arrays["slot_values"])
    return trains_in(_integrate(given, sizes, arrays), ("found",), given)


def peaks(given: Arguments) -> Tensor:
    """The largest excess over the threshold of neurons that do not spike: ``(E, B, O, 4)``.

    The four are its value, its time, and, where an input ends its rise, the slope just before and which event that is;
    otherwise -1.
    """
    sizes, arrays = _both(given)
    arrays["highest"] = highest = given.times.new_full((*given.times.shape[:2], sizes["outputs"], 4), -math.inf)
    _integrate(given, sizes | {"observes": True, "peaked": sizes["samples"]}, arrays)
    return highest


def _integrate(given: Arguments, sizes: dict[str, Any], arrays: dict[str, Any]) -> dict[str, Tensor]:
    """Call the forward kernel. Returns what it found."""
    found = room_for_trains(FORWARD, ("found",), given, sizes)
    found["found"].zero_()
    _call(forward_kernel("float64"), FORWARD, sizes, arrays | found, given.equations)
    return found


def _call(kernel: Any, layout: Layout, sizes: dict[str, Any], arrays: dict[str, Any], key: str) -> int:
    """Call a kernel until all neurons are done, or one has no result; or it refuses, which is returned."""
    made, tasks, refused = layout.tensors(("progress", "turns"), arrays["times"], sizes), (sizes["all_chunks"],), 0
    made["progress"].zero_()
    while not refused and int(made["progress"].sum()) < sizes["samples"] * sizes["outputs"]:
        made["turns"].zero_()
        refused = call(kernel, layout, tasks, sizes | {"limit": TURNS}, arrays | made)[REFUSED]
        if not sizes["records"]:
            check_statuses(arrays["found"][..., 1].unflatten(0, (sizes["ensemble"], sizes["batch"])), key)
    return refused


@of_several
def backward(
    grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs, probes: bool = False
) -> Gradients:
    """Gradients at the given spike times. See ``contract``.

    With ``probes``, the times are no spikes: ``grads.spikes`` are by how much the neuron is above its threshold there.
    """
    sizes, arrays = _both(given)
    (found,) = result.saved or forward(given._replace(observed=result.spikes)).saved
    assert given.parameters is not None
    programs = programs_of(given.equations)
    steps = int(found[..., 0].max()) if found.numel() else 0
    sizes |= {
        "by_slots": "parameters" in needs, "by_time": not needs.isdisjoint(("times", "delay")),
        "bounded": max_weight_grad is not None, "asks_end": grads.state is not None,
        "vector_flows": 2 * sizes["states"] * LANES,
        "delayed_parts": sizes["all_chunks"] if sizes["delayed"] else 0,
        "observes": True, "once": False, "records": True, "probes": probes, "coefficients": _rows(*programs[2:]),
    }  # fmt: skip
    arrays |= _codes(given.equations) | arrays_asked(grads, result, given, max_weight_grad) | {"found": found}
    by = zero_gradients(given, needs | _DIRECT)
    made = BACKWARD.tensors(("weight_parts", "delay_parts", "slot_parts", "refractory_parts"), given.times, sizes)
    made |= {f"by_{name}": by[name] for name in _DIRECT}
    sizes["room"], refused = steps + steps // 8 + 16, 1
    while refused:
        for x in made.values():
            x.zero_()
        refused = _call(backward_kernel("float64"), BACKWARD, sizes, arrays | made, given.equations)
        sizes["room"] *= 2  # a step that ends in another place can take more of them

    def total(name: str) -> Tensor:
        return made[name].unflatten(0, (sizes["ensemble"], -1)).sum(1)

    by["weight"] = total("weight_parts")
    if given.delay is not None:
        by["delay"] = total("delay_parts")
    if "parameters" in needs:
        by["parameters"] = _by_parameters(programs, given.parameters, total("slot_parts"), total("refractory_parts"))
    return {name: x for name, x in by.items() if name in needs}


@torch.enable_grad()
def _by_parameters(programs: Programs, parameters: Tensor, by_slots: Tensor, by_refractory: Tensor) -> Tensor:
    """Gradients with respect to the parameters from those by the slots."""
    leaf = parameters.detach().clone().requires_grad_()
    values = slot_values(programs, leaf)
    (found,) = torch.autograd.grad(values, leaf, by_slots, allow_unused=True) if values.requires_grad else (None,)
    found = torch.zeros_like(leaf) if found is None else found
    found[..., -1] += by_refractory
    return found


def _rows(*programs: Program) -> int:
    """Room for the coefficients of any of these programs."""
    return ROW * max(x.inputs + len(x.steps) for x in programs)


def _both(given: Arguments) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sizes and arrays of both passes."""
    programs, codes = programs_of(given.equations), _codes(given.equations)
    equations, parameters = programs.equations, given.parameters
    assert parameters is not None
    places, states = [*map(equations.states.index, equations.receptors)], len(equations.states)
    direct = [name in names_in(equations.excess) for name in equations.states]
    values, delayed = slot_values(programs, parameters), given.delay is not None
    copies = given.times.shape[-1] if given.max_spikes else 1
    sizes: dict[str, Any] = sizes_of_neurons(given.sizes, copies, given.max_spikes, len(places), states - 1, _COST)
    slots = values.shape[-1]
    sizes |= {
        "delayed": sizes["outputs"] * delayed, "signed": given.receptor is None,
        "observes": given.observed is not None, "ends": given.until < math.inf,
        "states": states, "slots": slots, "coefficients": _rows(programs.flow, programs.reset),
        "once": given.once, "records": False, "room": 0, "vector_states": states * LANES, "vector_slots": slots * LANES,
        "vector_tops": (2 * states + 1 + slots) * LANES, "noted": 2 + states, "probes": False, "peaked": 0,
        "all_chunks": sizes["ensemble"] * max(1, min(_CHUNKS, sizes["batch"])), "keeps": equations.keeps,
        **{f"{name}_size": len(code) for name, code in codes.items()},
    }  # fmt: skip
    arrays: dict[str, Any] = {name: getattr(given, name) for name in _GIVEN}
    arrays |= {
        "receptor": None if given.receptor is None else given.receptor.to(torch.int32),
        "places": numbers(torch.int32, *places), "slot_values": values, "refractory": parameters[..., -1],
        "bounds": numbers(torch.float64, given.start, given.until), "direct": numbers(torch.int32, *direct),
        "held": numbers(torch.int32, *(name in equations.held for name in equations.states)),
        "flow": codes["flow"], "reset": codes["reset"],
    }  # fmt: skip
    return sizes, arrays
