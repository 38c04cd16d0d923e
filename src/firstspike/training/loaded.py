"""A run as one reads it: each part is read when it is first asked for, on the CPU whatever it was trained on."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.data import Splits
from firstspike.layers import Network, Record
from firstspike.layers.stages import lif_stages
from firstspike.losses import TimeLoss
from firstspike.seeding import generator
from firstspike.training.build import DTYPES, build_data, build_loss, build_network, build_substrate
from firstspike.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    checkpoints,
    find_checkpoint,
    load_checkpoint,
    load_newest,
)
from firstspike.training.config import Config, with_substrate
from firstspike.training.evaluation import Evaluation, evaluate_record, record_in_parts
from firstspike.training.fit import check_weights
from firstspike.training.run import Run
from firstspike.training.seeds import member_configs, member_folder

Table = dict[str, Float[np.ndarray, " rows"]]


class LoadedRun:
    """A run: its config, tables and results, its trained network, and what that makes of the test data.

    Args:
        path: the run's folder.
        checkpoint: a name in ``checkpoints``, or ``best``; by default the newest one that can be read.
        substrate: the kind of another substrate than the run's, with its defaults, to look at the network on.

    Attributes:
        folder: where it lives.
        chosen: the checkpoint asked for, or None.
        elsewhere: the other substrate asked for, or None.

    Raises:
        FileNotFoundError: no run lives there.
        CheckpointError: it has no checkpoint of that name; a ``ValueError``.
        ConfigError: there is no such substrate; a ``ValueError``.
    """

    def __init__(self, path: Path | str, checkpoint: str | None = None, substrate: str | None = None) -> None:
        self._run = Run.open(Path(path))
        self.folder = self._run.path
        self.chosen = checkpoint
        self._on = with_substrate(self.config, substrate)
        self.elsewhere = None if self._on.substrate.kind == self.config.substrate.kind else substrate
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
        """What ``results.json`` says; empty before the end of the training."""
        return self._run.results

    @property
    def environment(self) -> dict[str, Any]:
        """What ``environment.json`` says; empty where there is none."""
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
    def seeds(self) -> tuple["LoadedRun", ...]:
        """The runs of a run of several seeds; else none."""
        configs = member_configs(self.config)
        return tuple(type(self)(member_folder(self.folder, x)) for x in configs) if len(configs) > 1 else ()

    @cached_property
    def network(self) -> Network:
        """The trained network; its parameters ask for no gradient.

        Raises:
            CheckpointError: see ``checkpoint``.
        """
        return self._network(self.checkpoint)

    @cached_property
    def initial(self) -> Network:
        """The network before training."""
        return self._network()

    @cached_property
    def loss(self) -> TimeLoss:
        """The loss, without regularisers."""
        return build_loss(self.config)

    @property
    def dtype(self) -> torch.dtype:
        """Of all times and parameters."""
        return DTYPES[self.config.training.dtype]

    @cached_property
    def data(self) -> Splits:
        """The three splits."""
        return build_data(self.config)

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class."""
        return self.data.test.class_names

    @cached_property
    def record(self) -> Record:
        """Spike times of all layers on the test data, each ``(samples, neurons)``, as the substrate sees them."""
        return self.observe(self.data.test.times)

    def observe(self, times: Float[Tensor, "samples inputs"], network: Network | None = None) -> Record:
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
        with build_substrate(self._on).open(network) as substrate:
            return record_in_parts(network, times, substrate)

    @cached_property
    def evaluation(self) -> Evaluation:
        """What the network makes of the test data; ``silent`` is of the LIF layers in order."""
        layers = [lif.index for lif in lif_stages(self.network)]
        return evaluate_record(self.record, self.loss, self.data.test.labels, layers)

    def _table(self, name: str) -> Table:
        return {column: np.asarray(values) for column, values in self._run.table(name).items()}

    def _network(self, checkpoint: Checkpoint | None = None) -> Network:
        config = self.config
        inputs, _ = config.data.shape()
        source = generator(config.training.seed, "weights")
        network = build_network(config, inputs, source, self.data.train.times if checkpoint is None else None)
        if checkpoint is not None:
            check_weights(checkpoint.weights, network.state_dict(), str(checkpoint.folder))
            network.load_state_dict(checkpoint.weights)
        return network.requires_grad_(False).eval()


def load_run(path: Path | str, checkpoint: str | None = None, substrate: str | None = None) -> LoadedRun:
    """A run to look at and to go on with in Python.

        run = fs.load_run("runs/bars")
        out = run.network(run.data.test.times)      # spike times (samples, classes)
        run.loss.predict(out), run.metrics["validation_accuracy"], run.checkpoints

    Each part is read when it is first asked for: ``config``, ``network``, ``loss``, ``data``, ``metrics``,
    ``results``, ``evaluation`` and more, see ``LoadedRun``. All is on the CPU.

    Args:
        path: the run's folder.
        checkpoint: a name out of ``run.checkpoints``, or ``best``; by default the newest one that can be read.
        substrate: the kind of another substrate than the run's, with its defaults.

    Raises:
        FileNotFoundError: no run lives there.
        ValueError: it has no checkpoint of that name, there is no such substrate.
    """
    return LoadedRun(path, checkpoint, substrate)
