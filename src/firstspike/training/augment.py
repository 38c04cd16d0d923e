"""Training samples that vary from epoch to epoch: images flipped, shifted or cut, times with noise, inputs left out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor

from firstspike.data import SpikeData
from firstspike.deferred import sent
from firstspike.ranges import Border, Distance, NotNegative, Probability, checks_ranges


@checks_ranges
@dataclass(frozen=True)
class Augment:
    """Random changes to training samples, redrawn in every epoch.

    Args:
        flip: mirror half of the images left to right.
        shift: move images by up to this many pixels in each direction: by whole pixels if it is a whole number,
            otherwise by any distance, and times are interpolated.
        deform: standard deviation, in pixels, of the distances by which the corners of an image move. What lies between
            moves with them, so that images are stretched, sheared and turned.
        cutout: side of a square of each image that is blank, at a random place. Its centre is inside the image
            (DeVries and Taylor, arXiv 1708.04552, 2017).
        jitter: standard deviation of Gaussian noise on the input times, in the unit of the times.
        reflect: where the noise would make a time negative, take its absolute value, as the code of Göltz et al. 2021.
        dropout: fraction of the inputs that do not spike.

    Raises:
        ValueError: a value out of its range.
    """

    flip: bool = False
    shift: Distance = 0
    deform: Distance = 0
    cutout: Border = 0
    jitter: NotNegative = 0.0
    reflect: bool = False
    dropout: Probability = 0.0

    def __call__(
        self, times: Float[Tensor, "members batch inputs *spikes"], data: SpikeData, sources: Sequence[torch.Generator]
    ) -> Float[Tensor, "members batch inputs *spikes"]:
        """A batch as each of several networks sees it this time.

        Args:
            times: the batch of each network. Of trains every spike jitters by itself, and pixels move with theirs.
            data: the data of the samples. All changes but ``jitter`` and ``dropout`` need its ``image``.
            sources: of the random numbers of each network. Only enabled changes draw any.

        Raises:
            ValueError: changes of images for data without an image shape, or as large as the images; ``deform``, or
                ``shift`` by parts of pixels, for spike trains.
        """
        if self == _NOTHING:
            return times
        check_augment(self, data)
        batch, inputs, *spikes = times.shape[1:]

        def drawn(draw: Callable[[torch.Generator], Tensor]) -> Tensor:
            return sent(torch.stack([draw(source) for source in sources]), times.device)

        image = data.image or (0, 0, 0)
        blank = data.blank or (torch.inf,) * image[0]
        if trains := spikes and (self.flip or self.shift or self.cutout):  # first spikes, second ones ... as channels
            blank += (torch.inf,) * ((spikes[0] - 1) * image[0])
            image = (len(blank), *image[1:])
            times = times.movedim(-1, 2).flatten(2)
        if self.flip:
            flipped = drawn(lambda source: torch.rand((batch, 1), generator=source)) < 0.5
            times = torch.where(flipped, times.unflatten(-1, image).flip(-1).flatten(-3), times)
        if reach := self.shift:
            if float(reach).is_integer():
                steps = drawn(lambda source: torch.randint(-int(reach), int(reach) + 1, (batch, 2), generator=source))
                times = shifted(times, steps, image, blank)
            else:
                steps = drawn(lambda source: torch.rand((batch, 2), generator=source).mul_(2).sub_(1).mul_(reach))
                times = interpolated(times, steps, image, blank)
        if self.deform:
            corners = drawn(lambda source: torch.randn((batch, 2, 2, 2), generator=source).mul_(self.deform))
            times = interpolated(times, between(corners, *image[1:]), image, blank)
        if self.cutout:
            places = drawn(lambda source: torch.rand((batch, 2), generator=source))
            times = cut_out(times, places, self.cutout, image, blank)
        if trains:
            times = times.unflatten(2, (spikes[0], inputs)).movedim(2, -1)
        if self.jitter:
            shape = (batch, inputs, *spikes)
            times = times + self.jitter * drawn(lambda source: torch.randn(shape, generator=source, dtype=times.dtype))
            times = times.abs() if self.reflect else times
            times = times.sort(dim=-1).values if spikes else times
        if self.dropout:
            dropped = drawn(lambda source: torch.rand((batch, inputs), generator=source)) < self.dropout
            times = torch.where(dropped.unsqueeze(-1) if spikes else dropped, torch.inf, times)
        return times


_NOTHING = Augment()


def check_augment(augment: Augment, data: SpikeData) -> None:
    """Raise a ValueError unless these changes fit the data."""
    for name, reason in misfits(augment, data):
        raise ValueError(f"augment: {name} {reason}")


def misfits(augment: Augment, data: SpikeData) -> Iterator[tuple[str, str]]:
    """Arguments that do not fit the data, each with the reason."""
    side = 0 if data.image is None else min(data.image[1:])
    for name in ("flip", "shift", "deform", "cutout"):
        value = getattr(augment, name)
        if value and not side:
            yield name, "needs data that are images; leave it out"
        elif value >= side > 0 and name != "flip":
            yield name, f"must be below {side}, the size of the images, got {value:g}"
        elif data.trains and (value % 1 or (value and name == "deform")):
            yield name, f"would mix the spike trains of several pixels, got {value:g}; shift by whole pixels instead"


def between(corners: Float[Tensor, "*batch 2 2 2"], height: int, width: int) -> Float[Tensor, "*batch height width 2"]:
    """A step for each pixel, linear between the steps of the four corners."""
    down, right = (torch.linspace(0, 1, size, device=corners.device) for size in (height, width))
    left_and_right = torch.lerp(corners[..., :1, :, :], corners[..., 1:, :, :], down[:, None, None])
    return torch.lerp(left_and_right[..., :1, :], left_and_right[..., 1:, :], right[:, None])


def shifted(
    times: Float[Tensor, "*batch pixels"],
    steps: Int[Tensor, "*batch 2"],
    image: tuple[int, int, int],
    blank: Sequence[float],
) -> Float[Tensor, "*batch pixels"]:
    """Flat images moved down and to the right by whole pixels, with ``blank`` times of pixels from outside."""
    _, height, width = image
    down, right = steps.long().unsqueeze(-1).unbind(-2)
    row = (torch.arange(height, device=times.device) - down).unsqueeze(-1)
    column = (torch.arange(width, device=times.device) - right).unsqueeze(-2)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    place = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    pixels = times.unflatten(-1, (image[0], height * width))
    place, inside = (x.flatten(-2).unsqueeze(-2).expand_as(pixels) for x in (place, inside))
    outside = sent(torch.tensor(blank, dtype=times.dtype), times.device).unsqueeze(-1)
    return torch.where(inside, pixels.gather(-1, place), outside).flatten(-2)


def interpolated(
    times: Float[Tensor, "*batch pixels"],
    steps: Float[Tensor, "*batch 2"] | Float[Tensor, "*batch height width 2"],
    image: tuple[int, int, int],
    blank: Sequence[float],
) -> Float[Tensor, "*batch pixels"]:
    """Images moved by any distance: each time is the bilinear mean over the four pixels that meet there.

    ``steps``, down and to the right, are those of a whole image or of each of its pixels. Silent pixels are left out of
    the mean. A pixel of which half or more is silent is silent.
    """
    _, height, width = image
    outside = sent(torch.tensor(blank, dtype=times.dtype), times.device)[:, None, None]
    framed = outside.expand(*times.shape[:-1], -1, height + 3, width + 3).clone()
    framed[..., 1:-2, 1:-2] = times.unflatten(-1, image)
    spikes = (framed < torch.inf).to(times.dtype)
    known = torch.stack((framed.nan_to_num(posinf=0.0), spikes)).flatten(-2)

    down, right = (steps if steps.dim() > times.dim() else steps[..., None, None, :]).to(times.dtype).unbind(-1)
    row = (torch.arange(height, device=times.device).unsqueeze(-1) - down).clamp(-1, height) + 1
    column = (torch.arange(width, device=times.device) - right).clamp(-1, width) + 1
    first = row.floor().long() * (width + 3) + column.floor().long()
    found = torch.zeros_like(known[..., : height * width])
    for below, beside in product((0, 1), repeat=2):
        share = (row.frac() if below else 1 - row.frac()) * (column.frac() if beside else 1 - column.frac())
        place = (first + below * (width + 3) + beside).flatten(-2).unsqueeze(-2)
        found += share.flatten(-2).unsqueeze(-2) * known.gather(-1, place.expand_as(found))
    total, present = found
    return torch.where(present > 0.5, total / present, torch.inf).flatten(-2)


def cut_out(
    times: Float[Tensor, "*batch pixels"],
    places: Float[Tensor, "*batch 2"],
    side: int,
    image: tuple[int, int, int],
    blank: Sequence[float],
) -> Float[Tensor, "*batch pixels"]:
    """Flat images with a blank square. Near the border only a part of it lies inside.

    ``places`` are row and column of the centre, as fractions of height and width in [0, 1).
    """
    inside = []
    for size, place in zip(image[1:], places.unbind(-1), strict=True):
        first = (place * size).long().unsqueeze(-1) - side // 2
        position = torch.arange(size, device=times.device)
        inside.append((position >= first) & (position < first + side))
    square = (inside[0].unsqueeze(-1) & inside[1].unsqueeze(-2)).unsqueeze(-3)
    outside = sent(torch.tensor(blank, dtype=times.dtype), times.device)[:, None, None]
    return torch.where(square, outside, times.unflatten(-1, image)).flatten(-3)
