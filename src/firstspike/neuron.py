"""The neuron: a current-based leaky integrate-and-fire cell::

    tau_mem dV/dt = -V + (tau_mem / tau_syn) I(t),      I(t) = sum_i w_i exp(-(t - t_i) / tau_syn)

V is relative to the leak potential. Times are in any unit, the same for all; by convention ``tau_syn = 1``.
"""

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from firstspike.ranges import Positive, PositiveOrInf


@dataclass(frozen=True, eq=False)
class LIF:
    """Parameters of a leaky integrate-and-fire neuron, validated and immutable.

    Normalisation of Göltz et al. 2021 (eq. 1): ``C dV/dt = -g_leak V + I`` with ``C = tau_syn``, so that
    ``g_leak = tau_syn / tau_mem``. A model given with ``g_leak``, ``leak`` and ``threshold`` in other units has the
    threshold ``(threshold - leak) * g_leak * tau_mem / tau_syn`` here.

    Each is one number for all neurons of a layer, or a tensor ``()`` or ``(out,)``, which may require a gradient. The
    values of tensors are checked when they are used: reading them here would break under vmap.

    Two are equal if all three values are; of tensors shape and values count. A number never equals a tensor.

    Args:
        tau_mem: membrane time constant, > 0; the number ``math.inf`` is a neuron without leak, a tensor is finite.
        tau_syn: synaptic time constant, > 0, in the same unit as all times.
        threshold: membrane potential, relative to the leak potential, at which the neuron spikes, > 0.

    Raises:
        ValueError: a value that is not positive, or not a number.
    """

    tau_mem: PositiveOrInf | Tensor = 1.0
    tau_syn: Positive | Tensor = 1.0
    threshold: Positive | Tensor = 1.0

    def __post_init__(self) -> None:
        for name in ("tau_mem", "tau_syn", "threshold"):
            value = getattr(self, name)
            if isinstance(value, Tensor):
                continue
            # not by ``checks_ranges``: layers make neurons in every pass, also in compiled programs
            if not isinstance(value, Real) or isinstance(value, bool):
                raise ValueError(f"{name} must be a number or a tensor, got {value!r}")
            number = float(value)
            if not number > 0 or (number == math.inf and name != "tau_mem"):
                finite = "" if name == "tau_mem" else " and finite"
                raise ValueError(f"{name} must be > 0{finite}, got {value}")
            object.__setattr__(self, name, number)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LIF):
            return NotImplemented
        return all(map(_same, self._values, other._values))

    def __hash__(self) -> int:
        return hash(tuple(tuple(x.shape) if isinstance(x, Tensor) else x for x in self._values))

    @property
    def _values(self) -> tuple[float | Tensor, ...]:
        return self.tau_mem, self.tau_syn, self.threshold


def check_neuron(value: Any) -> None:
    """Raise a ValueError unless the value is a ``LIF``."""
    if not isinstance(value, LIF):
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
