"""The ``neuron`` and ``network`` sections: layers in the order in which spikes meet them."""

from math import inf, isinf
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from firstspike.training.config.base import (
    MOST_NUMBERS,
    Finite,
    Fraction,
    NotNegative,
    Positive,
    Problem,
    Section,
    Size,
)


class Neuron(Section):
    """Parameters of the LIF neurons, for all layers or for one."""

    tau_mem: Annotated[float, Field(gt=0)] = 1.0
    tau_syn: Positive = 1.0
    threshold: Positive = 1.0


class DelayStart(Section):
    """How delays start and stay >= 0; the fields of ``DelayRule``."""

    bound: Literal["sigmoid", "softplus", "clip"] = "sigmoid"
    scale: Annotated[float, Field(gt=0)] = 1.0
    shift: NotNegative = 0.0
    mean: Finite = 0.0
    std: NotNegative = 0.25
    trainable: bool = True
    jitter: NotNegative = 0.0

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if isinf(self.scale) and self.bound != "clip":
            raise ValueError(f"scale can only be inf with bound: clip, not with {self.bound}")
        return self


class Bias(Section):
    """Bias neurons that spike at the given times."""

    kind: Literal["bias"]
    times: Annotated[list[NotNegative], Field(min_length=1)]


class Copies(Section):
    """Copies of every input."""

    kind: Literal["multiplex"]
    copies: Size


class Delays(DelayStart):
    """A delay for each spike: axonal before a LIF layer, dendritic behind it.

    ``copies``: so many neighbouring inputs share one delay, as the copies of a multiplex layer before it may.
    """

    kind: Literal["delay"]
    copies: Size = 1
    lr: Positive | None = None


class Spiking(Section):
    """What layers of LIF neurons share.

    ``weight_mean`` and ``weight_std``: normally distributed weights; without both they start so that most neurons fire
    on the training data, however deep the network is.
    ``max_silent``: the fraction of silent neurons above which a batch raises weights instead of learning.
    ``neuron``: parameters that differ from the config's ``neuron`` section.
    ``train_neuron``: which parameters of the neuron learn, one value for the layer or with ``per_neuron`` one each.
    ``lr``, ``neuron_lr``: learning rates of this layer's weights and parameters of the neuron.
    """

    weight_mean: Finite | None = None
    weight_std: NotNegative | None = None
    max_silent: Fraction = 1.0
    neuron: Neuron | None = None
    train_neuron: tuple[Literal["tau_mem", "tau_syn", "threshold"], ...] = ()
    per_neuron: bool = False
    lr: Positive | None = None
    neuron_lr: Positive | None = None

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.weight_mean is None) != (self.weight_std is None):
            raise ValueError("weight_mean and weight_std belong together: give both or none")
        if (self.per_neuron or self.neuron_lr is not None) and not self.train_neuron:
            raise ValueError("per_neuron and neuron_lr are about parameters that learn: name them in train_neuron")
        return self


class Lif(Spiking):
    """A layer of LIF neurons, each of which sees all inputs.

    ``weight_mean`` and ``weight_std``: normally distributed weights; without both they start so that most neurons fire
    on the training data, however deep the network is.
    ``max_silent``: the fraction of silent neurons above which a batch raises weights instead of learning.
    ``neuron``: parameters that differ from the config's ``neuron`` section. ``delay``: synaptic delays.
    ``train_neuron``: which parameters of the neuron learn, one value for the layer or with ``per_neuron`` one each.
    ``lr``, ``delay_lr``, ``neuron_lr``: learning rates of this layer's weights, delays and parameters of the neuron.
    """

    kind: Literal["lif"]
    size: Size
    delay: DelayStart | None = None
    delay_lr: Positive | None = None

    @model_validator(mode="after")
    def _delayed(self) -> Self:
        if self.delay_lr is not None and self.delay is None:
            raise ValueError("delay_lr needs synaptic delays: give delay, too")
        return self


Sides = Size | tuple[Size, Size]
Border = Annotated[int, Field(ge=0, le=1000)]


class Conv(Spiking):
    """LIF neurons that each see a patch of an image; those of one output channel share their weights.

    ``channels``: of the output. ``kernel``, ``stride``: height and width of a patch, and steps between patches, one
    number for both or two. ``padding``: width of a border in which nothing spikes. The other keys are those of ``lif``,
    with one value per channel for ``per_neuron``.
    """

    kind: Literal["conv"]
    channels: Size
    kernel: Sides
    stride: Sides = 1
    padding: Border | tuple[Border, Border] = 0


