"""A run as figures need it: tables, data, networks and what they make of the test data, each read when first asked for.

The one file of the plots that knows how trainings are kept.
"""

import logging
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from firstspike.data import Splits
from firstspike.layers import Network, Record
from firstspike.losses import TimeLoss
from firstspike.plots.plane import YinYangPlane, record_in_parts
from firstspike.plots.stages import lif_stages, parameters
from firstspike.plots.style import time_unit
from firstspike.training.build import build_data, build_loss, build_network, generator
from firstspike.training.checkpoint import CheckpointError, checkpoints, load_checkpoint, load_newest
from firstspike.training.config import Config
from firstspike.training.config.data import YinYang
from firstspike.training.evaluation import Evaluation, evaluate
from firstspike.training.run import Run

_log = logging.getLogger(__name__)


class NotApplicable(ValueError):  # noqa: N818  (a reason to leave a figure out, no fault)
    """A figure that makes no sense for a run; the message says why."""


class History(NamedTuple):
    """A parameter over training: ``epochs (checkpoints,)`` and ``values (checkpoints, parameters)``."""

    epochs: Float[np.ndarray, " checkpoints"]
    values: Float[np.ndarray, "checkpoints parameters"]


class RunData:
    """What is known of a run, on the CPU whatever it was trained on.

    Args:
        path: the run's folder.

    Raises:
        FileNotFoundError: no run lives there.
    """

    def __init__(self, path: Path | str) -> None:
        self.run = Run.open(Path(path))
        self.path = self.run.path

    @cached_property
    def config(self) -> Config:
        """The config as it ran."""
        return self.run.config

    @property
    def unit(self) -> str:
        """Unit of all times, for an axis."""
        return time_unit(self.config.neuron.tau_syn)

    @cached_property
    def metrics(self) -> dict[str, list[float]]:
        """Columns of ``metrics.csv``.

        Raises:
            NotApplicable: no epoch is done.
        """
        return self._table("metrics")

    @cached_property
    def output_times(self) -> dict[str, list[float]]:
        """Columns of ``output_times.csv``.

        Raises:
            NotApplicable: no epoch is done.
        """
        return self._table("output_times")

    @cached_property
    def data(self) -> Splits:
        """The three splits."""
        return build_data(self.config)

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class."""
        return self.data.test.class_names

    @cached_property
    def loss(self) -> TimeLoss:
        """The loss, without regularisers."""
        return build_loss(self.config)

    @cached_property
    def initial(self) -> Network:
        """The network before training."""
        return self._network()

    @cached_property
    def network(self) -> Network:
        """The network of the newest checkpoint that can be read.

        Raises:
            NotApplicable: there is none.
        """
        checkpoint = load_newest(self.run.checkpoints)
        if checkpoint is None:
            raise NotApplicable(f"{self.path} has no checkpoint that can be read")
        return self._network(checkpoint.weights)

    @cached_property
    def evaluation(self) -> Evaluation:
        """What the network makes of the test data."""
        return evaluate(self.network, self.loss, self.data.test, [lif.index for lif in lif_stages(self.network)])

    @cached_property
    def record(self) -> Record:
        """Spike times of all layers on the test data, each ``(samples, neurons)``."""
        return record_in_parts(self.network, self.data.test.times)

    @cached_property
    def history(self) -> dict[str, History]:
        """All weights and delays over training, from the initial ones and the checkpoints.

        Raises:
            NotApplicable: there is no checkpoint.
        """
        epochs, values = [0.0], [parameters(self.initial)]
        for epoch, weights in self._states():
            if epoch > epochs[-1]:  # the best checkpoint may be one of the regular ones
                epochs.append(epoch)
                values.append(parameters(self._network(weights)))
        if len(epochs) == 1:
            raise NotApplicable(f"{self.path} has no checkpoint that can be read")
        return {
            name: History(np.asarray(epochs), np.stack([state[name].ravel() for state in values])) for name in values[0]
        }

    @cached_property
    def plane(self) -> YinYangPlane:
        """The plane that a Yin-Yang run learned on.

        Raises:
            NotApplicable: the run has other data.
        """
        data = self.config.data
        if not isinstance(data, YinYang):
            raise NotApplicable(f"only runs on yin_yang have a plane to look at, this one is on {data.kind}")
        return YinYangPlane(data.early, data.late, data.r_small, data.r_big)

    @cached_property
    def plane_record(self) -> Record:
        """Spike times of all layers on the grid of ``plane``."""
        return self.plane.record(self.network)

    def _table(self, name: str) -> dict[str, list[float]]:
        table = self.run.table(name)
        if not table or not table["epoch"]:
            raise NotApplicable(f"{self.path} has no finished epoch in {name}.csv")
        return table

    def _network(self, weights: dict[str, Tensor] | None = None) -> Network:
        config = self.config
        inputs, _ = config.data.shape()
        network = build_network(config, inputs, generator(config.training.seed, "weights"))
        if weights is not None:
            network.load_state_dict(weights)
        return network.requires_grad_(False)

    def _states(self) -> Iterator[tuple[float, dict[str, Tensor]]]:
        """Epoch and weights of each readable checkpoint, oldest first; a part of an epoch counts by its batches."""
        size = self.config.training.batch_size
        batches = -(-self.config.data.train // size)
        for path in checkpoints(self.run.checkpoints):
            try:
                checkpoint = load_checkpoint(path)
            except CheckpointError as error:
                _log.warning("%s; the figures leave it out", error)
                continue
            yield checkpoint.epoch + checkpoint.batch / batches, checkpoint.weights
