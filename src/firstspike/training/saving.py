"""How far a training is, and what of it goes into a checkpoint and back."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from firstspike.training.build import Experiment
from firstspike.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    checkpoints,
    remove_checkpoint,
    save_checkpoint,
)
from firstspike.training.fit import check_like, fitting_state
from firstspike.training.run import Run


@dataclass
class State:
    """How far a training is.

    Args:
        epoch: whole epochs done.
        batch: batches done of the next one.
        best: highest validation accuracy so far.
        seconds: time spent so far.
        totals: what the batches of the unfinished epoch summed up, see ``train_batch``.
        noise: state of the generator of input noise and delays' jitter in the unfinished epoch.
    """

    epoch: int = 0
    batch: int = 0
    best: float = -math.inf
    seconds: float = 0.0
    totals: Tensor | None = None
    noise: Tensor | None = None


def save_epochs(members: Sequence[Experiment], runs: Sequence[Run], states: Sequence[State]) -> None:
    """Checkpoints named after how far the training is; those from inside an earlier epoch go, once all are there."""
    for experiment, run, state in zip(members, runs, states, strict=True):
        save_checkpoint(_place(run, state), capture(experiment, state))
    for run, state in zip(runs, states, strict=True):
        _keep_one(run, _place(run, state), "_batch_")


class LastEpoch:
    """What the last whole epoch left, for when the next one fails: no answer from a substrate, numbers without end.

    Args:
        members: the networks in training.
        runs: where each is saved.
        states: how far they are.
    """

    def __init__(self, members: Sequence[Experiment], runs: Sequence[Run], states: Sequence[State]) -> None:
        self._all = list(zip(members, runs, states, strict=True))
        self._kept: list[tuple[Path, Checkpoint]] = []
        self.keep()

    def keep(self) -> None:
        """The last epoch is the one that is done now."""
        self._kept = [(_place(run, state), _copied(capture(x, state))) for x, run, state in self._all]

    def save(self) -> None:
        """Make checkpoints of it, where there are none."""
        for place, checkpoint in self._kept:
            if not place.exists():
                save_checkpoint(place, checkpoint)


def _copied(checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, weights=_tensors_copied(checkpoint.weights), state=_tensors_copied(checkpoint.state))


def _tensors_copied(value: Any) -> Any:
    """Nested mappings and sequences with tensors of their own; ``deepcopy`` would copy all that a view is part of."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if type(value) in (dict, OrderedDict):
        return {key: _tensors_copied(entry) for key, entry in value.items()}
    return [_tensors_copied(entry) for entry in value] if type(value) is list else value


def save_best(experiment: Experiment, run: Run, state: State) -> None:
    """The checkpoint of the best validation accuracy so far; the one before it goes."""
    new = run.checkpoints / f"best_{state.epoch:04d}"
    save_checkpoint(new, capture(experiment, state))
    _keep_one(run, new, "best_")


def capture(experiment: Experiment, state: State) -> Checkpoint:
    """All that a training needs to go on, bit for bit."""
    return Checkpoint(
        epoch=state.epoch,
        batch=state.batch,
        weights=experiment.network.state_dict(),
        state={
            "optimizer": experiment.optimizer.state_dict(),
            "schedule": None if experiment.schedule is None else experiment.schedule.state_dict(),
            "silent": experiment.silent.state_dict(),
            "substrate": {"identity": experiment.substrate.identity(), "state": experiment.substrate.state_dict()},
            "progress": asdict(state),
        },
    )


def restore(experiment: Experiment, checkpoint: Checkpoint, allow_other_chip: bool = False) -> State:
    """Put a checkpoint into an experiment of the same config; returns how far it was.

    All of it is checked before anything is taken over.

    Raises:
        CheckpointError: it holds what does not belong to the experiment.
        ValueError: the substrate is another chip than the checkpoint's, and none other is allowed.
    """
    kept = fitting_state(experiment, checkpoint)
    state = _progress(experiment, checkpoint)
    identity = kept["substrate"]["identity"]
    before, now = identity.get("chip"), experiment.substrate.identity().get("chip")
    if before != now and before is not None and not allow_other_chip:
        raise ValueError(
            f"the run was trained on chip {before}, this is {'no chip' if now is None else f'chip {now}'}: what it "
            "learned fits that chip. To go on here nevertheless: firstspike resume --allow-other-chip"
        )
    experiment.network.load_state_dict(checkpoint.weights)
    experiment.optimizer.load_state_dict(kept["optimizer"])
    if experiment.schedule is not None:
        experiment.schedule.load_state_dict(kept["schedule"])
    experiment.silent.load_state_dict(kept["silent"])
    if identity.get("kind") == experiment.substrate.kind:
        experiment.substrate.load_state_dict(kept["substrate"]["state"])
    return state


def _progress(experiment: Experiment, checkpoint: Checkpoint) -> State:
    """How far a checkpoint is, checked."""
    found, where = checkpoint.state["progress"], f"{checkpoint.folder}: progress"
    sums = torch.zeros(3 + len(experiment.spiking), dtype=torch.float64)
    inside = {"totals": sums, "noise": torch.Generator().get_state()}  # an epoch that is not done
    new = asdict(State())
    if isinstance(found, dict):
        expected = {key: None if found[key] is None else like for key, like in inside.items() if key in found}
        new = {key: new[key] for key in new if key in found or key in ("epoch", "batch")} | expected
    check_like(found, new, where)
    state = State(**found)
    batches = math.ceil(len(experiment.data.train) / experiment.config.training.batch_size)
    if (state.epoch, state.batch) != (checkpoint.epoch, checkpoint.batch) or not 0 <= state.batch < batches:
        raise CheckpointError(
            f"{where} is at epoch {state.epoch}, batch {state.batch} of {batches}, its manifest says epoch "
            f"{checkpoint.epoch}, batch {checkpoint.batch}"
        )
    if state.totals is not None:
        state.totals = state.totals.to(experiment.device)
    elif state.batch:
        raise CheckpointError(f"{where} lacks the sums over the first {state.batch} batches")
    return state


def _place(run: Run, state: State) -> Path:
    """The checkpoint of a state, inside an epoch or behind one."""
    inside = f"_batch_{state.batch:05d}" if state.batch else ""
    return run.checkpoints / f"epoch_{state.epoch:04d}{inside}"


def _keep_one(run: Run, new: Path, mark: str) -> None:
    """Remove the other checkpoints whose names have the mark."""
    for path in checkpoints(run.checkpoints):
        if mark in path.name and path != new:
            remove_checkpoint(path)
