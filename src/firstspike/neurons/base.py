"""The base of all neurons: parameters with units and bounds, and properties that backends rely on."""

import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from numbers import Real
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor

from firstspike.neurons.equations import Equations, read_equations, some
from firstspike.neurons.expressions import Expression, names_in, read, value_of
from firstspike.ranges import as_float


class Unit(NamedTuple):
    """The unit of a quantity, as powers."""

    time: int = 0
    """Exponent of the unit of time."""
    potential: int = 0
    """Exponent of the unit of the membrane."""


class Parameter(NamedTuple):
    """Unit, bounds and kind of one parameter of a neuron."""

    unit: Unit
    least: float
    """The lower bound, which is a valid value if it is ``included``."""
    included: bool = False
    infinite: bool = False
    """Whether it may be ``inf``, which only a number is."""
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


_FOR_GOOD = 1e15
TIME, POTENTIAL = Unit(time=1), Unit(potential=1)
Value = float | Tensor | tuple[float | Tensor, ...] | None
"""The value of a parameter."""
Kind = Literal["synapse", "rise", "current", "onset", "threshold"]


class Role(NamedTuple):
    """What a kind of component does."""

    sign: int
    """With which sign it acts on the membrane; a part of the threshold is 0."""
    feeds: bool = False
    """Whether it decays into the component that follows, and acts through that."""
    own: bool = False
    """Whether spikes of the neuron change it, and no input does."""


ROLES: Mapping[Kind, Role] = {
    "synapse": Role(1),
    "rise": Role(1, feeds=True),
    "current": Role(-1, own=True),
    "onset": Role(-1, feeds=True, own=True),
    "threshold": Role(0, own=True),
}
"""All kinds of components. Backends and the rest of the package know them by their roles."""


class Component(NamedTuple):
    """One of the exponentials ``y`` of a linear neuron, ``dy/dt = -y / tau``, with the membrane ``V``.

    A ``synapse`` adds ``y / tau`` to ``dV/dt``. A ``rise`` comes before the synapse that it feeds: it decays into
    it. A ``current`` subtracts ``y / tau`` from ``dV/dt``, and an ``onset`` feeds it as a rise does a synapse. A part
    of the ``threshold`` adds y to it.
    """

    kind: Kind
    tau: float | Tensor
    jump: float | Tensor = 0.0
    """The jump at a spike of the neuron."""


