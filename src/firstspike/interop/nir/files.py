"""NIR files and the metadata of graphs: HDF5, which holds data only."""

from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np

from firstspike.interop.nir.synapses import numbers
from firstspike.text import first_line


def read_graph(path: Path) -> nir.NIRGraph:
    """The graph in a file; a ValueError if it is not one of NIR, or damaged, or points to other files."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            _refuse_links(file)
        return nir.read(path)
    except Exception as error:  # the libraries report damaged files in many ways
        reason = f"it lacks {error}" if isinstance(error, KeyError) else first_line(error)
        raise ValueError(f"{path}: cannot be read as NIR: {reason}") from None


def _refuse_links(group: h5py.Group) -> None:
    """HDF5 can refer to other files. These links are rejected."""
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is a link")
        item = group[name]
        if isinstance(item, h5py.Group):
            _refuse_links(item)
        elif item.external or item.is_virtual:
            raise ValueError(f"{name} is kept in another file")


def read_metadata(graph: nir.NIRGraph) -> dict[str, Any]:
    """Arguments of ``from_nir`` and ``Reader``: how a graph was written, and properties that NIR cannot express."""
    found = graph.metadata

    def each(name: str, kind: type) -> Any:
        return np.ravel(numbers(name, found.get(name, ()))).astype(kind).tolist()

    try:
        unit = float(found.get("time_unit", 1.0))
        times = {x: [time / unit for time in each(x, float)] for x in ("bias_times", "refractory", "duration")}
        counts = {x: each(x, int) for x in ("max_spikes", "window_spikes", "sparse")}
        step = float(found["dt"]) if "dt" in found else None
        words = {"target": str(found.get("target", "nir")), "overflow": str(found.get("overflow", "")).split()}
        return words | {"time_unit": unit, "dt": step} | times | counts
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"the metadata of the graph cannot be read: {error}") from None
