"""Numbers as JSON can hold them, short."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def plain(values: ArrayLike, digits: int = 4) -> Any:
    """Nested lists of rounded numbers; what is not finite, as the time of no spike, is None."""
    array = np.round(np.asarray(values, dtype=float), digits)
    shown = array.astype(object)
    shown[~np.isfinite(array)] = None
    return shown.tolist()


def significant(values: ArrayLike, digits: int = 5) -> list[float | None]:
    """The same of one row of numbers of any size, with so many significant digits."""
    return [float(f"{x:.{digits}g}") if np.isfinite(x) else None for x in np.asarray(values, dtype=float).tolist()]


def percent(found: dict[str, Any]) -> str:
    """An accuracy of ``results.json`` with its error, or its spread over seeds."""
    spread = found["accuracy_std"] if "accuracy_std" in found else found["accuracy_error"]
    return f"{100 * found['accuracy']:.2f} ± {100 * spread:.2f} %"
