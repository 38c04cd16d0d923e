"""Sequential networks that record every layer's spikes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from firstspike.layers.inputs import BiasSpikes, Multiplex, PoissonSpikes
from firstspike.layers.patches import flattened
from firstspike.layers.trains import FirstSpike, Form, at_observed, check_follows, form_of, of_values, takes_trains
from firstspike.spiketime.values import FullTrainsError, check_tensor


class Record(NamedTuple):
    """Spike times of a batch in a network: its input, and the output of each layer.

    Trains have one more dimension, for their spikes. A readout, and modules after it, have values instead.
    """

    inputs: Tensor
    layers: tuple[Tensor, ...]

    @property
    def output(self) -> Tensor:
        """Output times of the last layer."""
        return self.layers[-1] if self.layers else self.inputs


def over(layer: nn.Module) -> int:
    """Number of layers that a connection into this layer skips; 0 for all other layers."""
    return int(getattr(layer, "over", 0))


def applied(layer: nn.Module, entered: Sequence[Tensor], observed: Tensor | None = None, index: int = 0) -> Tensor:
    """The output of a layer, from the inputs of the network's layers up to this one, which has that index."""
    try:
        if past := over(layer):
            found: Tensor = layer(entered[-1], observed, skipped=entered[-1 - past])
        elif observed is None:
            found = layer(entered[-1])
        elif of_values(layer):
            found = at_observed(layer(entered[-1]), observed)
        else:
            found = layer(entered[-1], observed)
    except FullTrainsError as error:
        raise FullTrainsError(error.args[0], f"network[{index}]") from None
    return found


class Call(nn.Module):
    """A function of a network as a module, for ``functional_call``. In compiled programs it has to be made before."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, function: Callable[..., Any], *inputs: Any) -> Any:
        """The function's result."""
        return function(self.network, *inputs)

    def with_parameters(self, parameters: Mapping[str, Tensor], function: Callable[..., Any], *inputs: Any) -> Any:
        """``function(network, *inputs)`` with these tensors in place of the network's parameters of these names."""
        named = {f"network.{name}": value for name, value in parameters.items()}
        return functional_call(self, named, (function, *inputs))


