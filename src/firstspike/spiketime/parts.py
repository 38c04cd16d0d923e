"""Passes in parts, where the whole would need more memory beside its results than it may."""

from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any, NamedTuple

import torch

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
        ensemble, batch, _ = given.times.shape
        spikes = given.times.new_empty((ensemble, batch, given.weight.shape[1]))
        for part in parts:
            spikes[part] = forward(_arguments(given, *part)).spikes
        return Result(spikes)

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
        for networks, samples, neurons in _parts(given, most):
            saved = each_tensor(itemgetter((networks, samples)), result.saved)
            own = Result(result.spikes[networks, samples, neurons], saved)
            asked, part = Grads(grads.spikes[networks, samples, neurons]), _arguments(given, networks, samples, neurons)
            found = backward(asked, own, part, max_weight_grad, needs)
            for name, x in found._asdict().items():
                if x is not None:
                    getattr(total, name)[networks, samples if name == "times" else neurons] += x
        return total

    return parted


def zero_gradients(given: Arguments, needs: Needs) -> Gradients:
    """Zeros for what is needed."""
    like = (*given[:4], given.threshold, given.threshold)
    zeros: Any = (torch.zeros_like(x) if need and x is not None else None for x, need in zip(like, needs, strict=False))
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
    of_neurons = each_tensor(itemgetter((networks, outputs)), given[1:5])
    return Arguments(given.times[networks, samples], *of_neurons)
