"""What may look on while a network is trained, by name. To add one: a file here and a line in ``WATCHERS``."""

from collections.abc import Callable, Iterable

from firstspike.plots.live import LiveFigure
from firstspike.plots.tensorboard import TensorBoard, check_tensorboard
from firstspike.training.run import Run
from firstspike.training.watchers import Watcher

WATCHERS: dict[str, Callable[[Run, int], Watcher]] = {"live": LiveFigure, "tensorboard": TensorBoard}
"""Each is made from the run and the number of epochs that are done."""


def check_watchers(names: Iterable[str]) -> None:
    """Whether all of these can be had.

    Raises:
        ValueError: a name that there is not.
        ImportError: an extra that is not installed.
    """
    for name in names:
        if name not in WATCHERS:
            raise ValueError(f"there is no watcher {name!r}; choose from {', '.join(WATCHERS)}")
        if name == "tensorboard":
            check_tensorboard()
