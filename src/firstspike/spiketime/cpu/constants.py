"""The numbers that depend on the two time constants alone, as one array that kernels read.

``x = 1 - tau_syn/tau_mem`` and ``DELTA = 1/tau_syn - 1/tau_mem``; next to equal constants DELTA is kept off 0, so that
``expm1(s DELTA) / DELTA`` is right without a case of its own.
"""

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from torch import Tensor

PER_MEM, PER_SYN = 0, 1  # 1/tau_mem, 1/tau_syn
DELTA, PER_RISE = 2, 3  # and 1/(DELTA tau_syn)
RATIO = 4  # tau_syn/tau_mem
SUMMIT, HEIGHT = 5, 6  # time and value of kappa's maximum
X, TOP = 7, 8  # and -log(1 - x)/x, the same time in units of tau_syn
SPAN = 9  # longest time after which states keep their scale (see ``rows.intervals``)
KIND = 10  # which of the short cuts below the two constants allow
REST_MEM, REST_SYN = 11, 12  # what rounding to the dtype leaves of 1/tau_mem and 1/tau_syn
N_CONSTANTS = 13  # then max_weight_grad
ANY, EQUAL, DOUBLE = range(3)  # EQUAL: kappa is s exp(-s); DOUBLE: DELTA is the slower constant's rate

FLAT = 2.5e-3  # square of the slope, times both constants, at a spike whose peak is 1/800 above the threshold
_SPAN = 8.0  # in units of the faster constant: exp(8) times 1e5 of the largest weights is a number of float32
_TINY = {"float32": 1e-10, "float64": 1e-20}  # smallest |DELTA| tau_syn


@lru_cache(maxsize=256)
def constants_array(tau_mem: float, tau_syn: float, dtype: str, bound: float | None = None) -> "Tensor":
    """The array for kernels of that dtype; ``bound`` is ``max_weight_grad``."""
    from torch import from_numpy  # which compiling does not need

    x = 1 - tau_syn / tau_mem
    delta = x / tau_syn if abs(x) > _TINY[dtype] else _TINY[dtype] / tau_syn
    top = math.inf if math.isinf(tau_mem) else 1.0 if x == 0 else -math.log(tau_syn / tau_mem) / x
    height = 1.0 if math.isinf(tau_mem) else math.exp(-top * tau_syn / tau_mem)
    found = np.zeros(N_CONSTANTS + 1)
    found[[PER_MEM, PER_SYN]] = 1 / tau_mem, 1 / tau_syn
    found[[DELTA, PER_RISE]] = delta, 1 / (delta * tau_syn)
    found[[RATIO, X, TOP]] = tau_syn / tau_mem, x, top
    found[[SUMMIT, HEIGHT]] = top * tau_syn, height
    found[SPAN] = _SPAN * min(tau_mem, tau_syn)
    if abs(x) <= _TINY[dtype]:
        found[KIND] = EQUAL
    elif abs(abs(delta) - min(1 / tau_mem, 1 / tau_syn)) < np.finfo(dtype).eps * abs(delta):
        found[KIND] = DOUBLE
    found[N_CONSTANTS] = math.inf if bound is None else bound
    rounded = found.astype(dtype)
    rounded[[REST_MEM, REST_SYN]] = found[[PER_MEM, PER_SYN]] - rounded[[PER_MEM, PER_SYN]]
    return from_numpy(rounded)


@lru_cache(maxsize=256)
def one_number(x: float, dtype: "torch.dtype") -> "Tensor":
    """A tensor of that number alone, for kernels that do not change it."""
    import torch

    return torch.tensor([x], dtype=dtype, device="cpu")


def as_tensors(constants: "Iterable[float | Tensor]", dtype: "torch.dtype") -> "list[Tensor]":
    """The time constants as tensors, of one number where all neurons share them."""
    return [one_number(x, dtype) if isinstance(x, (int, float)) else x for x in constants]
