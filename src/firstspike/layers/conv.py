"""Layers on images: neurons with shared weights, and the earliest spike of a region.

On the CPU they take pixels by index, which is fast. On other devices the gradients of one pixel would then be
added in any order, so there torch's own patches and pooling do it.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from firstspike.layers.dense import DelayedNeurons, DenseOptions, Overflow, SpikeTrains
from firstspike.layers.patches import Borders, Image, Pair, Window, flat, flattened, shown_form
from firstspike.layers.trains import SpikeLayer, Spikes, at_observed
from firstspike.neurons import Neuron
from firstspike.ranges import Border, Size, checks_ranges, reads_plainly
from firstspike.signature import takes_arguments_of
from firstspike.spiketime import first_spike_time, spike_trains
from firstspike.spiketime.values import records, values_of

_COLUMNS = 32  # spikes of the busiest pixel, up to which all patches are computed at once


def _compact(trains: Tensor) -> Float[Tensor, "*batch pixels spikes"]:
    """Trains without the columns behind the last one that any of them fills."""
    if not trains.is_cpu or records() or not trains.numel():
        return trains
    earliest = trains.detach().flatten(0, -2).amin(dim=0)
    filled = torch.where(earliest == math.inf, 0, torch.arange(1, len(earliest) + 1)).amax()
    return trains[..., : max(1, int(values_of(filled).amax()))]


class ConvOptions(DenseOptions, total=False):
    """Keyword arguments of all convolutions, see ``SpikingConv2d``."""

    max_spikes: Size | None
    overflow: Overflow


class ImageLayer(SpikeLayer):
    """A layer from images to images, of first spikes or of trains."""

    image: Image
    out_image: Image
    form: tuple[int, ...]
    """Sizes of an image as its times have them."""
    out_form: tuple[int, ...]

    @property
    def _name(self) -> str:
        return f"{self._get_name()} of an image {shown_form(self.form)} with {self.image.size} pixels"

    @property
    def _pixels(self) -> int:
        """The dimension of pixels in flat times."""
        return -2 if self.takes_trains else -1

    def _flat(self, times: Tensor) -> Tensor:
        """Inputs as they are between layers: first spikes, or trains without columns that none of them needs."""
        found = flat(times, self.form, self._get_name(), self.takes_trains)
        return _compact(found) if self.takes_trains else found

    def _as_given(self, made: Tensor, times: Tensor) -> Tensor:
        """The output in the form in which the inputs came."""
        image = flattened(times, self.form, self.takes_trains) is not times
        return made.unflatten(self._pixels, self.out_form) if image else made

    def extra_repr(self) -> str:
        """Images and further arguments."""
        made = (shown_form(x) for x in (self.form, self.out_form))
        return f"{' -> '.join(made)}, {super().extra_repr().partition(', ')[2]}"


@takes_arguments_of(DelayedNeurons, without=("shape", "in_features", "out_features", "synapses"))
@checks_ranges
class SpikingConv2d(ImageLayer, DelayedNeurons):
    """Neurons that each see a patch of an image. All of one output channel share their weights.

    Times are flat on both sides, channel after channel, each row by row: ``(..., channels * height * width)``. Those of
    the form ``(..., channels, height, width)`` are accepted as well, and then the output has the same form. A neuron is
    that of ``SpikingLinear`` with the patch as its inputs. Beyond the border nothing spikes.

    With ``max_spikes`` neurons spike several times, as those of ``SpikeTrains``: inputs and outputs are trains,
    ``(batch, channels * height * width, spikes)`` or ``(batch, channels, height, width, spikes)``. First spikes, which
    have no last dimension, are trains of one spike. Work and memory grow with the spikes, not with their times.

    Args:
        image: of the inputs, ``(channels, height, width)``.
        out_channels: number of filters.
        kernel_size: height and width of a patch, or one number for both.
        neuron: parameters of the neurons. Tensors have one value or one per output channel.
        stride: steps from patch to patch, one number or two.
        padding: width of the silent border around the image, one number or two, below the extent of a patch.
        dilation: steps between neighbouring pixels of a patch, one number or two.
        max_spikes: most spikes of a neuron in a sample; None for layers of first spikes.
        overflow: behaviour if a neuron would spike more than ``max_spikes`` times, see ``SpikeTrains``.
        delay: rule by which delays of the weights, in their shape, start and stay >= 0; None for no delays. One delay
            for each channel is a ``Delay(..., copies=height * width)`` before the layer.
        per_neuron: whether each output channel has separate values of the trainable parameters. Otherwise the layer
            shares one.
        max_weight_grad: bound on the weight gradient of one (sample, neuron) pair, of trains of one spike. It holds for
            each neuron, not for the sum over those that share weights.

    Raises:
        ValueError: sizes below 1, a patch larger than the image; otherwise as ``SpikingLinear``. More spikes than
            ``max_spikes``, in ``forward``.
    """

    _sides = 2

    def __init__(
        self,
        image: tuple[int, int, int],
        out_channels: Size,
        kernel_size: Pair,
        neuron: Neuron | None = None,
        *,
        stride: Pair = 1,
        padding: Borders = 0,
        dilation: Pair = 1,
        max_spikes: Size | None = None,
        overflow: Overflow = "error",
        **options: Unpack[DenseOptions],
    ) -> None:
        seen, window = Image.checked(image), Window.checked(kernel_size, stride, padding, dilation)
        made = Image(out_channels, *window.positions(seen))
        if max_spikes is not None:
            self.takes_trains, self.gives = True, "trains"
            self.unused, self.usual_weights = SpikeTrains.unused, SpikeTrains.usual_weights
            self.passes_on = (*SpikeTrains.passes_on, "max_spikes")
        self.max_spikes, self.overflow = max_spikes, overflow
        shape = out_channels, seen.channels, *window.kernel[2 - self._sides :]
        super().__init__(shape, seen.size, made.size, neuron, **options)
        self.image, self.out_image, self.window = self.form, self.out_form, _ = seen, made, window
        self.out_channels, self.kernel_size = out_channels, kernel_size
        self.stride, self.padding, self.dilation = stride, padding, dilation
        # no buffer: only the CPU uses it, and a layer on ``meta`` may be a mere check of sizes
        self._places = None if self.weight.is_meta else window.places(seen)

    def seen(
        self, times: Spikes
    ) -> Float[Tensor, "*batch positions patch"] | Float[Tensor, "*batch positions patch K"]:
        """The inputs of each patch."""
        return self._patches(self._flat(times))

    def _patches(self, pixels: Tensor) -> Tensor:
        at = self._pixels
        if self._places is None or not pixels.is_cpu:
            return self.window.patches(pixels, self.image, self.takes_trains)
        if any(self.window.padding):  # the border comes last
            pixels = functional.pad(pixels, (0,) * (-2 - 2 * at) + (0, 1), value=math.inf)
        return pixels.index_select(at, self._places.flatten()).unflatten(at, self._places.shape)

    def forward(
        self, times: Spikes, observed: Spikes | None = None
    ) -> Float[Tensor, "*batch out_pixels"] | Float[Tensor, "*batch out_pixels spikes"]:
        """Spikes of all neurons; with ``observed``, these times and the gradient at them. Both may be images."""
        at, given = self._pixels, {"delay": self.delay_in_pass(observed), **self.dynamics}
        if observed is not None:
            observed = flat(observed, self.out_form, f"observed of {self._get_name()}", self.takes_trains)
            observed = observed.unflatten(at, (self.out_channels, -1)).transpose(at - 1, at)
        operator: Any = spike_trains if self.takes_trains else first_spike_time

        def of(seen: Tensor, observed: Tensor | None) -> Any:
            return operator(seen, self.synapses, self.neuron, observed=observed, **given)

        pixels, places = self._flat(times), self._places
        plain = self.takes_trains and not records() and not torch._C._are_functorch_transforms_active()
        if plain and places is not None and pixels.is_cpu and pixels.shape[-1] > _COLUMNS and pixels.numel():
            spikes = self._in_groups(pixels, places, observed, of)
        else:
            spikes = of(self._patches(pixels), observed)
        return self._as_given(spikes.transpose(at - 1, at).flatten(at - 1, at), times)

    def _in_groups(
        self, pixels: Tensor, places: Tensor, observed: Tensor | None, of: Callable[..., Tensor]
    ) -> Float[Tensor, "*batch positions out_channels spikes"]:
        """The spikes at all places, those with busy pixels apart, so that a hot pixel widens the trains of few."""
        if bool((pixels[..., 1:] < pixels[..., :-1]).any()):
            pixels = pixels.sort(dim=-1, stable=True).values
        trains = functional.pad(pixels, (0, 0, 0, 1), value=math.inf).flatten(0, -2)  # the border comes last
        samples = torch.arange(0, len(trains), self.image.size + 1)
        numbers = (samples[:, None, None] + places).flatten(0, 1)
        count = torch.searchsorted(trains.detach(), trains.new_full((len(trains), 1), math.inf)).squeeze(-1)
        busiest, most = count[numbers].amax(dim=-1), trains.shape[-1]
        seen = None if observed is None else observed.flatten(0, -3)
        found, order, last, width = [], [], -1, _COLUMNS
        while last < most:
            rows = ((busiest > last) & (busiest <= width)).nonzero().squeeze(-1)
            inputs = trains[:, :width].index_select(0, numbers[rows].flatten())
            found.append(of(inputs.unflatten(0, (-1, places.shape[1])), None if seen is None else seen[rows]))
            order.append(rows)
            last, width = width, 4 * width
        spikes = torch.cat(found).index_select(0, torch.cat(order).argsort())
        return spikes.unflatten(0, (*pixels.shape[:-2], len(places)))


@takes_arguments_of(SpikingConv2d)
@checks_ranges
class SpikingConv1d(SpikingConv2d):
    """``SpikingConv2d`` along one side, such as the frequencies of a cochlea: neurons that each see a range of inputs.

    Times are flat, ``(..., channels * length)``, or of the form ``(..., channels, length)``, and so are trains. Behind
    it, ``MergePool2d(layer.out_image, (1, 2))`` pools: ``out_image`` is ``(channels, 1, length)``.

    Args:
        image: of the inputs, ``(channels, length)`` or ``(channels, 1, length)``.
        kernel_size: inputs that a neuron sees in each channel.
        stride: steps from patch to patch.
        padding: width of the silent border on both sides, below the extent of a patch.
        dilation: steps between neighbouring inputs of a patch.
    """

    _sides = 1

    def __init__(
        self,
        image: tuple[int, int] | tuple[int, int, int],
        out_channels: Size,
        kernel_size: Size,
        neuron: Neuron | None = None,
        *,
        stride: Size = 1,
        padding: Border = 0,
        dilation: Size = 1,
        **options: Unpack[ConvOptions],
    ) -> None:
        if not isinstance(image, Sequence) or len(image) not in (2, 3) or (len(image) == 3 and image[1] != 1):
            raise ValueError(f"expected (channels, length) of the inputs as image, got {image!r}")
        wide: Any = {"stride": (1, stride), "padding": (0, padding), "dilation": (1, dilation)}
        super().__init__((image[0], 1, image[-1]), out_channels, (1, kernel_size), neuron, **wide, **options)
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.form, self.out_form = self.image[::2], self.out_image[::2]


class _Pool2d(ImageLayer):
    """Windows of an image, channel by channel."""

    def __init__(self, image: tuple[int, int, int], kernel_size: Pair, stride: Pair | None = None) -> None:
        super().__init__()
        self.image = Image.checked(image)
        self.kernel_size, self.stride = kernel_size, stride
        self.window = Window.checked(kernel_size, kernel_size if stride is None else stride)
        self.out_image = Image(self.image.channels, *self.window.positions(self.image))
        self.form, self.out_form = self.image, self.out_image
        self.in_features, self.out_features = self.image.size, self.out_image.size


@reads_plainly
class EarliestPool2d(_Pool2d):
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

    def forward(
        self, times: Float[Tensor, "*batch pixels"], observed: Float[Tensor, "*batch out_pixels"] | None = None
    ) -> Float[Tensor, "*batch out_pixels"]:
        """The earliest times; with ``observed``, these times and the gradient of the earliest."""
        pixels = self._flat(times)
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
        return self._as_given(made, times)

    def _earliest(self, channels: Float[Tensor, "images channels pixels"]) -> Int[Tensor, "images channels windows"]:
        """Which pixel of each window spikes first, the first of several."""
        # torch's kernel is many times faster with the channels of a pixel side by side; a copy, as neg_ overwrites it
        negative = channels.transpose(1, 2).clone(memory_format=torch.contiguous_format).neg_().transpose(1, 2)
        images = negative.unflatten(-1, self.image[1:])
        _, places = functional.max_pool2d(images, self.window.kernel, self.window.stride, return_indices=True)
        return places.flatten(2)


@reads_plainly
class MergePool2d(_Pool2d):
    """All spikes in each window of an image, channel by channel: trains to the sorted union of the trains in a window.

    ``(batch, channels * height * width, spikes) -> (batch, out_pixels, spikes)``, or images of trains as in
    ``SpikingConv2d``, with as many spikes as fit into a window. Of several spikes at the same time all are kept.
    ``EarliestPool2d`` behind a ``FirstSpike`` keeps the first spike of each window.

    Args:
        image: of the inputs, ``(channels, height, width)``.
        kernel_size: height and width of a window, or one number for both.
        stride: steps from window to window. By default windows lie side by side.

    Raises:
        ValueError: sizes below 1, a window larger than the image.
    """

    takes_trains = True
    gives = "trains"

    def forward(self, times: Spikes, observed: Tensor | None = None) -> Float[Tensor, "*batch out_pixels spikes"]:
        """The unions; with ``observed``, these trains and the gradient of the spikes in the same places."""
        trains = flat(times, self.form, self._get_name(), trains=True)
        columns = math.prod(self.window.kernel) * trains.shape[-1]
        seen = _compact(trains).unflatten(-2, (self.image.channels, -1))
        seen = self.window.patches(seen, Image(1, *self.image[1:]), trains=True)
        made = seen.flatten(-2).sort(dim=-1, stable=True).values.flatten(-3, -2)
        if observed is not None:
            observed = flat(observed, self.out_form, "observed of MergePool2d", trains=True)
            columns = observed.shape[-1]
        made = functional.pad(made, (0, columns - made.shape[-1]), value=math.inf)
        return self._as_given(made if observed is None else at_observed(made, observed), times)
