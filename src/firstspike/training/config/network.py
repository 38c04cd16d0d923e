"""The ``neuron`` and ``network`` sections: layers in the order in which spikes meet them."""

from math import inf, isinf
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from firstspike.training.config.base import Finite, Fraction, NotNegative, Positive, Section


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
    copies: PositiveInt


class Delays(DelayStart):
    """A delay for each spike: axonal before a LIF layer, dendritic behind it.

    ``copies``: so many neighbouring inputs share one delay, as the copies of a multiplex layer before it may.
    """

    kind: Literal["delay"]
    copies: PositiveInt = 1
    lr: Positive | None = None


class Lif(Section):
    """A layer of LIF neurons.

    ``weight_mean`` and ``weight_std``: normally distributed weights; without both they start so that most neurons fire.
    ``max_silent``: the fraction of silent neurons above which a batch raises weights instead of learning.
    ``neuron``: parameters that differ from the config's ``neuron`` section. ``delay``: synaptic delays.
    ``train_neuron``: which parameters of the neuron learn, one value for the layer or with ``per_neuron`` one each.
    ``lr``, ``delay_lr``, ``neuron_lr``: learning rates of this layer's weights, delays and parameters of the neuron.
    """

    kind: Literal["lif"]
    size: PositiveInt
    weight_mean: Finite | None = None
    weight_std: NotNegative | None = None
    max_silent: Fraction = 1.0
    neuron: Neuron | None = None
    train_neuron: tuple[Literal["tau_mem", "tau_syn", "threshold"], ...] = ()
    per_neuron: bool = False
    delay: DelayStart | None = None
    lr: Positive | None = None
    delay_lr: Positive | None = None
    neuron_lr: Positive | None = None

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.weight_mean is None) != (self.weight_std is None):
            raise ValueError("weight_mean and weight_std belong together: give both or none")
        if self.delay_lr is not None and self.delay is None:
            raise ValueError("delay_lr needs synaptic delays: give delay, too")
        if (self.per_neuron or self.neuron_lr is not None) and not self.train_neuron:
            raise ValueError("per_neuron and neuron_lr are about parameters that learn: name them in train_neuron")
        return self


Layer = Annotated[Lif | Bias | Copies | Delays, Field(discriminator="kind")]
Network = Annotated[list[Layer], Field(min_length=1)]


def network_errors(network: "Network", inputs: int, classes: int) -> list[str]:
    """What does not fit in a network for so many inputs and classes, one line each."""
    errors = []
    sizes = {index: layer.size for index, layer in enumerate(network) if isinstance(layer, Lif)}
    if not sizes:
        return ["network: has no layer of kind lif, so nothing spikes; add one"]
    last, size = max(sizes.items())
    width = inputs
    for index, layer in enumerate(network):
        if isinstance(layer, Delays) and width % layer.copies:
            errors.append(f"network[{index}].copies: {layer.copies} copies cannot share delays among {width} inputs")
        if isinstance(layer, Lif):
            width = layer.size
        elif isinstance(layer, Bias):
            width += len(layer.times)
        elif isinstance(layer, Copies):
            width *= layer.copies
    if any(isinstance(layer, Bias | Copies) for layer in network[last + 1 :]):
        errors.append("network: bias and multiplex layers behind the last lif layer change the outputs; move them")
    if size != classes:
        errors.append(
            f"network[{last}].size: the last lif layer has {size} neurons, the data has {classes} classes; "
            f"write size: {classes}"
        )
    return errors


def neuron_errors(network: "Network", neuron: Neuron) -> list[str]:
    """What cannot learn from where it starts, one line each; ``neuron`` holds for layers without their own."""
    return [
        f"network[{index}].train_neuron: tau_mem cannot learn from inf; give the neuron a finite tau_mem"
        for index, layer in enumerate(network)
        if isinstance(layer, Lif) and "tau_mem" in layer.train_neuron and (layer.neuron or neuron).tau_mem == inf
    ]
