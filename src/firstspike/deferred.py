"""Work on a GPU without waiting for it: checks that are read later, copies that overlap with the GPU's work.

Reading a value of a tensor, as a check does that raises an error, waits until its device has done all work that it was
given before. On the CPU that costs nothing. For other devices a check therefore leaves a mark on the device, in a
handful of bits for each, and ``raise_deferred_errors`` reads these.
"""

import os
from collections.abc import Callable

import torch
from torch import Tensor

_FAILURES = (
    "times must be real numbers or inf (no spike), got NaN or -inf",
    "observed times must be real numbers or inf (no spike), got NaN or -inf",
    "threshold must be > 0 and finite",
    "weight must be finite and not beyond the limit in thresholds; did the training diverge?",
    "delay must be >= 0 and finite",
    "tau_mem must be > 0 and finite in a tensor, and within the limits of first_spike_time",
    "tau_syn must be > 0 and finite in a tensor, and within the limits of first_spike_time",
    "times and delays must have a number of the dtype in units of the time constants",
    "observed trains must be sorted, and within their window",
    "refractory must be >= 0 and finite, and reset finite and below the threshold",
    "states must be finite, and their refractory times >= 0",
    "weights of synapses that are conductances must be >= 0",
)
TIMES, OBSERVED, THRESHOLD, WEIGHT, DELAY, TAU_MEM, TAU_SYN, UNIT, ORDER, RESET, STATE, CONDUCTS = range(len(_FAILURES))

_AT_ONCE = "FIRSTSPIKE_CHECK_AT_ONCE"
_HOSTS = frozenset({"cpu"})
_marks: dict[torch.device, Tensor] = {}


def is_host(device: torch.device) -> bool:
    """Whether reading values costs nothing, so that code may depend on them."""
    return device.type in _HOSTS


def read_at_once(device: torch.device) -> bool:
    """Whether checks read values at once: on the CPU, and everywhere if the environment requests it."""
    return is_host(device) or os.environ.get(_AT_ONCE) == "1"


def mark(failure: int, failed: Tensor) -> None:
    """Remember a failure, for ``raise_deferred_errors``, if ``failed ()`` is true."""
    device = failed.device
    if device not in _marks:
        _marks[device] = torch.zeros(len(_FAILURES), dtype=torch.bool, device=device)
    with torch._C._DisableFuncTorch():  # it refuses to change what a function that it transforms does not get
        _marks[device][failure].logical_or_(failed)


def require(failure: int, fulfilled: Tensor | bool, message: Callable[[], str]) -> None:
    """Raise a ValueError unless ``fulfilled ()`` is true, on a GPU later: see ``mark``."""
    if isinstance(fulfilled, Tensor) and not read_at_once(fulfilled.device):
        mark(failure, ~fulfilled)
    elif not fulfilled:
        raise ValueError(message())


def raise_deferred_errors() -> None:
    """Raise a ValueError for values on GPUs that checks have found to be wrong since the last call.

    On a GPU, ``first_spike_time`` and layers check values without waiting for the result, and compute on. ``Trainer``
    calls this after every epoch and evaluation. Call it in a training loop of your own, as often as it may wait for the
    GPU. With ``FIRSTSPIKE_CHECK_AT_ONCE=1`` in the environment every check waits, and its error comes from the place of
    the mistake, as on the CPU.

    Raises:
        ValueError: a check has failed.
    """
    for device, marks in _marks.items():
        found = [message for message, failed in zip(_FAILURES, marks.tolist(), strict=True) if failed]
        if found:
            marks.zero_()
            raise ValueError(f"on {device}: {'; '.join(found)} (to see where, set {_AT_ONCE}=1)")


def sent(x: Tensor, device: torch.device) -> Tensor:
    """A tensor from the CPU on that device, without waiting for the device."""
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()  # pageable memory would be copied only after the device has finished
    return x.to(device, non_blocking=True)


def check_float64(device: torch.device) -> None:
    """Raise a ValueError for a device that lacks float64, in which sums and spike times are computed, such as mps."""
    try:
        torch.empty(0, dtype=torch.float64, device=device)
    except TypeError:
        raise ValueError(
            f"device {str(device)!r} cannot be used: it has no float64, in which sums and spike times are computed; "
            "try cpu"
        ) from None
