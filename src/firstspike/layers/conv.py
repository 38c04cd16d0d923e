"""Layers on images: neurons with shared weights, and the earliest spike of a region.

On the CPU they take pixels by index, which is fast. On other devices the gradients of one pixel would then be
added in any order, so there torch's own patches and pooling do it.
"""

import math
from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from firstspike.layers.neurons import NeuronLayer, SpikingLayer, SpikingOptions
from firstspike.layers.patches import Borders, Image, Pair, Window, flat, is_image
from firstspike.layers.trains import SpikeLayer, at_observed
from firstspike.neurons import Neuron
from firstspike.ranges import Size, checks_ranges
from firstspike.signature import takes_arguments_of
from firstspike.spiketime import first_spike_time


class ImageLayer(SpikeLayer):
    """A layer from images to images."""

    image: Image
    out_image: Image

    @property
    def _name(self) -> str:
        return f"{self._get_name()} of an image {self.image} with {self.image.size} pixels"

    def extra_repr(self) -> str:
        """Images and further arguments."""
        return f"{self.image} -> {self.out_image}, {super().extra_repr().partition(', ')[2]}"


@takes_arguments_of(NeuronLayer, without=("shape", "in_features", "out_features", "synapses"))
@checks_ranges
class SpikingConv2d(ImageLayer, SpikingLayer):
    """Neurons that each see a patch of an image. All of one output channel share their weights.

    Times are flat on both sides, channel after channel, each row by row: ``(..., channels * height * width)``. Those of
    the form ``(..., channels, height, width)`` are accepted as well, and then the output has the same form. A neuron is
    that of ``SpikingLinear`` with the patch as its inputs. Beyond the border nothing spikes.

    Args:
        image: of the inputs, ``(channels, height, width)``.
        out_channels: number of filters.
        kernel_size: height and width of a patch, or one number for both.
        neuron: parameters of the neurons. Tensors have one value or one per output channel.
        stride: steps from patch to patch, one number or two.
        padding: width of the silent border around the image, one number or two, below ``kernel_size``.
        per_neuron: whether each output channel has separate values of the trainable parameters. Otherwise the layer
            shares one.
        max_weight_grad: bound on the weight gradient of one (sample, neuron) pair, see ``first_spike_time``. It holds
            for each neuron, not for the sum over those that share weights.

    Raises:
        ValueError: sizes below 1, a patch larger than the image; otherwise as ``SpikingLinear``.
    """

    def __init__(
        self,
        image: tuple[int, int, int],
        out_channels: Size,
        kernel_size: Pair,
        neuron: Neuron | None = None,
        *,
        stride: Pair = 1,
        padding: Borders = 0,
        **options: Unpack[SpikingOptions],
    ) -> None:
        seen = Image.checked(image)
        window = Window.checked(kernel_size, stride, padding)
        made = Image(out_channels, *window.positions(seen))
        super().__init__((out_channels, seen.channels, *window.kernel), seen.size, made.size, neuron, **options)
        self.image, self.out_image, self.window = seen, made, window
        self.out_channels, self.kernel_size, self.stride, self.padding = out_channels, kernel_size, stride, padding
        # no buffer: only the CPU uses it, and a layer on ``meta`` may be a mere check of sizes
        self._places = None if self.weight.is_meta else window.places(seen)

    def seen(self, times: Float[Tensor, "*batch pixels"]) -> Float[Tensor, "*batch positions patch"]:
        """The inputs of each patch."""
        pixels = flat(times, self.image, self._get_name())
        if self._places is None or not pixels.is_cpu:
            return self.window.patches(pixels, self.image)
        if any(self.window.padding):
            pixels = functional.pad(pixels, (0, 1), value=math.inf)  # the border
        return pixels.index_select(-1, self._places.flatten()).unflatten(-1, self._places.shape)

    def forward(
        self, times: Float[Tensor, "*batch pixels"], observed: Float[Tensor, "*batch out_pixels"] | None = None
    ) -> Float[Tensor, "*batch out_pixels"]:
        """First spike times; with ``observed``, these times and the gradient at them. Both may be images."""
        if observed is not None:
            observed = flat(observed, self.out_image, f"observed of {self._get_name()}")
            observed = observed.unflatten(-1, (self.out_channels, -1)).mT
        spikes = first_spike_time(self.seen(times), self.synapses, self.neuron, observed=observed, **self.dynamics)
        made = spikes.transpose(-1, -2).flatten(-2)
        return made.unflatten(-1, self.out_image) if is_image(times, self.image) else made


class EarliestPool2d(ImageLayer):
    """The earliest spike in each window of an image, channel by channel; ``inf`` if nothing spikes.

    This is what a neuron without memory that fires on its first input would do. The gradient goes to the earliest input
    alone, of several at the same time to the first. Times are flat or images as in ``SpikingConv2d``. Pixels
    that no window reaches are left out.

    Args:
        image: of the inputs, ``(channels, height, width)``.
        kernel_size: height and width of a window, or one number for both.
        stride: steps from window to window. By default windows lie side by side.

    Raises:
        ValueError: sizes below 1, a window larger than the image.
    """

    def __init__(self, image: tuple[int, int, int], kernel_size: Pair, stride: Pair | None = None) -> None:
        super().__init__()
        self.image = Image.checked(image)
        self.kernel_size, self.stride = kernel_size, stride
        self.window = Window.checked(kernel_size, kernel_size if stride is None else stride)
        self.out_image = Image(self.image.channels, *self.window.positions(self.image))
        self.in_features, self.out_features = self.image.size, self.out_image.size

    def forward(
        self, times: Float[Tensor, "*batch pixels"], observed: Float[Tensor, "*batch out_pixels"] | None = None
    ) -> Float[Tensor, "*batch out_pixels"]:
        """The earliest times; with ``observed``, these times and the gradient of the earliest."""
        pixels = flat(times, self.image, "EarliestPool2d")
        lead = pixels.shape[:-1]
        channels = pixels.reshape(-1, self.image.channels, math.prod(self.image[1:]))
        if channels.is_cpu:
            made = channels.gather(-1, self._earliest(channels.detach()))
        else:
            images = channels.unflatten(-1, self.image[1:])
            made = -functional.max_pool2d(-images, self.window.kernel, self.window.stride)
        made = made.reshape(*lead, self.out_image.size)
        if observed is not None:
            made = at_observed(made, flat(observed, self.out_image, "observed of EarliestPool2d"))
        return made.unflatten(-1, self.out_image) if is_image(times, self.image) else made

    def _earliest(self, channels: Float[Tensor, "images channels pixels"]) -> Int[Tensor, "images channels windows"]:
        """Which pixel of each window spikes first, the first of several."""
        # torch's kernel is many times faster with the channels of a pixel side by side; a copy, as neg_ overwrites it
        negative = channels.transpose(1, 2).clone(memory_format=torch.contiguous_format).neg_().transpose(1, 2)
        images = negative.unflatten(-1, self.image[1:])
        _, places = functional.max_pool2d(images, self.window.kernel, self.window.stride, return_indices=True)
        return places.flatten(2)
