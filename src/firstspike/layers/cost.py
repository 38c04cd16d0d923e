"""The cost of a sample on event-driven hardware: spikes, and their deliveries to synapses.

A spike reaches each synapse once, whatever receptor that has. Adaptation is part of the update of a neuron.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from firstspike.layers import synapses
from firstspike.layers.named import named_layers
from firstspike.layers.network import Network, Record
from firstspike.layers.neurons import SpikingLayer
from firstspike.layers.readouts import Readout
from firstspike.layers.recurrent import SpikingRecurrent


class LayerCost(NamedTuple):
    """Means over the samples."""

    name: str
    """Name of the layer; ``input`` has no synapses."""
    spikes: float
    """Spikes of its neurons; 0 for a readout."""
    events: float
    """Spikes that reach its neurons, once for each synapse."""


class Energy(NamedTuple):
    """Joules that a device takes for each synaptic event, and for each sample, however many events it has."""

    event: float
    sample: float
    source: str
    without: str
    """The costs that the estimates leave out."""


ENERGIES = {
    "loihi": Energy(
        23.6e-12,
        0.0,
        "Davies et al., IEEE Micro 38(1), 2018; none is published for an event of Loihi 2",
        "updates of neurons in each time step (81 pJ when active), routing, leakage",
    ),
    "spinnaker2": Energy(
        10e-12,
        0.0,
        "Hoeppner et al. 2021, as listed by Tang et al., Front. Neurosci. 17, 2023, table 3",
        "updates of neurons in each time step, memory outside the cores, leakage",
    ),
    "brainscales2": Energy(
        0.0,
        8.4e-6,
        "Goeltz et al. 2021, as listed by Renner et al., Nat. Commun. 15, 2024, table 1: power of the chip during the "
        "48 us that an image takes a network of 256-246-10 neurons",
        "the board and the host; a network that takes longer takes more",
    ),
    "digital": Energy(
        0.9e-12,
        0.0,
        "Horowitz, ISSCC 2014: one addition of 32-bit floating-point numbers in 45 nm",
        "reading weights from memory, which takes more than adding them; exponentials; control",
    ),
}
"""Published numbers for named devices, each for other circuits and tasks: an estimate rests on them, no more."""


def energy_estimates(costs: Sequence[LayerCost]) -> dict[str, float]:
    """Joules per sample by device, from the synaptic events of all layers. ``ENERGIES`` says which costs it omits."""
    events = sum(layer.events for layer in costs)
    return {device: energy.sample + energy.event * events for device, energy in ENERGIES.items()}


@torch.no_grad()
def layer_costs(network: nn.Module, record: Record, until: Float[Tensor, " samples"] | None = None) -> list[LayerCost]:
    """Spikes and synaptic events per sample, of the input, each LIF layer and a readout; [] for other modules.

    Spikes that come after a neuron has spiked for the last time are counted: they are sent all the same.

    Args:
        network: the network.
        record: spike times of its layers.
        until: count the spikes up to this time of each sample only, such as the time of its decision. Delays of
            synapses are not added.
    """
    lif_layers = named_layers(network)
    readouts = [(k, x) for k, x in enumerate(network) if isinstance(x, Readout)] if isinstance(network, Network) else []
    if not lif_layers and not readouts:
        return []
    costs = [LayerCost("input", _spikes(record.inputs, until).sum(dim=1).mean().item(), 0.0)]
    for lif in lif_layers:
        sent, own = _spikes(lif.inputs(record), until), _spikes(record.layers[lif.index], until)
        events = (sent @ fan_out(lif.layer).double()).mean()
        spikes = own.sum(dim=1).mean()
        if isinstance(lif.layer, SpikingRecurrent):
            events += (own @ synapses.fan_out(lif.layer, "recurrent_weight").double()).mean()
        costs.append(LayerCost(lif.name, spikes.item(), events.item()))
    for index, readout in readouts:  # one at most
        sent = _spikes((record.inputs, *record.layers)[index], until)
        costs.append(LayerCost("output", 0.0, (sent @ fan_out(readout).double()).mean().item()))
    return costs


def fan_out(layer: SpikingLayer | Readout) -> Int64[Tensor, " inputs"]:
    """Number of synapses of each input that exist; in a convolution those of all patches that it is in."""
    each = synapses.fan_out(layer)
    if layer.weight.ndim <= 2:
        return each
    pixels = torch.arange(layer.in_features, dtype=torch.float64, device=layer.weight.device)
    seen = layer.seen(pixels.unsqueeze(0)).reshape(-1, len(each))
    there = seen.isfinite()
    return torch.bincount(seen[there].long(), each.expand_as(seen)[there], layer.in_features).long()


def _spikes(times: Tensor, until: Tensor | None) -> Float64[Tensor, "samples neurons"]:
    trains = times if times.ndim > 2 else times.unsqueeze(-1)
    counted = trains.isfinite()
    if until is not None:
        counted &= trains <= until[:, None, None]
    return counted.sum(dim=-1, dtype=torch.float64)
