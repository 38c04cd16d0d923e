"""What a kind of neuron knows: how its state moves between events, when g first rises to 0, and what a spike changes.

Shapes: P (sample, neuron) pairs of all networks, N events, D numbers of a state.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor
from torch.nn.functional import pad

from firstspike.spiketime.contract import Arguments
from firstspike.spiketime.statuses import FINE

State = Float64[Tensor, "P D"]
Values = Float64[Tensor, " P"]
Some = Bool[Tensor, " P"]


class Neurons(ABC):
    """Some pairs with their parameters and inputs, differentiable."""

    rest: State
    """The state at the start."""
    parts: int
    """Number of variables of a state after the membrane that others see."""
    unit: Values | float = 1.0
    """Unit of the voltages and variables of a state."""
    fixes_twins: bool = False
    """Whether a spike observed no later than a spike or release before it is fixed, as of LIF neurons."""
    goes_on: ClassVar[bool]
    """Whether the spike that there is no room for changes the state at the end, which then has no gradient."""

    def __init__(
        self,
        given: Arguments,
        pairs: Int64[Tensor, " P"],
        dtype: torch.dtype,
        places: Sequence[int],
        direct: Sequence[bool],
    ) -> None:
        _, batch, inputs, outputs = given.sizes
        rest, self.neuron = pairs // max(1, outputs), pairs % max(1, outputs)
        self.network, self.sample = rest // max(1, batch), rest % max(1, batch)
        parameters, refractory = given.parameters, given.refractory if given.max_spikes else None
        refractory = refractory if parameters is None else parameters[..., -1]
        none = torch.zeros(len(pairs), dtype=given.weight.dtype, device=given.weight.device)
        self.refractory = none if refractory is None else self.of_neurons(refractory)
        self.left = none if given.left is None else self.of_pairs(given.left)
        """The rest of the refractory time at the start."""
        self.waiting = self.left < 0
        """Pairs that are held until the next of these spikes."""
        self.status = torch.full_like(self.left, FINE, dtype=torch.int64)
        """Their error codes, from ``statuses``."""
        copies = given.times.shape[-1] if given.max_spikes else 1
        time = given.times[self.network, self.sample].view(len(pairs), inputs, copies)
        if given.delay is not None:
            time = time + self.of_neurons(given.delay).unsqueeze(-1)
            time = time + (rounded(time, dtype) - time).detach().nan_to_num(nan=0.0)  # as all times are
        time = torch.where((time >= given.start) & (time < given.until), time, math.inf).flatten(1)
        weight = self.of_neurons(given.weight)
        firsts = given.weight.new_tensor(places, dtype=torch.int64)
        place = firsts[(weight <= 0).long() if given.receptor is None else given.receptor[self.network]]
        weight, place = (x.repeat_interleave(copies, -1) for x in (weight, place))
        self.time: Float64[Tensor, "P N"] = pad(time, (0, 1), value=math.inf)
        """Times of arrivals, ``inf`` for those outside of the window, and for one more."""
        self.weight: Float64[Tensor, "P N"] = pad(weight, (0, 1))
        self.place: Int64[Tensor, "P N"] = pad(place, (0, 1))
        """Index of the variable that each arrival adds to."""
        self.lifts: Bool[Tensor, "P N"] = torch.zeros_like(self.place, dtype=torch.bool)
        """Arrivals at times at which some lift g itself."""
        if any(direct):
            lifting = torch.tensor(direct, device=place.device)[self.place]
            alone = torch.where(lifting, self.time.detach(), math.inf).sort(-1).values
            nearest = torch.searchsorted(alone, self.time.detach()).clamp(max=alone.shape[-1] - 1)
            self.lifts = (alone.gather(-1, nearest) == self.time) & self.time.isfinite()

    def of_neurons(self, x: Float64[Tensor, "E O ..."]) -> Float64[Tensor, "P ..."]:
        """Numbers of neurons, for each pair."""
        return x[self.network, self.neuron]

    def of_pairs(self, x: Float64[Tensor, "E B O ..."]) -> Float64[Tensor, "P ..."]:
        """Numbers of neurons in each sample, for each pair."""
        return x[self.network, self.sample, self.neuron]

    def ends(self, x: State, left: Values) -> tuple[Values, State, Values]:
        """The state at the end, as others see it."""
        return x[:, 0] * self.unit, (x[:, 1 : 1 + self.parts].T * self.unit).T, left

    @abstractmethod
    def moved(self, x: State, time: Values, held: Some) -> State:
        """States after a time without events, differentiable. ``held`` are within a refractory time."""

    @abstractmethod
    def first_crossing(self, x: State, length: Values, looks: Int64[Tensor, " L"]) -> Float64[Tensor, " L"]:
        """Time until g of these pairs first is >= 0, ``inf`` if it is not within the length."""

    @abstractmethod
    def excess(self, x: State) -> Values:
        """g, differentiable."""

    @abstractmethod
    def slope(self, x: State) -> Values:
        """Derivative of g with respect to time, as if g were 0 also at observed spikes."""

    @abstractmethod
    def reset(self, x: State) -> State:
        """States after a spike, differentiable."""

    @abstractmethod
    def kicked(self, x: State, kicks: State, held: Some) -> State:
        """By how much states change faster once an input has added ``kicks``."""

    @abstractmethod
    def turned(self, x: State, after: State, held: Some) -> State:
        """By how much they change faster ``after`` the reset than before it, of which it keeps a part."""

    @abstractmethod
    def freed(self, x: State) -> State:
        """By how much they change faster once they are no longer held."""


Make = Callable[[Arguments, Int64[Tensor, " P"], torch.dtype], Neurons]
"""Some pairs of the ``prepared`` arguments, whose times are numbers of the dtype."""


def rounded(time: Values, dtype: torch.dtype) -> Values:
    """As a number of the dtype, which all times of events are."""
    return time.to(dtype).double()
