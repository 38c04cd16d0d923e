"""Schedules of learning rates: torch's, and a cosine with warm-up."""

import math
from collections.abc import Callable

from torch import Tensor, optim
from torch.optim.lr_scheduler import LRScheduler

from firstspike.ranges import Fraction, NotNegativeInt, PositiveInt, checks_ranges


@checks_ranges
class CosineLR(LRScheduler):
    """Learning rates along half a cosine, down to a fraction of their start, after a linear warm-up.

    Args:
        optimizer: the optimiser.
        epochs: epochs until the end of the cosine, the warm-up included.
        final: learning rate at the end, as a fraction of that at the start.
        warmup: epochs over which the learning rate rises from ``1 / (warmup + 1)`` of its start.

    Raises:
        ValueError: a warm-up that is not shorter than the training.
    """

    def __init__(
        self, optimizer: optim.Optimizer, epochs: PositiveInt, final: Fraction = 0.0, warmup: NotNegativeInt = 0
    ) -> None:
        if warmup >= epochs:
            raise ValueError(f"warmup must be shorter than the {epochs} epochs, got {warmup}")
        self.epochs, self.final, self.warmup = epochs, final, warmup
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Learning rate of each parameter group in this epoch."""
        epoch = self.last_epoch
        if epoch < self.warmup:
            factor = (epoch + 1) / (self.warmup + 1)
        else:
            progress = math.pi * (epoch - self.warmup) / (self.epochs - self.warmup)
            factor = self.final + (1 - self.final) * (1 + math.cos(progress)) / 2
        return [base * factor for base in self.base_lrs]


SCHEDULES: dict[str, Callable[..., LRScheduler]] = {
    "step": optim.lr_scheduler.StepLR,
    "multi_step": optim.lr_scheduler.MultiStepLR,
    "exponential": optim.lr_scheduler.ExponentialLR,
    "cosine": CosineLR,
    "plateau": optim.lr_scheduler.ReduceLROnPlateau,
}
