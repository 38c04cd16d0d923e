"""Losses on first spike times."""

import math
from typing import Unpack

import torch

from firstspike.losses.base import Classes, Costs, Marks, OfTrue, Outputs, TimeLoss, TimeLossOptions, smallest
from firstspike.ranges import NotNegative, Positive, Probability, checks_ranges
from firstspike.signature import takes_arguments_of


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

    def cost(self, times: Outputs, true_time: OfTrue, is_true: Marks, silent_wrong: Marks) -> Costs:
        """The formula above, by a sum that cannot overflow. Arguments as in `TimeLoss.cost`."""
        target = true_time
        if self.label_smoothing:
            spiking = ~silent_wrong
            mean = torch.where(spiking, times, 0.0).sum(dim=-1, keepdim=True) / spiking.sum(dim=-1, keepdim=True)
            target = torch.lerp(true_time, mean, self.label_smoothing)
        lead = (target - times) / (self.xi * self.tau_syn)
        return torch.where(silent_wrong, -math.inf, lead).logsumexp(dim=-1)


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
