"""The contents of a run's folder, loaded on first use: config, tables, data and networks."""

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
from torch import nn

from firstspike.config import Config, ConfigError
from firstspike.config.builder import DTYPES, Parts, build_loss, build_network, build_substrate
from firstspike.config.load import with_substrate
from firstspike.data import SpikeData, Splits
from firstspike.layers import Network, Record
from firstspike.losses.base import Loss
from firstspike.runs.checkpoint import Checkpoint, checkpoints, find_checkpoint, load_checkpoint, load_newest
from firstspike.runs.evaluate import name_elsewhere
from firstspike.runs.folder import RunFolder, changed_data
from firstspike.runs.seeds import member_folders
from firstspike.runs.stored import splits_of
from firstspike.substrates import Exact
from firstspike.training.objective import Objective, form_for
from firstspike.training.state import CheckpointError, check_weights

logger = logging.getLogger(__name__)

Table = dict[str, Float[np.ndarray, " rows"]]


class OpenedRun:
    """The base of ``Run``: the contents of its folder."""

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
        self._parts = Parts(**parts)
        self._given = data
        self._run = RunFolder.open(Path(path))
        self.folder = self._run.path
        self._on = with_substrate(self.config, substrate, settings)
        same = self._on.substrate == self.config.substrate
        self.elsewhere = None if same else name_elsewhere(self._on.substrate, settings)
        self._whole: OpenedRun | None = None
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
        return {name: np.asarray(values) for name, values in self._run.table("metrics").items()}

    @cached_property
    def output_times(self) -> Table:
        """Columns of ``output_times.csv``; empty before the first epoch."""
        return {name: np.asarray(values) for name, values in self._run.table("output_times").items()}

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
        """The best accuracy of each network; NaN without validation data, and before the end of the training."""
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
        """The trained network, with the weights of ``checkpoint``. Its parameters require no gradient."""
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
        return Objective(self.loss, gives=form_for(self.loss, self.network))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of all times and parameters."""
        return DTYPES[self.config.training.dtype]

    @cached_property
    def data(self) -> Splits:
        """The three splits, on the CPU as the network. Those that the run does not have are empty.

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
        name = next(name for name in reversed(Splits._fields) if len(getattr(self.data, name)))
        return name, getattr(self.data, name)

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


def _on_cpu(part: Any) -> Any:
    """A copy of a module on the CPU; other objects as they are."""
    return copy.deepcopy(part).cpu() if isinstance(part, nn.Module) else part
