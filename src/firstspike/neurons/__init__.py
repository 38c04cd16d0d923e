"""Neurons: their parameters, and what a backend may ask of them."""

from firstspike.neurons.base import Component, Neuron, Parameter, Unit, check_neuron, shown_parameters
from firstspike.neurons.lif import LIF, AdaptiveLIF

__all__ = ["LIF", "AdaptiveLIF", "Component", "Neuron", "Parameter", "Unit", "check_neuron", "shown_parameters"]
