"""Data from tables in files, see ``firstspike.data.tables``: spike times, or values that are encoded."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float

from firstspike.data.arrays import as_table
from firstspike.data.base import SpikeData, Splits, warn_of_early
from firstspike.data.encoding import LatencyEncoder
from firstspike.data.splits import class_indices, spike_data, split
from firstspike.data.tables import Table, read_arrays, read_rows, read_table

Labels = str | int | Mapping[str, str] | None


def read_times(
    path: Path | str, inputs: int, dtype: torch.dtype = torch.float32, encoder: LatencyEncoder | None = None
) -> Float[torch.Tensor, "samples inputs"]:
    """Input spike times, a row per sample.

    Args:
        path: ``.npy``; ``.npz`` with the array ``times``; ``.csv``, whose first line may name the columns. No spike is
            ``inf``, in text also an empty cell.
        inputs: number of inputs that there must be.
        dtype: of the times.
        encoder: encodes values. The file then holds these, in an ``.npz`` in the array ``values``; an ``.npz`` with
            ``times`` alone still holds spike times.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another shape or kind of file, text, NaN or -inf.
    """
    table = read_table(path, _kinds(inputs, encoder))
    numbers, _ = as_table(table.numbers, table.kind)
    if encoder is not None and table.kind != "times":
        return encoder(numbers, dtype)
    warn_of_early(float(numbers.min()) if numbers.numel() else 0.0, stacklevel=3)
    return numbers.to(dtype)


def read_labelled(
    path: Path | str,
    inputs: int,
    class_names: Sequence[str],
    dtype: torch.dtype = torch.float32,
    encoder: LatencyEncoder | None = None,
    labels: str | int | None = None,
) -> SpikeData:
    """Labelled input spike times.

    Args:
        path: ``.npz`` with the arrays ``times`` and ``labels``, ``.csv`` with the label in the last column, or ``.npy``
            with labels in another file. Labels are numbers from 0 or names of classes.
        inputs: see ``read_times``.
        class_names: one per class.
        dtype: of the times.
        encoder: see ``read_times``.
        labels: see ``file_splits``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as in ``read_times``; labels that are not among the classes, or not one per sample.
    """
    table = _read_with_labels(path, _kinds(inputs, encoder), labels)
    return _labelled(table, tuple(class_names), encoder, dtype)


def file_splits(
    train: str | Path,
    validation: float | str | Path = 0.1,
    test: float | str | Path = 0.1,
    labels: str | int | dict[str, str] | None = None,
    encode: dict[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Splits:
    """Your own data, from tables in files: spike times, or values to encode.

    Numbers of inputs and classes follow from the files. A table is ``.npz`` with the arrays ``times`` (or ``values``,
    with ``encode``) and ``labels``, perhaps also ``class_names``; ``.npy`` with the labels in another file; or ``.csv``
    with a row per sample, separated by commas, semicolons or tabs, whose first line may name the columns. Arrays
    ``(samples, height, width)`` or ``(samples, channels, height, width)`` are images.

    Args:
        train: the table of the training data, from which validation and test data are taken unless they have their
            own.
        validation: another table, or the part of ``train`` to hold out: below 1 a fraction, from 1 on the number of
            samples; 0 for none.
        test: another table, or the part of ``train`` that becomes test data, like ``validation``.
        labels: where the labels are: of ``.csv`` the column by its name or number (0 is the first one; by default the
            last one); of ``.npz`` the array (by default ``labels``); of ``.npy`` another ``.npy`` or ``.csv``. Several
            tables may each have their own: ``{train: a.npy, test: b.npy}``.
        encode: the tables hold values, which are encoded by spike times: arguments of ``LatencyEncoder``, such as
            ``{early: 0.15, late: 2.0}``, or ``{}`` for its defaults. Ranges are those of the training part. An empty
            cell, NA, ? or NaN is a missing value, which does not spike. Without it an empty cell is no spike.
        class_names: names of the classes 0, 1, 2, ...; by default they follow from the training table.
        seed: seed of the random choice of what is held out; every part has the classes in the proportions of the whole.
        dtype: of the times.

    Returns:
        The three parts. Their ``encoder`` is the fitted one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a table that cannot be used: the message names file, line, column, and what was expected.
    """
    own = dict(labels) if isinstance(labels, Mapping) else dict.fromkeys(Splits._fields, labels)
    kind = "times" if encode is None else "values"
    table = _read_with_labels(train, {kind: None}, own.get("train"))
    try:
        classes, names = class_indices(table.labels, class_names or table.class_names, table.place)
        labels_by_name = [names[k] for k in classes.tolist()]
        parts = split(
            table.numbers,
            labels_by_name,
            _fraction(validation),
            _fraction(test),
            seed=seed,
            class_names=names,
            encode=encode,
            dtype=dtype,
        )
    except ValueError as error:
        raise ValueError(f"{table.path}: {error}") from None
    for name, file in (("validation", validation), ("test", test)):
        if isinstance(file, str | Path):
            other = _read_with_labels(file, {kind: table.numbers[0].size}, own.get(name))
            if other.columns and table.columns and other.columns != table.columns:
                raise ValueError(
                    f"{other.path}, line 1: expected the columns {', '.join(table.columns)} as in {table.path}, got "
                    f"{', '.join(other.columns)}"
                )
            data = _labelled(other, names, parts.train.encoder, dtype)
            parts = parts._replace(**{name: data})
    return parts


def _fraction(part: float | str | Path) -> float:
    """What to hold out of the training table."""
    return 0 if isinstance(part, str | Path) else part


def _kinds(inputs: int, encoder: LatencyEncoder | None) -> dict[str, int | None]:
    return {"times": inputs} if encoder is None else {"values": encoder.features, "times": inputs}


def _read_with_labels(path: Path | str, inputs: Mapping[str, int | None], labels: str | int | None) -> Table:
    match Path(path).suffix:
        case ".npy":
            if labels is None:
                raise ValueError(f"{path}: labels are missing; give an .npz with times and labels, a .csv, or labels")
            return read_table(path, inputs)._replace(labels=_read_labels(Path(str(labels))))
        case ".npz":
            return read_table(path, inputs, "labels" if labels is None else labels)
        case _:
            return read_table(path, inputs, -1 if labels is None else labels)


def _read_labels(path: Path) -> Any:
    """Labels in a file of their own: an array, or a label per line."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    if path.suffix == ".npy":
        return next(iter(read_arrays(path).values()))
    return [cells[-1] for _, cells in read_rows(path)]


def _labelled(table: Table, names: tuple[str, ...], encoder: LatencyEncoder | None, dtype: torch.dtype) -> SpikeData:
    """The samples of a table with the classes of a network."""
    numbers, image = as_table(table.numbers, table.kind)
    try:
        labels, _ = class_indices(table.labels, names, table.place)
    except ValueError as error:
        raise ValueError(f"{table.path}: {error}") from None
    if len(labels) != len(numbers):
        raise ValueError(f"{table.path}: expected as many labels as samples, got {len(labels)} for {len(numbers)}")
    return spike_data(numbers, labels, names, image, None if table.kind == "times" else encoder, dtype)
