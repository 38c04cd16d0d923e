"""Values that no neuron can work with."""

import math

from torch import Tensor

from firstspike.devices import DELAY, OBSERVED, THRESHOLD, TIMES, WEIGHT, mark, read_at_once
from firstspike.spiketime.units import LARGEST, check_weights, in_thresholds


def check_values(
    times: Tensor, weight: Tensor, threshold: Tensor, delay: Tensor | None, observed: Tensor | None = None
) -> None:
    """Raise ValueError for values that no neuron can work with, on a GPU later (``raise_deferred_errors``)."""
    if not read_at_once(weight.device):
        for failure, tensor in ((TIMES, times), (OBSERVED, observed)):
            if tensor is not None and tensor.numel():
                mark(failure, ~(tensor.amin() > -math.inf))
        if threshold.numel():
            mark(THRESHOLD, ~((threshold > 0) & (threshold < math.inf)).all())
        if delay is not None:
            mark(DELAY, ~((delay >= 0) & (delay < math.inf)).all())
        if weight.numel():
            mark(WEIGHT, ~(in_thresholds(weight, threshold) <= LARGEST[weight.dtype]))
        return
    for name, tensor in (("times", times), ("observed times", observed)):
        if tensor is not None and tensor.numel() and not float(tensor.detach().amin()) > -math.inf:
            raise ValueError(f"{name} must be real numbers or inf (no spike), got NaN or -inf")
    low, high = _extremes(threshold)
    if not 0 < low <= high < math.inf:
        raise ValueError(f"threshold must be > 0 and finite, got {low} to {high}")
    check_weights(weight, threshold, low)
    if delay is not None:
        low, high = _extremes(delay)
        if not 0 <= low <= high < math.inf:
            raise ValueError(f"delay must be >= 0 and finite, got {low} to {high}")


def _extremes(tensor: Tensor) -> tuple[float, float]:
    """Smallest and largest number, NaN if there is any; 1 for an empty tensor, which has nothing to complain of."""
    if tensor.numel() == 0:
        return 1.0, 1.0
    low, high = tensor.detach().aminmax()
    return float(low), float(high)
