"""Neurons from equations in Brian2, in whose notation their equations are."""

import re
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from firstspike.layers import SpikingRecurrent
from firstspike.layers.dense import DenseLayer
from firstspike.neurons.expressions import Expression, shown
from firstspike.substrates.cells import array, every_weight
from firstspike.substrates.windows import Windows


def simulated(
    layer: DenseLayer, arrival: Float[np.ndarray, "batch sources spikes"], until: float, step: float, unit: float
) -> Float[np.ndarray, "batch out found"]:
    """Spikes of a layer, with cells of its own for each sample. All times but the layer's are in that unit of its own.

    Inputs come at the nearest step, and spikes at the end of theirs. The layer's unit of time is 1 ms.
    """
    import brian2 as b2

    neuron, equations, weight = layer.neuron, layer.neuron.equations, array(every_weight(layer))
    samples, inputs, outputs = len(arrival), layer.in_features, layer.out_features
    assert equations is not None
    size, states, values = samples * outputs, equations.states, neuron.named_values
    dt = step * unit * b2.ms
    clock = b2.Clock(dt, name="steps")  # names, as they are in the code that Brian2 compiles and keeps
    own = {name: f"x{k}" for k, name in enumerate((*states, *equations.parameters))}  # Brian2 has an i and N itself

    def text(expression: Expression) -> str:
        return re.sub(r"\b[A-Za-z_]\w*", lambda name: own.get(name[0], name[0]), shown(expression))

    held = dict.fromkeys(equations.held, "int(not_refractory)*")  # with Brian2's own flag inputs would not arrive
    rates = zip(states, map(text, equations.flow), strict=True)
    lines = [f"d{own[x]}/dt = {held.get(x, '')}({rate})/ms : 1" for x, rate in rates]
    lines += [f"{own[x]} : 1 (constant)" for x in equations.parameters] + ["rest : second (constant)"]
    new = {own[x]: text(y) for x, y in zip(states, equations.after, strict=True) if x != y}
    reset = "\n".join([*(f"new_{x} = {y}" for x, y in new.items()), *(f"{x} = new_{x}" for x in new)])
    above = f"{text(equations.excess)} > 0"
    rests = f"{above} or t - lastspike < rest - dt/2" if equations.keeps else "rest"
    spikes = {"threshold": above, "reset": reset or None, "refractory": rests}
    group = b2.NeuronGroup(size, "\n".join(lines), method="rk4", clock=clock, name="neurons", **spikes)
    start, _ = neuron.beginning({name: torch.as_tensor(x).detach().double() for name, x in values.items()})
    for name in own:
        setattr(group, own[name], np.resize(array(start[name] if name in start else values[name]), size))
    group.rest = np.resize(np.round(array(neuron.refractory) / unit / step) + 1, size) * dt  # from the spike's step on

    reached = (weight < 0) if layer.receptor == "sign" else array(layer.receptors) if layer.receptors is not None else 0
    weight = abs(weight) if neuron.conducts else weight
    wires = {f"w{k}": (own[x], weight * (reached == k)) for k, x in enumerate(equations.receptors)}

    def wired(name: str, before: Any, pre: Any, sample: Any, out: Any, source: Any) -> Any:
        """Synapses to the neurons ``out`` of the samples, with the weights of these sources."""
        jumps = "\n".join(f"{state}_post += {w}" for w, (state, _) in wires.items())
        found = b2.Synapses(before, group, "\n".join(f"{w} : 1" for w in wires), on_pre=jumps, clock=clock, name=name)
        found.connect(i=pre, j=sample * outputs + out)
        for w, (_, strength) in wires.items():
            setattr(found, w, strength[out, source])
        return found

    sample, source, nth = np.nonzero((arrival >= 0) & (arrival <= until))
    given = np.arange(len(sample)), np.round(arrival[sample, source, nth] / step) * dt  # a source for each spike
    events = b2.SpikeGeneratorGroup(max(1, len(sample)), *given, clock=clock, when="start", name="inputs")
    reaches = (arrival.shape[1] == inputs) | (source[:, None] // inputs == np.arange(outputs))  # delays: one for each
    pre, out = np.nonzero(np.broadcast_to(reaches, (len(sample), outputs)))
    monitor = b2.SpikeMonitor(group, name="found")
    parts = [group, events, monitor, wired("feed", events, pre, sample[pre], out, source[pre] % inputs)]
    parts[-1].pre.when = "before_groups"
    if isinstance(layer, SpikingRecurrent):
        sample, out, source = np.indices((samples, outputs, outputs)).reshape(3, -1)
        parts.append(wired("loop", group, sample * outputs + source, sample, out, inputs + source))
        parts[-1].delay = np.maximum(np.round(array(layer.own_delay) / unit / step), 1)[out, source] * dt
    b2.Network(parts).run((np.ceil(until / step) + 1) * dt, namespace={"ms": b2.ms})
    if not all(np.isfinite(getattr(group, own[name])[:]).all() for name in states):
        raise ValueError("a state is no number any more: choose a smaller substrate.step, or a lower threshold")
    at = (np.round(np.asarray(monitor.t / dt)) + 1) * step
    return Windows(1, 0.0, until + 2 * step, 1.0).each(size, monitor.i[:], at).reshape(samples, outputs, -1)
