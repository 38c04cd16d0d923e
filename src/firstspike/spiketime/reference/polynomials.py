"""Where polynomials on [0, 1] are first 0, for ``series``: pieces are halved until bounds decide.

Shapes: P polynomials, K coefficients.
"""

import math
from functools import partial

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import pad

from firstspike.spiketime.flow import root_within
from firstspike.spiketime.reference.neurons import Some, Values

Row = Float64[Tensor, "K P"]
_SHORTEST = 2.0**-40  # part of a step that is not halved again in the search


def first_zero(level: Row, below: Some | bool = False) -> Values:
    """Where polynomials on [0, 1] are first >= 0; ``inf`` if nowhere. Some are ``below`` at 0, but for rounding."""
    level = pad(level, (0, 0, 0, max(0, 3 - len(level)))).clone()
    level[0] = torch.where(torch.as_tensor(below), level[0].clamp(max=-1e-300), level[0])
    above = (level[0] > 0) | ((level[0] == 0) & (level[1] > 0))
    found = torch.where(above, 0.0, torch.full_like(level[0], math.inf))
    begin, width = torch.zeros_like(found), torch.ones_like(found)
    orders = torch.arange(len(level), device=level.device).unsqueeze(1)
    falling = orders * (orders - 1) * (orders - 2)
    looks = (found.isinf() & level.isfinite().all(0) & (level[0] + level[1:].clamp(min=0).sum(0) >= 0)).nonzero()[:, 0]
    while len(looks):
        part = part_of(level[:, looks], begin[looks], width[looks])
        value, slope, bend, end = part[0], part[1], 2 * part[2], part.sum(0)
        change = (falling * part.abs()).sum(0)  # a bound of the third derivative
        most = value + slope.clamp(min=0) + bend.clamp(min=0) / 2 + change / 6
        falls = slope + bend.clamp(min=0) + change / 2 <= 0
        below = (most < 0) | (value + part[1:].clamp(min=0).sum(0) < 0) | falls
        bends = bend + change < 0
        rises = (slope + bend.clamp(max=0) - change / 2 >= 0) | (bends & ((orders * part).sum(0) >= 0))
        high = torch.where(rises & ~below & (end >= 0), torch.ones_like(end), -1.0)
        summit = (bends & ~below & ~rises).nonzero()[:, 0]
        if len(summit):
            inner = part[:, summit]
            top = root_within(
                partial(_values, -orders[1:] * inner[1:]), torch.zeros_like(high[summit]), torch.ones_like(high[summit])
            )
            high[summit] = torch.where(_values(inner, top)[0] >= 0, top, -1.0)
        hits = (high >= 0).nonzero()[:, 0]
        if len(hits):
            which = looks[hits]
            found[which] = begin[which] + width[which] * root_within(
                partial(_values, part[:, hits]), torch.zeros_like(high[hits]), high[hits]
            )
        passed = below | rises | bends | (width[looks] < _SHORTEST)
        begin[looks] = torch.where(passed, begin[looks] + width[looks], begin[looks])
        longer = torch.minimum(2 * width[looks], 1 - begin[looks])
        width[looks] = torch.where(passed, longer, width[looks] / 2)
        looks = looks[found[looks].isinf() & (begin[looks] < 1)]
    return found


def take_off(level: Row, reach: Values) -> Values:
    """Time until g is at least 0 and rises faster and faster, ``reach`` if it does not until then."""
    level = pad(level * powers(reach, len(level)), (0, 0, 0, max(0, 3 - len(level))))
    found = first_zero(level)
    _, slope, bend, *_ = part_of(level, found.clamp(max=1), torch.ones_like(found))
    return torch.where((found < 1) & (slope > 0) & (bend > 0), found * reach, reach)


def part_of(level: Row, begin: Values, width: Values) -> Row:
    """Coefficients of polynomials on a part of their piece."""
    orders = torch.arange(len(level), device=level.device)
    ahead = orders - orders.unsqueeze(1)
    binomial = torch.tensor([[math.comb(k, j) for k in range(len(level))] for j in range(len(level))]).to(level)
    moved = binomial.unsqueeze(-1) * begin ** ahead.clamp(min=0).unsqueeze(-1)
    return (moved * level).sum(1) * powers(width, len(level))


def _values(level: Row, time: Values) -> tuple[Values, Values]:
    """Polynomials and their derivatives."""
    orders, powered = torch.arange(len(level), device=level.device).unsqueeze(1), powers(time, len(level))
    return (level * powered).sum(0), (orders[1:] * level[1:] * powered[:-1]).sum(0)


def powers(time: Values, number: int) -> Row:
    """1, t, t^2 and so on."""
    return time ** torch.arange(number, device=time.device).unsqueeze(1)
