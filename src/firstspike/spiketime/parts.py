"""Passes in parts, where the whole would need more memory beside its results than it may: some samples at a time."""

from collections.abc import Callable, Iterator
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from firstspike.spiketime.contract import (
    Arguments,
    Backward,
    Forward,
    Gradients,
    Grads,
    Needs,
    Result,
    each_tensor,
    of_several,
)

Samples = Callable[[Arguments], int]
"""How many samples of each network to work on at once; 0 is one, and more than there are means all."""


def forward_in_parts(forward: Forward, samples: Samples) -> Forward:
    """``forward`` of so many samples, for a backend that saves nothing."""

    def parted(given: Arguments) -> Result:
        found = [forward(_some(part, given)) for part in _parts(given, samples)]
        whole = map(partial(torch.cat, dim=1), zip(*map(_tensors, found), strict=True))
        return found[0] if len(found) == 1 else each_tensor(lambda _: next(whole), found[0])

    return parted


def backward_in_parts(backward: Backward, samples: Samples) -> Backward:
    """``backward`` of so many samples. Gradients are summed in an order that depends on the shapes alone."""

    def parted(
        grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
    ) -> Gradients:
        if given.sizes[1] <= samples(given):
            return backward(grads, result, given, max_weight_grad, needs)
        if given.times.ndim == 2:
            return of_several(parted)(grads, result, given, max_weight_grad, needs)
        total = zero_gradients(given, needs)
        for part in _parts(given, samples):
            found = backward(part(grads), part(result), _some(part, given), max_weight_grad, needs)
            mine = total._replace(times=part(total.times), state=part(total.state))
            for whole, x in zip(_tensors(mine), _tensors(found), strict=True):
                whole += x
        return total

    return parted


def zero_gradients(given: Arguments, needs: Needs) -> Gradients:
    """Zeros for what is needed."""
    like = (*given[:4], given.threshold, given.threshold, given.state)
    zeros: Any = (each_tensor(torch.zeros_like, x) if need else None for x, need in zip(like, needs, strict=True))
    return Gradients(*zeros)


def _parts(given: Arguments, samples: Samples) -> Iterator[Callable[[Any], Any]]:
    """Functions that give some samples of all tensors in what begins with networks and samples."""
    batch, step = given.sizes[1], max(1, samples(given))
    for start in range(0, max(1, batch), step):
        yield partial(each_tensor, itemgetter((slice(None), slice(start, start + step))))


def _some(part: Callable[[Any], Any], given: Arguments) -> Arguments:
    return given._replace(times=part(given.times), state=part(given.state), observed=part(given.observed))


def _tensors(x: Any) -> list[Tensor]:
    """All tensors in ``x``, in order."""
    found: list[Tensor] = []
    each_tensor(lambda tensor: found.append(tensor) or tensor, x)  # type: ignore[func-returns-value]
    return found
