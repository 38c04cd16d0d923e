"""A run in words: its progress, its results, how it was made."""

import shlex
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from firstspike.layers.cost import energy_estimates, layer_costs
from firstspike.plots.run_data import UNAVAILABLE, data_name
from firstspike.runs import Run
from firstspike.runs.evaluate import energy_text
from firstspike.runs.seeds import digest
from firstspike.sweeps.table import SweepTable
from firstspike.training.evaluation import success_text


def state(run: Run) -> str:
    """Whether the training is finished."""
    training, done = run.config.training, run.epochs
    if run.results and done >= training.epochs:
        return "finished"
    if run.results and training.early_stopping is not None and done == run.results.get("epochs"):
        return f"finished early, after {done} of {training.epochs} epochs"
    if (run.folder / "import.json").is_file():
        return "imported, not trained here"
    return f"not finished: {done} of {training.epochs} epochs, no results yet"


def summary(run: Run) -> dict[str, str]:
    """Results, sizes and duration of the run."""
    results, config = run.results, run.config
    facts = {"state": state(run)}
    for split in ("test", "validation"):
        if found := results.get(split):
            over = f"{len(results['seeds'])} seeds" if "seeds" in results else f"{found['samples']} samples"
            name, _, value = success_text(found).partition(" ")
            facts[f"{split} {name}"] = f"{value} ({over})"
        if found and (dead := found.get("dead_outputs")):
            facts[f"{split} dead outputs"] = f"{100 * dead:.0f} %: no gradient in most samples of their class"
    if config.published:
        facts["published"] = config.published
    if results.get("test"):
        facts["test loss"] = f"{results['test']['loss']:.4g}"
    layers = [x for x in config.network if x.kind not in ("bias", "multiplex")]
    sizes = [str(x.out_features) if x.kind == "lif" else getattr(x, "name", x.kind) for x in layers]
    try:
        train = run.data.train
        facts["data"] = f"{data_name(run)}, {len(train)} training samples"
        sizes.insert(0, str(train.features))
    except UNAVAILABLE:  # the notes have the reason
        facts["data"] = f"{data_name(run)}, not available here"
    facts["network"] = " → ".join(sizes)
    if results:
        facts["parameters"] = f"{results['parameters']:,}"
        facts["training time"] = str(timedelta(seconds=round(results["seconds"])))
    facts["epochs"] = f"{run.epochs} of {config.training.epochs}"
    with suppress(*UNAVAILABLE):
        if costs := layer_costs(run.network, run.record):
            facts["energy per sample, estimated"] = energy_text(energy_estimates(costs))
    return facts


def making(run: Run) -> dict[str, str]:
    """How the run was made: ``environment.json`` without the checksums of the data."""
    found = {name: value for name, value in run.environment.items() if name != "data" and value}
    if command := found.get("command"):
        program = Path(command[0]).name.replace("__main__.py", "firstspike")
        found["command"] = shlex.join([program, *command[1:]])
    return {name.replace("_", " "): _in_a_line(value) for name, value in found.items()}


def _in_a_line(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_in_a_line(inner)}" for name, inner in value.items() if inner is not None)
    if isinstance(value, list):
        return "; ".join(map(_in_a_line, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def seeds_table(run: Run) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Head, rows and foot of the results of each seed, with mean and standard deviation; empty until they are there."""
    if not (seeds := run.results.get("seeds")):
        return [], [], []
    results = [*seeds.items(), ("mean", run.results)]
    head, rows = SweepTable(["seed"], [{"seed": seed} | digest(found) for seed, found in results]).shown()
    return head, rows[:-1], rows[-1:]
