"""NEST: ``iaf_psc_exp`` with spikes on the grid, with precise ones, and the lossless variant.

One simulation is a layer. tau_syn is 10 ms and the resolution 0.1 ms. Simulations begin with the first input.
"""

import math
import os
import time
from typing import Any

os.environ["PYNEST_QUIET"] = "1"

import nest
import numpy as np
from systems.base import AFTER, Array, Found, System, from_first, usual

nest.verbosity = nest.VerbosityLevel.ERROR
TAU, STEP, CAPACITY, BEFORE = 10.0, 0.1, 250.0, 1.0


class Nest(System):
    packages = ("nest-simulator",)
    gradients = "none"

    def __init__(self, model: str) -> None:
        self.model = model
        self.precise = model != "iaf_psc_exp"
        self.name = f"NEST `{model}`"
        self.step = f"{STEP / TAU:g}, spikes between" if self.precise else f"{STEP / TAU:g}"

    def cannot(self, layer: Any) -> str:
        if layer.neuron == "lif" and layer.tau_mem == math.inf:
            return "no leak"
        if layer.neuron == "lif" and layer.ratio == 1 and self.model.endswith("lossless"):
            return "equal time constants"
        if layer.kind == "train" and self.precise and layer.refractory * TAU < STEP:
            return "no refractory time"
        return usual(layer)

    def simulated(self, layer: Any) -> tuple[list[list[list[float]]], float]:
        nest.ResetKernel()
        nest.resolution = STEP
        samples, neurons, _ = layer.shape
        count = samples * neurons
        held = layer.refractory if layer.kind == "train" else 1000.0
        values = {
            "C_m": CAPACITY, "E_L": 0.0, "V_m": 0.0, "V_reset": layer.reset, "V_th": layer.threshold,
            "tau_m": layer.ratio * TAU, "tau_syn_ex": TAU, "tau_syn_in": TAU, "t_ref": held * TAU,
        }  # fmt: skip
        cells = nest.Create(self.model, count, values)
        sources = nest.Create("spike_generator", count, {"precise_times": True} if self.precise else {})
        times, first = from_first(layer)
        for b, arrivals in enumerate(times):
            order = [k for k in np.argsort(arrivals, kind="stable") if arrivals[k] < math.inf]
            at = (arrivals[order] + BEFORE) * TAU
            at = at if self.precise else np.round(at / STEP) * STEP
            for o, weights in enumerate(layer.weights):
                strengths = weights[order] * CAPACITY / TAU
                sources[b * neurons + o].set(spike_times=at, spike_weights=strengths)
        nest.Connect(sources, cells, "one_to_one", {"weight": 1.0, "delay": STEP})
        recorder = nest.Create("spike_recorder")
        nest.Connect(cells, recorder)
        start = time.process_time()
        nest.Simulate(math.ceil((times[times < math.inf].max() + AFTER + BEFORE) * TAU))
        seconds = time.process_time() - start
        senders = np.array(recorder.events["senders"]) - cells[0].global_id
        spikes = (np.array(recorder.events["times"]) - STEP) / TAU - BEFORE + first
        trains = [np.sort(spikes[senders == k]).tolist() for k in range(count)]
        return [trains[b * neurons :][:neurons] for b in range(samples)], seconds

    def first(self, layer: Any, factors: Array | None) -> Found:
        trains, seconds = self.simulated(layer)
        return Found([[train[0] if train else math.inf for train in row] for row in trains], seconds=seconds)

    def trains(self, layer: Any) -> Found:
        return Found(self.simulated(layer)[0])


SYSTEMS = {
    "nest-ps": lambda: Nest("iaf_psc_exp_ps"),
    "nest-lossless": lambda: Nest("iaf_psc_exp_ps_lossless"),
    "nest-grid": lambda: Nest("iaf_psc_exp"),
}
