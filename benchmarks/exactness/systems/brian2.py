"""Brian2 with ``method="exact"``, a step of 0.01 tau_syn and code in NumPy. One simulation is a layer.

A refractory time longer than the trial keeps the first spike alone. Simulations begin with the first input.
"""

import math
import time
from typing import Any

import brian2 as b2
import numpy as np
from systems.base import AFTER, Array, Found, System, from_first, usual

b2.prefs.codegen.target = "numpy"
b2.BrianLogger.suppress_hierarchy("brian2")
TAU, STEP = 10 * b2.ms, 0.01
EQUATIONS = """
dv/dt = (-v + ratio * current) / tau_m : 1 (unless refractory)
dcurrent/dt = -current / tau_s : 1
"""


class Brian2(System):
    name = "Brian2 (exact integration)"
    packages = ("brian2",)
    step = f"{STEP:g}"
    gradients = "none"
    most = {"random": 20, "hard": 12, "trains": 20, "hard trains": 10}  # noqa: RUF012

    def cannot(self, layer: Any) -> str:
        if layer.neuron == "lif":
            return "no leak" if layer.tau_mem == math.inf else ""
        return usual(layer)

    def simulated(self, layer: Any) -> tuple[list[list[list[float]]], float]:
        b2.start_scope()
        b2.defaultclock.dt = STEP * TAU
        samples, neurons, inputs = layer.shape
        times, first = from_first(layer)
        constants = {"ratio": layer.ratio, "tau_m": layer.ratio * TAU, "tau_s": TAU}
        held = layer.refractory if layer.kind == "train" else 1000.0
        cells = b2.NeuronGroup(
            samples * neurons, EQUATIONS, threshold=f"v > {layer.threshold}", reset=f"v = {layer.reset}",
            refractory=held * TAU, method="exact", namespace=constants,
        )  # fmt: skip
        arrives = np.nonzero(times.ravel() < math.inf)[0]
        source = b2.SpikeGeneratorGroup(times.size, arrives, times.ravel()[arrives] * TAU)
        synapses = b2.Synapses(source, cells, "w : 1", on_pre="current_post += w")
        b, o, k = np.indices((samples, neurons, inputs)).reshape(3, -1)
        synapses.connect(i=b * inputs + k, j=b * neurons + o)
        synapses.w = layer.weights[o, k]
        if layer.delays is not None:
            synapses.delay = layer.delays[o, k] * TAU
        monitor = b2.SpikeMonitor(cells)
        network = b2.Network(cells, source, synapses, monitor)
        network.run(0 * b2.ms)
        start = time.process_time()
        network.run((times[times < math.inf].max() + AFTER) * TAU)
        seconds = time.process_time() - start
        cell, spikes = np.array(monitor.i), np.array(monitor.t / TAU) + first
        trains = [np.sort(spikes[cell == n]).tolist() for n in range(samples * neurons)]
        return [trains[n * neurons :][:neurons] for n in range(samples)], seconds

    def first(self, layer: Any, factors: Array | None) -> Found:
        trains, seconds = self.simulated(layer)
        return Found([[train[0] if train else math.inf for train in row] for row in trains], seconds=seconds)

    def trains(self, layer: Any) -> Found:
        return Found(self.simulated(layer)[0])


SYSTEMS = {"brian2": Brian2}
