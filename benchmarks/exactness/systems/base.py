"""The base of adapters. It needs NumPy alone, as each system runs in its own environment."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass
class Found:
    """The spikes and gradients of a layer by a system."""

    spikes: Any
    """First spikes (B, O), inf where there is none, or trains: lists of times in the same nesting."""
    by_weight: Array | None = None
    """Gradient of the sum of spikes, each times its factor, with respect to weights (O, n)."""
    by_time: Array | None = None
    """Gradient with respect to input times (B, n)."""
    seconds: float | None = None
    """Time of the simulation without its setup, if it was measured inside."""


class System:
    """An adapter: one system with its settings, which says what it can express and solves layers as its users would.

    ``first`` and ``trains`` may raise: that is counted. ``factors`` (B, O) are 0 where the exact neuron is silent.
    Without them no gradient is asked for. A spike that the system does not have must not count in its gradient.
    """

    name = ""
    packages: tuple[str, ...] = ()
    """Packages whose versions are shown."""
    step = ""
    """Step of the time grid, in tau_syn, if there is one."""
    gradients = "exact"
    """``exact``, ``surrogate`` or ``none``."""
    notes = ""
    most: dict[str, int] = {}  # noqa: RUF012
    """Largest number of layers per family of a group, for slow systems. The others are not run."""

    def version(self) -> str:
        return ", ".join(f"{name} {version(name)}" for name in self.packages)

    def cannot(self, layer: Any) -> str:
        """The reason why it cannot express a layer, in a few words; empty if it can."""
        raise NotImplementedError

    def first(self, layer: Any, factors: Array | None) -> Found:
        raise NotImplementedError

    def trains(self, layer: Any) -> Found:
        raise NotImplementedError


def usual(layer: Any) -> str:
    """Why a system of LIF neurons with one kind of synapse, and one delay for all, cannot express a layer."""
    if layer.neuron != "lif":
        return {"qif": "QIF neurons", "receptors": "two receptors"}[layer.neuron]
    return "delays of synapses" if layer.delays is not None else ""


def from_first(layer: Any) -> tuple[Array, float]:
    """Times since the first input, and that: simulations begin there, as to wait for it would only take longer."""
    arrivals = layer.times[layer.times < np.inf]
    first = float(arrivals.min()) if arrivals.size else 0.0
    return layer.times - first, first


AFTER = 25.0
"""How long simulations go on after the last input, in tau_syn."""
