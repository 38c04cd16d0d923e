"""The numbers of a ``CubaLIF`` as its readers take them: one specification, several readings.

By the specification an input spike increases the current I by ``w_in W / tau_syn``, and

    tau_mem dv/dt = v_leak - v + r I,      tau_syn dI/dt = -I

Readers that take time steps increase it by ``w_in W dt / tau_syn``. Others, jaxsnn and hxtorch, increase it by W and
take 1 for r: ``r = 1`` and ``w_in = tau_syn`` is correct for them and by the specification.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from firstspike.ranges import Positive, checks_ranges

Target = Literal["nir", "norse", "snntorch"]
_SNNTORCH_DT = 1e-4  # seconds; fixed in its reader
RESET = 1000.0  # thresholds below rest: e^-7 of it is left after seven membrane time constants

SPARSE = {"weight": 1, "recurrent_weight": 2}
"""Bits of the metadatum ``sparse`` for weights whose zeros are no synapses."""

Values = Float[np.ndarray, " neurons"]


@checks_ranges
@dataclass(frozen=True)
class Convention:
    """A reading of the numbers of NIR: the reader, the network's unit of time and the reader's step in the graph's."""

    target: Target = "nir"
    time_unit: Positive = 1.0
    dt: Positive | None = None

    def __post_init__(self) -> None:
        if self.target == "norse" and self.dt is None:
            raise ValueError("target norse needs dt, its time step, in the same unit as time_unit")
        if self.target == "snntorch" and self.dt not in (None, _SNNTORCH_DT):
            raise ValueError(f"the time step of snnTorch is always {_SNNTORCH_DT} s, got dt {self.dt}")

    @property
    def step(self) -> float | None:
        """Time step of the reader, None if it is not known. NIR itself needs none."""
        return _SNNTORCH_DT if self.target == "snntorch" else self.dt

    def node(
        self, tau_mem: Values, tau_syn: Values, threshold: Values, reset: Values | None = None
    ) -> tuple[dict[str, Values], Values]:
        """Fields of a ``CubaLIF`` for times in our unit, and the factor of weights. ``reset`` None is far down."""
        mem, syn, step = tau_mem * self.time_unit, tau_syn * self.time_unit, self.step or 1.0
        # tau_mem dV/dt = -V + (tau_mem / tau_syn) I with jumps of w: the ratio goes to the weights if r is 1
        gain, r, v_threshold = tau_mem / tau_syn, np.ones_like(mem), threshold
        if self.target == "snntorch":  # its membrane adds up the current of every step
            gain, r, v_threshold = np.ones_like(mem), mem / step, threshold * syn / step
        fields = {
            "tau_mem": mem,
            "tau_syn": syn,
            "r": r,
            "v_leak": np.zeros_like(mem),
            "v_threshold": v_threshold,
            "v_reset": -RESET * v_threshold if reset is None else reset / threshold * v_threshold,
            "w_in": syn if self.target == "nir" else syn / step,
        }
        return fields, gain

    def neurons(self, fields: dict[str, Values]) -> tuple[dict[str, Values], Values]:
        """The inverse of ``node``: parameters of ``LIF``, and the factor of the graph's weights in ours."""
        mem, syn, step = fields["tau_mem"], fields["tau_syn"], self.step or 1.0
        threshold, gain = fields["v_threshold"] - fields["v_leak"], fields["w_in"] * fields["r"] / mem
        if self.target != "nir":
            gain = gain * step
        if self.target == "snntorch":
            gain, threshold = gain * step / syn, threshold * step / syn
        reset = (fields["v_reset"] - fields["v_leak"]) / (fields["v_threshold"] - fields["v_leak"]) * threshold
        taus = {"tau_mem": mem / self.time_unit, "tau_syn": syn / self.time_unit}
        return taus | {"threshold": threshold, "reset": reset}, gain
