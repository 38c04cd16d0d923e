"""The loss with its regularisers, and decisions for a class."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from firstspike.layers import Network, Record
from firstspike.layers.trains import Form, spike_counts
from firstspike.losses.base import FIRST_OR_READOUT, check_reads, largest, smallest
from firstspike.substrates import Substrate

Metric = Callable[[Tensor, Tensor], float | Tensor]
"""``metric(output, labels)`` -> a number, as of ``torchmetrics``. It may have their attribute ``higher_is_better``."""
Mode = Literal["min", "max"]
Loss = Callable[[Tensor, Tensor], Tensor]
"""``loss(output, labels)`` -> mean over the samples. With a method ``predict(output)`` it also decides."""


@dataclass(eq=False)
class Objective:
    """A loss, and terms ``regularizer(times, labels, network, record)`` that are added to it.

    ``metrics`` are further numbers of an evaluation by name.
    """

    loss: Loss
    regularizers: Sequence[Callable[..., Tensor]] = ()
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    gives: Form | None = None
    """The kind of the network's outputs, if it is known: ``check`` sets it."""

    def check(self, network: nn.Module) -> None:
        """Raise a ValueError if a training of the network cannot take these."""
        loss, gives = self.loss, network.gives if isinstance(network, Network) else None
        if isinstance(loss, type):
            raise ValueError(f"loss: expected an object, got the class {loss.__name__}; write {loss.__name__}()")
        self.gives = gives or form_for(loss, network)
        if getattr(loss, "reduction", "mean") == "none":
            raise ValueError("Trainer needs a loss with reduction='mean' or 'sum', got 'none'")
        if gives is not None:
            for term in (loss, *self.regularizers):
                check_reads(type(term).__name__, getattr(term, "reads", None) or gives, gives)
        if gives == "trains" and not hasattr(loss, "predict"):
            raise ValueError(f"the loss has no predict(trains), which decides: write one, or {FIRST_OR_READOUT}")
        if isinstance(loss, nn.CrossEntropyLoss) and self.gives != "values":
            why = "which makes true spikes the last; use fs.losses.TimeCrossEntropy()"
            raise ValueError(f"Trainer cannot take CrossEntropyLoss, {why}")

    def __call__(
        self,
        network: nn.Module,
        times: Float[Tensor, "batch inputs"],
        labels: Int64[Tensor, " batch"],
        substrate: Substrate,
    ) -> tuple[Tensor, Tensor, Record]:
        """Loss, loss with regularisers, and the spike times of all layers."""
        record = substrate.record(network, times) if isinstance(network, Network) else Record(times, (network(times),))
        loss = self.loss(record.output, labels)
        penalties = [regularizer(record.output, labels, network, record) for regularizer in self.regularizers]
        return loss, sum(penalties, start=loss), record

    def check_derivative(self, total: Tensor) -> None:
        """Raise a ValueError if a loss with regularisers depends on no parameter that learns."""
        if not total.requires_grad:
            raise ValueError(
                "the loss depends on no parameter that learns. A number of spikes has no derivative, nor has a "
                "comparison: take spike times or a readout; fs.losses.SpikeCount bounds numbers of spikes"
            )

    def mode_of(self, column: str) -> Mode | None:
        """Which values of a column of the metrics are the best; None if a metric of one's own does not say so."""
        own = self.metrics.get(column.removeprefix("validation_"))
        by_name = column.endswith(("accuracy", "_r2")) or (False if own is None else None)
        higher = getattr(own, "higher_is_better", by_name)
        return None if higher is None else "max" if higher else "min"

    def predict(self, times: Float[Tensor, "*batch outputs"]) -> Int64[Tensor, "*batch"]:
        """Class of each sample by the loss's rule, otherwise by the largest value or the earliest spike; or -1."""
        usual = largest if self.gives == "values" else smallest
        decide: Callable[[Tensor], Tensor] = getattr(self.loss, "predict", usual)
        return decide(times)

    def success(
        self, output: Float[Tensor, "*batch outputs"], labels: Shaped[Tensor, "..."]
    ) -> Shaped[Tensor, "*batch"]:
        """Whether each sample is decided correctly; if labels are numbers, its absolute error, see ``numbers_of``."""
        if labels.is_floating_point():
            trains = self.gives == "trains" if self.gives else labels.ndim > 2
            return (numbers_of(output, trains) - numbers_of(labels, trains)).abs().mean(dim=-1)
        return self.predict(output) == labels

    def share(self, part: Int64[Tensor, " part"], whole: Int64[Tensor, " batch"]) -> float | Tensor:
        """Weight of the mean over a part of a batch in the mean over all of it."""
        weigh: Callable[[Tensor, Tensor], float | Tensor] | None = getattr(self.loss, "share", None)
        return len(part) / len(whole) if weigh is None else weigh(part, whole)


def form_for(loss: Loss, network: nn.Module) -> Form | None:
    """The form of a module's outputs, as it, the loss or its last part tells; None if they do not."""
    told: Form | None = getattr(network, "gives", None) or getattr(loss, "reads", None)
    last: Form | None = None
    for part in network.modules():
        weighs = type(part).__module__.startswith("torch.nn") and part._parameters
        last = getattr(part, "gives", "values" if weighs else last)
    if told is None and isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss | nn.MultiMarginLoss):  # they take scores
        told = last if isinstance(network, nn.Sequential) and last else "values"
    return told or ("values" if last == "values" else None)


def numbers_of(output: Tensor, trains: bool) -> Float[Tensor, "*batch outputs"]:
    """An output, or labels, as numbers: where labels are target trains, the number of spikes of each train."""
    return spike_counts(output) if trains else output
