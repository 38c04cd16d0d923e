"""Substrates: whatever yields the spike times of a network. The gradient is always the operator's, at these times.

To add one: a file here with a ``Substrate``, and a line in ``SUBSTRATES``.
"""

from firstspike.substrates.base import Exact, LayerByLayer, Substrate, SubstrateError
from firstspike.substrates.bss2 import BrainScaleS2, MockBss2, calibrate
from firstspike.substrates.integrator import Integrator
from firstspike.substrates.noisy import Noisy
from firstspike.substrates.simulators import Brian2, Nest, Neuron

SUBSTRATES: dict[str, type[Substrate]] = {
    "exact": Exact,
    "integrator": Integrator,
    "noisy": Noisy,
    "mock_bss2": MockBss2,
    "brainscales2": BrainScaleS2,
    "nest": Nest,
    "neuron": Neuron,
    "brian2": Brian2,
}

__all__ = [
    "BrainScaleS2",
    "Brian2",
    "Exact",
    "Integrator",
    "LayerByLayer",
    "MockBss2",
    "Nest",
    "Neuron",
    "Noisy",
    "Substrate",
    "SubstrateError",
    "calibrate",
]
