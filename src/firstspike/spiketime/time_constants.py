"""Time constants that are tensors: numbers for a backend wherever all neurons share them.

Where they do, results are bit for bit those of the numbers, in the closed forms and the fast kernels.
"""

import math

import torch
from torch import Tensor

from firstspike.spiketime.backend import Constants


def resolve(given: Constants, tau_mem: Tensor | None, tau_syn: Tensor | None) -> Constants:
    """Two numbers if all neurons share them, else two tensors ``(E, O)``.

    Args:
        given: the numbers, of use where there is no tensor.
        tau_mem: ``(E, O)`` or None.
        tau_syn: ``(E, O)`` or None.
    """
    if tau_mem is None and tau_syn is None:
        return given
    found = [x if tensor is None else _shared(tensor) for x, tensor in zip(given, (tau_mem, tau_syn), strict=True)]
    if not any(isinstance(x, Tensor) for x in found):
        return Constants(*found)
    like = tau_syn if tau_mem is None else tau_mem
    assert like is not None
    return Constants(*(x if isinstance(x, Tensor) else torch.full_like(like, x) for x in found))


def members(constants: Constants) -> list[Constants] | None:
    """The numbers of each network of an ensemble, where the neurons of a network share them but not all networks do."""
    mem, syn = constants
    if not isinstance(mem, Tensor) or not isinstance(syn, Tensor) or len(mem) == 1:
        return None
    if not bool(((mem == mem[:, :1]) & (syn == syn[:, :1])).all()):
        return None
    return [Constants(m, s) for m, s in zip(mem[:, 0].tolist(), syn[:, 0].tolist(), strict=True)]


def check_time_constants(tau_mem: Tensor | None, tau_syn: Tensor | None) -> None:
    """Raise ValueError for tensors that hold values which no neuron can work with."""
    for name, tau in (("tau_mem", tau_mem), ("tau_syn", tau_syn)):
        if tau is not None and not bool(((tau > 0) & (tau < math.inf)).all()):
            hint = "; a neuron without leak has the number math.inf" if name == "tau_mem" else ""
            raise ValueError(
                f"{name} must be > 0 and finite in a tensor, got {tau.min().item()} to {tau.max().item()}{hint}"
            )


def _shared(tau: Tensor) -> float | Tensor:
    if tau.numel() == 0:
        return 1.0  # of no neuron
    first = tau.flatten()[0]
    return float(first) if bool((tau == first).all()) else tau
