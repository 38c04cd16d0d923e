"""Losses on the values of a readout: the class with the largest value wins."""

from collections.abc import Callable
from typing import Literal, Unpack

import torch
from torch import Tensor
from torch.nn import functional

from firstspike.losses.base import (
    Classes,
    Costs,
    Loss,
    LossOptions,
    Outputs,
    Reduction,
    check_batch,
    check_range,
    largest,
    of_true,
)
from firstspike.ranges import Finite, Positive, Probability, checks_ranges
from firstspike.signature import takes_arguments_of
from firstspike.spiketime.values import check_tensor


class ReadoutLoss(Loss):
    """Loss on values of a readout, one output for each class. Decision rule: the largest value.

    A sample in which all outputs have the same value, for instance if no spike reaches the readout, has no decision,
    -1, and so is never correct.
    """

    reads = "values"

    def predict(self, output: Outputs) -> Classes:
        """Class of the largest value, the lowest of several; -1 if all are the same, or one is NaN."""
        return largest(output)


@takes_arguments_of(Loss)
@checks_ranges
class ReadoutCrossEntropy(ReadoutLoss):
    """Cross-entropy of a softmax of the values, which are divided by a temperature first.

    Args:
        temperature: differences between values much above it are treated as certain.
        label_smoothing: share of the target that is spread evenly over all classes, in [0, 1). As in torch's loss.
    """

    def __init__(
        self, temperature: Positive = 1.0, *, label_smoothing: Probability = 0.0, **options: Unpack[LossOptions]
    ) -> None:
        super().__init__(**options)
        self.label_smoothing = float(label_smoothing)
        self.temperature = float(temperature)

    def per_sample(self, output: Outputs, labels: Classes) -> Costs:
        """The cross-entropy of each sample; arguments and errors as in `Loss.per_sample`."""
        check_batch(output, labels, "output", "values of a readout")
        likely = functional.log_softmax(output / self.temperature, dim=-1)
        true = of_true(likely, labels).squeeze(-1)
        if self.label_smoothing:
            true = torch.lerp(true, likely.mean(dim=-1), self.label_smoothing)
        return -true


@checks_ranges
class ReadoutRegression(Loss):
    """Distance of the values of a readout to numerical labels, one output for each: the mean over them.

    Args:
        error: `"squared"`, `"absolute"`, or `"huber"`, squared up to 1 and absolute beyond, as in torch's losses.
        tau_syn: as in the losses on spike times; not used here.
        reduction: how the losses of the samples are combined: `"mean"`, `"sum"` or `"none"`.
    """

    reads = "values"

    def __init__(
        self,
        error: Literal["squared", "absolute", "huber"] = "squared",
        tau_syn: Positive = 1.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction, tau_syn=tau_syn)
        self.error = error

    def per_sample(self, output: Outputs, labels: Outputs) -> Costs:
        """The mean distance in each sample; arguments and errors as in `Loss.per_sample`."""
        check_tensor("output", output)
        if not labels.is_floating_point() or labels.shape != output.shape:
            raise ValueError(
                f"labels: expected a number for each output, {tuple(output.shape)}, got {labels.dtype} of shape "
                f"{tuple(labels.shape)}; classes take a loss such as ReadoutCrossEntropy"
            )
        return _ERRORS[self.error](output, labels, reduction="none").mean(dim=-1)

    def predict(self, output: Outputs) -> Outputs:
        """The values themselves."""
        return output


_ERRORS: dict[str, Callable[..., Tensor]] = {
    "squared": functional.mse_loss,
    "absolute": functional.l1_loss,
    "huber": functional.huber_loss,
}


@takes_arguments_of(Loss)
@checks_ranges
class ReadoutMSE(ReadoutLoss):
    """Squared distance of the values to targets: `correct` for the true class, `wrong` for all others::

        L = 1/2 sum_n (value_n - target_n)^2

    Args:
        correct: target of the true class.
        wrong: target of all other classes, below `correct`.

    Raises:
        ValueError: a number outside its range, `wrong` not below `correct`.
    """

    def __init__(self, correct: Finite = 1.0, wrong: Finite = 0.0, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        if not wrong < correct:
            raise ValueError(f"correct, wrong: expected wrong < correct, got {correct} and {wrong}")
        self.correct, self.wrong = float(correct), float(wrong)

    def per_sample(self, output: Outputs, labels: Classes) -> Costs:
        """The formula above; arguments and errors as in `Loss.per_sample`."""
        check_batch(output, labels, "output", "values of a readout")
        check_range(labels, output.shape[-1])
        is_true = labels.unsqueeze(-1) == torch.arange(output.shape[-1], device=output.device)
        target = torch.full_like(output, self.correct).where(is_true, self.wrong)
        return (output - target).square().sum(dim=-1) / 2
