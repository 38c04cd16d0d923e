"""Labels of samples, as people write them: indices into class names, or numbers to learn."""

import math
import re
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy.typing import ArrayLike
from torch import Tensor

from firstspike.data.arrays import as_number, unmasked


def class_indices(
    labels: ArrayLike | Tensor,
    samples: int,
    class_names: Sequence[str] | None = None,
    place: Callable[[int], str] = "sample {}".format,
    own: Sequence[str] | None = None,
) -> tuple[Int64[Tensor, " samples"], tuple[str, ...]]:
    """Whole numbers or names as indices into the classes, which are the different labels, sorted, unless given.

    ``place`` names the sample of a label in messages. Labels that come with ``own`` names of the classes are found by
    these names.
    """
    if own and class_names is not None:
        given, own = class_indices(labels, samples, own, place)
        labels = [own[k] for k in given.tolist()]
    class_names = own if class_names is None else class_names
    array = _array(labels)
    if array.ndim != 1:
        raise ValueError(f"labels: expected one per sample, got an array of shape {array.shape}")
    if len(array) != samples:
        raise ValueError(f"labels: expected as many as samples, got {len(array)} for {samples}")
    texts = [_class_text(label) for label in array.tolist()]
    if class_names is None:
        found = {text for text in texts if text and (_is_whole(text) or _number(text) is None)}
        names = tuple(sorted(found, key=int) if all(map(_is_whole, found)) else sorted(found))
        index, expected = {}, "whole numbers or names"
    else:
        names = tuple(map(str, class_names))
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"class_names: expected a name for each class, got {twice[0]!r} twice")
        index, expected = {str(k): k for k in range(len(names))}, f"0 ... {len(names) - 1} or {', '.join(names)}"
        if any(as_number(int, name) is not None for name in names):  # labels are these names
            index, expected = {}, ", ".join(names)
    index |= {name: k for k, name in enumerate(names)}
    for row, text in enumerate(texts):
        if text not in index:
            number, hint = _number(text), ""
            if not text or (isinstance(number, float) and not math.isfinite(number)):
                hint = "; leave out samples without a label"
            elif class_names is None and number is not None:
                hint = "; numerical labels need regression=True"
            raise ValueError(f"labels: expected {expected}, got {text!r} for {place(row)}{hint}")
    return torch.tensor([index[text] for text in texts], dtype=torch.int64), names


def targets(
    labels: ArrayLike | Tensor,
    samples: int,
    names: Sequence[str] | None = None,
    place: Callable[[int], str] = "sample {}".format,
    own: Sequence[str] | None = None,
) -> tuple[Float64[Tensor, "samples targets"], tuple[str, ...]]:
    """Labels as numbers, and the names of the targets; otherwise as `class_indices`."""
    array = _array(labels)
    for row, text in enumerate(array.tolist() if array.dtype.kind in "OUS" and array.ndim == 1 else ()):
        number = as_number(float, str(text))
        if number is None or not math.isfinite(number):
            hint = "; leave out samples without a label"
            raise ValueError(f"labels: expected a finite number, got {text!r} for {place(row)}{hint}")
    if array.ndim not in (1, 2) or len(array) != samples:
        raise ValueError(f"labels: expected numbers ({samples},) or ({samples}, targets), got {array.shape}")
    columns = names or own or getattr(labels, "columns", None) or ()
    numbers = torch.from_numpy(array.astype(np.float64).reshape(samples, -1))
    if names and own and numbers.shape[1] == len(own) > 1:
        if sorted(own) != sorted(names):
            raise ValueError(f"labels: expected the targets {', '.join(names)}, got {', '.join(own)}")
        numbers = numbers[:, [own.index(name) for name in names]]
    return numbers, tuple(map(str, columns))


def _array(labels: ArrayLike | Tensor) -> np.ndarray:
    return labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(unmasked(labels))


def _class_text(label: object) -> str:
    """A label as text, whole numbers as such."""
    missing = label is None or type(label).__name__ == "NAType"  # of pandas
    text = (
        label.decode(errors="backslashreplace") if isinstance(label, bytes) else "" if missing else str(label)
    ).strip()
    number = _number(text)
    return text if number is None or number % 1 != 0 else str(int(number))


def _is_whole(text: str) -> bool:
    return isinstance(_number(text), int)


def _number(text: str) -> int | float | None:
    """The number that a text is; None for names, ``01``, and forms that only Python reads as numbers."""
    if not text.isascii() or "_" in text or re.match(r"[+-]?0[0-9]", text):
        return None
    whole = as_number(int, text)
    return as_number(float, text) if whole is None else whole
