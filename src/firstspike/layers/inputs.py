"""Layers that add to the input: bias spikes, a Poisson background, copies."""

import math
import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.layers.noise import drawn
from firstspike.layers.trains import Noise, SpikeLayer, Spikes, at_observed
from firstspike.layers.windows import columns_within, joined_trains
from firstspike.ranges import Finite, Positive, Seed, Size, checks_ranges, reads_plainly
from firstspike.spiketime.values import check_room, check_times


@reads_plainly
class BiasSpikes(SpikeLayer):
    """Appends spikes at fixed times: ``times (..., n) -> times (..., n + biases)``.

    Args:
        times: when the bias neurons spike, in the unit of the times.
        device: as in torch.
        dtype: as in torch. The input's own is used when it differs.
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
        """The times, for ``repr``."""
        return ", ".join(f"{t:g}" for t in self.times.tolist())


def poisson_trains(rate: float | Tensor, duration: float, shape: Sequence[int], noise: Noise) -> Tensor:
    """Poisson trains up to a time, in float64: sums of exponential intervals, each train with its own rate.

    Their size covers all but a probability of 1e-15, so it does not depend on the random numbers.
    """
    fastest = float(rate.max()) if isinstance(rate, Tensor) else rate
    mean = duration * fastest
    room = mean + 9 * math.sqrt(mean) + 15
    check_room(1, math.prod(shape), room, f"room for {room:.15g} spikes", torch.float64, torch.device("cpu"))
    if fastest > 1 and mean > 1000:
        many = f"a rate of {fastest:g} for each unit of time up to {duration:g} is about {mean:.0f} spikes in a train"
        warnings.warn(f"{many}; with times in ms, divide rates in Hz by 1000", stacklevel=3)
    numbers = torch.empty(*shape, math.ceil(room), dtype=torch.float64, device="cpu")
    times = -torch.log1p(-drawn(torch.rand, numbers, noise)).cumsum(dim=-1) / torch.as_tensor(rate).unsqueeze(-1)
    return torch.where(times < duration, times, math.inf)


@checks_ranges
class PoissonSpikes(SpikeLayer):
    """Appends Poisson spike trains: ``times (batch, n[, spikes]) -> trains (batch, n + sources, spikes)``.

    In training mode they are drawn anew for each sample, from where jitter and dropout come, so that a training that is
    resumed continues bit for bit. In evaluation mode all samples have the same, those of the ``seed``.

    Args:
        sources: number of further inputs.
        rate: spikes of each per unit of time: with times in ms, a rate in Hz divided by 1000.
        duration: when they end. They begin at time 0.
        seed: number that fixes the trains of evaluation mode.

    Raises:
        ValueError: a value out of its range, more spikes than fit.
    """

    takes_trains = True
    gives = "trains"
    times: Tensor

    def __init__(self, sources: Size, rate: Positive, duration: Positive, *, seed: Seed = 0) -> None:
        super().__init__()
        self.sources, self.rate, self.duration, self.seed = sources, rate, duration, seed
        trains = poisson_trains(rate, duration, (sources,), Noise(torch.Generator().manual_seed(seed)))
        self.register_buffer("times", columns_within(trains, -math.inf, math.inf), persistent=False)

    def output_size(self, inputs: int) -> int:
        """Number of outputs for that number of inputs."""
        return inputs + self.sources

    def forward(self, times: Spikes, observed: Tensor | None = None) -> Tensor:
        """The trains with the background appended; with ``observed``, these times and the gradient of the times."""
        check_times(times)
        trains = times.unsqueeze(-1) if times.ndim <= 2 else times
        if observed is not None:
            return at_observed(joined_trains(trains, observed[..., trains.shape[-2] :, :]), observed)
        shape = (*trains.shape[:-2], self.sources)
        background = self.times.expand(*shape, -1)
        if self.training:
            background = poisson_trains(self.rate, self.duration, shape, self.noise)
        return joined_trains(trains, background.to(trains))


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
