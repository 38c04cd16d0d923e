"""exact-event-adjoint, in double precision. A neuron that does not spike has the end of the trial as its time."""

import math
from typing import Any

import torch
from exact_event_adjoint import ExactAdjointLinear, ExactAdjointMultiSpike
from systems.base import Array, Found, System, usual
from systems.with_torch import first_of, trains_of
from torch import Tensor

AFTER = 25.0


class Adjoint(System):
    name = "exact-event-adjoint"
    packages = ("exact-event-adjoint", "torch")

    def cannot(self, layer: Any) -> str:
        if layer.neuron == "lif" and layer.ratio in (1, math.inf):
            return "equal time constants" if layer.ratio == 1 else "no leak"
        if layer.refractory:
            return "refractory time"
        return usual(layer)

    def call(self, kind: Any, layer: Any, **options: Any) -> Any:
        end = float(layer.times[layer.times < math.inf].max()) + AFTER
        made = kind(
            layer.shape[2], layer.shape[1], tau_m=layer.tau_mem, tau_s=layer.tau_syn, theta=layer.threshold, t_max=end,
            **options,
        )  # fmt: skip

        def spikes(times: Tensor, weight: Tensor) -> Tensor:
            times = torch.where(times < end, times, end)  # what never arrives
            found = torch.func.functional_call(made, {"weight": weight}, (times,))
            return torch.where((found > 0) & (found < end), found, torch.inf)

        return spikes

    def first(self, layer: Any, factors: Array | None) -> Found:
        return first_of(self.call(ExactAdjointLinear, layer), layer, factors)

    def trains(self, layer: Any) -> Found:
        call, (samples, _, _) = self.call(ExactAdjointMultiSpike, layer, max_spikes=64), layer.shape

        def spikes(times: Tensor, weight: Tensor) -> Tensor:
            found = call(times, weight)
            return found if len(found) == samples else found.transpose(0, 1)

        return trains_of(spikes, layer)


SYSTEMS = {"exact-event-adjoint": Adjoint}
