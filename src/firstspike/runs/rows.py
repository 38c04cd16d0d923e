"""New samples in whatever form people have them, as input spike times."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.data import EventLists, SpikeData
from firstspike.data.arrays import as_table, as_tensor
from firstspike.data.files import UNNAMED, read_times
from firstspike.data.labels import class_indices

Rows = Any
"""A frame of pandas or polars, an array, a tensor, a list of rows or of mappings, ``EventLists``, or a file."""


def input_times(
    rows: Rows, like: SpikeData, dtype: torch.dtype
) -> Float[Tensor, "samples inputs *spikes"] | EventLists:
    """Input spike times of samples as in the table of other data, which may have named columns and an encoder."""
    times: Tensor | EventLists
    if isinstance(rows, str | Path):
        times = read_times(rows, like, dtype)
    elif isinstance(rows, EventLists):
        times = rows.to(dtype=dtype)
    else:
        rows = _in_order(rows, like.columns)
        if like.encoder is not None:
            times = like.encoder(rows, dtype)
        elif like.trains:
            times = as_tensor("rows", rows).to("cpu", dtype)
        else:
            times = as_table(rows, "rows", like.features)[0].to(dtype)
    if times.shape[1] != like.features:
        raise ValueError(f"rows: expected {like.features} inputs, got {times.shape[1]}")
    labels = like.labels.new_zeros((len(times), *like.labels.shape[1:]))
    try:
        return SpikeData(times.to("cpu"), labels.cpu(), like.class_names).times  # which checks them
    except ValueError as error:
        where = f"{rows}: " if isinstance(rows, str | Path) else ""
        raise ValueError(f"{where}{error}") from None


def in_classes(data: SpikeData, known: tuple[str, ...]) -> SpikeData:
    """Labelled data with the known classes, by name; as they are if they share none of their names."""
    own = data.class_names
    if data.regression or own == known or not set(own) & set(known):
        return data
    labels, _ = class_indices(data.labels, len(data), known, own=own)
    return replace(data, labels=labels, class_names=known)


def _in_order(rows: Any, known: Sequence[str]) -> Any:
    """A table's columns in the order of the known ones, without others; rows without column names as they are."""
    if isinstance(rows, Sequence) and rows and isinstance(rows[0], Mapping):
        names = _columns(rows[0], known)
        for number, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise ValueError(f"rows: expected mappings, got a {type(row).__name__} in row {number}")
            if differ := [name for name in names if name not in row] + [x for x in row if not known and x not in names]:
                raise ValueError(f"rows: expected the columns of row 0 in each, row {number} differs in {differ[0]!r}")
        return as_tensor("rows", [[row[name] for name in names] for row in rows], torch.float64, names)
    if hasattr(rows, "columns") and len(set(known)) == len(known):
        order = _columns(rows.columns, known)
        return rows[order] if known else rows
    return rows


def _columns(names: Iterable[Any], known: Sequence[str]) -> list[Any]:
    """The columns with the known names; all of them, with a warning, if none are known."""
    if not known:
        warnings.warn(f"rows: {UNNAMED}", stacklevel=5)
        return list(names)
    found = {" ".join(str(name).split()): name for name in names}
    if lacking := [name for name in known if name not in found]:
        raise ValueError(f"rows: expected the columns of the training data, lacks {', '.join(lacking[:5])}")
    return [found[name] for name in known]
