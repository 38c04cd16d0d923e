"""From a config to the objects of a training. The one file that knows every room."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn, optim

from firstspike.data import DATASETS, Splits
from firstspike.layers import (
    BiasSpikes,
    Delay,
    DelayRule,
    EarliestPool2d,
    LIFConv2d,
    LIFLinear,
    Multiplex,
    Network,
    start_firing_,
)
from firstspike.losses import LOSSES, REGULARIZERS, TimeLoss
from firstspike.neuron import LIF
from firstspike.seeding import generator
from firstspike.substrates import SUBSTRATES, Substrate
from firstspike.training.config import Config
from firstspike.training.config.network import Bias, Conv, Copies, Delays, DelayStart, Lif, Pool, Spiking
from firstspike.training.config.training import Adam, Cosine, Exponential, MultiStep, Step
from firstspike.training.silent import SilentNeurons

DTYPES = {"float32": torch.float32, "float64": torch.float64}
_SAMPLES = 256  # of the training data, from which networks start


@dataclass
class Experiment:
    """All parts of a training, on one device and of one type."""

    config: Config
    data: Splits
    network: Network
    loss: TimeLoss
    regularizers: list[nn.Module]
    optimizer: optim.Optimizer
    schedule: optim.lr_scheduler.LRScheduler | None
    silent: SilentNeurons
    substrate: Substrate

    @property
    def spiking(self) -> list[int]:
        """Indices of the LIF layers in the network."""
        return list(self.silent.limits)

    def objective(
        self, network: Network, times: Float[Tensor, "batch inputs"], labels: Int64[Tensor, " batch"]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Loss, loss with regularisers, and the spike times of all layers, of a network like this one's."""
        record = self.substrate.record(network, times)
        loss = self.loss(record.output, labels)
        penalties = [regularizer(record.output, labels, network, record) for regularizer in self.regularizers]
        return loss, sum(penalties, start=loss), record.layers

    @property
    def device(self) -> torch.device:
        """Where everything is."""
        return self.data.train.times.device


def build(config: Config, data: Splits | None = None, substrate: Substrate | None = None) -> Experiment:
    """Data, network, loss, optimiser and the rest.

    Args:
        config: what to build.
        data: the config's data, where they were built before.
        substrate: the config's substrate, where it was built before. A new one is not open yet.

    Raises:
        ValueError: a device that is not there, data that cannot be had.
        ImportError: a data set or substrate whose extra is not installed.
    """
    device = _device(config.training.device)
    data = build_data(config, device) if data is None else data
    source = generator(config.training.seed, "weights")
    network = build_network(config, data.train.features, source, data.train.times).to(device)
    optimizer = build_optimizer(config, [network])
    policy = config.training.silent
    limits = {i: layer.max_silent for i, layer in enumerate(config.network) if isinstance(layer, Spiking)}
    return Experiment(
        config=config,
        data=data,
        network=network,
        loss=build_loss(config).to(device),
        regularizers=[
            REGULARIZERS[r.kind](**r.arguments(), tau_syn=config.neuron.tau_syn) for r in config.loss.regularizers
        ],
        optimizer=optimizer,
        schedule=build_schedule(config, optimizer),
        silent=SilentNeurons(limits, **policy.arguments()),
        substrate=substrate or build_substrate(config),
    )


def build_data(config: Config, device: torch.device | str = "cpu") -> Splits:
    """The three splits of the config's data set."""
    splits = DATASETS[config.data.kind](**config.data.arguments(), dtype=DTYPES[config.training.dtype])
    return Splits(*(split.to(device) for split in splits))


def build_network(
    config: Config, inputs: int, source: torch.Generator | None = None, times: Tensor | None = None
) -> Network:
    """The network for so many inputs.

    Args:
        config: what to build.
        inputs: their number.
        source: of the weights; by default torch's global generator.
        times: training data ``(samples, inputs)``. Layers without ``weight_mean`` and ``weight_std`` start from what
            reaches them of the first samples, see ``start_firing_``; without data from what is usual.
    """
    dtype = DTYPES[config.training.dtype]
    layers: list[nn.Module] = []
    size, image = inputs, config.data.image()
    for section in config.network:
        layer: Any
        if isinstance(section, Lif):
            layer = LIFLinear(
                size,
                section.size,
                delay=None if section.delay is None else DelayRule(**section.delay.arguments()),
                **_spiking(section, config),
                generator=source,
                dtype=dtype,
            )
        elif isinstance(section, Conv):
            assert image is not None, "checked with the config"
            layer = LIFConv2d(
                image,
                section.channels,
                section.kernel,
                stride=section.stride,
                padding=section.padding,
                **_spiking(section, config),
                generator=source,
                dtype=dtype,
            )
        elif isinstance(section, Pool):
            assert image is not None, "checked with the config"
            layer = EarliestPool2d(image, section.kernel, section.stride)
        elif isinstance(section, Delays):
            rule = DelayRule(**{name: getattr(section, name) for name in DelayStart.model_fields})
            layer = Delay(size, rule, copies=section.copies, generator=source, dtype=dtype)
        elif isinstance(section, Bias):
            layer = BiasSpikes(section.times, dtype=dtype)
        elif isinstance(section, Copies):
            layer = Multiplex(section.copies)
        size = layer.output_size(size)
        image = image if isinstance(section, Delays) else getattr(layer, "out_image", None)
        layers.append(layer)
    network = Network(*layers)
    if times is not None and any(isinstance(x, Spiking) and x.weight_mean is None for x in config.network):
        start_firing_(network, times[:_SAMPLES].cpu(), source)
    return network


