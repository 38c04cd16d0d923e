"""From values to spike times."""

import math

import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from firstspike.data.base import as_tensor


def latency(
    values: Float[Tensor, "*shape"] | ArrayLike,
    early: float = 0.15,
    late: float = 2.0,
    invert: bool = False,
    silent_background: bool = False,
) -> Float[Tensor, "*shape"]:
    """Encode each value by the time of one spike, linearly between `early` and `late`.

    ===== ============================ =========================================
    value `invert=False` (coordinates) `invert=True` (images: ink or light is 1)
    ===== ============================ =========================================
    0     `early`                      `late`
    1     `late`                       `early`
    ===== ============================ =========================================

    The defaults are those of Göltz et al., Nat. Mach. Intell. 3, 823 (2021).

    Args:
        values: numbers in [0, 1], any shape, floating point; a tensor, an array or a list.
        early: earliest spike time, at least 0, in units of `tau_syn`.
        late: latest spike time, later than `early`.
        invert: let large values spike first.
        silent_background: values exactly at the late end (0 if inverted, else 1) never spike: `inf`.

    Returns:
        Spike times, of the shape and dtype of `values`.

    Raises:
        ValueError: a value outside [0, 1] or NaN, values that are not floating point, no `0 <= early < late`.
    """
    if not 0 <= early < late < math.inf:
        raise ValueError(
            f"early, late: expected finite times with 0 <= early < late, got {early} and {late}. "
            "To let large values spike first use invert=True."
        )
    values = as_tensor("values", values)
    if not values.is_floating_point():
        raise ValueError(
            f"values: expected floating point, got {values.dtype}. Convert to it, pixels of 8 bits by values / 255."
        )
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(
            f"values: expected numbers in [0, 1], got {values.min().item():g} ... {values.max().item():g}. "
            "Rescale them, for instance pixels by their largest possible value."
        )
    fraction = 1 - values if invert else values
    times = early + fraction * (late - early)
    if silent_background:
        background = values == (0 if invert else 1)
        times = torch.where(background, math.inf, times)
    return times
