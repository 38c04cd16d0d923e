"""Describes the objects of a training by a config: the inverse of ``build``."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import ChainedScheduler, LinearLR, LRScheduler

from firstspike.config.load import Config
from firstspike.config.network import describe_network
from firstspike.config.section import Section
from firstspike.config.sections import (
    CUSTOM,
    LOSS_SECTIONS,
    OPTIMIZER_SECTIONS,
    REGULARIZER_SECTIONS,
    SCHEDULE_SECTIONS,
    SUBSTRATE_SECTIONS,
    Custom,
    described_neuron,
)
from firstspike.layers.neurons import NeuronLayer
from firstspike.neurons import LIF, Neuron
from firstspike.training import Augment, EarlyStopping, Fit, SilentNeurons, Trainer


def describe(trainer: Trainer, fit: Fit | None = None, checkpoint_every: int | None = None) -> Config:
    """The config of a trainer, and of its training in progress.

    Parts that are not in the registries appear with ``kind: custom`` and the name of their class, data that were made
    in Python with ``kind: given``.

    Args:
        trainer: the trainer.
        fit: its training; without one the numbers of epochs and samples are placeholders of 1.
        checkpoint_every: epochs between checkpoints.
    """
    member = trainer.members[0]
    loss = trainer.objective.loss
    network = describe_network(member.network, member.optimizer)
    regularizers = [_described(REGULARIZER_SECTIONS, part) for part in trainer.objective.regularizers]
    tau_syn = getattr(loss, "tau_syn", None)
    callbacks = () if fit is None else fit.callbacks.callbacks
    parameter = next(member.network.parameters(), torch.zeros(1))
    training: dict[str, Any] = {
        "epochs": 1 if fit is None else fit.epochs,
        "batch_size": 1 if fit is None else fit.batch_size,
        "seed": 0 if fit is None else fit.seeds[0],
        "n_seeds": len(trainer.members),
        "checkpoint_every": checkpoint_every,
        "optimizer": _described(OPTIMIZER_SECTIONS, member.optimizer, lambda x, name: x.defaults[name]),
        "schedule": _schedule(member.schedule),
        "clip_grad_norm": trainer.clip_grad_norm,
        "accumulate": trainer.accumulate,
        "schedule_by": trainer.schedule_by,
        "weight_average": trainer.weight_average,
        "compile": trainer.compile,
        "silent": _settings(member.silent, SilentNeurons),
        "augment": vars(trainer.augment) if isinstance(trainer.augment, Augment) else {},
        "early_stopping": next((_settings(x, EarlyStopping) for x in callbacks if isinstance(x, EarlyStopping)), None),
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "device": parameter.device.type,
    }
    substrate = _described(SUBSTRATE_SECTIONS, member.substrate)
    if fit is not None and substrate.get("seed") == fit.seeds[0]:
        substrate["seed"] = None  # it follows the training's
    found = {
        "data": {"kind": "given"},
        "neuron": _neuron(member.network, tau_syn),
        "network": [section.model_dump() for section in network],
        "loss": _described(LOSS_SECTIONS, loss) | {"regularizers": regularizers},
        "training": training,
        "substrate": substrate,
    }
    return Config.model_validate(found)


def custom_parts(config: Config, trainer: Trainer) -> dict[str, Any]:
    """The objects of a trainer that its config only names; with several networks none."""
    if len(trainer.members) > 1:
        return {}
    member, objective, training = trainer.members[0], trainer.objective, config.training
    found = {
        "network": (config.network, member.network),
        "loss": ([config.loss], objective.loss),
        "optimizer": ([training.optimizer], member.optimizer),
        "schedule": ([training.schedule], member.schedule),
        "substrate": ([config.substrate], member.substrate),
        "regularizers": (config.loss.regularizers, objective.regularizers),
    }
    own = {name for name, (sections, _) in found.items() if any(isinstance(x, Custom) for x in sections)}
    if "schedule" in own:
        own.add("optimizer")  # arguments of another object come with it
    if "optimizer" in own:
        own.add("network")
    return {name: found[name][1] for name in found if name in own}


def _described(
    sections: Mapping[str, type[Section]], part: Any, argument: Callable[[Any, str], Any] = getattr
) -> dict[str, Any]:
    """The section of an object by its class; of one that is not in the registry its name."""
    kind = next((kind for kind, section in sections.items() if section._target is type(part)), None)
    if kind is None:
        return {"kind": CUSTOM, "name": getattr(part, "__name__", type(part).__name__)}
    names = sections[kind].model_fields.keys() - {"kind", "regularizers", "warmup"}
    return {"kind": kind} | {name: argument(part, name) for name in names}


def _settings(part: Any, target: type[Any]) -> dict[str, Any]:
    """The arguments of a class that an object of it was made with."""
    return {name: getattr(part, name) for name in inspect.signature(target).parameters}


def _neuron(network: Any, tau_syn: float | None) -> dict[str, Any]:
    """The neuron of layers without their own: here each has its own, so that it is the first one's for readers."""
    first = next((layer.initial_neuron for layer in network.modules() if isinstance(layer, NeuronLayer)), LIF())
    plain = {name: x for name, x in first.values.items() if isinstance(first, LIF) and isinstance(x, float)}
    own = tau_syn is not None and type(first) is Neuron  # of which no loss has the tau_syn
    found = (None if own else described_neuron(first)) or {"unit": first.unit} | plain
    return found if tau_syn is None or isinstance(found.get("tau_syn"), tuple) else found | {"tau_syn": tau_syn}


def _schedule(schedule: LRScheduler | None) -> dict[str, Any] | None:
    if schedule is None:
        return None
    found, warmup = schedule, getattr(schedule, "warmup", 0)
    if isinstance(schedule, ChainedScheduler):
        first, *others = schedule._schedulers
        if len(others) == 1 and isinstance(first, LinearLR):
            found, warmup = others[0], first.total_iters
    given = _described(SCHEDULE_SECTIONS, found, lambda x, name: x.min_lrs[0] if name == "min_lr" else getattr(x, name))
    if given["kind"] == CUSTOM:
        return {"kind": CUSTOM, "name": type(schedule).__name__}
    if "milestones" in given:
        given["milestones"] = sorted(given["milestones"].elements())
    return given if given["kind"] == "plateau" else given | {"warmup": warmup}
