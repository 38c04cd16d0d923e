"""Terms that are added to a loss: `regularizer(times, labels, network, record) -> scalar`.

`times` are the output's. `record` has those of all layers, and may be left out if it is not used.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from firstspike.layers import Delay, Network, Record, SpikingLayer
from firstspike.layers.named import named_layers
from firstspike.layers.synapses import charge_of
from firstspike.layers.trains import Form, first_of, form_of, spike_counts, takes_trains
from firstspike.losses.base import Classes, Outputs, check_batch, of_true
from firstspike.ranges import Finite, Fraction, NotNegative, NotNegativeInt, Positive, checks_ranges
from firstspike.signature import shown_arguments, takes_arguments_of
from firstspike.spiketime.maxima.peaks import lacking
from firstspike.spiketime.parameters import of_neurons
from firstspike.spiketime.values import check_tensor, is_readable

_LINEAR_FROM = 10.0  # exponent above which EarlyOutput continues as a straight line


@checks_ranges
class Regularizer(nn.Module):
    """Base class of all terms.

    Args:
        alpha: strength.
        tau_syn: synaptic time constant, in the unit of the times; not used in terms without times.

    Raises:
        ValueError: a number outside its range.
    """

    def __init__(self, alpha: NotNegative, tau_syn: Positive = 1.0) -> None:
        super().__init__()
        self.alpha, self.tau_syn = float(alpha), float(tau_syn)
        # a training that splits batches puts the mean over the whole batch here
        self.batch_mean: Callable[[Tensor], Tensor] = partial(torch.mean, dim=0)

    def extra_repr(self) -> str:
        """The arguments that are not the default."""
        return shown_arguments(self)


@takes_arguments_of(Regularizer)
@checks_ranges
class EarlyOutput(Regularizer):
    """Favours an early spike of the true neuron (Göltz, Kriener et al., Nat. Mach. Intell. 3, 823, 2021)::

        R = alpha exp(t_true / (beta tau_syn)),    mean over the samples

    Samples whose true neuron is silent add 0. Beyond an exponent of 10 the exponential is continued by its
    tangent, so that one late spike cannot overflow.

    Args:
        beta: time scale, in units of `tau_syn`.
    """

    reads: ClassVar[Form] = "first spikes"

    def __init__(self, alpha: NotNegative, beta: Positive = 1.0, tau_syn: Positive = 1.0) -> None:
        super().__init__(alpha, tau_syn)
        self.beta = float(beta)

    def forward(
        self, times: Outputs, labels: Classes, network: nn.Module, record: Record | None = None
    ) -> Float[Tensor, ""]:
        """The term above. `times` are the output's (`inf` = silent), and `network` is not used."""
        check_batch(times, labels)
        true_time = of_true(times, labels)
        exponent = true_time / (self.beta * self.tau_syn)
        if is_readable(exponent):
            total = exponent.exp().sum()
            if total.item() < math.exp(_LINEAR_FROM):  # and so is each of its parts
                return total * (self.alpha / exponent.numel())
        silent = torch.isposinf(true_time)
        exponent = torch.where(silent, 0.0, exponent)
        curved = exponent.clamp(max=_LINEAR_FROM)
        penalty = curved.exp() * (1 + (exponent - curved))
        return self.alpha * torch.where(silent, 0.0, penalty).mean()


@takes_arguments_of(Regularizer)
class DelayL2(Regularizer):
    """Favours short delays (as in DelGrad: Göltz, Weber, Kriener et al., Nat. Commun. 16, 8245, 2025)::

        R = alpha sum (d / tau_syn)^2    over all delays of the network

    Delays are the tensors that modules of the network have as their attribute or property `delay`: of `Delay`, of
    connections past layers, of synapses, and of recurrent synapses the part beyond the window. A delay that several
    inputs share, such as those that `Multiplex` copies, counts once.
    """

    def forward(
        self, times: Outputs, labels: Classes, network: nn.Module, record: Record | None = None
    ) -> Float[Tensor, ""]:
        """The term above, 0 for a network without delays. Of `times` only dtype and device matter."""
        total = times.new_zeros(())
        for module in network.modules():
            delay = getattr(module, "delay", None)
            if isinstance(delay, Tensor):
                each = delay[:: module.copies] if isinstance(module, Delay) else delay
                total = total + (each / self.tau_syn).square().sum()
        return self.alpha * total


class LayerRegularizer(Regularizer):
    """A term on the spikes of each LIF layer, which a subclass writes as `of_layer`."""

    def forward(
        self, times: Outputs, labels: Classes, network: nn.Module, record: Record | None = None
    ) -> Float[Tensor, ""]:
        """The term, summed over the LIF layers of a `Network`. `times` and `labels` are not used."""
        if record is None or not isinstance(network, Network):
            name = type(self).__name__
            raise ValueError(f"{name} needs a Network and its record: regularizer(times, labels, network, record)")
        check_tensor("times", times)
        total = record.output.new_zeros(())
        for lif in named_layers(network):
            total = total + self.of_layer(lif.layer, lif.inputs(record), record.layers[lif.index])
        return self.alpha * total

    def of_layer(self, layer: SpikingLayer, inputs: Tensor, spikes: Tensor) -> Float[Tensor, ""]:
        """The term of a layer by the spikes that enter it and its own, before it is multiplied by `alpha`."""
        raise NotImplementedError


