"""Functions whose work depends on the values of tensors, under ``torch.func.vmap``, and the maxima of membranes."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from firstspike.spiketime.values import check_finite_weight


class MemberByMember(torch.autograd.Function):
    """A function of tensors that ``torch.func.vmap`` maps member after member, as its work depends on their values."""

    @classmethod
    def vmap(
        cls, info: Any, in_dims: tuple[int | None, ...], *inputs: Any
    ) -> tuple[tuple[Tensor | None, ...], tuple[int | None, ...]]:
        """Calls the function for each member, as ``torch.autograd.Function.vmap``."""
        members = [
            cls.apply(*(x if dim is None else x.select(dim, k) for x, dim in zip(inputs, in_dims, strict=True)))
            for k in range(info.batch_size)
        ]
        found = tuple(None if x[0] is None else torch.stack(x) for x in zip(*members, strict=True))
        return found, tuple(None if x is None else 0 for x in found)


def maxima(
    membranes: Callable[..., Iterator[Any]],
    highest: Callable[..., tuple[Tensor, Tensor, Tensor]],
    dtype: torch.dtype | None,
    *given: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Height, time and place of the maxima of ``membranes``, parts that ``highest`` works on in that dtype.

    ``place`` is the spike, in the flattened trains of the sample, at whose arrival the maximum is, or -1. Where
    ``silent`` is given, only pairs for which it is true have a maximum. The height is 0 elsewhere.
    """
    trains, weight, _, _, *constants = given
    check_finite_weight(weight)  # -inf would be a membrane that never leaves its rest
    height, time = (trains.new_zeros(len(trains), len(weight), dtype=dtype) for _ in range(2))
    place = torch.full_like(height, -1, dtype=torch.int64)
    for some in membranes(*given):
        at = some.sample, some.neuron
        height[at], time[at], place[at] = highest(some, *constants)
    return height.to(trains.dtype), time, place


class Height(MemberByMember):
    """``(highest, gradients, trains, weight, delay, silent, *constants) -> (height, ...)``, the maxima.

    ``highest`` is a function of all that follows. ``gradients`` is one of a gradient, the results, and these.
    """

    @staticmethod
    def forward(highest: Callable[..., tuple[Tensor, ...]], _: Any, *given: Any) -> tuple[Tensor, ...]:
        """The maxima, and what a gradient needs of them."""
        return highest(*given)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep inputs and output."""
        _, ctx.gradients, *tensors = inputs[:6]
        ctx.constants = inputs[6:]
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output, *tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        """Gradients for trains, weight and delay."""
        by: Any = (None,) * 3
        if grad is not None:
            by = _HeightGradient.apply(ctx.gradients, grad, *ctx.saved_tensors, *ctx.constants)
        return None, None, *by, *(None,) * (1 + len(ctx.constants))


class _HeightGradient(MemberByMember):
    @staticmethod
    def forward(
        gradients: Callable[..., tuple[Tensor, Tensor, Tensor | None]], *given: Any
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        return gradients(*given)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError("the maximum has first derivatives only, no Hessian")
