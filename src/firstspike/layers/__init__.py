"""Modules from spike times to spike times, in the order in which data meets them."""

from firstspike.layers.delay import Delay, DelayRule, jitter_from, project_delays_
from firstspike.layers.ensemble import Ensemble, ensemble
from firstspike.layers.init import firing_weights
from firstspike.layers.inputs import BiasSpikes, Multiplex
from firstspike.layers.lif import LIFLinear
from firstspike.layers.network import Layer, Network, Record

__all__ = [
    "BiasSpikes",
    "Delay",
    "DelayRule",
    "Ensemble",
    "LIFLinear",
    "Layer",
    "Multiplex",
    "Network",
    "Record",
    "ensemble",
    "firing_weights",
    "jitter_from",
    "project_delays_",
]
