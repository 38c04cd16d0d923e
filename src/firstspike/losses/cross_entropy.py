"""Cross-entropy on spike times (Göltz, Kriener et al., Nat. Mach. Intell. 3, 823, 2021)."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from firstspike.losses.base import Reduction, TimeLoss, check_positive, check_share
from firstspike.ranges import NotNegative, Positive, Probability


class TimeCrossEntropy(TimeLoss):
    """Cross-entropy of a softmax in which earlier is more likely: the true neuron has to spike first::

        L = log sum_n exp((t_true - t_n) / (xi tau_syn))

    It depends on time differences only, and a silent wrong neuron adds nothing to the sum. Decision rule:
    the earliest spike.

    Where all neurons spike it is `torch.nn.CrossEntropyLoss` of `-times / (xi tau_syn)`. That of the times themselves
    would push the true neuron to spike late. Silent wrong neurons get no share of `label_smoothing`: it spreads over
    those that spike, and `t_true` becomes `(1 - label_smoothing) t_true + label_smoothing mean_n t_n`.

    Args:
        xi: width of the softmax in units of `tau_syn`: time differences much above it count as certain.
        label_smoothing: share of the target that is spread evenly over all neurons that spike, in [0, 1): no sample
            is worth an ever larger lead of its true neuron. As in torch's loss.
        tau_syn: synaptic time constant, in the unit of the times.
        silent_cost: cost of a sample whose true neuron is silent; it gives no gradient.
        weight: weight of each class, as in torch's losses; by default all are 1.
        reduction: how the losses of the samples are combined: `"mean"` (weighted, as in torch's losses), `"sum"` or
            `"none"`.

    Raises:
        ValueError: `xi` or `tau_syn` not positive, `silent_cost` negative, `label_smoothing` out of its range.
    """

    def __init__(
        self,
        xi: Positive = 0.2,
        tau_syn: Positive = 1.0,
        silent_cost: NotNegative = 100.0,
        weight: Sequence[float] | None = None,
        reduction: Reduction = "mean",
        label_smoothing: Probability = 0.0,
    ) -> None:
        super().__init__(tau_syn, silent_cost, weight, reduction)
        self.xi = check_positive("xi", xi)
        self.label_smoothing = check_share("label_smoothing", label_smoothing)

    def cost(
        self,
        times: Float[Tensor, "*batch outputs"],
        true_time: Float[Tensor, "*batch 1"],
        is_true: Bool[Tensor, "*batch outputs"],
        silent_wrong: Bool[Tensor, "*batch outputs"],
    ) -> Float[Tensor, "*batch"]:
        """The formula above, by a sum that cannot overflow. Arguments as in `TimeLoss.cost`."""
        target = true_time
        if self.label_smoothing:
            spiking = ~silent_wrong
            mean = torch.where(spiking, times, 0.0).sum(dim=-1, keepdim=True) / spiking.sum(dim=-1, keepdim=True)
            target = torch.lerp(true_time, mean, self.label_smoothing)
        lead = (target - times) / (self.xi * self.tau_syn)
        return torch.where(silent_wrong, -math.inf, lead).logsumexp(dim=-1)
