"""Connections past layers: earlier spikes, after a delay, appended to those of the last layer or merged with them.

A network stays a chain of layers. A layer of this kind also takes the spikes that entered the chain ``over`` layers
before it::

    fs.LIFLinear(64, 64), fs.LIFLinear(64, 64), fs.Concatenate(64, over=2), fs.LIFLinear(128, 10)

has the inputs of the first layer as further inputs of the last one. A ``Network`` passes these spikes as
``skipped``. A layer of another package gets them as well if it has an attribute ``over``.
"""

import math
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.layers.conv import EarliestPool2d
from firstspike.layers.delay import Delay, DelayRule
from firstspike.layers.patches import Image
from firstspike.layers.trains import SpikeLayer, TensorOptions, at_observed
from firstspike.ranges import NotNegative, Size, checks_ranges
from firstspike.signature import takes_arguments_of
from firstspike.spiketime.values import check_times

Shape = int | tuple[int, int, int]


@takes_arguments_of(Delay, without=("features", "rule", "copies", "trains"))
@checks_ranges
class Branch(SpikeLayer):
    """The base of layers that end connections past layers: sizes, and the delays of the carried spikes.

    From a larger image, whose height and width are multiples of those of the last layer, it takes the earliest spike of
    each window.

    Args:
        inputs: size of the last layer's output: a number, or an image ``(channels, height, width)``.
        over: number of skipped layers: 2 takes the spikes that entered two layers earlier.
        skipped: number or image that is carried past them. By default it is like the inputs.
        delay: delay of the spikes that are carried past, in the unit of the times: a rule for trainable delays, one
            for each input or channel; a number for a fixed delay, 0 for none. By default they are trained, without an
            upper bound, from 0 or, after ``start_firing_`` (always in a config), from the delay with which these spikes
            arrive with those of the last layer.

    Raises:
        ValueError: no layer to pass over, a negative delay, images whose sizes do not fit.
    """

    def __init__(
        self,
        inputs: Shape,
        over: Size,
        *,
        skipped: Shape | None = None,
        delay: DelayRule | NotNegative | None = None,
        **options: Unpack[TensorOptions],
    ) -> None:
        super().__init__()
        self.over, self.delay = over, delay
        self.image, self.in_features = _sizes("inputs", inputs)
        carried, self.skipped_features = _sizes("skipped", inputs if skipped is None else skipped)
        if (carried is None) != (self.image is None):
            raise ValueError(f"inputs and skipped must both be images or both be numbers, got {inputs} and {skipped}")
        self.reduce = None
        if carried is not None and self.image is not None and carried[1:] != self.image[1:]:
            self.reduce = _reduction(carried, self.image)
            carried = self.reduce.out_image
        self.carried_features = self.skipped_features if carried is None else carried.size
        self.out_features, self.out_image = self._made(self.image, carried)
        self.delays: Delay | None = None
        if delay is None or isinstance(delay, DelayRule) or delay > 0:
            start = 0.0 if delay is None else delay
            if not isinstance(start, DelayRule):
                start = DelayRule("clip", scale=math.inf, mean=start, std=0.0, trainable=delay is None)
            shared = 1 if carried is None else carried.height * carried.width  # one delay for each channel
            self.delays = Delay(self.carried_features, start, copies=shared, **options)

    def _made(self, image: Image | None, carried: Image | None) -> tuple[int, Image | None]:
        """Number of outputs, and the image that both together are, of images; in a subclass."""
        raise NotImplementedError

    @torch.no_grad()
    def align_(self, times: Float[Tensor, "*batch inputs"], skipped: Float[Tensor, "*batch skipped"]) -> None:
        """Let the carried spikes arrive with those of the last layer, in the median, if ``delay`` is not given."""
        arrived = [x[torch.isfinite(x)] for x in (times, self.reduced(skipped))]
        if self.delay is None and self.delays is not None and all(len(x) for x in arrived):
            late, early = (x.median() for x in arrived)
            self.delays.delay_raw.fill_(float((late - early).clamp(min=0)))

    def reduced(self, skipped: Float[Tensor, "*batch skipped"]) -> Float[Tensor, "*batch carried"]:
        """The spikes that are carried past, before their delay."""
        return skipped if self.reduce is None else self.reduce(skipped)

    def join(
        self, times: Float[Tensor, "*batch inputs"], carried: Float[Tensor, "*batch carried"]
    ) -> Float[Tensor, "*batch outputs"]:
        """Join both after the delay; subclasses define it."""
        raise NotImplementedError

    def forward(
        self,
        times: Float[Tensor, "*batch inputs"],
        observed: Float[Tensor, "*batch outputs"] | None = None,
        *,
        skipped: Float[Tensor, "*batch skipped"],
    ) -> Float[Tensor, "*batch outputs"]:
        """The times of the last layer with the carried ones; with ``observed``, these times and the gradient."""
        for name, given, size in (("times", times, self.in_features), ("skipped", skipped, self.skipped_features)):
            check_times(given)
            if not given.ndim or given.shape[-1] != size:
                shown = tuple(given.shape)
                raise ValueError(f"{type(self).__name__} expects {name} of the shape (..., {size}), got {shown}")
        carried = self.reduced(skipped)
        if self.delays is not None:
            carried = self.delays(carried) if observed is None else carried + self.delays.delay
        joined = self.join(times, carried)
        return joined if observed is None else at_observed(joined, observed)

    def extra_repr(self) -> str:
        """Sizes, as torch prints them."""
        inputs, skipped = self.image or self.in_features, self.skipped_features
        return f"{inputs}, over={self.over}" + ("" if skipped == self.in_features else f", skipped={skipped}")


