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
from firstspike.spiketime.values import check_padding, check_times

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
        return shown_form(self)


def shown_form(form: tuple[int, ...]) -> str:
    """Sizes of an image as they are printed."""
    return "x".join(map(str, form))


class Window(NamedTuple):
    """A window that moves over an image: its pixels, its steps, the border around the image, and how far pixels lie."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    @classmethod
    def checked(cls, kernel: Pair, stride: Pair, padding: Borders = 0, dilation: Pair = 1) -> Self:
        """One number each for both directions, or two; a ValueError names the problem."""
        pairs = []
        given = ("kernel_size", kernel, 1), ("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)
        for name, value, least in given:
            pair = tuple(value) if isinstance(value, Sequence) else (value, value)
            if len(pair) != 2 or not all(isinstance(x, Integral) and x >= least for x in pair):
                raise ValueError(f"{name} must be one or two whole numbers >= {least}, got {value}")
            pairs.append((int(pair[0]), int(pair[1])))
        found = cls(*pairs)
        if any(border >= size for size, border in zip(found.extent, found.padding, strict=True)):
            wide = "kernel_size" if found.extent == found.kernel else f"the extent of the window, {found.extent}"
            raise ValueError(f"padding must be below {wide}, or windows lie beyond the image: got {padding}, {kernel}")
        return found

    @property
    def extent(self) -> tuple[int, int]:
        """Rows and columns from its first pixel to its last."""
        rows, columns = ((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))
        return rows, columns

    def positions(self, image: Image) -> tuple[int, int]:
        """Rows and columns of its positions; ValueError if it does not fit into the image."""
        sizes = [side + 2 * border for side, border in zip(image[1:], self.padding, strict=True)]
        if any(k > size for k, size in zip(self.extent, sizes, strict=True)):
            raise ValueError(f"a window of {self.extent[0]}x{self.extent[1]} does not fit into {sizes[0]}x{sizes[1]}")
        rows, columns = ((n - k) // s + 1 for n, k, s in zip(sizes, self.extent, self.stride, strict=True))
        return rows, columns

    def patches(
        self, times: Tensor, image: Image, trains: bool = False
    ) -> Float[Tensor, "*batch positions patch"] | Float[Tensor, "*batch positions patch spikes"]:
        """The inputs of the window at each position, channel after channel. Nothing spikes in the border."""
        if trains:
            return self.patches(times.mT, image).movedim(-3, -1)
        lead, (above, beside) = times.shape[:-1], self.padding
        pixels = times.reshape(-1, *image)
        if any(self.padding):
            pixels = functional.pad(pixels, (beside, beside, above, above), value=math.inf)
        seen = functional.unfold(pixels, self.kernel, self.dilation, stride=self.stride)
        return seen.transpose(-1, -2).reshape(*lead, seen.shape[-1], seen.shape[-2])

    def places(self, image: Image) -> Int[Tensor, "positions patch"]:
        """Numbers of the pixels that ``patches`` holds. ``image.size`` stands for the border."""
        numbered = torch.arange(image.size, dtype=torch.float64, device="cpu")
        return self.patches(numbered, image).nan_to_num(posinf=image.size).long().contiguous()


def flattened(times: Tensor, form: tuple[int, ...], trains: bool) -> Tensor:
    """Times of the form of an image, ``(..., *form)`` or ``(..., *form, spikes)``, flat; all others as they are.

    Of ``trains``, images with up to one dimension more are first spikes.
    """
    last = times.ndim - (trains and times.ndim > len(form) + 1)
    first = last - len(form)
    flat_trains = trains and times.ndim == 3 and times.shape[1] == math.prod(form)
    if first < 0 or flat_trains or tuple(times.shape[first:last]) != form:
        return times
    return times.flatten(first, last - 1)


def flat(
    times: Tensor, form: tuple[int, ...], layer: str, trains: bool = False
) -> Float[Tensor, "*batch pixels"] | Float[Tensor, "*batch pixels spikes"]:
    """Times of an image, flat as they are between layers, from flat ones or those of the form of the image."""
    check_times(times)
    found = flattened(times, form, trains)
    found = found.unsqueeze(-1) if trains and found.ndim <= 2 else found
    pixels, more = math.prod(form), ", spikes" if trains else ""
    if not times.ndim or found.shape[-1 - trains] != pixels:
        raise ValueError(
            f"{layer} expects times (..., {pixels}{more}) of an image {shown_form(form)}, got "
            f"{tuple(times.shape)}; (..., {', '.join(map(str, form))}{more}) is taken as well"
        )
    if trains:
        check_padding(found)
    return found
