"""Spike trains from events: as padded tensors, or as lists of events without padding."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from firstspike.data.arrays import as_tensor
from firstspike.signature import takes_arguments_of

Events = tuple[ArrayLike | Tensor, ArrayLike | Tensor] | list[tuple[float, int]] | np.ndarray | Tensor
"""The events of a sample: times and inputs, or pairs of them."""
MOST_TIMES = 2**31
"""Most times of one tensor of trains, with padding: 8 GiB in float32."""


def trains_from_events(
    events: Sequence[Events], inputs: int, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "samples inputs spikes"]:
    """Spike trains from events, as event cameras, artificial cochleas and simulators record them.

    Args:
        events: for each sample a tuple of the times of its spikes, in units of `tau_syn`, and of the number of the
            input that each spike belongs to, both `(spikes,)`; or a list of pairs `(time, input)`, or an array
            `(spikes, 2)` of them. In any order.
        inputs: number of inputs.
        dtype: of the times.

    Returns:
        Times `(samples, inputs, spikes)`, sorted along the last dimension, `inf` after the last spike of an input. That
        dimension is as long as the busiest input needs, at least 1.

    Raises:
        ValueError: samples that are not pairs of times and inputs, times and inputs of different lengths, times that
            are not finite, inputs that are not whole numbers or do not exist, trains that would not fit into memory.
    """
    return event_lists(events, inputs, dtype).padded()


def collate(samples: Sequence[tuple[Any, Any]], inputs: int | None = None) -> tuple[Tensor, Tensor]:
    """A batch of samples of different lengths: ``DataLoader(dataset, batch_size=50, collate_fn=fs.data.collate)``.

    Args:
        samples: pairs of a sample and its label. A sample is a tensor of first spikes `(inputs,)`, or of trains
            `(inputs, spikes)`; or, with `inputs`, its events as `trains_from_events` takes them.
        inputs: number of inputs of events: `collate_fn=functools.partial(fs.data.collate, inputs=700)`.

    Returns:
        Times `(samples, inputs)` or `(samples, inputs, spikes)`, trains padded with `inf`; and labels `(samples,)`.

    Raises:
        ValueError: samples of different numbers of inputs, or events without `inputs`.
    """
    found, labels = zip(*samples, strict=True)
    label = torch.stack([torch.as_tensor(x) for x in labels])
    if inputs is not None:
        return trains_from_events(found, inputs), label
    if not all(isinstance(x, Tensor) and x.is_floating_point() for x in found):
        raise ValueError(
            "collate: expected tensors of times, or events with functools.partial(fs.data.collate, inputs=...), got "
            f"samples like {type(found[0]).__name__}"
        )
    if len({(x.ndim, *x.shape[:-1], *x.shape[:1]) for x in found}) > 1:
        raise ValueError(f"collate: expected samples of as many inputs, got {sorted({tuple(x.shape) for x in found})}")
    return torch.cat(padded_alike([x.unsqueeze(0) for x in found])), label


def padded_alike(parts: Sequence[Tensor]) -> list[Tensor]:
    """Times of samples, where they are trains padded with `inf` to the same number of spikes."""
    most = max(x.shape[-1] for x in parts)
    return [functional.pad(x, (0, most - x.shape[-1]), value=math.inf) if x.ndim > 2 else x for x in parts]


@dataclass(frozen=True, eq=False, repr=False)
class EventLists:
    """Spike trains of samples as events, in place of the tensor `times` of `SpikeData`.

    An index gives the padded trains of these samples, as long as the busiest input among them needs: a training pads
    one batch at a time. `event_lists` makes them from events.

    Args:
        when: times of all events, those of a sample together, sorted by input and time.
        source: the input of each event.
        starts: first event of each sample, and the end of the last one.
        inputs: number of inputs.
    """

    when: Float[Tensor, " events"]
    source: Int[Tensor, " events"]
    starts: Int64[Tensor, " samples+1"]
    inputs: int

    def __repr__(self) -> str:
        return f"EventLists({len(self)} samples, {self.inputs} inputs, {len(self.when)} events)"

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def shape(self) -> torch.Size:
        """Samples, inputs, and spikes of the busiest input."""
        row, _ = self._chosen(torch.arange(len(self)))
        spikes = row.unique_consecutive(return_counts=True)[1]
        return torch.Size((len(self), self.inputs, int(spikes.max()) if len(spikes) else 1))

    ndim = 3

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the times."""
        return self.when.dtype

    @property
    def device(self) -> torch.device:
        """The device of padded trains."""
        return self.when.device

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
        row, events = self._chosen(chosen.reshape(-1))
        trains = padded_trains(row.cpu(), self.when[events].cpu(), chosen.numel() * self.inputs, in_order=True)
        return trains.to(self.device).unflatten(0, (*chosen.shape, self.inputs))

    def __iter__(self) -> Iterator[Tensor]:
        return (self[sample] for sample in range(len(self)))

    def split(self, size: int) -> Iterator[Float[Tensor, "part inputs spikes"]]:
        """Padded trains of that many samples at a time."""
        return (self[start : start + size] for start in range(0, max(1, len(self)), size))

    def select(self, index: Int64[Tensor, " chosen"]) -> Self:
        """Some samples, not padded."""
        count = self.starts.diff()[index]
        _, events = numbered(count, self.starts[index])
        starts = torch.cat([count.new_zeros(1), count.cumsum(0)])
        return type(self)(self.when[events], self.source[events], starts, self.inputs)

    def padded(self) -> Float[Tensor, "samples inputs spikes"]:
        """The samples in one padded tensor."""
        return self[:]

    def first(self) -> Float[Tensor, "samples inputs"]:
        """The first spike of each input."""
        row, events = self._chosen(torch.arange(len(self)))
        found = self.when.new_full((len(self) * self.inputs,), math.inf)
        return found.scatter_reduce_(0, row, self.when[events], "amin").view(len(self), self.inputs)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """A copy on another device, or with times of another type."""
        return type(self)(self.when.to(device, dtype), self.source.to(device), self.starts, self.inputs)

    def _chosen(self, samples: Int64[Tensor, " chosen"]) -> tuple[Int64[Tensor, " found"], Int64[Tensor, " found"]]:
        """Events of some samples: the train of each, ``number of its sample * inputs + input``, and where it is."""
        place, events = numbered(self.starts.diff()[samples], self.starts[samples])
        return place.to(self.device) * self.inputs + self.source[events], events