@takes_arguments_of(Regularizer)
@checks_ranges
class LayerWindow(LayerRegularizer):
    """Pulls spikes into a window after the mean input of their layer, as in a synfire chain::

        R = alpha mean (max(start - s, 0)^2 + max(s - stop, 0)^2),    s = (t - m) / tau_syn,    summed over LIF layers

    where t are the first spikes of a layer's neurons and m is the mean first spike of its inputs in the same sample.
    A layer whose spikes drift ahead of its inputs leaves most of them unused. One whose spikes spread over long times
    leaves the next layer few that arrive together. Silent neurons and inputs are left out, and samples in which a
    layer has no input. The gradient goes to both t and m.

    Args:
        start: start of the window, in ``tau_syn`` after the mean input. It may be negative.
        stop: end of the window, in ``tau_syn`` after the mean input.

    Raises:
        ValueError: a number outside its range, `stop` not above `start`.
    """

    def __init__(self, alpha: NotNegative, start: Finite = 0.0, stop: Finite = 2.0, tau_syn: Positive = 1.0) -> None:
        super().__init__(alpha, tau_syn)
        if not start < stop:
            raise ValueError(f"stop: expected a number above start, which is {start}, got {stop}")
        self.start, self.stop = float(start), float(stop)

    def of_layer(self, layer: SpikingLayer, inputs: Tensor, spikes: Tensor) -> Float[Tensor, ""]:
        """Mean squared distance of the spikes from the window."""
        several = takes_trains(layer) and inputs.ndim > 2
        arrival = _mean_spike(inputs.min(dim=-1).values if several else inputs)
        spikes = first_of(layer, spikes)
        counted = torch.isfinite(spikes) & torch.isfinite(arrival)
        # where() before any arithmetic: a gradient that flows back through inf is NaN even if multiplied by 0
        lag = torch.where(counted, spikes, 0.0) - torch.where(torch.isfinite(arrival), arrival, 0.0)
        lag = lag / self.tau_syn
        outside = (self.start - lag).clamp(min=0).square() + (lag - self.stop).clamp(min=0).square()
        return torch.where(counted, outside, 0.0).mean()


