"""Losses on first spike times."""

import math
from typing import Unpack

import torch
from torch.nn.functional import cross_entropy, nll_loss

from firstspike.losses.base import (
    Classes,
    Costs,
    Marks,
    OfTrue,
    Outputs,
    TimeLoss,
    TimeLossOptions,
    check_batch,
    of_true,
    smallest,
)
from firstspike.ranges import NotNegative, Positive, Probability, checks_ranges
from firstspike.signature import takes_arguments_of
from firstspike.spiketime.values import is_readable, real_times


@takes_arguments_of(TimeLoss)
@checks_ranges
class TimeCrossEntropy(TimeLoss):
    """Cross-entropy of a softmax in which earlier is more likely: the true neuron has to spike first (Göltz, Kriener et
    al., Nat. Mach. Intell. 3, 823, 2021)::

        L = log sum_n exp((t_true - t_n) / (xi tau_syn))

    It depends on time differences only, and a silent wrong neuron adds nothing to the sum. Decision rule:
    the earliest spike.

    If all neurons spike, it is `torch.nn.CrossEntropyLoss` of `-times / (xi tau_syn)`. That of the times themselves
    would push the true neuron to spike late. Silent wrong neurons get no share of `label_smoothing`: it spreads over
    those that spike, and `t_true` becomes `(1 - label_smoothing) t_true + label_smoothing mean_n t_n`.

    Args:
        xi: width of the softmax in units of `tau_syn`: time differences much above it are treated as certain. It is
            0.2 in the papers. Smaller ones mostly learn better.
        label_smoothing: share of the target that is spread evenly over all neurons that spike, in [0, 1), so that
            the lead of the true neuron need not grow for ever. As in torch's loss.
    """

    def __init__(
        self, xi: Positive = 0.05, *, label_smoothing: Probability = 0.0, **options: Unpack[TimeLossOptions]
    ) -> None:
        super().__init__(**options)
        self.xi = float(xi)
        self.label_smoothing = float(label_smoothing)

    def forward(self, times: Outputs, labels: Classes) -> Costs:
        """Loss of the batch, as in `Loss`: by one function where all true neurons spike, and no sample has a weight."""
        check_batch(times, labels)
        plain = self.reduction == "mean" and self.weight is None and not self.label_smoothing
        if plain and times.ndim == 2 and is_readable(times):
            cost = cross_entropy((of_true(times.detach(), labels) - times) / (self.xi * self.tau_syn), labels)
            if math.isfinite(cost.item()):  # otherwise a true neuron is silent, or a time is not a number
                return cost
        return super().forward(times, labels)

    def per_sample(self, times: Outputs, labels: Classes) -> Costs:
        """The formula above, by a sum that cannot overflow; `silent_cost` where the true neuron is silent."""
        check_batch(times, labels)
        true_time = of_true(real_times(times).detach(), labels)  # a shift of all times has no gradient
        lost = torch.isposinf(true_time)
        lead = (true_time - times).masked_fill(lost, 0.0)
        shares = (lead / (self.xi * self.tau_syn)).log_softmax(dim=-1)
        costs = nll_loss(shares.movedim(-1, 1) if shares.ndim > 2 else shares, labels, reduction="none")
        if self.label_smoothing:
            spiking = times < math.inf
            spread = -torch.where(spiking, shares, 0.0).sum(dim=-1) / spiking.sum(dim=-1).clamp(min=1)
            costs = torch.lerp(costs, spread, self.label_smoothing)
        return costs.masked_fill(lost.squeeze(-1), self.silent_cost)


@takes_arguments_of(TimeLoss)
@checks_ranges
class TimeMSE(TimeLoss):
    """Every neuron has a target time: `correct` if it is the true one, otherwise `wrong`::

        L = 1/2 sum_n (t_n / tau_syn - target_n)^2

    A silent wrong neuron adds nothing. Decision rule: the neuron that spikes nearest to `correct`. Neurons are
    trained to hit targets, so one that spikes even before `correct` is a miss, not a stronger vote.

    Args:
        correct: target of the true neuron, in units of `tau_syn`.
        wrong: target of all others, in units of `tau_syn`; usually later.

    Raises:
        ValueError: a number outside its range, equal targets.
    """

    def __init__(self, correct: NotNegative, wrong: NotNegative, **options: Unpack[TimeLossOptions]) -> None:
        super().__init__(**options)
        self.correct, self.wrong = float(correct), float(wrong)
        if correct == wrong:
            raise ValueError(f"correct, wrong: expected two different targets, got {correct} twice")

    def cost(self, times: Outputs, true_time: OfTrue, is_true: Marks, silent_wrong: Marks) -> Costs:
        """The formula above. Arguments as in `TimeLoss.cost`."""
        scaled = times / self.tau_syn
        miss = torch.where(is_true, scaled - self.correct, scaled - self.wrong)
        return torch.where(silent_wrong, 0.0, miss).square().sum(dim=-1) / 2

    def predict(self, times: Outputs) -> Classes:
        """Class of the spike nearest to `correct`, the lowest of several; -1 if all are silent."""
        distance = (times / self.tau_syn - self.correct).abs()
        return smallest(torch.where(torch.isposinf(times), math.inf, distance))


@takes_arguments_of(TimeLoss)
@checks_ranges
class ShiftInvariantMSE(TimeLoss):
    """The other neurons should spike `delta` after the true one, whenever that is (DelGrad: Göltz, Weber, Kriener et
    al., Nat. Commun. 16, 8245, 2025)::

        L = 1/2 sum_n ((t_n - t_true) / tau_syn - delta (1 - [n = true]))^2

    A silent wrong neuron adds nothing. Decision rule: the earliest spike.

    Args:
        delta: desired lead of the true neuron, in units of `tau_syn`.
    """

    def __init__(self, delta: Positive = 0.2, **options: Unpack[TimeLossOptions]) -> None:
        super().__init__(**options)
        self.delta = float(delta)

    def cost(self, times: Outputs, true_time: OfTrue, is_true: Marks, silent_wrong: Marks) -> Costs:
        """The formula above. Arguments as in `TimeLoss.cost`."""
        miss = (times - true_time) / self.tau_syn - self.delta
        return torch.where(is_true | silent_wrong, 0.0, miss).square().sum(dim=-1) / 2
