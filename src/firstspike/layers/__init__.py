"""Modules from spike times to spike times, and readouts, in the order in which data meets them."""

from torch import nn

from firstspike.layers.branches import Branch, Concatenate, Earliest
from firstspike.layers.conv import EarliestPool2d, LIFConv2d
from firstspike.layers.cost import LayerCost, fan_out, layer_costs
from firstspike.layers.delay import Delay, DelayRule, jitter_from, part_of_batch, project_delays_
from firstspike.layers.dropout import SpikeDropout
from firstspike.layers.ensemble import Ensemble, ensemble
from firstspike.layers.init import firing_weights
from firstspike.layers.inputs import BiasSpikes, Multiplex
from firstspike.layers.lif import LIFLinear
from firstspike.layers.network import Layer, Network, Record, applied
from firstspike.layers.neurons import LIFLayer, NeuronLayer
from firstspike.layers.readouts import IntegralReadout, MaximumReadout, MembraneReadout, Readout
from firstspike.layers.recurrent import LIFRecurrent, RecurrentState
from firstspike.layers.spiking import LIFSpikeTrains
from firstspike.layers.start import passing_weights, start_firing_
from firstspike.layers.trains import FirstSpike, first_of, form_of, takes_trains

LAYERS: dict[str, type[nn.Module]] = {
    "lif": LIFLinear,
    "conv": LIFConv2d,
    "pool": EarliestPool2d,
    "delay": Delay,
    "bias": BiasSpikes,
    "multiplex": Multiplex,
    "dropout": SpikeDropout,
    "concatenate": Concatenate,
    "earliest": Earliest,
    "spike_trains": LIFSpikeTrains,
    "recurrent": LIFRecurrent,
    "first_spike": FirstSpike,
    "integral": IntegralReadout,
    "maximum": MaximumReadout,
    "membrane": MembraneReadout,
}

__all__ = [
    "LAYERS",
    "BiasSpikes",
    "Branch",
    "Concatenate",
    "Delay",
    "DelayRule",
    "Earliest",
    "EarliestPool2d",
    "Ensemble",
    "FirstSpike",
    "IntegralReadout",
    "LIFConv2d",
    "LIFLayer",
    "LIFLinear",
    "LIFRecurrent",
    "LIFSpikeTrains",
    "Layer",
    "LayerCost",
    "MaximumReadout",
    "MembraneReadout",
    "Multiplex",
    "Network",
    "NeuronLayer",
    "Readout",
    "Record",
    "RecurrentState",
    "SpikeDropout",
    "applied",
    "ensemble",
    "fan_out",
    "firing_weights",
    "first_of",
    "form_of",
    "jitter_from",
    "layer_costs",
    "part_of_batch",
    "passing_weights",
    "project_delays_",
    "start_firing_",
    "takes_trains",
]
