"""Arrays, tensors and nested lists as tables of numbers."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import ArrayLike
from torch import Tensor

from firstspike.spiketime.values import FROM_RASTER

Image = tuple[int, int, int]
"""Channels, height and width."""


def as_table(
    values: ArrayLike | Tensor, name: str, inputs: int | None = None, trains: str | None = None
) -> tuple[Float64[Tensor, "samples inputs"], Image | None]:
    """Numbers as a table on the CPU, a row per sample; and the shape of a sample if samples are images.

    Args:
        values: ``(samples, inputs)``, or images ``(samples, height, width)`` or ``(samples, channels, height, width)``.
        name: what error messages call them.
        inputs: expected length of a row, if it is known.
        trains: how to pass spike trains. If it is given and ``inputs`` are not known, images whose rows are all
            sorted are refused: they are spike trains ``(samples, inputs, spikes)``.

    Raises:
        ValueError: another shape, or anything but numbers.
    """
    try:
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        if array.dtype.kind in "OU":
            found = _numbers(array, getattr(values, "columns", ()))
        if array.dtype.kind not in "fiubO":
            raise ValueError(f"got {array.dtype}")
        array = found if array.dtype.kind == "O" else array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers, {error}") from None
    shape = array.shape[1:]
    if array.ndim not in (2, 3, 4) or 0 in shape or inputs not in (None, math.prod(shape)):
        raster = f"; {FROM_RASTER}" if array.ndim == 3 and inputs is not None else ""
        images = ", or of images (samples, height, width) or (samples, channels, height, width)"
        expected = f"(samples, inputs){images}" if inputs is None else f"(samples, {inputs})"
        raise ValueError(f"{name}: expected the shape {expected}, got {array.shape}{raster}")
    if trains is not None and inputs is None and array.ndim == 3 and _are_trains(array):
        raise ValueError(
            f"{name}: expected (samples, inputs), got {array.shape} sorted along the last dimension: for spike trains "
            f"(samples, inputs, spikes) {trains}; for images add a dimension, (samples, 1, height, width)"
        )
    table = torch.from_numpy(array).flatten(1)
    if len(shape) == 1:
        return table, None
    channels, height, width = (1, *shape)[-3:]
    if width <= 4 < min(channels, height):
        warnings.warn(
            f"{name}: images are (samples, channels, height, width), got {array.shape}; if the channels come last, "
            "write numpy.moveaxis(images, -1, 1)",
            stacklevel=3,
        )
    return table, (channels, height, width)


def _numbers(array: np.ndarray, columns: Sequence[Any]) -> np.ndarray:
    """Objects as numbers.

    Args:
        array: the objects.
        columns: names of columns, for messages; those of a table of pandas.

    Raises:
        ValueError: a value is not a number; the message names it.
    """
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        for place, value in np.ndenumerate(array):
            try:
                float(value)
            except (TypeError, ValueError):
                if value is None:
                    continue
                column = f" (column {columns[place[1]]!r})" if len(columns) and len(place) > 1 else ""
                hint = "write nan for a missing one: table.to_numpy(float, na_value=numpy.nan)"
                if isinstance(value, str):
                    value = str(value)  # without NumPy's type
                    hint = "encode names by numbers, or leave the column out"
                raise ValueError(f"got {value!r} at {list(place)}{column}; {hint}") from None
        raise


def _are_trains(array: np.ndarray) -> bool:
    """Whether times increase along the last dimension: in images some would decrease, or all would be constant."""
    before, after = array[..., :-1], array[..., 1:]
    return bool((before <= after).all()) and bool((before < after).any())


def as_tensor(name: str, values: Any, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor as it is; arrays and lists copied into one.

    Args:
        name: what error messages call them.
        values: the tensor, array or list.
        dtype: of floating-point numbers in lists; by default torch's.

    Raises:
        ValueError: something that is not made of numbers, or rows of different lengths.
    """
    if isinstance(values, Tensor):
        return values
    try:
        array = np.array(values)
        if array.dtype.kind not in "biuf":
            if array.dtype.kind in "OU":
                _numbers(array, getattr(values, "columns", ()))
            raise TypeError(f"{array.dtype} are not numbers")
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        tensor = torch.from_numpy(native)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: expected numbers in a tensor or array, got a {type(values).__name__}: "
            f"{str(error).removeprefix('got ')}"
        ) from None
    return (
        tensor
        if isinstance(values, np.ndarray) or array.dtype.kind != "f"
        else tensor.to(dtype or torch.get_default_dtype())
    )
