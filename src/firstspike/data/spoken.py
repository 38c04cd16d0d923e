"""Spoken words as spike trains: the Spiking Heidelberg Digits and Spiking Speech Commands, from the published files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from annotated_types import Gt, Le
from jaxtyping import Int64
from torch import Tensor

from firstspike.data.base import SpikeData, Splits
from firstspike.data.events import check_whole, event_lists
from firstspike.data.splits import divided
from firstspike.ranges import Positive, Seed, checks_ranges
from firstspike.signature import takes_arguments_of
from firstspike.text import needed

WHERE = "https://compneuro.net/datasets or https://zenkelab.org/datasets"
_UNITS = 700
UnitsPerInput = Annotated[int, Gt(0), Le(_UNITS)]
_MOST_CLASSES = 10**4  # without names
_MOST_BYTES = 2**31  # of an array


class _Recordings(NamedTuple):
    """What the file ``path`` holds: times in seconds and units of each sample, labels, and the names of the classes."""

    path: Path
    events: list[tuple[Tensor, Tensor]]
    labels: Int64[Tensor, " samples"]
    class_names: tuple[str, ...]


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
    `shd_train.h5` and `shd_test.h5` are read (extra `h5py`); nothing is downloaded. The file for training is divided
    into training and validation data; the file for tests has speakers that the other one lacks.

    Args:
        validation: part of the file for training that is held out: below 1 a fraction, from 1 on the number of samples.
        seed: seed of the random choice of the held-out samples.
        folder: where the files are; by default the user's cache, `~/.cache/firstspike`.
        time_unit: length of the unit of all times (by convention `tau_syn`) in seconds.
        units_per_input: neighbouring units that are joined to one input.
        dtype: of the times.

    Returns:
        Spike trains of 700 / units_per_input inputs as `EventLists`, and labels `(samples,)`.

    Raises:
        ImportError: h5py is missing.
        FileNotFoundError: the files are not there; the message says where to get them.
        ValueError: files in another format, sizes that do not fit.
    """
    (learn, test), (path, _) = _read_parts("shd", ("train", "test"), folder, time_unit, units_per_input, dtype)
    with reading(path):
        table = learn.times, None, learn.labels, learn.class_names
        train, held, _ = divided(*table, validation, 0, seed, True, None, dtype)
    return Splits(train, held, test)


@takes_arguments_of(shd_splits, without=("validation", "seed"))
def ssc_splits(**options: Any) -> Splits:
    """Spiking Speech Commands: 35 spoken words as spikes of 700 units of an artificial cochlea.

    Cramer, Stradmann, Schemmel and Zenke, IEEE Trans. Neural Netw. Learn. Syst. 33, 2744 (2022). The published files
    `ssc_train.h5`, `ssc_valid.h5` and `ssc_test.h5` are read (extra `h5py`); nothing is downloaded.

    Returns:
        Spike trains of 700 / units_per_input inputs as `EventLists`, and labels `(samples,)`.

    Raises:
        ImportError: h5py is missing.
        FileNotFoundError: the files are not there; the message says where to get them.
        ValueError: files in another format.
    """
    return Splits(*_read_parts("ssc", ("train", "valid", "test"), **options)[0])


def spoken_outline(kind: str, folder: str | Path | None = None, units_per_input: int = 1, **_: Any) -> SpikeData:
    """Inputs and class names without samples; of the files only the names of the classes are read."""
    place = _folder(kind, folder, ("train",))
    path = place / f"{kind}_train.h5"
    with opened(path) as file:
        names = _class_names(file)
    return SpikeData(torch.empty(0, _inputs(units_per_input), 1), torch.empty(0, dtype=torch.int64), names)


