"""SpikingJelly's ``timing_based.functional.tempotron``: first spikes, unequal time constants, in double precision.

Its response has a peak of 1, so weights are multiplied by the peak of ours.
"""

from typing import Any

import torch
from spikingjelly.timing_based.functional import tempotron
from systems.base import Array, Found, System, usual
from systems.with_torch import first_of


class Tempotron(System):
    name = "SpikingJelly `tempotron`"
    packages = ("spikingjelly", "torch")

    def cannot(self, layer: Any) -> str:
        if layer.kind == "train":
            return "trains"
        if layer.neuron == "lif" and layer.ratio in (1, torch.inf):
            return "equal time constants" if layer.ratio == 1 else "no leak"
        return usual(layer)

    def first(self, layer: Any, factors: Array | None) -> Found:
        ratio, latest = layer.ratio, float(layer.times[layer.times < torch.inf].max())
        arrives = torch.tensor(layer.times) < torch.inf
        indices = torch.arange(layer.shape[2]).expand(layer.times.shape)[arrives]
        offsets = torch.cat([torch.zeros(1, dtype=torch.long), arrives.sum(1).cumsum(0)])

        def call(times: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            given = times[arrives], indices, offsets, weight
            return tempotron(*given, latest + 60, layer.tau_mem, layer.tau_syn, layer.threshold)[2]

        return first_of(call, layer, factors, scale=ratio ** (1 / (1 - ratio)))


SYSTEMS = {"spikingjelly": Tempotron}
