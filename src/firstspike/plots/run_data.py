"""A run as figures need it: beside what everyone reads of it, its history and its plane."""

import logging
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Float
from torch import Tensor

from firstspike.layers import Network, Record
from firstspike.layers.named import named_parameters
from firstspike.plots.plane import YinYangPlane
from firstspike.plots.style import time_unit
from firstspike.runs.checkpoint import Checkpoint, load_checkpoint
from firstspike.runs.loaded import LoadedRun, Table
from firstspike.substrates import SubstrateError
from firstspike.training import record_in_parts
from firstspike.training.state import CheckpointError

_log = logging.getLogger(__name__)


class NotApplicable(ValueError):  # noqa: N818  (a reason to leave a figure out, no fault)
    """A figure that makes no sense for a run; the message says why."""


class History(NamedTuple):
    """A parameter over training: ``epochs (checkpoints,)`` and ``values (checkpoints, parameters)``."""

    epochs: Float[np.ndarray, " checkpoints"]
    values: Float[np.ndarray, "checkpoints parameters"]


class RunData(LoadedRun):
    """A loaded run for figures. Where a part is not there, a figure of it is ``NotApplicable``."""

    @classmethod
    def of(cls, run: LoadedRun) -> Self:
        """The same run for figures."""
        data = cls.__new__(cls)
        data.__dict__.update(run.__dict__)
        return data

    @property
    def unit(self) -> str:
        """Unit of all times, for an axis."""
        return time_unit(self.config.neuron.tau_syn)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint that the network has its weights from.

        Raises:
            NotApplicable: there is none that can be read.
        """
        try:
            return super().checkpoint
        except CheckpointError as error:
            raise NotApplicable(str(error)) from None

    @cached_property
    def history(self) -> dict[str, History]:
        """All that is learnt over training, from the initial ones and the checkpoints.

        Raises:
            NotApplicable: there is no checkpoint.
        """
        epochs, values = [], []
        for epoch, network in self.states():
            epochs.append(epoch)
            values.append(named_parameters(network))
        if max(epochs) == 0:
            raise NotApplicable(f"{self.folder} has no checkpoint that can be read")
        return {
            name: History(np.asarray(epochs), np.stack([state[name].ravel() for state in values])) for name in values[0]
        }

    @cached_property
    def exact_record(self) -> Record:
        """Exact spike times of all layers on ``held_out``, whatever the substrate."""
        return record_in_parts(self.network, self.held_out[1].times)

    @cached_property
    def plane(self) -> YinYangPlane:
        """The plane that a Yin-Yang run learned on.

        Raises:
            NotApplicable: the run has other data.
        """
        data = self.config.data
        if data.kind != "yin_yang":
            raise NotApplicable(f"only runs on yin_yang have a plane to look at, this one is on {data.kind}")
        return YinYangPlane(data.early, data.late, data.r_small, data.r_big)

    @cached_property
    def plane_record(self) -> Record:
        """Spike times of all layers on the grid of ``plane``."""
        return self.observe(self.plane.times(self.dtype))

    def observe(self, times: Tensor, network: Network | None = None) -> Record:
        """See ``LoadedRun``.

        Raises:
            NotApplicable: the substrate cannot be had here.
        """
        try:
            return super().observe(times, network)
        except (SubstrateError, ImportError) as error:
            raise NotApplicable(str(error)) from None

    def _table(self, name: str) -> Table:
        table = super()._table(name)
        if not table or not len(table["epoch"]):
            raise NotApplicable(f"{self.folder} has no finished epoch in {name}.csv")
        return table

    def states(self, most: int | None = None) -> Iterator[tuple[float, Network]]:
        """Epoch and network before training and at each readable checkpoint, oldest first.

        A part of an epoch counts by its batches.

        Args:
            most: so many checkpoints at most, evenly over all, the newest among them.
        """
        names = self.checkpoints
        if "epoch_0000" not in names:  # a config describes the weights that its network starts with
            yield 0.0, self.initial
        size = self.config.training.batch_size
        batches = -(-len(self.data.train) // size)
        last = -1.0 if "epoch_0000" in names else 0.0
        if most is not None and len(names) > most:
            names = tuple(names[k] for k in np.linspace(len(names) - 1, 0, most).astype(int)[::-1])
        for name in names:
            try:
                checkpoint = load_checkpoint(self.folder / "checkpoints" / name)
                network = self._network(checkpoint)
            except CheckpointError as error:
                _log.warning("%s; the figures leave it out", error)
                continue
            epoch = checkpoint.epoch + checkpoint.batch / batches
            if epoch > last:  # the best checkpoint may be one of the regular ones
                last = epoch
                yield epoch, network
