"""Neurons: their parameters, and their properties that backends use."""

from firstspike.neurons.base import Component, Neuron, Parameter, Unit, check_neuron, shown_parameters
from firstspike.neurons.cells import Cell
from firstspike.neurons.lif import LIF, AdaptiveLIF
from firstspike.neurons.named import EIF, QIF, AdEx, AdLIF, ConductanceLIF, Izhikevich

__all__ = [
    "EIF", "LIF", "QIF", "AdEx", "AdLIF", "AdaptiveLIF", "Cell", "Component", "ConductanceLIF", "Izhikevich", "Neuron",
    "Parameter", "Unit", "check_neuron", "shown_parameters",
]  # fmt: skip
