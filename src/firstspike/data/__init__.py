"""Data sets in spike times, and the encoding that makes them.

A data set is a function that returns `SpikeData`; training asks for three of them at once, so every one has
a builder that returns `Splits(train, validation, test)` and stands in `DATASETS` under its name. Builders
take the sizes `train`, `validation`, `test`, then `seeds` (one per split) or, where the splits share one
shuffle, `seed`; then what is special to the data set; then `early`, `late` and `dtype`.

To add a data set: one file here with `<name>(...) -> SpikeData` and `<name>_splits(...) -> Splits`, and one
line in `DATASETS`. The tests that run over `DATASETS` then cover it.
"""

from collections.abc import Callable
from functools import partial

from firstspike.data.bars import bars, bars_splits
from firstspike.data.base import SpikeData, Splits
from firstspike.data.encoding import latency
from firstspike.data.image_files import fashion_mnist, image_splits, mnist, mnist_16x16
from firstspike.data.images import digits, digits_splits
from firstspike.data.pattern import pattern, pattern_splits
from firstspike.data.xor import xor, xor_splits
from firstspike.data.yin_yang import yin_yang, yin_yang_class, yin_yang_splits

DATASETS: dict[str, Callable[..., Splits]] = {
    "bars": bars_splits,
    "digits": digits_splits,
    "fashion_mnist": partial(image_splits, "fashion_mnist"),
    "mnist": partial(image_splits, "mnist"),
    "mnist_16x16": partial(image_splits, "mnist_16x16"),
    "pattern": pattern_splits,
    "xor": xor_splits,
    "yin_yang": yin_yang_splits,
}

__all__ = [
    "DATASETS",
    "SpikeData",
    "Splits",
    "bars",
    "digits",
    "fashion_mnist",
    "image_splits",
    "latency",
    "mnist",
    "mnist_16x16",
    "pattern",
    "xor",
    "yin_yang",
    "yin_yang_class",
]
