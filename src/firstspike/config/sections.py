"""The sections of a config. Each follows from the class that it configures, plus the parts that only configs have."""

import inspect
from typing import Annotated, Any, Literal, Union

from pydantic import (
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    create_model,
    model_serializer,
    model_validator,
)
from torch import Tensor

from firstspike.config.connections import Connections, Signs
from firstspike.config.section import Built, Section, argument_texts, derive, union
from firstspike.data import DATASETS, SpikeData, Splits, outline
from firstspike.layers import LAYERS, Delay, DelayRule
from firstspike.layers.branches import Branch
from firstspike.layers.neurons import NeuronLayer
from firstspike.losses import LOSSES, REGULARIZERS
from firstspike.neurons import EIF, LIF, QIF, AdaptiveLIF, AdEx, AdLIF, ConductanceLIF, Izhikevich
from firstspike.neurons import Neuron as AnyNeuron
from firstspike.neurons.base import each
from firstspike.ranges import Count, Finite, Fraction, InnerFraction, NotNegative, NotNegativeInt, Positive, Probability
from firstspike.substrates import SUBSTRATES, Noisy
from firstspike.substrates.noisy import TYPICAL_NOISE
from firstspike.training import OPTIMIZERS, Augment, EarlyStopping, SilentNeurons, Trainer
from firstspike.training.schedules import SCHEDULES

CUSTOM = "custom"


class Custom(Section):
    """A part that was made in Python and is not in the registries: only its name is known.

    Commands cannot use it. In Python it can be handed over, as in ``fs.Run(folder, network=network)``.
    """

    kind: Literal["custom"]
    name: str


class Given(Section):
    """Data that were handed over in Python. A run folder may hold a copy of them."""

    kind: Literal["given"]


def _rate(of: str) -> Any:
    return Positive | None, Field(None, description=f"learning rate of {of}. By default the optimiser's")


NEURONS: dict[str, Any] = {
    "lif": LIF, "adaptive_lif": AdaptiveLIF, "qif": QIF, "eif": EIF, "adex": AdEx, "izhikevich": Izhikevich,
    "adlif": AdLIF, "conductance_lif": ConductanceLIF, "equations": AnyNeuron,
}  # fmt: skip
_LIFS = "lif", "adaptive_lif"
_ADAPTS, _TEXTS = ("adaptation", "threshold_adaptation"), argument_texts(AdaptiveLIF)
_RARE = ("kind", "tau_rise", "bias", "unit", "adaptation_rise", *_ADAPTS)


class _Neuron(Built):
    """A neuron, whose times have a unit."""

    @property
    def time_unit(self) -> float:
        """The synaptic time constant, of several that of the first receptor; 1 where equations have none so named."""
        return float(each(getattr(self, "tau_syn", 1.0))[0])

    def build(self, **more: Any) -> Any:
        """The neuron that this section describes."""
        kind, given = self.kind, self.arguments()  # type: ignore[attr-defined]
        if kind == "lif" and any(given.pop(name) for name in (*_ADAPTS, "adaptation_rise")):
            raise ValueError("adaptation, adaptation_rise and threshold_adaptation need kind: adaptive_lif")
        parameters = given.pop("parameters", {})
        return NEURONS[kind](**given, **parameters, **more)


