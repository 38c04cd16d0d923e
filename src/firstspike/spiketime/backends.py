"""Which backend computes a call: each accepts a neuron or refuses it with a reason, and ``auto`` takes the fastest."""

import logging
import os
from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec

import torch

from firstspike.neurons import Neuron
from firstspike.spiketime.contract import Backend
from firstspike.spiketime.units import in_units

logger = logging.getLogger(__name__)


def _load(name: str) -> Backend:
    try:
        module = import_module(f"firstspike.spiketime.{name}")  # loads numba or Triton
    except ImportError as error:
        if name != "triton":
            raise
        raise ImportError("backend 'triton' needs Triton, which GPU builds of PyTorch include") from error
    saves = getattr(module, "saves", None)
    return in_units(Backend(module.forward, module.backward, module.supports, name == "cpu", saves))


BACKENDS: dict[str, Callable[[], Backend]] = {
    name: cache(partial(_load, name)) for name in ("triton", "cpu", "reference")
}
"""Functions that load the backends, the fastest first. A backend's dependencies are imported on its first use."""


def resolve_backend(name: str, device: torch.device) -> Backend:
    """The backend of that name, for ``"auto"`` the fastest one for the device."""
    if name == "auto":
        return _automatic(device.type)
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of auto, {', '.join(reversed(BACKENDS))}, got {name!r}")
    if name == "cpu" and device.type != "cpu":
        raise ValueError(f"backend 'cpu' needs tensors on the CPU, got {device}; use auto or reference")
    if name == "triton" and device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(f"backend 'triton' needs tensors on a CUDA or ROCm device, got {device}; use auto")
    return BACKENDS[name]()


def accepting(name: str, device: torch.device, neuron: Neuron, recurrent: bool = False) -> tuple[str | None, str]:
    """The backend of that name if it accepts the neuron, for ``"auto"`` the fastest that does; or None and reasons."""
    first = resolve_backend(name, device)
    if (reason := first.supports(neuron, recurrent)) is None:
        return name, ""
    if name != "auto":
        return None, reason
    reasons = [reason]
    for other in _fastest_first(device.type)[1:]:
        if (reason := BACKENDS[other]().supports(neuron, recurrent)) is None:
            return other, ""
        reasons.append(reason)
    return None, "; ".join(dict.fromkeys(reasons))


def chosen(backend: str, device: torch.device, neuron: Neuron, recurrent: bool = False) -> str:
    """The backend that computes such neurons. A ValueError has the reasons of those that do not."""
    if torch.compiler.is_compiling():
        return backend  # the call that is recorded looks for it
    name, reason = accepting(backend, device, neuron, recurrent)
    if name is None:
        raise ValueError(f"backend {backend!r} refuses {type(neuron).__name__}: {reason}")
    return name


def _fastest_first(device: str) -> list[str]:
    """Names of the backends for tensors on such a device."""
    has_triton = device == "cuda" and find_spec("triton") is not None  # which ROCm devices are called as well
    there = {"triton": has_triton, "cpu": device == "cpu", "reference": True}
    return [name for name in BACKENDS if there[name]]


@cache
def _automatic(device: str) -> Backend:
    name = _fastest_first(device)[0]
    logger.info("backend %s for tensors on %s", name, device)
    return BACKENDS[name]()
