"""Squared error of time differences (DelGrad: Göltz, Weber, Kriener et al., Nat. Commun. 16, 8245, 2025)."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from firstspike.losses.base import Reduction, TimeLoss, check_positive
from firstspike.ranges import NotNegative, Positive


class ShiftInvariantMSE(TimeLoss):
    """All other neurons should spike `delta` after the true one, whenever that is::

        L = 1/2 sum_n ((t_n - t_true) / tau_syn - delta (1 - [n = true]))^2

    A silent wrong neuron adds nothing. Decision rule: the earliest spike.

    Args:
        delta: wanted lead of the true neuron, in units of `tau_syn`.
        tau_syn: synaptic time constant, in the unit of the times.
        silent_cost: cost of a sample whose true neuron is silent; it gives no gradient.
        weight: weight of each class, as in torch's losses; by default all are 1.
        reduction: how the losses of the samples are combined: `"mean"` (weighted, as in torch's losses), `"sum"` or
            `"none"`.

    Raises:
        ValueError: `delta` or `tau_syn` not positive, `silent_cost` negative.
    """

    def __init__(
        self,
        delta: Positive = 0.2,
        tau_syn: Positive = 1.0,
        silent_cost: NotNegative = 100.0,
        weight: Sequence[float] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(tau_syn, silent_cost, weight, reduction)
        self.delta = check_positive("delta", delta)

    def cost(
        self,
        times: Float[Tensor, "*batch outputs"],
        true_time: Float[Tensor, "*batch 1"],
        is_true: Bool[Tensor, "*batch outputs"],
        silent_wrong: Bool[Tensor, "*batch outputs"],
    ) -> Float[Tensor, "*batch"]:
        """The formula above. Arguments as in `TimeLoss.cost`."""
        miss = (times - true_time) / self.tau_syn - self.delta
        return torch.where(is_true | silent_wrong, 0.0, miss).square().sum(dim=-1) / 2
