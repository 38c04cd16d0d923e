"""Data sets of tonic, the library of event-based data, as spike trains."""

import warnings
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch

from firstspike.data.base import SpikeData
from firstspike.data.events import event_lists
from firstspike.ranges import Positive, checks_ranges

_SHORT = 1e-3  # units of time. No neuron tells spikes within it apart
_FIELDS = ("p", "y", "x")  # of an event: polarity, row and column, from the slowest to the fastest in an input's number


@checks_ranges
def from_tonic(
    dataset: Any,
    time_unit: Positive,
    sensor_size: tuple[int, int, int] | None = None,
    class_names: Sequence[str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> SpikeData:
    """Spike trains of a data set of tonic, such as ``tonic.datasets.NMNIST("data")``, or of a ``Subset`` of one.

    Each pixel and polarity of the sensor is an input, ``(polarity * height + row) * width + column``.

    Args:
        dataset: indexed by samples, each a structured array of events with the fields ``t``, in
            microseconds, and one or more of ``x``, ``y`` and ``p``; and a label.
        time_unit: length of the unit of all times (by convention `tau_syn`) in seconds.
        sensor_size: width, height and number of polarities; by default the data set's own.
        class_names: one name per class; by default the data set's, otherwise the labels.
        dtype: of the times.

    Warns:
        UserWarning: all spikes come in far less than one unit of time, as where ``time_unit`` is in microseconds.

    Raises:
        ValueError: samples of another form, as transforms to frames make them; events outside the sensor; labels that
            are not numbers of classes.
    """
    whole = dataset
    while not hasattr(whole, "sensor_size") and hasattr(whole, "dataset"):  # torch's Subset
        whole = whole.dataset
    sensor_size = sensor_size or getattr(whole, "sensor_size", None)
    if sensor_size is None or None in sensor_size:
        raise ValueError(f"sensor_size: expected width, height and polarities, and the data set says {sensor_size}")
    width, height, polarities = sensor_size
    events, labels = [], []
    for sample in range(len(dataset)):
        found, label = dataset[sample]
        names = getattr(getattr(found, "dtype", None), "names", None) or ()
        if "t" not in names:
            raise ValueError(
                f"dataset: expected events with a field t, got {type(found).__name__} with {names or 'no fields'} for "
                f"sample {sample}; take the data set without transforms to frames"
            )
        source = np.zeros(len(found), dtype=np.int64)
        for name, size in zip(_FIELDS, (polarities, height, width), strict=True):
            place = found[name].astype(np.int64) if name in names else np.zeros_like(source)
            if len(place) and not 0 <= place.min() <= place.max() < size:
                raise ValueError(
                    f"events: expected {name} from 0 to {size - 1}, got {place.min()} ... {place.max()} for sample "
                    f"{sample}; sensor_size is width, height and polarities"
                )
            source = source * size + place
        events.append((found["t"] * (1e-6 / time_unit), source))
        labels.append(int(label))
    if labels and not 0 <= min(labels) <= max(labels) < 10**6:
        raise ValueError(f"labels: expected 0 ... 999999, got {min(labels)} ... {max(labels)}; count classes from 0")
    known = class_names or getattr(whole, "classes", None) or range(max(labels, default=-1) + 1)
    times = event_lists(events, prod(sensor_size), dtype)
    if len(times.when) and (latest := float(times.when.max())) < _SHORT:
        warnings.warn(
            f"all spikes come within {latest:.2g} units of time; time_unit is in seconds, got {time_unit:g}",
            stacklevel=3,
        )
    image = (polarities, height, width) if height > 1 else None
    return SpikeData(times, torch.tensor(labels, dtype=torch.int64), tuple(map(str, known)), image)
