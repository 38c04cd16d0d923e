"""Silent neurons: they have no gradient, so their weights are raised.

Source: Göltz et al. 2021, supplement.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from firstspike.layers import Network, Record, SpikingLayer
from firstspike.layers.neurons import NeuronLayer
from firstspike.layers.synapses import existing, of_rows
from firstspike.layers.trains import first_of, form_of
from firstspike.ranges import Positive, checks_ranges

_HIDDEN, _OUTPUT, _TRAINS = 0.5, 0.1, 0.9  # default limits


@checks_ranges
@dataclass
class SilentNeurons:
    """Raises weights of layers in which too many neurons are silent.

    If the fraction of silent (sample, neuron) pairs of a LIF layer in a batch exceeds its limit, ``increment`` is added
    to all weights of each of its neurons that is itself silent in a larger fraction of the samples than the limit. If
    there are several such layers, only the first one is raised: later ones may just lack its spikes. While the same
    layer stays above its limit, the increment doubles from batch to batch. In the papers such a batch takes no
    optimiser step.

    Args:
        limits: largest silent fraction allowed in each LIF layer, in order, or one number for all of them. 1 allows
            everything. By default 0.5, and 0.1 in an output layer of first spikes, which decides. For layers that give
            spike trains it is 0.9, if other neurons or a readout come after them; convolutions of trains, most of
            whose neurons may see nothing, and trains that are the output may be silent.
        increment: first amount that is added to each weight.
        targeted: raise the silent neurons only; otherwise all neurons of the layer. ``"any"`` raises each one that is
            silent in any sample of the batch, however few: the rule of the original code.
        exponential: double the increment while the same layer stays silent.
        skip_step: a batch that raises weights takes no optimiser step.

    Raises:
        ValueError: a limit outside [0, 1], an increment that is not positive; when it is used, another number of limits
            than LIF layers.
    """

    limits: Sequence[float] | float | None = None
    increment: Positive = 0.005
    targeted: bool | Literal["any"] = True
    exponential: bool = True
    skip_step: bool = True
    last_layer: int | None = field(default=None, init=False, compare=False)
    repeats: int = field(default=0, init=False, compare=False)

    def __post_init__(self) -> None:
        if self.limits is None:
            return
        alone = isinstance(self.limits, int | float)
        given = (self.limits,) if alone else self.limits
        if not isinstance(given, list | tuple) or not all(0 <= limit <= 1 for limit in given):
            raise ValueError(
                "limits must be a fraction from 0 to 1, or a list with one for each LIF layer such as [0.5, 0.3], "
                f"got {self.limits}"
            )
        self.limits = self.limits if alone else tuple(map(float, given))

    @property
    def active(self) -> bool:
        """Whether any limit can be exceeded."""
        if isinstance(self.limits, int | float):
            return self.limits < 1
        return self.limits is None or min(self.limits, default=1.0) < 1

    def limits_of(self, network: nn.Module) -> tuple[float, ...]:
        """The limit of each LIF layer of a network, 1 for another module; a ValueError for another number of limits."""
        layers = spiking_layers(network)
        if isinstance(self.limits, int | float):
            return (float(self.limits),) * len(layers)
        if self.limits is None:
            if not isinstance(network, Network):
                return (1.0,)
            last = layers[-1:] if network.gives == "first spikes" else []
            ends = [k for k, layer in enumerate(network) if isinstance(layer, NeuronLayer)][-1:]

            def limit(index: int) -> float:
                if not _gives_trains(network, index):
                    return _OUTPUT if index in last else _HIDDEN
                layer: Any = network[index]
                return 1.0 if layer.matrix_shape[0] < layer.out_features or index in ends else _TRAINS

            return tuple(map(limit, layers))
        if len(self.limits) != len(layers):
            raise ValueError(f"SilentNeurons has {len(self.limits)} limits, the network has {len(layers)} LIF layers")
        return tuple(self.limits)

    def too_silent(self, network: nn.Module, fractions: Sequence[float]) -> int | None:
        """Number of the first LIF layer above its limit, or None; counts how often in a row it is the same.

        ``fractions`` begin with the silent ones of the LIF layers in a batch, see ``activity``.
        """
        for layer, (limit, fraction) in enumerate(zip(self.limits_of(network), fractions, strict=False)):
            if fraction > limit:
                self.repeats = self.repeats + 1 if layer == self.last_layer else 0
                self.last_layer = layer
                return layer
        self.last_layer, self.repeats = None, 0
        return None

    def raise_weights_(self, network: Network, record: Record, shared: bool = False) -> bool:
        """Raise weights if the batch has too many silent neurons.

        With ``skip_step=False`` the gradient step may come before or after.

        Args:
            network: its weights may be raised, in place.
            record: spike times of the batch in that network.
            shared: write into the memory of the weights, which others share, as the members of an ``Ensemble`` do. The
                gradient step then comes before.

        Returns:
            Whether to skip the optimiser step: weights were raised and ``skip_step`` is set.
        """
        found = self.too_silent(network, [float(x) for x in activity(network, record.layers)])
        if found is None:
            return False
        silent = silence(first_spikes_in(network, record.layers, found))
        self.raise_layer_(network, found, silent.flatten(0, -2).mean(dim=0), shared)
        return self.skip_step

    @torch.no_grad()
    def raise_layer_(
        self, network: nn.Module, layer: int, silent: Float[Tensor, " neurons"], shared: bool = True
    ) -> None:
        """Raise weights of the LIF layer of that number, in place.

        ``silent`` is the fraction of the samples in which each of its neurons is silent; ``shared`` as in
        ``raise_weights_``.
        """
        lif = network[spiking_layers(network)[layer]] if isinstance(network, Network) else None
        if not isinstance(lif, SpikingLayer):
            raise TypeError(f"SilentNeurons needs a Network of LIF layers, got {network._get_name()}")
        weight, limit = lif.weight, 0.0 if self.targeted == "any" else self.limits_of(network)[layer]
        amount = self.increment * 2**self.repeats if self.exponential else self.increment
        rows = lif.matrix_shape[0]
        if len(silent) > rows:  # neurons share weights
            silent = silent.view(rows, -1).mean(dim=1)
        raised = (silent > limit).to(weight) if self.targeted else weight.new_ones(rows)
        if not shared:  # a backward pass that is still to come needs the weights of the forward pass
            weight.data = weight.detach().clone()
        weight.data.add_(amount * of_rows(lif, "weight", raised))
        weight.data.copy_(existing(lif))

    def state_dict(self) -> dict[str, Any]:
        """The state for a resumed training."""
        return {"last_layer": self.last_layer, "repeats": self.repeats}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        self.last_layer, self.repeats = state["last_layer"], state["repeats"]


def silence(times: Float[Tensor, "*sizes"]) -> Float[Tensor, "*sizes"]:
    """1 for silent neurons, otherwise 0: numbers, as torch takes ten times as long to sum booleans."""
    return times.detach().clone().eq_(math.inf)


def spiking_layers(network: nn.Module) -> list[int]:
    """Indices of the LIF layers in the network; for a module that is not a ``Network``, that of its output."""
    if not isinstance(network, Network):
        return [0]
    return [index for index, layer in enumerate(network) if isinstance(layer, SpikingLayer)]


def first_spikes_in(
    network: nn.Module, layers: Sequence[Tensor], number: int
) -> Float[Tensor, "*members batch neurons"]:
    """First spikes of the LIF layer of that number in a network, from the outputs of all layers."""
    index = spiking_layers(network)[number]
    return first_of(network[index], layers[index]) if isinstance(network, Network) else layers[index]


def activity_names(network: nn.Module) -> list[str]:
    """Names of the numbers of ``activity``."""
    trains = [index for index in spiking_layers(network) if _gives_trains(network, index)]
    silent = [f"silent_{index}" for index in spiking_layers(network)]
    return silent + [f"{what}_{index}" for index in trains for what in ("spikes", "full")]


def activity(network: nn.Module, layers: Sequence[Tensor]) -> list[Float[Tensor, "*members"]]:
    """Activity of neurons in a batch: the silent fraction of each LIF layer, then the spikes of layers with trains.

    For each of these: the mean number of spikes per neuron, and the fraction of (sample, neuron) pairs whose train is
    as long as it can be, ``max_spikes``, so that later spikes may have been dropped. ``layers`` are the outputs of all
    layers; those of an ensemble, whose first member is ``network``, have a leading dimension for the member.
    """
    return [values.mean(dim=(-2, -1), dtype=layers[-1].dtype) for values in _counted(network, layers)]


def activity_counts(
    network: nn.Module, layers: Sequence[Tensor]
) -> tuple[Float64[Tensor, "*members numbers"], list[int]]:
    """The numbers of ``activity`` as sums over samples and neurons, which are exact, and the neurons of each."""
    found = _counted(network, layers)
    if not found:
        return layers[-1].new_zeros((*layers[-1].shape[:-2], 0), dtype=torch.float64), []
    counts = [values.sum(dim=-1).sum(dim=-1, dtype=torch.float64) for values in found]
    return torch.stack(counts, dim=-1), [values.shape[-1] for values in found]


def _counted(network: nn.Module, layers: Sequence[Tensor]) -> list[Tensor]:
    """The numbers of each sample and neuron that ``activity`` is the mean of."""
    if not isinstance(network, Network):
        return [silence(layers[0])]
    silent, more = [], []
    for layer, times in zip(network, layers, strict=True):
        if not isinstance(layer, SpikingLayer):
            continue
        if form_of(layer) == "trains":
            spikes = torch.isfinite(times)
            more += [spikes.sum(dim=-1), spikes[..., -1]]
            times = times[..., 0]
        silent.append(silence(times))
    return silent + more


def fractions(
    counts: Float64[Tensor, "*members numbers"], neurons: Sequence[int], samples: int = 1
) -> Float64[Tensor, "*members numbers"]:
    """Counts divided by the pairs of samples and neurons."""
    # by numbers, not by a tensor of them, which a compiled program would have to bring to a GPU
    parts = [count / (size * samples) for count, size in zip(counts.unbind(-1), neurons, strict=True)]
    return torch.stack(parts, dim=-1) if parts else counts


def _gives_trains(network: nn.Module, index: int) -> bool:
    return isinstance(network, Network) and form_of(network[index]) == "trains"
