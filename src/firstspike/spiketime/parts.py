"""Passes in parts, where the whole would need more memory beside its results than it may."""

from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any, NamedTuple

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

_OF_NEURONS = ("weight", "threshold", "delay", "constants", "refractory", "reset")


class Size(NamedTuple):
    """How much to work on at once; more than there is means all of it."""

    networks: int
    samples: int
    outputs: int


def forward_in_parts(forward: Forward, size: Callable[[Arguments], Size]) -> Forward:
    """``forward`` of parts of that size, for a backend that saves nothing."""

    def parted(given: Arguments) -> Result:
        parts = list(_parts(given, size(given)))
        if len(parts) <= 1:
            return forward(given)
        ensemble, batch, _, outputs = given.sizes
        whole: Any = None
        for part in parts:
            found = forward(_arguments(given, *part))
            if whole is None:
                shape = (ensemble, batch, outputs)
                whole = each_tensor(lambda x: x.new_empty(*shape, *x.shape[3:]), found)  # noqa: B023
            for total, x in zip(_tensors(whole), _tensors(found), strict=True):
                total[part] = x
        return whole

    return parted


def backward_in_parts(backward: Backward, size: Callable[[Arguments], Size]) -> Backward:
    """``backward`` of parts of that size. Gradients are summed in an order that depends on the shapes alone."""

    def parted(
        grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
    ) -> Gradients:
        ensemble, batch, _, outputs = given.sizes
        most = size(given)
        if ensemble <= most.networks and batch <= most.samples and outputs <= most.outputs:
            return backward(grads, result, given, max_weight_grad, needs)
        if given.times.ndim == 2:
            return of_several(parted)(grads, result, given, max_weight_grad, needs)
        total = zero_gradients(given, needs)
        for part in _parts(given, most):
            networks, samples, neurons = part
            saved = each_tensor(itemgetter((networks, samples)), result.saved)
            own = Result(result.spikes[part], saved, _of_pairs(part, result.overflows))
            asked: Grads = _of_pairs(part, grads)
            found = backward(asked, own, _arguments(given, *part), max_weight_grad, needs)
            for name, x in found._asdict().items():
                place = (networks, samples) if name == "times" else part if name == "state" else (networks, neurons)
                for whole, own_part in zip(_tensors(getattr(total, name)), _tensors(x), strict=True):
                    whole[place] += own_part
        return total

    return parted


def zero_gradients(given: Arguments, needs: Needs) -> Gradients:
    """Zeros for what is needed."""
    like = (*given[:4], given.threshold, given.threshold, given.state)
    zeros: Any = (each_tensor(torch.zeros_like, x) if need else None for x, need in zip(like, needs, strict=True))
    return Gradients(*zeros)


def _parts(given: Arguments, size: Size) -> Iterator[tuple[slice, slice, slice]]:
    """Ranges of networks, samples and outputs."""
    ensemble, batch, _, outputs = given.sizes
    whole = (ensemble, batch, outputs)
    starts = [range(0, n, max(1, step)) for n, step in zip(whole, size, strict=True)]
    for e in starts[0]:
        for b in starts[1]:
            for o in starts[2]:
                yield slice(e, e + starts[0].step), slice(b, b + starts[1].step), slice(o, o + starts[2].step)


def _arguments(given: Arguments, networks: slice, samples: slice, outputs: slice) -> Arguments:
    of_neurons = itemgetter((networks, outputs))
    own = {name: each_tensor(of_neurons, getattr(given, name)) for name in _OF_NEURONS}
    of_pairs = {name: _of_pairs((networks, samples, outputs), getattr(given, name)) for name in ("state", "observed")}
    return given._replace(times=given.times[networks, samples], **own, **of_pairs)


def _of_pairs(part: tuple[slice, slice, slice], x: Any) -> Any:
    """Part of all tensors in ``x`` that begin with networks, samples and outputs."""
    return each_tensor(itemgetter(part), x)


def _tensors(x: Any) -> list[Tensor]:
    """All tensors in ``x``, in order."""
    found: list[Tensor] = []
    each_tensor(lambda tensor: found.append(tensor) or tensor, x)  # type: ignore[func-returns-value]
    return found
