"""Time constants that are tensors: numbers for a backend wherever all neurons share them.

Where they do, results are bit for bit those of the numbers, in the closed forms and the fast kernels.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from firstspike.devices import TAU_MEM, TAU_SYN, is_host, mark, read_at_once
from firstspike.spiketime.contract import Constants
from firstspike.spiketime.units import LARGEST, LONGEST


def resolve(given: Constants, tau_mem: Tensor | None, tau_syn: Tensor | None) -> Constants:
    """Two numbers if all neurons share them, else two tensors ``(E, O)``, or ``(O,)`` of one network.

    On a GPU, where values are not read, tensors stay tensors. There, neurons without leak have the number ``inf``.

    Args:
        given: the numbers, of use where there is no tensor.
        tau_mem: a tensor of that shape, or None.
        tau_syn: likewise.
    """
    if tau_mem is None and tau_syn is None:
        return given
    like = tau_syn if tau_mem is None else tau_mem
    assert like is not None
    if not is_host(like.device):  # whether neurons share them, only the layout of the tensors tells
        mem = given.tau_mem if tau_mem is None and given.tau_mem == math.inf else _tensor(given.tau_mem, tau_mem, like)
        return Constants(mem, _tensor(given.tau_syn, tau_syn, like))
    found = [x if tensor is None else _shared(tensor) for x, tensor in zip(given, (tau_mem, tau_syn), strict=True)]
    if not any(isinstance(x, Tensor) for x in found):
        return Constants(*found)
    return Constants(*(x if isinstance(x, Tensor) else torch.full_like(like, x) for x in found))


def _tensor(number: float | Tensor, tau: Tensor | None, like: Tensor) -> Tensor:
    return torch.full((), float(number), dtype=like.dtype, device=like.device).expand_as(like) if tau is None else tau


def members(constants: Constants) -> list[Constants] | None:
    """The numbers of each network of an ensemble, where the neurons of a network share them but not all networks do."""
    mem, syn = constants
    if not isinstance(mem, Tensor) or not isinstance(syn, Tensor) or not is_host(mem.device):
        return None
    if mem.ndim == 1 or len(mem) == 1:
        return None
    if not bool(((mem == mem[:, :1]) & (syn == syn[:, :1])).all()):
        return None
    return [Constants(m, s) for m, s in zip(mem[:, 0].tolist(), syn[:, 0].tolist(), strict=True)]


def check_time_constants(given: Constants, tau_mem: Tensor | None, tau_syn: Tensor | None, dtype: torch.dtype) -> None:
    """Raise ValueError for tensors that hold values which no neuron can work with, and for what does not fit the dtype.

    On a GPU, the values of tensors are checked later (``raise_deferred_errors``).

    Args:
        given: as in ``resolve``.
        tau_mem: as in ``resolve``.
        tau_syn: as in ``resolve``.
        dtype: of all tensors.
    """
    if tau_mem is None and tau_syn is None:
        _check_range(given.tau_mem, given.tau_syn, given.tau_syn, dtype)
        return
    if not read_at_once((tau_syn if tau_mem is None else tau_mem).device):  # type: ignore[union-attr]
        _mark_range(given, tau_mem, tau_syn, dtype)
        return
    ranges: list[float] = []
    for name, tau, number in (("tau_mem", tau_mem, given.tau_mem), ("tau_syn", tau_syn, given.tau_syn)):
        assert not isinstance(number, Tensor)
        low = high = number
        if tau is not None and tau.numel():
            low, high = (float(x) for x in tau.detach().aminmax())
            if not 0 < low <= high < math.inf:
                hint = "; a neuron without leak has the number math.inf" if name == "tau_mem" else ""
                raise ValueError(f"{name} must be > 0 and finite in a tensor, got {low} to {high}{hint}")
        ranges += low, high
    shortest, _, low, high = ranges
    _check_range(shortest, low, high, dtype)


def _mark_range(given: Constants, tau_mem: Tensor | None, tau_syn: Tensor | None, dtype: torch.dtype) -> None:
    """The same checks as below, of tensors that are not read."""
    limit, least = LONGEST[dtype], 1 / LARGEST[dtype]
    mem, syn = (number if tau is None else tau.detach() for number, tau in zip(given, (tau_mem, tau_syn), strict=True))
    if isinstance(mem, Tensor) and mem.numel():
        mark(TAU_MEM, ~((mem >= 1 / limit) & (mem >= least * syn) & (mem < math.inf)).all())
    if isinstance(syn, Tensor) and syn.numel():
        mark(TAU_SYN, ~((syn >= 1 / limit) & (syn <= limit) & (mem >= least * syn)).all())


@lru_cache(maxsize=256)
def _check_range(shortest: float, low: float, high: float, dtype: torch.dtype) -> None:
    """Whether the shortest tau_mem, and tau_syn from ``low`` to ``high``, fit the arithmetic."""
    limit, least = LONGEST[dtype], 1 / LARGEST[dtype]
    if shortest < 1 / limit:
        raise ValueError(f"tau_mem must be at least {1 / limit:g} in {dtype}, got {shortest:g}")
    if low < 1 / limit or high > limit:
        got = low if low < 1 / limit else high
        raise ValueError(f"tau_syn must be between {1 / limit:g} and {limit:g} in {dtype}, got {got:g}")
    if shortest < least * high:
        raise ValueError(f"tau_mem must be at least {least:g} tau_syn in {dtype}, got {shortest:g} and {high:g}")


def _shared(tau: Tensor) -> float | Tensor:
    if tau.numel() == 0:
        return 1.0  # of no neuron
    first = tau.flatten()[0]
    return float(first) if bool((tau == first).all()) else tau
