"""Images of spike times, cut into patches. Times stay flat, ``(..., channels * height * width)``, between layers."""

import math
from collections.abc import Sequence
from numbers import Integral
from typing import NamedTuple, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from firstspike.ranges import Border, Size
from firstspike.spiketime.values import check_times

Pair = Size | tuple[Size, Size]
Borders = Border | tuple[Border, Border]


class Image(NamedTuple):
    """Shape of an image, whose pixels are in this order: all of a channel, row by row."""

    channels: int
    height: int
    width: int

    @classmethod
    def checked(cls, shape: tuple[int, int, int]) -> Self:
        """The shape, or a ValueError."""
        if not isinstance(shape, Sequence):
            raise ValueError(
                f"expected an image (channels, height, width), got {shape!r}: unlike torch's, these layers need the "
                "size of their images as their first argument, e.g. LIFConv2d((1, 28, 28), out_channels, kernel_size)"
            )
        if len(shape) != 3 or any(int(size) != size or size < 1 for size in shape):
            raise ValueError(f"expected an image (channels, height, width) of sizes >= 1, got {shape}")
        return cls(*(int(size) for size in shape))

    @property
    def size(self) -> int:
        """Number of pixels in all channels."""
        return math.prod(self)

    def __str__(self) -> str:
        return "x".join(map(str, self))


class Window(NamedTuple):
    """A window that moves over an image: its height and width, its steps, and the border around the image."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)

    @classmethod
    def checked(cls, kernel: Pair, stride: Pair, padding: Borders = 0) -> Self:
        """One number each for both directions, or two; a ValueError names the problem."""
        pairs = []
        for name, value, least in (("kernel_size", kernel, 1), ("stride", stride, 1), ("padding", padding, 0)):
            pair = tuple(value) if isinstance(value, Sequence) else (value, value)
            if len(pair) != 2 or not all(isinstance(x, Integral) and x >= least for x in pair):
                raise ValueError(f"{name} must be one or two whole numbers >= {least}, got {value}")
            pairs.append((int(pair[0]), int(pair[1])))
        if any(border >= size for size, border in zip(pairs[0], pairs[2], strict=True)):
            raise ValueError(
                f"padding must be below kernel_size, or windows lie beyond the image: got {padding}, {kernel}"
            )
        return cls(*pairs)

    def positions(self, image: Image) -> tuple[int, int]:
        """Rows and columns of its positions; ValueError if it does not fit into the image."""
        sizes = [side + 2 * border for side, border in zip(image[1:], self.padding, strict=True)]
        if any(k > size for k, size in zip(self.kernel, sizes, strict=True)):
            raise ValueError(f"a window of {self.kernel[0]}x{self.kernel[1]} does not fit into {sizes[0]}x{sizes[1]}")
        rows, columns = ((n - k) // s + 1 for n, k, s in zip(sizes, self.kernel, self.stride, strict=True))
        return rows, columns

    def patches(self, times: Float[Tensor, "*batch pixels"], image: Image) -> Float[Tensor, "*batch positions patch"]:
        """The inputs of the window at each position, channel after channel. Nothing spikes in the border."""
        lead, (above, beside) = times.shape[:-1], self.padding
        pixels = times.reshape(-1, *image)
        if any(self.padding):
            pixels = functional.pad(pixels, (beside, beside, above, above), value=math.inf)
        seen = functional.unfold(pixels, self.kernel, stride=self.stride)
        return seen.transpose(-1, -2).reshape(*lead, seen.shape[-1], seen.shape[-2])

    def places(self, image: Image) -> Int[Tensor, "positions patch"]:
        """Numbers of the pixels that ``patches`` holds. ``image.size`` stands for the border."""
        numbered = torch.arange(image.size, dtype=torch.float64, device="cpu")
        return self.patches(numbered, image).nan_to_num(posinf=image.size).long().contiguous()


def is_image(times: Tensor, image: Image) -> bool:
    """Whether times have the form of the image, ``(..., channels, height, width)``, instead of lying flat."""
    return times.ndim >= 3 and tuple(times.shape[-3:]) == image


def flat(times: Tensor, image: Image, layer: str) -> Float[Tensor, "*batch pixels"]:
    """Times of an image, flat as they are between layers, from flat ones or those of the form of the image."""
    check_times(times)
    if is_image(times, image):
        return times.flatten(-3)
    if not times.ndim or times.shape[-1] != image.size:
        raise ValueError(
            f"{layer} expects times (..., {image.size}) of an image {image}, got {tuple(times.shape)}; "
            f"(..., {', '.join(map(str, image))}) is taken as well"
        )
    return times
