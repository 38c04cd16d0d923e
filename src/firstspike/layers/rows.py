"""The synapses of a layer one by one, for kernels that hand spikes to their targets and take no matrix."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from firstspike.layers import synapses
from firstspike.spiketime.contract import Rows

FEW, FEWER, MANY = 0.1, 0.01, 500
"""Up to this part of all weights synapses are faster than a matrix, without delays and recurrence up to the second,
from that many neurons on."""
_ARRIVALS = 16  # at a neuron, at least, in a window of a layer without recurrence


class Structure(NamedTuple):
    """Which synapses there are, those of the inputs and then those of the neurons."""

    rows: Rows
    places: tuple[Int64[Tensor, " synapses"] | None, ...]
    """Of each, where values stand in a flat matrix; None if they stand as they are, or all in the matrix do."""

    def joined(self, *values: Tensor) -> Float[Tensor, " synapses"]:
        """Values of all together, in the order of the rows."""
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
    parts, sizes = [], {"weight": layer.in_features}
    recurrent = hasattr(layer, "recurrent_weight")
    if recurrent:
        sizes["recurrent_weight"] = layer.out_features
    if "recurrent_weight" not in layer.sparse:
        count = sum(int(synapses.fan_out(layer, name).sum()) for name in sizes)
        weights = layer.out_features * sum(sizes.values())
        few = count <= (FEW if recurrent or layer.delay_rule is not None else FEWER) * weights
        large = any(x.targets * x.sources > synapses.MOST_DENSE for x in layer.sparse.values())
        takes_rows = layer.weight.is_cpu and layer.backend in ("auto", "cpu") and layer.neuron.equations is None
        if not takes_rows or not (large or (few and layer.out_features >= MANY)):
            return None
    for name, sources in sizes.items():
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
    if not recurrent:
        parts.append((torch.zeros(layer.out_features, dtype=torch.int64), parts[0][1][:0], None))
    (first, target, place), (own, own_target, own_place) = parts
    if (count := len(target) + len(own_target)) >= 2**31:
        raise ValueError(f"a layer can have at most {2**31 - 1} synapses, those of its inputs included, got {count}")
    offsets = torch.cat([first, own + len(target), torch.tensor([count])])
    rows = Rows(offsets, torch.cat([target.int(), own_target.int()]), layer.out_features)
    return Structure(rows, (place, own_place)[: len(sizes)])


def windows_for(trains: Tensor, structure: Structure, longest: float, start: float, until: float) -> tuple[float, ...]:
    """Bounds of windows in which few spikes arrive at a neuron, where nothing comes back to the neurons.

    They are multiples of a power of two, which few batches change, as bounds do the last digits.
    """
    times = trains.detach()[trains.detach().isfinite()]
    bounds: list[float] = []
    if times.numel() and len(structure.rows.targets):
        begin, end = float(times.min()), min(float(times.max()) + longest, until)
        samples = trains[..., 0, 0].numel()
        arrivals = times.numel() / samples / trains.shape[-2] * len(structure.rows.targets) / structure.rows.outputs
        if arrivals > 2 * _ARRIVALS and end > begin:
            step = 2.0 ** math.ceil(math.log2((end - begin) * _ARRIVALS / arrivals))
            inner = np.arange(math.floor(begin / step) + 1, math.ceil(end / step), dtype=np.float64) * step
            kept = np.unique(inner.astype(np.float32 if times.dtype == torch.float32 else np.float64)).tolist()
            bounds = [x for x in kept if start < x < until]
    return start, *bounds, until
