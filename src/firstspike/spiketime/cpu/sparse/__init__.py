"""Recurrent layers with some of all synapses, one value for each: a neuron is given what arrives at it in a window."""
