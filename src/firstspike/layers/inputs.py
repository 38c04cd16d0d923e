"""Layers that add to the input: bias spikes and copies."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.layers.trains import SpikeLayer, at_observed
from firstspike.ranges import Finite, Size, checks_ranges
from firstspike.spiketime.values import check_times


class BiasSpikes(SpikeLayer):
    """Appends spikes at fixed times: ``times (..., n) -> times (..., n + biases)``.

    Args:
        times: when the bias neurons spike, in the unit of the times.
        device: as in torch.
        dtype: as in torch; the input's own is used when it differs.
    """

    times: Tensor

    def __init__(
        self, times: Sequence[Finite], *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        values = torch.as_tensor(times, dtype=dtype or torch.get_default_dtype())
        if values.ndim != 1 or not len(values) or not bool(torch.isfinite(values).all()):
            raise ValueError(f"times must be a list of finite numbers, got {times!r}")
        self.register_buffer("times", values.to(device))

    def output_size(self, inputs: int) -> int:
        """Number of outputs for that number of inputs."""
        return inputs + len(self.times)

    def forward(self, times: Float[Tensor, "*batch inputs"], observed: Tensor | None = None) -> Tensor:
        """The times with the bias spikes appended; with ``observed``, these times and the gradient of the times."""
        check_times(times)
        bias = self.times.to(times).expand(*times.shape[:-1], -1)
        joined = torch.cat([times, bias], dim=-1)
        return joined if observed is None else at_observed(joined, observed)

    def extra_repr(self) -> str:
        """The times."""
        return ", ".join(f"{t:g}" for t in self.times.tolist())


@checks_ranges
class Multiplex(SpikeLayer):
    """Copies every input: ``times (..., n) -> times (..., n * copies)``, the copies of an input side by side.

    A chip whose weights are small reaches a neuron's threshold with several synapses for one input.

    Args:
        copies: copies of each input.

    Raises:
        ValueError: less than one copy.
    """

    def __init__(self, copies: Size) -> None:
        super().__init__()
        self.copies = copies

    def output_size(self, inputs: int) -> int:
        """Number of outputs for that number of inputs."""
        return inputs * self.copies

    def forward(self, times: Float[Tensor, "*batch inputs"], observed: Tensor | None = None) -> Tensor:
        """Every time, ``copies`` times, or with ``observed``, these times and the gradient of the copies."""
        check_times(times)
        copied = times.repeat_interleave(self.copies, dim=-1)
        return copied if observed is None else at_observed(copied, observed)
