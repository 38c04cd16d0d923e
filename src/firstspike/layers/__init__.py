"""Modules from spike times to spike times, in the order in which data meets them."""

from firstspike.layers.delay import Delay, DelayRule, jitter_from, project_delays_
from firstspike.layers.init import firing_weights
from firstspike.layers.inputs import BiasSpikes, Multiplex
from firstspike.layers.lif import LIFLinear
from firstspike.layers.network import Layer, Network, Record

__all__ = [
    "BiasSpikes",
    "Delay",
    "DelayRule",
    "LIFLinear",
    "Layer",
    "Multiplex",
    "Network",
    "Record",
    "firing_weights",
    "jitter_from",
    "project_delays_",
]
