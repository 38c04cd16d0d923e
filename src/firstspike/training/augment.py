"""Training samples that vary from epoch to epoch: images flipped and shifted, times with noise, inputs left out."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.training.config import Config

Draw = Callable[[torch.Generator], Tensor]


def augmented(
    times: Float[Tensor, "members batch inputs"], config: Config, sources: Sequence[torch.Generator]
) -> Float[Tensor, "members batch inputs"]:
    """A batch as its networks see it this time.

    Args:
        times: the batch of each member.
        config: says how it varies.
        sources: of the random numbers of each member; what is not asked for draws none.
    """
    training, (_, batch, inputs) = config.training, times.shape

    def drawn(draw: Draw) -> Tensor:
        return torch.stack([draw(source) for source in sources]).to(times.device)

    image = config.data.image()
    if training.augment.flip:
        assert image is not None, "checked with the config"
        turned = drawn(lambda source: torch.rand((batch, 1), generator=source)) < 0.5
        times = torch.where(turned, times.unflatten(-1, image).flip(-1).flatten(-3), times)
    if reach := training.augment.shift:
        assert image is not None, "checked with the config"
        steps = drawn(lambda source: torch.randint(-reach, reach + 1, (batch, 2), generator=source))
        times = shifted(times, steps, image, config.data.blank())
    if training.time_noise:
        shape = (batch, inputs)
        times = times + training.time_noise * drawn(
            lambda source: torch.randn(shape, generator=source, dtype=times.dtype)
        )
    if training.augment.drop:
        lost = drawn(lambda source: torch.rand((batch, inputs), generator=source)) < training.augment.drop
        times = torch.where(lost, torch.inf, times)
    return times


def shifted(
    times: Float[Tensor, "*batch pixels"],
    steps: Float[Tensor, "*batch 2"],
    image: tuple[int, int, int],
    blank: Sequence[float],
) -> Float[Tensor, "*batch pixels"]:
    """Images moved down and to the right by whole pixels.

    Args:
        times: flat images, channel after channel.
        steps: rows and columns to move by, negative for up and left.
        image: channels, height and width.
        blank: time of pixels that come in from outside, in each channel.
    """
    _, height, width = image
    down, right = steps.long().unsqueeze(-1).unbind(-2)
    row = (torch.arange(height, device=times.device) - down).unsqueeze(-1)
    column = (torch.arange(width, device=times.device) - right).unsqueeze(-2)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    place = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    pixels = times.unflatten(-1, (image[0], height * width))
    place, inside = (x.flatten(-2).unsqueeze(-2).expand_as(pixels) for x in (place, inside))
    outside = torch.tensor(blank, dtype=times.dtype, device=times.device).unsqueeze(-1)
    return torch.where(inside, pixels.gather(-1, place), outside).flatten(-2)
