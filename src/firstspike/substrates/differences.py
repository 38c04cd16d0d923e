"""Spikes of a network on a substrate against those elsewhere, neuron by neuron."""

import math
from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

import numpy as np
from torch import nn

from firstspike.layers import Record
from firstspike.layers.named import named_layers, to_numpy


class NeuronDifference(NamedTuple):
    """How the spikes of a neuron differ in all samples: numbers of spikes, and distances of matched ones in time.

    Spikes here without one there are ``missing``, the others ``extra``. Distances are NaN where none match.
    """

    layer: str
    neuron: int
    here: int
    there: int
    matched: int
    missing: int
    extra: int
    median: float
    largest: float


def differences(network: nn.Module, here: Record, there: Record, within: float = math.inf) -> list[NeuronDifference]:
    """Compare spikes, neuron by neuron. Two match if they are neighbours in time, and both are further from others.

    Args:
        network: the network. Its layers have the names that figures show.
        here: spike times of its layers, such as ``network.record(times)``.
        there: others for the same inputs, such as ``substrate.run(network, times)``.
        within: the largest distance of spikes that match, in the unit of the times.

    Returns:
        A row for each neuron, in the order of layers and neurons.
    """
    found = []
    for lif in named_layers(network):
        layers = [to_numpy(record.layers[lif.index]).swapaxes(0, 1) for record in (here, there)]
        for k, pair in enumerate(zip(*layers, strict=True)):
            samples = [np.isfinite(x).nonzero()[0] for x in pair]
            sample, time = np.concatenate(samples), np.concatenate([x[np.isfinite(x)] for x in pair])
            (one, other), order = map(len, samples), np.lexsort((time, sample))
            sample, time, side = sample[order], time[order], order < one
            gap = np.where((sample[1:] == sample[:-1]) & (side[1:] != side[:-1]), np.diff(time), np.inf)
            before, after = np.append(np.inf, gap)[: len(gap)], np.append(gap, np.inf)[1:]
            apart = gap[(gap < before) & (gap <= after) & (gap <= within)]
            size = (float(np.median(apart)), float(apart.max())) if len(apart) else (math.nan, math.nan)
            both = len(apart)
            found.append(NeuronDifference(lif.name, k, one, other, both, one - both, other - both, *size))
    return found


def differences_text(found: Iterable[NeuronDifference], worst: int = 3) -> str:
    """A line for each layer, then the neurons that differ most: first those with spikes that come or go."""
    text = "{}: {} spikes, {} missing, {} extra, others at most {:.2g} apart".format
    lines = []
    for layer, rows in groupby(found, key=lambda x: x.layer):
        each = sorted(rows, key=lambda x: (-x.missing - x.extra, -np.nan_to_num(x.largest)))
        largest = max((x.largest for x in each if x.matched), default=math.nan)
        lines.append(text(layer, *np.sum([(x.here, x.missing, x.extra) for x in each], axis=0), largest))
        lines += [text(f"  neuron {x.neuron}", x.here, x.missing, x.extra, x.largest) for x in each[:worst]]
    return "\n".join(lines)
