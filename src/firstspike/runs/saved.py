"""What the folder of a run holds: config, tables and results, checkpoints and data, and the networks from them."""

import copy
import logging
import re
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from firstspike.config import Config, ConfigError, build_data
from firstspike.config.builder import DTYPES, Parts, build_loss, build_network, build_substrate
from firstspike.config.load import with_substrate
from firstspike.data import EventLists, SpikeData, Splits
from firstspike.data.arrays import as_tensor
from firstspike.layers import Network, Record
from firstspike.losses.base import Loss
from firstspike.runs.checkpoint import Checkpoint, checkpoints, find_checkpoint, load_checkpoint, load_newest
from firstspike.runs.folder import RunFolder, changed_data
from firstspike.runs.seeds import member_folders
from firstspike.runs.stored import OWN_DATA, copy_of_data, load_splits
from firstspike.substrates import Exact
from firstspike.training.evaluation import record_in_parts
from firstspike.training.fit import Evaluated
from firstspike.training.objective import Objective
from firstspike.training.state import CheckpointError, check_weights

logger = logging.getLogger(__name__)

Table = dict[str, Float[np.ndarray, " rows"]]


class SavedRun(Evaluated):
    """What can be read of a run; see ``Run``."""

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
        self.elsewhere = None
        if (on := self._on.substrate) != self.config.substrate:
            keys = {re.split(r"\W", text.removeprefix("substrate."))[0] for text in settings} - {"kind"}
            changed = [f"{key}={value}" for key, value in on if key in keys]
            name = re.sub(r"[^\w.=-]", "_", "_".join([on.kind, *changed]))
            self.elsewhere = name if len(name) < 100 else f"{name[:80]}_{zlib.crc32(name.encode()):08x}"
        self._whole: SavedRun | None = None
        self.chosen = None if checkpoint is None else find_checkpoint(self._run.checkpoints, checkpoint)
        self.on_other = "" if self.elsewhere is None else f"_on_{self.elsewhere}"  # in names of files
        self.at_chosen = "" if self.chosen is None else f"_at_{self.chosen.name}"

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
        newest = load_newest(self._run.checkpoints)
        if newest is None:
            raise CheckpointError(f"{self.folder} has no checkpoint that can be read")
        return newest

    @cached_property
    def seeds(self) -> tuple[Self, ...]:
        """The runs of a run of several seeds, those that have begun; of one seed none."""
        first, count = self.config.training.seed, self.config.training.n_seeds
        folders = member_folders(self.folder, range(first, first + count)) if count > 1 else []
        runs = [type(self)(folder) for folder in folders if (folder / "config.yaml").is_file()]
        for run in runs:
            run._whole, run._parts = self, self._parts  # they have the same data
        return tuple(runs)

    @cached_property
    def network(self) -> Network:
        """The trained network, with the weights of ``checkpoint``; its parameters require no gradient."""
        return self._network(self.checkpoint)

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
        return self._network(load_checkpoint(start) if start.is_dir() else None)

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
        """Names of the first ``count`` classes or outputs; numbers for those that the data do not name."""
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
        kind = self.config.data.kind
        if kind in OWN_DATA and (stored := copy_of_data(self.folder)) is not None:
            return load_splits(stored)
        if kind == "given":
            raise ConfigError(
                str(self.folder / "config.yaml"),
                ["data: they were made in Python and the folder has no copy; hand them over: fs.Run(folder, data=...)"],
            )
        training = self.config.training.model_copy(update={"device": "cpu"})
        return build_data(self.config.model_copy(update={"training": training}))

    def _network(self, checkpoint: Checkpoint | None = None) -> Network:
        network = self._parts.network
        if network is None:
            network = build_network(self.config, self.data.train, self.config.training.seed, checkpoint is None)
        else:
            network = _on_cpu(network)
        if checkpoint is not None:
            check_weights(checkpoint.weights, network.state_dict(), str(checkpoint.folder))
            network.load_state_dict(checkpoint.weights)
        return network.requires_grad_(False).eval()


def _on_cpu(part: Any) -> Any:
    """A copy of a module on the CPU; other objects as they are."""
    return copy.deepcopy(part).cpu() if isinstance(part, nn.Module) else part