class Neuron:
    """Any neuron, from its equations::

        fs.Neuron(
            "dv/dt = (v*(v - 1) + i) / tau_m; di/dt = -i / tau_s",
            threshold="v > v_th", reset="v = v_r", receptors=["i"], tau_m=1.0, tau_s=0.5, v_th=10.0, v_r=-10.0)

    Between events its states follow the equations. An input adds its weight to the state of its receptor. Where the
    threshold is reached from below, the neuron spikes, and the reset is carried out. ``neurons`` has named ones, whose
    parameters are documented, and which are its subclasses: ``LIF``, ``QIF``, ``AdEx`` and others.

    Parameters are the names that are no states. Each is one number for all neurons of a layer, or a tensor ``()`` or
    ``(out,)``, which may require a gradient. The values of tensors are checked when they are used: reading them here
    would break under vmap. A backend accepts a neuron or refuses it with a reason.

    Two neurons are equal if they are of the same kind and all values are. Of tensors shape and values count. A number
    never equals a tensor.

    Args:
        equations: a line ``dx/dt = ...`` for each state, the membrane first, and lines ``name = ...`` for parts that
            they use, also separated by ``;``, in the notation of Brian2: ``+ - * / **``, brackets, numbers, names, and
            ``exp log sqrt sin cos tanh``. Times are in any one unit. There are no other units.
        threshold: a comparison, such as ``"v > v_th"``.
        reset: the change of the states at a spike, such as ``"v = v_r; u += d"``. All see the states before the spike.
            If it changes nothing that the threshold compares, the neuron spikes again once it has fallen below it.
        receptors: the states that inputs add their weights to. Which of them an input reaches is said by the layer.
        held: states that stand still within the refractory time, by default the first if a spike sets it. Without any,
            a neuron only does not spike within that time.
        start: states at the start that are not 0: numbers, or formulas of parameters.
        conducts: whether inputs add to conductances. Then their weights must be >= 0, and with ``receptor="sign"`` the
            size of a weight < 0 adds to the second.
        positive: names of parameters that are > 0, by default those that begin with ``tau``. They learn by their
            logarithms.
        refractory: time after a spike without another one, >= 0.
        unit: name of the unit of all times in figures and reports, such as ``"ms"``; None for ``tau_syn``.
        parameters: numbers or tensors for all other names in the equations.

    Raises:
        ValueError: equations that are not of this form, with the line and the column; names without a value.
    """

    parameters: ClassVar[Mapping[str, Parameter]] = {}
    """Units and bounds of all parameters."""
    state: ClassVar[Mapping[str, Unit]] = {}
    """The states that change in time, the membrane ``voltage`` first."""
    resets: ClassVar[Mapping[str, str]] = {}
    """The parts of the state that a spike sets, each to a parameter, at which a refractory time holds it."""
    equations: Equations | None = None
    """The equations of neurons that are described by them; None for ``LIF`` and its kin."""
    start: Mapping[str, Expression] = {}
    """States that do not start at 0, of neurons with ``equations``."""
    unit: str | None = None
    """The unit of all times, for figures and reports."""
    conducts: ClassVar[bool] = False
    """Whether weights are conductances, which are >= 0 unless their sign tells the receptor."""

    written: dict[str, Any]
    """The arguments other than values, of neurons that are given by equations."""

    def __init__(
        self,
        equations: str,
        *,
        threshold: str,
        reset: str = "",
        receptors: Sequence[str],
        held: Sequence[str] | None = None,
        start: Mapping[str, float | str] = {},
        conducts: bool = False,
        positive: Iterable[str] | None = None,
        refractory: float | Tensor = 0.0,
        unit: str | None = None,
        **parameters: float | Tensor,
    ) -> None:
        found = read_equations(equations, threshold, reset, receptors, [] if held is None else held)
        if held is None and not found.held and found.after[0] != found.states[0]:
            found = read_equations(equations, threshold, reset, receptors, found.states[:1])
        if not isinstance(start, Mapping):
            raise ValueError(f"start must be a dict of states, such as {{'v': -1.0}}, got {start!r}")
        if wrong := [(name, x) for name, x in start.items() if not isinstance(x, str | Real | Tensor) or x is True]:
            raise ValueError(f"start of {wrong[0][0]} must be a number or a formula, got {wrong[0][1]!r}")
        starts = {name: read(x, f"start of {name}") if isinstance(x, str) else float(x) for name, x in start.items()}
        used = dict.fromkeys((*found.parameters, *(name for x in starts.values() for name in names_in(x))))
        self._check_names(found, starts, used, parameters)
        if conducts and found.states[0] in found.receptors:
            raise ValueError(f"conducts needs receptors that are conductances, got the membrane, {found.states[0]}")
        above = [name for name in used if name.startswith("tau")] if positive is None else positive
        above = some("positive", above, used, "parameters")
        self.equations, self.start, self.unit = found, starts, unit
        self.__dict__["conducts"] = conducts
        self.written = {
            "equations": found.text, "threshold": threshold, "reset": reset, "receptors": found.receptors,
            "held": found.held, "start": dict(start), "conducts": conducts, "positive": tuple(above), "unit": unit,
        }  # fmt: skip
        known = {name: Parameter(Unit(), 0.0 if name in above else -math.inf) for name in used if name != "refractory"}
        self.__dict__["parameters"] = known | {"refractory": Parameter(TIME, 0.0, included=True)}
        self.__dict__ |= parameters | {"refractory": refractory}
        Neuron.__post_init__(self)

    def _warn_of_start(self) -> None:
        """Warn of a neuron from equations that is above its threshold from the start, if all values are numbers."""
        equations, values = self.equations, self.named_values
        if equations is None or torch.compiler.is_compiling() or any(isinstance(x, Tensor) for x in values.values()):
            return
        states, excess = self.beginning(values)
        if 0 < excess < math.inf:
            at = ", ".join(f"{name}={float(x):g}" for name, x in states.items())
            cure = "set start={...} for its states, or check units" if type(self) is Neuron else "check its values"
            warnings.warn(f"the neuron starts at {at}, above its threshold {equations.threshold}: {cure}", stacklevel=4)

    def _check_names(self, found: Equations, starts: Iterable[Any], used: Iterable[str], given: Iterable[str]) -> None:
        if not set(starts) <= set(found.states):
            raise ValueError(f"start must name states ({', '.join(found.states)}), got {', '.join(map(str, starts))}")
        for name in (*found.states, *used):
            if hasattr(Neuron, name) or name in ("threshold", "reset", "held", "positive"):
                raise ValueError(f"{name} cannot be the name of a state or parameter: neurons use it themselves")
        missing = ", ".join(name for name in used if name not in given and name != "refractory")
        unused = ", ".join(name for name in given if name not in used)
        if missing or unused:
            wrong = (f", missing {missing}" if missing else "") + (f"; they do not use {unused}" if unused else "")
            raise ValueError(f"the equations use {', '.join(used) or 'no parameters'}: give each a value{wrong}")

    def with_values(self, **values: Any) -> Self:
        """A copy of the neuron with other values of some parameters."""
        if type(self) is not Neuron:
            made = type(self)(**self.values | values)
            made.__dict__["unit"] = self.unit
            return made
        found = object.__new__(type(self))
        found.__dict__.update({name: x for name, x in self.__dict__.items() if name != "_key"})
        for name, value in values.items():
            object.__setattr__(found, name, _checked(name, self.parameters[name], value))
        return found

    @property
    def membrane(self) -> str:
        """The membrane as a formula of the states. Of neurons without ``equations`` it is ``voltage``."""
        return "voltage" if self.equations is None else self.equations.states[0]

    def membrane_of(self, states: Mapping[str, Tensor], like: Tensor) -> Tensor:
        """The membrane where the states are known by their names, and all values as the tensor ``like``."""
        values = {name: torch.as_tensor(x, dtype=like.dtype).to(like) for name, x in self.named_values.items()}
        return torch.as_tensor(value_of(read(self.membrane, "membrane"), values | dict(states))).to(like)

    def beginning(self, values: Mapping[str, Any]) -> tuple[dict[str, Tensor], Tensor]:
        """States and the excess over the threshold at the start, for values by their names, of those with equations."""
        assert self.equations is not None
        states = {name: torch.as_tensor(value_of(self.start.get(name, 0.0), values)) for name in self.equations.states}
        return states, torch.as_tensor(value_of(self.equations.excess, {**values, **states}))

    def without_spikes(self) -> "Neuron":
        """A copy of the neuron without a threshold."""
        assert self.equations is not None
        old = self.equations
        return self._by_equations(read_equations(old.text, "0 > 1", "", old.receptors, old.held), self.conducts)

    def waiting(self) -> "Neuron":
        """A copy with equations that stays at its reset after a spike, as in a refractory time without end.

        Nothing else happens at the spike. Without spikes, membranes of ``AdEx`` neurons and others run away.
        """
        assert self.equations is not None
        old = self.equations
        held = old.held or old.states[:1]
        resets = [x for x in re.split("[;\n]", old.reset) if re.match(rf"\s*({'|'.join(held)})\b", x)]
        if not resets:
            return self.without_spikes()
        given = old.text, old.threshold, ";".join(resets), old.receptors, held
        found = self._by_equations(read_equations(*given), self.conducts)
        found.__dict__["refractory"] = _FOR_GOOD
        return found

    def driven(self) -> tuple["Neuron", float | Tensor]:
        """A copy with one more receptor, the last, for what adds to the ``bias`` and stays; and how much adds 1 to it.

        Raises:
            ValueError: a neuron whose equations have no parameter ``bias``, nor ``I_e``, as NEST calls it.
        """
        assert self.equations is not None
        name = next((x for x in ("bias", "I_e") if x in self.equations.parameters), None)
        if name is None:
            raise ValueError(f"a current adds to the parameter bias, which the equations do not have: {self!r}")
        return self._by_equations(self.equations.with_input(name), False), 1.0

    def _by_equations(self, equations: Equations, conducts: bool) -> "Neuron":
        """A neuron with the values and the start of this one, without a name."""
        found, values = object.__new__(Neuron), self.named_values
        found.__dict__ |= {"equations": equations, "start": self.start, "conducts": conducts}
        found.__dict__ |= {"parameters": {name: Parameter(Unit(), -math.inf) for name in values}, **values}
        return found

    @property
    def begins(self) -> bool:
        """Whether it begins at time 0, with a bias or from equations. Others are at rest until the first input."""
        bias = self.values.get("bias", 0.0)
        return self.equations is not None or isinstance(bias, Tensor) or bias != 0

    @property
    def parts(self) -> tuple[int, ...]:
        """The dimension that the state has beside the membrane, if it has one of its own: how many numbers that are."""
        if self.equations is not None:
            return (len(self.equations.states) - 1,)
        return (len(self.components),) if self.components else ()

    @property
    def named_values(self) -> dict[str, float | Tensor]:
        """Values of the names in the ``equations``. Of a parameter with several, they end with their numbers."""
        found: dict[str, float | Tensor] = {}
        for name, value in self.values.items():
            found |= {f"{name}_{k}": x for k, x in enumerate(value)} if isinstance(value, tuple) else {name: value}
        return found

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
        if self.equations is not None:
            return tuple(map(self.equations.states.index, self.equations.receptors))
        return receptors_of([component.kind for component in self.components])

    def __post_init__(self) -> None:
        if not isinstance(self.unit, str | None):
            raise ValueError(f"unit must be the name of a unit of time, such as 'ms', or None, got {self.unit!r}")
        # not by ``checks_ranges``: layers make neurons in every pass, also in compiled programs
        for name, parameter in self.parameters.items():
            value = getattr(self, name)
            if isinstance(value, (list, tuple)) and parameter.several:
                found: Any = tuple(_checked(f"{name}[{k}]", parameter, x) for k, x in enumerate(value))
            else:
                found = _checked(name, parameter, value)
            object.__setattr__(self, name, found)
        self._warn_of_start()

    @property
    def values(self) -> dict[str, Any]:
        """The parameters as they are now."""
        return {name: getattr(self, name) for name in self.parameters}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Neuron):
            return NotImplemented
        forms = [(type(x), x.equations, x.start, x.conducts) for x in (self, other)]
        return forms[0] == forms[1] and all(map(_same, self.values.values(), other.values.values()))

    @cached_property
    def _key(self) -> tuple[Any, ...]:
        """The parameters, with shapes in place of tensors."""
        return tuple(map(_hashable, self.values.values()))

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        shown = shown_parameters(self.values)
        if type(self) is not Neuron or self.equations is None:
            return f"{type(self).__name__}({shown})"
        text = "; ".join(self.equations.text.splitlines())
        return f"Neuron({text!r}, threshold={self.equations.threshold!r}, reset={self.equations.reset!r}, {shown})"


