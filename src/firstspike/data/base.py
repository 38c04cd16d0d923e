"""The data set type that every builder of this package returns."""

import copy
import hashlib
import math
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import Dataset

from firstspike.data.arrays import as_tensor
from firstspike.data.encoding import Encoder, LatencyEncoder
from firstspike.data.events import EventLists
from firstspike.spiketime.values import FROM_RASTER, not_floating


@dataclass(frozen=True, eq=False)
class SpikeData(Dataset[tuple[Tensor, Tensor]]):
    """Labelled input spikes; also a map-style torch data set.

    Each input spikes at most once in a sample, `times` are then `(samples, inputs)`; or it has a spike train, a third
    dimension of times, sorted and padded with `inf`.

    Arrays and lists are copied into tensors, numbers of lists in torch's default dtype. Times before 0 are legal, but
    cause a warning, as values that are not encoded yet look like that.

    Args:
        times: input spike times `(samples, inputs)`, floating point, in units of `tau_syn`; `inf` = this input does not
            spike. Or spike trains `(samples, inputs, spikes)`, sorted, `inf` after the last spike; or `EventLists`,
            which are padded when samples are taken.
        labels: class of each sample `(samples,)`, int64, an index into `class_names`. Or, for regression,
            floating-point numbers `(samples, targets)`; without `class_names`, also `(samples,)` of one target. Or
            target trains `(samples, outputs, spikes)`, like those of times.
        class_names: one name per class, or per target.
        image: channels, height and width, if the inputs are pixels in this order.
        blank: spike time of a pixel with nothing on it, in each channel; `inf` if it does not spike.
        encoder: the encoder of the original values, fitted to the training part.
        columns: column names of the data's table, if it has any.

    Raises:
        ValueError: wrong shape or dtype, NaN or -inf in `times`, trains that are not sorted, a label without a name.
    """

    times: Float[Tensor, "samples inputs"] | Float[Tensor, "samples inputs spikes"] | EventLists
    labels: Int64[Tensor, " samples"] | Float[Tensor, "samples targets"] | Float[Tensor, "samples outputs spikes"]
    class_names: tuple[str, ...] = ()
    image: tuple[int, int, int] | None = None
    blank: tuple[float, ...] | None = None
    encoder: Encoder | None = None
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        times = self.times if isinstance(self.times, EventLists) else as_tensor("times", self.times)
        labels = as_tensor("labels", self.labels)
        if not isinstance(self.labels, Tensor) and not labels.is_floating_point():
            labels = labels.to(times.device, torch.int64)
        if labels.is_floating_point() and (labels.ndim > 1 or not self.class_names):
            labels = labels if labels.ndim > 1 else labels.unsqueeze(-1)
            columns = labels.shape[1]
            usual = tuple(f"target {k}" for k in range(columns)) if columns > 1 else ("target",)
            object.__setattr__(self, "class_names", self.class_names or usual)
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "labels", labels)
        _check_times(times)
        if self.regression and labels.ndim > 1:
            self._check_targets()
        else:
            self._check_classes()
        if labels.device != times.device:
            raise ValueError(
                f"labels: expected on {times.device} like times, got {labels.device}. Move one with .to()."
            )
        if self.image is not None and math.prod(self.image) != times.shape[1]:
            raise ValueError(f"image: expected channels, height and width of {times.shape[1]} inputs, got {self.image}")
        if self.blank is not None and (self.image is None or len(self.blank) != self.image[0]):
            raise ValueError(f"blank: expected a time for each channel of the image {self.image}, got {self.blank}")

    def _check_targets(self) -> None:
        """Raise a ValueError unless numerical labels fit the samples and their names."""
        expected = (len(self), len(self.class_names))
        if self.labels.ndim == 3 and self.labels.shape[:2] == expected:
            _check_times(self.labels, "labels")
            return
        if self.labels.shape != expected or not bool(self.labels.isfinite().all()):
            raise ValueError(
                f"labels: expected finite numbers {expected}, a row per sample and a column for each of "
                f"{', '.join(self.class_names)}, got {tuple(self.labels.shape)}; leave out samples without a label"
            )

    def _check_classes(self) -> None:
        """Raise a ValueError unless labels are indices of named classes, one for each sample."""
        labels, classes = self.labels, len(self.class_names)
        if labels.shape != (len(self),) or labels.dtype != torch.int64:
            how = "from one-hot rows with .argmax(dim=1)" if labels.ndim == 2 else "converted with .long()"
            raise ValueError(
                f"labels: expected int64 of shape ({len(self)},), one per sample, got {labels.dtype} of shape "
                f"{tuple(labels.shape)}. Pass class indices, {how}."
            )
        if not len(labels):
            return
        low, high = (int(end) for end in labels.aminmax())
        if not classes:
            names = ", ".join(f"'{k}'" for k in range(min(max(high, 0), 2) + 1))
            raise ValueError(
                "class_names: expected a name for each class, got none. Write "
                f"SpikeData(times, labels, ({names}{', ...' if high > 2 else ','}))"
            )
        if not 0 <= low <= high < classes:
            raise ValueError(
                f"labels: expected 0 ... {classes - 1} for {classes} class names, got {low} ... {high}. Count classes "
                "from 0 and name each of them."
            )

    def __len__(self) -> int:
        return len(self.times)

    def __repr__(self) -> str:
        spikes = f", up to {self.times.shape[2]} spikes" if self.trains else ""
        what = "targets" if self.regression else "classes"
        return f"SpikeData({len(self)} samples, {self.features} inputs{spikes}, {len(self.class_names)} {what})"

    @property
    def regression(self) -> bool:
        """Whether labels are numbers instead of classes."""
        return self.labels.is_floating_point()

    def __getitem__(self, index: int | slice | Tensor) -> tuple[Tensor, Tensor]:
        """Times and label of one sample, or of several for a slice or an index tensor."""
        return self.times[index], self.labels[index]

    def __getitems__(self, index: list[int]) -> list[tuple[Tensor, Tensor]]:
        """Several samples for a ``DataLoader``, which stacks them: `EventLists` are padded alike."""
        return list(zip(*self[torch.tensor(index, dtype=torch.int64)], strict=True))

    @property
    def features(self) -> int:
        """Number of inputs."""
        return self.times.shape[1]

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs: those of the columns, then of their "off" channels if there are any; or none."""
        names = self.columns
        if getattr(self.encoder, "on_off", False):
            names += tuple(f"{name} (off)" for name in names)
        return names if len(names) == self.features else ()

    @property
    def table(self) -> LatencyEncoder | None:
        """The encoder of a table whose columns have names."""
        return self.encoder if isinstance(self.encoder, LatencyEncoder) and self.input_names else None

    @property
    def trains(self) -> bool:
        """Whether inputs have spike trains."""
        return self.times.ndim == 3

    @property
    def dense(self) -> Tensor:
        """The times as one tensor, `EventLists` padded."""
        return self.times.padded() if isinstance(self.times, EventLists) else self.times

    def first_spikes(self) -> "SpikeData":
        """The same data with the first spike of each input only, `(samples, inputs)`."""
        if not self.trains:
            return self
        return replace(self, times=self.times.first() if isinstance(self.times, EventLists) else self.times[..., 0])

    def empty(self) -> "SpikeData":
        """The same data without samples."""
        return replace(self, times=self.times[:0], labels=self.labels[:0])

    @cached_property
    def checksum(self) -> dict[str, Any]:
        """Numbers of samples and inputs, type of the times, SHA-256 of times and labels; in a form for JSON."""
        return {
            "samples": len(self),
            "inputs": self.features,
            **({"spikes": self.times.shape[2]} if self.trains else {}),
            "dtype": str(self.times.dtype).removeprefix("torch."),
            "times": _digest(self.times),
            "labels": _digest(self.labels),
        }

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "SpikeData":
        """The same data on `device`, with times, and labels that are numbers, of `dtype`. Classes stay int64."""
        moved = copy.copy(self)  # its values are checked
        moved.__dict__.pop("checksum", None)
        object.__setattr__(moved, "times", self.times.to(device, dtype))
        object.__setattr__(moved, "labels", self.labels.to(device, dtype if self.regression else None))
        return moved


class Splits(NamedTuple):
    """The three parts of a data set."""

    train: SpikeData
    validation: SpikeData
    test: SpikeData

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}: {len(part)}" for name, part in zip(self._fields, self, strict=True))
        what = "targets" if self.train.regression else "classes"
        return f"Splits({sizes} samples, {self.train.features} inputs, {len(self.train.class_names)} {what})"

    @property
    def checksum(self) -> dict[str, Any]:
        """Checksums of the three parts, and the names of the classes; in a form for JSON."""
        parts = {name: part.checksum for name, part in zip(self._fields, self, strict=True)}
        return {**parts, "classes": list(self.train.class_names)}

    def differences(self, checksum: Any) -> list[str]:
        """Changes since ``checksum`` was taken, such as ``test: other labels``; parts without one are ignored."""
        before, now = checksum if isinstance(checksum, dict) else {}, self.checksum
        found = []
        for name in self._fields:
            if isinstance(before.get(name), dict) and (changes := _changes(before[name], now[name])):
                found.append(f"{name}: {', '.join(changes)}")
        if before.get("classes", now["classes"]) != now["classes"]:
            found.append("other names of classes")
        return found


def _changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    if old.get("samples") == new["samples"] == 0:  # what they would have says nothing
        return []
    other = [key for key in new if old.get(key, new[key]) != new[key]]
    if sizes := [f"{new[key]} {key} instead of {old[key]}" for key in ("samples", "inputs", "spikes") if key in other]:
        return sizes
    if "dtype" in other:  # the same times have other bytes then
        labels = ["other labels"] if "labels" in other else []
        return [f"times in {new['dtype']} instead of {old['dtype']}", *labels]
    return [f"other {key}" for key in other]


def no_trains(inputs: int, class_names: tuple[str, ...]) -> SpikeData:
    """Data of spike trains without samples."""
    return SpikeData(torch.empty(0, inputs, 1), torch.empty(0, dtype=torch.int64), class_names)


def _check_times(times: Tensor | EventLists, name: str = "times") -> None:
    """Raise a ValueError unless these are first spikes or trains, sorted; warn of times before 0."""
    values = times.when if isinstance(times, EventLists) else times
    if isinstance(times, Tensor):
        raster = (
            name == "times" and times.ndim == 3 and bool(times.numel()) and bool(((times == 0) | (times == 1)).all())
        )
        if times.ndim not in (2, 3) or raster or not times.is_floating_point():
            flat = "reshape to two dimensions" + (f"; {FROM_RASTER}" if times.ndim == 3 else "")
            raise ValueError(
                "times: expected a floating-point tensor (samples, inputs), for spike trains (samples, inputs, spikes),"
                f" got {times.dtype} of shape {tuple(times.shape)}: "
                f"{flat if times.is_floating_point() else not_floating(times)}."
            )
    earliest = float(values.amin()) if values.numel() else 0.0
    if not earliest > -math.inf:
        raise ValueError(f"{name}: expected numbers or inf (no spike), got NaN or -inf. Write inf for no spike.")
    if earliest < 0:
        warnings.warn(
            f"there are spike times before 0, the earliest is {earliest:g}; that is legal, but values that are not "
            "spike times yet need an encoding such as firstspike.data.LatencyEncoder",
            stacklevel=4,
        )
    if isinstance(times, Tensor) and times.ndim == 3 and not bool((times[..., :-1] <= times[..., 1:]).all()):
        raise ValueError(
            f"{name}: expected spike trains sorted along the last dimension, got others: fill them up with inf, not 0, "
            f"sort them with {name}.sort(dim=-1).values, or flatten images of first spikes with times.flatten(1)."
        )


def _digest(values: Tensor | EventLists) -> str:
    found = hashlib.sha256()
    for tensor in (values.when, values.source, values.starts) if isinstance(values, EventLists) else (values,):
        if tensor.numel():  # torch cannot view nothing as bytes
            found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()
