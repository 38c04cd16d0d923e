"""Base classes of substrates: they yield the spike times of a network, and the exact gradient is taken at them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from operator import attrgetter
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from firstspike.layers import Delay, Network, Record, SpikingLayer, SpikingLinear
from firstspike.layers.branches import Branch
from firstspike.layers.dense import DenseLayer
from firstspike.layers.network import Call, applied
from firstspike.layers.trains import of_values
from firstspike.ranges import Bits, checks_ranges
from firstspike.spiketime.values import real_times


class SubstrateError(OSError):
    """A substrate that cannot be reached, or did not answer. The message names it, and a remedy."""


class Substrate(ABC):
    """Yields the spike times of all layers of a network: an exact computation, a simulator, a chip.

    Constructing one is cheap. It is opened with a network, runs batches, and is closed, best in a ``with`` block::

        with SUBSTRATES["integrator"](step=0.01).open(network) as substrate:
            record = substrate.record(network, times)      # times of all layers on it, differentiable

    A network that is run later may have other weights, but must have the layers of the one that it was opened with.

    To add one: implement ``run``, register it in ``SUBSTRATES``, and override other methods as needed.
    """

    kind: ClassVar[str]
    """The key of the substrate in ``SUBSTRATES``."""
    side_by_side: bool = False
    """Whether ``record`` is a pure function that ``torch.vmap`` may map over networks."""
    neurons: ClassVar[tuple[type[SpikingLayer], ...]] = (SpikingLinear,)
    """Classes of spiking layers that it has, ``SpikingLinear`` with its subclasses."""
    unusual: ClassVar[tuple[str, ...] | None] = None
    """Properties beyond plain neurons that are supported, named as in ``NeuronLayer.unusual``; None for all."""
    exclusive: ClassVar[bool] = False
    """Whether there is only one, as a chip: several networks then take turns on the same object."""

    def open(self, network: Network) -> Self:
        """Prepare for networks like this one.

        Raises:
            ValueError: a network that the substrate cannot take: too large, layers that it does not have.
            SubstrateError: it cannot be reached.
            ImportError: software that is not installed.
        """
        for index, layer in enumerate(network):
            if isinstance(layer, SpikingLayer):
                if not self.has(layer):
                    raise ValueError(f"layer {index}: the substrate {self.kind} does not support {layer._get_name()}")
                for words in self.lacks(layer):
                    raise ValueError(f"layer {index}: the substrate {self.kind} has no neurons {words}")
            elif of_values(layer):
                raise ValueError(
                    f"layer {index}: the substrate {self.kind} ends with the readout, and takes no {layer._get_name()} "
                    "after it; only the substrate exact does"
                )
        return self

    def lacks(self, layer: SpikingLayer) -> list[str]:
        """Properties of a layer's neurons that the substrate lacks, in words."""
        return [] if self.unusual is None else [x for name, x in layer.unusual.items() if name not in self.unusual]

    def has(self, layer: nn.Module) -> bool:
        """Whether a layer is one of its ``neurons``."""
        return isinstance(layer, SpikingLinear) or type(layer) in self.neurons

    def close(self) -> None:  # noqa: B027  (nothing to do by default)
        """Release the resources of ``open``. May be called twice."""

    @abstractmethod
    def run(self, network: Network, times: Float[Tensor, "batch inputs"]) -> Record:
        """Spike times of a batch on the substrate, without gradient.

        Args:
            network: its weights and delays as they are now. Nothing in it is changed.
            times: input times, ``inf`` = no spike.

        Returns:
            The input times as the substrate received them, and the output times of every layer, of the type and on the
            device of ``times``: the first spike of each neuron, ``inf`` if there was none; of ``SpikeTrains``
            the train.

        Raises:
            SubstrateError: no answer.
        """

    def parameters(self, network: Network) -> dict[str, Tensor]:
        """Parameters that the substrate uses in place of the network's own, by name, e.g. rounded weights."""
        return {}

    def project_(self, network: Network) -> None:  # noqa: B027
        """Put parameters back into the range of the substrate; called after every step of a training."""

    def identity(self) -> dict[str, Any]:
        """The device, as plain values: ``kind``, settings, versions; and ``chip`` if it is one particular device.

        Complete while it is open. By default the settings are the fields of a dataclass.
        """
        return {"kind": self.kind, **(asdict(self) if is_dataclass(self) else {})}

    def state_dict(self) -> dict[str, Any]:
        """The state to continue as if it had never stopped: tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Restore a saved state."""

    def record(self, network: Network, times: Float[Tensor, "batch inputs"]) -> Record:
        """Spike times of all layers with the exact gradient at them, for the parameters that the substrate used.

        If those differ from the network's (by rounding, say), the gradient goes straight through to the network's.
        """
        with torch.no_grad():
            seen = self.run(network, times)
            used = self.parameters(network)
        return record_at(network, *seen, used)

    def trials(self, network: Network, times: Float[Tensor, "batch inputs"], count: int) -> list[Record]:
        """Several runs of one batch, to compare them. See ``run``.

        Raises:
            ValueError: a count below 1.
            SubstrateError: no answer.
        """
        if count < 1:
            raise ValueError(f"count must be >= 1, got {count}")
        return [self.run(network, times) for _ in range(count)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def record_at(network: Network, times: Tensor, observed: Sequence[Tensor] | None, used: Mapping[str, Tensor]) -> Record:
    """Times of each layer, observed or computed, with the exact gradient. ``used`` parameters replace its own."""
    if not used:
        return network.record(times, observed)
    own = {name: attrgetter(name)(network) for name in used}
    # the values, to the last bit, with the gradient of the parameters
    through = {name: value.detach() + (own[name] - own[name].detach()) for name, value in used.items()}
    found: Record = Call(network).with_parameters(through, Network.record, times, observed)
    return found


@checks_ranges
@dataclass(eq=False)
class Exact(Substrate):
    """The exact spike times that the layers compute.

    Args:
        weight_bits: weights are rounded to multiples of a step that fit into a signed number of this many bits, with 4
            bits -7 ... 7. The step of a layer follows from its largest weight. Training moves the full-precision
            weights, with the gradient of the rounded ones.

    Raises:
        ValueError: fewer than 2 bits.
    """

    kind = "exact"
    side_by_side = True

    weight_bits: Bits | None = None

    def __post_init__(self) -> None:
        self.side_by_side = self.weight_bits is None

    def identity(self) -> dict[str, Any]:
        return {"kind": self.kind} if self.weight_bits is None else super().identity()

    def parameters(self, network: Network) -> dict[str, Tensor]:
        if self.weight_bits is None:
            return {}
        layers = [(place, layer) for place, layer in network.named_children() if not of_values(layer)]
        each = (pair for place, layer in layers for pair in layer.named_parameters(place))
        found = {name: x.detach() for name, x in each if name.endswith("weight")}
        for name, weight in found.items():
            step = weight.abs().amax() / (2 ** (self.weight_bits - 1) - 1)
            found[name] = torch.where(step > 0, (weight / step).round() * step, weight)
        return found

    def open(self, network: Network) -> Self:
        """Nothing to prepare: the layers compute everything themselves."""
        return self

    def run(self, network: Network, times: Float[Tensor, "batch inputs"]) -> Record:
        return Record(times, tuple(layer.detach() for layer in self.record(network, times).layers))

    def record(self, network: Network, times: Float[Tensor, "batch inputs"]) -> Record:
        """Spike times of all layers and their gradient, in one pass."""
        return record_at(network, times, None, self.parameters(network))


class LayerByLayer(Substrate):
    """A substrate that is computed layer after layer: its effects on spikes of LIF layers, delays and inputs."""

    def run(self, network: Network, times: Float[Tensor, "batch inputs"]) -> Record:
        with torch.no_grad():
            real_times(times)
            entered = [self.received(times)]  # the same tensor if they arrive as they are: its gradient may be needed
            for index, layer in enumerate(network):
                now = entered[-1]
                if isinstance(layer, DenseLayer):
                    now = self.spikes(index, layer, now)
                elif isinstance(layer, Delay):
                    now = self.delayed(index, layer, now)
                elif isinstance(layer, Branch) and layer.delays is not None:
                    carried = layer.reduced(entered[-1 - layer.over])
                    now = layer.join(now, self.delayed(index, layer.delays, carried))
                else:
                    now = applied(layer, entered, index=index)
                entered.append(now)
        return Record(entered[0], tuple(entered[1:]))

    def received(self, times: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch inputs"]:
        """The input times as they arrive."""
        return times

    @abstractmethod
    def spikes(
        self, index: int, layer: Any, times: Float[Tensor, "batch inputs"]
    ) -> Float[Tensor, "batch outputs"] | Float[Tensor, "batch outputs spikes"]:
        """The output of the LIF layer with that index in the network, one of the ``neurons``, for its inputs."""

    def delayed(
        self, index: int, layer: Delay, times: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch features"]:
        """Times after the delay layer with that index in the network, or after the delays of a ``Branch`` there."""
        delayed: Tensor = layer(times)
        return delayed
