"""The class ``Run``, which ``Trainer.fit(folder=...)`` returns and ``fs.Run(folder)`` opens."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader

from firstspike.config import Config, build, build_data
from firstspike.config.builder import Parts, build_substrate
from firstspike.data import EventLists, SpikeData, Splits
from firstspike.data.arrays import as_tensor
from firstspike.layers import Network, Record
from firstspike.runs.evaluate import RunEvaluation, data_called, decisions
from firstspike.runs.folder import check_free
from firstspike.runs.opened import OpenedRun, Table
from firstspike.runs.rows import Rows, input_times
from firstspike.runs.writer import RunWriter
from firstspike.torchrun import rank
from firstspike.training import Callback, Evaluation, FitResult
from firstspike.training.callbacks import Stop
from firstspike.training.evaluation import record_in_parts

__all__ = ["Run", "Table"]


class Run(OpenedRun):
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
            folder: the run folder. It must not exist, or be empty.
            config: the training, see ``fs.config.load_config``.
            progress_bar: whether to show one.
            callbacks: additional receivers of the events of the training.
            stop: polled before every batch, as well as the signals. Return True to save and stop.

        Raises:
            FileExistsError: the folder is not empty.
            ValueError: a config that cannot be built, a training that processes cannot share.
            Exception: those of ``Trainer.fit``.
        """
        if not rank():
            check_free(Path(folder))
        writer = RunWriter(Path(folder), config)
        return cls._trained(
            writer, config, build_data(config), Parts(), callbacks, progress_bar=progress_bar, stop=stop
        )

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
            stop: polled before every batch, as well as the signals. Return True to save and stop.

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
        """The run that a training has just written; the figures that take little time are drawn."""
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

    def evaluate(self, data: SpikeData | DataLoader | Path | str | None = None) -> RunEvaluation:
        """Evaluate the network on labelled data.

        Args:
            data: ``SpikeData``, or a ``DataLoader`` of batches ``(times, labels)``, whose classes are found by their
                names if the run has some of these; or ``train``, ``validation`` or ``test``; or a file as
                ``fs.data.read_labelled`` reads it. By default ``held_out``.

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

    def plot(
        self, names: Sequence[str] | None = None, formats: Sequence[str] = ("png",), sample: int | None = None
    ) -> list[Path]:
        """Draw figures and write them to ``figures/NAME.png``, or other formats, each whole or not at all.

        On another substrate than the run's they are called ``NAME_on_KIND``, at a chosen checkpoint ``NAME_at_...``.

        Args:
            names: keys of ``fs.plots.PLOTS``; by default all that apply.
            formats: ``png``, ``pdf`` or ``svg``.
            sample: index in ``held_out``: only the figures that show one sample, of this one, as ``NAME_SAMPLE``.

        Returns:
            The files.

        Raises:
            ValueError: unknown names or formats, no such sample; figures asked for by name that do not apply, where the
                others are written.
        """
        from firstspike.plots import PLOTS, of_sample
        from firstspike.plots.save import save_all

        plots, ending = PLOTS, self.on_other + self.at_chosen
        if sample is not None:
            split, data = self.held_out
            if not 0 <= sample < len(data):
                raise ValueError(f"sample: expected 0 ... {len(data) - 1} for the {split} data, got {sample}")
            plots, ending = of_sample(sample), f"_{sample}{ending}"
        return save_all(plots, self, self.folder / "figures", names, formats, ending)

    def report(self, out: Path | str | None = None) -> Path:
        """Write the report, by default into the folder. See ``firstspike.reports.write_report``."""
        from firstspike.reports.write import write_report

        return write_report(self, out)

    def _evaluations(self, split: str) -> tuple[Evaluation, ...]:
        runs = (self.seeds or (self,)) if len(getattr(self.data, split)) else ()
        return tuple(run.evaluate(split) for run in runs)
