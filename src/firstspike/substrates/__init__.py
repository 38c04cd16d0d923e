"""Substrates: whatever yields the spike times of a network. The gradient is always the operator's, at these times.

To add one: a file here with a ``Substrate``, and a line in ``SUBSTRATES``.
"""

from firstspike.substrates.base import Exact, LayerByLayer, Substrate, SubstrateError
from firstspike.substrates.bss2.chip import BrainScaleS2
from firstspike.substrates.bss2.device import calibrate
from firstspike.substrates.bss2.mock import MockBss2
from firstspike.substrates.differences import NeuronDifference, differences
from firstspike.substrates.integrator import Integrator
from firstspike.substrates.noisy import Noisy
from firstspike.substrates.simulators import Brian2, Nest, Neuron

SUBSTRATES: dict[str, type[Substrate]] = {
    substrate.kind: substrate for substrate in (Exact, Integrator, Noisy, MockBss2, BrainScaleS2, Nest, Neuron, Brian2)
}

__all__ = [
    "BrainScaleS2", "Brian2", "Exact", "Integrator", "LayerByLayer", "MockBss2", "Nest", "Neuron", "NeuronDifference",
    "Noisy", "Substrate", "SubstrateError", "calibrate", "differences",
]  # fmt: skip