class Pool(Section):
    """The earliest spike in each window of an image. ``stride``: as large as the window unless it is given."""

    kind: Literal["pool"]
    kernel: Sides
    stride: Sides | None = None


Layer = Annotated[Lif | Bias | Copies | Delays | Conv | Pool, Field(discriminator="kind")]
Network = Annotated[list[Layer], Field(min_length=1)]
Image = tuple[int, int, int]


def network_errors(network: "Network", inputs: int, classes: int, image: Image | None = None) -> list[Problem]:
    """Errors in a network, given the number of inputs, the shape of the image if they are one, and the classes."""
    errors: list[Problem] = []
    sizes = {index: layer.size for index, layer in enumerate(network) if isinstance(layer, Lif)}
    if not sizes:
        return [(("network",), "has no layer of kind lif, so no class has a neuron; add one")]
    last, size = max(sizes.items())
    width = inputs
    for index, layer in enumerate(network):
        weights = _weights(layer, width, image)
        if max(weights, width) > MOST_NUMBERS:
            message = f"{weights} weights for {width} inputs are more than fit; the most are {MOST_NUMBERS}"
            errors.append((("network", index), message))
            return errors
        if isinstance(layer, Delays):
            if width % layer.copies:
                message = f"{layer.copies} copies cannot share delays among {width} inputs"
                errors.append((("network", index, "copies"), message))
            continue
        if isinstance(layer, Conv | Pool):
            made = image and _window(layer, image)
            if image is None:
                before = "data of images, and before it only layers of kind conv, pool and delay"
                errors.append((("network", index), f"{layer.kind} needs an image: {before}"))
            elif made is None:
                message = f"{layer.kernel} does not fit into an image of {image[1]}x{image[2]}"
                errors.append((("network", index, "kernel"), message))
            if made is None:
                return errors  # sizes from here on are not known
            image, width = made, made[0] * made[1] * made[2]
            continue
        image = None
        if isinstance(layer, Lif):
            width = layer.size
        elif isinstance(layer, Bias):
            width += len(layer.times)
        elif isinstance(layer, Copies):
            width *= layer.copies
    if any(isinstance(layer, Bias | Copies | Conv | Pool) for layer in network[last + 1 :]):
        message = "only delay layers may stand behind the last lif layer, whose neurons are the classes"
        errors.append((("network",), message))
    if size != classes:
        message = f"the last lif layer has {size} neurons, the data has {classes} classes; write size: {classes}"
        errors.append((("network", last, "size"), message))
    return errors


def _weights(layer: Any, inputs: int, image: Image | None) -> int:
    """Number of weights of a layer."""
    if isinstance(layer, Conv) and image is not None:
        rows, columns = (layer.kernel, layer.kernel) if isinstance(layer.kernel, int) else layer.kernel
        return layer.channels * image[0] * rows * columns
    return layer.size * inputs if isinstance(layer, Lif) else 0


def _window(layer: Conv | Pool, image: Image) -> Image | None:
    """The image that the layer makes; None where its window is too large."""
    border = layer.padding if isinstance(layer, Conv) else 0
    pairs = ((x, x) if isinstance(x, int) else x for x in (layer.kernel, layer.stride or layer.kernel, border))
    kernel, stride, padding = pairs
    rows, columns = (
        (side + 2 * p - k) // s + 1 for side, k, s, p in zip(image[1:], kernel, stride, padding, strict=True)
    )
    channels = layer.channels if isinstance(layer, Conv) else image[0]
    return (channels, rows, columns) if rows >= 1 and columns >= 1 else None


def neuron_errors(network: "Network", neuron: Neuron) -> list[Problem]:
    """Parameters that cannot learn from where they start; ``neuron`` is that of layers without their own."""
    return [
        (("network", index, "train_neuron"), "tau_mem cannot learn from inf; give the neuron a finite tau_mem")
        for index, layer in enumerate(network)
        if isinstance(layer, Spiking) and "tau_mem" in layer.train_neuron and (layer.neuron or neuron).tau_mem == inf
    ]
