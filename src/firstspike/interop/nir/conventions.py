"""What the numbers of a ``CubaLIF`` mean to those who read them: one text, several readings.

By the text an input spike lets the current I jump by ``w_in W / tau_syn``, and

    tau_mem dv/dt = v_leak - v + r I,      tau_syn dI/dt = -I

Readers that go in steps of time let it jump by ``w_in W dt / tau_syn``. Others, jaxsnn and hxtorch, let it jump by W
and take 1 for r: ``r = 1`` and ``w_in = tau_syn`` is right for them and by the text.
"""

import importlib
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

TARGETS = ("nir", "norse", "snntorch")
_SNNTORCH_DT = 1e-4  # seconds; written into its reader
_RESET = 1000.0  # thresholds below rest: e^-7 of it is left after seven membrane time constants

Values = Float[np.ndarray, " neurons"]


class Neurons(NamedTuple):
    """Neurons of a layer in the terms of ``LIF``, in the network's unit of time, and what their weights are times."""

    tau_mem: Values
    tau_syn: Values
    threshold: Values
    gain: Values


@dataclass(frozen=True)
class Convention:
    """A reading of the numbers of NIR.

    Args:
        target: ``"nir"``, ``"norse"`` or ``"snntorch"``.
        time_unit: length of the network's unit of time in the graph's.
        dt: the reader's step of time in the graph's unit.

    Raises:
        ValueError: an unknown target, values that are not positive, a step that is missing.
    """

    target: str = "nir"
    time_unit: float = 1.0
    dt: float | None = None

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {self.target!r}")
        for name, value in (("time_unit", self.time_unit), ("dt", self.dt)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be > 0 and finite, got {value}")
        if self.target == "norse" and self.dt is None:
            raise ValueError("target norse needs dt, its step of time, in the same unit as time_unit")
        if self.target == "snntorch":
            if self.dt not in (None, _SNNTORCH_DT):
                raise ValueError(f"snnTorch's step is {_SNNTORCH_DT} s whatever dt says, got {self.dt}")
            object.__setattr__(self, "dt", _SNNTORCH_DT)

    @property
    def _step(self) -> float:
        assert self.dt is not None, "checked above for all targets that need it"
        return self.dt

    def node(self, tau_mem: Values, tau_syn: Values, threshold: Values) -> tuple[dict[str, Values], Values]:
        """The fields of a ``CubaLIF``, and what the weights are to be multiplied with; times in the network's unit."""
        mem, syn = tau_mem * self.time_unit, tau_syn * self.time_unit
        # tau_mem dV/dt = -V + (tau_mem / tau_syn) I with jumps of w: the ratio goes to the weights where r is 1
        gain, r, v_threshold = tau_mem / tau_syn, np.ones_like(mem), threshold
        if self.target == "snntorch":  # its membrane adds up the current of every step
            gain, r, v_threshold = np.ones_like(mem), mem / self._step, threshold * syn / self._step
        fields = {
            "tau_mem": mem,
            "tau_syn": syn,
            "r": r,
            "v_leak": np.zeros_like(mem),
            "v_threshold": v_threshold,
            "v_reset": -_RESET * v_threshold,
            "w_in": syn if self.target == "nir" else syn / self._step,
        }
        return fields, gain

    def neurons(self, fields: dict[str, Values]) -> Neurons:
        """The inverse of ``node``: what a weight has to be multiplied with to be one of ours is ``gain``."""
        mem, syn, threshold = fields["tau_mem"], fields["tau_syn"], fields["v_threshold"] - fields["v_leak"]
        jump = fields["w_in"] / syn
        if self.target != "nir":
            jump = jump * self._step
        gain = jump * fields["r"] * syn / mem
        if self.target == "snntorch":
            gain, threshold = gain * self._step / syn, threshold * self._step / syn
        return Neurons(mem / self.time_unit, syn / self.time_unit, threshold, gain)


def needs_nir() -> None:
    """Make sure that NIR is there.

    Raises:
        ImportError: it is not.
    """
    try:
        importlib.import_module("nir")
    except ImportError:
        raise ImportError('NIR is missing. Install it: pip install "firstspike[nir]"') from None
