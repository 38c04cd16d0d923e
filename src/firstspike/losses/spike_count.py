"""Bounds on how often neurons spike, with a gradient that wakes silent neurons and calms bursting ones."""

import math
from collections.abc import Callable

from jaxtyping import Float, Int64
from torch import Tensor, nn

from firstspike.layers import LIFLayer, Record, form_of, takes_trains
from firstspike.layers.named import named_lif_layers
from firstspike.layers.trains import spike_counts
from firstspike.losses.base import check_not_negative, check_positive, recorded
from firstspike.ranges import NotNegative, Positive
from firstspike.spiketime.operator import of_neurons
from firstspike.spiketime.values import check_tensor


def _mean(values: Tensor) -> Tensor:
    return values.mean(dim=0)


class SpikeCount(nn.Module):
    """Keeps the number of spikes of each neuron between two bounds::

        R = alpha mean_neurons (max(least - n, 0)^2 + max(n - most, 0)^2),    summed over the LIF layers

    where n is the mean number of spikes of a neuron over the samples of a batch.

    A number of spikes has no derivative. In its place stands that of a neuron without leak whose reset subtracts the
    threshold: it spikes once for every threshold of charge that it receives, so that ``dn/dw_i`` is the mean number of
    spikes of input i over the threshold. This surrogate goes to the weights of the layer alone, and reaches silent
    neurons as well.

    Args:
        alpha: strength.
        least: spikes per sample below which a neuron is driven more.
        most: spikes per sample above which it is driven less; ``inf`` for no bound.
        tau_syn: as in the other regularisers; it plays no part.

    Raises:
        ValueError: `alpha` or `least` negative, `most` below `least`, `tau_syn` not positive.
    """

    def __init__(
        self, alpha: NotNegative, least: NotNegative = 0.0, most: float = math.inf, tau_syn: Positive = 1.0
    ) -> None:
        super().__init__()
        self.alpha, self.least = check_not_negative("alpha", alpha), check_not_negative("least", least)
        if not most >= self.least:
            raise ValueError(f"most: expected at least {self.least:g}, the lower bound, got {most}. Change most.")
        self.most = float(most)
        check_positive("tau_syn", tau_syn)
        # a training that splits batches puts the mean over the whole batch here
        self.batch_mean: Callable[[Tensor], Tensor] = _mean

    def forward(
        self,
        times: Float[Tensor, "*batch outputs"],
        labels: Int64[Tensor, "*batch"],
        network: nn.Module,
        record: Record | None = None,
    ) -> Float[Tensor, ""]:
        """The term above; ``times`` and ``labels`` play no part.

        Args:
            times: of the output.
            labels: of the samples.
            network: a ``Network``.
            record: the batch all through it.

        Raises:
            ValueError: no record, or no ``Network``.
        """
        record = recorded(self, network, record)
        check_tensor("times", times)
        total = record.output.new_zeros(())
        for lif in named_lif_layers(network):
            count = self._counted(lif.layer, lif.inputs(record), record.layers[lif.index])
            few, many = (self.least - count).clamp(min=0), (count - self.most).clamp(min=0)
            total = total + (few.square() + many.square()).mean()
        return self.alpha * total

    def _counted(self, layer: LIFLayer, inputs: Tensor, spikes: Tensor) -> Float[Tensor, "places rows"]:
        """Mean number of spikes of each neuron, with the surrogate for its gradient."""
        seen = layer.seen(inputs)
        received = spike_counts(seen if takes_trains(layer) else seen.unsqueeze(-1))
        rows = len(layer.weight)
        sent = spike_counts(spikes if form_of(layer) == "trains" else spikes.unsqueeze(-1))
        sent = sent.unflatten(-1, (rows, -1)).movedim(-1, -2)  # (batch, places, rows)
        count = self.batch_mean(sent.flatten(1)).view(-1, rows)
        arrived = self.batch_mean(received.flatten(1)).view(-1, received.shape[-1])
        charge = arrived @ layer.synapses.mT / of_neurons(layer.neuron.threshold, layer.synapses).detach()
        return count + (charge - charge.detach())
