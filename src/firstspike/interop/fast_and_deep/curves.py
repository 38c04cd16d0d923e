"""Losses and accuracies that they saved over training, as our table of metrics."""

import math
from pathlib import Path

from firstspike.interop.fast_and_deep.folder import load_numbers
from firstspike.training.run import Row


def metrics(files: dict[str, Path], rates: list[float], layers: list[int]) -> list[Row] | str:
    """Rows of ``metrics.csv``; what they did not save is NaN.

    Args:
        files: their files by the names of our columns. Those of the validation begin before the first epoch.
        rates: learning rate at the end of each epoch; there are as many rows.
        layers: indices of our LIF layers.

    Returns:
        The rows; or, in words, why there are none.
    """
    epochs = len(rates)
    columns: dict[str, list[float]] = {}
    for name in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
        if name not in files:
            return "they saved no losses and accuracies"
        values = load_numbers(files[name])
        if isinstance(values, str):
            return values
        before = 1 if name.startswith("validation") else 0
        if values.ndim != 1 or len(values) != epochs + before:
            return f"{files[name].name} has the shape {values.shape} for {epochs} epochs"
        columns[name] = [float(value) for value in values[before:]]
    unknown = ["raised", *(f"silent_{layer}" for layer in layers)]
    rows: list[Row] = []
    for i, rate in enumerate(rates):
        known = {name: column[i] for name, column in columns.items()}
        rows.append({"epoch": i + 1, "lr": rate, **known, **dict.fromkeys(unknown, math.nan)})
    return rows
