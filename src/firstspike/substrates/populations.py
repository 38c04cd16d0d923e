"""What a layer is in PyNN: its neurons, the synapses between them, and sources of spikes connected to them."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float


class Cells(NamedTuple):
    """Neurons of a layer, in units of ``tau_syn``; the first three one number or one for each neuron."""

    tau_mem: Float[np.ndarray, "..."]
    tau_syn: Float[np.ndarray, "..."]
    threshold: Float[np.ndarray, "..."]
    reset: float
    refractory: float


class Loop(NamedTuple):
    """Synapses between the neurons of a layer, with their delays, and when the layer stops; in units of ``tau_syn``."""

    weight: Float[np.ndarray, "out out"]
    delay: Float[np.ndarray, "out out"]
    until: float

    def inhibition(
        self, excitation: Float[np.ndarray, "out inputs"], cells: Cells, step: float
    ) -> Float[np.ndarray, " out"]:
        """What keeps each neuron silent from ``until`` on: more than all excitation that came or is still to come.

        Spikes on their way arrive after the longest delay at the latest, when the inhibition has decayed for so long.
        """
        longest = self.delay.max()
        spikes = np.ceil(longest / max(cells.refractory, step)) + 1
        most = excitation.clip(min=0).sum(axis=1) + spikes * self.weight.clip(min=0).sum(axis=1)
        return np.asarray((most + cells.threshold) * np.exp(longest / cells.tau_syn))


def sources(sim: Any, trains: list[Float[np.ndarray, " spikes"]]) -> Any:
    """A population that spikes at given times, in milliseconds."""
    from pyNN.parameters import Sequence

    return sim.Population(len(trains), sim.SpikeSourceArray(spike_times=[Sequence(train) for train in trains]))


def project(
    sim: Any,
    before: Any,
    after: Any,
    weight: Float[np.ndarray, "after before"],
    delay_ms: float | Float[np.ndarray, "before after"],
) -> None:
    """Fully connect two populations with weights in nA: PyNN separates excitatory and inhibitory synapses."""
    weight = weight.T
    for receptor, chosen in (("excitatory", weight > 0), ("inhibitory", weight < 0)):
        if chosen.any():
            synapse = sim.StaticSynapse(weight=weight, delay=delay_ms)
            sim.Projection(before, after, sim.ArrayConnector(chosen, safe=False), synapse, receptor_type=receptor)


def project_each(sim: Any, before: Any, after: Any, weight: Float[np.ndarray, "after before"], delay_ms: float) -> None:
    """The same if ``before`` has a source for each synapse, row after row of the weights."""
    row, column = np.indices(weight.shape).reshape(2, -1)
    source, flat = row * weight.shape[1] + column, weight.ravel()
    for receptor, chosen in (("excitatory", flat > 0), ("inhibitory", flat < 0)):
        if chosen.any():
            synapses = np.column_stack((source[chosen], row[chosen], flat[chosen], np.full(chosen.sum(), delay_ms)))
            connector = sim.FromListConnector(synapses.tolist(), column_names=["weight", "delay"], safe=False)
            sim.Projection(before, after, connector, sim.StaticSynapse(), receptor_type=receptor)