class _LIF(_Neuron):
    """LIF neurons. A described one shows of the rarer parameters those that play a part."""

    @model_serializer(mode="wrap")
    def _shown(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        usual = {name: type(self).model_fields[name].default for name in _RARE}
        given = write(self) | {"reset": self.reset}  # type: ignore[attr-defined]  # None is left out elsewhere
        return {name: x for name, x in given.items() if usual.get(name, ...) != getattr(self, name)}


def described_neuron(neuron: AnyNeuron) -> dict[str, Any] | None:
    """The fields of a neuron's section; None if a config cannot hold it."""
    kind = next((kind for kind, target in NEURONS.items() if target is type(neuron)), None)
    if kind is None or any(isinstance(x, Tensor) for x in neuron.named_values.values()):
        return None
    if kind == "equations":
        parameters = dict(neuron.values)
        refractory = parameters.pop("refractory")
        return {"kind": kind, "refractory": refractory, "parameters": parameters} | neuron.written
    found: dict[str, Any] = {"kind": kind, "unit": neuron.unit} | neuron.values
    for name, pairs in zip(("adaptation", "threshold"), _ADAPTS, strict=True):
        if isinstance(neuron, AdaptiveLIF):
            found[pairs] = tuple(zip(found.pop(f"{name}_tau"), found.pop(f"{name}_jump"), strict=True))
    return found


_OF_NEURONS: dict[str, Any] = {
    "kind": (Literal[_LIFS], Field("lif", description="what this is")),
    **{x: (tuple[tuple[Positive, Finite], ...], Field((), description=_TEXTS[x])) for x in _ADAPTS},
    "adaptation_rise": (NotNegative | tuple[NotNegative, ...], Field(0.0, description=_TEXTS["adaptation_rise"])),
}
LIFNeuron: Any = derive(LIF, name="Neuron", base=_LIF, extra=_OF_NEURONS)
_FORMULAS = {"start": dict[str, float | str], "parameters": dict[str, Finite]}
_OTHERS = {
    kind: derive(target, kind, base=_Neuron, types=_FORMULAS) for kind, target in NEURONS.items() if kind not in _LIFS
}


def _kind_of(given: Any) -> str:
    kind = given.get("kind", "lif") if isinstance(given, dict) else getattr(given, "kind", "lif")
    return "lif" if kind in _LIFS else str(kind)


Neuron: Any = Annotated[
    Union[(Annotated[LIFNeuron, Tag("lif")], *(Annotated[section, Tag(kind)] for kind, section in _OTHERS.items()))],
    Discriminator(_kind_of),
]
Rule: Any = derive(DelayRule)
_PARAMETERS: Any = tuple[str, ...]


def _layer(kind: str, target: type[Any]) -> type[Section]:
    """The section of a layer, without arguments that follow from the layer before it, and with learning rates."""
    types = {"neuron": Neuron | None, "delay": Rule | None, "recurrent_delay": Rule | None, "trainable": _PARAMETERS}
    types |= dict.fromkeys(("synapses", "recurrent"), Connections | None)
    types |= dict.fromkeys(("signs", "recurrent_signs"), Signs | None)
    extra: dict[str, Any] = {}
    if issubclass(target, NeuronLayer):
        takes = inspect.signature(target).parameters
        extra = {"lr": _rate("its weights")}
        extra |= {"neuron_lr": _rate("what is named in `trainable`")} if "trainable" in takes else {}
        extra |= {"delay_lr": _rate("its delays")} if "delay" in takes else {}
    elif issubclass(target, Delay):
        rule = Rule, Field(Rule(), description=argument_texts(Delay)["rule"])
        extra = {"rule": rule, "lr": _rate("its delays")}
    elif issubclass(target, Branch):
        types, extra = {"delay": Rule | NotNegative | None}, {"lr": _rate("its delays")}
    omit = ("in_features", "features", "image", "inputs", "skipped")
    return derive(target, kind, base=Section, omit=omit, types=types, extra=extra)


LAYER_SECTIONS = {kind: _layer(kind, target) for kind, target in LAYERS.items()}
DATA_SECTIONS = {kind: derive(target, kind, base=Section, name=kind) for kind, target in DATASETS.items()}
REGULARIZER_SECTIONS = {kind: derive(target, kind, omit=("tau_syn",)) for kind, target in REGULARIZERS.items()}


class _NoisyUnlessAsked(Built):
    """A noisy substrate without any setting has typical noise."""

    @model_validator(mode="before")
    @classmethod
    def _typical(cls, raw: Any) -> Any:
        return {**TYPICAL_NOISE, **raw} if isinstance(raw, dict) and not raw.keys() - {"kind", "seed"} else raw


SUBSTRATE_SECTIONS = {
    kind: derive(target, kind, base=_NoisyUnlessAsked if target is Noisy else Built)
    for kind, target in SUBSTRATES.items()
}

Data: Any = union([*DATA_SECTIONS.values(), Given])
Layer: Any = union([*LAYER_SECTIONS.values(), Custom])
Network = Annotated[list[Layer], Field(min_length=1)]
Regularizer: Any = union([*REGULARIZER_SECTIONS.values(), Custom])
Substrate: Any = union([*SUBSTRATE_SECTIONS.values(), Custom])

_TERMS: Any = tuple[Regularizer, ...]
_LOSS: Any = {
    "omit": ("tau_syn",),
    "types": {"reduction": Literal["mean", "sum"]},  # a training needs one number
    "extra": {"regularizers": (_TERMS, Field((), description="terms that are added to the loss"))},
}
LOSS_SECTIONS = {kind: derive(target, kind, **_LOSS) for kind, target in LOSSES.items()}


class CustomLoss(Custom):
    """A loss that was made in Python and is not in the registries: only its name is known."""

    regularizers: _TERMS = ()


Loss: Any = union([*LOSS_SECTIONS.values(), CustomLoss])

_OPTIMIZER: Any = {
    "omit": ("params", "foreach", "maximize", "capturable", "differentiable", "fused", "decoupled_weight_decay"),
    "types": {
        **dict.fromkeys(("lr", "eps"), Positive),
        **dict.fromkeys(("weight_decay", "dampening"), NotNegative),
        "betas": tuple[Probability, Probability],
        "momentum": Fraction,
    },
}
OPTIMIZER_SECTIONS: dict[str, Any] = {
    kind: derive(target, kind, base=Section, **_OPTIMIZER) for kind, target in OPTIMIZERS.items()
}
Optimizer: Any = union([*OPTIMIZER_SECTIONS.values(), Custom])

_SCHEDULE: Any = {
    "omit": ("optimizer", "epochs", "last_epoch", "verbose"),
    "types": {"step_size": Count, "gamma": Positive, "milestones": list[Count], "factor": InnerFraction}
    | dict.fromkeys(("patience", "cooldown"), NotNegativeInt)
    | dict.fromkeys(("threshold", "min_lr", "eps"), NotNegative),
}
_WARMUP = {"warmup": (NotNegativeInt, Field(0, description="epochs over which the learning rate rises at the start"))}
SCHEDULE_SECTIONS = {
    kind: derive(target, kind, base=Section, **_SCHEDULE, extra={} if kind == "plateau" else _WARMUP)
    for kind, target in SCHEDULES.items()
}
Schedule: Any = union([*SCHEDULE_SECTIONS.values(), Custom])

Silent: Any = derive(SilentNeurons, types={"limits": tuple[Fraction, ...] | Fraction | None})
Augmentation: Any = derive(Augment)
Stopping: Any = derive(EarlyStopping)
_NOT_OF_CONFIGS = ("train", "validation", "test", "folder", "resume", "callbacks", "progress_bar", "stop")
_FIT = derive(Trainer.fit, base=Section, omit=_NOT_OF_CONFIGS)
_OF_TRAINER = argument_texts(Trainer)
_DTYPES: Any = Literal["float32", "float64"]
_BY: Any = Literal["epoch", "batch"]

Training: Any = create_model(
    "Training",
    __base__=_FIT,
    __doc__="How the networks are trained.",
    optimizer=(Optimizer, Field(OPTIMIZER_SECTIONS["adam"](kind="adam", lr=0.005), description="the optimiser")),
    schedule=(Schedule | None, Field(None, description="how the learning rates change from epoch to epoch")),
    clip_grad_norm=(Positive | None, Field(None, description=_OF_TRAINER["clip_grad_norm"])),
    accumulate=(Count, Field(1, description=_OF_TRAINER["accumulate"])),
    schedule_by=(_BY, Field("epoch", description=_OF_TRAINER["schedule_by"])),
    weight_average=(InnerFraction | None, Field(None, description=_OF_TRAINER["weight_average"])),
    compile=(bool, Field(False, description=_OF_TRAINER["compile"])),
    max_weight_grad=(
        Positive | None,
        Field(None, description="bound on the weight gradient of one sample and neuron, for layers without their own"),
    ),
    start_spikes=(
        NotNegative,
        Field(
            4.0,
            description="mean number of spikes with which neurons of layers for trains start, see `start_firing_`; "
            "0 leaves them, and outputs at rest, as they are drawn",
        ),
    ),
    silent=(Silent, Field(Silent(), description="what happens if too many neurons are silent")),
    augment=(Augmentation, Field(Augmentation(), description="how training samples vary from epoch to epoch")),
    early_stopping=(Stopping | None, Field(None, description="when the training ends before its last epoch")),
    n_seeds=(
        Annotated[int, Field(gt=0, le=1000)],
        Field(1, description="networks that are trained in parallel, with consecutive seeds from `seed` on"),
    ),
    dtype=(_DTYPES, Field("float32", description="data type of all times and parameters")),
    device=(str, Field("cpu", description="where to train: `cpu`, `cuda`")),
)


def outline_of(section: Section, errors: list[Any]) -> SpikeData | None:
    """Number of inputs, classes and image shape of a data set, as data without samples; None if they are unknown."""
    kind: str = section.kind  # type: ignore[attr-defined]
    if kind not in DATASETS:
        return None
    try:
        data = outline(kind, **section.arguments())
        for name in Splits._fields:
            samples = getattr(section, name, None)
            if isinstance(samples, int) and samples * data.features > 2**31:
                errors.append((("data", name), f"{samples} samples of {data.features} inputs are more than fit"))
        return data
    except (ValueError, ImportError, OSError) as error:
        errors.append((("data",), str(error)))
        return None
