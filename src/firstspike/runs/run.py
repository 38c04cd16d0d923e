"""A run, one object: what ``Trainer.fit(folder=...)`` returns and ``fs.Run(folder)`` opens."""

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from firstspike.config import Config, build, build_data
from firstspike.config.builder import Parts
from firstspike.data import SpikeData, Splits
from firstspike.data.files import read_labelled
from firstspike.runs.evaluate import RunEvaluation, decisions
from firstspike.runs.folder import check_free
from firstspike.runs.rows import Rows, in_classes, input_times
from firstspike.runs.saved import SavedRun
from firstspike.runs.writer import RunWriter
from firstspike.torchrun import rank
from firstspike.training import Callback, Evaluation, FitResult
from firstspike.training.callbacks import Stop

logger = logging.getLogger(__name__)


class Run(SavedRun):
    """A training with a folder: its config, tables and results, the trained network, and methods to use them.

        run = fs.Run("runs/wine")
        run.predict(rows)                       # names of classes, for rows as in the table
        run.network(times)                      # spike times in, spike times out
        run.evaluate(data).accuracy, run.metrics["validation_accuracy"], run.checkpoints
        run.resume(epochs=200)

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
            This run, with the new results.

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
        vars(self).clear()
        vars(self).update(vars(after))
        return self

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
        vars(run).update(results=writer.results, validations=result.validations, tests=result.tests)
        if not rank():
            run._draw()
        return run

    @cached_property
    def validations(self) -> tuple[Evaluation, ...]:  # type: ignore[override]
        """Evaluation of each network on the validation data; empty without."""
        return self._evaluations("validation")

    @cached_property
    def tests(self) -> tuple[Evaluation, ...]:  # type: ignore[override]
        """Evaluation of each network on the test data; empty without."""
        return self._evaluations("test")

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
        if data is None:
            data = self.held_out[0]
        if isinstance(data, SpikeData):
            return RunEvaluation.of(self, in_classes(data.to("cpu", self.dtype), self.class_names), "data")
        if not isinstance(data, str | Path):
            raise TypeError(
                f"data: expected SpikeData, {', '.join(Splits._fields)} or a file, got a {type(data).__name__}; "
                "without labels: run.predict(rows)"
            )
        if data in Splits._fields:
            found = getattr(self.data, str(data))
            if not len(found):
                raise ValueError(f"{self.folder} has no {data} data; it has {self.held_out[0]} data")
            return RunEvaluation.of(self, found, str(data))
        labelled = read_labelled(data, self.data.train, self.dtype)
        return RunEvaluation.of(self, labelled, f"data_{Path(data).stem}")

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
        from firstspike.plots.run_data import RunData
        from firstspike.plots.save import save_all

        data = RunData.of(self)  # what is loaded serves all figures
        return save_all(PLOTS, data, data.folder / "figures", names, formats, data.on_other + data.at_chosen)

    def report(self, out: Path | str | None = None) -> Path:
        """Write the report, by default into the folder; see ``firstspike.reports.write_report``."""
        from firstspike.reports.write import write_report

        return write_report(self, out)

    def _draw(self) -> None:
        """Draw the figures that need the tables alone. A training is not lost to a figure that cannot be drawn."""
        from firstspike.plots import AFTER_TRAINING
        from firstspike.plots.run_data import NotApplicable

        for name in AFTER_TRAINING:
            try:
                self.plot([name])
            except NotApplicable as reason:  # e.g. without validation data
                logger.info("%s", reason)
            except (OSError, ValueError) as error:
                logger.warning("no figure %s: %s", name, error)

    def _evaluations(self, split: str) -> tuple[Evaluation, ...]:
        if not len(getattr(self.data, split)):
            return ()
        return tuple(run.evaluate(split) for run in self.seeds or (self,))
