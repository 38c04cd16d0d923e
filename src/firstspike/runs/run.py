"""A run, one object: what ``Trainer.fit(folder=...)`` returns and ``fs.Run(folder)`` opens."""

import copy
import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from firstspike.config import Config, ConfigError, build, build_data
from firstspike.config.builder import DTYPES, Parts, build_loss, build_network, build_substrate
from firstspike.config.load import with_substrate
from firstspike.data import EventLists, SpikeData, Splits
from firstspike.data.arrays import as_tensor
from firstspike.layers import Network, Record
from firstspike.losses.base import Loss
from firstspike.runs.checkpoint import Checkpoint, checkpoints, find_checkpoint, load_checkpoint, load_newest
from firstspike.runs.evaluate import RunEvaluation, data_called, decisions, name_elsewhere
from firstspike.runs.folder import RunFolder, changed_data, check_free
from firstspike.runs.rows import Rows, input_times
from firstspike.runs.seeds import member_folders
from firstspike.runs.stored import splits_of
from firstspike.runs.writer import RunWriter
from firstspike.substrates import Exact
from firstspike.torchrun import rank
from firstspike.training import Callback, Evaluation, FitResult
from firstspike.training.callbacks import Stop
from firstspike.training.evaluation import record_in_parts
from firstspike.training.objective import Objective
from firstspike.training.state import CheckpointError, check_weights

logger = logging.getLogger(__name__)

Table = dict[str, Float[np.ndarray, " rows"]]


