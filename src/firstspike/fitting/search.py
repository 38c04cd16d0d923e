"""Levenberg and Marquardt's search, from many starts at once.

All starts are neurons of one layer, and so are the derivatives of each, in forward mode, with respect to its values.
"""

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

_DAMP, _MOST_DAMP, _ENOUGH = 1e-2, 1e5, 1e-20
_AROUND = 2.0  # standard errors


class Scales(NamedTuple):
    """Bounds of values, and the numbers between which a search moves freely: their place between the bounds."""

    names: tuple[str, ...]
    low: Float[Tensor, " values"]
    high: Float[Tensor, " values"]

    @classmethod
    def of(cls, bounds: Mapping[str, tuple[float, float]]) -> "Scales":
        """The scales of bounds, which must be finite and apart."""
        if not bounds or not isinstance(bounds, Mapping):
            raise ValueError(f'bounds: expected at least one, such as {{"tau_mem": (5.0, 50.0)}}, got {bounds!r:.80}')
        for name, pair in bounds.items():
            pairs = isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(x, Real) for x in pair)
            if not (pairs and -math.inf < pair[0] < pair[1] < math.inf):
                raise ValueError(
                    f"bounds: expected a lower and an upper one for {name}, such as (5.0, 50.0), got {pair}"
                )
        low, high = torch.tensor(list(bounds.values()), dtype=torch.float64).T
        return cls(tuple(bounds), low, high)

    def values(self, free: Float[Tensor, "starts values"]) -> dict[str, Float[Tensor, " starts"]]:
        """The values, by their logarithms where both bounds are above 0."""
        share, positive = torch.sigmoid(free), self.low > 0
        low, high = (torch.where(positive, x, 1.0).log() for x in (self.low, self.high))
        found = torch.where(positive, (low + (high - low) * share).exp(), self.low + (self.high - self.low) * share)
        return dict(zip(self.names, found.unbind(-1), strict=True))


Misses = Callable[[Tensor], Float[Tensor, "starts residuals"]]


def cost_of(misses: Misses, free: Tensor) -> Float[Tensor, " starts"]:
    """Sums of squares, infinite for values with which the equations have no solution."""
    try:
        return misses(free).square().sum(dim=-1).nan_to_num(nan=math.inf)
    except ValueError:
        if len(free) == 1:
            return free.new_full((1,), math.inf)
        return torch.cat([cost_of(misses, one) for one in free.split(1)])


def slopes_of(misses: Misses, free: Tensor) -> tuple[Tensor, Float[Tensor, "starts residuals values"]]:
    """Residuals and their derivatives: each start has a copy for each value, which moves there."""
    starts, values = free.shape
    moves = torch.eye(values, dtype=free.dtype).repeat(starts, 1)
    with forward_ad.dual_level():
        found, moved = forward_ad.unpack_dual(
            misses(forward_ad.make_dual(free.repeat_interleave(values, dim=0), moves))
        )
        moved = torch.zeros_like(found) if moved is None else moved
    return found[::values].detach(), moved.unflatten(0, (starts, values)).mT.detach()


def spread_of(misses: Misses, free: Float[Tensor, " values"]) -> Float[Tensor, "values values"]:
    """The covariance of the numbers found, if residuals are independent: Gauss-Newton."""
    left, slopes = (x[0] for x in slopes_of(misses, free[None]))
    return torch.linalg.pinv(slopes.mT @ slopes) * left.square().sum() / max(1, len(left) - len(free))


def searched(misses: Misses, free: Tensor, steps: int, bar: Any) -> tuple[Tensor, Float[Tensor, " starts"]]:
    """The steps of Levenberg and Marquardt from all starts at once."""
    free, cost, damp = free.clone(), cost_of(misses, free), free.new_full((len(free),), _DAMP)
    active = cost.isfinite()
    for _ in range(steps):
        bar.update()
        some = active.nonzero().squeeze(-1)
        if not len(some):
            continue
        left, slopes = slopes_of(misses, free[some])
        square, down = slopes.mT @ slopes, (slopes.mT @ left.unsqueeze(-1)).squeeze(-1)
        scale = square.diagonal(dim1=-2, dim2=-1)
        scale = scale + 1e-12 * scale.amax(dim=-1, keepdim=True) + 1e-300
        for _ in range(6):
            damped = square + torch.diag_embed(damp[some].unsqueeze(-1) * scale)
            moved = free[some] - torch.linalg.solve(damped, down).clamp(-2.0, 2.0)
            trial, old = cost_of(misses, moved), cost[some]
            better = trial < old
            free[some] = torch.where(better.unsqueeze(-1), moved, free[some])
            cost[some] = torch.where(better, trial, old)
            damp[some] = torch.where(better, damp[some] / 5, damp[some] * 5)
            if bool(better.any()):
                break
        ends = better & (old - trial < 1e-9 * old)
        active[some] = (damp[some] < _MOST_DAMP) & (cost[some] > _ENOUGH * left.shape[-1]) & ~ends
        bar.set_postfix_str(f"residual {math.sqrt(float(cost.min()) / left.shape[-1]):.3g}")
    return free, cost


def around(
    misses: Misses, free: Float[Tensor, " values"], starts: int, keep: int, seed: int
) -> Float[Tensor, "starts values"]:
    """The best of many starts within some standard errors of what was found, and that itself."""
    each, vectors = torch.linalg.eigh(spread_of(misses, free))
    numbers = torch.randn(starts, len(free), generator=torch.Generator().manual_seed(seed)).to(free)
    near = free + (_AROUND * numbers * each.clamp(0.0, 1.0).sqrt()) @ vectors.mT
    near = torch.cat([free[None], near])
    return near[cost_of(misses, near).argsort()[:keep]]
