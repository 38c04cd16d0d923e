"""What spike trains may take, so that a number that is far too large is one clear error and not a failed allocation."""

import math
import os

import torch

from firstspike.devices import is_host

MOST_SPIKES = 10**6
"""Of a neuron in a sample, or in a window of a recurrent layer."""
MOST_WINDOWS = 10**6
"""Of a recurrent layer."""

_TENSORS = 4  # of the size of the trains that computing them takes, at least


def check_spikes(name: str, value: int) -> None:
    """Raise ValueError for a number of spikes that is too small or far too large; ``name`` says of which."""
    if value < 1:
        raise ValueError(f"{name} must be >= 1, got {value}")
    if value > MOST_SPIKES:
        raise ValueError(f"{name} must be at most {MOST_SPIKES}, got {value}")


def check_room(samples: int, neurons: int, spikes: int, cause: str, dtype: torch.dtype, device: torch.device) -> None:
    """Raise ValueError for trains that are larger than the memory of the machine, together with what computes them.

    Args:
        samples: of all networks.
        neurons: of a network.
        spikes: columns of the trains.
        cause: the argument that sets the number of spikes, for the message.
        dtype: of the trains.
        device: on others than the CPU, failed allocations are clear errors.
    """
    if is_host(device):
        needed = _TENSORS * samples * neurons * spikes * dtype.itemsize
        check_memory(needed, f"spike trains of {samples} samples and {neurons} neurons with {cause}")


def check_memory(needed: int, what: str) -> None:
    """Raise ValueError if that many bytes, for ``what``, are more than the machine has."""
    there = _memory()
    if needed > there:
        raise ValueError(
            f"{what} take about {needed / 1e9:.3g} GB, more than the {there / 1e9:.3g} GB of this machine; lower these "
            "numbers, or give fewer samples at a time"
        )


def _memory() -> float:
    """Bytes of memory, inf where the system does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # not on Windows
        return math.inf
