"""A run for reading: each part is loaded when it is first used, on the CPU whatever it was trained on."""

import copy
import logging
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.config import (
    DTYPES,
    Config,
    ConfigError,
    Parts,
    build_data,
    build_loss,
    build_network,
    build_substrate,
    with_substrate,
)
from firstspike.data import EventLists, SpikeData, Splits
from firstspike.layers import Network, Record
from firstspike.losses import Loss
from firstspike.runs.checkpoint import Checkpoint, checkpoints, find_checkpoint, load_checkpoint, load_newest
from firstspike.runs.folder import RunFolder, changed_data
from firstspike.runs.seeds import member_configs, member_folder
from firstspike.runs.stored import OWN_DATA, copy_of_data, load_splits
from firstspike.seeding import generator
from firstspike.training import Evaluation, evaluate_record, record_in_parts
from firstspike.training.fitting import Objective
from firstspike.training.state import CheckpointError, check_weights

logger = logging.getLogger(__name__)

Table = dict[str, Float[np.ndarray, " rows"]]


class LoadedRun:
    """A run to examine and to use in Python: config, tables and results, trained network, and what it makes of data.

        run = fs.load_run("runs/bars")
        out = run.network(run.data.test.times)      # spike times (samples, classes)
        run.loss.predict(out), run.metrics["validation_accuracy"], run.checkpoints

    Each part is loaded when it is first used. Everything is on the CPU.

    Args:
        path: the run's folder.
        checkpoint: a name in ``checkpoints``, or ``best``; by default the newest one that can be read.
        substrate: use this kind of substrate, with default settings, instead of the run's.
        data: the data of the run, where they were made in Python and the folder has no copy.
        parts: objects of your own that the folder's config only names: ``network``, ``loss``, ``substrate``.

    Attributes:
        folder: where it lives.
        chosen: the checkpoint asked for, or None.
        elsewhere: the other substrate asked for, or None.

    Raises:
        FileNotFoundError: no run lives there.
        CheckpointError: it has no checkpoint of that name; a ``ValueError``.
        ConfigError: there is no such substrate; a ``ValueError``.
    """

    def __init__(
        self,
        path: Path | str,
        checkpoint: str | None = None,
        substrate: str | None = None,
        *,
        data: Splits | None = None,
        **parts: Any,
    ) -> None:
        self._parts, self._given = Parts(**parts), data
        self._run = RunFolder.open(Path(path))
        self.folder = self._run.path
        self.chosen = checkpoint
        self._on = with_substrate(self.config, substrate)
        self.elsewhere = None if self._on.substrate.kind == self.config.substrate.kind else substrate
        self._whole: LoadedRun | None = None
        self._place = None if checkpoint is None else find_checkpoint(self._run.checkpoints, checkpoint)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r})"

    @cached_property
    def config(self) -> Config:
        """The config as it ran."""
        return self._run.config

    @property
    def substrate(self) -> str:
        """The kind of substrate that spike times come from."""
        return self._on.substrate.kind

    @property
    def results(self) -> dict[str, Any]:
        """Contents of ``results.json``; empty before the end of the training."""
        return self._run.results

    @property
    def environment(self) -> dict[str, Any]:
        """Contents of ``environment.json``; empty where it is missing."""
        return self._run.environment

    @cached_property
    def metrics(self) -> Table:
        """Columns of ``metrics.csv``, a row an epoch; empty before the first."""
        return self._table("metrics")

    @cached_property
    def output_times(self) -> Table:
        """Columns of ``output_times.csv``; empty before the first epoch."""
        return self._table("output_times")

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Names of the checkpoints that look complete, oldest first."""
        return tuple(path.name for path in checkpoints(self._run.checkpoints))

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint that the network has its weights from.

        Raises:
            CheckpointError: there is none that can be read, or the one asked for cannot.
        """
        if self._place is not None:
            return load_checkpoint(self._place)
        if seeds := self.seeds:
            raise CheckpointError(f"{self.folder} holds {len(seeds)} seeds; choose one of them, e.g. {seeds[0].folder}")
        newest = load_newest(self._run.checkpoints)
        if newest is None:
            raise CheckpointError(f"{self.folder} has no checkpoint that can be read")
        return newest

    @cached_property
    def seeds(self) -> tuple[Self, ...]:
        """The runs of a run of several seeds, those that have begun; of one seed none."""
        configs = member_configs(self.config)
        folders = [member_folder(self.folder, config) for config in configs] if len(configs) > 1 else []
        return tuple(self.member(folder) for folder in folders if (folder / "config.yaml").is_file())

    def member(self, folder: Path, checkpoint: str | None = None) -> Self:
        """The run of one of several seeds, which all have the same data."""
        run = type(self)(folder, checkpoint)
        run._whole, run._parts = self, self._parts
        return run

    @cached_property
    def network(self) -> Network:
        """The trained network, with the weights of ``checkpoint``; its parameters ask for no gradient."""
        return self._network(self.checkpoint)

    @cached_property
    def initial(self) -> Network:
        """The network before training.

        Raises:
            CheckpointError: the checkpoint of its weights cannot be read.
        """
        start = self._run.checkpoints / "epoch_0000"  # of networks that the config cannot build
        return self._network(load_checkpoint(start) if start.is_dir() else None)

    @cached_property
    def loss(self) -> Loss:
        """The loss, without regularisers."""
        return build_loss(self.config) if self._parts.loss is None else self._parts.loss

    def predict(self, times: Float[Tensor, "*batch outputs"]) -> Tensor:
        """Class of each sample from its output times, by the rule of the loss; -1 where it makes no decision."""
        return Objective(self.loss).predict(times)

    @property
    def dtype(self) -> torch.dtype:
        """Of all times and parameters."""
        return DTYPES[self.config.training.dtype]

    @cached_property
    def data(self) -> Splits:
        """The three splits, on the CPU as the network; those that the run does not have are empty.

        If they are not those that the run was trained on, a warning (logging) says so.
        """
        if self._whole is not None:
            return self._whole.data
        training = self.config.training.model_copy(update={"device": "cpu"})
        here = self.config.model_copy(update={"training": training})
        data = stored_data(self.folder, here) if self._given is None else Splits(*(x.to("cpu") for x in self._given))
        if changed := changed_data(self._run, data):
            logger.warning(changed)
        return data

    @property
    def data_changed(self) -> str:
        """A line that says how the data differ from those of the training; empty if they are not known to."""
        return changed_data(self._run, self.data)

    @cached_property
    def held_out(self) -> tuple[str, SpikeData]:
        """Name and data of the split that figures and reports show: test, otherwise validation, otherwise train."""
        name = next(name for name in ("test", "validation", "train") if len(getattr(self.data, name)))
        return name, getattr(self.data, name)

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class."""
        return self.data.train.class_names

    def names(self, count: int) -> list[str]:
        """Names of the first ``count`` classes or outputs; numbers for those that the data do not name."""
        known = self.class_names[:count]
        return [*known, *map(str, range(len(known), count))]

    @cached_property
    def record(self) -> Record:
        """Spike times of all layers on ``held_out``, each ``(samples, neurons)``, as the substrate sees them."""
        return self.observe(self.held_out[1].times)

    def observe(self, times: Float[Tensor, "samples inputs"] | EventLists, network: Network | None = None) -> Record:
        """Spike times of all layers, as the run's substrate sees them, or the one asked for instead.

        Args:
            times: input spike times.
            network: one with other weights than ``network``, e.g. of an earlier checkpoint.

        Raises:
            ValueError: a network that the substrate cannot take.
            SubstrateError: a substrate that cannot be reached or does not answer.
            ImportError: a substrate whose extra is not installed.
        """
        network = self.network if network is None else network
        if not isinstance(network, Network):
            return record_in_parts(network, times)
        with (self._parts.substrate or build_substrate(self._on)).open(network) as substrate:
            return record_in_parts(network, times, substrate)

    @cached_property
    def evaluation(self) -> Evaluation:
        """Evaluation of the network on ``held_out``."""
        return evaluate_record(self.network, self.record, Objective(self.loss), self.held_out[1].labels)

    def _table(self, name: str) -> Table:
        return {column: np.asarray(values) for column, values in self._run.table(name).items()}

    def _network(self, checkpoint: Checkpoint | None = None) -> Network:
        network = self._parts.network
        if network is None:
            data = self.data.train
            source = generator(self.config.training.seed, "weights")
            times = data.times if checkpoint is None else None
            network = build_network(self.config, data.features, source, times, data.image)
        else:
            network = copy.deepcopy(network).cpu()
        if checkpoint is not None:
            check_weights(checkpoint.weights, network.state_dict(), str(checkpoint.folder))
            network.load_state_dict(checkpoint.weights)
        return network.requires_grad_(False).eval()


def stored_data(folder: Path, config: Config) -> Splits:
    """The data of a run: the folder's copy, otherwise those that its config describes.

    Raises:
        ConfigError: data that were made in Python, and the folder has no copy.
        ValueError: data that are not available.
    """
    if config.data.kind in OWN_DATA and (copy := copy_of_data(folder)) is not None:
        return load_splits(copy)
    if config.data.kind == "given":
        raise ConfigError(
            str(folder / "config.yaml"),
            ["data: they were made in Python and the folder has no copy; hand them over: load_run(folder, data=...)"],
        )
    return build_data(config)


load_run = LoadedRun
