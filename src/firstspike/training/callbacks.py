"""Callbacks: actions besides the gradient steps of a training. None of them changes a result."""

import logging
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from firstspike.ranges import NotNegative, PositiveInt, checks_ranges
from firstspike.spiketime import shared
from firstspike.training.objective import Mode

if TYPE_CHECKING:
    from firstspike.training.fit import Fit, FitResult, Row

logger = logging.getLogger(__name__)


class Callback:
    """Receives the events of a training. Override the ones you need."""

    essential = False
    """Whether an error of this callback ends the training. Others are reported (logging) and dropped."""

    def on_restore(self, fit: "Fit") -> None:
        """Before the training begins: a saved state may be restored."""

    def on_fit_start(self, fit: "Fit") -> None:
        """The training begins, or continues after ``fit.epoch`` epochs."""

    def on_batch_end(self, fit: "Fit") -> None:
        """One batch is done."""

    def on_epoch_end(self, fit: "Fit", row: "Row") -> None:
        """One epoch is done. ``row`` is its line of metrics, with several networks their mean."""

    def on_checkpoint(self, fit: "Fit") -> None:
        """A checkpoint was saved after ``fit.epoch`` epochs."""

    def on_interrupt(self, fit: "Fit", reason: BaseException) -> None:
        """The training ends early: a request to stop, or an error."""

    def on_fit_end(self, fit: "Fit", result: "FitResult") -> None:
        """The epochs are done, and the networks are evaluated."""

    def close(self) -> None:
        """Release the resources of ``on_fit_start``; called last, however the training ends."""

    def state_dict(self) -> dict[str, Any]:
        """The state for a resumed training: tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""


class Callbacks:
    """Several callbacks, called in order."""

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        self.callbacks = list(callbacks)
        kinds = [type(callback).__name__ for callback in self.callbacks]
        names = [f"{kind} {n + 1}" if (n := kinds[:k].count(kind)) else kind for k, kind in enumerate(kinds)]
        self._names = dict(zip(map(id, self.callbacks), names, strict=True))

    def call(self, event: str, *arguments: Any) -> None:
        """Call the method of that name on every callback."""
        for callback in tuple(self.callbacks):
            try:
                getattr(callback, event)(*arguments)
            except Exception as error:
                if callback.essential:
                    raise
                logger.warning("%s failed (%s); the training continues without it", type(callback).__name__, error)
                self.callbacks.remove(callback)

    def state_dict(self) -> dict[str, Any]:
        """States of all callbacks that have one, by class name. Further ones of a class are numbered from 2 on."""
        states = {self._names[id(callback)]: callback.state_dict() for callback in self.callbacks}
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, states: dict[str, Any]) -> None:
        """Restore the saved states of the callbacks that are here."""
        for callback in self.callbacks:
            if (state := states.get(self._names[id(callback)])) is not None:
                callback.load_state_dict(state)

    def close(self) -> None:
        """Close all callbacks, the last one first."""
        self.callbacks.reverse()
        self.call("close")


class ProgressBar(Callback):
    """A bar over all batches, with loss, accuracy and silent fractions of the last epoch.

    It also shows, once, that CPU kernels are being compiled.
    """

    def __init__(self) -> None:
        self.bar: Any = None
        self.said = False

    def on_fit_start(self, fit: "Fit") -> None:
        """Show the progress bar."""
        self.bar = tqdm(
            total=fit.epochs * fit.batches or None,
            initial=fit.epoch * fit.batches + fit.batch,
            unit="batch",
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 30,  # a log file wants few lines
        )
        shared.listeners.append(self._on_compile)

    def _on_compile(self) -> None:
        if not self.said:
            self.said = True
            self.bar.write("compiling CPU kernels for networks like this, kept for later runs ...", file=sys.stderr)

    def on_batch_end(self, fit: "Fit") -> None:
        """Move the progress bar."""
        self.bar.update()

    def on_epoch_end(self, fit: "Fit", row: "Row") -> None:
        """Show the numbers of the epoch."""
        part = "validation" if "validation_loss" in row else "train"
        accuracy = row.get(f"{part}_accuracy")
        success = f"mae {row[f'{part}_mae']:.4g}" if accuracy is None else f"accuracy {100 * float(accuracy):.2f} %"
        silent = "/".join(f"{100 * float(value):.1f}" for name, value in row.items() if name.startswith("silent_"))
        self.bar.set_description(f"epoch {row['epoch']}/{fit.epochs}", refresh=False)
        dead = max((x.dead_outputs for x in fit.validations), default=0.0)
        silent += " %" + (f", {100 * dead:.0f} % of outputs dead" if dead else "")
        self.bar.set_postfix_str(f"loss {row[f'{part}_loss']:.4g}, {success}, silent {silent}", refresh=False)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            shared.listeners.remove(self._on_compile)
            self.bar.close()


@checks_ranges
@dataclass(eq=False, repr=False)
class EarlyStopping(Callback):
    """Ends a training whose validation results no longer improve.

    Args:
        patience: epochs without improvement after which the training ends.
        metric: a column of the metrics, such as ``validation_loss``. By default the accuracy on the validation data
            and, if it is equal, the loss, which jumps with a single silent output.
        min_delta: smallest change of ``metric`` that is an improvement.
        restore_best: when the training ends, here or at its last epoch, each network gets the weights of its best
            epoch, and the results are theirs; of equal accuracies that with the lower loss. By default it keeps the
            last ones.
        mode: whether the smallest or the largest values of ``metric`` are the best. By default the largest of
            accuracies and ``r2``, the smallest of all else. A metric of your own says so by an attribute
            ``higher_is_better``, as torchmetrics have it.

    Raises:
        ValueError: a patience below 1, a negative ``min_delta``; in a training, a metric that is not recorded, or
            does not say which values are the best.
    """

    essential = True

    patience: PositiveInt = 10
    metric: str | None = None
    min_delta: NotNegative = 0.0
    restore_best: bool = False
    mode: Mode | None = None

    def __post_init__(self) -> None:
        self.looked_for = self.mode
        self.best = math.inf
        self.waited = 0

    def on_fit_start(self, fit: "Fit") -> None:
        """A training that was stopped is not continued."""
        mode = self.mode or fit.trainer.objective.mode_of(self.metric or "validation_accuracy")
        if mode is None:
            raise ValueError(f"early stopping: which {self.metric} is better? Set mode='max' or mode='min'")
        self.looked_for = mode
        fit.finished |= self.waited >= self.patience

    def on_epoch_end(self, fit: "Fit", row: "Row") -> None:
        """Compare the epoch with the best one so far."""
        if self.metric is None:
            if not fit.improved:
                raise ValueError("early stopping needs validation data, or another metric, such as metric='train_loss'")
            better = any(fit.improved)
        elif self.metric not in row:
            raise ValueError(f"early stopping: no metric {self.metric!r}; choose one of {', '.join(row)}")
        else:
            value = float(row[self.metric]) * (-1 if self.looked_for == "max" else 1)
            better = value < self.best - self.min_delta
            self.best = value if better else self.best
        self.waited = 0 if better else self.waited + 1
        if self.waited >= self.patience:
            fit.finished = True
        if self.restore_best:
            by_score = self.metric in (None, "validation_accuracy", "validation_r2") and self.mode != "min"
            improved = fit.improved if by_score else [better] * len(fit.trainer.members)
            for member, mine in zip(fit.trainer.members, improved, strict=True):
                if mine:
                    member.best = member.weights()
                if fit.finished or fit.epoch >= fit.epochs:
                    member.restore_best()

    def state_dict(self) -> dict[str, Any]:
        """Best value, of the largest its negative, and epochs waited."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        self.best, self.waited = float(state["best"]), int(state["waited"])


Stop = Callable[[], bool]
"""Polled before every batch. True saves and stops the training."""
