"""Lambert's W function, principal real branch, in plain PyTorch."""

import torch
from jaxtyping import Float
from torch import Tensor

# 1/e as a sum of two doubles: z + 1/e keeps its leading digits next to the branch point z = -1/e.
_INV_E_HI = 0.36787944117144233
_INV_E_LO = -1.2428753672788363e-17
_E = 2.718281828459045

# W_0 = sum_k c_k p^k with p = sqrt(2 (e z + 1)); Corless et al. 1996, eq. 4.22.
_BRANCH_SERIES = (
    -1.0,
    1.0,
    -1 / 3,
    11 / 72,
    -43 / 540,
    769 / 17280,
    -221 / 8505,
    680863 / 43545600,
    -1963 / 204120,
    226287557 / 37623398400,
    -5776369 / 1515591000,
)
_SERIES_BELOW = 0.05  # the first term left out is then below 1e-16
_TOLERANCE = 1e-15
_MAX_ITERATIONS = 8


def lambert_w0(z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The solution w >= -1 of ``w exp(w) = z``.

    Computed in float64 and returned in the type of ``z``; relative error below 2e-15 for every ``z >= -1/e``; NaN
    below. Not differentiable by autograd: the operator has its own derivative.

    Source: Corless, Gonnet, Hare, Jeffrey, Knuth 1996; iteration of Fritsch, Shafer, Crowley 1973.
    """
    with torch.no_grad():
        dtype, z = z.dtype, z.double()
        p_squared = 2 * _E * ((z + _INV_E_HI) + _INV_E_LO)
        p = p_squared.clamp(min=0).sqrt()
        near_branch = torch.zeros_like(p)
        for coefficient in reversed(_BRANCH_SERIES):
            near_branch = near_branch * p + coefficient

        series_start = -1 + p * (1 - p * (1 / 3 - p * (11 / 72)))
        log = torch.log1p(z.clamp(min=-0.25))
        log_start = log * (1 - torch.log1p(log) / (2 + log))
        w = torch.where(z < -0.25, series_start, log_start)
        usable = (p > _SERIES_BELOW) & (w != 0) & torch.isfinite(z)
        for _ in range(_MAX_ITERATIONS):
            # residual of w + log w = log z, free of cancellation for large z
            safe = torch.where(usable, w, torch.ones_like(w))
            residual = torch.log((z / safe).clamp(min=torch.finfo(torch.float64).tiny)) - safe
            q = 2 * (1 + safe) * (1 + safe + residual * (2 / 3))
            relative = residual / (1 + safe) * (q - residual) / (q - 2 * residual)
            relative = torch.where(usable, relative, torch.zeros_like(relative))
            w = torch.where(usable, safe * (1 + relative), w)
            usable = usable & (relative.abs() > _TOLERANCE)
            if not bool(usable.any()):
                break
        w = torch.where(p <= _SERIES_BELOW, near_branch, w)
        w = torch.where((w == 0) | (z == torch.inf), z, w)  # 0 also next to it, where w underflows: w = z - z^2
        return torch.where(z >= -_INV_E_HI, w, torch.full_like(w, torch.nan)).to(dtype)
