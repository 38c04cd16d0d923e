"""What a forward pass saves of each sample, where neurons share the order of arrival: whole numbers and real ones.

Of the inputs these are their order of arrival and sorted times, and how many arrive; of each neuron the place of its
last causal input (-1: silent), and dV/dt at the spike in units of the threshold.

In a kernel a row of ``order`` or ``arrival`` has all whole or real numbers of a sample; those of the others begin
further on, and so reach into the next sample: how long they are, only ``inputs`` and ``outputs`` tell.
"""

from typing import TYPE_CHECKING

from firstspike.spiketime.cpu.rows import PAD

if TYPE_CHECKING:
    from torch import Tensor

SAVED = {
    "order": "int32 ensemble batch ints",
    "count": "int32 ensemble batch ints",  # one, [e, b, 0]
    "last": "int32 ensemble batch ints",
    "arrival": "real ensemble batch reals",
    "slope": "real ensemble batch reals",
}
"""The arrays, for a ``Layout``."""


def saved_sizes(inputs: int, outputs: int) -> dict[str, int]:
    """How many whole and real numbers each sample has."""
    return {"ints": inputs + 1 + outputs, "reals": inputs + PAD + outputs}


def saved_for(times: "Tensor", outputs: int) -> "tuple[Tensor, Tensor]":
    """Memory for both kinds of numbers."""
    import torch  # which compiling does not need

    *lead, inputs = times.shape
    sizes = saved_sizes(inputs, outputs)
    ints = times.new_empty((*lead, sizes["ints"]), dtype=torch.int32)
    return ints, times.new_empty((*lead, sizes["reals"]))


def saved_places(saved: "tuple[Tensor, ...]", inputs: int) -> tuple[int, ...]:
    """Addresses of the arrays of ``SAVED``, as long as the two tensors are kept."""
    ints, reals = saved
    whole, real = ints.data_ptr(), reals.data_ptr()
    return whole, whole + 4 * inputs, whole + 4 * (inputs + 1), real, real + reals.element_size() * (inputs + PAD)
