"""Random problems with named quantities: which of their dimensions are samples, inputs or neurons, and their units.

From these names follows what a shift in time, another unit, a permutation of the inputs and so on do to a problem, and
to its results.
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from fifty_digits import RATIOS
from firstspike import LIF

Outputs = dict[str, Tensor]
DOUBLE = {"dtype": torch.float64}
WIDTHS = [1, 2, 3, 31, 32, 33, 63, 64, 65]  # numbers of neurons, around the widths of tiles


class Quantity(NamedTuple):
    """What a tensor or number is."""

    axes: str = ""
    """A letter for each dimension: b samples, i inputs, o neurons, j neurons that send, k spikes of an input,
    s spikes of an output."""
    time: int = 0
    """Power of the unit of time in its unit."""
    weight: int = 0
    """Power of the unit of weights in its unit."""
    point: bool = False
    """Whether it is a point in time, which a shift moves."""


TIMES, TRAINS, SPIKES = (Quantity(axes, time=1, point=True) for axes in ("bi", "bik", "bo"))
WEIGHT, DELAY = Quantity("oi", weight=1), Quantity("oi", time=1)
DURATION, POINT, LEVEL = Quantity(time=1), Quantity(time=1, point=True), Quantity(weight=1)


class Setting(NamedTuple):
    """Sizes and peculiarities of a problem, as hypothesis draws them; a seed says the rest."""

    samples: int
    inputs: int
    neurons: int
    spikes: int
    ratio: float
    constants: str
    grid: bool
    silent: float
    zeros: bool
    seed: int

    @property
    def gap(self) -> float:
        """For how long nothing arrives in the midst of inputs: long enough for states to decay to next to nothing."""
        return random.Random(self.seed).choice((0.0, 0.0, 40.0, 400.0))


@st.composite
def settings_of(draw, small: bool) -> Setting:
    """Settings; small ones for code that takes long."""
    pick = st.sampled_from  # the first of each make the first problem, which has a bit of everything
    return Setting(
        samples=draw(pick([3, 1, 2] if small else [3, 1, 2, 5])),
        inputs=draw(pick([3, 1, 5] if small else [3, 1, 2, 5, 8, 20, 40])),
        neurons=draw(pick([3, 1, 2] if small else [3, *WIDTHS])),
        spikes=draw(pick([2, 1] if small else [2, 1, 3])),
        ratio=draw(pick([1.37, *RATIOS])),
        constants=draw(pick(["each", "shared", "numbers"])),
        grid=draw(pick([True, False])),
        silent=draw(pick([0.1, 0.0, 0.3, 1.0])),
        zeros=draw(pick([True, False])),
        seed=draw(st.integers(0, 2**32)),
    )


@dataclass(frozen=True)
class Problem:
    """Tensors and numbers, and a function of them."""

    values: Mapping[str, Any]
    quantities: Mapping[str, Quantity]
    function: Callable[[Mapping[str, Any], str], Outputs]
    outputs: Mapping[str, Quantity]
    learnt: tuple[str, ...]

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {name: x for name, x in self.values.items() if isinstance(x, Tensor)}

    def run(self, backend: str) -> Outputs:
        return self.function(self.values, backend)

    def having(self, **values: Any) -> "Problem":
        return replace(self, values={**self.values, **values})

    def changed(self, change: Callable[[Quantity, Any], Any]) -> "Problem":
        return replace(self, values={name: change(self.quantities[name], x) for name, x in self.values.items()})

    def changed_outputs(self, outputs: Outputs, change: Callable[[Quantity, Any], Any]) -> Outputs:
        return {name: change(self.outputs[name], x) for name, x in outputs.items()}

    def size(self, axis: str) -> int | None:
        """Length of an axis; None where no tensor has it."""
        for name, x in self.tensors.items():
            if axis in (axes := self.quantities[name].axes):
                return x.shape[x.ndim - len(axes) + axes.index(axis)]
        return None

    def taken(self, axis: str, index: Tensor) -> "Problem":
        """Only some of the samples, inputs or neurons, in this order; neurons that send are those that receive."""
        return self.changed(lambda quantity, x: at(quantity, x, axis, index))


def at(quantity: Quantity, x: Any, axis: str, index: Tensor) -> Any:
    """A tensor with some entries along an axis."""
    if not isinstance(x, Tensor):
        return x
    for place, letter in enumerate(quantity.axes):
        if letter == axis or (axis == "o" and letter == "j"):
            x = x.index_select(place - len(quantity.axes), index)
    return x


def finite(x: Tensor) -> Tensor:
    """Numbers with 0 in place of inf, without NaN in the gradient."""
    return torch.where(torch.isfinite(x), x, 0.0)


class Source:
    """Random tensors for a setting.

    Args:
        setting: what they are like.
        member: problems of one setting differ in their tensors only.
    """

    def __init__(self, setting: Setting, member: int = 0) -> None:
        self.setting = setting
        self.random = torch.Generator().manual_seed(setting.seed * 7 + member)
        self.values: dict[str, Any] = {}
        self.quantities: dict[str, Quantity] = {}
        self.learnt: list[str] = []

    def add(self, name: str, quantity: Quantity, value: Any, learnt: bool = False) -> Any:
        """Take up a tensor or number of the problem."""
        self.values[name], self.quantities[name] = value, quantity
        if learnt:
            self.learnt.append(name)
        return value

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.random, **DOUBLE)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.random, **DOUBLE)

    def times(self, *shape: int, latest: float = 2.0, distinct: bool = False) -> Tensor:
        """Points in time; ties where the setting is on a grid, unless all must be distinct."""
        found = self.uniform(*shape, high=latest)
        if self.setting.grid and not distinct:
            found = (found * 8).round() / 8
        if self.setting.silent:
            found = found.masked_fill(self.uniform(*shape) < self.setting.silent, math.inf)
        return found

    def trains(self, *shape: int, latest: float = 2.0, gap: float = 0.0) -> Tensor:
        found = self.times(*shape, latest=latest).sort(-1).values
        return torch.where(found > latest / 2, found + gap, found)

    def weights(self, *shape: int, arrivals: int, charge: float = 4.0, spread: float = 3.0) -> Tensor:
        """Weights whose sum over all arrivals is the charge on average; some are 0 where the setting says so."""
        found = charge / arrivals + spread / math.sqrt(arrivals) * self.normal(*shape)
        return found.masked_fill(self.uniform(*shape) < 0.2, 0.0) if self.setting.zeros else found

    def neuron(self, neurons: int, threshold: bool = True, axes: str = "o", learnt: bool = True) -> None:
        """Time constants and threshold: numbers, shared tensors, or tensors with a value for each neuron."""
        ratio = self.setting.ratio
        starts = {"tau_mem": 0.8 * ratio, "tau_syn": 0.8} | ({"threshold": 0.9} if threshold else {})
        for name, start in starts.items():
            unit = Quantity(weight=1) if name == "threshold" else Quantity(time=1)
            self.parameter(name, unit, start, neurons, axes, learnt, near=name != "threshold")

    def parameter(
        self,
        name: str,
        unit: Quantity,
        start: float,
        neurons: int,
        axes: str = "o",
        learnt: bool = True,
        near: bool = False,
    ) -> None:
        """One of a neuron, near a number; exactly there where all share it, unless it may be elsewhere."""
        constants = self.setting.constants
        if constants == "numbers" or math.isinf(start):
            self.add(name, unit, start)
        elif constants == "shared":
            factor = 1.0 if near else float(self.uniform(1, low=0.9, high=1.1))
            self.add(name, unit, torch.tensor(start * factor, **DOUBLE), learnt)
        else:
            self.add(name, unit._replace(axes=axes), start * self.uniform(neurons, low=0.8, high=1.2), learnt)

    def problem(self, function: Callable[[Mapping[str, Any], str], Outputs], **outputs: Quantity) -> Problem:
        return Problem(self.values, self.quantities, function, outputs, tuple(self.learnt))


def lif(values: Mapping[str, Any]) -> LIF:
    """The neuron of a problem."""
    dynamics = {name: values[name] for name in ("reset", "refractory") if name in values}
    return LIF(values["tau_mem"], values["tau_syn"], values.get("threshold", 1.0), **dynamics)