def _mean_spike(times: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch 1"]:
    """Mean of the spikes of each sample; ``inf`` where there is none."""
    spiked = torch.isfinite(times)
    count = spiked.sum(dim=-1, keepdim=True)
    total = torch.where(spiked, times, 0.0).sum(dim=-1, keepdim=True)
    return torch.where(count > 0, total / count.clamp(min=1), torch.inf)


@takes_arguments_of(Regularizer)
@checks_ranges
class SilentPeak(LayerRegularizer):
    """Raises the membrane of neurons that are silent too often (after the idea of Wunderlich and Pehle 2021)::

        R = alpha sum_neurons mean_samples (threshold - max_t V(t)) / threshold

    over the samples in which a neuron is silent, for the neurons of all LIF layers that are silent in more than
    ``max_silent`` of the batch. In a ``SpikingRecurrent`` this includes spikes of the layer itself, and times up to its
    ``duration``. The derivative of the maximum with respect to weights, spike times and delays is exact. A membrane
    that never rises above rest has none: there, only raising weights helps (``SilentNeurons``). Parameters of the
    neurons have no gradient. Adaptation plays no part in a neuron without spikes. Of neurons from equations, it is how
    far a neuron stays from its threshold, relative to how far it is at the start. They are on the CPU.

    Args:
        max_silent: neurons that are silent in at most this fraction of a batch are left alone.
    """

    def __init__(self, alpha: NotNegative, max_silent: Fraction = 0.5, tau_syn: Positive = 1.0) -> None:
        super().__init__(alpha, tau_syn)
        self.max_silent = float(max_silent)

    def of_layer(self, layer: SpikingLayer, inputs: Tensor, spikes: Tensor) -> Float[Tensor, ""]:
        """The distance to the threshold of the maxima of too silent neurons."""
        seen, synapses, delay, until, receptor = layer.arriving(inputs, spikes)
        first, rows = first_of(layer, spikes), layer.matrix_shape[0]
        # (..., places, rows), where a layer has places at which the same neurons see different inputs
        first = first.unflatten(-1, (rows, -1)).movedim(-1, -2).reshape(-1, rows)
        silent = torch.isinf(first)
        silent = silent & (self.batch_mean(silent.to(first.dtype)) > self.max_silent)
        lack = lacking(seen.reshape(-1, seen.shape[-1]), synapses, layer.neuron, silent, delay, until, receptor)
        if layer.neuron.equations is None:  # others lack a part of what they had to rise at the start
            lack = lack / of_neurons(layer.neuron.threshold, layer.synapses).detach()
        return layer.out_features // rows * lack.mean(dim=0).sum()


@takes_arguments_of(Regularizer)
@checks_ranges
class SpikeCount(LayerRegularizer):
    """Keeps the number of spikes of each neuron between two bounds, or at a target, which is both::

        R = alpha mean_neurons (max(least - n, 0)^2 + max(n - most, 0)^2),    summed over the LIF layers

    where n is the mean number of spikes of a neuron over the samples of a batch.

    A number of spikes has no derivative. This uses that of a neuron without leak whose reset subtracts the
    threshold: it spikes once for every threshold of charge that it receives, so that ``dn/dw_i`` is the mean number of
    spikes of input i over the threshold. This surrogate goes to the weights of the layer alone, and reaches silent
    neurons as well, where inputs spike.

    Args:
        least: spikes per sample below which a neuron is driven more: a number, or one for each neuron.
        most: spikes per sample above which it is driven less, likewise; ``inf`` for no bound.
        neurons: the population that this is about, from the first neuron up to, not including, the second; all by
            default. For several populations, give several terms.
        recurrent: whether recurrent weights learn from it as those of the inputs do.

    Raises:
        ValueError: a number outside its range, `most` below `least`; when it is used, neurons that a layer lacks, or
            another number of bounds.
    """

    def __init__(
        self,
        alpha: NotNegative,
        least: NotNegative | Sequence[NotNegative] = 0.0,
        most: float | Sequence[float] = math.inf,
        tau_syn: Positive = 1.0,
        *,
        neurons: tuple[NotNegativeInt, NotNegativeInt] | None = None,
        recurrent: bool = False,
    ) -> None:
        super().__init__(alpha, tau_syn)
        given = [torch.as_tensor(x, dtype=torch.float64, device="cpu") for x in (least, most)]
        self.least, self.most = (tuple(x.tolist()) if x.ndim else float(x) for x in given)
        if len({x.shape for x in given if x.ndim}) > 1:
            raise ValueError(f"least, most: expected equally many, got {len(given[0])} and {len(given[1])}")
        low, high = (x.flatten() for x in torch.broadcast_tensors(*given))
        if bool((wrong := ~((high >= low) & (low >= 0) & (low < math.inf))).any()):
            first, last = float(low[wrong][0]), float(high[wrong][0])
            if not 0 <= first < math.inf:
                raise ValueError(f"least must be finite and >= 0, got {first:g}")
            raise ValueError(f"most: expected at least {first:g}, the lower bound, got {last:g}")
        self.neurons = None if neurons is None else (int(neurons[0]), int(neurons[1]))
        if self.neurons is not None and not 0 <= self.neurons[0] < self.neurons[1]:
            raise ValueError(f"neurons must be the first and the one past the last, as in (0, 80), got {neurons}")
        self.recurrent = recurrent

    def of_layer(self, layer: SpikingLayer, inputs: Tensor, spikes: Tensor) -> Float[Tensor, ""]:
        """Squared distance of the numbers of spikes from the bounds."""
        seen, rows = layer.seen(inputs), layer.matrix_shape[0]
        received = spike_counts(seen if takes_trains(layer) else seen.unsqueeze(-1))
        sent = spike_counts(spikes if form_of(layer) == "trains" else spikes.unsqueeze(-1))
        sent = sent.unflatten(-1, (rows, -1)).movedim(-1, -2)  # (batch, places, rows)
        arrived = self.batch_mean(received.flatten(1)).view(-1, received.shape[-1])
        if layer.neuron.equations is not None:
            raise ValueError(
                f"SpikeCount is about LIF neurons: others have no charge for each spike; got {layer.neuron}"
            )
        count = self.batch_mean(sent.flatten(1)).view(-1, rows)
        charge = charge_of(layer, "weight", arrived)
        if self.recurrent and "recurrent_weight" in layer._signed:
            charge = charge + charge_of(layer, "recurrent_weight", count)
        charge = charge / of_neurons(layer.neuron.threshold, charge.mT).detach()
        first, last = self.neurons or (0, rows)
        least, most = (count.new_tensor(x) for x in (self.least, self.most))
        if last > rows or {least.numel(), most.numel()} - {1, last - first}:
            asked = f"{max(least.numel(), most.numel())} bounds for neurons {first} to {last - 1}"
            raise ValueError(f"SpikeCount has {asked}, {layer._name} has {rows} neurons")
        count = (count + (charge - charge.detach()))[:, first:last]
        few, many = (least - count).clamp(min=0), (count - most).clamp(min=0)
        return (few.square() + many.square()).mean()