def _folder(kind: str, given: str | Path | None, parts: tuple[str, ...]) -> Path:
    """The folder that has the files."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "firstspike"
    place = cache if given is None else Path(given).expanduser()
    missing = [name for part in parts if not (place / (name := f"{kind}_{part}.h5")).is_file()]
    if missing:
        zipped = [name for name in missing if any(place.glob(f"{name}.*"))]
        how = f"unpack {', '.join(zipped)} there" if zipped else f"get them from {WHERE} and unpack them there"
        raise FileNotFoundError(f"{kind}: {', '.join(missing)} not in {place}: {how}, or set data.folder")
    return place


def _read_parts(
    kind: str,
    parts: tuple[str, ...],
    folder: str | Path | None = None,
    time_unit: float = 0.01,
    units_per_input: int = 1,
    dtype: torch.dtype = torch.float32,
) -> tuple[list[SpikeData], list[Path]]:
    """The data in the files of some parts, with the class names of the first one, and their folder."""
    inputs = _inputs(units_per_input)  # wrong arguments are refused before files are read
    place = _folder(kind, folder, parts)
    recordings = [_read(place / f"{kind}_{part}.h5") for part in parts]
    data = []
    for part in recordings:
        with reading(part.path):
            events = [(times / time_unit, units // units_per_input) for times, units in part.events]
            data.append(SpikeData(event_lists(events, inputs, dtype), part.labels, recordings[0].class_names))
    return data, [part.path for part in recordings]


def _read(path: Path) -> _Recordings:
    """One file: the groups ``spikes/times``, ``spikes/units``, ``labels`` and ``extra/keys``."""
    with opened(path) as file:
        names = _class_names(file)
        times, units = (array(file, name, lists=True) for name in ("spikes/times", "spikes/units"))
        labels = _whole("labels", array(file, "labels"))
        if not len(times) == len(units) == len(labels):
            raise ValueError(
                f"expected as many spikes/times as spikes/units and labels, got {len(times)}, {len(units)} and "
                f"{len(labels)}"
            )
        events = [
            (torch.from_numpy(time.astype(np.float64)), _whole("spikes/units", unit, f" for sample {sample}"))
            for sample, (time, unit) in enumerate(zip(times, units, strict=True))
        ]
    return _Recordings(path, events, labels, names)


def _whole(name: str, numbers: np.ndarray, place: str = "") -> Int64[Tensor, " numbers"]:
    if numbers.dtype.kind == "f":
        check_whole(name, torch.from_numpy(numbers.astype(np.float64)), place)
    return torch.from_numpy(numbers.astype(np.int64))


def _class_names(file: Any) -> tuple[str, ...]:
    """The words in ``extra/keys``, in the order of the labels; numbers if a file has none."""
    if "extra/keys" in file:
        keys = array(file, "extra/keys", "SOUiu").tolist()
        return tuple(key.decode() if isinstance(key, bytes) else str(key) for key in keys)
    last = max(_whole("labels", array(file, "labels")).tolist(), default=-1)
    if last >= _MOST_CLASSES:
        raise ValueError(f"labels: expected fewer than {_MOST_CLASSES} without names in extra/keys, got {last}")
    return tuple(map(str, range(last + 1)))


@checks_ranges
def _inputs(units_per_input: UnitsPerInput) -> int:
    return -(-_UNITS // units_per_input)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn all errors inside, of parsers of damaged files, into a one-line ValueError that names the file."""
    try:
        yield
    except Exception as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        if not isinstance(error, ValueError):
            said = f"cannot be read as HDF5: {said}; download it again"
        raise ValueError(f"{path}: {said}") from None


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file, open for reading; errors inside as in ``reading``.

    Raises:
        ImportError: h5py is missing.
    """
    h5py = needed("h5py", "h5py", f"h5py, which reads {path.name},")
    with reading(path), h5py.File(path, "r") as file:
        yield file


def array(file: Any, name: str, kinds: str = "fiu", lists: bool = False) -> np.ndarray:
    """A one-dimensional array of a file.

    Args:
        file: from ``opened``.
        name: of the data set.
        kinds: NumPy's letters for the kinds of its elements that are allowed.
        lists: its elements are lists of such elements.

    Raises:
        ValueError: there is none of that name, or it holds something else.
    """
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
