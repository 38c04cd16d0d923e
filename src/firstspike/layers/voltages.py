"""Membranes at given times, as data: gradients flow through them."""

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from firstspike.layers.trains import Spikes, form_of
from firstspike.layers.windows import columns_within, largest
from firstspike.neurons import Neuron
from firstspike.neurons.base import ROLES
from firstspike.neurons.expressions import value_of
from firstspike.spiketime import TrainState, spike_window
from firstspike.spiketime.current import Current, injected, without_current
from firstspike.spiketime.parameters import Receptor, parameters_of, starting_state
from firstspike.spiketime.states import linear_states
from firstspike.spiketime.values import MOST_SPIKES, checked, real_times

if TYPE_CHECKING:
    from firstspike.layers.neurons import NeuronLayer


def states_at(
    at: Float[Tensor, " points"] | Float[Tensor, "*batch out points"],
    trains: Float[Tensor, "*batch inputs spikes"],
    weight: Float[Tensor, "out inputs"],
    neuron: Neuron,
    *,
    max_spikes: int = 1,
    observed: Float[Tensor, "*batch out observed"] | None = None,
    current: Current | None = None,
    delay: Float[Tensor, "out inputs"] | None = None,
    receptor: Receptor = None,
    backend: str = "auto",
) -> tuple[Float[Tensor, "*batch out points"], Float[Tensor, "*batch out points states"]]:
    """Membranes, and all other states, at times in any order; just after a spike or an input that is at one of them.

    Args:
        at: the times, finite, for all neurons or for each. Neurons from equations, and those with a bias, begin at 0,
            and are as at 0 before it.
        trains: see ``spike_trains``, as all that is not here.
        max_spikes: most spikes. A neuron with more stays at its reset.
        observed: spikes from elsewhere: data, at which neurons are reset in place of at their own. One whose membrane
            would run away, as that of AdEx, stays at its reset from its own spike until the next of these.
        current: what is injected into the neurons, which no state shows.

    Raises:
        ValueError: points that are no list of finite numbers; errors of ``spike_trains``.
    """
    given: dict[str, Any]
    lead = *trains.shape[:-2], len(weight)
    known = isinstance(at, Tensor) and (at.ndim == 1 or at.shape[:-1] == lead)
    if not known or at.is_complex() or not bool(at.isfinite().all()):
        got = f"{at.dtype} of shape {tuple(at.shape)}" if isinstance(at, Tensor) else repr(at)
        more = f"; those of each neuron are {(*lead, 'points')}" if isinstance(at, Tensor) and at.ndim > 1 else ""
        raise ValueError(f"at: expected finite times (points,), such as torch.tensor([1.0, 2.0]), got {got}{more}")
    if at.ndim > 1 and neuron.equations is not None:
        points, place = at.unique(return_inverse=True)
        given = {"observed": observed, "current": current, "delay": delay, "receptor": receptor, "backend": backend}
        every, rest = states_at(points, trains, weight, neuron, max_spikes=max_spikes, **given)
        return every.take_along_dim(place, dim=-1), rest.take_along_dim(place.unsqueeze(-1), dim=-2)
    if current is not None:
        options = {"max_spikes": max_spikes, "observed": observed, "delay": delay, "receptor": receptor}
        run = partial(_with_current, at)
        return injected(run, current, trains, weight, neuron, **options, backend=backend)
    given = {"delay": delay, "receptor": receptor, "overflow": "drop", "backend": backend}
    seen = None if observed is None else observed.to(weight).detach()
    most = max_spikes if seen is None else seen.shape[-1]
    trains, delay, seen = checked(real_times(trains), weight, neuron, None, delay, seen, (most,))
    trains, given["delay"] = trains.sort(dim=-1).values, delay
    # points and spikes that are one number in the dtype of the weights are at one time
    points, place = at.to(weight).unique(return_inverse=True) if at.ndim == 1 else (at.to(weight), ...)
    shape, samples = (*lead, points.shape[-1]), math.prod(trains.shape[:-2])
    if not math.prod(shape):
        return weight.new_empty(shape), weight.new_empty(*shape, *(neuron.parts or (1,)))
    if neuron.equations is not None:
        states = _one_by_one(points, trains, weight, neuron, seen, given | {"max_spikes": max_spikes})
    else:
        if seen is None:
            seen, end = weight.new_empty(*shape[:-1], 0), float(points.max())
            if end > 0 or not neuron.begins:
                given["max_spikes"] = min(most + 1, MOST_SPIKES)
                seen = spike_window(trains, weight, neuron, until=end, **given).trains
        trains, seen = (x.reshape(samples, *x.shape[-2:]) for x in (trains, seen))
        reached = parameters_of(neuron, weight, receptor)[1].get("receptor")
        points = points.reshape(samples, *points.shape[-2:]) if points.ndim > 1 else points
        states = linear_states(points.double(), trains, weight, neuron, seen, delay, reached, most)
    voltage, *others = (x.reshape(shape)[..., place].to(weight) for x in states)
    return voltage, torch.stack(others, dim=-1) if others else voltage.new_empty(*voltage.shape, 0)


