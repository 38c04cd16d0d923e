"""Neurons: their parameters, and what a backend may ask of them."""

from firstspike.neurons.base import Neuron, Parameter, Unit, check_neuron, shown_parameters
from firstspike.neurons.lif import LIF

__all__ = ["LIF", "Neuron", "Parameter", "Unit", "check_neuron", "shown_parameters"]
