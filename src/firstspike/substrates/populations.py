"""Layers in the words of PyNN: populations, projections and spikes, in what all its simulators and chips understand."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from firstspike.substrates.windows import Windows

Spikes = tuple[Int[np.ndarray, " spikes"], Float[np.ndarray, " spikes"]]
"""Neurons, and milliseconds of the run."""


def sources(sim: Any, trains: list[Float[np.ndarray, " spikes"]]) -> Any:
    """A population that spikes at given times.

    Args:
        sim: a module of PyNN.
        trains: for each of its cells the times in order, in milliseconds.
    """
    from pyNN.parameters import Sequence

    return sim.Population(len(trains), sim.SpikeSourceArray(spike_times=[Sequence(train) for train in trains]))


def project(sim: Any, before: Any, after: Any, weight: Float[np.ndarray, "after before"], delay_ms: float) -> None:
    """Fully connect two populations: PyNN takes excitatory and inhibitory synapses apart; weights of 0 have none.

    Args:
        sim: a module of PyNN.
        before: population where the synapses come from.
        after: population where they go to.
        weight: their weights in nA.
        delay_ms: of all of them, in milliseconds.
    """
    weight = weight.T
    for receptor, chosen in (("excitatory", weight > 0), ("inhibitory", weight < 0)):
        if chosen.any():
            synapse = sim.StaticSynapse(weight=weight, delay=delay_ms)
            sim.Projection(before, after, sim.ArrayConnector(chosen, safe=False), synapse, receptor_type=receptor)


def project_each(sim: Any, before: Any, after: Any, weight: Float[np.ndarray, "after before"], delay_ms: float) -> None:
    """The same where ``before`` has a source for each synapse, row after row of the weights."""
    row, column = np.indices(weight.shape).reshape(2, -1)
    source, flat = row * weight.shape[1] + column, weight.ravel()
    for receptor, chosen in (("excitatory", flat > 0), ("inhibitory", flat < 0)):
        if chosen.any():
            synapses = np.column_stack((source[chosen], row[chosen], flat[chosen], np.full(chosen.sum(), delay_ms)))
            connector = sim.FromListConnector(synapses.tolist(), column_names=["weight", "delay"], safe=False)
            sim.Projection(before, after, connector, sim.StaticSynapse(), receptor_type=receptor)


def first_spikes(population: Any, windows: Windows, late_ms: float = 0.0) -> Float[np.ndarray, "samples neurons"]:
    """The first spike of each neuron of a population in each window, see ``Windows.first``.

    Args:
        population: one whose spikes were recorded.
        windows: of the samples.
        late_ms: how much later than they should all spikes came, in milliseconds.
    """
    index, at = recorded(population)
    return windows.first(population.size, index, at - late_ms)


def recorded(population: Any) -> Spikes:
    """All spikes of a population that were recorded: which neurons, and when in the run, in milliseconds."""
    trains = population.get_data("spikes", clear=True).segments[-1].spiketrains
    index: list[Int[np.ndarray, " spikes"]] = [np.empty(0, np.int64)]
    at: list[Float[np.ndarray, " spikes"]] = [np.empty(0)]
    for train in trains:  # silent neurons may be missing: only the annotation says which one it is
        index.append(np.full(len(train), train.annotations["source_index"]))
        at.append(np.asarray(train.rescale("ms").magnitude, dtype=np.float64))
    return np.concatenate(index), np.concatenate(at)
