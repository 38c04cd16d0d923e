"""What a network does for a sample, as event-driven hardware counts it: spikes, and their deliveries to synapses."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from firstspike.layers.named import named_lif_layers
from firstspike.layers.network import Network, Record
from firstspike.layers.neurons import LIFLayer
from firstspike.layers.readouts import Readout
from firstspike.layers.recurrent import LIFRecurrent


class LayerCost(NamedTuple):
    """Means over the samples.

    Args:
        name: of the layer; that of ``input`` has no synapses.
        spikes: spikes of its neurons; 0 for a readout.
        events: spikes that reach its neurons, once for each synapse.
    """

    name: str
    spikes: float
    events: float


@torch.no_grad()
def layer_costs(network: nn.Module, record: Record, until: Float[Tensor, " samples"] | None = None) -> list[LayerCost]:
    """Spikes and synaptic events per sample, of the input, each LIF layer and a readout; [] for other modules.

    Spikes that come after a neuron has spiked for the last time are counted: they are sent all the same.

    Args:
        network: the network.
        record: spike times of its layers.
        until: count the spikes up to this time of each sample only, such as the time of its decision; delays of
            synapses are not added.
    """
    lif_layers = named_lif_layers(network)
    readout = network[-1] if isinstance(network, Network) and len(network) else None
    if not lif_layers and not isinstance(readout, Readout):
        return []
    costs = [LayerCost("input", _spikes(record.inputs, until).sum(dim=1).mean().item(), 0.0)]
    for lif in lif_layers:
        sent, own = _spikes(lif.inputs(record), until), _spikes(record.layers[lif.index], until)
        events = (sent @ fan_out(lif.layer).double()).mean()
        spikes = own.sum(dim=1).mean()
        if isinstance(lif.layer, LIFRecurrent):
            events += spikes * lif.layer.out_features
        costs.append(LayerCost(lif.name, spikes.item(), events.item()))
    if isinstance(readout, Readout):
        sent = _spikes((record.inputs, *record.layers)[-2], until)
        costs.append(LayerCost("output", 0.0, (sent @ fan_out(readout).double()).mean().item()))
    return costs


def fan_out(layer: LIFLayer | Readout) -> Int64[Tensor, " inputs"]:
    """Number of synapses of each input; in a convolution those of all patches that it is in."""
    numbered = torch.arange(layer.in_features, dtype=torch.float64, device=layer.weight.device)
    seen = layer.seen(numbered.unsqueeze(0))
    places = seen[seen.isfinite()].long()
    return torch.bincount(places, minlength=layer.in_features) * len(layer.synapses)


def _spikes(times: Tensor, until: Tensor | None) -> Float64[Tensor, "samples neurons"]:
    """Number of spikes of each neuron, ``(samples, neurons)``."""
    trains = times if times.ndim > 2 else times.unsqueeze(-1)
    counted = trains.isfinite()
    if until is not None:
        counted &= trains <= until[:, None, None]
    return counted.sum(dim=-1, dtype=torch.float64)
