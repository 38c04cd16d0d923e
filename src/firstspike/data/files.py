"""Spike times from files: NumPy's ``.npy`` and ``.npz``, or text. Reading one executes nothing."""

import csv
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from firstspike.data.base import SpikeData, warn_of_early
from firstspike.spiketime.times import FROM_RASTER


def read_times(path: Path | str, inputs: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "samples inputs"]:
    """Input spike times, one row a sample.

    Args:
        path: ``.npy``; ``.npz`` with the array ``times``; ``.csv``, whose first line may name the columns. No spike is
            ``inf``, in text also an empty cell.
        inputs: columns that there must be.
        dtype: of the times.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another shape or kind of file, text, NaN or -inf.
    """
    path = _checked(path)
    values = _numbers(path, _rows(path), inputs, "inputs") if path.suffix == ".csv" else _arrays(path)["times"]
    times = _times(values, path, inputs, dtype)
    warn_of_early(float(times.min()), stacklevel=3)
    return times


def read_labelled(
    path: Path | str, inputs: int, class_names: Sequence[str], dtype: torch.dtype = torch.float32
) -> SpikeData:
    """Labelled input spike times.

    Args:
        path: ``.npz`` with the arrays ``times`` and ``labels``, or ``.csv`` with the label in the last column. Labels
            are numbers from 0 or names of classes.
        inputs: see ``read_times``.
        class_names: one per class.
        dtype: of the times.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as in ``read_times``; labels that are no classes, or another number of them than of samples.
    """
    path = _checked(path)
    if path.suffix == ".npy":
        raise ValueError(f"{path}: labels are missing; give an .npz with times and labels, or a .csv")
    if path.suffix == ".csv":
        rows = _rows(path)
        labels: Any = [row[-1] for _, row in rows]
        values = _numbers(path, [(line, row[:-1]) for line, row in rows], inputs, "inputs and a label")
    else:
        arrays = _arrays(path, "labels")
        values, labels = arrays["times"], arrays["labels"]
        if labels.ndim != 1:
            raise ValueError(f"{path}: labels: expected one per sample, got an array of shape {labels.shape}")
    times = _times(values, path, inputs, dtype)
    if len(labels) != len(times):
        raise ValueError(f"{path}: expected as many labels as samples, got {len(labels)} for {len(times)}")
    classes = torch.tensor([_label(label, class_names, path) for label in labels])
    return SpikeData(times, classes, tuple(class_names))


def _checked(path: Path | str) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    if path.suffix not in (".npy", ".npz", ".csv"):
        raise ValueError(f"{path}: expected .npy, .npz or .csv, got {path.suffix or 'no suffix'}")
    return path


def _arrays(path: Path, *needed: str) -> dict[str, Any]:
    """The arrays of a NumPy file; a single one is called ``times``."""
    try:
        with path.open("rb") as file:  # numpy leaves a file open that it cannot read
            loaded = np.load(file, allow_pickle=False)
            arrays = {"times": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        reason = "it is another kind of file, or holds Python objects" if "pickle" in str(error) else str(error)
        raise ValueError(f"{path}: cannot be read as NumPy arrays of numbers: {reason.splitlines()[0]}") from None
    for name in ("times", *needed):
        if name not in arrays:
            raise ValueError(f"{path}: expected an array {name!r}, got {', '.join(arrays) or 'none'}")
    return arrays


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Lines of a text file with their numbers, without a first one that only has names."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: is no text: {error}") from None
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if rows and any(mark in cell for cell in rows[0][1]):
            raise ValueError(f"{path}, line {rows[0][0]}: expected commas between columns, got {name}")
    if rows and not any(_number(cell) is not None for cell in rows[0][1]):
        rows = rows[1:]
    if not rows:
        raise ValueError(f"{path}: has no samples")
    return rows


def _numbers(
    path: Path, rows: list[tuple[int, list[str]]], inputs: int, columns: str
) -> Float64[np.ndarray, "samples inputs"]:
    values = np.empty((len(rows), inputs))
    for place, (line, row) in enumerate(rows):
        if len(row) != inputs:
            more = len(row) - inputs
            raise ValueError(f"{path}, line {line}: expected {inputs} {columns}, got {abs(more)} too {_many(more)}")
        for column, cell in enumerate(row):
            number = _number(cell)
            if number is None:
                raise ValueError(f"{path}, line {line}: expected a time, inf or nothing, got {cell.strip()!r}")
            values[place, column] = number
    return values


def _many(more: int) -> str:
    return "many" if more > 0 else "few"


def _number(cell: str) -> float | None:
    cell = cell.strip()
    try:
        return float(cell) if cell else np.inf
    except ValueError:
        return None


def _times(values: Any, path: Path, inputs: int, dtype: torch.dtype) -> Tensor:
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{path}: times: expected numbers, got {values.dtype}")
    if values.ndim != 2 or values.shape[1] != inputs or not len(values):
        hint = f"; {FROM_RASTER}" if values.ndim == 3 else ""
        raise ValueError(f"{path}: times: expected the shape (samples, {inputs}), got {values.shape}{hint}")
    if np.isnan(values).any() or np.isneginf(values).any():
        row = int((np.isnan(values) | np.isneginf(values)).any(axis=1).argmax())
        raise ValueError(f"{path}: times of sample {row}: expected numbers or inf (no spike), got NaN or -inf")
    return torch.from_numpy(values.astype(np.float64)).to(dtype)


def _label(label: Any, names: Sequence[str], path: Path) -> int:
    """A class by its name or number."""
    text = str(label).strip()
    if text in names:
        return list(names).index(text)
    try:
        number = float(text)
    except ValueError:
        number = -1
    if number not in range(len(names)):
        raise ValueError(f"{path}: labels: expected 0 ... {len(names) - 1} or {', '.join(names)}, got {text!r}")
    return int(number)
