"""Membranes, thresholds and currents of neurons at given times, by their inputs and their own spikes.

Every input adds the response of its receptor (see ``spiketime/reference/linear_response.py``), and every spike of the
neuron that of its adaptation currents, so that nothing is integrated.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from firstspike.layers import SpikeTrains, SpikingLinear
from firstspike.layers.synapses import Arriving
from firstspike.neurons import LIF
from firstspike.spiketime.parameters import Receptor as Reached
from firstspike.spiketime.reference.linear_response import Receptor, at_rest, reaching, response, time_constants_of


class Voltages(NamedTuple):
    """Membranes, thresholds and currents to draw, relative to the leak."""

    voltage: Float64[Tensor, "out points"]
    threshold: Float64[Tensor, "out points"]
    currents: dict[str, Float64[Tensor, "out points"]]
    """Currents of receptors and of adaptation, with their signs, for neurons with ``components``."""


class _Inputs(NamedTuple):
    """Inputs of neurons, by receptor."""

    arrival: Float64[Tensor, "*out inputs"]
    receptors: list[Receptor]
    weights: list[Float64[Tensor, "out inputs"]]


def _inputs(neuron: LIF, times: Tensor, weight: Tensor, delay: Tensor | None, reached: Reached) -> _Inputs:
    arrival = times.double() if delay is None else times.double() + delay.double()
    if _bias(neuron) is not None:
        arrival = torch.where(arrival < 0, torch.inf, arrival)
    receptors, numbers = time_constants_of(neuron), reached if isinstance(reached, Tensor) else None
    several = len(receptors) > 1
    weights = [reaching(weight.double(), numbers, k) if several else weight.double() for k in range(len(receptors))]
    return _Inputs(arrival, [Receptor(*map(_by_neuron, one)) for one in receptors], weights)


def _bias(neuron: LIF) -> Any:
    return neuron.bias if isinstance(neuron.bias, Tensor) or neuron.bias else None


def _since(at: Tensor, events: Tensor) -> Float64[Tensor, "*out points events"]:
    """Times that have passed, 0 before; ``at`` are points (points,), or (out, points) of each neuron."""
    return (at.unsqueeze(-1) - events.unsqueeze(-2)).clamp(min=0)


def membrane_voltage(
    at: Float[Tensor, " points"],
    times: Float[Tensor, " inputs"],
    weight: Float[Tensor, "out inputs"],
    neuron: LIF,
    delay: Float[Tensor, "out inputs"] | None = None,
    *,
    resets: Float[Tensor, "out spikes"] | None = None,
    receptor: Reached = None,
) -> Float[Tensor, "out points"]:
    """Voltage of neurons relative to the leak, in float64; without ``resets`` that of neurons that do not spike.

    ``resets`` are sorted times of the neurons' own spikes, ``inf`` after the last one. At such a time, the voltage is
    that just before it. Then the neuron stays at its reset for its refractory time. A reset moves the membrane and
    not the currents, so its effect decays with ``tau_mem`` alone.
    """
    inputs, tau_mem = _inputs(neuron, times, weight, delay, receptor), _by_neuron(neuron.tau_mem)
    own = None if resets is None else resets.double()

    def driven(at: Tensor) -> Tensor:
        since = _since(at, inputs.arrival)
        total = at.new_zeros(())
        if (bias := _bias(neuron)) is not None:
            total = at_rest(at.clamp(min=0), tau_mem.squeeze(-1), double(bias).reshape(-1, 1))
        for one, strength in zip(inputs.receptors, inputs.weights, strict=True):
            total = total + (strength.unsqueeze(-2) * response(since, tau_mem, one)).sum(dim=-1)
        for part in neuron.components:
            if part.kind == "current" and own is not None:
                kick = response(_since(at, own), tau_mem, Receptor(_by_neuron(part.tau), None)).sum(dim=-1)
                total = total - double(part.jump).reshape(-1, 1) * kick
        return total

    at = at.double()
    voltage = driven(at)
    if own is None or neuron.reset is None:
        return voltage
    reset, refractory = (double(x).reshape(-1, 1) for x in (neuron.reset, neuron.refractory))
    free = torch.where(torch.isfinite(own), own + refractory, 0.0)  # when membranes go on
    shift = reset - driven(free)
    last = torch.searchsorted(own.contiguous(), at.expand(len(own), -1).contiguous()) - 1  # spike before a point
    nth, since = last.clamp(min=0), at - free.gather(1, last.clamp(min=0))
    decay = torch.exp(-since.clamp(min=0) / tau_mem.squeeze(-1))
    voltage = torch.where(last >= 0, voltage + shift.gather(1, nth) * decay, voltage)
    return torch.where((last >= 0) & (since < 0), reset, voltage)


def double(value: Any) -> Float64[Tensor, "..."]:
    """A parameter of neurons on the CPU."""
    return torch.as_tensor(value, dtype=torch.float64).detach().cpu()


def _by_neuron(value: Any) -> Any:
    """A value per neuron, shaped to broadcast over points and inputs."""
    return None if value is None else double(value).reshape(-1, 1, 1)


@torch.no_grad()
def chosen_of(
    layer: SpikingLinear | SpikeTrains, neurons: Sequence[int], times: Tensor, spikes: Tensor
) -> tuple[LIF, Arriving]:
    """Constants of some neurons of a layer, and all that arrives at them in a sample, on the CPU."""

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
    return neuron, arriving._replace(times=arriving.times[0].cpu(), weight=weight, delay=delay, receptor=reached)


def voltages(
    layer: SpikingLinear | SpikeTrains,
    neurons: Sequence[int],
    at: Float[Tensor, " points"],
    times: Float[Tensor, " inputs *spikes"],
    spikes: Float[Tensor, " out *spikes"],
) -> Voltages:
    """Membranes of some neurons of a layer with their thresholds and currents, in float64 on the CPU.

    Those of spike trains are reset at their spikes, all others never. Neurons that would spike more often than
    ``max_spikes`` are held at the reset, as their layer does. ``times`` are those of the inputs, ``spikes`` those of
    all neurons of the layer.
    """
    neuron, (seen, weight, delay, _, receptor) = chosen_of(layer, neurons, times, spikes)
    own = spikes[neurons].double() if isinstance(layer, SpikeTrains) else None
    voltage = membrane_voltage(at, seen, weight, neuron, delay, resets=own, receptor=receptor)
    moves, currents = double(neuron.threshold).reshape(-1, 1).expand(len(neurons), len(at)), {}
    for name, current in _currents(at.double(), neuron, _inputs(neuron, seen, weight, delay, receptor), own):
        if name:
            currents[name] = current
        else:
            moves = moves + current
    if own is not None and neuron.reset is not None:
        late = (own[:, -1:] < at) & torch.isfinite(own[:, -1:])  # after the last spike that there is room for
        held = (late & (voltage > moves)).any(dim=-1, keepdim=True)
        voltage = torch.where(late & held, double(neuron.reset).reshape(-1, 1), voltage)
    return Voltages(voltage, moves, currents)


def _currents(
    at: Float64[Tensor, " points"], neuron: LIF, inputs: _Inputs, own: Float64[Tensor, "out spikes"] | None
) -> Iterator[tuple[str, Float64[Tensor, "out points"]]]:
    """The currents of all components, by name; parts of the threshold have none."""
    if not neuron.components:
        return
    since, outputs = _since(at, inputs.arrival), len(inputs.weights[0])
    for k, ((syn, rise), weight) in enumerate(zip(inputs.receptors, inputs.weights, strict=True)):
        jumps = torch.where(since > 0, torch.exp(-since / syn), 0.0)
        course = jumps if rise is None else response(since, syn, Receptor(rise, None))
        yield f"receptor {k}" if len(inputs.receptors) > 1 else "input", (weight.unsqueeze(-2) * course).sum(dim=-1)
    several = sum(part.kind == "current" for part in neuron.components) > 1
    adapting = [part for part in neuron.components if part.kind in ("current", "threshold")]  # the currents first
    for k, part in enumerate(adapting):
        passed = None if own is None else _since(at, own)
        kick = at.new_zeros(outputs, len(at))
        if passed is not None:
            kick = torch.where(passed > 0, torch.exp(-passed / _by_neuron(part.tau)), 0.0).sum(dim=-1)
        kick = double(part.jump).reshape(-1, 1) * kick
        name = "" if part.kind == "threshold" else f"adaptation {k}" if several else "adaptation"
        yield name, -kick if name else kick
