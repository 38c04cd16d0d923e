"""Arrays, tensors and nested lists as tables of numbers."""

import math
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import ArrayLike
from torch import Tensor

from firstspike.spiketime.values import FROM_RASTER, check_tensor

Image = tuple[int, int, int]
"""Channels, height and width."""


def as_table(
    values: ArrayLike | Tensor, name: str, inputs: int | None = None, trains: str | None = None
) -> tuple[Float64[Tensor, "samples inputs"], Image | None]:
    """Spike times or ``values`` as a table on the CPU, a row per sample; and the shape of a sample that is an image.

    Images are ``(samples, height, width)`` or ``(samples, channels, height, width)``. Where ``trains`` says how to pass
    spike trains and the number of ``inputs`` is not known, images whose rows are all sorted are refused: they are spike
    trains ``(samples, inputs, spikes)``.
    """
    table = as_tensor(name, values, torch.float64).detach().cpu().double()
    shape, whole = table.shape[1:], tuple(table.shape)
    if table.ndim not in (2, 3, 4) or 0 in shape or inputs not in (None, math.prod(shape)):
        raster = f"; {FROM_RASTER}" if table.ndim == 3 and inputs is not None else ""
        images = ", or of images (samples, height, width) or (samples, channels, height, width)"
        expected = f"(samples, inputs){images}" if inputs is None else f"(samples, {inputs})"
        raise ValueError(f"{name}: expected the shape {expected}, got {whole}{raster}")
    before, after = table[..., :-1], table[..., 1:]
    # in images some rows would decrease, or all would be constant
    sorted_rows = table.ndim == 3 and bool((before <= after).all()) and bool((before < after).any())
    if trains is not None and inputs is None and sorted_rows:
        raise ValueError(
            f"{name}: expected (samples, inputs), got {whole} sorted along the last dimension: for spike trains "
            f"(samples, inputs, spikes) {trains}; for images add a dimension, (samples, 1, height, width)"
        )
    wrong = table.isinf() if name == "values" else ~(table > -math.inf)
    if bool(wrong.any()):
        expected = "finite numbers or NaN (missing)" if name == "values" else "numbers or inf (no spike)"
        place = wrong.nonzero()[0].tolist()
        raise ValueError(f"{name}: expected {expected}, got {float(table[tuple(place)])} at {place}")
    if len(shape) == 1:
        return table, None
    channels, height, width = (1, *shape)[-3:]
    if width <= 4 < min(channels, height):
        warnings.warn(
            f"{name}: images are (samples, channels, height, width), got {whole}; if the channels come last, "
            "write numpy.moveaxis(images, -1, 1)",
            stacklevel=3,
        )
    return table.flatten(1), (channels, height, width)


def unmasked(values: Any) -> Any:
    """Values as they are. Hidden values of masked arrays become NaN, or None among names."""
    if isinstance(values, list | tuple) and any(isinstance(each, np.ma.MaskedArray) for each in values):
        return [unmasked(each) for each in values]
    if not isinstance(values, np.ma.MaskedArray) or not np.ma.is_masked(values):
        return values
    numbers = values.dtype.kind in "biuf"
    found = values.data.astype(np.float64 if numbers else object)
    found[np.ma.getmaskarray(values)] = np.nan if numbers else None
    return found


def as_tensor(name: str, values: Any, dtype: torch.dtype | None = None, columns: Sequence[Any] | None = None) -> Tensor:
    """A tensor as it is; arrays and lists copied into one.

    Floating-point numbers of lists become ``dtype``, by default torch's. Only if it is given, objects that are numbers,
    such as columns of mixed types, are taken as well. ``columns`` are named in errors, by default those of a frame.
    """
    if isinstance(values, Tensor):
        check_tensor(name, values)
        return values
    try:
        array = np.array(unmasked(values))
        if array.dtype.kind in "OU" and array.ndim:
            found = _numbers(array, getattr(values, "columns", ()) if columns is None else columns)
            array = array if dtype is None or array.dtype.kind == "U" else found
        if array.dtype.kind not in "biuf":
            raise TypeError(f"got {array.dtype}" if array.ndim else f"got a {type(values).__name__}")
        tensor = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    except (TypeError, ValueError) as error:
        said = str(error) if str(error).startswith("got ") else f"got a {type(values).__name__}: {error}"
        raise ValueError(f"{name}: expected numbers, {said}") from None
    is_list = not isinstance(values, np.ndarray) and tensor.is_floating_point()
    return tensor.to(dtype or torch.get_default_dtype()) if is_list else tensor


def _numbers(array: np.ndarray, columns: Sequence[Any]) -> np.ndarray:
    """Objects as numbers. The ValueError names a value that is none, and the columns with such values."""
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        wrong: dict[int, tuple[tuple[int, ...], Any]] = {}  # the first of each column
        for place, value in np.ndenumerate(array):
            if value is not None and as_number(float, value) is None:
                wrong.setdefault(place[-1], (place, value))
        if not wrong:
            raise
        place, value = next(iter(wrong.values()))
        names = [repr(columns[k]) if len(columns) else str(k) for k in wrong]
        column = f" (column {names[0]})" if len(columns) and len(place) > 1 else ""
        hint = "write nan for a missing one: table.to_numpy(float, na_value=numpy.nan)"
        if isinstance(value, str):
            value = str(value)  # without NumPy's type
            which = f"columns {', '.join(names[:5])}" if len(names) > 1 < len(place) else "column"
            hint = f"encode names by numbers, or leave the {which} out"
        raise ValueError(f"got {value!r} at {list(place)}{column}; {hint}") from None


def as_number(kind: type[int] | type[float], value: Any) -> int | float | None:
    """The number that Python reads from a value, or None."""
    with suppress(TypeError, ValueError):
        return kind(value)
    return None
