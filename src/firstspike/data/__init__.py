"""Data sets in spike times, and the encoding that makes them.

A data set is a builder in `DATASETS` that returns `Splits(train, validation, test)`. Each part is a `SpikeData`, which
has its number of inputs, classes, image and encoder. `split` and `file_splits` do the same for your own arrays and
files.

Builders take the sizes `train`, `validation`, `test`, then `seeds` (one per split) or, if the splits share one shuffle,
`seed`; then the data set's own arguments; then `early`, `late` and `dtype`.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from firstspike.data.aeon import time_series_outline, time_series_splits
from firstspike.data.base import SpikeData, Splits
from firstspike.data.encoding import LatencyEncoder
from firstspike.data.events import EventLists, collate, event_lists, trains_from_events
from firstspike.data.files import file_splits
from firstspike.data.generated import bars, delayed_xor, pattern, poisson, xor
from firstspike.data.image_files import SOURCES, source_splits
from firstspike.data.images import DIGIT_IMAGES, digits_splits
from firstspike.data.rasters import first_spikes, trains_from_raster
from firstspike.data.recordings import cochleagram, spoken_digits_outline, spoken_digits_splits
from firstspike.data.sensor import camera
from firstspike.data.series_encoding import LevelCrossingEncoder, ThresholdEncoder
from firstspike.data.splits import independent_splits, part_of, split
from firstspike.data.spoken import shd_splits, spoken_outline, ssc_splits
from firstspike.data.tonic import from_tonic
from firstspike.data.yinyang import yin_yang

DATASETS: dict[str, Callable[..., Splits]] = {
    "bars": independent_splits(bars, train=300, validation=90, test=90),
    "camera": independent_splits(camera, train=300, validation=100, test=300),
    "delayed_xor": independent_splits(delayed_xor, train=200, validation=100, test=100),
    "digits": digits_splits,
    "files": file_splits,
    "pattern": independent_splits(pattern, train=300, validation=90, test=90),
    "shd": shd_splits,
    "spoken_digits": spoken_digits_splits,
    "ssc": ssc_splits,
    "time_series": time_series_splits,
    "xor": independent_splits(xor, train=200, validation=100, test=100),
    "yin_yang": independent_splits(yin_yang, train=5000, validation=1000, test=1000),
    **{kind: source_splits(kind) for kind in SOURCES},
}
digits, fashion_mnist, mnist = (part_of(kind, DATASETS[kind]) for kind in ("digits", "fashion_mnist", "mnist"))
_OUTLINES: dict[str, Callable[..., SpikeData]] = {
    "digits": DIGIT_IMAGES.outline,
    "shd": partial(spoken_outline, "shd"),
    "spoken_digits": spoken_digits_outline,
    "ssc": partial(spoken_outline, "ssc"),
    "time_series": time_series_outline,
    **{kind: source.image_set().outline for kind, source in SOURCES.items()},
}


def outline(kind: str, **arguments: Any) -> SpikeData:
    """The data of a builder's arguments without samples: number of inputs, class names, image and blank times.

    No image is read. `files` are, for all of this follows from them, and the names of the words in `shd` and `ssc`.
    """
    if kind in _OUTLINES:
        defaults = {name: p.default for name, p in inspect.signature(DATASETS[kind]).parameters.items()}
        return _OUTLINES[kind](**defaults | arguments)
    small = {} if kind == "files" else dict.fromkeys(Splits._fields, 1)
    return DATASETS[kind](**arguments | small).train.empty()


__all__ = [
    "EventLists", "LatencyEncoder", "LevelCrossingEncoder", "SpikeData", "Splits", "ThresholdEncoder", "bars",
    "camera", "cochleagram", "collate", "digits", "event_lists", "fashion_mnist", "file_splits", "first_spikes",
    "from_tonic", "mnist", "poisson", "split", "trains_from_events", "trains_from_raster", "yin_yang",
]  # fmt: skip
