"""What all neurons have: parameters with units and bounds, and facts that a backend relies on."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar, Literal, NamedTuple

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
    several: bool = False
    """Whether it may be a sequence: a number, or a tensor, for each receptor, current or part of the threshold."""
    optional: bool = False
    """Whether it may be None."""

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
Value = float | Tensor | tuple[float | Tensor, ...] | None
"""Of a parameter."""
Kind = Literal["synapse", "rise", "current", "threshold"]


class Component(NamedTuple):
    """One of the exponentials ``y`` of a linear neuron, ``dy/dt = -y / tau``, with the membrane ``V``.

    A ``synapse`` adds ``y / tau`` to ``dV/dt``. A ``rise`` comes before the synapse that it feeds: what decays in it
    flows there. A ``current`` subtracts ``y / tau`` from ``dV/dt``. A part of the ``threshold`` adds y to it.
    """

    kind: Kind
    tau: float | Tensor
    jump: float | Tensor = 0.0
    """What a spike of the neuron adds to it."""


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

    @property
    def concave_rise(self) -> bool:
        """Whether the membrane is concave wherever it rises between two inputs: one test then finds every crossing."""
        return False

    @property
    def components(self) -> tuple[Component, ...]:
        """The exponentials of a neuron that is linear between events; none of another one."""
        return ()

    @property
    def receptors(self) -> tuple[int, ...]:
        """The component that an input adds its weight to, for each receptor."""
        return receptors_of([component.kind for component in self.components])

    def __post_init__(self) -> None:
        # not by ``checks_ranges``: layers make neurons in every pass, also in compiled programs
        for name, parameter in self.parameters.items():
            value = getattr(self, name)
            if isinstance(value, (list, tuple)) and parameter.several:
                found: Any = tuple(_checked(f"{name}[{k}]", parameter, x) for k, x in enumerate(value))
            else:
                found = _checked(name, parameter, value)
            object.__setattr__(self, name, found)

    @property
    def values(self) -> dict[str, Any]:
        """The parameters as they are now."""
        return {name: getattr(self, name) for name in self.parameters}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Neuron):
            return NotImplemented
        return type(self) is type(other) and all(map(_same, self.values.values(), other.values.values()))

    def __hash__(self) -> int:
        return hash(tuple(map(_hashable, self.values.values())))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({shown_parameters(self.values)})"


def receptors_of(kinds: Sequence[Kind]) -> tuple[int, ...]:
    """The component that an input adds its weight to, for each receptor of a neuron with components of these kinds."""
    fed = (False, *(kind == "rise" for kind in kinds))
    return tuple(k for k, kind in enumerate(kinds) if kind == "rise" or (kind == "synapse" and not fed[k]))


_USUAL = {"reset": "0.0", "refractory": "0.0", "tau_rise": "0.0", "bias": "0.0"}


def shown_parameters(values: Mapping[str, Any]) -> str:
    """Parameters of a neuron as they are printed, without those that play no part."""
    unusual = (name for name in values if str(values[name]) not in (_USUAL.get(name), "()"))
    return ", ".join(f"{name}={values[name]}" for name in unusual)


def check_neuron(value: Any) -> None:
    """Raise a ValueError unless the value is a ``Neuron``."""
    if not isinstance(value, Neuron):
        raise ValueError(f"neuron must be a LIF, such as LIF(tau_mem=2.0), got {value!r}")


def each(value: Any) -> tuple[Any, ...]:
    """The values of a parameter that may have several."""
    return value if isinstance(value, tuple) else (value,)


def _checked(name: str, parameter: Parameter, value: Any) -> float | Tensor | None:
    """A number, a tensor, or None where that is allowed."""
    if isinstance(value, Tensor) or (value is None and parameter.optional):
        return value
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number or a tensor, got {value!r}")
    number = float(value)
    if not parameter.allows(number):
        raise ValueError(f"{name} must be {parameter.range}, got {value}")
    return number


def _same(one: Any, other: Any) -> bool:
    """Whether two parameters have the same values, whatever their types and devices."""
    if one is other:
        return True
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.shape != other.shape or one.is_meta or other.is_meta:
            return False
        return torch.equal(*(x.detach().cpu().double() for x in (one, other)))
    return not isinstance(one, Tensor) and not isinstance(other, Tensor) and one == other


def _hashable(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_hashable, value))
    return tuple(value.shape) if isinstance(value, Tensor) else value
