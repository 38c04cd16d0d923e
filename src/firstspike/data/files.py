"""Data from tables in files, see ``firstspike.data.tables``: spike times, or values that are encoded."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from firstspike.data.arrays import Image
from firstspike.data.base import SpikeData, Splits, warn_of_early
from firstspike.data.series import SeriesEncoder
from firstspike.data.splits import Encoder, as_encoder, class_indices, divided, spike_data, targets
from firstspike.data.tables import Table, read_arrays, read_rows, read_table


def read_times(
    path: Path | str, like: SpikeData, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "samples inputs"] | Float[Tensor, "samples inputs spikes"]:
    """Input spike times, a row per sample, or spike trains.

    Args:
        path: ``.npy``; ``.npz`` with the array ``times``; ``.csv``, whose first line may name the columns. No spike is
            ``inf``, in text also an empty cell.
        like: the data that a network was trained on. The file has as many inputs. If it names its columns, they are
            brought into the order of ``like.columns``. If there is an encoder, the file holds the values that it
            encodes, in an ``.npz`` in the array ``values``, of signals ``(samples, channels, time)``; an ``.npz`` with
            ``times`` alone still holds spike times. For spike trains it holds ``(samples, inputs, spikes)``, in an
            ``.npz`` in the array ``trains``; one with ``times`` alone holds first spikes.
        dtype: of the times.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another shape or kind of file, other columns, text, NaN or -inf.
    """
    table = read_table(path, _kinds(like), columns=like.columns)
    times = _content(table, like.encoder, like.features)
    if table.kind == "values" and like.encoder is not None:
        return like.encoder(times, dtype)
    warn_of_early(float(times.min()), stacklevel=3)
    return times.to(dtype)


def read_labelled(
    path: Path | str, like: SpikeData, dtype: torch.dtype = torch.float32, labels: str | int | None = None
) -> SpikeData:
    """Labelled input spike times.

    Args:
        path: ``.npz`` with the arrays ``times`` and ``labels``, ``.csv`` with the label in the last column, or ``.npy``
            with labels in another file. Labels are numbers from 0 or names of classes.
        like: see ``read_times``; labels are among its classes.
        dtype: of the times.
        labels: see ``file_splits``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as in ``read_times``; labels that are not among the classes, or not one per sample.
    """
    table, classes, names = _labelled(path, _kinds(like), labels, like.class_names, like.columns, like.regression)
    numbers = _content(table, like.encoder, like.features)
    return spike_data(numbers, classes, names, _image(table), like.encoder if table.kind == "values" else None, dtype)


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
        train: the table of the training data, from which validation and test data are taken unless they have their
            own.
        validation: another table, or the part of ``train`` to hold out: below 1 a fraction, from 1 on the number of
            samples; 0 for none. Columns that both tables name may be in another order.
        test: another table, or the part of ``train`` that becomes test data, like ``validation``.
        labels: where the labels are: of ``.csv`` the column by its name or number (0 is the first one; by default the
            last one); of ``.npz`` the array (by default ``labels``); of ``.npy`` another ``.npy`` or ``.csv``. Several
            tables may each have their own: ``{train: a.npy, test: b.npy}``.
        encode: the tables hold values, which are encoded by spike times: arguments of ``LatencyEncoder``, such as
            ``{early: 0.15, late: 2.0}``, or ``{}`` for its defaults; of time series those of an encoder that ``kind``
            names, such as ``{kind: level_crossing, levels: 8}``. Ranges are those of the training part. An empty cell,
            NA, ? or NaN is a missing value, which does not spike. Without ``encode`` an empty cell means no spike.
        class_names: names of the classes 0, 1, 2, ...; by default they follow from the training table.
        seed: seed of the random choice of the held-out samples; every part has the classes in the proportions of the
            whole.
        dtype: of the times.
        regression: labels are numbers: a column of ``.csv``, an array ``(samples,)`` or ``(samples,
            targets)``. ``class_names`` then name the targets.

    Returns:
        The three parts. Their ``encoder`` is the fitted one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a table that cannot be used: the message names file, line, column, and what was expected.
    """
    own = dict(labels) if isinstance(labels, Mapping) else dict.fromkeys(Splits._fields, labels)
    try:
        encoder = None if encode is None else as_encoder(encode)
    except ValueError as error:
        raise ValueError(f"{train}: {error}") from None
    kinds = ("times", "trains") if encoder is None else ("values",)
    table, classes, names = _labelled(train, dict.fromkeys(kinds), own.get("train"), class_names, (), regression)
    numbers = _content(table, encoder)
    validation_part, test_part = (0 if isinstance(part, str | Path) else part for part in (validation, test))
    try:
        held = validation_part, test_part
        parts = divided(numbers, _image(table), classes, names, *held, seed, True, encoder, dtype, table.columns)
    except ValueError as error:
        raise ValueError(f"{table.path}: {error}") from None
    for name, file in (("validation", validation), ("test", test)):
        if isinstance(file, str | Path):
            width = None if numbers.ndim == 3 else numbers.shape[1]
            other, classes, _ = _labelled(file, {table.kind: width}, own.get(name), names, table.columns, regression)
            content = _content(other, encoder, None if encoder is not None else numbers.shape[1])
            data = spike_data(content, classes, names, _image(other), parts.train.encoder, dtype, table.columns)
            parts = parts._replace(**{name: data})
    return parts


def _kinds(like: SpikeData) -> dict[str, int | None]:
    """The arrays that a file may have, and their inputs; those of signals and trains are counted by ``_content``."""
    known: dict[str, int | None] = {"trains": None} if like.trains else {}
    known |= {"times": like.features}
    if like.encoder is None:
        return known
    return {"values": None if isinstance(like.encoder, SeriesEncoder) else like.encoder.features} | known


def _content(table: Table, encoder: Encoder | None, inputs: int | None = None) -> Float64[Tensor, "samples ..."]:
    """Numbers of a table, ``(samples, inputs, spikes)`` of trains and ``(samples, channels, time)`` of signals.

    Raises:
        ValueError: trains of another number of inputs.
    """
    if table.kind == "trains" and inputs is not None and table.grid.shape[1] != inputs:
        raise ValueError(f"{table.path}: trains: expected {inputs} inputs, got {table.grid.shape[1]}")
    signals = table.kind == "values" and isinstance(encoder, SeriesEncoder)
    return table.grid if table.kind == "trains" or signals else table.numbers


def _image(table: Table) -> Image | None:
    return None if table.kind == "trains" else table.image


def _labelled(
    path: Path | str,
    inputs: Mapping[str, int | None],
    labels: str | int | None,
    names: Sequence[str] | None,
    columns: Sequence[str],
    regression: bool,
) -> tuple[Table, Tensor, tuple[str, ...]]:
    """A table, the class or targets of each sample, and the names of those, by default the table's."""
    path = Path(path)
    if path.suffix == ".npy":
        if labels is None:
            raise ValueError(f"{path}: labels are missing; give an .npz with times and labels, a .csv, or labels")
        table = read_table(path, inputs)._replace(labels=_read_labels(Path(str(labels))))
    else:
        usual = -1 if path.suffix == ".csv" else "labels"
        table = read_table(path, inputs, usual if labels is None else labels, columns)
    try:
        numbers = targets if regression else class_indices
        return table, *numbers(table.labels, len(table.numbers), names or table.class_names, table.place)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read_labels(path: Path) -> Any:
    """Labels in a separate file: an array, or a label per line."""
    if path.suffix == ".npy":
        return next(iter(read_arrays(path).values()))
    return [cells[-1] for _, cells in read_rows(path)]
