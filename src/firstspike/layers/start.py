"""A start for networks of any depth: layer by layer, from the spike times that arrive there.

A deep network can fail at the start in two ways. Layers fall silent, each a little more than the one before. Or all
neurons of a layer do the same: the weights differ too little from their mean, each layer averages over its inputs, and
differences between samples are lost after a few layers, although every neuron spikes.

Both follow from mean and spread of the weights. With n inputs that spike at times of a known distribution, the membrane
of the neurons at time t has the mean ``n mean phi(t)`` and the variance ``n std^2 psi(t)``, where phi and psi are the
averages of ``kappa(t - t_i)`` and its square. Its slope has the averages ``phi'`` and ``chi`` of ``kappa'`` and its
square. A shift of the inputs by dt_i shifts the spike by ``sum_i w_i kappa'_i dt_i / sum_i w_i kappa'_i``, so that
differences between neurons pass on with the gain ``std sqrt(n chi) / (n mean phi')``, taken where the mean membrane
reaches the threshold. The mean is chosen so that the mean membrane peaks at ``_PEAK`` thresholds, or at fewer
if neurons spike several times. The spread so that the gain through all layers together is ``_PASSED``, but not so wide
that more than a tenth of the neurons stay silent.

Most of the spread between neurons is the same in all samples: a neuron has larger weights than another. In a deep
network it does harm: it brings the weakest neurons near their threshold, where spike times change abruptly, and limits
the spread that the weights may have. So the weights are balanced if even the shortest path through the network has more
than ``_SHALLOW`` layers: those of each neuron are shifted to the same mean. Then the variance is
``n std^2 (psi - phi^2)``, and the gain can be 1. In shorter networks, neurons that differ are the better start.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.layers.branches import Branch
from firstspike.layers.init import NormalWeights, firing_weights, first_response
from firstspike.layers.network import Network, applied, over
from firstspike.layers.neurons import SpikingLayer
from firstspike.layers.noise import evaluating
from firstspike.layers.readouts import MaximumReadout
from firstspike.layers.synapses import existing, given_, of_rows
from firstspike.layers.timescales import warn_of_misfit
from firstspike.layers.trains import form_of, takes_trains
from firstspike.neurons import LIF
from firstspike.ranges import NotNegative, checks_ranges
from firstspike.spiketime import first_spike_time
from firstspike.spiketime.maxima.peaks import highest
from firstspike.spiketime.response import kappa, kappa_slope

_PEAK = 4.0  # of the mean membrane, in thresholds
_PEAK_OF_TRAINS = 2.0  # for neurons that spike several times
_PASSED = 0.1  # of the differences between neurons, from the input to the output
_SILENT_BEYOND = 1.28  # standard deviations below the mean: a tenth of a normal distribution
_SHALLOW = 9  # layers, up to which neurons differ in their mean weight
_QUANTILES = 128
_ARRIVALS = 1 << 24  # spikes at most, padding included, from which the start of a convolution of trains is found
_PLACES = 64
_SAMPLES_WITH_DELAYS = 16  # each has as many arrivals as there are synapses
_WITHIN = 2.5  # times too many or too few spikes
_TRIED = 32  # samples, with each of
_TRIALS = 8  # weights


def passing_weights(
    inputs: int,
    neuron: LIF,
    times: Float[Tensor, "samples inputs"],
    layers: int = 2,
    peak: float = _PEAK,
    balanced: bool = False,
) -> NormalWeights:
    """Weights for a threshold of 1 with which most neurons fire, and differences between samples pass on.

    Of the arriving spikes ``times`` only the overall distribution matters. Where nothing arrives at all, the weights
    are those of ``firing_weights``. The more ``layers`` the network has, the more each has to pass on. ``peak`` is the
    maximum of the mean membrane, in thresholds; ``balanced``: all neurons will have the same mean weight.
    """
    tau_mem, tau_syn = map(float, first_response(neuron.values))
    arrived = times[torch.isfinite(times)].detach().cpu().double().sort().values
    if not len(arrived):
        return firing_weights(inputs, neuron)
    active = inputs * len(arrived) / times.numel()
    ranks = (torch.arange(_QUANTILES, dtype=torch.float64) + 0.5) / _QUANTILES * len(arrived)
    arrival = arrived[ranks.long()]

    share = torch.full_like(arrival, 1 / _QUANTILES)  # the mean membrane is that of a neuron with these weights

    def at(time: float, response: Callable[[Tensor, float, float], Tensor]) -> Tensor:
        since = time - arrival
        return torch.where(since > 0, response(since.clamp(min=0), tau_mem, tau_syn), 0.0)

    phi, summit = highest(arrival, share, tau_mem, tau_syn)
    mean = peak / (active * phi)
    # relative to the mean, so that no square overflows
    squared = float((at(summit, kappa) / phi).square().mean()) - (active / inputs if balanced else 0.0)
    deviation = math.sqrt(max(squared, 1e-6) * active)
    widest = (peak - 1) / (_SILENT_BEYOND * phi * deviation)

    crossing = first_spike_time(arrival, share[None], LIF(tau_mem, tau_syn, phi / peak), backend="reference")
    slope = at(float(crossing), kappa_slope)
    rise = float(slope.mean())
    if not rise > 0:  # times that are too late for a neuron's time constants
        return NormalWeights(mean, widest)
    passed = math.sqrt(active / float((slope / rise).square().mean()))
    gain = 1.0 if balanced else _PASSED ** (1 / layers)
    return NormalWeights(mean, min(widest, gain * mean * passed))


def _passed_on(layer: Any, entered: Sequence[Tensor]) -> Tensor:
    """The output of a layer. If neurons spike too often at the start, their first spikes are enough."""
    if not hasattr(layer, "overflow"):
        return applied(layer, entered)
    overflow, layer.overflow = layer.overflow, "drop"
    try:
        return applied(layer, entered)
    finally:
        layer.overflow = overflow


def _arrivals(layer: SpikingLayer, times: Tensor, several: bool) -> Tensor:
    """What the neurons of a layer see; of convolutions of trains, in as many samples and places as are enough."""
    if not several or layer.weight.ndim <= 2:
        return layer.seen(times)
    seen = layer.seen(times[: max(1, _ARRIVALS // max(1, layer.seen(times[:1]).numel()))])
    every = max(1, seen.shape[1] // _PLACES)
    return seen[:, every // 2 :: every]


def _spikes_again(layer: Any, times: Tensor, given: Tensor, wanted: float) -> Float[Tensor, "samples neurons spikes"]:
    """The output of a layer of trains, with weights by a common factor so that its neurons spike about as often.

    That is in the mean over neurons and samples with any spike, and within a factor of 2.5 of ``wanted``, or of a third
    of ``max_spikes`` if that is less. ``given`` is the output so far.
    """
    wanted = min(wanted, layer.max_spikes / 3)

    def excess(trains: Tensor) -> float:
        spikes = torch.isfinite(trains).sum(dim=-1).double()
        return float(spikes.sum() / (spikes > 0).sum().clamp(min=1)) / wanted

    found = excess(given)
    if 1 / _WITHIN <= found <= _WITHIN or not bool(torch.isfinite(times).any()):
        return given
    before, factor, low, high = layer.weight.clone(), 1.0, 0.0, math.inf
    for _ in range(_TRIALS):
        low, high = (low, factor) if found > 1 else (factor, high)
        factor = 2 * low if high == math.inf else math.sqrt(low * high) if low else high / 2
        layer.weight.copy_(factor * before)
        found = excess(_passed_on(layer, [times[:_TRIED]]))
        if 1 / _WITHIN**0.5 <= found <= _WITHIN**0.5:
            return _passed_on(layer, [times])
    layer.weight.copy_(before)  # spikes that do not depend on the inputs, or too few inputs
    return given


def _rise_(readout: MaximumReadout, trains: Tensor) -> None:
    """Raise the weights of outputs that stay at rest in most of the samples in which spikes arrive."""
    arrives = torch.isfinite(trains).flatten(1).any(dim=-1)
    if given_(readout, "weight"):
        return
    for _ in range(_TRIALS):
        idle = (readout(trains[arrives]) <= 0).to(readout.weight).mean(dim=0) > 0.5
        if not bool(idle.any()):
            return
        readout.weight.add_(of_rows(readout, "weight", idle / math.sqrt(readout.in_features)))
        readout.weight.copy_(existing(readout))


def _shortest_way(network: Network) -> int:
    """How many LIF layers a spike has to pass at least, from the inputs to the output."""
    passed = [0]
    for layer in network:
        passed.append(min(passed[-1], passed[-1 - over(layer)]) + isinstance(layer, SpikingLayer))
    return passed[-1]


@checks_ranges
@torch.no_grad()
def start_firing_(
    network: Network,
    times: Float[Tensor, "samples inputs"],
    generator: torch.Generator | None = None,
    spikes: NotNegative = 4.0,
) -> None:
    """Redraw the weights of a network so that every layer fires, whatever its depth, sizes and time constants.

    It goes through the layers with the times that arrive there, see ``passing_weights``. If every path through the
    network has at least ten LIF layers, all neurons of a layer have the same mean weight. LIF layers that were given
    weights, or their mean and deviation, keep them. Spikes that are carried past layers with a delay without a given
    start arrive with those of the last layer, in the median. If neurons of a layer for trains, recurrent or not, spike
    more than 2.5 times too often or too rarely, its input weights are scaled. Outputs of
    a ``MaximumReadout`` that stay at rest in most samples get larger weights.

    Args:
        network: whose weights change, in place.
        times: input times of some samples, or spike trains, also as ``EventLists``. A hundred are enough.
        generator: source of the weights; torch's global one by default.
        spikes: wanted mean number of spikes of the neurons that spike, in layers for trains, at most a third of their
            ``max_spikes``. With 0, neither it nor readouts are adjusted.

    Warns:
        UserWarning: inputs further apart than neurons remember, or all of a sample at once, as in another unit of time.

    Raises:
        ValueError: ``spikes`` below 0.
    """
    entered = [network.flat(times.padded() if hasattr(times, "padded") else times)]
    warn_of_misfit(network, entered[0])
    spiking = [layer for layer in network if isinstance(layer, SpikingLayer)]
    deep = _shortest_way(network) > _SHALLOW
    with evaluating(network):
        for layer in network:
            if drawn := isinstance(layer, SpikingLayer) and layer.weight_mean is None and not given_(layer, "weight"):
                several = takes_trains(layer)  # the last dimension counts the spikes of an input
                arrivals = _arrivals(layer, entered[-1], several)
                if (delay := getattr(layer, "delay", None)) is not None:
                    places = (1,) * (arrivals.ndim - 2 - several)  # of a convolution
                    delay = delay.view(len(delay), *places, -1, *(1,) * several)
                    arrivals = arrivals[:_SAMPLES_WITH_DELAYS, None] + delay
                inputs = layer.matrix_shape[1] * (arrivals.shape[-1] if several else 1)
                peak = _PEAK_OF_TRAINS if several else _PEAK
                start = partial(passing_weights, inputs, times=arrivals, layers=len(spiking), peak=peak, balanced=deep)
                layer.draw_weights_(start, generator, deep)
            elif isinstance(layer, Branch):
                layer.align_(entered[-1], entered[-1 - over(layer)])
            elif spikes and isinstance(layer, MaximumReadout) and layer.weight_mean is None:
                _rise_(layer, entered[-1])
            out = _passed_on(layer, entered)
            if drawn and spikes and form_of(layer) == "trains":
                out = _spikes_again(layer, entered[-1], out, spikes)
            entered.append(out)
