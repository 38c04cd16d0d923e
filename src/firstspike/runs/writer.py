"""The callback that writes a run folder: config, metrics, checkpoints, results."""

import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

from firstspike.config import Config
from firstspike.config.describer import custom_parts, describe
from firstspike.data import Splits
from firstspike.runs.checkpoint import Checkpoint, checkpoints, newest_of_all, place_of, remove_others, save_checkpoint
from firstspike.runs.folder import RunFolder, changed_data, changed_settings, check_free
from firstspike.runs.lock import locked
from firstspike.runs.seeds import mean_of, member_folders, write_table
from firstspike.runs.stored import OWN_DATA, copy_of_data, save_splits
from firstspike.substrates import SubstrateError
from firstspike.torchrun import rank
from firstspike.training import Callback, Evaluation, Fit, FitResult, Interrupted, Trainer
from firstspike.training.divergence import DivergedError
from firstspike.training.fit import Row
from firstspike.training.state import CheckpointError, own_tensors

logger = logging.getLogger(__name__)

_COPIED = 64_000_000
"""Bytes up to which your own data are copied into the folder; of more it has the checksums only."""


@dataclass(eq=False)
class RunWriter(Callback):
    """Writes a training into a run folder, and restores it from there.

    Without ``config``, it follows from the objects, see ``firstspike.config.describe``. With ``resume`` the training
    continues from the newest checkpoint, if the folder holds a run, or ``from_scratch``. Otherwise the folder must not
    exist, or be empty. ``checkpoint_every`` is the config's by default, otherwise about twenty over the training.

    ``results`` are the contents of ``results.json``, empty before the end of the training. ``data`` are those of the
    training, ``parts`` objects of your own that a config read off the objects only names.
    """

    essential = True

    folder: Path
    config: Config | None = None
    _: KW_ONLY
    resume: bool = False
    checkpoint_every: int | None = None
    allow_other_chip: bool = False
    from_scratch: bool = False

    def __post_init__(self) -> None:
        self.results: dict[str, Any] = {}
        self.data: Splits | None = None
        self.parts: dict[str, Any] = {}
        self.runs: list[RunFolder] = []
        self.best: dict[int, Checkpoint] = {}  # not on disk yet
        self.locks = ExitStack()
        self.locked: set[Path] = set()
        self.last_epoch: list[tuple[Path, Checkpoint]] = []  # for when the next one fails
        self.restored = False

    def on_restore(self, fit: Fit) -> None:
        """Load the newest checkpoints of the same moment."""
        fit.keys = self.config is not None
        self.resume = self.resume and (self.folder / "config.yaml").is_file()
        if fit.first:
            if not self.resume:
                check_free(self.folder)
            self.lock()
        if not self.resume or self.from_scratch:
            return
        own = member_folders(self.folder, fit.seeds)
        runs, others = [RunFolder(x) for x in own], {self.folder, *self.folder.glob("seed_*")}.difference(own)
        if strange := [path for path in sorted(others) if checkpoints(RunFolder(path).checkpoints)]:
            raise CheckpointError(
                f"{strange[0]} has checkpoints, and this training's are in {', '.join(map(str, own))}: "
                "continue with as many networks as it began with, on the same seeds"
            )
        if (seed := RunFolder(self.folder).environment.get("seed", fit.seeds[0])) != fit.seeds[0]:
            raise CheckpointError(f"{self.folder}: the seed belongs to the run, expected {seed}, got {fit.seeds[0]}")
        try:
            newest = newest_of_all([run.checkpoints for run in runs])
        except CheckpointError as error:
            raise CheckpointError(
                f"{error}. Nothing was changed. To delete all checkpoints and train from the beginning: "
                f"firstspike resume {self.folder} --from-scratch"
            ) from None
        if newest is None:
            return
        for run, checkpoint in zip(runs, newest, strict=True):
            self._check_moment(fit, checkpoint)
            run.check_columns(fit.columns)
        try:
            fit.callbacks.load_state_dict(newest[0].state.get("callbacks", {}))
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError):
            where = newest[0].folder
            raise CheckpointError(f"{where}: callbacks does not hold the states of this run's callbacks") from None
        members = [x.state | {"network": x.weights, "where": x.folder} for x in newest]
        fit.trainer.load_state_dict({"members": members}, self.allow_other_chip)
        self.restored = True

    def lock(self, folder: Path | None = None) -> None:
        """Keep other processes from training the run, until this callback is closed."""
        folder = folder or self.folder
        if folder not in self.locked and not rank():
            self.locks.enter_context(locked(folder))
            self.locked.add(folder)

    def close(self) -> None:
        """Release the locks."""
        self.locked.clear()
        self.locks.close()

    @staticmethod
    def _check_moment(fit: Fit, checkpoint: Checkpoint) -> None:
        """Raise a CheckpointError unless state, manifest and data of a checkpoint agree on how far the training was."""
        progress = checkpoint.state.get("progress")
        epoch, batch = (progress.get(key) if isinstance(progress, dict) else None for key in ("epoch", "batch"))
        if not isinstance(epoch, int) or not isinstance(batch, int):
            return  # ``load_state_dict`` reports the problem
        if (epoch, batch) != (checkpoint.epoch, checkpoint.batch) or not 0 <= batch < (fit.batches or math.inf):
            raise CheckpointError(
                f"{checkpoint.folder}: is at epoch {epoch}, batch {batch} of {fit.batches}, but its manifest has epoch "
                f"{checkpoint.epoch}, batch {checkpoint.batch}"
            )

    def on_fit_start(self, fit: Fit) -> None:
        """Create the folder, or remove everything newer than the restored checkpoint."""
        described = self.config is None
        config = self.config or describe(fit.trainer, fit, self.checkpoint_every)
        if self.checkpoint_every is None:
            self.checkpoint_every = config.training.checkpoint_every or -(-fit.epochs // 20)
        folders = [RunFolder(folder) for folder in member_folders(self.folder, fit.seeds)]
        self.data = data = Splits(*(x or fit.train.empty() for x in (fit.train, fit.validation, fit.test)))
        self.parts = custom_parts(config, fit.trainer) if described else {}
        if fit.first:
            self._prepare(fit, config, folders, data)
        self.runs = folders
        if fit.first:
            self.last_epoch = self._captured(fit)
            if described and not self.restored:
                # a config cannot describe the weights that a network of your own starts with
                self._save(self.last_epoch)

    def _prepare(self, fit: Fit, config: Config, folders: Sequence[RunFolder], data: Splits) -> None:
        """Lock the run and those of its seeds, create them, or let them continue."""
        top, seeds = RunFolder(self.folder), fit.seeds
        changed = changed_data(top, data) if self.resume else ""
        if changed:
            logger.warning(changed)
        if self.resume and self.config is None:
            before = top.config
            if before.data.kind == config.data.kind and (settings := changed_settings(top, config)):
                logger.warning(settings)
            if not changed:  # objects do not tell where their data came from
                config = config.model_copy(update={"data": before.data, "published": before.published})
        identities = [member.substrate.identity() for member in fit.trainer.members]
        runs = [(top, config, identities[0])]
        if len(seeds) > 1:
            configs = [config.with_training(seed=seed, n_seeds=1) for seed in seeds]
            runs += zip(folders, configs, identities, strict=True)
        for run, own, identity in runs:
            self.lock(run.path)  # the run of each seed can be resumed by itself
            if not (self.resume and (run.path / "config.yaml").is_file()):
                run.create(own, identity, data.checksum)
        if config.data.kind in OWN_DATA and (changed or copy_of_data(top.path) is None):
            size = sum(part.times.nbytes + part.labels.nbytes for part in data)
            if size <= _COPIED:
                save_splits(top.path / "data", data)
        for run, own, identity in runs if self.resume else ():
            run.continue_from(None if self.from_scratch else fit.epoch, own, identity, data.checksum)

    def on_epoch_end(self, fit: Fit, row: Row) -> None:
        """Write the epoch's numbers, and checkpoints when it is time."""
        if not fit.first:
            return
        for run, own in zip(self.runs, fit.rows, strict=True):
            run.append("metrics", [own])
        for run, validation in zip(self.runs, fit.validations, strict=False):
            if not validation.readout and not fit.train.regression:
                run.append("output_times", output_time_rows(fit.epoch, validation))
        if len(self.runs) > 1:
            RunFolder(self.folder).append("metrics", [row])
        self.last_epoch = self._captured(fit)
        self.best |= {k: self.last_epoch[k][1] for k, better in enumerate(fit.improved) if better}
        if fit.epoch % (self.checkpoint_every or 1) == 0 or fit.epoch == fit.epochs or fit.finished:
            self._save(self.last_epoch)
            fit.callbacks.call("on_checkpoint", fit)

    def on_interrupt(self, fit: Fit, reason: BaseException) -> None:
        """Save a state from which training can continue."""
        if not self.runs or not fit.first:
            return
        if isinstance(reason, Interrupted):
            self._save(self._captured(fit))
            how = f"firstspike resume {self.folder}, or fit(..., folder={str(self.folder)!r}, resume=True)"
            reason.args = (f"{str(reason).partition(';')[0]}, and saved; continue with: {how}",)
        elif isinstance(reason, SubstrateError | DivergedError):
            self._write_best()
            for place, checkpoint in self.last_epoch:
                if not place.exists():
                    save_checkpoint(place, checkpoint)
            saved = self.last_epoch[0][0].name
            if isinstance(reason, DivergedError):
                raise DivergedError(f"{reason}. The state before is saved in {self.folder}, as {saved}") from reason
            again = f"continue with: firstspike resume {self.folder}"
            raise SubstrateError(f"{reason}. {saved} is saved; {again}") from reason

    def on_fit_end(self, fit: Fit, result: FitResult) -> None:
        """Write results."""
        found = [
            {
                "epochs": result.epochs,
                "parameters": sum(p.numel() for p in member.network.parameters() if p.requires_grad),
                "seconds": round(result.seconds, 2),
                "best_validation_accuracy": None if math.isnan(best) else best,
                "validation": summary(result.validations[k]) if result.validations else None,
                "test": summary(result.tests[k]) if result.tests else None,
            }
            for k, (member, best) in enumerate(zip(fit.trainer.members, result.best_validation_accuracy, strict=True))
        ]
        self.results = found[0]
        if len(found) > 1:
            self.results = mean_of(found) | {"seeds": dict(zip(map(str, fit.seeds), found, strict=True))}
        if not fit.first:
            return
        for run, numbers in zip(self.runs, found, strict=True):
            run.write("results", numbers)
        if len(found) > 1:
            RunFolder(self.folder).write("results", self.results)
            write_table(self.folder, self.results)

    def _save(self, found: Sequence[tuple[Path, Checkpoint]]) -> None:
        """Checkpoints of all networks, also the best ones that wait in memory. Those that they replace are removed."""
        self._write_best()
        for place, checkpoint in found:
            save_checkpoint(place, checkpoint)
        for place, _ in found:  # once all are there
            remove_others(place.parent, "_batch_", place)

    def _write_best(self) -> None:
        """Write the networks that are the best so far. After a crash before, the repeated epochs find them again."""
        for index, checkpoint in sorted(self.best.items()):
            place = place_of(self.runs[index].checkpoints, checkpoint, "best_")
            save_checkpoint(place, checkpoint)
            remove_others(place.parent, "best_", place)
        self.best.clear()

    def _captured(self, fit: Fit) -> list[tuple[Path, Checkpoint]]:
        """A checkpoint of each network as it is now, and its regular place."""
        found = captured(fit.trainer, fit.callbacks.state_dict())
        return [(place_of(run.checkpoints, x), x) for run, x in zip(self.runs, found, strict=True)]


def captured(trainer: Trainer, callbacks: dict[str, Any] | None = None) -> list[Checkpoint]:
    """A checkpoint of each network with copied tensors. ``callbacks`` are their states."""
    members = [own_tensors(member | {"callbacks": callbacks or {}}) for member in trainer.state_dict()["members"]]
    return [Checkpoint(x["progress"]["epoch"], x["progress"]["batch"], x.pop("network"), x) for x in members]


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """The numbers of an evaluation."""
    return {
        "samples": len(evaluation.labels),
        **({} if math.isnan(evaluation.accuracy) else {"accuracy": evaluation.accuracy}),
        **({"metrics": dict(evaluation.metrics)} if evaluation.metrics else {}),
        "loss": evaluation.loss,
        "silent": list(evaluation.silent),
        "dead_outputs": evaluation.dead_outputs,
    }


def output_time_rows(epoch: int, validation: Evaluation) -> list[Row]:
    """Mean and standard deviation of each output's spike time over the samples of each class, and how many spiked."""
    rows: list[Row] = []
    for label in range(validation.times.shape[1]):
        times = validation.times[validation.labels == label].double()
        spiked = times.isfinite()
        count = spiked.sum(dim=0)
        mean = times.where(spiked, 0.0).sum(dim=0) / count
        spread = (times - mean).square().where(spiked, 0.0).sum(dim=0).div(count).sqrt()
        columns = {"mean": mean, "std": spread, "spiked": count / len(times)}
        values = {name: column.tolist() for name, column in columns.items()}
        for neuron in range(times.shape[1]):
            rows.append({"epoch": epoch, "label": label, "neuron": neuron} | {k: v[neuron] for k, v in values.items()})
    return rows
