"""Arrays, tensors and nested lists as tables of numbers."""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import ArrayLike
from torch import Tensor

from firstspike.spiketime.times import FROM_RASTER

Image = tuple[int, int, int]
"""Channels, height and width."""


def as_table(
    values: ArrayLike | Tensor, name: str, inputs: int | None = None
) -> tuple[Float64[Tensor, "samples inputs"], Image | None]:
    """Numbers as a table on the CPU, a row per sample; and the shape of a sample if samples are images.

    Args:
        values: ``(samples, inputs)``, or images ``(samples, height, width)`` or ``(samples, channels, height, width)``.
        name: what error messages call them.
        inputs: expected length of a row, if it is known.

    Raises:
        ValueError: another shape, or anything but numbers.
    """
    try:
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        if array.dtype.kind not in "fiubO":
            raise ValueError(f"got {array.dtype}")
        array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers, {error}") from None
    shape = array.shape[1:]
    if array.ndim not in (2, 3, 4) or 0 in shape or inputs not in (None, math.prod(shape)):
        raster = f"; {FROM_RASTER}" if array.ndim == 3 and inputs is not None else ""
        images = ", or of images (samples, height, width) or (samples, channels, height, width)"
        expected = f"(samples, inputs){images}" if inputs is None else f"(samples, {inputs})"
        raise ValueError(f"{name}: expected the shape {expected}, got {array.shape}{raster}")
    table = torch.from_numpy(array).flatten(1)
    if len(shape) == 1:
        return table, None
    channels, height, width = (1, *shape)[-3:]
    return table, (channels, height, width)


def as_tensor(name: str, values: Any) -> Tensor:
    """A tensor as it is; arrays and lists as a tensor of their own memory.

    Raises:
        ValueError: something that is not made of numbers, or rows of different lengths.
    """
    if isinstance(values, Tensor):
        return values
    try:
        array = np.array(values)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{array.dtype} are not numbers")
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        tensor = torch.from_numpy(native)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: expected numbers in a tensor or array, got a {type(values).__name__}: {error}"
        ) from None
    return tensor if isinstance(values, np.ndarray) or array.dtype.kind != "f" else tensor.to(torch.get_default_dtype())
