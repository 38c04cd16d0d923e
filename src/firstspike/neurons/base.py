"""What all neurons have: parameters with units and bounds, and facts that a backend relies on."""

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor


class Unit(NamedTuple):
    """The unit of a quantity, as powers."""

    time: int = 0
    """Of the unit of time."""
    potential: int = 0
    """Of the unit of the membrane."""


class Parameter(NamedTuple):
    """What is known of one parameter of a neuron."""

    unit: Unit
    least: float
    """It is larger than this number, or equal to it if that is ``included``."""
    included: bool = False
    infinite: bool = False
    """Whether it may be ``inf``, which only a number is."""
    learnt: bool = True
    """Whether spike times have a gradient with respect to it."""

    @property
    def range(self) -> str:
        """Which numbers it may be."""
        bounds = [] if self.least == -math.inf else [f"{'>=' if self.included else '>'} {self.least:g}"]
        return " and ".join(bounds + ["finite"] * (not self.infinite))

    def allows(self, number: float) -> bool:
        """Whether it may be that number."""
        above = number >= self.least if self.included else number > self.least
        return above and (number < math.inf or self.infinite)


TIME, POTENTIAL = Unit(time=1), Unit(potential=1)


class Neuron:
    """What all neurons have: parameters by name, and facts that a backend relies on.

    A neuron is a frozen dataclass whose fields are its ``parameters``. Each is one number for all neurons of a layer,
    or a tensor ``()`` or ``(out,)``, which may require a gradient. The values of tensors are checked when they are
    used: reading them here would break under vmap. A backend accepts a neuron or refuses it with a reason.

    Two are equal if they are of the same kind and all values are; of tensors shape and values count. A number never
    equals a tensor.
    """

    parameters: ClassVar[Mapping[str, Parameter]] = {}
    """Units and bounds of all parameters."""
    state: ClassVar[Mapping[str, Unit]] = {}
    """What changes in time, the membrane ``voltage`` first."""
    resets: ClassVar[Mapping[str, str]] = {}
    """The parts of the state that a spike sets, each to a parameter, at which a refractory time holds it."""
    concave_rise: ClassVar[bool] = False
    """Whether the membrane is concave wherever it rises between two inputs, so that one test finds every crossing."""

    def __post_init__(self) -> None:
        for name, parameter in self.parameters.items():
            value = getattr(self, name)
            if isinstance(value, Tensor):
                continue
            # not by ``checks_ranges``: layers make neurons in every pass, also in compiled programs
            if not isinstance(value, Real) or isinstance(value, bool):
                raise ValueError(f"{name} must be a number or a tensor, got {value!r}")
            number = float(value)
            if not parameter.allows(number):
                raise ValueError(f"{name} must be {parameter.range}, got {value}")
            object.__setattr__(self, name, number)

    @property
    def values(self) -> dict[str, float | Tensor]:
        """The parameters as they are now."""
        return {name: getattr(self, name) for name in self.parameters}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Neuron):
            return NotImplemented
        return type(self) is type(other) and all(map(_same, self.values.values(), other.values.values()))

    def __hash__(self) -> int:
        return hash(tuple(tuple(x.shape) if isinstance(x, Tensor) else x for x in self.values.values()))


def shown_parameters(values: Mapping[str, Any]) -> str:
    """Parameters of a neuron as they are printed: reset and refractory time only if there is one."""
    unusual = (name for name in values if name not in ("reset", "refractory") or str(values[name]) != "0.0")
    return ", ".join(f"{name}={values[name]}" for name in unusual)


def check_neuron(value: Any) -> None:
    """Raise a ValueError unless the value is a ``Neuron``."""
    if not isinstance(value, Neuron):
        raise ValueError(f"neuron must be a LIF, such as LIF(tau_mem=2.0), got {value!r}")


def _same(one: float | Tensor, other: float | Tensor) -> bool:
    """Whether two parameters have the same values, whatever their types and devices."""
    if one is other:
        return True
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.shape != other.shape or one.is_meta or other.is_meta:
            return False
        return torch.equal(*(x.detach().cpu().double() for x in (one, other)))
    return not isinstance(one, Tensor) and not isinstance(other, Tensor) and one == other
