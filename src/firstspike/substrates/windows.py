"""A batch as one long run of PyNN, each sample in its own window, and a layer as populations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from firstspike.substrates.cells import Links

Spikes = tuple[Int[np.ndarray, " spikes"], Float[np.ndarray, " spikes"]]
"""Neurons, and milliseconds of the run."""


@dataclass(frozen=True)
class Windows:
    """The places of a batch's samples in one long run."""

    samples: int
    start: float
    """Earliest time of a sample that is in its window, in the unit of the network's times."""
    length: float
    """Length of a window, in the same unit."""
    unit_ms: float
    """Milliseconds that this unit takes in the run."""
    lead_ms: float = 0.0
    """Milliseconds before the first window."""

    @property
    def run_ms(self) -> float:
        """Milliseconds until the last window ends."""
        return self.lead_ms + self.samples * self.length * self.unit_ms

    def at(self, time: float) -> Float[np.ndarray, " samples"]:
        """Milliseconds of the run at which each sample has that time."""
        begin = np.arange(self.samples) * self.length - self.start
        return np.asarray((time + begin) * self.unit_ms + self.lead_ms)

    def trains(
        self, times: Float[np.ndarray, "samples sources"] | Float[np.ndarray, "samples sources spikes"]
    ) -> list[Float[np.ndarray, " spikes"]]:
        """The spikes of each source in the run, in order and in milliseconds. ``inf`` means no spike."""
        times = times.reshape(*times.shape[:2], -1)
        at = times * self.unit_ms + self.at(0.0)[:, None, None]
        at = np.sort(at.swapaxes(0, 1).reshape(times.shape[1], -1))
        return [train[np.isfinite(train)] for train in at]

    def each(
        self, neurons: int, index: Sequence[int] | Int[np.ndarray, " spikes"], at_ms: Float[np.ndarray, " spikes"]
    ) -> Float[np.ndarray, "samples neurons spikes"]:
        """Each neuron's spikes in each window, sorted, padded with ``inf``, on the clock of the sample; no others."""
        at = (np.asarray(at_ms, dtype=np.float64) - self.lead_ms) / self.unit_ms
        window = np.floor(at / self.length).astype(np.int64)
        inside = (window >= 0) & (window < self.samples)
        at, window, index = at[inside], window[inside], np.asarray(index, dtype=np.int64)[inside]
        at, row = at - window * self.length + self.start, window * neurons + index
        order = np.lexsort((at, row))
        count = np.bincount(row, minlength=self.samples * neurons)
        nth = np.arange(len(row)) - (np.cumsum(count) - count)[row[order]]
        found = np.full((self.samples * neurons, max(1, int(count.max(initial=0)))), np.inf)
        found[row[order], nth] = at[order]
        return found.reshape(self.samples, neurons, -1)


def recorded(population: Any) -> Spikes:
    """The recorded spikes of a population of PyNN: which neurons, and when in the run."""
    trains = population.get_data("spikes", clear=True).segments[-1].spiketrains
    index: list[Int[np.ndarray, " spikes"]] = [np.empty(0, np.int64)]
    at: list[Float[np.ndarray, " spikes"]] = [np.empty(0)]
    for train in trains:  # silent neurons may be missing: only the annotation identifies a neuron
        index.append(np.full(len(train), train.annotations["source_index"]))
        at.append(np.asarray(train.rescale("ms").magnitude, dtype=np.float64))
    return np.concatenate(index), np.concatenate(at)


def sources(sim: Any, trains: list[Float[np.ndarray, " spikes"]]) -> Any:
    """A population that spikes at given times, in milliseconds."""
    from pyNN.parameters import Sequence

    return sim.Population(len(trains), sim.SpikeSourceArray(spike_times=[Sequence(train) for train in trains]))


def project(sim: Any, before: Any, after: Any, links: Links, delay_ms: Float[np.ndarray, "..."]) -> None:
    """Connect two populations by weights in nA, or in uS where they are conductances, of which those < 0 inhibit.

    ``before`` has a cell for each input or, by rows, for each synapse of a matrix.
    """
    inputs, delay = links.shape[1], links.chosen(delay_ms)
    source = links.column if before.size == inputs else links.row * inputs + links.column
    size = abs(links.weight) if after.conductance_based else links.weight
    for receptor, chosen in (("excitatory", links.weight > 0), ("inhibitory", links.weight < 0)):
        if chosen.any():
            listed = np.column_stack([x[chosen] for x in (source, links.row, size, delay)]).tolist()
            connector = sim.FromListConnector(listed, column_names=["weight", "delay"], safe=False)
            sim.Projection(before, after, connector, sim.StaticSynapse(), receptor_type=receptor)


def inject(
    sim: Any,
    cells: Any,
    turns: Sequence[tuple[float, Float[np.ndarray, "..."]]],
    at_ms: Callable[[float], Float[np.ndarray, " samples"]],
) -> None:
    """Let currents, in nA, into a population at these times of every sample."""
    if not turns:
        return
    from pyNN.parameters import Sequence

    times = np.stack([at_ms(time) for time, _ in turns], axis=1).ravel()
    amplitudes = np.stack(np.broadcast_arrays(*(current for _, current in turns)), axis=-1)
    views = [cells] if amplitudes.ndim == 1 else [cells[k : k + 1] for k in range(len(amplitudes))]
    for view, steps in zip(views, np.atleast_2d(amplitudes), strict=True):
        course = np.tile(steps, len(times) // len(steps))
        sim.StepCurrentSource(times=Sequence(times), amplitudes=Sequence(course)).inject_into(view)
