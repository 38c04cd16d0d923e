"""Keeps the spikes of each layer inside a window after its inputs', as in a synfire chain."""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from firstspike.layers import Record, first_of, takes_trains
from firstspike.layers.named import named_lif_layers
from firstspike.losses.base import check_not_negative, check_positive, recorded
from firstspike.ranges import Finite, NotNegative, Positive
from firstspike.spiketime.values import check_tensor


class LayerWindow(nn.Module):
    """Draws spikes into a window after the mean input of their layer, as in a synfire chain::

        R = alpha mean (max(start - s, 0)^2 + max(s - stop, 0)^2),    s = (t - m) / tau_syn,    summed over LIF layers

    where t are the first spikes of a layer's neurons and m is the mean first spike of its inputs in the same sample.
    A layer whose spikes drift ahead of its inputs leaves most of them unused; one whose spikes spread over long times
    leaves the next layer few that come together. Silent neurons and inputs play no part, nor do samples in which a
    layer has no input; the gradient goes to both t and m.

    Args:
        alpha: strength.
        start: start of the window, in ``tau_syn`` after the mean input; it may be negative.
        stop: end of the window, in ``tau_syn`` after the mean input.
        tau_syn: synaptic time constant, in the unit of the times.

    Raises:
        ValueError: `alpha` negative, `stop` not above `start`, `tau_syn` not positive.
    """

    def __init__(self, alpha: NotNegative, start: Finite = 0.0, stop: Finite = 2.0, tau_syn: Positive = 1.0) -> None:
        super().__init__()
        self.alpha = check_not_negative("alpha", alpha)
        if not -math.inf < start < stop < math.inf:
            raise ValueError(f"stop: expected a finite number above start, which is {start}, got {stop}. Change stop.")
        self.start, self.stop = float(start), float(stop)
        self.tau_syn = check_positive("tau_syn", tau_syn)

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
            inputs = lif.inputs(record)
            several = takes_trains(lif.layer) and inputs.ndim > 2
            arrival = _mean(inputs[..., 0] if several else inputs)
            spikes = first_of(lif.layer, record.layers[lif.index])
            counted = torch.isfinite(spikes) & torch.isfinite(arrival)
            # where() before any arithmetic: a gradient that flows back through inf is NaN even if multiplied by 0
            lag = torch.where(counted, spikes, 0.0) - torch.where(torch.isfinite(arrival), arrival, 0.0)
            lag = lag / self.tau_syn
            outside = (self.start - lag).clamp(min=0).square() + (lag - self.stop).clamp(min=0).square()
            total = total + torch.where(counted, outside, 0.0).mean()
        return self.alpha * total


def _mean(times: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch 1"]:
    """Mean of the spikes of each sample; ``inf`` where there is none."""
    spiked = torch.isfinite(times)
    count = spiked.sum(dim=-1, keepdim=True)
    total = torch.where(spiked, times, 0.0).sum(dim=-1, keepdim=True)
    return torch.where(count > 0, total / count.clamp(min=1), torch.inf)
