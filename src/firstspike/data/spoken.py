"""Spoken words as spike trains: the Spiking Heidelberg Digits and Spiking Speech Commands, from the published files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Gt, Le
from jaxtyping import Int64
from torch import Tensor

from firstspike.data.base import SpikeData, Splits, no_trains
from firstspike.data.events import check_whole, event_lists
from firstspike.data.paths import folder_of
from firstspike.data.splits import Samples, divided
from firstspike.ranges import Positive, Seed, checks_ranges
from firstspike.signature import takes_arguments_of
from firstspike.text import first_line, needed

WHERE = "https://compneuro.net/datasets or https://zenkelab.org/datasets"
_UNITS = 700
UnitsPerInput = Annotated[int, Gt(0), Le(_UNITS)]
_MOST_BYTES = 2**31  # of an array


def shd_splits(
    validation: float = 0.1,
    seed: Seed = 42,
    folder: str | Path | None = None,
    time_unit: Positive = 0.01,
    units_per_input: UnitsPerInput = 1,
    dtype: torch.dtype = torch.float32,
) -> Splits:
    """Spiking Heidelberg Digits: spoken digits, English and German, as spikes of 700 units of an artificial cochlea.

    Cramer, Stradmann, Schemmel and Zenke, IEEE Trans. Neural Netw. Learn. Syst. 33, 2744 (2022). The published files
    `shd_train.h5` and `shd_test.h5` are read (extra `h5py`). Nothing is downloaded. The file for training is divided
    into training and validation data. The file for tests has speakers that the other one lacks.

    Args:
        validation: part of the file for training that is held out: below 1 a fraction, from 1 on the number of samples.
        seed: seed of the random choice of the held-out samples.
        folder: where the files are; by default the user's cache, `~/.cache/firstspike`.
        time_unit: length of the unit of all times (by convention `tau_syn`) in seconds.
        units_per_input: neighbouring units that are joined to one input.
        dtype: of the times.
    """
    learn, test = _read_parts("shd", ("train", "test"), folder, time_unit, units_per_input, dtype)
    samples = Samples(learn.times, learn.labels, learn.class_names)
    return divided(samples, validation, 0, seed, None, dtype)._replace(test=test)


@takes_arguments_of(shd_splits, without=("validation", "seed"))
def ssc_splits(**options: Any) -> Splits:
    """Spiking Speech Commands: 35 spoken words as spikes of 700 units of an artificial cochlea.

    Cramer, Stradmann, Schemmel and Zenke, IEEE Trans. Neural Netw. Learn. Syst. 33, 2744 (2022). The published files
    `ssc_train.h5`, `ssc_valid.h5` and `ssc_test.h5` are read (extra `h5py`). Nothing is downloaded.
    """
    return Splits(*_read_parts("ssc", ("train", "valid", "test"), **options))


def spoken_outline(kind: str, folder: str | Path | None, units_per_input: int, **_: Any) -> SpikeData:
    """Inputs and class names without samples. Of the files only the names of the classes are read."""
    with _opened(_paths(kind, folder, ("train",))[0]) as file:
        names = _class_names(file)
    return no_trains(-(-_UNITS // units_per_input), names)


def _paths(kind: str, given: str | Path | None, parts: tuple[str, ...]) -> list[Path]:
    place = folder_of(given)
    paths = [place / f"{kind}_{part}.h5" for part in parts]
    if missing := [path.name for path in paths if not path.is_file()]:
        zipped = [name for name in missing if any(place.glob(f"{name}.*"))]
        how = f"unpack {', '.join(zipped)} there" if zipped else f"get them from {WHERE} and unpack them there"
        raise FileNotFoundError(f"{kind}: {', '.join(missing)} not in {place}: {how}, or set data.folder")
    return paths


@checks_ranges
def _read_parts(
    kind: str,
    parts: tuple[str, ...],
    folder: str | Path | None = None,
    time_unit: Positive = 0.01,
    units_per_input: UnitsPerInput = 1,
    dtype: torch.dtype = torch.float32,
) -> list[SpikeData]:
    """The data in the files of some parts, with the class names of the first one."""
    data: list[SpikeData] = []
    for path in _paths(kind, folder, parts):
        with _opened(path) as file:
            times, units = (_array(file, name, lists=True) for name in ("spikes/times", "spikes/units"))
            labels, names = _whole("labels", _array(file, "labels")), _class_names(file)
            if not len(times) == len(units) == len(labels):
                raise ValueError(
                    f"expected as many spikes/times as spikes/units and labels, got {len(times)}, {len(units)} and "
                    f"{len(labels)}"
                )
            events = []
            for sample, (time, unit) in enumerate(zip(times, units, strict=True)):
                whole = _whole("spikes/units", unit, f" for sample {sample}")
                events.append((time.astype(np.float64) / time_unit, whole // units_per_input))
            lists = event_lists(events, -(-_UNITS // units_per_input), dtype)
            data.append(SpikeData(lists, labels, data[0].class_names if data else names))
    return data


def _whole(name: str, numbers: np.ndarray, place: str = "") -> Int64[Tensor, " numbers"]:
    if numbers.dtype.kind == "f":
        check_whole(name, torch.from_numpy(numbers.astype(np.float64)), place)
    return torch.from_numpy(numbers.astype(np.int64))


def _class_names(file: Any) -> tuple[str, ...]:
    """The words in the order of the labels."""
    keys = _array(file, "extra/keys", "SOUiu").tolist()
    return tuple(key.decode() if isinstance(key, bytes) else str(key) for key in keys)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, open for reading. All errors inside, also of parsers of damaged files, are a one-line ValueError."""
    h5py = needed("h5py", "h5py", f"h5py, which reads {path.name},")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except Exception as error:
        said = first_line(error)
        if not isinstance(error, ValueError):
            said = f"cannot be read as HDF5: {said}; download it again"
        raise ValueError(f"{path}: {said}") from None


def _array(file: Any, name: str, kinds: str = "fiu", lists: bool = False) -> np.ndarray:
    """A one-dimensional array of a file, of NumPy's ``kinds`` of elements or of ``lists`` of such elements."""
    import h5py

    node = file.get(name)
    if not isinstance(node, h5py.Dataset):
        raise ValueError(f"expected an array {name}, got {'none' if node is None else f'a {type(node).__name__}'}")
    kind = h5py.check_vlen_dtype(node.dtype) if lists else node.dtype
    if node.ndim != 1 or kind is None or np.dtype(kind).kind not in kinds or node.nbytes > _MOST_BYTES:
        what = "numbers" if kinds == "fiu" else "names"
        form = f"lists of {what}" if lists else what
        raise ValueError(f"{name}: expected {form}, one per sample, got {node.dtype} of shape {node.shape}")
    found: np.ndarray = node[:]
    return found
