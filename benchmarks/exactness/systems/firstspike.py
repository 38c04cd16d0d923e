"""firstspike, in double and in single precision."""

from typing import Any

import torch
from systems.base import Array, Found, System
from systems.with_torch import first_of, trains_of

import firstspike as fs
from firstspike._version import __version__


class Firstspike(System):
    packages = ("torch",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.name = f"firstspike ({'float64' if dtype == torch.float64 else 'float32'})"

    def version(self) -> str:
        return f"firstspike {__version__}, {super().version()}"

    def cannot(self, layer: Any) -> str:
        return ""

    def neuron(self, layer: Any) -> Any:
        if layer.neuron == "qif":
            return fs.neurons.QIF(layer.tau_mem, layer.tau_syn)
        taus = tuple(layer.tau_syn) if layer.neuron == "receptors" else layer.tau_syn
        return fs.LIF(layer.tau_mem, taus, layer.threshold, reset=layer.reset, refractory=layer.refractory)

    def options(self, layer: Any) -> dict[str, Any]:
        delay = None if layer.delays is None else torch.tensor(layer.delays, dtype=self.dtype)
        receptor = None if layer.receptor is None else torch.tensor(layer.receptor)
        return {"delay": delay, "receptor": receptor, "until": layer.until}

    def first(self, layer: Any, factors: Array | None) -> Found:
        neuron, options = self.neuron(layer), self.options(layer)
        return first_of(
            lambda times, weight: fs.first_spike_time(times, weight, neuron, **options),
            layer, factors, dtype=self.dtype,
        )  # fmt: skip

    def trains(self, layer: Any) -> Found:
        neuron, options = self.neuron(layer), self.options(layer)
        return trains_of(
            lambda times, weight: fs.spike_trains(times.unsqueeze(-1), weight, neuron, max_spikes=64, **options),
            layer, dtype=self.dtype,
        )  # fmt: skip


SYSTEMS = {
    "firstspike": lambda: Firstspike(torch.float64),
    "firstspike-float32": lambda: Firstspike(torch.float32),
}
