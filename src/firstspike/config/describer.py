"""From the objects of a training to the config that describes them: the inverse of ``build``."""

from collections.abc import Mapping
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
)
from firstspike.layers import LIFLayer
from firstspike.losses import LOSSES, REGULARIZERS
from firstspike.neuron import LIF
from firstspike.substrates import SUBSTRATES
from firstspike.training import OPTIMIZERS, SCHEDULES, Augment, EarlyStopping, Fit, Trainer

_SILENT = ("limits", "increment", "targeted", "exponential", "skip_step")


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
    regularizers = [_described(REGULARIZERS, REGULARIZER_SECTIONS, part) for part in trainer.objective.regularizers]
    tau_syn = getattr(loss, "tau_syn", None)
    parameter = next(member.network.parameters(), torch.zeros(1))
    training: dict[str, Any] = {
        "epochs": 1 if fit is None else fit.epochs,
        "batch_size": 1 if fit is None else fit.batch_size,
        "seed": 0 if fit is None else fit.seeds[0],
        "n_seeds": len(trainer.members),
        "checkpoint_every": checkpoint_every,
        "optimizer": _optimizer(member.optimizer),
        "schedule": _schedule(member.schedule),
        "clip_grad_norm": trainer.clip_grad_norm,
        "silent": {name: getattr(member.silent, name) for name in _SILENT},
        "augment": vars(trainer.augment) if isinstance(trainer.augment, Augment) else {},
        "early_stopping": _early_stopping(fit),
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "device": parameter.device.type,
    }
    substrate = _described(SUBSTRATES, SUBSTRATE_SECTIONS, member.substrate)
    if fit is not None and substrate.get("seed") == fit.seeds[0]:
        substrate["seed"] = None  # it follows the training's
    return Config.model_validate(
        {
            "data": {"kind": "given"},
            "neuron": _neuron(member.network, tau_syn),
            "network": [section.model_dump() for section in network],
            "loss": _described(LOSSES, LOSS_SECTIONS, loss) | {"regularizers": regularizers},
            "training": training,
            "substrate": substrate,
        }
    )


def _described(registry: Mapping[str, Any], sections: Mapping[str, type[Section]], part: Any) -> dict[str, Any]:
    """The section of an object by its class; of one that is not in the registry its name."""
    kind = next((kind for kind, target in registry.items() if target is type(part)), None)
    if kind is None:
        return {"kind": CUSTOM, "name": getattr(part, "__name__", type(part).__name__)}
    names = [name for name in sections[kind].model_fields if name not in ("kind", "regularizers")]
    return {"kind": kind} | {name: getattr(part, name) for name in names}


def _neuron(network: Any, tau_syn: float | None) -> dict[str, Any]:
    """The neuron of layers without their own: here each has its own, so that it is the first one's for readers."""
    first = next((layer.initial_neuron for layer in network.modules() if isinstance(layer, LIFLayer)), LIF())
    numbers = {name: value for name, value in vars(first).items() if isinstance(value, float)}
    return numbers if tau_syn is None else numbers | {"tau_syn": tau_syn}


def _optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    kind = next((kind for kind, target in OPTIMIZERS.items() if target is type(optimizer)), None)
    if kind is None:
        return {"kind": CUSTOM, "name": type(optimizer).__name__}
    names = [name for name in OPTIMIZER_SECTIONS[kind].model_fields if name != "kind"]
    return {"kind": kind} | {name: optimizer.defaults[name] for name in names}


def _schedule(schedule: LRScheduler | None) -> dict[str, Any] | None:
    if schedule is None:
        return None
    found, warmup = schedule, 0
    if isinstance(schedule, ChainedScheduler):
        first, *others = schedule._schedulers
        if len(others) == 1 and isinstance(first, LinearLR):
            found, warmup = others[0], first.total_iters
    kind = next((kind for kind, target in SCHEDULES.items() if target is type(found)), None)
    if kind is None:
        return {"kind": CUSTOM, "name": type(schedule).__name__}
    names = [name for name in SCHEDULE_SECTIONS[kind].model_fields if name not in ("kind", "warmup")]
    given = {name: getattr(found, name) for name in names}
    if "milestones" in given:
        given["milestones"] = sorted(given["milestones"].elements())
    return {"kind": kind, "warmup": getattr(found, "warmup", warmup)} | given


def _early_stopping(fit: Fit | None) -> dict[str, Any] | None:
    for callback in () if fit is None else fit.callbacks.callbacks:
        if isinstance(callback, EarlyStopping):
            return {name: getattr(callback, name) for name in ("patience", "metric", "min_delta")}
    return None
