"""A trained network and its spikes as CSV files, for spreadsheets and other programs."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from firstspike.runs.files import whole_file

if TYPE_CHECKING:
    from firstspike.runs.run import Run


def write_csv_files(run: "Run", folder: Path) -> list[Path]:
    """Write weights and delays of every layer, a row for each neuron, and the spike times of the held-out data.

    In those a row is a sample, a column a neuron. Of spike trains the spikes of a neuron are columns one after the
    other. ``inf`` means no spike. Other files in the folder stay. Those of the same names are replaced.

    Returns:
        The files.
    """
    network = run.stored_network
    found = {name: x for name, x in network.named_parameters() if name.endswith("weight")}
    for name, layer in network.named_modules():
        if getattr(layer, "delay", None) is not None:
            found[f"{name}.delay"] = layer.delay
    tables = {f"{name.replace('.', '_')}.csv": found[name].detach().numpy() for name in sorted(found)}
    tables |= {f"spikes_{name}.csv": times for name, times in run.evaluate().spikes.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in tables.items():
        rows = np.atleast_1d(values)
        rows = rows.reshape(len(rows), -1) if rows.ndim > 2 else rows
        kind = "%d" if rows.dtype.kind == "i" else "%.9g"
        with whole_file(folder / name) as temporary:
            np.savetxt(temporary, rows, fmt=kind, delimiter=",")
    return [folder / name for name in tables]
