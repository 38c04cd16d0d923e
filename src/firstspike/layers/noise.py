"""Randomness in a training: the source of random numbers for jitter of delays and dropout, and dropout."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from firstspike.deferred import sent
from firstspike.layers.trains import Noise, SpikeLayer, at_observed
from firstspike.ranges import Probability, checks_ranges
from firstspike.spiketime.values import check_times


def drawn(draw: Callable[..., Tensor], like: Tensor, noise: Noise) -> Tensor:
    """Random numbers in the shape of ``like`` by ``torch.rand`` or ``randn``."""
    source, part = noise
    shape = like.shape if part is None else (part[0], *like.shape[1:])
    # torch.compile cannot take a generator that is None
    given = {"device": like.device} if source is None else {"generator": source, "device": source.device}
    numbers = draw(shape, dtype=like.dtype, **given)
    return sent(numbers if part is None else numbers[part[1]], like.device)


@contextmanager
def jitter_from(
    network: nn.Module, source: torch.Generator | None = None, part: tuple[int, slice] | None = None
) -> Iterator[None]:
    """Inside, jitter of delays and dropout come from ``source``; otherwise from torch's global generator.

    A training that keeps the generator's state can thus continue bit for bit. With ``part``, see ``Noise``, each sample
    has the noise that it has in the whole batch.
    """
    before = [(module, module.noise) for module in network.modules() if isinstance(module, SpikeLayer)]
    for layer, old in before:
        layer.noise = Noise(old.source if source is None else source, old.part if part is None else part)
    try:
        yield
    finally:
        for layer, old in before:
            layer.noise = old


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside: delays do not jitter."""
    trains = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(trains)


@checks_ranges
class SpikeDropout(SpikeLayer):
    """In training mode each spike is lost with the probability ``p``: its time becomes ``inf``, without gradient.

    The lost spikes are redrawn in each forward pass, for each sample and input. In evaluation mode all spikes pass. A
    time cannot be scaled as ``torch.nn.Dropout`` scales values: with all of its inputs a neuron has more current, and
    spikes earlier, than in training. With ``p`` well below a half this shift is small and the same for all outputs.
    Dropout is off if output times are ``observed``.

    Args:
        p: probability with which a spike is lost.

    Raises:
        ValueError: a probability outside [0, 1).
    """

    def __init__(self, p: Probability = 0.1) -> None:
        super().__init__()
        self.p = p

    def forward(
        self, times: Float[Tensor, "*batch inputs"], observed: Float[Tensor, "*batch inputs"] | None = None
    ) -> Float[Tensor, "*batch inputs"]:
        """The spikes that are left; with ``observed``, these times and the gradient of the times."""
        check_times(times)
        if observed is not None:
            return at_observed(times, observed)
        if not self.training or not self.p:
            return times
        lost = drawn(torch.rand, times, self.noise) < self.p
        return torch.where(lost, torch.inf, times)
