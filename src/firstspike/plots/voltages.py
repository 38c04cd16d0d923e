"""Membranes, thresholds and currents of neurons at given times, by their inputs and their own spikes.

Every input of a linear neuron adds the response of its receptor (see ``spiketime/response.py``), and
every spike of the neuron that of its adaptation currents, so that nothing is integrated. The states of neurons from
equations are computed by the operator from one time to the next.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from firstspike.layers import SpikeTrains, SpikingLinear
from firstspike.layers.synapses import Arriving
from firstspike.layers.voltages import states_at
from firstspike.spiketime.response import Receptor, at_rest, reaching, response, time_constants_of

_MOST = 1000  # spikes of a neuron from equations between two points
_ABOVE, _BELOW = 2.5, -2.5  # in which membranes are drawn that run away, in thresholds


class Voltages(NamedTuple):
    """Membranes, thresholds and currents to draw, relative to the leak."""

    voltage: Float64[Tensor, "out points"]
    threshold: Float64[Tensor, "out points"]
    currents: dict[str, Float64[Tensor, "out points"]]
    """Currents of receptors and of adaptation, with their signs, for neurons with ``components``."""


class _Source(NamedTuple):
    """Events that each start the same current, into the membrane or, where it has no name, the threshold."""

    name: str
    events: Float64[Tensor, "*out events"]
    weight: Float64[Tensor, "out weights"]
    taus: Receptor

    def membrane(self, at: Float64[Tensor, "*out points"], tau_mem: Tensor) -> Float64[Tensor, "out points"]:
        """The effect on the membrane."""
        return self._sum(response(self._since(at), tau_mem, self.taus))

    def current(self, at: Float64[Tensor, " points"]) -> Float64[Tensor, "out points"]:
        """The current itself."""
        since, (tau, rise) = self._since(at), self.taus
        jumps = torch.where(since > 0, torch.exp(-since / tau), 0.0)
        return self._sum(jumps if rise is None else response(since, tau, Receptor(rise, None)))

    def _since(self, at: Tensor) -> Float64[Tensor, "*out points events"]:
        """Times that have passed, 0 before."""
        return (at.unsqueeze(-1) - self.events.unsqueeze(-2)).clamp(min=0)

    def _sum(self, course: Tensor) -> Float64[Tensor, "out points"]:
        return (self.weight.unsqueeze(-2) * course).sum(dim=-1)


def _sources(neuron: Any, seen: Arriving, own: Float64[Tensor, "out spikes"]) -> list[_Source]:
    """Inputs by receptor, and the neurons' own spikes by what adapts, the currents first."""
    times, weight, delay, _, reached = seen
    arrival = times.double() if delay is None else times.double() + delay.double()
    if neuron.begins:
        arrival = torch.where(arrival < 0, torch.inf, arrival)
    receptors, numbers = time_constants_of(neuron), reached if isinstance(reached, Tensor) else None
    several, found = len(receptors) > 1, []
    for k, (tau, rise) in enumerate(receptors):
        some = reaching(weight.double(), numbers, k) if several else weight.double()
        taus = Receptor(_by_neuron(tau), None if rise is None else _by_neuron(rise))
        found.append(_Source(f"receptor {k}" if several else "input", arrival, some, taus))
    several = sum(part.kind == "current" for part in neuron.components) > 1
    adapting = [part for part in neuron.components if part.kind in ("current", "threshold")]
    for k, part in enumerate(adapting):
        jump = double(part.jump).reshape(-1, 1)
        name = "" if part.kind == "threshold" else f"adaptation {k}" if several else "adaptation"
        found.append(_Source(name, own, -jump if name else jump, Receptor(_by_neuron(part.tau), None)))
    return found


def double(value: Any) -> Float64[Tensor, "..."]:
    """A parameter of neurons on the CPU."""
    return torch.as_tensor(value, dtype=torch.float64).detach().cpu()


def _by_neuron(tau: Any) -> Float64[Tensor, "out 1 1"]:
    """A time constant, shaped to broadcast over points and events."""
    return double(tau).reshape(-1, 1, 1)


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
    delay = None if arriving.delay is None else arriving.delay.cpu()[neurons]
    reached = arriving.receptor.cpu() if isinstance(arriving.receptor, Tensor) else arriving.receptor
    weight = arriving.weight.cpu()[neurons]
    own = spikes[neurons].double() if isinstance(layer, SpikeTrains) else torch.empty(len(neurons), 0).double()
    seen = arriving._replace(times=arriving.times[0].cpu(), weight=weight, delay=delay, receptor=reached)
    return neuron, seen, own


def voltages(at: Float[Tensor, " points"], neuron: Any, seen: Arriving, own: Float64[Tensor, "out spikes"]) -> Voltages:
    """Membranes of the neurons of ``chosen_of`` with their thresholds and currents, in float64 on the CPU.

    They are reset at their ``own`` spikes, if there are any, and stay there for their refractory time. At such a time,
    the voltage is that just before it. Neurons that would spike more often than there is room for are held at the
    reset, as their layer does. Neurons from equations spike on, whatever the spikes.
    """
    at = at.double()
    if neuron.equations is not None:
        return _of_states(at, neuron, seen)
    sources = _sources(neuron, seen, own)
    tau_mem, moves = (double(x).reshape(-1, 1) for x in (neuron.tau_mem, neuron.threshold))
    moves = moves.expand(len(own), len(at))

    def driven(at: Tensor) -> Tensor:
        bias = double(neuron.bias).reshape(-1, 1)
        total = at_rest(at.clamp(min=0), tau_mem, bias) if neuron.begins else at.new_zeros(())
        return sum((x.membrane(at, tau_mem.unsqueeze(-1)) for x in sources if x.name), total)

    voltage, currents = driven(at), {}
    for source in sources if neuron.components else ():
        if source.name:
            currents[source.name] = source.current(at)
        else:
            moves = moves + source.current(at)
    if not own.shape[-1] or neuron.reset is None:
        return Voltages(voltage, moves, currents)
    # a reset moves the membrane and not the currents, so its effect decays with ``tau_mem`` alone
    reset, refractory = (double(x).reshape(-1, 1) for x in (neuron.reset, neuron.refractory))
    free = torch.where(torch.isfinite(own), own + refractory, 0.0)  # when membranes go on
    shift = reset - driven(free)
    last = torch.searchsorted(own.contiguous(), at.expand(len(own), -1).contiguous()) - 1  # spike before a point
    nth, since = last.clamp(min=0), at - free.gather(1, last.clamp(min=0))
    decay = torch.exp(-since.clamp(min=0) / tau_mem)
    voltage = torch.where(last >= 0, voltage + shift.gather(1, nth) * decay, voltage)
    voltage = torch.where((last >= 0) & (since < 0), reset, voltage)
    late = (own[:, -1:] < at) & torch.isfinite(own[:, -1:])  # after the last spike that there is room for
    held = (late & (voltage > moves)).any(dim=-1, keepdim=True)
    return Voltages(torch.where(late & held, reset, voltage), moves, currents)


@torch.no_grad()
def _of_states(at: Float64[Tensor, " points"], neuron: Any, seen: Arriving) -> Voltages:
    """The membrane, 0 at the start and 1 at the threshold; all other states, as changes, the largest of which is 1.

    Membranes that run away are cut.
    """
    inputs, weight = seen.times.double()[None, :, None], seen.weight.double()
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
