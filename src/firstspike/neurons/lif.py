"""Leaky integrate-and-fire neurons.

``LIF`` is the current-based cell::

    tau_mem dV/dt = -V + (tau_mem / tau_syn) I(t),      I(t) = sum_i w_i exp(-(t - t_i) / tau_syn)

V is relative to the leak potential. Times are in any unit, the same for all; by convention ``tau_syn = 1``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from firstspike.neurons.base import POTENTIAL, TIME, Neuron, Parameter, Unit, shown_parameters
from firstspike.ranges import Finite, NotNegative, Positive, PositiveOrInf


@dataclass(frozen=True, eq=False)
class LIF(Neuron):
    """Parameters of a leaky integrate-and-fire neuron, validated and immutable.

    Normalisation of Göltz et al. 2021 (eq. 1): ``C dV/dt = -g_leak V + I`` with ``C = tau_syn``, so that
    ``g_leak = tau_syn / tau_mem``. A model given with ``g_leak``, ``leak`` and ``threshold`` in other units has the
    threshold ``(threshold - leak) * g_leak * tau_mem / tau_syn`` here.

    Each is one number for all neurons of a layer, or a tensor ``()`` or ``(out,)``, which may require a gradient. The
    values of tensors are checked when they are used.

    Args:
        tau_mem: membrane time constant, > 0; the number ``math.inf`` is a neuron without leak, a tensor is finite.
        tau_syn: synaptic time constant, > 0, in the same unit as all times.
        threshold: membrane potential, relative to the leak potential, at which the neuron spikes, > 0.
        reset: membrane after a spike, below the threshold, in spike trains. As a spike is exactly at the threshold, a
            reset to 0 is the same as subtracting the threshold.
        refractory: time for which the membrane stays at ``reset`` after a spike, >= 0, in spike trains. Spike times
            have no gradient with respect to it.

    Raises:
        ValueError: a value outside of these bounds, or not a number.
    """

    tau_mem: PositiveOrInf | Tensor = 1.0
    tau_syn: Positive | Tensor = 1.0
    threshold: Positive | Tensor = 1.0
    reset: Finite | Tensor = 0.0
    refractory: NotNegative | Tensor = 0.0

    parameters: ClassVar[Mapping[str, Parameter]] = {
        "tau_mem": Parameter(TIME, 0.0, infinite=True),
        "tau_syn": Parameter(TIME, 0.0),
        "threshold": Parameter(POTENTIAL, 0.0),
        "reset": Parameter(POTENTIAL, -math.inf),
        "refractory": Parameter(TIME, 0.0, included=True, learnt=False),
    }
    state: ClassVar[Mapping[str, Unit]] = {"voltage": POTENTIAL, "current": POTENTIAL}
    resets: ClassVar[Mapping[str, str]] = {"voltage": "reset"}
    concave_rise: ClassVar[bool] = True  # d2V/dt2 = -dV/dt / tau_mem - I / tau_syn**2 < 0 where V > 0 rises

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = not isinstance(self.reset, Tensor) and not isinstance(self.threshold, Tensor)
        if numbers and not self.reset < self.threshold:
            raise ValueError(f"reset must be finite and below the threshold of {self.threshold}, got {self.reset}")

    def __repr__(self) -> str:
        return f"LIF({shown_parameters(self.values)})"