def _with_current(
    at: Tensor, current: Current, trains: Tensor, weight: Tensor, neuron: Neuron, *, delay: Any, receptor: Receptor,
    **options: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """``states_at`` with a current that all samples share."""
    trains, weight, driven, delay, receptor = current.add_to(trains, weight, neuron, delay, receptor)
    voltage, others = states_at(at, trains, weight, driven, delay=delay, receptor=receptor, **options)
    return voltage, without_current(others, driven)


def _one_by_one(
    points: Tensor, trains: Tensor, weight: Tensor, neuron: Any, observed: Tensor | None, given: Any
) -> list[Float[Tensor, "*batch out points"]]:
    """States of neurons from equations from each point to the next, in float64; observed spikes are also points."""
    lead, trains, weight = trains.shape[:-2], trains.double(), weight.double()
    delay, longest, arrivals = given["delay"], 0.0, trains
    if delay is not None:
        given["delay"] = delay = delay.double()
        longest, arrivals = 1.001 * largest(delay), trains.unsqueeze(-3) + delay.unsqueeze(-1)
    runs, ends = neuron, points.double()
    if observed is not None:
        observed = observed.double()
        quiet = neuron.waiting() if neuron.equations.runs_away else neuron.without_spikes()
        runs, ends = quiet, torch.cat([ends, observed[observed.isfinite()]]).unique()
    asked, arriving, kept = set(points.tolist()), set(arrivals[arrivals >= 0].tolist()), []
    voltage, others, left = (x.reshape(*lead, *x.shape[1:]) for x in starting_state(neuron, math.prod(lead), weight))
    state = TrainState(voltage, others, left, 0.0)

    def after(end: float) -> TrainState:
        now = columns_within(trains, state.time - longest, end) if trains.shape[-1] > 1 else trains
        found = spike_window(now, weight, runs, state=state, until=end, **given).state
        assert found is not None
        return found

    for end in ends.tolist():
        if end > state.time:
            state = after(end)
        if observed is not None and bool((spiking := (observed == end).any(dim=-1)).any()):
            state = after_spikes(neuron, state, spiking)
        if end in asked:  # what arrives at a time is not seen until then
            kept.append((after(math.nextafter(end, math.inf)) if end in arriving else state)[:2])
    voltage, others = (torch.stack(x) for x in zip(*kept, strict=True))
    return [x.movedim(0, -1) for x in (voltage, *others.unbind(-1))]


def after_spikes(neuron: Any, state: TrainState, spiking: Bool[Tensor, "*batch out"]) -> TrainState:
    """The state after neurons from equations spiked at its end."""
    voltage, others, left, end = state
    old = dict(zip(neuron.equations.states, (voltage, *others.unbind(-1)), strict=True))
    values = {name: _like(voltage, x) for name, x in neuron.named_values.items()} | old
    new = [_like(voltage, value_of(x, values)).expand_as(voltage) for x in neuron.equations.after]
    held = _like(voltage, neuron.values["refractory"]).expand_as(voltage)
    voltage = torch.where(spiking, new[0], voltage)
    if new[1:]:
        others = torch.where(spiking.unsqueeze(-1), torch.stack(new[1:], dim=-1), others)
    return TrainState(voltage, others, torch.where(spiking, held, left), end)


def membranes(
    layer: "NeuronLayer", times: Spikes, at: Tensor, observed: Tensor | None = None, current: Current | None = None
) -> Float[Tensor, "*batch out points"]:
    """The membranes of a layer, as in ``NeuronLayer.voltages``."""
    neuron, voltage, others = _run(layer, times, at, observed, current)
    if neuron.equations is None:
        return voltage
    return neuron.membrane_of(_by_name(neuron, voltage, others), layer.weight).mT


def excess(
    layer: "NeuronLayer", times: Spikes, at: Float[Tensor, " points"], observed: Tensor | None = None
) -> Float[Tensor, "*batch out points"]:
    """How far neurons are above their threshold at given times, in units of it, or of how far they start below it."""
    return excess_of(*_run(layer, times, at, observed))


def excess_of(neuron: Any, voltage: Tensor, others: Tensor) -> Tensor:
    """``excess`` of neurons in states that ``states_at`` found."""
    if neuron.equations is not None:
        values = {name: _like(voltage, x) for name, x in neuron.named_values.items()}
        above = _like(voltage, value_of(neuron.equations.excess, values | _by_name(neuron, voltage, others)))
        return above.mT / neuron.beginning(values)[1].detach().abs().reshape(-1, 1).to(above)
    threshold = _like(voltage, neuron.threshold).reshape(-1, 1)
    for k, component in enumerate(neuron.components):
        if not ROLES[component.kind].sign:
            voltage = voltage - others[..., k]
    return (voltage - threshold) / threshold.detach()


def _like(voltage: Tensor, value: Any) -> Tensor:
    """A number or a tensor with the dtype of membranes."""
    return torch.as_tensor(value, dtype=voltage.dtype, device=voltage.device)


def _by_name(neuron: Any, voltage: Tensor, others: Tensor) -> dict[str, Float[Tensor, "*batch points out"]]:
    """States of neurons from equations. The neurons come last, as in their values."""
    return {name: x.mT for name, x in zip(neuron.equations.states, (voltage, *others.unbind(-1)), strict=True)}


def _run(
    layer: Any, times: Spikes, at: Tensor, observed: Tensor | None, current: Current | None = None
) -> tuple[Any, Tensor, Tensor]:
    """The neurons, and their states at the points."""
    if layer.weight.ndim > 2:
        raise ValueError(f"{layer._name} has no voltages: neurons at several places see different inputs")
    neuron, trains, quiet = layer.neuron, form_of(layer) == "trains", layer.neuron
    seen = layer.fed(times, layer(times, observed, current) if hasattr(layer, "recurrent_weight") else None)
    if form_of(layer) == "values" or not (trains or neuron.equations):
        quiet = neuron.without_spikes()
    given: dict[str, Any] = {"delay": seen.delay, "receptor": seen.receptor, "backend": layer.backend}
    given |= {"max_spikes": layer.max_spikes, "observed": observed} if trains else {}
    found = states_at(at, seen.times, seen.weight, quiet, current=current, **given)
    if at.numel() and float(at.max()) > seen.until:
        raise ValueError(f"at: the layer stops at {seen.until:g}, got a time of {float(at.max()):g}")
    return neuron, *found
