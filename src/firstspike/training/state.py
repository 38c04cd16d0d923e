"""Checks that a saved state belongs to a network and its optimiser, before anything is restored.

A checksum detects damage, but not that a sound file belongs to another training: a folder's config may have been
edited, and objects passed in Python may differ from the trained ones.
"""

import copy
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, optim

if TYPE_CHECKING:
    from firstspike.training.member import Member

logger = logging.getLogger(__name__)

_EXTRA = "_extra_state"  # the end of a name in a state_dict: modules check it themselves
_OWN = {"params", "capturable", "differentiable"}
"""Options of an optimiser's group that affect how it runs, not its results (``fused`` rounds differently)."""
_ROUNDS = {"fused", "foreach"}


class CheckpointError(ValueError):
    """A checkpoint that cannot be used. The message gives the reason."""


def checked_state(member: "Member", found: Any, where: str) -> dict[str, Any]:
    """A saved state in the form that the parts of a member take; a CheckpointError if it is that of others."""
    parts = dict.fromkeys(("network", "optimizer", "schedule", "silent", "progress"))
    check_like(found, parts | {"substrate": {"identity": {}, "state": {}}}, where)
    check_weights(found["network"], member.network.state_dict(), where)
    state = {**found, "optimizer": _optimizer_state(found["optimizer"], member.optimizer, f"{where}: optimizer")}
    average = found.get("average")
    if (average is None) != (member.average is None):
        had, has = ("none", "one") if average is None else ("one", "none")
        raise CheckpointError(
            f"{where}: average of the weights: saved with {had}, the training has {has}; see weight_average"
        )
    if isinstance(found["progress"], Mapping) and (kept := found["progress"].get("gradients")) is not None:
        check_like(kept, {}, f"{where}: gradients")
        check_like(kept, {k: p for k, p in enumerate(member.parameters) if k in kept}, f"{where}: gradients")
    if member.average is not None:
        check_like(average, member.average.state_dict(), f"{where}: average")
    if found.get("best") is not None:
        own = member.network.state_dict()
        check_like(found["best"], own, f"{where}: best")
        if found.get("trained") is not None:
            averages = {} if member.average is None else member.average.averages
            check_like(found["trained"], [own, averages], f"{where}: trained")
    if member.schedule is not None:  # keys that another version of torch did not save keep their values
        own, kept = member.schedule.state_dict(), found["schedule"]
        check_like(kept, {"last_epoch": 0}, f"{where}: schedule")
        check_like(kept, {key: own[key] for key in own if key in kept}, f"{where}: schedule")
        state["schedule"] = own | {key: kept[key] for key in own if key in kept}
    return state


def own_tensors(value: Any) -> Any:
    """Nested mappings and sequences with copied tensors. ``deepcopy`` would copy the whole base of a view."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if type(value) in (dict, OrderedDict):
        return {key: own_tensors(entry) for key, entry in value.items()}
    return type(value)(map(own_tensors, value)) if type(value) in (list, tuple) else copy.deepcopy(value)


def check_weights(found: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> None:
    """Raise a CheckpointError unless weights have a network's names, shapes, types, and are finite where its are."""
    mine, theirs = ({key for key in keys if not key.endswith(_EXTRA)} for keys in (expected, found))
    if mine != theirs:
        differ = [f"lacks {name}" for name in sorted(mine - theirs)] + [f"has {name}" for name in sorted(theirs - mine)]
        more = f" and {len(differ) - 1} more" if len(differ) > 1 else ""
        raise CheckpointError(f"{where} {differ[0]}{more}: it belongs to another network than the config's")
    for name in sorted(mine):
        check_like(found[name], expected[name], f"{where}: {name}")


def check_like(found: Any, expected: Any, where: str) -> None:
    """Raise a CheckpointError unless nested mappings and sequences have the parts of others, tensors shape and type.

    NaN is refused, and infinity unless the expected tensor has it. Additional keys are allowed.
    """
    if isinstance(expected, Tensor):
        if not isinstance(found, Tensor) or (found.shape, found.dtype) != (expected.shape, expected.dtype):
            raise CheckpointError(f"{where} is {_called(found)}, expected {_called(expected)}")
        if found.is_floating_point() and not bool(found.isfinite().all()):
            if bool(found.isnan().any()):
                raise CheckpointError(f"{where} has NaN: the training had diverged")
            if bool(expected.isfinite().all()):
                raise CheckpointError(f"{where} has infinite values: the training had diverged")
    elif isinstance(expected, Mapping):
        if not isinstance(found, Mapping):
            raise CheckpointError(f"{where} is {_called(found)}, expected a mapping")
        for key, value in expected.items():
            if key not in found:
                raise CheckpointError(f"{where} lacks {key!r}")
            check_like(found[key], value, f"{where}: {key}")
    elif isinstance(expected, list | tuple):
        if not isinstance(found, list | tuple) or len(found) != len(expected):
            raise CheckpointError(f"{where} is {_called(found)}, expected {_called(expected)}")
        for number, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
            check_like(mine, theirs, f"{where}: {number}")


def _optimizer_state(found: Any, optimizer: optim.Optimizer, where: str) -> dict[str, Any]:
    """A saved state of an optimiser, checked, with the settings that were saved."""
    own = optimizer.state_dict()
    check_like(found, {"state": {}, "param_groups": [{"params": x["params"]} for x in own["param_groups"]]}, where)
    groups = [
        {**mine, **{key: theirs[key] for key in mine.keys() - _OWN if key in theirs}}
        for mine, theirs in zip(own["param_groups"], found["param_groups"], strict=True)
    ]
    expected = _after_a_step(optimizer)
    if unknown := found["state"].keys() - expected:
        raise CheckpointError(f"{where}: state of {min(unknown)}, which is none of the network's parameters")
    check_like(found["state"], {number: expected[number] for number in found["state"]}, f"{where}: state")
    return {"state": found["state"], "param_groups": groups}


def keep_settings(optimizer: optim.Optimizer, groups: Sequence[Mapping[str, Any]], where: str) -> None:
    """Give an optimiser's defaults the values of saved groups, which continue, and report those that were others."""
    kept: dict[str, Any] = {}
    for mine, theirs in zip(optimizer.param_groups, groups, strict=True):
        for name in optimizer.defaults.keys() & theirs.keys() - _OWN - _ROUNDS:
            first = f"initial_{name}"
            now, saved = (group.get(first, group[name]) for group in (mine, theirs))  # schedules change lr
            if now == optimizer.defaults[name] != saved:
                kept[name] = saved
    if kept:
        saved, now = (", ".join(f"{name}={values[name]}" for name in kept) for values in (kept, optimizer.defaults))
        logger.warning("%s: the optimiser continues with the saved %s, not with %s", where, saved, now)
        optimizer.defaults |= kept


def _after_a_step(optimizer: optim.Optimizer) -> Mapping[Any, Any]:
    """An optimiser's state of each parameter, found with a copy and a gradient of 0."""
    twin = copy.deepcopy(optimizer)
    for group in twin.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    twin.step()
    return twin.state_dict()["state"]


def _called(value: Any) -> str:
    """The type and shape of a value, in a few words."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    if isinstance(value, Mapping | Sequence) and not isinstance(value, str):
        return f"a {type(value).__name__} of {len(value)}"
    return "nothing" if value is None else repr(value)