def receptors_of(kinds: Sequence[Kind]) -> tuple[int, ...]:
    """The component that an input adds its weight to, for each receptor of a neuron with components of these kinds."""
    roles = [ROLES[kind] for kind in kinds]
    return tuple(k for k, role in enumerate(roles) if not role.own and not (k and roles[k - 1].feeds))


_USUAL = {"reset": "0.0", "refractory": "0.0", "tau_rise": "0.0", "bias": "0.0", "adaptation_rise": "0.0"}


def shown_parameters(values: Mapping[str, Any]) -> str:
    """Parameters of a neuron as they are printed, without those that play no part."""
    unusual = (name for name in values if str(values[name]) not in (_USUAL.get(name), "()"))
    return ", ".join(f"{name}={values[name]}" for name in unusual)


def warn_of_volts(values: Mapping[str, Any], usual: Mapping[str, float]) -> None:
    """Warn of potentials in mV, where some 10 are ``usual``, that all are numbers as if in volts."""
    given = {name: x for name, x in values.items() if abs(usual.get(name, 0.0)) >= 10 and isinstance(x, float) and x}
    if given and max(map(abs, given.values())) <= 0.1 and not torch.compiler.is_compiling():  # no membrane has more
        shown = ", ".join(f"{name}={x:g}" for name, x in given.items())
        warnings.warn(f"{shown}: potentials are in mV here; multiply those in volts by 1000", stacklevel=4)


def check_neuron(value: Any) -> None:
    """Raise a ValueError unless the value is a ``Neuron``."""
    if not isinstance(value, Neuron):
        raise ValueError(f"neuron must be a LIF, such as LIF(tau_mem=2.0), got {value!r}")


def each(value: Any) -> tuple[Any, ...]:
    """The values of a parameter that may have several."""
    return value if isinstance(value, tuple) else (value,)


def _checked(name: str, parameter: Parameter, value: Any) -> float | Tensor | None:
    """A number, a tensor, or None where that is allowed."""
    real = isinstance(value, Tensor) and value.layout is torch.strided and not value.is_complex()
    if real or (value is None and parameter.optional):
        return value
    if not isinstance(value, Real) or isinstance(value, bool):
        got = f"{value.dtype}, {value.layout}" if isinstance(value, Tensor) else repr(value)
        raise ValueError(f"{name} must be a number or a tensor, got {got}")
    number = as_float(value)
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
