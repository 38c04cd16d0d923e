"""What is minimised, and how output times decide for a class."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from firstspike.layers import Network, Record
from firstspike.losses.base import smallest
from firstspike.substrates import Substrate

Metric = Callable[[Tensor, Tensor], float | Tensor]
"""``metric(output, labels)`` -> a number, such as one of ``torchmetrics.functional``."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""``loss(times, labels)`` -> mean over the samples; with a method ``predict(times)`` it also decides."""


@dataclass(eq=False)
class Objective:
    """What is minimised: a loss and terms that are added to it.

    Args:
        loss: ``loss(times, labels)``, the mean over the samples.
        regularizers: each is called ``regularizer(times, labels, network, record)``.
        metrics: further numbers of an evaluation by name.
    """

    loss: Loss
    regularizers: Sequence[Callable[..., Tensor]] = ()
    metrics: Mapping[str, Metric] = field(default_factory=dict)

    def __call__(
        self,
        network: nn.Module,
        times: Float[Tensor, "batch inputs"],
        labels: Int64[Tensor, " batch"],
        substrate: Substrate,
    ) -> tuple[Tensor, Tensor, Record]:
        """Loss, loss with regularisers, and the spike times of all layers."""
        record = record_of(network, times, substrate)
        return *self.of(network, record, labels), record

    def of(self, network: nn.Module, record: Record, labels: Int64[Tensor, " batch"]) -> tuple[Tensor, Tensor]:
        """Loss, and loss with regularisers, of a batch that went through the network."""
        loss = self.loss(record.output, labels)
        penalties = [regularizer(record.output, labels, network, record) for regularizer in self.regularizers]
        return loss, sum(penalties, start=loss)

    def predict(self, times: Float[Tensor, "*batch outputs"]) -> Int64[Tensor, "*batch"]:
        """Class of each sample by the loss's rule, otherwise by the earliest spike; -1 if it is silent."""
        decide: Callable[[Tensor], Tensor] = getattr(self.loss, "predict", smallest)
        return decide(times)

    def success(
        self, output: Float[Tensor, "*batch outputs"], labels: Shaped[Tensor, "..."]
    ) -> Shaped[Tensor, "*batch"]:
        """Whether each sample is decided correctly; if labels are numbers, its absolute error."""
        if labels.is_floating_point():
            return (output - labels).abs().mean(dim=-1)
        return self.predict(output) == labels

    def share(self, part: Int64[Tensor, " part"], whole: Int64[Tensor, " batch"]) -> float | Tensor:
        """Weight of the mean over a part of a batch in the mean over all of it."""
        weigh: Callable[[Tensor, Tensor], float | Tensor] | None = getattr(self.loss, "share", None)
        return len(part) / len(whole) if weigh is None else weigh(part, whole)


def record_of(network: nn.Module, times: Tensor, substrate: Substrate) -> Record:
    """Spike times of all layers of a ``Network`` on a substrate; of another module input and output."""
    if isinstance(network, Network):
        return substrate.record(network, times)
    return Record(times, (network(times),))
