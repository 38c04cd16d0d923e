"""Neurons from equations in Brian2, in whose notation their equations are."""

import re

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
    """Spikes of a layer, with cells of its own for each sample; all times but the layer's are in that unit of its own.

    Inputs come at the nearest step, and spikes at the end of theirs. The layer's unit of time is 1 ms.
    """
    import brian2 as b2

    neuron, equations, samples, outputs = layer.neuron, layer.neuron.equations, len(arrival), layer.out_features
    assert equations is not None
    dt, size, states, values = step * unit * b2.ms, samples * outputs, equations.states, neuron.named_values
    own = {
        name: f"x{k}" for k, name in enumerate((*states, *equations.parameters))
    }  # Brian2 has i, N and others itself

    def text(expression: Expression) -> str:
        return re.sub(r"\b[A-Za-z_]\w*", lambda name: own.get(name[0], name[0]), shown(expression))

    held = dict.fromkeys(equations.held, "int(not_refractory)*")  # with Brian2's own flag inputs would not arrive
    rates = zip(states, map(text, equations.flow), strict=True)
    lines = [f"d{own[x]}/dt = {held.get(x, '')}({rate})/ms : 1" for x, rate in rates]
    lines += [f"{own[x]} : 1 (constant)" for x in equations.parameters] + ["rest : second (constant)"]
    new = {own[x]: text(y) for x, y in zip(states, equations.after, strict=True) if x != y}
    reset = "\n".join([*(f"new_{x} = {y}" for x, y in new.items()), *(f"{x} = new_{x}" for x in new)])
    spikes = {"threshold": f"{text(equations.excess)} > 0", "reset": reset or None, "refractory": "rest"}
    group = b2.NeuronGroup(size, "\n".join(lines), method="rk4", dt=dt, **spikes)
    start, _ = neuron.beginning({name: torch.as_tensor(x).detach().double() for name, x in values.items()})
    for name in own:
        setattr(group, own[name], np.resize(array(start[name] if name in start else values[name]), size))
    group.rest = np.resize(np.round(array(neuron.refractory) / unit / step) + 1, size) * dt  # from the spike's step on

    sample, source, nth = np.nonzero((arrival >= 0) & (arrival <= until))
    given = np.arange(len(sample)), np.round(arrival[sample, source, nth] / step) * dt
    events = b2.SpikeGeneratorGroup(max(1, len(sample)), *given, dt=dt, when="start")  # each spike has a source
    reaches = (arrival.shape[1] == layer.in_features) | (source[:, None] // layer.in_features == np.arange(outputs))
    pre, out = np.nonzero(np.broadcast_to(reaches, (len(sample), outputs)))
    wires = [(events, pre, sample[pre], out, source[pre] % layer.in_features)]
    if isinstance(layer, SpikingRecurrent):
        sample, out, source = np.indices((samples, outputs, outputs)).reshape(3, -1)
        wires.append((group, sample * outputs + source, sample, out, layer.in_features + source))
        delay = np.maximum(np.round(array(layer.own_delay) / unit / step), 1)
    weight, monitor, parts = array(every_weight(layer)), b2.SpikeMonitor(group), []
    receptors = np.resize(0 if layer.receptors is None else array(layer.receptors), weight.shape)
    receptors = (weight < 0) if layer.receptor == "sign" else receptors
    for before, *places in wires:
        for k, name in enumerate(equations.receptors):
            chosen = (receptors[places[2], places[3]] == k) & (weight[places[2], places[3]] != 0)
            if chosen.any():
                pre, sample, out, source = (x[chosen] for x in places)
                synapses = b2.Synapses(before, group, "w : 1", on_pre=f"{own[name]}_post += w", dt=dt)
                synapses.connect(i=pre, j=sample * outputs + out)
                synapses.w = weight[out, source]
                if before is group:
                    synapses.delay = delay[out, source - layer.in_features] * dt
                else:
                    synapses.pre.when = "before_groups"
                parts.append(synapses)
    b2.Network(group, events, monitor, parts).run((np.ceil(until / step) + 1) * dt, namespace={"ms": b2.ms})
    if not all(np.isfinite(getattr(group, own[name])[:]).all() for name in states):
        raise ValueError("a state is no number any more: choose a smaller substrate.step, or a lower threshold")
    at = (np.round(np.asarray(monitor.t / dt)) + 1) * step
    return Windows(1, 0.0, until + 2 * step, 1.0).each(size, monitor.i[:], at).reshape(samples, outputs, -1)
