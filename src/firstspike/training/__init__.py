"""Training: a trainer, one step of it, callbacks, evaluation. It works on objects, without files or configs."""

from torch import optim

from firstspike.training.augment import Augment
from firstspike.training.callbacks import Callback, EarlyStopping
from firstspike.training.evaluation import Evaluation
from firstspike.training.fit import Fit, FitResult, Interrupted
from firstspike.training.margin import margins
from firstspike.training.rewiring import Rewiring
from firstspike.training.schedules import CosineLR
from firstspike.training.silent import SilentNeurons
from firstspike.training.trainer import Trainer

OPTIMIZERS: dict[str, type[optim.Optimizer]] = {"adam": optim.Adam, "adamw": optim.AdamW, "sgd": optim.SGD}

__all__ = [
    "Augment", "Callback", "CosineLR", "EarlyStopping", "Evaluation", "Fit", "FitResult", "Interrupted",
    "Rewiring", "SilentNeurons", "Trainer", "margins",
]  # fmt: skip
