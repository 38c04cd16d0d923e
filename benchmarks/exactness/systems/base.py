"""What the adapter of a system has. Needs NumPy alone, as each system runs in an environment of its own."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass
class Found:
    """What a system says of a layer."""

    spikes: Any
    """Of first spikes (B, O), inf where there is none; of trains, lists of times in the same nesting."""
    by_weight: Array | None = None
    """(O, n): gradient of the sum of spikes, each times its factor."""
    by_time: Array | None = None
    """(B, n)."""
    seconds: float | None = None
    """What the simulation took, where it was measured inside, without what a user does once."""


class System:
    """One system with its settings: what it can express, and how its users would ask it.

    ``first`` and ``trains`` may raise: that is counted. ``factors`` (B, O) are 0 where the exact neuron is silent;
    without them no gradient is asked for. A spike that the system does not have must not count in its gradient.
    """

    name = ""
    packages: tuple[str, ...] = ()
    """Whose versions are shown."""
    step = ""
    """Of its time grid, in tau_syn, if it has one."""
    gradients = "exact"
    """``exact``, ``surrogate`` or ``none``."""
    notes = ""
    most: dict[str, int] = {}  # noqa: RUF012
    """Of a family of a group, how many layers are asked for at most, where one takes long; the others are not run."""

    def version(self) -> str:
        return ", ".join(f"{name} {version(name)}" for name in self.packages)

    def cannot(self, layer: Any) -> str:
        """Why it cannot express a layer, in a few words; empty if it can."""
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
