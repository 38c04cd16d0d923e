"""What a forward pass saves of each sample, where neurons share the order of arrival: whole numbers and real ones.

Of the inputs these are their order of arrival and sorted times, and how many arrive; of each neuron the place of its
last causal input (-1: silent), and dV/dt at the spike in units of the threshold.

In a kernel a row of ``order`` or ``arrival`` has all whole or real numbers of a sample; those of the others begin
further on, and so reach into the next sample: how long they are, only ``inputs`` and ``outputs`` tell.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PAD = 16  # numbers that vectors may reach past the last input
SAVED = {
    "order": "int32 ensemble batch ints",
    "count": "int32 ensemble batch ints",  # one, [e, b, 0]
    "last": "int32 ensemble batch ints",
    "arrival": "real ensemble batch reals",
    "slope": "real ensemble batch reals",
}
"""The arrays, for a ``Layout``."""
BOTH = "order", "arrival"
"""Those that begin with the memory of whole and of real numbers."""


def saved_sizes(inputs: int, outputs: int) -> dict[str, int]:
    """How many whole and real numbers each sample has."""
    return {"ints": inputs + 1 + outputs, "reals": inputs + PAD + outputs}


def saved_within(inputs: int) -> dict[str, tuple[str, int]]:
    """Where the other arrays lie within ``BOTH``, for a ``Plan``."""
    return {"count": ("order", inputs), "last": ("order", inputs + 1), "slope": ("arrival", inputs + PAD)}


def saved_for(times: "Tensor", outputs: int) -> "tuple[Tensor, Tensor]":
    """Memory for both kinds of numbers."""
    import torch  # which compiling does not need

    *lead, inputs = times.shape
    sizes = saved_sizes(inputs, outputs)
    ints = times.new_empty((*lead, sizes["ints"]), dtype=torch.int32)
    return ints, times.new_empty((*lead, sizes["reals"]))
