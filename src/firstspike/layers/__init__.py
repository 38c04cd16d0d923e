"""Modules from spike times to spike times, and readouts."""

from torch import nn

from firstspike.layers.branches import Concatenate, Earliest
from firstspike.layers.conv import EarliestPool2d, MergePool2d, SpikingConv1d, SpikingConv2d
from firstspike.layers.cost import ENERGIES, energy_estimates, layer_costs
from firstspike.layers.delay import Delay, DelayRule
from firstspike.layers.dense import SpikeTrains, SpikingLinear
from firstspike.layers.inputs import BiasSpikes, Multiplex, PoissonSpikes
from firstspike.layers.network import Network, Record
from firstspike.layers.neurons import SpikingLayer
from firstspike.layers.noise import SpikeDropout
from firstspike.layers.programs import export
from firstspike.layers.readouts import IntegralReadout, MaximumReadout, MembraneReadout, Readout
from firstspike.layers.recurrent import SpikingRecurrent
from firstspike.layers.start import start_firing_
from firstspike.layers.trains import FirstSpike, SmoothCount
from firstspike.layers.voltages import states_at

LIFConv1d = SpikingConv1d  # the names that layers had, with which those of LIF neurons are printed
LIFConv2d = SpikingConv2d
LIFLayer = SpikingLayer
LIFLinear = SpikingLinear
LIFRecurrent = SpikingRecurrent
LIFSpikeTrains = SpikeTrains

LAYERS: dict[str, type[nn.Module]] = {
    "lif": SpikingLinear,
    "conv": SpikingConv2d,
    "conv1d": SpikingConv1d,
    "pool": EarliestPool2d,
    "merge_pool": MergePool2d,
    "delay": Delay,
    "bias": BiasSpikes,
    "poisson_spikes": PoissonSpikes,
    "multiplex": Multiplex,
    "dropout": SpikeDropout,
    "concatenate": Concatenate,
    "earliest": Earliest,
    "spike_trains": SpikeTrains,
    "recurrent": SpikingRecurrent,
    "first_spike": FirstSpike,
    "integral": IntegralReadout,
    "maximum": MaximumReadout,
    "membrane": MembraneReadout,
    "smooth_count": SmoothCount,
}

__all__ = [
    "ENERGIES", "BiasSpikes", "Concatenate", "Delay", "DelayRule", "Earliest", "EarliestPool2d", "FirstSpike",
    "IntegralReadout", "LIFConv1d", "LIFConv2d", "LIFLayer", "LIFLinear", "LIFRecurrent", "LIFSpikeTrains",
    "MaximumReadout", "MembraneReadout", "MergePool2d", "Multiplex", "Network", "PoissonSpikes", "Readout", "Record",
    "SmoothCount", "SpikeDropout", "SpikeTrains", "SpikingConv1d", "SpikingConv2d", "SpikingLayer", "SpikingLinear",
    "SpikingRecurrent", "energy_estimates", "export", "layer_costs", "start_firing_", "states_at",
]  # fmt: skip
