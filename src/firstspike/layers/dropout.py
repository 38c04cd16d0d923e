"""Dropout of spikes between layers."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from firstspike.layers.delay import drawn
from firstspike.layers.observed import at_observed
from firstspike.ranges import Probability
from firstspike.spiketime.values import check_times


class SpikeDropout(nn.Module):
    """In training mode each spike gets lost with the probability ``p``: its time becomes ``inf``, without gradient.

    What is lost is drawn anew in each forward pass, for each sample and input. In evaluation mode all spikes pass. A
    time cannot be scaled as ``torch.nn.Dropout`` scales values: with all of its inputs a neuron has more current, and
    spikes earlier, than in training. With ``p`` well below a half this shift is small and the same for all outputs.
    There is no dropout where output times are ``observed``.

    Args:
        p: probability with which a spike gets lost.

    Raises:
        ValueError: a probability outside [0, 1).
    """

    def __init__(self, p: Probability = 0.1) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p must be a probability >= 0 and < 1, got {p}")
        self.p = p
        self.jitter_source: torch.Generator | None = None  # see ``jitter_from``
        self.batch_part: tuple[int, slice] | None = None  # see ``part_of_batch``

    def output_size(self, inputs: int) -> int:
        """Number of outputs for that number of inputs."""
        return inputs

    def forward(
        self, times: Float[Tensor, "*batch inputs"], observed: Float[Tensor, "*batch inputs"] | None = None
    ) -> Float[Tensor, "*batch inputs"]:
        """The spikes that are left; with ``observed`` those, and the gradient of the times."""
        check_times(times)
        if observed is not None:
            return at_observed(times, observed)
        if not self.training or not self.p:
            return times
        lost = drawn(torch.rand, times, self.jitter_source, self.batch_part) < self.p
        return torch.where(lost, torch.inf, times)

    def extra_repr(self) -> str:
        """The probability, as torch prints it."""
        return f"p={self.p}"
