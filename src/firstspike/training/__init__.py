"""Training: a trainer, one step of it, callbacks, evaluation. It works on objects and knows no files and no configs."""

from torch import optim

from firstspike.training.augment import Augment
from firstspike.training.callbacks import Callback, Callbacks, EarlyStopping, Pace, ProgressBar
from firstspike.training.divergence import DivergedError
from firstspike.training.evaluation import Evaluation, confusion_counts, evaluate_record, record_in_parts
from firstspike.training.fitting import Fit, FitResult, Interrupted, Row
from firstspike.training.schedules import SCHEDULES, CosineLR
from firstspike.training.silent import SilentNeurons, silent_fractions, spiking_layers
from firstspike.training.trainer import Trainer

OPTIMIZERS: dict[str, type[optim.Optimizer]] = {"adam": optim.Adam, "adamw": optim.AdamW, "sgd": optim.SGD}

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Augment",
    "Callback",
    "Callbacks",
    "CosineLR",
    "DivergedError",
    "EarlyStopping",
    "Evaluation",
    "Fit",
    "FitResult",
    "Interrupted",
    "Pace",
    "ProgressBar",
    "Row",
    "SilentNeurons",
    "Trainer",
    "confusion_counts",
    "evaluate_record",
    "record_in_parts",
    "silent_fractions",
    "spiking_layers",
]
