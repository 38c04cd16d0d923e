"""Spikes in two records, compared neuron by neuron."""

import math

import pytest
import torch

from firstspike.layers import FirstSpike, LIFLinear, LIFSpikeTrains, Network, Record
from firstspike.substrates import Exact, NeuronDifference, differences
from firstspike.substrates.differences import differences_text

NEVER = math.inf
DOUBLE = {"dtype": torch.float64}


def of(here, there, **options):
    """Differences of the trains of one layer, (samples, neurons, spikes)."""
    network = Network(LIFSpikeTrains(1, len(here[0]), 9))
    records = (Record(torch.zeros(len(x), 1), (torch.tensor(x, **DOUBLE),)) for x in (here, there))
    return differences(network, *records, **options)


def test_spikes_that_come_go_and_move():
    here = [[[1.0, 2.0, 3.0], [5.0, NEVER, NEVER]], [[1.0, 1.5, NEVER], [NEVER] * 3]]
    there = [[[1.1, 3.0, NEVER], [NEVER] * 3], [[1.0, 1.4, 2.0], [0.5, NEVER, NEVER]]]
    first, second = of(here, there)
    assert first[:7] == ("output", 0, 5, 5, 4, 1, 1)
    assert first[7:] == (pytest.approx(0.05), pytest.approx(0.1))
    assert second[:7] == ("output", 1, 1, 1, 0, 1, 1)  # of different samples
    assert math.isnan(second.median)
    assert of(here, there, within=0.05)[0][4:7] == (2, 3, 3)


def test_no_spikes_and_no_differences():
    nothing, same = [[[NEVER], [NEVER]]], [[[1.0], [2.0]]]
    assert [x[2:7] for x in of(nothing, nothing)] == [(0, 0, 0, 0, 0)] * 2
    assert [x[2:] for x in of(same, same)] == [(1, 1, 1, 0, 0, 0.0, 0.0)] * 2
    assert [x[2:7] for x in of(nothing, same)] == [(0, 1, 0, 0, 1)] * 2


def test_layers_of_trains_and_of_first_spikes(source):
    """In any order of samples the neurons have the same rows, and both directions the same distances."""
    network = Network(
        LIFSpikeTrains(4, 6, 20, overflow="drop", generator=source, **DOUBLE), FirstSpike(), LIFLinear(6, 3, **DOUBLE)
    )
    one = Exact().run(network, torch.rand(8, 4, 2, generator=source, **DOUBLE))
    other = Exact().run(network, one.inputs + 0.01 * torch.rand(one.inputs.shape, generator=source, **DOUBLE))
    found, back = differences(network, one, other), differences(network, other, one)
    assert [(x.layer, x.neuron) for x in found] == [("hidden", k) for k in range(6)] + [("output", k) for k in range(3)]
    assert sum(x.matched for x in found) > 20
    assert str(back) == str([x._replace(here=x.there, there=x.here, missing=x.extra, extra=x.missing) for x in found])
    mixed = (Record(x.inputs.flip(0), tuple(y.flip(0) for y in x.layers)) for x in (one, other))
    assert str(differences(network, *mixed)) == str(found)


def test_text_has_the_worst_neurons_first():
    rows = [NeuronDifference("hidden", k, 9, 9 - k % 2, 9 - k % 2, k % 2, 0, 0.1, 0.2 * k) for k in range(5)]
    assert differences_text([*rows, NeuronDifference("output", 0, 1, 0, 0, 1, 0, math.nan, math.nan)], worst=3) == (
        "hidden: 45 spikes, 2 missing, 0 extra, others at most 0.8 apart\n"
        "  neuron 3: 9 spikes, 1 missing, 0 extra, others at most 0.6 apart\n"
        "  neuron 1: 9 spikes, 1 missing, 0 extra, others at most 0.2 apart\n"
        "  neuron 4: 9 spikes, 0 missing, 0 extra, others at most 0.8 apart\n"
        "output: 1 spikes, 1 missing, 0 extra, others at most nan apart\n"
        "  neuron 0: 1 spikes, 1 missing, 0 extra, others at most nan apart"
    )
