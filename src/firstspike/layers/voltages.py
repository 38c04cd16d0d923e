"""Membranes at given times, as data: the operator runs from each point to the next, and gradients flow through it."""

import math
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from firstspike.layers.trains import Spikes, form_of
from firstspike.layers.windows import columns_within, largest
from firstspike.neurons import Neuron
from firstspike.neurons.expressions import value_of
from firstspike.spiketime import TrainState, spike_window
from firstspike.spiketime.parameters import Receptor, starting_state
from firstspike.spiketime.values import real_times

if TYPE_CHECKING:
    from firstspike.layers.neurons import NeuronLayer

_NUMBERS = 1 << 22  # of input times that are worked on at once


def states_at(
    at: Float[Tensor, " points"],
    trains: Float[Tensor, "*batch inputs spikes"],
    weight: Float[Tensor, "out inputs"],
    neuron: Neuron,
    *,
    max_spikes: int = 1,
    observed: Float[Tensor, "*batch out observed"] | None = None,
    delay: Float[Tensor, "out inputs"] | None = None,
    receptor: Receptor = None,
    backend: str = "auto",
) -> tuple[Float[Tensor, "*batch out points"], Float[Tensor, "*batch out points states"]]:
    """Membranes, and all other states, at times in any order; just after a spike or an input that is at one of them.

    Args:
        at: the times, finite. Neurons from equations, and those with a bias, begin at 0, and are as at 0 before it.
        trains: see ``spike_trains``, as all that is not here.
        max_spikes: most spikes. A neuron with more stays at its reset.
        observed: spikes from elsewhere: data, at which neurons are reset in place of at their own.

    Raises:
        ValueError: points that are no list of finite numbers; errors of ``spike_trains``.
    """
    if not isinstance(at, Tensor) or at.ndim != 1 or at.is_complex() or not bool(at.isfinite().all()):
        got = f"{at.dtype} of shape {tuple(at.shape)}" if isinstance(at, Tensor) else repr(at)
        raise ValueError(f"at: expected finite times (points,), such as torch.tensor([1.0, 2.0]), got {got}")
    given: dict[str, Any] = {"delay": delay, "receptor": receptor, "overflow": "drop", "backend": backend}
    trains = real_times(trains).sort(dim=-1).values
    given["max_spikes"] = max_spikes
    if observed is not None or neuron.begins:
        voltage, others = _one_by_one(at, trains, weight, neuron, observed, given)
    else:
        voltage, others = _at_once(at, trains, weight, neuron, given)
    return voltage, others if neuron.parts else others.unsqueeze(-1)


