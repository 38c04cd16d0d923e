"""A running training as callbacks see it, and its results."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Required, TypedDict

from torch import nn

from firstspike.data import SpikeData
from firstspike.layers import Network
from firstspike.ranges import Count, Seed
from firstspike.text import counted
from firstspike.training.callbacks import Callback, Callbacks, Stop
from firstspike.training.evaluation import Evaluation, success_text, warn_of_unseen
from firstspike.training.silent import activity_names

if TYPE_CHECKING:
    from firstspike.training.batches import Batches, Loader
    from firstspike.training.trainer import Trainer

Row = dict[str, float | int | str]
"""One line of a table: of ``metrics``, a row per epoch."""


class Interrupted(Exception):  # noqa: N818  (a request, not an error)
    """The training stopped early, on request. With a run folder its state is saved. The message says how to go on."""


@dataclass(eq=False)
class Fit:
    """A training in progress, as callbacks see it.

    Args:
        trainer: the trainer, with the networks.
        callbacks: all callbacks of the training.
        source: the training data, batch by batch.
        validation: validation data.
        test: test data.
        epochs: total number of epochs.
        seeds: one for each network.
        first: whether this process is the one that writes and shows.
        validations: evaluations of the last epoch, one for each network.
        rows: metrics of the last epoch, one for each network.
        improved: whether each network is the best so far.
        finished: set it to end the training after this epoch.
        keys: whether warnings name keys of a config.
        misfit: whether the times of the inputs do not fit the neurons' time constants.
    """

    trainer: "Trainer"
    callbacks: Callbacks
    source: "Batches"
    validation: SpikeData | None
    test: SpikeData | None
    epochs: int
    seeds: tuple[int, ...]
    first: bool = True
    validations: list[Evaluation] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    improved: list[bool] = field(default_factory=list)
    finished: bool = False
    keys: bool = False
    misfit: bool = False

    @property
    def train(self) -> SpikeData:
        """The training data, as all data on the network's device; of a loader without samples."""
        return self.source.data

    @property
    def columns(self) -> list[str]:
        """Names of the numbers in a row of metrics."""
        success, *more = ("mae", "mse", "r2") if self.train.regression else ("accuracy",)
        scores = dict.fromkeys(["loss", success, *more, *self.trainer.objective.metrics]) if self.validation else {}
        means = ["train_loss", f"train_{success}", *(f"validation_{name}" for name in scores)]
        return ["epoch", "lr", *means, "raised", *activity_names(self.trainer.network)]

    @property
    def batches(self) -> int:
        """Batches per epoch; 0 if a loader has no length."""
        return self.source.count

    @property
    def batch_size(self) -> int:
        """Samples per gradient step."""
        return self.source.size

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.trainer.members[0].progress.epoch

    @property
    def batch(self) -> int:
        """Batches done of the next epoch."""
        return self.trainer.members[0].progress.batch


class FitOptions(TypedDict, total=False):
    """Keyword arguments of ``Trainer.fit`` besides the folder."""

    epochs: Required[Count]
    batch_size: Count
    seed: Seed
    test: "SpikeData | Loader | None"
    resume: bool
    checkpoint_every: Count | None
    callbacks: Sequence[Callback]
    progress_bar: bool
    stop: Stop


@dataclass(frozen=True, eq=False)
class FitResult:
    """The results of a training: the last evaluation on validation and test data, one for each network.

    Args:
        epochs: whole epochs done.
        seconds: total time of the training, also if it was resumed.
        metrics: columns by name, a value per epoch of this call; with several networks their mean.
        best_validation_accuracy: of each network, NaN without validation data, or if labels are numbers.
        validations: one for each network; empty without validation data.
        tests: one for each network; empty without test data.
    """

    epochs: int
    seconds: float
    metrics: dict[str, list[float]]
    best_validation_accuracy: tuple[float, ...]
    validations: tuple[Evaluation, ...] = ()
    tests: tuple[Evaluation, ...] = ()

    @property
    def validation(self) -> Evaluation | None:
        """Evaluation of the (first) network on the validation data."""
        return next(iter(self.validations), None)

    @property
    def test(self) -> Evaluation | None:
        """Evaluation of the (first) network on the test data."""
        return next(iter(self.tests), None)

    def __repr__(self) -> str:
        found = [f", {len(self.best_validation_accuracy)} networks"] if len(self.best_validation_accuracy) > 1 else []
        for name, evaluations in (("validation", self.validations), ("test", self.tests)):
            if evaluations:
                found.append(f", {name} " + ", ".join(success_text(vars(x)) for x in evaluations))
        return f"FitResult({counted(self.epochs, 'epoch')} in {self.seconds:.0f} s{''.join(found)})"


def to_network(data: SpikeData, network: nn.Module) -> SpikeData:
    """The data on the device and in the type of the network's first parameter, if it can take them."""
    if not isinstance(data, SpikeData):
        raise TypeError(
            f"expected fs.data.SpikeData, got {type(data).__name__}. Write "
            "fs.data.SpikeData(times, labels, class_names), or divide arrays: "
            "splits = fs.data.split(times, labels); fit(splits.train, splits.validation, ...)"
        )
    if data.trains and isinstance(network, Network) and not network.takes_trains:
        raise ValueError(
            f"the data has spike trains, and the first layer, {network[0]._get_name()}, takes first spikes: use "
            "data.first_spikes(), or begin with a layer for trains, such as fs.LIFSpikeTrains or "
            "fs.Delay(..., trains=True)"
        )
    warn_of_unseen(network, data.times)
    for parameter in network.parameters():
        return data.to(parameter.device, parameter.dtype)
    return data
