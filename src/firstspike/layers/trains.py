"""Spike times and trains between layers: their form, their number, and conversions between them.

Trains are tensors ``(batch, neurons, spikes)``, sorted along the last dimension, ``inf`` after the last spike. First
spikes ``(batch, neurons)`` are trains of one spike for layers that take trains. Layers and losses take any order.
"""

from typing import Any, Literal, NamedTuple, TypedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from firstspike.ranges import Finite, Positive, checks_ranges
from firstspike.signature import shown_arguments
from firstspike.spiketime.values import check_padding, check_times

Form = Literal["first spikes", "trains", "values"]
"""A layer's outputs: spike times ``(batch, neurons)``, trains ``(batch, neurons, spikes)``, or a readout's values."""


Spikes = Float[Tensor, "*batch inputs"] | Float[Tensor, "*batch inputs spikes"]
"""First spikes, or trains."""


class TensorOptions(TypedDict, total=False):
    """Keyword arguments of layers that have parameters."""

    generator: torch.Generator | None
    device: torch.device | str | None
    dtype: torch.dtype | None


def form_of(layer: nn.Module | type[nn.Module]) -> Form:
    """The form of a layer's output, or of the layers of a class: its attribute ``gives``, by default first spikes."""
    form: Form = getattr(layer, "gives", "values" if of_values(layer) else "first spikes")
    return form


def of_values(layer: nn.Module | type[nn.Module]) -> bool:
    """Whether a layer is a module of values, such as ``nn.Linear``, and not one of this package or like them."""
    return not callable(getattr(layer, "output_size", None))


def takes_trains(layer: nn.Module) -> bool:
    """Whether a layer takes spike trains. Those that do have a true attribute of this name."""
    return bool(getattr(layer, "takes_trains", False))


def first_of(layer: nn.Module, times: Tensor) -> Float[Tensor, "*batch neurons"]:
    """First spikes of a layer's output."""
    return times[..., 0] if form_of(layer) == "trains" else times


class Noise(NamedTuple):
    """Where random numbers of a forward pass come from, by default torch's global source. See ``jitter_from``.

    With ``part``, the number of samples of a whole batch and which of them these are, they are drawn for all of it.
    """

    source: torch.Generator | None = None
    part: tuple[int, slice] | None = None


class SpikeLayer(nn.Module):
    """The base of layers: sizes, if they fix them, and how they print. Arguments are in attributes of the same name."""

    in_features: int
    out_features: int
    takes_trains: bool = False
    gives: Form = "first spikes"
    noise: Noise = Noise()
    over: int = 0
    """Layers that a connection into this one skips."""

    @property
    def _name(self) -> str:
        """How error messages call it."""
        return f"{self._get_name()}({self.in_features})"

    def __prepare_scriptable__(self) -> None:
        raise NotImplementedError("torch.jit.script cannot record spike times; write a program with fs.export")

    def output_size(self, inputs: int) -> int:
        """Number of outputs for that number of inputs; ValueError if the layer is made for another one."""
        if inputs != getattr(self, "in_features", inputs):
            raise ValueError(f"{self._name} expects {self.in_features} inputs, got {inputs}")
        return getattr(self, "out_features", inputs)

    def extra_repr(self) -> str:
        """Two arguments and the neuron, and of the others those that are not the default."""
        return shown_arguments(self, self._argument, 2)

    def _argument(self, name: str) -> Any:
        """An argument as it is printed."""
        return getattr(self, name, None)

    def _check_first(self, times: Tensor, hint: str) -> None:
        """Raise a ValueError unless these are first spikes of all inputs. The hint is about spike trains."""
        check_times(times)
        inputs = self.in_features
        if times.ndim and times.shape[-1] == inputs:
            return
        got, weight = times.shape[-1] if times.ndim else "no dimension", getattr(self, "weight", None)
        shapes = f"times {tuple(times.shape)}" + ("" if weight is None else f" and weight {tuple(weight.shape)}")
        trains = f"; for spike trains {hint}" if times.ndim > 2 and times.shape[-2] == inputs else ""
        raise ValueError(f"{self._name} expects {inputs} inputs, got {got}: {shapes}{trains}")

    def _as_trains(self, times: Spikes) -> Float[Tensor, "*batch inputs spikes"]:
        """Input times as trains: up to two dimensions, ``(inputs,)`` or ``(batch, inputs)``, are first spikes."""
        check_times(times)
        inputs = self.in_features
        trains = times.unsqueeze(-1) if times.ndim <= 2 else times
        if not times.ndim or trains.shape[-2] != inputs:
            hint = ""
            if times.ndim > 2 and times.shape[-1] == inputs:
                hint = "; first spikes with more than one batch dimension are times.unsqueeze(-1)"
            shape = f"(batch, {inputs}), or trains (batch, {inputs}, spikes)"
            raise ValueError(f"{self._name} expects times {shape}, got {tuple(times.shape)}{hint}")
        check_padding(trains)
        return trains


