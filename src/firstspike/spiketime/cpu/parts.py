"""The backward pass of a batch in parts, where it would need more memory beside its results than it may."""

from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from firstspike.spiketime.backend import Constants, Gradients, Needs
from firstspike.spiketime.cpu.rows import PAD

_MEMORY = 1 << 26  # bytes
_ROWS = 12  # numbers for each input of a sample, at most: rows, and parts of the gradient by its time

Backward = Callable[..., Gradients]


def in_parts(backward: Backward) -> Backward:
    """``backward`` (see ``backend``) for some networks, or some samples of one, at a time: as their shapes say."""

    def parted(
        grad: Tensor,
        spikes: Tensor,
        times: Tensor,
        weight: Tensor,
        threshold: Tensor,
        delay: Tensor | None,
        saved: tuple[Tensor, ...],
        constants: Constants,
        max_weight_grad: float | None,
        needs: Needs,
    ) -> Gradients:
        ensemble, batch, inputs = times.shape
        samples = max(1, _MEMORY // (_ROWS * (inputs + PAD) * times.element_size()))
        if ensemble * batch <= samples:
            return backward(grad, spikes, times, weight, threshold, delay, saved, constants, max_weight_grad, needs)
        of_samples, of_networks = (grad, spikes, times, *saved), (weight, threshold, delay, *constants)
        if ensemble > 1:
            size = max(1, samples // batch)
            pieces = zip(*(_cut(x, 0, size) for x in (*of_samples, *of_networks)), strict=False)
        else:
            pieces = zip(*(_cut(x, 1, samples) for x in of_samples), *map(repeat, of_networks), strict=False)
        found = []
        for part_grad, part_spikes, part_times, *rest in pieces:
            part_saved, (*networks, mem, syn) = tuple(rest[: len(saved)]), rest[len(saved) :]
            given = (part_grad, part_spikes, part_times, *networks, part_saved, Constants(mem, syn))
            found.append(parted(*given, max_weight_grad, needs))
        if ensemble > 1:
            return Gradients(*(None if x[0] is None else torch.cat(x) for x in zip(*found, strict=True)))
        by_times, *others = zip(*found, strict=True)
        return Gradients(
            None if by_times[0] is None else torch.cat(by_times, dim=1),
            *(None if x[0] is None else sum(x[1:], start=x[0]) for x in others),
        )

    return parted


def _cut(x: Any, dim: int, size: int) -> Iterable[Any]:
    return x.split(size, dim) if isinstance(x, Tensor) else repeat(x)
