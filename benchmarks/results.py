"""Published accuracies: writes ``docs/results.md`` and its figure from run folders.

    python benchmarks/results.py RUNS            # from RUNS/NAME of each config, and RUNS/hidden_sizes for the sizes
    python benchmarks/results.py RUNS --train    # trains or continues what is not finished

The sizes are the sweep examples/sweeps/hidden_sizes.yaml; without its folder run folders RUNS/NAME_hN are looked for.

Without ``--train`` what is not finished is left out.
"""

import argparse
import math
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from firstspike.config import load_config
from firstspike.plots import style
from firstspike.runs import Run
from firstspike.runs.folder import RunFolder
from firstspike.sweeps.figures import accuracy_over
from firstspike.sweeps.plan import load_plan
from firstspike.sweeps.study import read_study, table_of
from firstspike.sweeps.worker import launch

SEEDS = 10
SWEEP = Path(__file__).parents[1] / "examples" / "sweeps" / "hidden_sizes.yaml"


class Published(NamedTuple):
    """What the papers, or the networks released with them, reach."""

    accuracy: str
    source: str


CONFIGS = {
    "yin_yang": Published("95.9 +- 0.7", "Göltz et al. 2021; the released network 96.0"),
    "yin_yang_goeltz2021": Published("95.9 +- 0.7", "the same, here with the published recipe"),
    "yin_yang_w": Published("96.7", "Göltz et al. 2025, one released network"),
    "yin_yang_axonal": Published("97.5", "Göltz et al. 2025, one released network"),
    "yin_yang_dendritic": Published("-", "no network released"),
    "yin_yang_synaptic": Published("98.2", "Göltz et al. 2025, one released network"),
    "yin_yang_synaptic_h5": Published("95.4", "Göltz et al. 2025, one released network"),
}
KINDS = {
    "yin_yang_w": "weights only",
    "yin_yang_axonal": "axonal delays",
    "yin_yang_dendritic": "dendritic delays",
    "yin_yang_synaptic": "synaptic delays",
}
SIZES = (5, 10, 15, 20, 25, 30)


def finished(folder: Path, name: str, settings: list[str], train: bool) -> dict[str, Any]:
    """The results of a run, trained or continued first if asked for; empty if it is not finished."""
    found = RunFolder.open(folder).results if (folder / "config.yaml").is_file() else {}
    if found or not train:
        return found
    if not (folder / "config.yaml").is_file():
        print(f"training {folder.name}", flush=True)
        return Run.start(folder, load_config(name, [*settings, f"training.n_seeds={SEEDS}"])).results
    return Run(folder).resume().results


def hidden(name: str) -> int:
    """Index of the hidden layer of a config."""
    return next(i for i, layer in enumerate(load_config(name).network) if layer.kind == "lif")


def accuracy(found: dict[str, Any]) -> str:
    """Mean and standard deviation over the seeds in percent."""
    return f"{100 * found['test']['accuracy']:.2f} +- {100 * found['test']['accuracy_std']:.2f}"


def table(runs: Path, train: bool) -> str:
    """A row for each shipped config."""
    lines = [
        "| config | hidden | parameters | epochs | minutes | test accuracy in % | published | source |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, published in CONFIGS.items():
        if found := finished(runs / name, name, [], train):
            size = load_config(name).network[hidden(name)].out_features
            lines.append(
                f"| `{name}` | {size} | {found['parameters']} | {found['epochs']} | {found['seconds'] / 60:.1f} | "
                f"**{accuracy(found)}** | {published.accuracy} | {published.source} |"
            )
    return "\n".join(lines)


Curves = dict[str, list[dict[str, Any]]]


def curves_of_runs(runs: Path) -> Curves:
    """Results by config and size, from run folders NAME_hN."""
    return {name: [finished(runs / f"{name}_h{size}", name, [], False) for size in SIZES] for name in KINDS}


def curves_of_sweep(folder: Path, train: bool) -> Curves:
    """The same from the folder of the sweep."""
    if train:
        launch(load_plan(SWEEP), folder)
    found = {
        (row["base"], row["network[lif:0].out_features"]): {
            "test": {"accuracy": row["test_accuracy"], "accuracy_std": row["test_std"]}
        }
        for row in table_of(*read_study(str(folder))).complete
    }
    return {name: [found.get((name, size), {}) for size in SIZES] for name in KINDS}


def sizes(runs: Path, figure: Path, train: bool) -> str:
    """Accuracy over the number of hidden neurons: a table and a figure, or nothing where a run is missing."""
    folder = runs / SWEEP.stem
    of_sweep = train or (folder / "sweep.json").is_file()
    curves = curves_of_sweep(folder, train) if of_sweep else curves_of_runs(runs)
    if not all(found for curve in curves.values() for found in curve):
        return ""
    lines = ["| hidden | " + " | ".join(KINDS.values()) + " |", "| --- |" + " --- |" * len(KINDS)]
    for place, size in enumerate(SIZES):
        lines.append(f"| {size} | " + " | ".join(accuracy(curve[place]) for curve in curves.values()) + " |")
    tests = [found["test"] for curve in curves.values() for found in curve]
    with style():
        _, ax = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
        accuracy_over(
            list(SIZES) * len(KINDS),
            [found["accuracy"] for found in tests],
            [found["accuracy_std"] for found in tests],
            ax,
            [label for label in KINDS.values() for _ in SIZES],
        )
        ax.set(xlabel="hidden neurons", ylabel="test accuracy in %")
        ax.legend()
        plt.savefig(figure, dpi=150)
    return BY_SIZE + "\n".join(lines)


TEXT = """# Results

All accuracies are on a test set of 1000 samples that was not used for any choice: recipes were selected on the
validation set. They are means and standard deviations over {seeds} seeds (2000 to 2009), trained in parallel. Each
row is one command,

    firstspike train CONFIG --seeds {seeds}

and `python benchmarks/results.py RUNS` writes this page from the run folders (with `--train`, it trains them first).
At an accuracy of 99 %, a test set of 1000 samples has a binomial error of {error:.1f} %. The minutes are for all
{seeds} seeds on one core of a machine that was doing other work as well.

## Yin-Yang

{table}

{notes}

{sizes}"""
BY_SIZE = """## Delays and the number of hidden neurons

The same recipes with other numbers of hidden neurons (tau_mem = 2 tau_syn) and fewer epochs, with five seeds, from

    firstspike sweep examples/sweeps/hidden_sizes.yaml

![accuracy against the number of hidden neurons](results_sizes.png)

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--train", action="store_true", help="train or continue what is not finished")
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[1] / "docs")
    parser.add_argument("--notes", type=Path, default=Path(__file__).parent / "results_notes.md")
    options = parser.parse_args()
    text = TEXT.format(
        seeds=SEEDS,
        error=100 * math.sqrt(0.99 * 0.01 / 1000),
        table=table(options.runs, options.train),
        notes=options.notes.read_text(encoding="utf-8").strip(),
        sizes=sizes(options.runs, options.docs / "results_sizes.png", options.train),
    )
    (options.docs / "results.md").write_text(text.rstrip("\n") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