def numbered(
    count: Int64[Tensor, " groups"], first: Int64[Tensor, " groups"] | int = 0
) -> tuple[Int64[Tensor, " members"], Int64[Tensor, " members"]]:
    """For each member of groups with ``count`` members: its group, and its number there, counted from ``first``."""
    group = torch.arange(len(count)).repeat_interleave(count)
    return group, torch.arange(len(group)) + (first - count.cumsum(0) + count)[group]


@takes_arguments_of(trains_from_events)
def event_lists(events: Sequence[Events], inputs: int, dtype: torch.dtype = torch.float32) -> EventLists:
    """Spike trains from events, kept as lists of events. `trains_from_events` makes one padded tensor of them."""
    if not isinstance(inputs, int | np.integer) or not 1 <= inputs <= MOST_TIMES:
        raise ValueError(f"inputs: expected their number, from 1 to {MOST_TIMES}, got {inputs!r}")
    if not isinstance(events, Iterable):
        raise ValueError(f"events: expected a list with a pair (times, inputs) for each sample, got {events!r}")
    kind = torch.int16 if inputs <= torch.iinfo(torch.int16).max else torch.int64
    times, sources = [torch.empty(0, dtype=torch.float64)], [torch.empty(0, dtype=kind)]
    for sample, pair in enumerate(events):
        time, source = _pair(pair, sample, inputs)
        order = _in_order(source, time, inputs)
        times.append(torch.from_numpy(time[order]))
        sources.append(torch.from_numpy(source[order]).to(kind))
    starts = torch.tensor([len(x) for x in times], dtype=torch.int64).cumsum(0)
    if len(when := torch.cat(times)) and bool((largest := when.abs().max()).to(dtype).isinf()):
        raise ValueError(f"events: expected times that {dtype} can hold, got {float(largest):g}; take another unit")
    return EventLists(when.to(dtype), torch.cat(sources), starts, inputs)


