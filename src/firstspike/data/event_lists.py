"""Spike trains of many samples as lists of events: as much memory as there are spikes, without padding."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from jaxtyping import Float, Int, Int64
from numpy.typing import ArrayLike
from torch import Tensor

from firstspike.data.events import padded_trains, sorted_events


@dataclass(frozen=True, eq=False)
class EventLists:
    """Spike trains of samples as events, in place of the tensor `times` of `SpikeData`.

    An index gives the padded trains of these samples, as long as the busiest input among them needs: a training pads
    one batch at a time. `event_lists` makes them from events.

    Args:
        when: times of all events, those of a sample together, sorted by input and time.
        source: the input of each event.
        starts: where the events of each sample begin, and the end of the last one.
        inputs: number of inputs.
    """

    when: Float[Tensor, " events"]
    source: Int[Tensor, " events"]
    starts: Int64[Tensor, " samples+1"]
    inputs: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def shape(self) -> torch.Size:
        """Samples, inputs, and spikes of the busiest input."""
        return torch.Size((len(self), self.inputs, self._most(*self._chosen(torch.arange(len(self))))))

    ndim = 3

    @property
    def dtype(self) -> torch.dtype:
        """Of the times."""
        return self.when.dtype

    @property
    def device(self) -> torch.device:
        """Where padded trains are."""
        return self.when.device

    def element_size(self) -> int:
        """Bytes of a time."""
        return self.when.element_size()

    @property
    def nbytes(self) -> int:
        """Memory of all events."""
        return self.when.nbytes + self.source.nbytes + self.starts.nbytes

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Float[Tensor, "*chosen inputs spikes"]:
        """Padded trains of some samples: `(inputs, spikes)` of one, otherwise with the dimensions of the index before.

        Args:
            index: a number, a slice, or a tensor of numbers, or of truth values for all samples.
        """
        chosen = torch.arange(len(self))[index.cpu() if isinstance(index, Tensor) else index]
        rows, events = self._chosen(chosen.reshape(-1))
        row = (rows * self.inputs + self.source[events]).cpu()
        trains = padded_trains(row, self.when[events].cpu(), chosen.numel() * self.inputs, in_order=True)
        return trains.to(self.device).unflatten(0, (*chosen.shape, self.inputs))

    def __iter__(self) -> Iterator[Tensor]:
        return (self[sample] for sample in range(len(self)))

    def split(self, size: int) -> Iterator[Float[Tensor, "part inputs spikes"]]:
        """Padded trains of that many samples at a time."""
        return (self[start : start + size] for start in range(0, max(1, len(self)), size))

    def select(self, index: Int64[Tensor, " chosen"]) -> Self:
        """Some samples, not padded."""
        _, events = self._chosen(index)
        count = self.starts.diff()[index]
        starts = torch.cat([count.new_zeros(1), count.cumsum(0)])
        return type(self)(self.when[events], self.source[events], starts, self.inputs)

    def padded(self) -> Float[Tensor, "samples inputs spikes"]:
        """All samples in one tensor."""
        return self[:]

    def first(self) -> Float[Tensor, "samples inputs"]:
        """The first spike of each input."""
        rows, events = self._chosen(torch.arange(len(self)))
        found = self.when.new_full((len(self), self.inputs), math.inf)
        place = rows.to(self.device) * self.inputs + self.source[events]
        found.view(-1).scatter_reduce_(0, place, self.when[events], "amin")
        return found

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """The same on another device, or with times of another type."""
        return type(self)(self.when.to(device, dtype), self.source.to(device), self.starts, self.inputs)

    def _chosen(self, samples: Int64[Tensor, " chosen"]) -> tuple[Tensor, Tensor]:
        """Events of some samples: which of the chosen ones each belongs to, and its place in the list."""
        count = self.starts.diff()[samples]
        rows = torch.arange(len(samples)).repeat_interleave(count)
        before = torch.cat([count.new_zeros(1), count.cumsum(0)])[:-1]
        return rows, torch.arange(len(rows)) + (self.starts[samples] - before)[rows]

    def _most(self, rows: Tensor, events: Tensor) -> int:
        spikes = (rows * self.inputs + self.source[events].cpu()).unique_consecutive(return_counts=True)[1]
        return int(spikes.max()) if len(spikes) else 1


def event_lists(
    events: Sequence[tuple[ArrayLike | Tensor, ArrayLike | Tensor]], inputs: int, dtype: torch.dtype = torch.float32
) -> EventLists:
    """Spike trains from events, kept as lists of events; `trains_from_events` makes one padded tensor of them.

    Args:
        events: for each sample the times of its spikes, in units of `tau_syn`, and the number of the input that each
            spike belongs to; both `(spikes,)`, in any order.
        inputs: number of inputs.
        dtype: of the times.

    Raises:
        ValueError: as `trains_from_events`.
    """
    rows, times, counts = sorted_events(events, inputs)
    kind = torch.int16 if inputs <= torch.iinfo(torch.int16).max else torch.int64
    starts = torch.tensor([0, *counts], dtype=torch.int64).cumsum(0)
    return EventLists(times.to(dtype), (rows % inputs).to(kind), starts, inputs)
