"""Moving averages of weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from firstspike.ranges import InnerFraction, checks_ranges

_WARMUP = 10  # steps, about: until then the average forgets faster, or it would remember the initial weights


@checks_ranges
class WeightAverage:
    """Exponential moving average of a network's parameters, updated after every step of the optimiser.

        average <- d average + (1 - d) parameters,    d = min(decay, (1 + n) / (10 + n)) after n steps

    Small `d` at the start lets it forget the initial weights. Running means and variances of ``nn.BatchNorm1d`` and
    others are averaged like parameters. Averages of weights along a training often decide better
    than the last weights (Polyak and Juditsky, SIAM J. Control Optim. 30, 838, 1992).
    """

    def __init__(self, network: nn.Module, decay: InnerFraction) -> None:
        self.decay, self.batches = decay, 0
        running = [x for x in network.named_buffers() if x[0].endswith(("running_mean", "running_var"))]
        self.parameters = dict([*network.named_parameters(), *running])
        self.averages = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    def update(self) -> None:
        """Take in the parameters as they are after one more step."""
        decay = min(self.decay, (1 + self.batches) / (_WARMUP + self.batches)) if self.batches else 0.0
        get_ema_multi_avg_fn(decay)(list(self.averages.values()), list(self.parameters.values()), self.batches)
        self.batches += 1

    @torch.no_grad()
    def swapped(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Write values into the parameters; returns the previous ones."""
        before = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])
        return before

    def state_dict(self) -> dict[str, Any]:
        """Number of steps, and the trained parameters: the averages are the weights of a checkpoint."""
        return {"batches": self.batches, "trained": {name: p.detach() for name, p in self.parameters.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state into a network that has the averages as its parameters."""
        self.batches = state["batches"]
        self.averages = self.swapped(state["trained"])
