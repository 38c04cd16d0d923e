"""From a config to the objects that it describes."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn, optim
from torch.optim.lr_scheduler import ChainedScheduler, LinearLR, LRScheduler

from firstspike.config.load import Config, ConfigError
from firstspike.config.network import layers_of, parameter_groups
from firstspike.config.section import Section
from firstspike.config.sections import CUSTOM
from firstspike.data import DATASETS, SpikeData, Splits
from firstspike.deferred import check_float64
from firstspike.layers import Network, SpikingLayer, start_firing_
from firstspike.layers.branches import Branch
from firstspike.losses import LOSSES, REGULARIZERS
from firstspike.losses.base import Loss
from firstspike.seeding import generator
from firstspike.substrates import SUBSTRATES, Substrate
from firstspike.training import OPTIMIZERS, CosineLR, Trainer
from firstspike.training.distributed import own_device
from firstspike.training.schedules import SCHEDULES

DTYPES = {"float32": torch.float32, "float64": torch.float64}
_SAMPLES = 256  # of the training data, from which networks start
_Target = TypeVar("_Target", bound=Callable[..., Any])


class Parts(NamedTuple):
    """Objects of a training that replace parts of a config; None for those that are built."""

    network: Any = None
    loss: Any = None
    optimizer: Any = None
    schedule: Any = None
    substrate: Any = None
    regularizers: Any = None


def build(config: Config, data: Splits | None = None, parts: Parts | None = None) -> Trainer:
    """The trainer that a config describes: networks, loss, optimisers and the rest.

    Args:
        config: what to build.
        data: the config's data, if already known; new networks start from the training part.
        parts: your own objects, for parts that the config only names.

    Raises:
        ConfigError: a part that the config only names, and that is not among ``parts``.
        ValueError: a device or data that are not available.
        ImportError: a data set or substrate whose extra is not installed.
    """
    data, parts = build_data(config) if data is None else data, parts or Parts()
    training, device = config.training, device_of(config)
    seeds = [training.seed + k for k in range(1 if parts.network is not None else training.n_seeds)]
    substrates = [build_substrate(config) if parts.substrate is None else parts.substrate]
    if not substrates[0].exclusive and parts.substrate is None:
        substrates += [build_substrate(config, seed) for seed in seeds[1:]]
    networks = [build_network(config, data.train, seed) if parts.network is None else parts.network for seed in seeds]
    networks = [network.to(device) for network in networks]
    optimizers = [parts.optimizer or build_optimizer(config, network) for network in networks]
    regularizers = parts.regularizers
    if regularizers is None:
        regularizers = [
            _target("regularizers", REGULARIZERS, section)(**section.arguments(), tau_syn=config.neuron.time_unit)
            for section in config.loss.regularizers
        ]
    return Trainer(
        networks,
        build_loss(config).to(device) if parts.loss is None else parts.loss,
        optimizers,
        schedule=[parts.schedule or build_schedule(config, optimizer) for optimizer in optimizers],
        regularizers=regularizers,
        silent=training.silent.build(),
        substrate=substrates[0] if len(substrates) < len(seeds) else substrates,
        augment=training.augment.build(),
        clip_grad_norm=training.clip_grad_norm,
        weight_average=training.weight_average,
        compile=training.compile,
    )


def build_data(config: Config) -> Splits:
    """The three splits of the config's data set, on the config's device.

    Raises:
        ConfigError: data that were handed over in Python.
        ValueError: data that are not available.
        ImportError: a data set whose extra is not installed.
    """
    make = _target("data", DATASETS, config.data)
    splits = make(**config.data.arguments(), dtype=DTYPES[config.training.dtype])
    return Splits(*(split.to(device_of(config)) for split in splits))


def build_network(config: Config, data: SpikeData, seed: int, from_samples: bool = True) -> Network:
    """A new network, with weights from ``start_firing_`` if ``from_samples``; a ValueError if its layers do not fit."""
    source, settings = generator(seed, "weights"), config.training
    given = config.network, data, config.neuron.build(), settings.max_weight_grad
    network = Network(*layers_of(*given, generator=source, dtype=DTYPES[settings.dtype]))
    unset = any(isinstance(x, Branch) or (isinstance(x, SpikingLayer) and x.weight_mean is None) for x in network)
    if from_samples and unset:
        start_firing_(network, data.times[:_SAMPLES].cpu(), source)
    return network


def build_substrate(config: Config, seed: int | None = None) -> Substrate:
    """The config's substrate, not open yet; a ``seed`` that it leaves open is the training's."""
    make = _target("substrate", SUBSTRATES, config.substrate)
    given = config.substrate.arguments()
    if "seed" in given and given["seed"] is None:
        given["seed"] = config.training.seed if seed is None else seed
    return make(**given)


def build_loss(config: Config) -> Loss:
    """The config's loss, without regularisers."""
    make = _target("loss", LOSSES, config.loss)
    return make(**config.loss.arguments("regularizers"), tau_syn=config.neuron.time_unit)


def build_optimizer(config: Config, network: nn.Module) -> optim.Optimizer:
    """The config's optimiser of a network's parameters."""
    section = config.training.optimizer
    make: Callable[..., optim.Optimizer] = _target("training.optimizer", OPTIMIZERS, section)
    groups = parameter_groups(config.network, network, section.lr)
    return make(groups, **section.arguments(), fused=True)


def build_schedule(config: Config, optimizer: optim.Optimizer) -> LRScheduler | None:
    """The config's schedule of the learning rates, or None."""
    section = config.training.schedule
    if section is None:
        return None
    make = _target("training.schedule", SCHEDULES, section)
    if make is CosineLR:
        return CosineLR(optimizer, config.training.epochs, **section.arguments())
    schedule: LRScheduler = make(optimizer, **section.arguments("warmup"))
    if not section.warmup:
        return schedule
    warmup = LinearLR(optimizer, 1 / (section.warmup + 1), total_iters=section.warmup)
    return ChainedScheduler([warmup, schedule])


def device_of(config: Config) -> torch.device:
    """The config's device; a ValueError if it is not available."""
    name = config.training.device
    try:
        device = own_device(torch.device(name))
        check_float64(device)
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # what torch raises if it is not available
        raise ValueError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}; try cpu") from None


def _target(place: str, registry: Mapping[str, _Target], section: Section) -> _Target:
    """What a section's kind names in its registry."""
    kind: str = section.kind  # type: ignore[attr-defined]
    if kind in registry:
        return registry[kind]
    what = f"{section.name!r} is not in the registries" if kind == CUSTOM else "the data were made in Python"  # type: ignore[attr-defined]
    raise ConfigError("config", [f"{place}: {what}; pass it in Python: {place.rpartition('.')[2]}=..."])