def _spiking(section: Spiking, config: Config) -> dict[str, Any]:
    """Arguments that all layers of LIF neurons share."""
    return {
        "neuron": LIF(**(section.neuron or config.neuron).arguments()),
        "trainable": section.train_neuron,
        "per_neuron": section.per_neuron,
        "weight_mean": section.weight_mean,
        "weight_std": section.weight_std,
        "max_weight_grad": config.training.max_weight_grad,
    }


def build_substrate(config: Config) -> Substrate:
    """The config's substrate, not open yet. A ``seed`` that is left open is the training's."""
    arguments = config.substrate.arguments()
    if arguments.get("seed", 0) is None:
        arguments["seed"] = config.training.seed
    return SUBSTRATES[config.substrate.kind](**arguments)


def build_loss(config: Config) -> TimeLoss:
    """The config's loss, without regularisers."""
    arguments = {name: value for name, value in config.loss.arguments().items() if name != "regularizers"}
    return LOSSES[config.loss.kind](**arguments, tau_syn=config.neuron.tau_syn)


def _device(name: str) -> torch.device:
    try:
        device = torch.empty(0, device=name).device
        torch.empty(0, dtype=torch.float64, device=device)
        return device
    except TypeError:  # of mps
        raise ValueError(
            f"device {name!r} cannot be used: it has no float64, in which sums and spike times are computed; try cpu"
        ) from None
    except (RuntimeError, AssertionError) as error:  # torch's ways to say that there is none
        raise ValueError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}; try cpu") from None


def build_optimizer(config: Config, networks: Sequence[Network]) -> optim.Optimizer:
    """The config's optimiser for the parameters of one or more networks of the config."""
    settings = config.training.optimizer
    groups = _parameter_groups(config, networks)
    if isinstance(settings, Adam):
        return optim.Adam(
            groups, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay, fused=True
        )
    return optim.SGD(
        groups,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def _parameter_groups(config: Config, networks: Sequence[Network]) -> list[dict[str, Any]]:
    """The parameters that learn, those with the same settings together; in each group network after network."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for network in networks:
        for section, layer in zip(config.network, network, strict=True):
            for name, parameter in layer.named_parameters():
                of_neuron = name.startswith("log_")
                of_delay = isinstance(section, Lif) and name == "delay_raw"
                own = "delay_lr" if of_delay else "neuron_lr" if of_neuron else "lr"
                lr = getattr(section, own, None) or config.training.optimizer.lr
                if parameter.requires_grad:
                    groups.setdefault((lr, of_neuron), []).append(parameter)
    # a decay of logarithms would draw time constants to 1
    return [
        {"params": found, "lr": lr} | ({"weight_decay": 0.0} if of_neuron else {})
        for (lr, of_neuron), found in groups.items()
    ]


def build_schedule(config: Config, optimizer: optim.Optimizer) -> optim.lr_scheduler.LRScheduler | None:
    """The config's schedule of the learning rates, or None."""
    settings = config.training.schedule
    match settings:
        case None:
            return None
        case Step():
            return optim.lr_scheduler.StepLR(optimizer, settings.step_size, settings.gamma)
        case MultiStep():
            return optim.lr_scheduler.MultiStepLR(optimizer, settings.milestones, settings.gamma)
        case Exponential():
            return optim.lr_scheduler.ExponentialLR(optimizer, settings.gamma)
        case Cosine():
            epochs = config.training.epochs
            return optim.lr_scheduler.LambdaLR(
                optimizer, lambda e: settings.final + (1 - settings.final) * (1 + math.cos(math.pi * e / epochs)) / 2
            )
