"""The synapses of a recurrent layer one by one, for kernels that hand spikes to their targets and take no matrix."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from firstspike.layers import synapses
from firstspike.spiketime.contract import Rows

FEW, MANY = 0.1, 500
"""Up to this part of all weights a mask is faster as synapses, from that many neurons on."""


class Structure(NamedTuple):
    """Which synapses there are, those of the inputs and then those of the neurons."""

    rows: Rows
    places: tuple[Int64[Tensor, " synapses"] | None, ...]
    """Of both, where values stand in a flat matrix; None if they stand as they are, or all in the matrix do."""

    def joined(self, *values: Tensor) -> Float[Tensor, " synapses"]:
        """Values of both together, in the order of the rows."""
        return torch.cat([_taken(x, place) for x, place in zip(values, self.places, strict=True)])


def _taken(values: Tensor, places: Tensor | None) -> Tensor:
    if places is not None:
        return values.flatten().index_select(0, places)
    return values if values.ndim == 1 else values.T.reshape(-1)


def state_of(layer: Any) -> list[tuple[Tensor, int]]:
    """The buffers that tell the structure, and their versions."""
    found = [x for name, x in layer.named_buffers(recurse=False) if name.endswith(("source", "target", "connections"))]
    return [(x, 0 if x.is_inference() else x._version) for x in found]


def structure_of(layer: Any) -> Structure | None:
    """The structure of a layer's synapses; None if a matrix is faster."""
    parts, names = [], ("weight", "recurrent_weight")
    if "recurrent_weight" not in layer.sparse:
        counts = [int(synapses.fan_out(layer, name).sum()) for name in names]
        weights = layer.out_features * (layer.in_features + layer.out_features)
        takes_rows = layer.weight.is_cpu and layer.backend in ("auto", "cpu") and layer.neuron.equations is None
        if not takes_rows or layer.out_features < MANY or sum(counts) > FEW * weights:
            return None
    for name, sources in zip(names, (layer.in_features, layer.out_features), strict=True):
        connections, place = synapses.connections_of(layer, name), None
        if name in layer.sparse:
            source, target = synapses.ends_of(layer, name)
        elif connections is None:
            source = torch.arange(sources).repeat_interleave(layer.out_features)
            target = torch.arange(layer.out_features).repeat(sources)
        else:
            source, target = connections.T.nonzero().unbind(1)
            place = target * sources + source
        parts.append((torch.searchsorted(source.contiguous(), torch.arange(sources)), target, place))
    (first, target, place), (own, own_target, own_place) = parts
    if (count := len(target) + len(own_target)) >= 2**31:
        raise ValueError(f"a layer can have at most {2**31 - 1} synapses, those of its inputs included, got {count}")
    offsets = torch.cat([first, own + len(target), torch.tensor([count])])
    return Structure(Rows(offsets, torch.cat([target.int(), own_target.int()]), layer.out_features), (place, own_place))
