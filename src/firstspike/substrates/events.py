"""All spikes of neurons that may fire more than once: an exact simulation from event to event.

Between two inputs the membrane is known in closed form (``reference.response``), so nothing is stepped. After a
spike the membrane stays at rest for the refractory period, while the current keeps decaying.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from firstspike.neuron import LIF
from firstspike.spiketime import first_spike_time
from firstspike.spiketime.reference.response import membrane, peak

_NEWTON = 80  # steps at most; close to a tangent each halves the distance, otherwise a handful is enough
_CLOSE = 1e-12


@dataclass(frozen=True)
class Cells:
    """Neurons of a layer.

    Args:
        tau_mem: membrane time constants, finite, one number or one for each neuron.
        tau_syn: synaptic time constants, likewise.
        threshold: thresholds, of the neurons or of each sample and neuron.
        refractory: how long the membrane stays at rest after a spike.
    """

    tau_mem: float | Float[Tensor, " neurons"]
    tau_syn: float | Float[Tensor, " neurons"]
    threshold: Float[Tensor, "*batch neurons"]
    refractory: float


def spike_trains(
    times: Float[Tensor, "batch inputs spikes"], weight: Float[Tensor, "out inputs"], cells: Cells, until: float
) -> Float[Tensor, "batch out spikes"]:
    """Spike trains of a layer from those of its inputs.

    Args:
        times: of each input its spikes in any order, filled up with ``inf``; float64.
        weight: of the synapses, float64.
        cells: the neurons.
        until: when to stop.

    Returns:
        Spikes before ``until`` in order, filled up with ``inf``; at least one column.
    """
    mem, syn = cells.tau_mem, cells.tau_syn
    if times.shape[2] > 1 or cells.threshold.ndim > 1 or isinstance(mem, Tensor) or isinstance(syn, Tensor):
        return simulate(times, weight, cells, until)
    # mostly no neuron has enough input for a second spike, and the operator is faster than a simulation
    single = times[..., 0].masked_fill(times[..., 0] >= until, torch.inf)
    first = first_spike_time(single, weight, LIF(mem, syn, cells.threshold.expand(len(weight))))
    found = first.masked_fill(first >= until, torch.inf).unsqueeze(-1)
    again = (_highest_after(single, weight, mem, syn, first + cells.refractory) >= cells.threshold).any(dim=1)
    if not bool(again.any()):
        return found
    trains = simulate(times[again], weight, cells, until)
    found = torch.cat([found, found.new_full((*first.shape, trains.shape[2] - 1), torch.inf)], dim=2)
    found[again] = trains
    return found


def _highest_after(
    times: Float[Tensor, "batch inputs"],
    weight: Float[Tensor, "out inputs"],
    tau_mem: float,
    tau_syn: float,
    rest: Float[Tensor, "batch out"],
) -> Float[Tensor, "batch out"]:
    """A bound on the membranes of neurons that are at rest until ``rest``: all excitation that is left, at once."""
    excitation = weight.clamp(min=0).T
    arrives = torch.isfinite(times)
    last = times.masked_fill(~arrives, -torch.inf).amax(dim=1, keepdim=True)
    last = last.masked_fill(torch.isinf(last), 0.0)
    left = torch.where(arrives, torch.exp((times - last) / tau_syn), 0.0) @ excitation
    left = left * torch.exp(-(rest - last).clamp(min=0) / tau_syn)
    charge = torch.where(rest >= last, left, arrives.to(weight) @ excitation)
    _, height = peak(times.new_zeros(()), times.new_ones(()), tau_mem, tau_syn)
    return charge * height * (1 + 1e-9)


def simulate(
    times: Float[Tensor, "batch inputs spikes"], weight: Float[Tensor, "out inputs"], cells: Cells, until: float
) -> Float[Tensor, "batch out spikes"]:
    """The same as ``spike_trains``, event by event for all neurons."""
    run = Run(len(times), len(weight), cells, times)
    run.advance_through(times, weight, until)
    return run.found


class Run:
    """A layer while it is simulated: its membranes and currents, and the spikes so far.

    Args:
        batch: number of samples.
        neurons: number of neurons in each.
        cells: the neurons.
        like: whose type and device the state has.
    """

    def __init__(self, batch: int, neurons: int, cells: Cells, like: Tensor) -> None:
        self.cells = cells
        self.time = -torch.inf  # up to which it is known
        self.voltage = like.new_zeros(batch, neurons)
        self.current = torch.zeros_like(self.voltage)
        self.rest_until = torch.full_like(self.voltage, -torch.inf)
        self.found = like.new_full((batch, neurons, 1), torch.inf)
        self.count: Int[Tensor, "batch neurons"] = torch.zeros_like(self.voltage, dtype=torch.int64)
        self.threshold = cells.threshold.expand_as(self.voltage)
        self.fresh = True  # no neuron has spiked yet

    def advance_through(
        self, times: Float[Tensor, "batch inputs spikes"], weight: Float[Tensor, "out inputs"], until: float
    ) -> None:
        """Up to ``until``, with the inputs from where the run is; see ``spike_trains``."""
        trains = times.shape[2]
        events, order = times.flatten(1).masked_fill(times.flatten(1) < self.time, torch.inf).sort(dim=1)
        events = events.clamp(max=until)
        source = order // trains
        count = int((events < until).sum(dim=1).max()) if len(events) else 0
        if self.time > -torch.inf:
            start = torch.full_like(events[:, :1], self.time)
            self.advance(start, events[:, :1] if count else torch.full_like(start, until))
        ends = torch.cat([events[:, 1:], torch.full_like(events[:, :1], until)], dim=1)
        moves = (ends > events).any(dim=0).tolist()  # copies of an input come together
        for k in range(count):
            begin, end = events[:, k, None], ends[:, k, None]
            self.current = self.current + weight.T[source[:, k]].masked_fill(begin >= until, 0.0)
            if moves[k]:
                self.advance(begin, end)
        self.time = until

    def advance(self, begin: Float[Tensor, "batch 1"], end: Float[Tensor, "batch 1"]) -> None:
        """From ``begin`` to ``end`` without input in between."""
        tau_mem, tau_syn = self.cells.tau_mem, self.cells.tau_syn
        now = begin
        while True:
            if not self.fresh:
                rest = (torch.minimum(self.rest_until, end) - now).clamp(min=0)
                self.current = self.current * torch.exp(-rest / tau_syn)
                now = now + rest
            length = end - now
            voltage = membrane(length, self.voltage, self.current, tau_mem, tau_syn)
            current = self.current * torch.exp(-length / tau_syn)
            slope = self.current / tau_syn - self.voltage / tau_mem
            # a rising membrane is concave: it stays below its tangent
            may = (slope > 0) & (self.voltage + slope * length >= self.threshold)
            fires = self._fires(may, voltage, current) if bool(may.any()) else None
            if fires is None:
                self.voltage, self.current = voltage, current
                return
            now = now.expand_as(self.voltage).clone()
            since = self._crossing(fires)
            self._spike(fires, now[fires], since)
            now[fires] += since

    def _fires(self, may: Tensor, voltage: Tensor, current: Tensor) -> tuple[Tensor, ...] | None:
        """Indices of the candidates that reach the threshold: at the end of the interval or at a peak inside."""
        rows = may.nonzero(as_tuple=True)
        tau_mem, tau_syn = self._taus(rows)
        before, charge, threshold, after = (x[rows] for x in (self.voltage, self.current, self.threshold, voltage))
        falls = current[rows] / tau_syn <= after / tau_mem  # after very long both are 0
        _, height = peak(before, charge, tau_mem, tau_syn)
        reached = (after >= threshold) | (falls & (height >= threshold))
        return tuple(row[reached] for row in rows) if bool(reached.any()) else None

    def _taus(self, rows: tuple[Tensor, ...]) -> tuple[float | Tensor, float | Tensor]:
        taus = self.cells.tau_mem, self.cells.tau_syn
        mem, syn = (tau[rows[1]] if isinstance(tau, Tensor) else tau for tau in taus)
        return mem, syn

    def _crossing(self, fires: tuple[Tensor, ...]) -> Float[Tensor, " firing"]:
        """How long until the threshold: Newton's method climbs to it, for the rising membrane is concave."""
        tau_mem, tau_syn = self._taus(fires)
        voltage, current, threshold = (x[fires] for x in (self.voltage, self.current, self.threshold))
        since = torch.zeros_like(voltage)
        for _ in range(_NEWTON):
            height = membrane(since, voltage, current, tau_mem, tau_syn)
            slope = current * torch.exp(-since / tau_syn) / tau_syn - height / tau_mem
            step = torch.where(slope > 0, (threshold - height) / slope.clamp(min=1e-300), 0.0).clamp(min=0)
            since = since + step
            if not bool((step > _CLOSE).any()):
                break
        return since

    def _spike(self, fires: tuple[Tensor, ...], now: Float[Tensor, " firing"], since: Float[Tensor, " firing"]) -> None:
        """Spikes of some neurons, at ``now + since``."""
        _, tau_syn = self._taus(fires)
        nth = self.count[fires]
        if int(nth.max()) == self.found.shape[2]:
            self.found = torch.cat([self.found, torch.full_like(self.found[..., :1], torch.inf)], dim=2)
        self.found[(*fires, nth)] = now + since
        self.count[fires] += 1
        self.fresh = False
        self.current[fires] *= torch.exp(-since / tau_syn)
        self.voltage[fires] = 0.0
        self.rest_until[fires] = now + since + self.cells.refractory