def check_follows(before: Form, layer: nn.Module) -> None:
    """Raise a ValueError unless a layer takes the output of the one before."""
    name = layer._get_name()
    if before == "values" and not (of_values(layer) and form_of(layer) == "values"):
        raise ValueError(
            f"{name} expects spikes, and gets the values of a readout, after which only modules of values come, such "
            "as nn.Linear"
        )
    if before == "trains" and not takes_trains(layer):
        raise ValueError(
            f"{name} expects first spikes, and gets spike trains: put fs.FirstSpike() (in a config kind first_spike) "
            "before it, or take a layer for trains, such as fs.LIFSpikeTrains (kind spike_trains) or "
            "fs.Delay(..., trains=True)"
        )


class FirstSpike(SpikeLayer):
    """The first spike of each train: ``trains (batch, n, spikes) -> times (batch, n)``; ``inf`` where there is none.

    After it come layers and losses for first spikes. Times that are first spikes already, with up to two dimensions,
    stay as they are.
    """

    takes_trains = True

    def __init__(self) -> None:  # without arguments, for configs
        super().__init__()

    def forward(
        self, times: Spikes, observed: Float[Tensor, "*batch inputs"] | None = None
    ) -> Float[Tensor, "*batch inputs"]:
        """First spikes; with ``observed``, these times and the gradient of the first spikes."""
        check_times(times)
        check_padding(times)
        first = times.min(dim=-1).values if times.ndim > 2 else times
        return first if observed is None else at_observed(first, observed)


@checks_ranges
class SmoothCount(FirstSpike):
    """The number of spikes of each train in a window, with smooth ends: ``(batch, n, spikes) -> values (batch, n)``::

        n = sum_k sigmoid((until - t_k) / xi) - sigmoid((start - t_k) / xi)

    It ends a network as a readout does, for losses on values. Value and gradient are exact, and the gradient says what
    can be reached by moving spikes: only those within a few ``xi`` of an end of the window count for it, so that a
    long ``xi`` is a gradient for all. A neuron without spikes has none.

    Args:
        until: end of the window, in the unit of the times.
        xi: width of its ends, > 0, in the unit of the times.
        start: start of the window; None counts from the first spike on.
        gradient: ``"smooth"`` is exact. ``"counting"`` is not the derivative of the number: every spike of the train
            gets the same error, as if the number rose by ``1 / xi`` for each unit of time by which it is earlier.

    Raises:
        ValueError: a number outside its range, a start that is not before ``until``, another ``gradient``.

    Source: Bacho and Chu 2022, "Exact Error Backpropagation Through Spikes for Precise Training of Spiking Neural
    Networks" (the counting gradient, there with ``xi = 1``).
    """

    gives = "values"

    def __init__(
        self,
        until: Finite,
        xi: Positive,
        start: Finite | None = None,
        gradient: Literal["smooth", "counting"] = "smooth",
    ) -> None:
        super().__init__()
        if start is not None and not start < until:
            raise ValueError(f"start must be before until, {until:g}, got {start:g}")
        self.until, self.xi, self.start, self.gradient = until, xi, start, gradient

    def forward(
        self, times: Spikes, observed: Float[Tensor, "*batch inputs"] | None = None
    ) -> Float[Tensor, "*batch inputs"]:
        """The smooth numbers; with ``observed``, these values and the gradient of the computed ones."""
        check_times(times)
        trains = times if times.ndim > 2 else times.unsqueeze(-1)
        count = torch.sigmoid((self.until - trains) / self.xi)
        if self.start is not None:
            count = count - torch.sigmoid((self.start - trains) / self.xi)
        values = torch.where(trains < torch.inf, count, 0.0).sum(dim=-1)
        if self.gradient == "counting":
            earlier = torch.where(trains < torch.inf, -trains / self.xi, 0.0).sum(dim=-1)
            values = at_observed(earlier, values.detach())
        return values if observed is None else at_observed(values, observed)


def spike_counts(times: Float[Tensor, "*batch neurons spikes"]) -> Float[Tensor, "*batch neurons"]:
    """Number of spikes in each train, in the type of the times."""
    return torch.isfinite(times).sum(dim=-1, dtype=times.dtype)


def at_observed(computed: Float[Tensor, "*shape"], observed: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The ``observed`` times as they are, with the gradient of the ``computed`` ones; none where either is ``inf``."""
    if observed.shape != computed.shape:
        raise ValueError(f"observed must have the shape {tuple(computed.shape)}, got {tuple(observed.shape)}")
    both = torch.isfinite(computed) & torch.isfinite(observed)
    return torch.where(both, observed + (computed - computed.detach()), observed)
