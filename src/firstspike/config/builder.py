"""Builds the objects that a config describes."""

from typing import Any, NamedTuple

import torch
from torch import nn, optim
from torch.optim.lr_scheduler import ChainedScheduler, LinearLR, LRScheduler

from firstspike.config.load import Config, ConfigError
from firstspike.config.network import layers_of, parameter_groups
from firstspike.config.section import Section
from firstspike.config.sections import SCHEDULE_SECTIONS, Custom, Given
from firstspike.data import SpikeData, Splits
from firstspike.deferred import check_float64
from firstspike.layers import MaximumReadout, Network, SpikingLayer, start_firing_
from firstspike.layers.branches import Branch
from firstspike.losses.base import Loss
from firstspike.seeding import generator
from firstspike.substrates import Substrate
from firstspike.text import first_line
from firstspike.training import Trainer
from firstspike.training.distributed import own_device

DTYPES = {"float32": torch.float32, "float64": torch.float64}
_SAMPLES = 256  # of the training data, from which networks start


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
        config: the config to build.
        data: the config's data, if already known. New networks start from the training part.
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
        tau_syn = config.neuron.time_unit
        regularizers = [_built("regularizers", section, tau_syn=tau_syn) for section in config.loss.regularizers]
    return Trainer(
        networks,
        build_loss(config).to(device) if parts.loss is None else parts.loss,
        optimizers,
        schedule=[parts.schedule or build_schedule(config, optimizer, len(data.train)) for optimizer in optimizers],
        regularizers=regularizers,
        silent=training.silent.build(),
        substrate=substrates[0] if len(substrates) < len(seeds) else substrates,
        augment=training.augment.build(),
        clip_grad_norm=training.clip_grad_norm,
        accumulate=training.accumulate,
        schedule_by=training.schedule_by,
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
    splits = _built("data", config.data, dtype=DTYPES[config.training.dtype])
    return Splits(*(split.to(device_of(config)) for split in splits))


def build_network(config: Config, data: SpikeData, seed: int, from_samples: bool = True) -> Network:
    """A new network, with weights from ``start_firing_`` if ``from_samples``; a ValueError if its layers do not fit."""
    source, settings = generator(seed, "weights"), config.training
    given = config.network, data, config.neuron.build(), settings.max_weight_grad
    network = Network(*layers_of(*given, generator=source, dtype=DTYPES[settings.dtype]))
    kinds = SpikingLayer | MaximumReadout
    unset = any(isinstance(x, Branch) or (isinstance(x, kinds) and x.weight_mean is None) for x in network)
    if from_samples and unset:
        start_firing_(network, data.times[:_SAMPLES].cpu(), source, settings.start_spikes)
    return network


def build_substrate(config: Config, seed: int | None = None) -> Substrate:
    """The config's substrate, not open yet; a ``seed`` that it leaves open is the training's."""
    section = config.substrate
    if getattr(section, "seed", 0) is None:
        section = section.model_copy(update={"seed": config.training.seed if seed is None else seed})
    return _built("substrate", section)


def build_loss(config: Config) -> Loss:
    """The config's loss, without regularisers."""
    return _built("loss", config.loss, tau_syn=config.neuron.time_unit)


def build_optimizer(config: Config, network: nn.Module) -> optim.Optimizer:
    """The config's optimiser of a network's parameters."""
    section = config.training.optimizer
    groups = parameter_groups(config.network, network, getattr(section, "lr", 0.0))
    return _built("training.optimizer", section, params=groups, fused=True)


def build_schedule(config: Config, optimizer: optim.Optimizer, samples: int = 0) -> LRScheduler | None:
    """The config's schedule of the learning rates, or None. A cosine by batch ends with those of all ``samples``."""
    training = config.training
    section, batches = training.schedule, -(-samples // training.batch_size)
    steps = max(1, -(-batches // training.accumulate)) if training.schedule_by == "batch" else 1
    if section is None:
        return None
    cosine = isinstance(section, SCHEDULE_SECTIONS["cosine"])
    epochs = {"epochs": training.epochs * steps} if cosine else {}
    schedule: LRScheduler = _built("training.schedule", section, optimizer=optimizer, **epochs)
    if cosine or not getattr(section, "warmup", 0):
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
    except (RuntimeError, AssertionError) as error:  # raised by torch if it is not available
        raise ValueError(f"device {name!r} cannot be used: {first_line(error)}; try cpu") from None


def _built(place: str, section: Section, **more: Any) -> Any:
    """Build the object of a section, with further arguments. A ConfigError if the config only names it."""
    if not isinstance(section, Custom | Given):
        return section.build(**more)
    what = (
        f"{section.name!r} is not in the registries" if isinstance(section, Custom) else "the data were made in Python"
    )
    raise ConfigError("config", [f"{place}: {what}; pass it in Python: {place.rpartition('.')[2]}=..."])
