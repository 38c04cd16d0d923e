"""Squared distance of spike times to fixed targets."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from firstspike.losses.base import Reduction, TimeLoss, check_not_negative, smallest
from firstspike.ranges import NotNegative, Positive


class TimeMSE(TimeLoss):
    """Every neuron has a target time: `correct` if it is the true one, else `wrong`::

        L = 1/2 sum_n (t_n / tau_syn - target_n)^2

    A silent wrong neuron adds nothing. Decision rule: the neuron that spikes nearest to `correct`. Neurons are
    trained to hit targets, so one that spikes even before `correct` is a miss, not a stronger vote.

    Args:
        correct: target of the true neuron, in units of `tau_syn`.
        wrong: target of all others, in units of `tau_syn`; usually later.
        tau_syn: synaptic time constant, in the unit of the times.
        silent_cost: cost of a sample whose true neuron is silent; it gives no gradient.
        weight: weight of each class, as in torch's losses; by default all are 1.
        reduction: how the losses of the samples are combined: `"mean"` (weighted, as in torch's losses), `"sum"` or
            `"none"`.

    Raises:
        ValueError: negative or equal targets, `tau_syn` not positive, `silent_cost` negative.
    """

    def __init__(
        self,
        correct: NotNegative,
        wrong: NotNegative,
        tau_syn: Positive = 1.0,
        silent_cost: NotNegative = 100.0,
        weight: Sequence[float] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(tau_syn, silent_cost, weight, reduction)
        self.correct = check_not_negative("correct", correct)
        self.wrong = check_not_negative("wrong", wrong)
        if correct == wrong:
            raise ValueError(f"correct, wrong: expected two different targets, got {correct} twice. Change one.")

    def cost(
        self,
        times: Float[Tensor, "*batch outputs"],
        true_time: Float[Tensor, "*batch 1"],
        is_true: Bool[Tensor, "*batch outputs"],
        silent_wrong: Bool[Tensor, "*batch outputs"],
    ) -> Float[Tensor, "*batch"]:
        """The formula above. Arguments as in `TimeLoss.cost`."""
        scaled = times / self.tau_syn
        miss = torch.where(is_true, scaled - self.correct, scaled - self.wrong)
        return torch.where(silent_wrong, 0.0, miss).square().sum(dim=-1) / 2

    def predict(self, times: Float[Tensor, "*batch outputs"]) -> Int64[Tensor, "*batch"]:
        """Class of the spike nearest to `correct`, the lowest of several; -1 where all are silent."""
        distance = (times / self.tau_syn - self.correct).abs()
        return smallest(torch.where(torch.isposinf(times), math.inf, distance))
