"""Functions whose work depends on the values of tensors, under ``torch.func.vmap``."""

from typing import Any

import torch
from torch import Tensor


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


class FirstDerivative(MemberByMember):
    """One that computes gradients, and has none itself."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        """Raise a NotImplementedError."""
        raise NotImplementedError("the maximum has first derivatives only, no Hessian")
