"""What snnTorch and Norse share here: input spikes as currents in steps of 0.01 tau_syn, in double precision.

Simulations begin with the first input. A spike in step k counts at its end, at (k + 1) steps.
"""

import math
import time
from typing import Any

import numpy as np
import torch
from systems.base import AFTER, Array, Found, System, from_first, usual
from torch import Tensor

STEP = 0.01


class InSteps(System):
    step = f"{STEP:g}"
    gradients = "surrogate"
    most = {"random": 25, "hard": 15, "trains": 25, "hard trains": 12}  # noqa: RUF012

    def cannot(self, layer: Any) -> str:
        if layer.neuron == "lif" and layer.tau_mem == math.inf:
            return "no leak"
        return usual(layer) or ("refractory time" if layer.refractory else "")

    def spikes(self, currents: Tensor, layer: Any) -> Tensor:
        """Of currents (steps, B, O), where there are spikes."""
        raise NotImplementedError

    def simulated(self, layer: Any) -> tuple[Tensor, float, float]:
        times, first = from_first(layer)
        steps = math.ceil((times[times < math.inf].max() + AFTER) / STEP)
        currents = torch.zeros(steps, *layer.shape[:2], dtype=torch.float64)
        weights = torch.tensor(layer.weights.T * layer.ratio)
        for b, arrivals in enumerate(times):
            here = arrivals < math.inf
            currents[:, b].index_add_(0, torch.tensor(np.rint(arrivals[here] / STEP).astype(int)), weights[here])
        start = time.process_time()
        with torch.no_grad():
            found = self.spikes(currents, layer)
        return found, first, time.process_time() - start

    def first(self, layer: Any, factors: Array | None) -> Found:
        found, first, seconds = self.simulated(layer)
        at = (found.to(torch.int8).argmax(0).double() + 1) * STEP + first
        return Found(torch.where(found.any(0), at, torch.inf).numpy(), seconds=seconds)

    def trains(self, layer: Any) -> Found:
        found, first, _ = self.simulated(layer)
        samples, neurons, _ = layer.shape
        at = [[torch.nonzero(found[:, b, o]).ravel() for o in range(neurons)] for b in range(samples)]
        return Found([[((x + 1) * STEP + first).tolist() for x in row] for row in at])
