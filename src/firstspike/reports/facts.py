"""A run in words: its progress, its results, how it was made."""

import math
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from firstspike.layers.cost import energy_estimates, layer_costs
from firstspike.plots import NotApplicable, RunData
from firstspike.plots.run_data import UNAVAILABLE
from firstspike.runs.evaluate import energy_text
from firstspike.runs.seeds import seeds_table as of_seeds
from firstspike.training.evaluation import success_text


class Fact(NamedTuple):
    """A line of a list: a name and its value."""

    name: str
    value: str


def epochs_done(run: RunData) -> int:
    """Finished epochs."""
    try:
        return int(run.metrics["epoch"][-1])
    except NotApplicable:
        return 0


def state(run: RunData) -> str:
    """Whether the training is finished."""
    training, done = run.config.training, epochs_done(run)
    if run.results and done >= training.epochs:
        return "finished"
    if run.results and training.early_stopping is not None and done == run.results.get("epochs"):
        return f"finished early, after {done} of {training.epochs} epochs"
    if (run.folder / "import.json").is_file():
        return "imported, not trained here"
    return f"not finished: {done} of {training.epochs} epochs, no results yet"


def summary(run: RunData) -> list[Fact]:
    """Results, sizes and duration of the run."""
    results, config = run.results, run.config
    facts = [Fact("state", state(run))]
    for split in ("test", "validation"):
        if found := results.get(split):
            over = f"{len(results['seeds'])} seeds" if "seeds" in results else f"{found['samples']} samples"
            name, _, value = success_text(found).replace("+-", "±").partition(" ")
            facts.append(Fact(f"{split} {name}", f"{value} ({over})"))
    if config.published:
        facts.append(Fact("published", config.published))
    if results.get("test"):
        facts.append(Fact("test loss", f"{results['test']['loss']:.4g}"))
    name, layers = run.data_name, [x for x in config.network if x.kind not in ("bias", "multiplex")]
    sizes = [str(x.out_features) if x.kind == "lif" else getattr(x, "name", x.kind) for x in layers]
    try:
        train = run.data.train
        facts.append(Fact("data", f"{name}, {len(train)} training samples"))
        sizes.insert(0, str(train.features))
    except UNAVAILABLE:  # the notes have the reason
        facts.append(Fact("data", f"{name}, not available here"))
    facts.append(Fact("network", " → ".join(sizes)))
    if "parameters" in results:
        facts.append(Fact("parameters", f"{results['parameters']:,}"))
    facts.append(Fact("epochs", f"{epochs_done(run)} of {config.training.epochs}"))
    if "seconds" in results:
        facts.append(Fact("training time", _duration(results["seconds"])))
    with suppress(*UNAVAILABLE):
        if costs := layer_costs(run.network, run.record):
            facts.append(Fact("energy per sample, estimated", energy_text(energy_estimates(costs))))
    return facts


def substrate(run: RunData) -> str:
    """The source of the spike times, as a sentence."""
    kind = run.config.substrate.kind
    if kind == "exact":
        return "Spike times are exact solutions of the neuron's equation."
    return f"Trained in the loop on the substrate {kind}: it gave the spike times, at which the gradients are exact."


def making(run: RunData) -> list[Fact]:
    """How the run was made, from ``environment.json``."""
    found, training = run.environment, run.config.training
    facts = []
    if command := found.get("command"):
        program = Path(command[0]).name.replace("__main__.py", "firstspike")
        facts.append(Fact("command", shlex.join([program, *command[1:]])))
    seeds = f"{training.seed} to {training.seed + training.n_seeds - 1}" if training.n_seeds > 1 else f"{training.seed}"
    facts.append(Fact("seeds" if training.n_seeds > 1 else "seed", seeds))
    facts.append(Fact("substrate", _settings(found.get("substrate") or run.config.substrate.model_dump())))
    facts += [Fact("previously on", _settings(earlier)) for earlier in found.get("earlier_substrates", [])]
    facts.append(Fact("device, numbers", f"{training.device}, {training.dtype}"))
    if "firstspike" in found:
        commit = f" (commit {found['commit']})" if found.get("commit") else ""
        facts.append(Fact("firstspike", f"{found['firstspike']}{commit}"))
    versions = {"python": found.get("python"), **found.get("packages", {})}
    lines = {
        "versions": [f"{name} {version}" for name, version in versions.items() if version],
        "machine": [str(part) for part in (found.get("processor"), found.get("platform")) if part],
        "threads": [str(found["threads"])] if "threads" in found else [],
    }
    return facts + [Fact(name, ", ".join(parts)) for name, parts in lines.items() if parts]


def seeds_table(run: RunData) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Head, rows and foot of the results of each seed, with mean and standard deviation; empty until they are there."""
    if not run.results.get("seeds"):
        return [], [], []
    found = of_seeds(run.results)
    names = ("best validation [%]", "validation [%]", "test [%]", "test loss")
    kept = [k for k in range(len(names)) if any(math.isfinite(row[k]) for row in found.values())]
    rows = [[x, *(f"{row[k]:.4g}" if k == 3 else f"{100 * row[k]:.2f}" for k in kept)] for x, row in found.items()]
    rows[-1][0] = "standard deviation"
    return ["seed", *(names[k] for k in kept)], rows[:-2], rows[-2:]


def _settings(values: Mapping[str, Any] | str) -> str:
    """The settings of a substrate in a line."""
    if isinstance(values, str):
        return values
    rest = ", ".join(f"{name} {_short(x)}" for name, x in values.items() if name != "kind" and x is not None)
    return ": ".join(part for part in (str(values.get("kind", "")), rest) if part)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{name} {_short(entry)}" for name, entry in value.items()) + ")"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f} min {rest:.0f} s" if minutes < 60 else f"{minutes // 60:.0f} h {minutes % 60:.0f} min"
