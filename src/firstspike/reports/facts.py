"""What a run was, in words: how far it came, how well it did, how it was made."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from firstspike.plots import NotApplicable, RunData
from firstspike.reports.values import percent


class Fact(NamedTuple):
    """A line of a list: what, and how much."""

    name: str
    value: str


def epochs_done(run: RunData) -> int:
    """Finished epochs."""
    try:
        return int(run.metrics["epoch"][-1])
    except NotApplicable:
        return 0


def state(run: RunData) -> str:
    """Whether the training is done."""
    done, planned = epochs_done(run), run.config.training.epochs
    if done >= planned and run.results:
        return "finished"
    if (run.folder / "import.json").is_file():
        return "imported, not trained here"
    return f"not finished: {done} of {planned} epochs, so far without a result"


def summary(run: RunData) -> list[Fact]:
    """How well the run did."""
    results, config = run.results, run.config
    facts = [Fact("state", state(run))]
    for split in ("test", "validation"):
        if found := results.get(split):
            over = f"{len(results['seeds'])} seeds" if "seeds" in results else f"{found['samples']} samples"
            facts.append(Fact(f"{split} accuracy", f"{percent(found)} ({over})"))
    if results.get("test"):
        facts.append(Fact("test loss", f"{results['test']['loss']:.4g}"))
    facts.append(Fact("data", f"{config.data.kind}, {len(run.data.train)} samples for training"))
    sizes = " → ".join(str(n) for n in (run.data.train.features, *_sizes(config.network)))
    facts.append(Fact("network", sizes))
    if "parameters" in results:
        facts.append(Fact("parameters", f"{results['parameters']:,}"))
    facts.append(Fact("epochs", f"{epochs_done(run)} of {config.training.epochs}"))
    if "seconds" in results:
        facts.append(Fact("time of training", _duration(results["seconds"])))
    return facts


def substrate(run: RunData) -> str:
    """What the spike times came from, as a sentence."""
    kind = run.config.substrate.kind
    if kind == "exact":
        return "Spike times are exact solutions of the neuron's equation."
    return (
        f"Trained in the loop on the substrate {kind}: spike times are those that it gave, gradients are exact at them."
    )


def making(run: RunData) -> list[Fact]:
    """How the run was made, from ``environment.json``."""
    found, training = run.environment, run.config.training
    facts = []
    if command := found.get("command"):
        facts.append(Fact("command", shlex.join([_program(command[0]), *command[1:]])))
    seeds = f"{training.seed} to {training.seed + training.n_seeds - 1}" if training.n_seeds > 1 else f"{training.seed}"
    facts.append(Fact("seeds" if training.n_seeds > 1 else "seed", seeds))
    facts.append(Fact("substrate", _settings(found.get("substrate") or run.config.substrate.model_dump())))
    facts += [Fact("previously on", _settings(earlier)) for earlier in found.get("earlier_substrates", [])]
    facts.append(Fact("device, numbers", f"{training.device}, {training.dtype}"))
    if "firstspike" in found:
        commit = f" (commit {found['commit']})" if found.get("commit") else ""
        facts.append(Fact("firstspike", f"{found['firstspike']}{commit}"))
    versions = {"python": found.get("python"), **found.get("packages", {})}
    if shown := ", ".join(f"{name} {version}" for name, version in versions.items() if version):
        facts.append(Fact("versions", shown))
    machine = [found.get("processor"), found.get("platform")]
    if shown := ", ".join(str(part) for part in machine if part):
        facts.append(Fact("machine", shown))
    if "threads" in found:
        facts.append(Fact("threads", str(found["threads"])))
    return facts


def seeds_table(run: RunData) -> tuple[list[str], list[list[Any]]]:
    """Head and rows of the results of each seed; none where they are not done. Mean and deviation come last."""
    results = run.results.get("seeds", {})
    if not results:
        return [], []
    head = ["seed", "best validation [%]", "validation [%]", "test [%]", "test loss"]
    numbers = np.array(
        [
            [r["best_validation_accuracy"], *_numbers(r, "validation")[:1], *_numbers(r, "test")]
            for r in results.values()
        ]
    ) * [100, 100, 100, 1]
    rows = [[seed, *_row(values)] for seed, values in zip(results, numbers, strict=True)]
    ends = (("mean", numbers.mean(axis=0)), ("standard deviation", numbers.std(axis=0, ddof=1)))
    return head, rows + [[name, *_row(values)] for name, values in ends]


def _numbers(results: Mapping[str, Any], split: str) -> tuple[float, float]:
    found = results.get(split) or {}
    return found.get("accuracy", math.nan), found.get("loss", math.nan)


def _row(values: Any) -> list[str]:
    return [*(f"{x:.2f}" for x in values[:-1]), f"{values[-1]:.4g}"]


def _sizes(network: Any) -> list[str]:
    """Layers of neurons by their sizes, where the config says them, else by their kind."""
    shown = []
    for layer in network:
        if layer.kind == "lif":
            shown.append(str(layer.out_features))
        elif layer.kind not in ("bias", "multiplex"):
            shown.append(layer.kind)
    return shown


def _program(path: str) -> str:
    return "firstspike" if Path(path).name in ("__main__.py", "firstspike") else Path(path).name


def _settings(values: Mapping[str, Any] | str) -> str:
    if isinstance(values, str):
        return values
    rest = ", ".join(
        f"{name} {_short(value)}" for name, value in values.items() if name != "kind" and value is not None
    )
    return f"{values.get('kind', '')}: {rest}" if rest else str(values.get("kind", ""))


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{name} {_short(entry)}" for name, entry in value.items()) + ")"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    if not minutes:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest:.0f} s"