class Network(nn.Sequential):
    """An ``nn.Sequential`` of layers that can also record every layer's spikes.

    Times are flat between layers, ``(..., inputs)``. If the first layer is one on images, the network takes times of
    the form ``(..., channels, height, width)`` as well. If the last one is, too, the output then has that form.
    Between layers for spike trains the times are trains, ``(batch, inputs, spikes)``. A layer such as ``Concatenate``
    also gets the inputs of an earlier layer. After a readout come modules of values, any of torch's or of your own::

        fs.Network(fs.LIFSpikeTrains(2, 100, 20), fs.IntegralReadout(100, 40), nn.BatchNorm1d(40), nn.Linear(40, 10))

    Raises:
        ValueError: a layer that does not fit the one before it, or a connection that begins before the network.
    """

    def __init__(self, *layers: Any) -> None:
        super().__init__(*layers)  # also takes an OrderedDict: slicing a network makes one
        size: int | None = None
        made: tuple[int, ...] | None = None
        form: Form = "first spikes"
        points: list[tuple[int | None, Form]] = []  # size and form of each layer's input
        for index, layer in enumerate(self):
            if of_values(layer) and form != "values":
                raise ValueError(
                    f"layer {index} ({type(layer).__name__}) is not a spike-time layer: it needs "
                    "output_size(inputs) and forward(times, observed=None); modules of values come after a readout, "
                    "such as fs.IntegralReadout, others work in nn.Sequential"
                )
            try:
                if size is None:  # the number of inputs is known from the first layer that fixes it
                    size = getattr(layer, "in_features", None)
                image = getattr(layer, "image", None)
                check_follows(form, layer)
                points.append((size, form))
                _check_past(layer, points)
                if image is not None and made is not None and image != made:
                    raise ValueError(f"it expects an image {image}, and gets {made}")
                size = _size_after(layer, size)
                made = getattr(layer, "out_image", None)
                form = form_of(layer)
            except ValueError as error:
                raise ValueError(f"layer {index} does not fit the one before it: {error}") from None

    @property
    def gives(self) -> Form:
        """The form of the last layer's output: first spikes, trains or values."""
        return form_of(self[-1]) if len(self) else "first spikes"

    @property
    def takes_trains(self) -> bool:
        """Whether the first layer takes spike trains."""
        return bool(len(self)) and takes_trains(self[0])

    @property
    def inputs(self) -> int | None:
        """Number of inputs; None if no layer fixes one."""
        before: list[Any] = []
        for layer in self:
            size = getattr(layer, "in_features", None)
            if size is not None:
                for earlier in reversed(before):
                    size = size // earlier.copies if isinstance(earlier, Multiplex) else size - earlier.output_size(0)
                return int(size)
            if isinstance(layer, FirstSpike):
                continue
            if not isinstance(layer, BiasSpikes | Multiplex | PoissonSpikes):
                return None
            before.append(layer)
        return None

    def forward(self, times: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """The output of the last layer: first spike times, trains or the values of a readout."""
        entered = [self.flat(times)]
        kept = 1
        for layer in self:  # torch.compile takes no max over an iterator
            kept = max(kept, 1 + over(layer))
        for index, layer in enumerate(self):
            out = applied(layer, entered, index=index)
            entered = [*entered, out][-kept:]  # inputs that no later layer needs are freed
        out = entered[-1]
        if not len(self) or self._flat(times) is times:
            return out
        made = getattr(self[-1], "out_form", getattr(self[-1], "out_image", None))
        return out if made is None else out.unflatten(-2 if self.gives == "trains" else -1, made)

    def flat(self, times: Tensor) -> Float[Tensor, "*batch inputs"]:
        """Input times in the form for layers: images are flattened, all others stay as they are."""
        check_tensor("times", times)
        times = self._flat(times)
        if times.ndim > 2 and not self.takes_trains and any(map(takes_trains, self)):
            raise ValueError(
                f"the first layer, {self[0]._get_name()}, takes first spikes (batch, inputs), got "
                f"{tuple(times.shape)}; begin with a layer for trains, such as fs.LIFSpikeTrains, fs.FirstSpike or "
                "fs.Delay(..., trains=True), or give times.amin(dim=-1)"
            )
        return times

    def _flat(self, times: Tensor) -> Tensor:
        first: Any = next(iter(self), None)  # an index would take longer
        form = getattr(first, "form", getattr(first, "image", None))
        return times if form is None else flattened(times, form, self.takes_trains)

    def record(self, times: Float[Tensor, "*batch inputs"], observed: Sequence[Tensor | None] | None = None) -> Record:
        """Spike times of every layer, flat.

        Args:
            times: input times.
            observed: for each layer the output times that a substrate recorded, or None for the layer's own. They are
                passed to the next layer, and gradients are taken at them.

        Raises:
            ValueError: another number of observed times than layers.
        """
        entered, seen = [self.flat(times)], self._each(observed)
        for index, layer in enumerate(self):
            entered.append(applied(layer, entered, seen[index], index))
        return Record(entered[0], tuple(entered[1:]))

    def _each(self, observed: Sequence[Tensor | None] | None) -> Sequence[Tensor | None]:
        """The observed times of each layer, None without any."""
        if observed is not None and len(observed) != len(self):
            raise ValueError(f"observed must have one entry for each of {len(self)} layers, got {len(observed)}")
        return [None] * len(self) if observed is None else observed

    def voltages(
        self,
        times: Float[Tensor, "*batch inputs"],
        at: Float[Tensor, " points"],
        layer: int | None = None,
        observed: Sequence[Tensor | None] | None = None,
    ) -> Float[Tensor, "*batch out points"]:
        """Membranes of a layer at given times, exact and differentiable. See ``NeuronLayer.voltages``.

        Args:
            times: input times.
            at: times in any order, in the unit of the inputs.
            layer: index of the layer; by default the last one with neurons.
            observed: as in ``record``.

        Raises:
            ValueError: a layer without neurons; errors of ``record`` and of the layer.
        """
        neurons = [index for index, one in enumerate(self) if hasattr(one, "voltages")]
        index = layer if layer is not None else neurons[-1] if neurons else 0
        index += len(self) * (index < 0)
        if index not in neurons:
            raise ValueError(f"layer: expected one with neurons, of {neurons}, got {layer}")
        before: Any = self[:index]  # torch takes modules for tensors
        one: Any = self[index]
        if isinstance(observed, Tensor):
            raise ValueError(f"observed must be a list, one entry for each of {len(self)} layers, got a tensor")
        seen = self._each(observed)
        found: Tensor = one.voltages(before.record(times, seen[:index]).output, at, seen[index])
        return found


def _size_after(layer: Any, size: int | None) -> int | None:
    """Number of outputs, None if it is not known; a ValueError for another number of inputs than the layer takes."""
    if not of_values(layer):
        return None if size is None else int(layer.output_size(size))
    takes = getattr(layer, "in_features", getattr(layer, "num_features", None)) or size
    if size not in (None, takes):
        raise ValueError(f"{layer._get_name()} expects {takes} values, and gets {size}")
    return getattr(layer, "out_features", getattr(layer, "num_features", None))


def _check_past(layer: nn.Module, points: Sequence[tuple[int | None, Form]]) -> None:
    """Raise a ValueError unless a connection past layers, with inputs ``points``, begins in the network, and fits."""
    past = over(layer)
    if not past:
        return
    if past >= len(points):
        raise ValueError(f"over={past} skips {past} layers, but only {len(points) - 1} precede it")
    size, form = points[-1 - past]
    needed = getattr(layer, "skipped_features", size)
    if form != "first spikes":
        raise ValueError(f"{type(layer).__name__} takes first spikes, and {past} layers earlier there are {form}")
    if size is not None and size != needed:
        raise ValueError(f"it expects {needed} spikes of {past} layers earlier, and gets {size}")
