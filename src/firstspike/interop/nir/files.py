"""Files of NIR: HDF5, which holds data only. And what ``to_nir`` notes down in them."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import h5py
    import nir


def read_graph(path: Path) -> "nir.NIRGraph":
    """The graph in a file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no file of NIR, or damaged, or points to other files.
    """
    import h5py
    import nir

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            _stays_inside(file)
        return nir.read(path)
    except Exception as error:  # the libraries have many ways to say that a file is damaged
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[:1]
        raise ValueError(f"{path}: cannot be read as NIR: {''.join(reason) or type(error).__name__}") from None


class Notes(NamedTuple):
    """What the metadata of a graph say of how it was written; see ``from_nir``."""

    target: str
    time_unit: float
    dt: float | None
    bias_times: list[float]


def noted(graph: "nir.NIRGraph") -> Notes:
    """The notes of a graph, with defaults for those that are not there.

    Raises:
        ValueError: they are of another kind.
    """
    notes = graph.metadata
    try:
        unit = float(notes.get("time_unit", 1.0))
        bias = np.atleast_1d(np.asarray(notes.get("bias_times", ()), dtype=np.float64)) / unit
        step = float(notes["dt"]) if "dt" in notes else None
        return Notes(str(notes.get("target", "nir")), unit, step, bias.ravel().tolist())
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"the metadata of the graph cannot be read: {error}") from None


def _stays_inside(group: "h5py.Group") -> None:
    """HDF5 can refer to other files, which nobody has asked for."""
    import h5py

    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is a link")
        item = group[name]
        if isinstance(item, h5py.Group):
            _stays_inside(item)
        elif item.external or item.is_virtual:
            raise ValueError(f"{name} is kept in another file")
