"""Norse's ``lif_feed_forward_step``, stepped through time."""

from typing import Any

import torch
from norse.torch.functional.lif import LIFFeedForwardState, LIFParameters, lif_feed_forward_step
from systems.in_steps import STEP, InSteps
from torch import Tensor


class Norse(InSteps):
    name = "Norse `lif_feed_forward_step`"
    packages = ("norse", "torch")

    def spikes(self, currents: Tensor, layer: Any) -> Tensor:
        def number(x: float) -> Tensor:
            return torch.tensor(x, dtype=torch.float64)

        parameters = LIFParameters(
            tau_syn_inv=number(1 / layer.tau_syn), tau_mem_inv=number(1 / layer.tau_mem), v_leak=number(0.0),
            v_th=number(layer.threshold), v_reset=number(layer.reset),
        )  # fmt: skip
        none = torch.zeros_like(currents[0])
        state, found = LIFFeedForwardState(v=none, i=none.clone()), torch.zeros(currents.shape, dtype=torch.bool)
        for k, current in enumerate(currents):
            spike, state = lif_feed_forward_step(current, state, parameters, STEP)
            found[k] = spike > 0
        return found


SYSTEMS = {"norse": Norse}
