"""Data from tables in files, see ``firstspike.data.tables``: spike times, or values that are encoded."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.data.base import SpikeData, Splits
from firstspike.data.encoding import Encoder
from firstspike.data.labels import class_indices, targets
from firstspike.data.paths import naming
from firstspike.data.series_encoding import SeriesEncoder, as_encoder
from firstspike.data.splits import Samples, divided
from firstspike.data.tables import Table, read_arrays, read_lines, read_table

UNNAMED = "the training data have no names of columns: these are taken in their order"


def read_times(
    path: Path | str, like: SpikeData, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "samples inputs"] | Float[Tensor, "samples inputs spikes"]:
    """Input spike times, a row per sample, or spike trains, of a file such as that of ``like``, see ``file_splits``.

    If it names its columns, they are brought into the order of ``like.columns``. If there is an encoder, it encodes the
    file's values. An ``.npz`` with ``times`` alone still holds spike times, where ``like`` has trains the first spikes.
    """
    table = _in_order(read_table(path, _kinds(like), columns=like.columns), like)
    numbers = _numbers(table, like.encoder, like.features)
    with naming(path):
        return numbers.to(dtype) if like.encoder is None or table.kind != "values" else like.encoder(numbers, dtype)


def read_labelled(
    path: Path | str, like: SpikeData, dtype: torch.dtype = torch.float32, labels: str | int | None = None
) -> SpikeData:
    """Labelled data with the classes of ``like``; otherwise as ``read_times``, and ``labels`` as in ``file_splits``."""
    table = _in_order(_labelled(path, _kinds(like), labels, like.columns), like)
    samples = _samples(table, like.class_names, like.regression, like.encoder, like.features)
    with naming(path):
        return samples._replace(columns=like.columns).data(like.encoder if table.kind == "values" else None, dtype)


def file_splits(
    train: str | Path,
    validation: float | str | Path = 0.1,
    test: float | str | Path = 0.1,
    labels: str | int | dict[str, str] | None = None,
    encode: dict[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    regression: bool = False,
) -> Splits:
    """Your own data, from tables in files: spike times, or values to encode.

    Numbers of inputs and classes follow from the files. A table is ``.npz`` with the arrays ``times`` (or ``values``,
    with ``encode``) and ``labels``, perhaps also ``class_names`` and ``columns``, the names of the inputs; a folder of
    such arrays, each in an ``.npy`` of its name; ``.npy`` with the labels in another file; or ``.csv`` with a row per
    sample, separated by commas, semicolons or tabs, whose first line may name the columns. Arrays ``(samples, height,
    width)`` or ``(samples, channels, height, width)`` are images. Spike trains are an array ``trains (samples, inputs,
    spikes)`` in place of ``times``, sorted, ``inf`` after the last spike. Time series are ``values (samples, channels,
    time)``, NaN after their end, with an encoder of time series.

    Args:
        train: the table of the training data, from which validation and test data are taken unless they have their own.
        validation: another table, or the part of ``train`` to hold out: below 1 a fraction, from 1 on the number of
            samples; 0 for none. Columns that both tables name may be in another order.
        test: another table, or the part of ``train`` that becomes test data, like ``validation``.
        labels: where the labels are: of ``.csv`` the column by its name or number (0 is the first one; by default the
            last one); of ``.npz`` the array (by default ``labels``); of ``.npy`` another ``.npy`` or ``.csv``. Several
            tables may each have their own: ``{train: a.npy, test: b.npy}``.
        encode: the tables hold values, which are encoded by spike times: arguments of ``LatencyEncoder``, such as
            ``{early: 0.15, late: 2.0}``, or ``{}`` for its defaults; of time series those of an encoder that ``kind``
            names, such as ``{kind: level_crossing, levels: 8}``. Ranges are those of the training part. An empty cell,
            NA, ? or NaN is a missing value, which does not spike, True is 1 and False 0. Without ``encode`` an empty
            cell means no spike.
        class_names: names of the classes 0, 1, 2, ...; by default they follow from the training table. Labels of a
            table with its own ``class_names`` are found by those names.
        seed: seed of the random choice of the held-out samples. Every part has the classes in the proportions of the
            whole.
        dtype: of the times.
        regression: labels are numbers: a column of ``.csv``, an array ``(samples,)`` or ``(samples,
            targets)``. ``class_names`` then name the targets.

    Returns:
        The three parts. Their ``encoder`` is the fitted one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a table that cannot be used. The message names file, line, column and the expected value.
    """
    own = dict(labels) if isinstance(labels, Mapping) else dict.fromkeys(Splits._fields, labels)
    with naming(train):
        encoder = None if encode is None else as_encoder(encode)
    kinds = ("times", "trains") if encoder is None else ("values",)
    table = _labelled(train, dict.fromkeys(kinds), own.get("train"))
    samples = _samples(table, class_names, regression, encoder)
    validation_part, test_part = (0 if isinstance(part, str | Path) else part for part in (validation, test))
    with naming(table.path):
        parts = divided(samples, validation_part, test_part, seed, encoder, dtype)
    for name, file in (("validation", validation), ("test", test)):
        if isinstance(file, str | Path):
            parts = parts._replace(**{name: read_labelled(file, parts.train, dtype, own.get(name))})
    return parts


def _in_order(table: Table, like: SpikeData) -> Table:
    """The table, with a warning if it names columns for which the training data have no names."""
    if table.columns and not like.columns:
        warnings.warn(f"{table.path}: {UNNAMED}", stacklevel=4)
    return table


def _kinds(like: SpikeData) -> dict[str, int | None]:
    """The arrays that a file may have, and their inputs; those of signals and trains are counted by ``_numbers``."""
    known: dict[str, int | None] = {"trains": None} if like.trains else {}
    known |= {"times": like.features}
    if like.encoder is None:
        return known
    return {"values": None if isinstance(like.encoder, SeriesEncoder) else like.encoder.features} | known


def _labelled(
    path: Path | str, inputs: Mapping[str, int | None], labels: str | int | None, columns: Sequence[str] = ()
) -> Table:
    """A table with its labels, which of an ``.npy`` are in another file: an array, or a label per line."""
    path = Path(path)
    if path.suffix != ".npy":
        usual = -1 if path.suffix == ".csv" else "labels"
        return read_table(path, inputs, usual if labels is None else labels, columns)
    if labels is None:
        raise ValueError(f"{path}: labels are missing; give an .npz with times and labels, a .csv, or labels")
    other = Path(str(labels))
    found = read_arrays(other).values() if other.suffix == ".npy" else [[cells[-1] for _, cells in read_lines(other)]]
    return read_table(path, inputs)._replace(labels=next(iter(found)))


def _samples(
    table: Table, names: Sequence[str] | None, regression: bool, encoder: Encoder | None, inputs: int | None = None
) -> Samples:
    """Samples of a table with labels. Names of classes or targets are by default the table's."""
    with naming(table.path):
        numbers = targets if regression else class_indices
        labels, class_names = numbers(table.labels, len(table.numbers), names or None, table.place, table.class_names)
    content = _numbers(table, encoder, inputs)
    return Samples(content, labels, class_names, table.image if content.ndim == 2 else None, table.columns)


def _numbers(table: Table, encoder: Encoder | None, inputs: int | None = None) -> Float[Tensor, "samples ..."]:
    """Numbers of a table, ``(samples, inputs, spikes)`` of trains and ``(samples, channels, time)`` of signals."""
    if table.kind == "trains" and inputs is not None and table.grid.shape[1] != inputs:
        raise ValueError(f"{table.path}: trains: expected {inputs} inputs, got {table.grid.shape[1]}")
    signals = table.kind == "values" and isinstance(encoder, SeriesEncoder)
    return table.grid if table.kind == "trains" or signals else table.numbers
