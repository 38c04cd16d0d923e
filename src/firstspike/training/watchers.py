"""Who looks on while a network is trained: the progress bar, a live figure, a log. None of them changes a result."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from firstspike.training.build import Experiment
from firstspike.training.evaluation import Evaluation
from firstspike.training.run import Row

logger = logging.getLogger(__name__)


class Watcher:
    """Is told how a training goes; a subclass writes what it wants to hear. As a ``with`` block it closes itself."""

    def batch(self) -> None:
        """One more batch is done."""

    def epoch(self, row: Row) -> None:
        """One more epoch is done; ``row`` is its line in ``metrics.csv``."""

    def checkpoint(self, epoch: int, experiment: Experiment, validation: Evaluation) -> None:
        """A checkpoint was saved after so many epochs; ``validation`` is of the last one."""

    def close(self) -> None:
        """The training ends, for whatever reason."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Pace:
    """How often something may be done so that it takes a small share of the time, whatever it costs.

    Args:
        share: of the time, at most; 0.03 waits 33 times as long as it took the last time.
        guess: seconds that it takes, before it is measured.
    """

    def __init__(self, share: float = 0.03, guess: float = 0.15) -> None:
        self.share, self.cost = share, guess
        self.last = time.perf_counter()

    def due(self) -> bool:
        """Whether enough time has passed since the last time."""
        return (time.perf_counter() - self.last) * self.share > self.cost

    @contextmanager
    def measured(self) -> Iterator[None]:
        """It is done in this ``with`` block."""
        began = time.perf_counter()
        yield
        self.last = time.perf_counter()
        self.cost = self.last - began


class Watchers(Watcher):
    """Several in a row. One that fails is reported (logging) and left out from then on; the training goes on."""

    def __init__(self, watchers: Iterable[Watcher] = ()) -> None:
        self.watchers = list(watchers)

    def add(self, make: Callable[[], Watcher]) -> None:
        """One more, if it can be made."""
        try:
            self.watchers.append(make())
        except Exception as error:
            logger.warning("%s; the training goes on without it", error)

    def batch(self) -> None:
        """One more batch is done."""
        self._tell(lambda watcher: watcher.batch())

    def epoch(self, row: Row) -> None:
        """One more epoch is done."""
        self._tell(lambda watcher: watcher.epoch(row))

    def checkpoint(self, epoch: int, experiment: Experiment, validation: Evaluation) -> None:
        """A checkpoint was saved."""
        self._tell(lambda watcher: watcher.checkpoint(epoch, experiment, validation))

    def close(self) -> None:
        """The training ends."""
        self._tell(lambda watcher: watcher.close())

    def _tell(self, what: Callable[[Watcher], None]) -> None:
        for watcher in tuple(self.watchers):
            try:
                what(watcher)
            except Exception as error:
                logger.warning("%s failed (%s); the training goes on without it", type(watcher).__name__, error)
                self.watchers.remove(watcher)
