"""New samples in whatever form people have them, as input spike times."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.data import EventLists, SpikeData
from firstspike.data.arrays import as_table, as_tensor
from firstspike.data.files import read_times

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


def _in_order(rows: Any, known: Sequence[str]) -> Any:
    """A table's columns in the order of the known ones, without others; rows without column names as they are."""
    if isinstance(rows, Sequence) and rows and isinstance(rows[0], Mapping):
        names = {str(name): name for name in rows[0]}
        order = _columns(names, known)
        for number, row in enumerate(rows):
            if words := [name for name in order if isinstance(row.get(name), str)]:
                raise ValueError(
                    f"rows: expected numbers, got {row[words[0]]!r} in row {number}, column {str(words[0])!r}; encode "
                    "names by numbers, or leave the column out"
                )
        return [[row.get(name) for name in order] for row in rows]
    if not known and hasattr(rows, "columns"):
        warnings.warn("the run has no column names: the columns of these rows are taken in their order", stacklevel=4)
    if known and hasattr(rows, "columns") and len(set(known)) == len(known):
        return rows[_columns({" ".join(str(name).split()): name for name in rows.columns}, known)]
    return rows


def _columns(names: Mapping[str, Any], known: Sequence[str]) -> list[Any]:
    """The columns with the known names, all of them if none are known."""
    if lacking := [name for name in known if name not in names]:
        raise ValueError(f"rows: expected the columns of the training data, lacks {', '.join(lacking[:5])}")
    return [names[name] for name in known or names]
