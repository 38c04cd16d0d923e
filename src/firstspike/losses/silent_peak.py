"""A gradient for silent neurons: raise the peak of their membrane towards the threshold."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from firstspike.layers import Record, first_of
from firstspike.layers.named import named_lif_layers
from firstspike.losses.base import check_not_negative, check_positive, recorded
from firstspike.ranges import Fraction, NotNegative, Positive
from firstspike.spiketime.operator import of_neurons
from firstspike.spiketime.reference.peaks import lacking


def _mean(values: Tensor) -> Tensor:
    return values.mean(dim=0)


class SilentPeak(nn.Module):
    """Raises the membrane of neurons that are silent too often (after the idea of Wunderlich and Pehle 2021)::

        R = alpha sum_neurons mean_samples (threshold - max_t V(t)) / threshold

    over the samples in which a neuron is silent, for the neurons of all LIF layers that are silent in more than
    ``max_silent`` of the batch; in a ``LIFRecurrent`` spikes of the layer itself count as well, and times up to its
    ``duration``. The derivative of the maximum with respect to weights, spike times and delays is exact. A membrane
    that never rises above rest has none: there, only raising weights helps (``SilentNeurons``).

    Args:
        alpha: strength.
        max_silent: neurons that are silent in at most this fraction of a batch are left alone.
        tau_syn: as in the other regularisers; it plays no part.

    Raises:
        ValueError: `alpha` negative, `max_silent` not from 0 to 1, `tau_syn` not positive.
    """

    def __init__(self, alpha: NotNegative, max_silent: Fraction = 0.5, tau_syn: Positive = 1.0) -> None:
        super().__init__()
        self.alpha = check_not_negative("alpha", alpha)
        self.max_silent = check_not_negative("max_silent", max_silent)
        if max_silent > 1:
            raise ValueError(f"max_silent: expected a fraction from 0 to 1, got {max_silent}. Change max_silent.")
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
        total = record.output.new_zeros(())
        for lif in named_lif_layers(network):
            layer = lif.layer
            seen, synapses, delay, until = layer.arriving(lif.inputs(record), record.layers[lif.index])
            spikes, rows = first_of(layer, record.layers[lif.index]), len(layer.weight)
            # (..., places, rows), where a layer has places at which the same neurons see different inputs
            spikes = spikes.unflatten(-1, (rows, -1)).movedim(-1, -2).reshape(-1, rows)
            silent = torch.isinf(spikes)
            silent = silent & (self.batch_mean(silent.to(spikes.dtype)) > self.max_silent)
            lack = lacking(seen.reshape(-1, seen.shape[-1]), synapses, layer.neuron, silent, delay, until)
            threshold = of_neurons(layer.neuron.threshold, layer.synapses).detach()
            places = layer.out_features // rows
            total = total + places * (lack / threshold).mean(dim=0).sum()
        return self.alpha * total
