"""Callbacks that write figures and logs, by name. To add one: a file here, a line in ``CALLBACKS``."""

from collections.abc import Callable
from pathlib import Path

from firstspike.plots.live import LiveFigure
from firstspike.plots.tensorboard import TensorBoard
from firstspike.plots.wandb import WandbLog
from firstspike.training import Callback

CALLBACKS: dict[str, Callable[[Path], Callback]] = {"live": LiveFigure, "tensorboard": TensorBoard, "wandb": WandbLog}
"""Each is made from the run folder."""
