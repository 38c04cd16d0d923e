"""exact-snn-nn: its layer that works from event to event, and the one on a grid, in double precision.

Its response is ours times a factor, which is taken from the two at one lag. What never arrives is at inf there, too.
Its ``ExactMultiSpike`` keeps, after a spike, the current times ts and times the peak of the response: that is another
neuron than the one here, so that it is not asked for trains.
"""

import math
from typing import Any

import exact_snn
import torch
from exact_snn import ExactTTFSLinear
from exact_snn.event import ExactEventLinear
from systems.base import Array, Found, System, usual
from systems.with_torch import first_of
from torch import Tensor

PER_TAU = 200
"""Points of the grid; by default it has 2001 for 40, with a synaptic time constant of 4."""
AFTER = 25.0


class ExactSNN(System):
    packages = ("exact-snn-nn", "torch")

    def __init__(self, grid: bool) -> None:
        self.grid = grid
        self.name = f"exact-snn-nn ({'grid' if grid else 'events'})"
        self.step = "1/200, then Newton's method" if grid else ""

    def cannot(self, layer: Any) -> str:
        if layer.neuron == "lif" and layer.tau_mem == math.inf:
            return "no leak"
        if layer.kind == "train":
            return "trains whose current outlasts a spike"
        return usual(layer)

    def made(self, kind: Any, layer: Any) -> tuple[Any, float]:
        end = float(layer.times[layer.times < math.inf].max()) + AFTER
        made = kind(
            layer.shape[2], layer.shape[1], tm=layer.tau_mem, ts=layer.tau_syn, theta=layer.threshold, t_max=end,
            bias_val=0.0, dtype=torch.float64, **({"grid_pts": int(end * PER_TAU) + 1} if self.grid else {}),
        )  # fmt: skip
        lag, a = 0.5, 1 / layer.ratio
        ours = lag * math.exp(-lag) if a == 1 else (math.exp(-a * lag) - math.exp(-lag)) / (1 - a)
        equal = abs(a - 1) < 1e-9
        theirs = exact_snn._K(torch.tensor(lag, dtype=torch.float64), layer.tau_mem, layer.tau_syn, equal, made.k_peak)
        return made, ours / float(theirs)

    def call(self, made: Any) -> Any:
        def spikes(times: Tensor, weight: Tensor) -> Tensor:
            none = torch.zeros_like(weight[:, :1])  # the bias, a spike at time 0
            values = {"weight": torch.cat([weight, none], 1)}
            return torch.func.functional_call(made, values, (times.T,)).transpose(0, 1)

        return spikes

    def first(self, layer: Any, factors: Array | None) -> Found:
        made, scale = self.made(ExactTTFSLinear if self.grid else ExactEventLinear, layer)
        return first_of(self.call(made), layer, factors, scale)


SYSTEMS = {"exact-snn-nn": lambda: ExactSNN(False), "exact-snn-nn-grid": lambda: ExactSNN(True)}
