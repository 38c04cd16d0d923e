"""How far a training is, and what of it goes into a checkpoint and back."""

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from firstspike.training.build import Experiment
from firstspike.training.checkpoint import Checkpoint, checkpoints, remove_checkpoint, save_checkpoint
from firstspike.training.evaluation import Evaluation
from firstspike.training.run import Run

Better = Literal["accuracy", "loss"] | None
"""What an evaluation is better by than the best so far: its loss counts among equal accuracies."""


@dataclass
class State:
    """How far a training is.

    Args:
        epoch: whole epochs done.
        batch: batches done of the next one.
        best: highest validation accuracy so far.
        best_loss: validation loss of the epoch that has it, the lowest of several.
        seconds: time spent so far.
        totals: what the batches of the unfinished epoch summed up, see ``train_batch``.
        noise: state of the generator of input noise and delays' jitter in the unfinished epoch.
    """

    epoch: int = 0
    batch: int = 0
    best: float = -math.inf
    best_loss: float = math.inf
    seconds: float = 0.0
    totals: Tensor | None = None
    noise: Tensor | None = None

    def improved(self, validation: Evaluation) -> Better:
        """Take note of an evaluation if it is the best so far, and say by what."""
        accuracy, loss = validation.accuracy, validation.loss
        how: Better = None
        if accuracy > self.best:
            how = "accuracy"
        elif accuracy == self.best and loss < self.best_loss:
            how = "loss"
        if how is not None:
            self.best, self.best_loss = accuracy, loss
        return how


def save_epoch(experiment: Experiment, run: Run, state: State) -> None:
    """A checkpoint named after how far the training is; those from inside an earlier epoch go."""
    new = _place(run, state)
    save_checkpoint(new, capture(experiment, state))
    _keep_one(run, new, "_batch_")


class LastEpoch:
    """What the last whole epoch left behind, for when a substrate fails in the middle of the next one.

    Of the exact substrate, which does not fail, nothing is kept.

    Args:
        members: the networks in training.
        runs: where each is saved.
        states: how far they are.
    """

    def __init__(self, members: Sequence[Experiment], runs: Sequence[Run], states: Sequence[State]) -> None:
        self._all = list(zip(members, runs, states, strict=True))
        self._wanted = any(member.substrate.kind != "exact" for member in members)
        self._kept: list[tuple[Path, Checkpoint]] = []
        self.keep()

    def keep(self) -> None:
        """The last epoch is the one that is done now."""
        if self._wanted:
            self._kept = [(_place(run, state), copy.deepcopy(capture(x, state))) for x, run, state in self._all]

    def save(self) -> None:
        """Make checkpoints of it, where there are none."""
        for place, checkpoint in self._kept:
            if not place.exists():
                save_checkpoint(place, checkpoint)


class Best:
    """The checkpoints of the best validation accuracy so far, one for each network; the one before it goes.

    One that is better by its loss alone waits in memory for the next regular checkpoint: where all samples are
    classified correctly, that can be every epoch. After a crash in between, the epochs that are repeated find it again.

    Args:
        members: the networks in training.
        runs: where each is saved.
        states: how far they are.
    """

    def __init__(self, members: Sequence[Experiment], runs: Sequence[Run], states: Sequence[State]) -> None:
        self._all = list(zip(members, runs, states, strict=True))
        self._waiting: dict[int, Checkpoint] = {}

    def update(self, better: Sequence[Better]) -> None:
        """Keep the networks that are better now, as ``State.improved`` says."""
        for index, ((member, _, state), how) in enumerate(zip(self._all, better, strict=True)):
            if how is not None:
                self._waiting[index] = capture(member, state)
            if how == "accuracy":
                self._write(index)
            elif how == "loss":
                self._waiting[index] = copy.deepcopy(self._waiting[index])

    def save(self) -> None:
        """Make checkpoints of those that wait."""
        for index in list(self._waiting):
            self._write(index)

    def _write(self, index: int) -> None:
        _, run, _ = self._all[index]
        new = run.checkpoints / f"best_{self._waiting[index].epoch:04d}"
        save_checkpoint(new, self._waiting[index])
        _keep_one(run, new, "best_")
        del self._waiting[index]


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

    Raises:
        ValueError: the substrate is another chip than the checkpoint's, and none other is allowed.
    """
    kept = checkpoint.state.get("substrate", {"identity": {}, "state": {}})
    before, now = (identity.get("chip") for identity in (kept["identity"], experiment.substrate.identity()))
    if before != now and before is not None and not allow_other_chip:
        raise ValueError(
            f"the run was trained on chip {before}, this is {'no chip' if now is None else f'chip {now}'}: what it "
            "learned fits that chip. To go on here nevertheless: firstspike resume --allow-other-chip"
        )
    experiment.network.load_state_dict(checkpoint.weights)
    experiment.optimizer.load_state_dict(checkpoint.state["optimizer"])
    if experiment.schedule is not None:
        experiment.schedule.load_state_dict(checkpoint.state["schedule"])
    experiment.silent.load_state_dict(checkpoint.state["silent"])
    if kept["identity"].get("kind") == experiment.substrate.kind:
        experiment.substrate.load_state_dict(kept["state"])
    state = State(**checkpoint.state["progress"])
    if state.totals is not None:
        state.totals = state.totals.to(experiment.device)
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
