"""Checks that a saved state belongs to a network and its optimiser, before anything is restored.

A checksum tells damage from what was written, not what was written from what is needed: a checkpoint of another config,
of another version, or made by hand may have any content.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, optim

if TYPE_CHECKING:
    from firstspike.training.fitting import Member

_EXTRA = "_extra_state"  # the end of a name in a state_dict: modules check it themselves
_MACHINE = {"capturable", "differentiable"}
"""Switches of optimisers that say how they are run, not what they compute."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says why."""


def checked_state(member: "Member", found: Any, where: str) -> dict[str, Any]:
    """A saved state in the form that the parts of a member take.

    Args:
        member: nothing in it is changed.
        found: what ``member.state_dict()`` gave.
        where: it was read, for messages.

    Raises:
        CheckpointError: it belongs to another network, optimiser, schedule or substrate.
    """
    needed = ("network", "optimizer", "schedule", "silent", "substrate", "progress")
    if not isinstance(found, Mapping) or (missing := [key for key in needed if key not in found]):
        raise CheckpointError(f"{where} lacks {missing[0]!r}" if isinstance(found, Mapping) else f"{where} is no state")
    check_weights(found["network"], member.network.state_dict(), where)
    parts = {**found, "optimizer": optimizer_state(found["optimizer"], member.optimizer, f"{where}: optimizer")}
    _check_average(found.get("average"), member, f"{where}: average")
    _check_silent(found["silent"], member, f"{where}: silent")
    _check_substrate(found["substrate"], member, f"{where}: substrate")
    _check_progress(found["progress"], member, f"{where}: progress")
    if member.schedule is not None:
        epoch = found["progress"]["epoch"]
        parts["schedule"] = schedule_state(found["schedule"], member.schedule, epoch, f"{where}: schedule")
    return parts


def _check_average(found: Any, member: "Member", where: str) -> None:
    if (found is None) != (member.average is None):
        had, has = ("none", "one") if found is None else ("one", "none")
        raise CheckpointError(f"{where} of the weights: saved with {had}, the training has {has}; see weight_average")
    if member.average is not None:
        check_like(found, member.average.state_dict(), where)


def _check_silent(found: Any, member: "Member", where: str) -> None:
    own = member.silent.state_dict()
    layer = found.get("last_layer") if isinstance(found, Mapping) else None
    if isinstance(layer, int) and layer in range(len(member.spiking)):
        own["last_layer"] = layer
    check_like(found, own, where)
    if found["repeats"] < 0:
        raise CheckpointError(f"{where}: repeats is {_called(found['repeats'])}, expected a count")


def _check_substrate(found: Any, member: "Member", where: str) -> None:
    if not isinstance(found, Mapping) or not all(isinstance(found.get(key), Mapping) for key in ("identity", "state")):
        raise CheckpointError(f"{where} is {_called(found)}, expected a mapping with identity and state")
    if found["identity"].get("kind") == member.substrate.kind:
        check_like(found["state"], member.substrate.state_dict(), where)


def _check_progress(found: Any, member: "Member", where: str) -> None:
    sums = torch.zeros(3 + len(member.activity), dtype=torch.float64)
    inside = {"totals": sums, "noise": torch.Generator().get_state()}  # an epoch that is not done
    expected = asdict(type(member.progress)())
    if isinstance(found, Mapping):
        expected |= {key: like for key, like in inside.items() if found.get(key) is not None}
    check_like(found, expected, where)
    if found["batch"] and found["totals"] is None:
        raise CheckpointError(f"{where} lacks the sums over the first {found['batch']} batches")


def check_weights(found: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> None:
    """Whether weights are those of a network: names, shapes, types, and finite where a new network's are.

    Args:
        found: the weights.
        expected: the network's ``state_dict()``.
        where: they were read, for the message.

    Raises:
        CheckpointError: they are not.
    """
    mine, theirs = ({key for key in keys if not key.endswith(_EXTRA)} for keys in (expected, found))
    if mine != theirs:
        differ = [f"lacks {name}" for name in sorted(mine - theirs)] + [f"has {name}" for name in sorted(theirs - mine)]
        more = f" and {len(differ) - 1} more" if len(differ) > 1 else ""
        raise CheckpointError(f"{where} {differ[0]}{more}: it belongs to another network than the config's")
    for name in sorted(mine):
        check_like(found[name], expected[name], f"{where}: {name}")


def check_like(found: Any, expected: Any, where: str) -> None:
    """Whether nested mappings, sequences, tensors and plain values have the structure of others.

    Tensors have to be of the same shape and type. NaN is refused, and infinity where the expected value has none.

    Raises:
        CheckpointError: they do not.
    """
    if isinstance(expected, Tensor):
        _check_tensor(found, expected, where)
    elif isinstance(expected, Mapping):
        if not isinstance(found, Mapping):
            raise CheckpointError(f"{where} is {_called(found)}, expected a mapping")
        if missing := [key for key in expected if key not in found]:
            raise CheckpointError(f"{where} lacks {missing[0]!r}")
        if unknown := [key for key in found if key not in expected]:
            raise CheckpointError(f"{where} has {_called(unknown[0])} that is not known")
        for key in expected:
            check_like(found[key], expected[key], f"{where}: {key}")
    elif isinstance(expected, list | tuple):
        if not isinstance(found, list | tuple) or len(found) != len(expected):
            raise CheckpointError(f"{where} is {_called(found)}, expected {_called(expected)}")
        for number, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
            check_like(mine, theirs, f"{where}: {number}")
    elif not _same_kind(found, expected):
        kind = "nothing" if expected is None else type(expected).__name__
        raise CheckpointError(f"{where} is {_called(found)}, expected {kind}")


def _same_kind(found: Any, expected: Any) -> bool:
    if type(found) is float and type(expected) is float:
        return math.isfinite(found) or (math.isinf(found) and math.isinf(expected))
    return type(found) is type(expected) or (type(found) is int and type(expected) is float)


def _check_tensor(found: Any, expected: Tensor, where: str) -> None:
    if type(found) is not Tensor:
        raise CheckpointError(f"{where} is {_called(found)}, expected {_called(expected)}")
    plain = found.layout == torch.strided and found.device.type == "cpu" and not found.requires_grad
    if found.shape != expected.shape or found.dtype != expected.dtype or not plain:
        raise CheckpointError(f"{where} is {_called(found)}, expected {_called(expected)}")
    if not found.is_contiguous() and expected.is_contiguous():
        raise CheckpointError(f"{where} has elements that share their memory, or are out of order")
    if found.is_floating_point():
        if bool(found.isnan().any()):
            raise CheckpointError(f"{where} has NaN: the training had diverged")
        if bool(found.isinf().any()) and not bool(expected.isinf().any()):
            raise CheckpointError(f"{where} has infinite values: the training had diverged")
    if found.dtype == torch.uint8:
        check_generator(found, where)


def check_generator(state: Tensor, where: str) -> None:
    """Whether a tensor is the state of a generator of random numbers, as all tensors of bytes are here.

    Raises:
        CheckpointError: it is not.
    """
    try:
        torch.Generator().set_state(state)
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"{where} is no state of a random generator: {str(error).splitlines()[0]}") from None