def _at_once(at: Tensor, trains: Tensor, weight: Tensor, neuron: Neuron, given: Any) -> tuple[Tensor, Tensor]:
    """Membranes of neurons without a start: samples for each point, whose times are moved so that they all end at 0."""
    kept = []
    for some in at.to(trains).split(max(1, _NUMBERS // max(1, trains.numel()))):
        ends = some.view(-1, *[1] * trains.ndim)
        kept.append(spike_window(trains - ends, weight, neuron, until=0.0, **given).state[:2])  # type: ignore[index]
    voltage, others = (torch.cat(x) for x in zip(*kept, strict=True))
    return voltage.movedim(0, -1), others.movedim(0, trains.ndim - 1)


def _one_by_one(
    at: Tensor, trains: Tensor, weight: Tensor, neuron: Neuron, observed: Tensor | None, given: Any
) -> tuple[Tensor, Tensor]:
    """Membranes from each point to the next; observed spikes are also points."""
    longest = 0.0 if given["delay"] is None else 1.001 * largest(given["delay"])
    runs, points = neuron, at
    if observed is not None:
        runs, points = neuron.without_spikes(), torch.cat([at, observed[observed.isfinite()].to(at)])
    start, state, kept, points = 0.0 if neuron.begins else -math.inf, None, [], points.unique()  # sorted
    for end in points.tolist() or [0.0]:
        if end > start:
            now = columns_within(trains, start - longest, end) if trains.shape[-1] > 1 else trains
            state = spike_window(now, weight, runs, state=state, until=end, **given).state
            start = end
        if observed is not None and bool((spiking := (observed == end).any(dim=-1)).any()):
            state = _after_spikes(neuron, _at_start(neuron, trains, weight) if state is None else state, spiking)
        kept.append((_at_start(neuron, trains, weight) if state is None else state)[:2])
    place = torch.searchsorted(points, at)
    voltage, others = (torch.stack([x[k] for x in kept]) for k in (0, 1))
    return voltage[place].movedim(0, -1), others[place].movedim(0, trains.ndim - 1)


def _after_spikes(neuron: Any, state: TrainState, spiking: Bool[Tensor, "*batch out"]) -> TrainState:
    """The state after neurons spiked at its end."""
    voltage, others, left, end = state
    if neuron.equations is not None:
        old = dict(zip(neuron.equations.states, (voltage, *others.unbind(-1)), strict=True))
        values = {name: torch.as_tensor(x) for name, x in neuron.named_values.items()} | old
        new = [torch.as_tensor(value_of(x, values)).to(voltage).expand_as(voltage) for x in neuron.equations.after]
        after, jumped = new[0], torch.stack(new[1:], dim=-1) if new[1:] else others
    else:
        after = voltage if neuron.reset is None else torch.as_tensor(neuron.reset).to(voltage).expand_as(voltage)
        jumps = [part.jump if part.kind in ("current", "threshold") else 0.0 for part in neuron.components]
        added = [torch.as_tensor(x).to(voltage).expand_as(voltage) for x in jumps]
        jumped = others + torch.stack(added, dim=-1) if added else others
    held = torch.as_tensor(neuron.values["refractory"]).to(voltage).expand_as(voltage)
    some = spiking.unsqueeze(-1) if neuron.parts else spiking
    voltage, others = torch.where(spiking, after, voltage), torch.where(some, jumped, others)
    return TrainState(voltage, others, torch.where(spiking, held, left), end)


def _at_start(neuron: Neuron, trains: Tensor, weight: Tensor) -> TrainState:
    samples, lead = math.prod(trains.shape[:-2]), trains.shape[:-2]
    if neuron.equations is not None:
        voltage, others, left = starting_state(neuron, samples, weight)
    else:
        voltage = left = weight.new_zeros(samples, len(weight))
        others = voltage.new_zeros(*voltage.shape, *neuron.parts)
    voltage, others, left = (x.reshape(*lead, *x.shape[1:]) for x in (voltage, others, left))
    return TrainState(voltage, others, left, 0.0)


def membranes(
    layer: "NeuronLayer", times: Spikes, at: Float[Tensor, " points"], observed: Tensor | None = None
) -> Float[Tensor, "*batch out points"]:
    """The membranes of a layer, as in ``NeuronLayer.voltages``."""
    neuron, voltage, others = _run(layer, times, at, observed)
    if neuron.equations is None:
        return voltage
    return neuron.membrane_of(_by_name(neuron, voltage, others), layer.weight).mT


def excess(
    layer: "NeuronLayer", times: Spikes, at: Float[Tensor, " points"], observed: Tensor | None = None
) -> Float[Tensor, "*batch out points"]:
    """How far neurons are above their threshold at given times, in units of it, or of how far they start below it."""
    neuron, voltage, others = _run(layer, times, at, observed)
    if neuron.equations is not None:
        values = {name: torch.as_tensor(x) for name, x in neuron.named_values.items()}
        above = torch.as_tensor(value_of(neuron.equations.excess, values | _by_name(neuron, voltage, others)))
        return above.mT / neuron.beginning(values)[1].detach().abs().reshape(-1, 1).to(above)
    threshold = torch.as_tensor(neuron.threshold).to(voltage).reshape(-1, 1)
    for k, component in enumerate(neuron.components):
        if component.kind == "threshold":
            voltage = voltage - others[..., k]
    return (voltage - threshold) / threshold.detach()


def _by_name(neuron: Any, voltage: Tensor, others: Tensor) -> dict[str, Float[Tensor, "*batch points out"]]:
    """States of neurons from equations. The neurons come last, as in their values."""
    return {name: x.mT for name, x in zip(neuron.equations.states, (voltage, *others.unbind(-1)), strict=True)}


def _run(layer: Any, times: Spikes, at: Tensor, observed: Tensor | None) -> tuple[Any, Tensor, Tensor]:
    """The neurons, and their states at the points."""
    if layer.weight.ndim != 2:
        raise ValueError(f"{layer._name} has no voltages: neurons at several places see different inputs")
    neuron, trains, quiet = layer.neuron, form_of(layer) == "trains", layer.neuron
    seen = layer.fed(times, layer(times, observed) if hasattr(layer, "recurrent_weight") else None)
    if form_of(layer) == "values" or not (trains or neuron.equations):
        quiet = neuron.without_spikes()
    given: dict[str, Any] = {"delay": seen.delay, "receptor": seen.receptor, "backend": layer.backend}
    given |= {"max_spikes": layer.max_spikes, "observed": observed} if trains else {}
    found = states_at(at, seen.times, seen.weight, quiet, **given)
    if at.numel() and float(at.max()) > seen.until:
        raise ValueError(f"at: the layer stops at {seen.until:g}, got a time of {float(at.max()):g}")
    return neuron, *found