@takes_arguments_of(Branch)
class Concatenate(Branch):
    """Appends earlier spikes, delayed, to those of the last layer: further inputs, with separate weights.

    ``times (..., inputs), skipped (..., skipped) -> (..., inputs + skipped)``, the appended spikes last. For
    images the channels are appended, ``(channels + skipped channels, height, width)``. A larger image is reduced by the
    earliest spike of each window.
    """

    def _made(self, image: Image | None, carried: Image | None) -> tuple[int, Image | None]:
        made = None if image is None or carried is None else Image(image[0] + carried[0], *image[1:])
        return self.in_features + self.carried_features, made

    def join(
        self, times: Float[Tensor, "*batch inputs"], carried: Float[Tensor, "*batch carried"]
    ) -> Float[Tensor, "*batch outputs"]:
        """The carried spikes after the times."""
        return torch.cat([times, carried], dim=-1)


@takes_arguments_of(Branch)
class Earliest(Branch):
    """The earlier of two spikes: that of a neuron of the last layer, or that of an earlier one, delayed.

    ``times (..., inputs), skipped (..., inputs) -> (..., inputs)``. The gradient goes to the earlier spike alone, of
    two at the same time to the last layer's. A neuron that is silent passes on the earlier spike. Without a delay most
    of the layers between would have no effect, as their spikes come after their inputs.

    Args:
        skipped: number or image that is carried past them: with as many channels as the inputs.

    Raises:
        ValueError: numbers of inputs or channels that differ; otherwise as ``Concatenate``.
    """

    def _made(self, image: Image | None, carried: Image | None) -> tuple[int, Image | None]:
        if self.carried_features != self.in_features:
            raise ValueError(
                f"Earliest merges neuron by neuron, and needs as many on both sides: got {self.in_features} inputs and "
                f"{self.carried_features} that are carried past; Concatenate takes any numbers"
            )
        return self.in_features, image

    def join(
        self, times: Float[Tensor, "*batch inputs"], carried: Float[Tensor, "*batch inputs"]
    ) -> Float[Tensor, "*batch inputs"]:
        """The earlier one of each pair."""
        return torch.where(carried < times, carried, times)


def _sizes(name: str, shape: Shape) -> tuple[Image | None, int]:
    """The image, if it is one, and the number of inputs."""
    if not isinstance(shape, int):
        image = Image.checked(shape)
        return image, image.size
    if shape < 1:
        raise ValueError(f"{name} must be >= 1, got {shape}")
    return None, shape


def _reduction(skipped: Image, image: Image) -> EarliestPool2d:
    """Windows that make the skipped image as large as the other one."""
    steps = [large // small for large, small in zip(skipped[1:], image[1:], strict=True)]
    if any(step * small != large for step, large, small in zip(steps, skipped[1:], image[1:], strict=True)):
        raise ValueError(
            f"the image {skipped} that is carried past must be of the same height and width as {image}, or of multiples"
        )
    return EarliestPool2d(skipped, (steps[0], steps[1]))