def optimizer_state(found: Any, optimizer: optim.Optimizer, where: str) -> dict[str, Any]:
    """A saved state of an optimiser, checked, in the form that ``load_state_dict`` takes.

    Numbers and switches (such as ``amsgrad``) are those that were saved.

    Args:
        found: what ``state_dict()`` of an optimiser of the same parameters gave.
        optimizer: a new one.
        where: it was read, for the message.

    Raises:
        CheckpointError: it belongs to other parameters, or to another kind of optimiser.
    """
    own = optimizer.state_dict()
    if not isinstance(found, Mapping) or not isinstance(found.get("state"), Mapping):
        raise CheckpointError(f"{where} is {_called(found)}, expected a mapping with state and param_groups")
    groups = found.get("param_groups")
    if not isinstance(groups, list) or len(groups) != len(own["param_groups"]):
        raise CheckpointError(f"{where}: param_groups is {_called(groups)}, expected {_called(own['param_groups'])}")
    merged = []
    for number, (mine, theirs) in enumerate(zip(own["param_groups"], groups, strict=True)):
        here = f"{where}: param_groups: {number}"
        if not isinstance(theirs, Mapping) or not _same_numbers(theirs.get("params"), mine["params"]):
            raise CheckpointError(f"{here} is not of the network's parameters")
        if "lr" not in theirs:
            raise CheckpointError(f"{here} lacks 'lr'")
        numbers = {key: theirs[key] for key, value in mine.items() if key in theirs and _is_number(value)}
        check_like(numbers, {key: mine[key] for key in numbers}, here)
        switches = {
            key: theirs[key] for key in mine.keys() - _MACHINE if key in theirs and isinstance(theirs[key], bool | None)
        }
        merged.append({**mine, **switches, **numbers})
    expected = _after_a_step(optimizer)
    for number, state in found["state"].items():
        if number not in expected:
            raise CheckpointError(f"{where}: state of {_called(number)}, which is none of the network's parameters")
        check_like(state, expected[number], f"{where}: state: {number}")
    return {"state": found["state"], "param_groups": merged}


def schedule_state(found: Any, schedule: optim.lr_scheduler.LRScheduler, epoch: int, where: str) -> dict[str, Any]:
    """A saved state of a schedule of learning rates, checked; what another version of torch did not save is its own.

    Args:
        found: what ``state_dict()`` of such a schedule gave.
        schedule: a new one.
        epoch: number of whole epochs after which it was saved.
        where: it was read, for the message.

    Raises:
        CheckpointError: it belongs to another schedule.
    """
    own = schedule.state_dict()
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{where} is {_called(found)}, expected a mapping")
    known = {key: found[key] for key in own if key in found}
    check_like(known, {key: own[key] for key in known}, where)
    if known.get("last_epoch") != epoch:
        raise CheckpointError(f"{where}: last_epoch is {_called(known.get('last_epoch'))}, expected {epoch}")
    return own | known


def _same_numbers(found: Any, expected: list[int]) -> bool:
    return type(found) is list and all(type(x) is int for x in found) and found == expected


def _is_number(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_number, value)) and bool(value)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _after_a_step(optimizer: optim.Optimizer) -> Mapping[Any, Any]:
    """What an optimiser keeps of each parameter, found with a copy and a gradient of 0."""
    twin = copy.deepcopy(optimizer)
    for group in twin.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    twin.step()
    return twin.state_dict()["state"]


def _called(value: Any) -> str:
    """What a value is, in a few words, whatever it is."""
    if isinstance(value, Tensor):
        kind = f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
        return kind if type(value) is Tensor and value.layout == torch.strided else f"a {type(value).__name__} ({kind})"
    if isinstance(value, Mapping | Sequence) and not isinstance(value, str | bytes):
        return f"a {type(value).__name__} of {len(value)}"
    try:
        text = "nothing" if value is None else repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a {type(value).__name__}"
    return text if len(text) <= 40 else f"{text[:36]} ..."