class Run:
    """A training with a folder: its config, tables and results, the trained network, and methods to use them.

        run = fs.Run("runs/wine")
        run.predict(rows)                       # names of classes, for rows as in the table
        run.network(times)                      # spike times in, spike times out
        run.evaluate(data).accuracy, run.metrics["validation_accuracy"], run.checkpoints
        run = run.resume(epochs=200)

    Each part is loaded when it is first used. Everything is on the CPU, even if the run was trained on another device.
    The numbers of a ``FitResult`` have the same names here.

    Args:
        path: the run's folder.
        checkpoint: a name in ``checkpoints``, or ``best``; by default the newest one that can be read.
        substrate: use this kind of substrate, with default settings, instead of the run's.
        settings: of the substrate, such as ``["substrate.weight_bits=4"]``.
        data: the data of the run, if they were made in Python and the folder has no copy.
        parts: your own objects that the folder's config only names: ``network``, ``loss``, ``substrate``, and for
            ``resume`` ``optimizer``, ``schedule``, ``regularizers``. An optimiser belongs to the network that is
            passed.

    Attributes:
        folder: the run folder.
        elsewhere: another substrate that was requested, with its settings, or None.

    Raises:
        FileNotFoundError: the folder does not exist or is not a run.
        CheckpointError: it has no checkpoint of that name; a ``ValueError``.
        ConfigError: an unknown substrate; a ``ValueError``.
    """

    def __init__(
        self,
        path: Path | str,
        checkpoint: str | None = None,
        substrate: str | None = None,
        *,
        settings: Sequence[str] = (),
        data: Splits | None = None,
        **parts: Any,
    ) -> None:
        self._parts, self._given = Parts(**parts), data
        self._run = RunFolder.open(Path(path))
        self.folder = self._run.path
        self._on = with_substrate(self.config, substrate, settings)
        same = self._on.substrate == self.config.substrate
        self.elsewhere = None if same else name_elsewhere(self._on.substrate, settings)
        self._whole: Run | None = None
        self.chosen = None if checkpoint is None else find_checkpoint(self._run.checkpoints, checkpoint)
        self.on_other = "" if self.elsewhere is None else f"_on_{self.elsewhere}"  # in names of files
        self.at_chosen = "" if self.chosen is None else f"_at_{self.chosen.name}"
        self.kept: dict[str, Record] = {}  # of other inputs than the data, by name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r})"

    @cached_property
    def config(self) -> Config:
        """The config as it ran."""
        return self._run.config

    @property
    def substrate(self) -> str:
        """The kind of substrate of the spike times."""
        return self._on.substrate.kind

    @cached_property
    def results(self) -> dict[str, Any]:
        """Contents of ``results.json``; empty before the end of the training."""
        return self._run.results

    @property
    def environment(self) -> dict[str, Any]:
        """Contents of ``environment.json``; empty if it is missing."""
        return self._run.environment

    @cached_property
    def metrics(self) -> Table:
        """Columns of ``metrics.csv``, a row per epoch; empty before the first. For several networks, their mean."""
        return self._table("metrics")

    @cached_property
    def output_times(self) -> Table:
        """Columns of ``output_times.csv``; empty before the first epoch."""
        return self._table("output_times")

    @property
    def epochs(self) -> int:
        """Whole epochs done."""
        return len(self.metrics.get("epoch", ()))

    @property
    def seconds(self) -> float:
        """Total time of the training, also if it was resumed; NaN before its end."""
        return float(self.results.get("seconds", np.nan))

    @property
    def best_validation_accuracy(self) -> tuple[float, ...]:
        """Of each network; NaN without validation data, and before the end of the training."""
        each = self.results.get("seeds", {"": self.results}).values()
        return tuple(np.nan if (best := x.get("best_validation_accuracy")) is None else best for x in each)

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Names of the checkpoints that look complete, oldest first."""
        return tuple(path.name for path in checkpoints(self._run.checkpoints))

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint that the network has its weights from.

        Raises:
            CheckpointError: there is none that can be read, or the requested one cannot be.
        """
        if self.chosen is not None:
            return load_checkpoint(self.chosen)
        if seeds := self.seeds:
            raise CheckpointError(f"{self.folder} holds {len(seeds)} seeds; choose one of them, e.g. {seeds[0].folder}")
        if (newest := load_newest(self._run.checkpoints)) is None:
            raise CheckpointError(f"{self.folder} has no checkpoint that can be read")
        return newest

    @cached_property
    def seeds(self) -> tuple[Self, ...]:
        """The runs of a run of several seeds, those that have begun; of one seed none."""
        first, count = self.config.training.seed, self.config.training.n_seeds
        folders = member_folders(self.folder, range(first, first + count)) if count > 1 else []
        runs = [type(self)(folder) for folder in folders if (folder / "config.yaml").is_file()]
        for run in runs:  # they have the same data
            run._whole = self
            run._parts = self._parts
        return tuple(runs)

    @cached_property
    def network(self) -> Network:
        """The trained network, with the weights of ``checkpoint``; its parameters require no gradient."""
        return self.network_at(self.checkpoint)

    @cached_property
    def stored_network(self) -> Network:
        """The trained network with its weights rounded, if it was trained with ``weight_bits``."""
        own = self._parts.substrate or build_substrate(self.config)
        if not isinstance(own, Exact):  # devices round in their own way, which others do not share
            return self.network
        network = copy.deepcopy(self.network)
        network.load_state_dict(own.parameters(network), strict=False)
        return network

    @cached_property
    def initial(self) -> Network:
        """The network before training.

        Raises:
            CheckpointError: the checkpoint of its weights cannot be read.
        """
        start = self._run.checkpoints / "epoch_0000"  # of networks that the config cannot build
        return self.network_at(load_checkpoint(start) if start.is_dir() else None)

    @cached_property
    def loss(self) -> Loss:
        """The loss, without regularisers."""
        own = self._parts.loss
        return build_loss(self.config) if own is None else _on_cpu(own)

    @cached_property
    def objective(self) -> Objective:
        """The loss with its decision rule: ``objective.predict(output_times)`` returns class indices."""
        return Objective(self.loss, gives=getattr(self.network, "gives", None))

    @property
    def dtype(self) -> torch.dtype:
        """Of all times and parameters."""
        return DTYPES[self.config.training.dtype]

    @cached_property
    def data(self) -> Splits:
        """The three splits, on the CPU as the network; those that the run does not have are empty.

        If they are not those that the run was trained on, there is a warning (logging).
        """
        if self._whole is not None:
            return self._whole.data
        if changed := changed_data(self._run, self._splits):
            logger.warning(changed)
        return self._splits

    @property
    def data_changed(self) -> str:
        """One line on how the data differ from those of the training; empty if no difference is known."""
        return changed_data(self._run, self.data)

    @cached_property
    def held_out(self) -> tuple[str, SpikeData]:
        """Name and data of the split that figures and reports show: test, otherwise validation, otherwise train."""
        name = next(name for name in ("test", "validation", "train") if len(getattr(self.data, name)))
        return name, getattr(self.data, name)

    @cached_property
    def record(self) -> Record:
        """Spike times of all layers on ``held_out``, each ``(samples, neurons)``, on the substrate."""
        return self.observe(self.held_out[1].times)

    def observe(self, times: Float[Tensor, "samples inputs"] | EventLists, network: Network | None = None) -> Record:
        """Spike times of all layers on the run's substrate, or on the requested one.

        Args:
            times: input spike times.
            network: one with other weights than ``network``, e.g. of an earlier checkpoint.

        Raises:
            ValueError: a network that the substrate cannot take.
            SubstrateError: a substrate that cannot be reached or does not answer.
            ImportError: a substrate whose extra is not installed.
        """
        if network is None:
            network = self.network if self._on.substrate.kind == self.config.substrate.kind else self.stored_network
        if not isinstance(times, Tensor | EventLists):
            times = as_tensor("times", times).to(self.dtype)
        if not isinstance(network, Network):
            return record_in_parts(network, times)
        with (self._parts.substrate or build_substrate(self._on)).open(network) as substrate:
            return record_in_parts(network, times, substrate)

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class."""
        return self.data.train.class_names

    def names(self, count: int) -> list[str]:
        """Names of the first ``count`` classes or outputs; numbers where the data have none, or are not here."""
        known: Sequence[str] = ()
        with suppress(ConfigError, ImportError, OSError):
            known = self.class_names[:count]
        return [*known, *map(str, range(len(known), count))]

    def _table(self, name: str) -> Table:
        return {column: np.asarray(values) for column, values in self._run.table(name).items()}

    @cached_property
    def _splits(self) -> Splits:
        """The data as they were handed over; otherwise the folder's copy; otherwise those that the config describes."""
        if self._given is not None:
            return Splits(*(part.to("cpu") for part in self._given))
        if self._whole is not None:
            return self._whole._splits
        return splits_of(self.folder, self.config)

    def network_at(self, checkpoint: Checkpoint | None) -> Network:
        """A network with the weights of a checkpoint; without one as before training."""
        own, seed = self._parts.network, self.config.training.seed
        network = build_network(self.config, self.data.train, seed, checkpoint is None) if own is None else _on_cpu(own)
        if checkpoint is not None:
            check_weights(checkpoint.weights, network.state_dict(), str(checkpoint.folder))
            network.load_state_dict(checkpoint.weights)
        return network.requires_grad_(False).eval()

    @classmethod
    def start(
        cls,
        folder: Path | str,
        config: Config,
        *,
        progress_bar: bool = True,
        callbacks: Sequence[Callback] = (),
        stop: Stop = lambda: False,
    ) -> Self:
        """Train a config in a new folder.

        Processes that ``torchrun`` started train it together, and the first one writes.

        Args:
            folder: the run folder; it must not exist, or be empty.
            config: the training, see ``fs.config.load_config``.
            progress_bar: whether to show one.
            callbacks: additional receivers of the events of the training.
            stop: polled before every batch, as well as the signals; return True to save and stop.

        Raises:
            FileExistsError: the folder is not empty.
            ValueError: a config that cannot be built, a training that processes cannot share.
            Exception: those of ``Trainer.fit``.
        """
        if not rank():
            check_free(Path(folder))
        writer, data = RunWriter(folder, config), build_data(config)
        return cls._trained(writer, config, data, Parts(), callbacks, progress_bar=progress_bar, stop=stop)

    def resume(
        self,
        epochs: int | None = None,
        *,
        progress_bar: bool = True,
        callbacks: Sequence[Callback] = (),
        allow_other_chip: bool = False,
        from_scratch: bool = False,
        stop: Stop = lambda: False,
    ) -> Self:
        """Continue the training from its newest checkpoint, exactly as if it had never stopped.

        A damaged checkpoint is reported (logging) and the previous one is used. The run starts over if no
        checkpoint was saved yet, but not if none of the saved ones can be read.

        Args:
            epochs: a new total number of epochs; by default the config's.
            progress_bar: whether to show one.
            callbacks: additional receivers of the events of the training.
            allow_other_chip: resume even if the run used another chip.
            from_scratch: remove all checkpoints and tables and start over.
            stop: see ``start``.

        Returns:
            The run with the new results. This object still has what it has loaded, of the training before.

        Raises:
            CheckpointError: no checkpoint can be read, or the newest one belongs to another config; a ``ValueError``.
            ValueError: a run that was opened at a checkpoint or on another substrate; fewer epochs than are done,
                another chip, a part that the config only names and that is missing.
            Exception: those of ``Trainer.fit``.
        """
        if self.chosen is not None or self.elsewhere is not None:
            raise ValueError("a run is resumed from its newest checkpoint on its own substrate: open it without others")
        writer = RunWriter(self.folder, resume=True, allow_other_chip=allow_other_chip, from_scratch=from_scratch)
        try:
            writer.lock()  # from here on the config does not change
            config = self._run.config
            writer.config = config = config if epochs is None else config.with_training(epochs=epochs)
            options: dict[str, Any] = {"progress_bar": progress_bar, "stop": stop}
            after = self._trained(writer, config, self._splits, self._parts, callbacks, **options)
        finally:
            writer.close()
        after._parts = self._parts
        return after

    @classmethod
    def _trained(
        cls,
        writer: RunWriter,
        config: Config,
        data: Splits,
        parts: Parts,
        callbacks: Sequence[Callback],
        **options: Any,
    ) -> Self:
        training = config.training
        early = [] if training.early_stopping is None else [training.early_stopping.build()]
        result = build(config, data, parts).fit(
            data.train,
            data.validation,
            test=data.test,
            epochs=training.epochs,
            batch_size=training.batch_size,
            seed=training.seed,
            callbacks=[*early, writer, *callbacks],
            **options,
        )
        return cls.written(writer, result)

    @classmethod
    def written(cls, writer: RunWriter, result: FitResult) -> Self:
        """The run that a training has just written; its figures that need no network are drawn."""
        run = cls(writer.folder, data=writer.data, **writer.parts)
        run.results = writer.results
        run.validations = result.validations
        run.tests = result.tests
        if not rank():
            from firstspike.plots.save import draw_after_training

            draw_after_training(run)
        return run

    @cached_property
    def validations(self) -> tuple[Evaluation, ...]:
        """Evaluation of each network on the validation data; empty without."""
        return self._evaluations("validation")

    @cached_property
    def tests(self) -> tuple[Evaluation, ...]:
        """Evaluation of each network on the test data; empty without."""
        return self._evaluations("test")

    @property
    def validation(self) -> Evaluation | None:
        """Evaluation of the (first) network on the validation data."""
        return next(iter(self.validations), None)

    @property
    def test(self) -> Evaluation | None:
        """Evaluation of the (first) network on the test data."""
        return next(iter(self.tests), None)

    def predict(self, rows: Rows) -> np.ndarray:
        """Names of the classes of new samples, or numbers if the labels are numbers.

        Args:
            rows: as in the table that the run was trained on, without labels: a frame of pandas or polars, an array, a
                list of mappings, or a file as ``fs.data.read_times`` reads it. A run on encoded values takes values,
                others spike times. Columns whose names the run has may be in any order, among others.

        Returns:
            ``(samples,)``, strings. A sample without a decision is ``silent``, or ``no decision`` if a class has
            that name. If the labels are numbers, ``(samples, targets)``.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: rows that do not fit the network.
            SubstrateError: a substrate that cannot be reached or does not answer.
        """
        output = self.observe(input_times(rows, self.data.train, self.dtype)).output
        return output.numpy() if self.data.train.regression else np.array(decisions(self, output))

    def evaluate(self, data: SpikeData | Path | str | None = None) -> RunEvaluation:
        """Evaluate the network on labelled data.

        Args:
            data: ``SpikeData``, whose classes are found by their names if the run has some of these; or ``train``,
                ``validation`` or ``test``; or a file as ``fs.data.read_labelled`` reads it. By default ``held_out``.

        Returns:
            An ``Evaluation`` that also has the spike times of all layers, and can be saved into the folder. Results of
            a file are called ``data_`` and its stem; on another substrate than the run's own ``NAME_on_KIND``, and the
            settings that were changed.

        Raises:
            FileNotFoundError: the file does not exist.
            TypeError: data of another kind, such as a frame, which has no labels.
            ValueError: the run has no such data, or data and network do not fit.
            SubstrateError: a substrate that cannot be reached or does not answer.
        """
        return RunEvaluation.of(self, *data_called(self, data))

    @cached_property
    def evaluation(self) -> RunEvaluation:
        """Evaluation of the network on ``held_out``."""
        name, data = self.held_out
        return RunEvaluation.of(self, data, name, self.record)

    def plot(self, names: Sequence[str] | None = None, formats: Sequence[str] = ("png",)) -> list[Path]:
        """Draw figures and write them to ``figures/NAME.png``, or other formats, each whole or not at all.

        On another substrate than the run's they are called ``NAME_on_KIND``, at a chosen checkpoint ``NAME_at_...``.

        Args:
            names: keys of ``fs.plots.PLOTS``; by default all that apply.
            formats: ``png``, ``pdf`` or ``svg``.

        Returns:
            The files.

        Raises:
            ValueError: unknown names or formats; figures asked for by name that do not apply, where the others are
                written.
        """
        from firstspike.plots import PLOTS
        from firstspike.plots.save import save_all

        return save_all(PLOTS, self, self.folder / "figures", names, formats, self.on_other + self.at_chosen)

    def report(self, out: Path | str | None = None) -> Path:
        """Write the report, by default into the folder; see ``firstspike.reports.write_report``."""
        from firstspike.reports.write import write_report

        return write_report(self, out)

    def _evaluations(self, split: str) -> tuple[Evaluation, ...]:
        runs = (self.seeds or (self,)) if len(getattr(self.data, split)) else ()
        return tuple(run.evaluate(split) for run in runs)


def _on_cpu(part: Any) -> Any:
    """A copy of a module on the CPU; other objects as they are."""
    return copy.deepcopy(part).cpu() if isinstance(part, nn.Module) else part