def _pair(pair: Any, sample: int, inputs: int) -> tuple[Float64[np.ndarray, " events"], Int64[np.ndarray, " events"]]:
    """Checked times and inputs of the events of a sample."""
    if isinstance(pair, list) and pair and all(isinstance(event, tuple) and len(event) == 2 for event in pair):
        pair = tuple(zip(*pair, strict=True))
    rows, names = getattr(pair, "ndim", 0) == 2, getattr(getattr(pair, "dtype", None), "names", None)
    try:
        when, where = [] if names or isinstance(pair, Mapping | str) else pair.T if rows else pair
    except (TypeError, ValueError):
        size = f" of {len(pair)}" if isinstance(pair, tuple | list) else ""
        hint = ""
        if names:
            hint = f"; of an array with the fields {', '.join(names)} make (array[TIME], array[INPUT])"
            if {"x", "y", "t", "p"} <= set(names):
                hint += ', of a camera (array["t"] / 1000, (array["p"].astype(int) * height + array["y"]) * width + '
                hint += 'array["x"]) in ms'
        elif rows:
            size, hint = f" of shape {tuple(pair.shape)}", "; an array has a row (time, input) for each spike"
        raise ValueError(
            f"events: expected a pair (times, inputs) for each sample, got a {type(pair).__name__}{size} for sample "
            f"{sample}; a single sample is [(times, inputs)]{hint}"
        ) from None
    time, source = as_tensor("times", when, torch.float64).double(), as_tensor("inputs", where, torch.float64)
    source = source if source.is_floating_point() else source.long()  # torch cannot compare 16 bits without a sign
    if time.ndim == source.ndim == 0:
        raise ValueError(
            f"events: expected (times, inputs) for each sample, got one time and one input for sample {sample}; "
            "of a single sample's events (time, input) make [tuple(zip(*events))]"
        )
    if time.ndim != 1 or time.shape != source.shape:
        raise ValueError(
            f"events: expected as many times as inputs, got {tuple(time.shape)} and {tuple(source.shape)} for "
            f"sample {sample}"
        )
    if not bool(torch.isfinite(time).all()):
        raise ValueError(f"events: expected finite times, got NaN or inf for sample {sample}; leave them out")
    check_whole("inputs", source, f" for sample {sample}")
    if len(source) and not 0 <= int(source.min()) <= int(source.max()) < inputs:
        raise ValueError(
            f"events: expected inputs from 0 to {inputs - 1}, got {int(source.min())} ... {int(source.max())} for "
            f"sample {sample}"
        )
    return time.cpu().numpy(), source.long().cpu().numpy()


def check_whole(name: str, numbers: Tensor, place: str = "") -> None:
    """Raise a ValueError that names the first of these numbers that is not whole."""
    if numbers.is_floating_point() and len(wrong := numbers[~(numbers - numbers.floor() == 0)]):
        raise ValueError(f"{name}: expected whole numbers, got {float(wrong[0]):g}{place}; round or renumber them")


def _in_order(rows: np.ndarray, times: np.ndarray, count: int) -> np.ndarray:
    """Indices that sort events by row, of ``count``, and by time. In NumPy, which wakes no threads for a few events."""
    narrow = np.int16 if count <= np.iinfo(np.int16).max else np.int64  # NumPy sorts 16 bits by counting
    given = (times[1:] >= times[:-1]).all()  # as in most files
    order = np.arange(len(times)) if given else times.argsort(kind="stable")
    by_row: np.ndarray = order[rows[order].astype(narrow).argsort(kind="stable")]
    return by_row


def padded_trains(
    rows: Int64[Tensor, " events"], times: Float[Tensor, " events"], count: int, in_order: bool = False
) -> Float[Tensor, "rows spikes"]:
    """Sorted trains, ``count`` of them, padded with `inf`. Events may be in any order, unless given ``in_order``."""
    if not in_order:
        order = torch.from_numpy(_in_order(rows.numpy(), times.numpy(), count))
        rows, times = rows[order], times[order]
    spikes = rows.unique_consecutive(return_counts=True)[1]  # of the inputs that have any
    most = int(spikes.max()) if len(spikes) else 1
    if count * most > MOST_TIMES:
        raise ValueError(
            f"trains: {count} inputs of all samples, of which the busiest has {most} spikes, are {count * most} times "
            f"with padding; the most are {MOST_TIMES}: keep them as fs.data.event_lists, or take fewer samples"
        )
    trains = torch.full((count, most), math.inf, dtype=times.dtype)
    trains[rows, numbered(spikes)[1]] = times
    return trains
