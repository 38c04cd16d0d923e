"""Membranes, thresholds and currents of neurons at given times, by their inputs and their own spikes."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from firstspike.layers import SpikeTrains, SpikingLinear
from firstspike.layers.synapses import Arriving
from firstspike.layers.voltages import states_at
from firstspike.neurons.base import ROLES

_MOST = 1000  # spikes of a neuron from equations between two points
_ABOVE, _BELOW = 2.5, -2.5  # in which membranes are drawn that run away, in thresholds


class Voltages(NamedTuple):
    """Membranes, thresholds and currents to draw, relative to the leak."""

    voltage: Float64[Tensor, "out points"]
    threshold: Float64[Tensor, "out points"]
    currents: dict[str, Float64[Tensor, "out points"]]
    """Currents of receptors and of adaptation, with their signs, for neurons with ``components``."""


def double(value: Any) -> Float64[Tensor, "..."]:
    """A parameter of neurons on the CPU."""
    return torch.as_tensor(value, dtype=torch.float64).detach().cpu()


@torch.no_grad()
def chosen_of(
    layer: SpikingLinear | SpikeTrains,
    neurons: Sequence[int],
    times: Float[Tensor, " inputs *spikes"],
    spikes: Float[Tensor, " out *spikes"],
) -> tuple[Any, Arriving, Float64[Tensor, "chosen own"]]:
    """Constants of some neurons of a layer, all that arrives at them in a sample, and spikes that reset them.

    All is on the CPU. ``times`` are those of the inputs, ``spikes`` those of all neurons of the layer.
    """

    def of_them(x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(map(of_them, x))
        return double(x).expand(layer.out_features)[neurons] if isinstance(x, Tensor) else x

    # numbers stay numbers: 0 and None stand for missing parts
    neuron = layer.neuron.with_values(**{name: of_them(x) for name, x in layer.neuron.values.items()})
    each = (x.double().to(layer.weight.device).unsqueeze(0) for x in (times, spikes))
    arriving = layer.arriving(*each)
    delay = None if arriving.delay is None else arriving.delay.cpu()[neurons].double()
    reached = arriving.receptor.cpu() if isinstance(arriving.receptor, Tensor) else arriving.receptor
    weight = arriving.weight.cpu()[neurons].double()
    own = spikes[neurons].double() if isinstance(layer, SpikeTrains) else torch.empty(len(neurons), 0).double()
    seen = arriving._replace(times=arriving.times[0].cpu(), weight=weight, delay=delay, receptor=reached)
    return neuron, seen, own


@torch.no_grad()
def voltages(at: Float[Tensor, " points"], neuron: Any, seen: Arriving, own: Float64[Tensor, "out spikes"]) -> Voltages:
    """Membranes of the neurons of ``chosen_of`` with their thresholds and currents, in float64 on the CPU.

    They are reset at their ``own`` spikes, if there are any, and stay there for their refractory time. At such a time,
    the voltage is that just before it. Neurons that would spike more often than there is room for are held at the
    reset, as their layer does. Neurons from equations spike on, whatever the spikes.
    """
    at = at.double()
    if neuron.equations is not None:
        return _of_states(at, neuron, seen)
    before = torch.nextafter(at, at.new_tensor(-torch.inf))
    inputs, weight = seen.times.double()[None, :, None], seen.weight
    of_one = states_at(before, inputs, weight, neuron, observed=own[None], delay=seen.delay, receptor=seen.receptor)
    voltage, others = (x[0] for x in of_one)
    moves = double(neuron.threshold).reshape(-1, 1).expand_as(voltage)
    kinds, currents = [part.kind for part in neuron.components], {}
    for k, (kind, state) in enumerate(zip(kinds, others.unbind(-1), strict=False)):
        role = ROLES[kind]
        if not role.sign:
            moves = moves + state
        elif not role.feeds:
            several, number = kinds.count(kind) > 1, kinds[:k].count(kind)
            name = "adaptation" if role.own else "receptor" if several else "input"
            currents[f"{name} {number}" if several else name] = role.sign * state
    if not own.shape[-1] or neuron.reset is None:
        return Voltages(voltage, moves, currents)
    late = (own[:, -1:] < at) & torch.isfinite(own[:, -1:])  # after the last spike that there is room for
    held = (late & (voltage > moves)).any(dim=-1, keepdim=True)
    return Voltages(torch.where(late & held, double(neuron.reset).reshape(-1, 1), voltage), moves, currents)


@torch.no_grad()
def _of_states(at: Float64[Tensor, " points"], neuron: Any, seen: Arriving) -> Voltages:
    """The membrane, 0 at the start and 1 at the threshold; all other states, as changes, the largest of which is 1.

    Membranes that run away are cut.
    """
    inputs, weight = seen.times.double()[None, :, None], seen.weight
    voltage, others = states_at(at, inputs, weight, neuron, max_spikes=_MOST, delay=seen.delay, receptor=seen.receptor)
    states = dict(zip(neuron.equations.states, (voltage[0], *others[0].unbind(-1)), strict=True))
    values = {name: double(x) for name, x in neuron.named_values.items()}
    starts, excess = neuron.beginning(values)
    rest = neuron.membrane_of({name: double(x) for name, x in starts.items()}, at[:1])
    above = values["threshold"] - rest if "threshold" in values else -double(excess)
    above = torch.where(above.isfinite() & (above > 0), above, 1.0)  # it may be at infinity
    turned = neuron.membrane_of({name: x.mT for name, x in states.items()}, at)  # neurons come last
    membrane = (turned.mT - rest.reshape(-1, 1)) / above.reshape(-1, 1)
    membrane = torch.where(membrane.isfinite(), membrane, _BELOW).clamp(_BELOW, _ABOVE)
    order = dict.fromkeys([*neuron.equations.receptors, *states])  # inputs first, as of linear neurons
    currents = {name: states[name] for name in order if name not in re.findall(r"\w+", neuron.membrane)}
    moves = {name: x - x[:, :1] for name, x in currents.items()}
    shown = {name: x / x.abs().max().clamp(min=1e-300) for name, x in moves.items()}
    return Voltages(membrane, torch.ones_like(membrane), shown)
