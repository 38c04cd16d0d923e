"""All spikes of neurons that may fire more than once: an exact simulation from event to event.

Between two inputs the membrane is known in closed form (``spiketime/response.py``), so nothing is stepped. After a
spike the membrane stays at rest for the refractory period, while the current goes on.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from firstspike.spiketime.response import membrane, peak

_NEWTON = 80  # steps at most; close to a tangent each halves the distance, else a handful is enough
_CLOSE = 1e-12


@dataclass(frozen=True)
class Cells:
    """Neurons of a layer, each value one number or a tensor that broadcasts to ``(batch, neurons)``, in float64.

    Args:
        tau_mem: membrane time constants, finite.
        tau_syn: synaptic time constants.
        threshold: thresholds.
        refractory: how long the membrane stays at rest after a spike.
    """

    tau_mem: Tensor
    tau_syn: Tensor
    threshold: Tensor
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
    trains = times.shape[2]
    events, order = times.flatten(1).sort(dim=1)
    events = events.clamp(max=until)
    source = order // trains
    count = int((events < until).sum(dim=1).max()) if len(events) else 0
    state = _State(len(times), len(weight), cells, times)
    ends = torch.cat([events[:, 1:], torch.full_like(events[:, :1], until)], dim=1)
    for k in range(count):
        begin, end = events[:, k, None], ends[:, k, None]
        state.current = state.current + torch.where(begin < until, weight.T[source[:, k]], 0.0)
        state.advance(begin, end)
    return state.found


class _State:
    """Membranes and currents of a layer while it runs, and the spikes so far."""

    def __init__(self, batch: int, neurons: int, cells: Cells, like: Tensor) -> None:
        self.cells = cells
        self.voltage = like.new_zeros(batch, neurons)
        self.current = torch.zeros_like(self.voltage)
        self.rest_until = torch.full_like(self.voltage, -torch.inf)
        self.found = like.new_full((batch, neurons, 1), torch.inf)
        self.count: Int[Tensor, "batch neurons"] = torch.zeros_like(self.voltage, dtype=torch.int64)
        threshold, tau_mem, tau_syn = cells.threshold, cells.tau_mem, cells.tau_syn
        self.threshold, self.tau_mem, self.tau_syn = (x.expand_as(self.voltage) for x in (threshold, tau_mem, tau_syn))

    def advance(self, begin: Tensor, end: Tensor) -> None:
        """From ``begin`` to ``end``, ``(batch, 1)``, without input in between."""
        tau_mem, tau_syn = self.cells.tau_mem, self.cells.tau_syn
        now = begin.expand_as(self.voltage)
        while True:
            rest = (torch.minimum(self.rest_until, end) - now).clamp(min=0)
            self.current = self.current * torch.exp(-rest / tau_syn)
            now = now + rest
            length = end - now
            voltage = membrane(length, self.voltage, self.current, tau_mem, tau_syn)
            current = self.current * torch.exp(-length / tau_syn)
            rises = (self.current / tau_syn > self.voltage / tau_mem) & (self.current > 0) & (length > 0)
            falls = current / tau_syn <= voltage / tau_mem  # after very long both are 0
            _, height = peak(self.voltage, self.current, tau_mem, tau_syn)
            fires = rises & ((voltage >= self.threshold) | (falls & (height >= self.threshold)))
            if not bool(fires.any()):
                self.voltage, self.current = voltage, current
                return
            at = now.clone()
            at[fires] += self._crossing(fires)
            self._spike(fires, at, now)
            now = torch.where(fires, at, now)

    def _crossing(self, fires: Tensor) -> Float[Tensor, " firing"]:
        """How long until the threshold: Newton's method climbs to it, for the rising membrane is concave."""
        voltage, current, threshold, tau_mem, tau_syn = (
            x[fires] for x in (self.voltage, self.current, self.threshold, self.tau_mem, self.tau_syn)
        )
        since = torch.zeros_like(voltage)
        for _ in range(_NEWTON):
            height = membrane(since, voltage, current, tau_mem, tau_syn)
            slope = current * torch.exp(-since / tau_syn) / tau_syn - height / tau_mem
            step = torch.where(slope > 0, (threshold - height) / slope.clamp(min=1e-300), 0.0).clamp(min=0)
            since = since + step
            if not bool((step > _CLOSE * tau_syn).any()):
                break
        return since

    def _spike(self, fires: Tensor, at: Tensor, now: Tensor) -> None:
        if int(self.count[fires].max()) == self.found.shape[2]:
            self.found = torch.cat([self.found, torch.full_like(self.found[..., :1], torch.inf)], dim=2)
        rows = fires.nonzero(as_tuple=True)
        self.found[(*rows, self.count[fires])] = at[fires]
        self.count = self.count + fires
        self.current = torch.where(fires, self.current * torch.exp(-(at - now) / self.tau_syn), self.current)
        self.voltage = torch.where(fires, 0.0, self.voltage)
        self.rest_until = torch.where(fires, at + self.cells.refractory, self.rest_until)
