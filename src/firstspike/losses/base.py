"""Base classes of losses: checks, the mean; for first spike times also silent neurons and the earliest-spike rule."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, TypedDict, Unpack

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from firstspike.deferred import sent
from firstspike.layers.trains import Form
from firstspike.ranges import NotNegative, Positive, checks_ranges
from firstspike.signature import shown_arguments, takes_arguments_of
from firstspike.spiketime.values import check_tensor, is_readable, real_times

Outputs = Float[Tensor, "*batch outputs"]
Classes = Int64[Tensor, "*batch"]
Costs = Float[Tensor, "*batch"]
Marks = Bool[Tensor, "*batch outputs"]
OfTrue = Float[Tensor, "*batch 1"]
Reduction = Literal["mean", "sum", "none"]
FIRST_OR_READOUT = "end the network with a readout such as fs.IntegralReadout, or with fs.FirstSpike()"
_OUTPUT = {"first spikes": "first spike times", "values": "values of a readout", "trains": "spike trains"}


class LossOptions(TypedDict, total=False):
    """Keyword arguments of all losses, see `Loss`."""

    weight: Sequence[float] | None
    reduction: Reduction
    tau_syn: Positive


class TimeLossOptions(LossOptions, total=False):
    """Keyword arguments of all losses on spike times, see `TimeLoss`."""

    silent_cost: NotNegative


@checks_ranges
class Loss(nn.Module):
    """Base class of losses: the weights of the classes, and how the losses of the samples are combined.

    A subclass writes `per_sample` and `predict`.

    Args:
        weight: weight of each class, as in torch's losses; by default all are 1.
        reduction: how the losses of the samples are combined: `"mean"` (weighted, as in torch's losses), `"sum"` or
            `"none"`.
        tau_syn: synaptic time constant, in the unit of the times; not used in losses on values.

    Raises:
        ValueError: a number outside its range.
    """

    reads: ClassVar[Form]
    """The kind of outputs that a loss takes: first spike times, or the values of a readout."""

    def __init__(
        self, weight: Sequence[float] | None = None, reduction: Reduction = "mean", tau_syn: Positive = 1.0
    ) -> None:
        super().__init__()
        self.reduction: Reduction = reduction
        self.tau_syn = float(tau_syn)
        self.weight = None if weight is None else tuple(map(float, weight))
        if not all(0 <= value < math.inf for value in self.weight or ()):
            raise ValueError(f"weight: expected finite numbers >= 0, got {weight}")

    def extra_repr(self) -> str:
        """The arguments that are not the default."""
        return shown_arguments(self)

    def forward(self, times: Outputs, labels: Classes) -> Float[Tensor, "..."]:
        """Loss of the batch: `per_sample`, weighted by class and reduced. A readout has values in place of times."""
        if self.weight is not None and len(self.weight) != times.shape[-1]:
            raise ValueError(f"weight: expected one for each of {times.shape[-1]} outputs, got {len(self.weight)}")
        costs = self.per_sample(times, labels)
        weights = None if self.weight is None else self._weights(labels, costs.dtype)
        if weights is not None:
            costs = costs * weights
        if self.reduction == "mean":
            return costs.mean() if weights is None else costs.sum() / weights.sum()
        return costs.sum() if self.reduction == "sum" else costs

    def share(self, part: Int64[Tensor, " part"], whole: Int64[Tensor, " batch"]) -> float | Tensor:
        """Weight of the loss of a part of a batch in that of the whole batch."""
        if self.reduction == "sum":
            return 1.0
        if self.weight is None:
            return len(part) / len(whole)
        return self._weights(part, torch.float64).sum() / self._weights(whole, torch.float64).sum()

    def _weights(self, labels: Tensor, dtype: torch.dtype) -> Tensor:
        """Weight of each sample by its class."""
        weight = self.weight or ()
        try:
            return sent(torch.tensor(weight, dtype=dtype), labels.device)[labels]
        except IndexError:
            got = f"{len(weight)} for labels {int(labels.min())} ... {int(labels.max())}"
            raise ValueError(f"weight: expected one for each class, got {got}") from None

    def per_sample(self, output: Outputs, labels: Classes, /) -> Costs:
        """Loss of each sample, in a subclass.

        Args:
            output: first spike times, `inf` = silent; in a `ReadoutLoss` the values of the readout.
            labels: true classes, int64, 0 ... outputs - 1; in `ReadoutRegression` numbers, one for each output.

        Raises:
            ValueError: wrong dtype, shape or device, a label without an output; times that are NaN or -inf.
        """
        raise NotImplementedError

    def predict(self, output: Outputs, /) -> Classes:
        """Class of each sample, -1 without a decision; in a subclass."""
        raise NotImplementedError


@takes_arguments_of(Loss)
@checks_ranges
class TimeLoss(Loss):
    """Loss on the first spike times of the output neurons, one neuron per class.

    A subclass writes `cost`. This class makes silent neurons (`inf`) safe for it, in value and in gradient:
    a sample whose true neuron is silent costs `silent_cost` and has no gradient.

    Args:
        silent_cost: cost of a sample whose true neuron is silent. It has no gradient.
    """

    reads = "first spikes"

    def __init__(self, silent_cost: NotNegative = 100.0, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.silent_cost = float(silent_cost)

    def per_sample(self, times: Outputs, labels: Classes) -> Costs:
        """Loss of each sample: `cost`, or `silent_cost` where the true neuron is silent."""
        check_batch(times, labels)
        times = real_times(times)
        is_true = labels.unsqueeze(-1) == torch.arange(times.shape[-1], device=times.device)
        silent = torch.isposinf(times)
        # where() before any arithmetic: a gradient that flows back through inf is NaN even if multiplied by 0
        spiking = torch.where(silent, 0.0, times)
        true_time, true_silent = of_true(spiking, labels), of_true(silent, labels).squeeze(-1)
        return torch.where(true_silent, self.silent_cost, self.cost(spiking, true_time, is_true, silent & ~is_true))

    def cost(self, times: Outputs, true_time: OfTrue, is_true: Marks, silent_wrong: Marks) -> Costs:
        """Cost of each sample, in a subclass. All times are finite: 0 stands in for those of silent neurons.

        Args:
            times: spike times; meaningless if `silent_wrong`.
            true_time: spike time of the true neuron.
            is_true: the true neuron.
            silent_wrong: silent neurons other than the true one.
        """
        raise NotImplementedError

    def predict(self, times: Outputs) -> Classes:
        """Class of the earliest spike, the lowest of several at the same time; -1 if all are silent."""
        return smallest(times)


def smallest(values: Outputs) -> Classes:
    """Index of the smallest value, of times of the earliest; the first of equal ones, -1 if all are `inf`."""
    check_tensor("output", values)
    least, index = values.min(dim=-1)
    known = is_readable(least) and float(least.detach().amax()) < math.inf  # as in most batches
    return index if known else torch.where(least < math.inf, index, -1)


def largest(values: Outputs) -> Classes:
    """Index of the largest value, the first of equal ones; -1 if all are the same, or one is NaN."""
    check_tensor("output", values)
    least, most = values.amin(dim=-1), values.amax(dim=-1)
    decided = most >= least if values.shape[-1] == 1 else most > least
    return torch.where(decided, values.argmax(dim=-1), -1)


def check_reads(loss: str, reads: Form, gives: Form) -> None:
    """Raise a ValueError unless a loss takes the outputs of a network's last layer."""
    if reads == gives:
        return
    fit = {
        "first spikes": "take a loss on spike times, such as cross_entropy (fs.losses.TimeCrossEntropy)",
        "values": "take a loss on values, such as readout_cross_entropy (fs.losses.ReadoutCrossEntropy)",
        "trains": FIRST_OR_READOUT,
    }
    raise ValueError(f"{loss} takes {_OUTPUT[reads]}, and the network gives {_OUTPUT[gives]}: {fit[gives]}")


def check_batch(
    times: Tensor, labels: Tensor, name: str = "times", what: str = "first spike times of the last layer"
) -> None:
    """Raise a ValueError unless `labels` are class indices of the samples; `of_true` checks that each has an output."""
    check_tensor(name, times)
    if not isinstance(labels, Tensor):
        raise ValueError(f"labels: expected a tensor, got {type(labels).__name__}; write torch.as_tensor(labels)")
    if not times.is_floating_point() or times.ndim < 1 or times.shape[-1] < 1:
        raise ValueError(
            f"{name}: expected a floating-point tensor (batch, outputs), got {times.dtype} of shape "
            f"{tuple(times.shape)}. Pass the {what}."
        )
    if times.ndim > 2 and labels.shape == times.shape[:-2]:
        raise ValueError(f"{name}: expected {what}, got spike trains {tuple(times.shape)}: {FIRST_OR_READOUT}")
    if labels.dtype != torch.int64 or labels.shape != times.shape[:-1]:
        how = "from one-hot rows with .argmax(dim=-1)" if labels.ndim == times.ndim else "converted with .long()"
        numbers = " Numbers to learn take fs.losses.ReadoutRegression." if labels.is_floating_point() else ""
        raise ValueError(
            f"labels: expected int64 of shape {tuple(times.shape[:-1])}, one per sample, got {labels.dtype} of "
            f"shape {tuple(labels.shape)}. Pass class indices, {how}.{numbers}"
        )
    if labels.device != times.device:
        raise ValueError(f"labels: expected on {times.device} like {name}, got {labels.device}. Move one with .to().")


def of_true(values: Shaped[Tensor, "*batch outputs"], labels: Classes) -> Shaped[Tensor, "*batch 1"]:
    """The value of each sample's true class; ValueError for a label without an output."""
    try:
        return values.gather(-1, labels.unsqueeze(-1))
    except RuntimeError:
        check_range(labels, values.shape[-1])
        raise


def check_range(labels: Classes, outputs: int) -> None:
    """Raise a ValueError for labels without an output, if values can be read without waiting for a device."""
    if not is_readable(labels):
        return
    low, high = (int(x) for x in labels.aminmax())
    if not 0 <= low <= high < outputs:
        raise ValueError(
            f"labels: expected 0 ... {outputs - 1} for {outputs} output neurons, got {low} ... {high}. Count classes "
            "from 0 and give each an output neuron."
        )
