"""Accuracies on test data: writes ``docs/results.md`` and its figure.

    python benchmarks/results.py RUNS   # takes over what is finished in RUNS, then writes
    python benchmarks/results.py        # only writes, from benchmarks/results.json

``results.json`` has all numbers of the page, ``results.template.md`` its text. A run of the config NAME is a folder
NAME or NAME_SEED in RUNS; several seeds are one run with ``--seeds``, or several runs. A run whose config is not the
shipped one is refused. RUNS/hidden_sizes is the sweep examples/sweeps/hidden_sizes.yaml, RUNS/spoken_speaker_NAME a
run of `spoken_digits` with that speaker held out.
"""

import argparse
import json
import re
import statistics
from pathlib import Path
from string import Template
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from timing import markdown

from firstspike.config import Config, load_config
from firstspike.plots import style
from firstspike.runs.folder import RunFolder
from firstspike.sweeps.figures import accuracy_over
from firstspike.sweeps.study import read_study, table_of
from firstspike.training.evaluation import wilson

HERE = Path(__file__).parent
NUMBERS, PAGE, DOCS = HERE / "results.json", HERE / "results.template.md", HERE.parent / "docs"
KINDS = {
    "yin_yang_w": "weights only",
    "yin_yang_axonal": "axonal delays",
    "yin_yang_dendritic": "dendritic delays",
    "yin_yang_synaptic": "synaptic delays",
}
Numbers = dict[str, Any]


TABLES = {
    "yin_yang": {
        "yin_yang": "4-120-3",
        "yin_yang_goeltz2021": "4-120-3",
        "yin_yang_w": "4-30-3",
        "yin_yang_axonal": "4-30-3",
        "yin_yang_dendritic": "4-30-3",
        "yin_yang_synaptic": "4-30-3",
        "yin_yang_synaptic_h5": "4-5-3",
        "yin_yang_ei": "8-30-3, Dale's law, two receptors",
        "yin_yang_qif": "4-20-3, QIF neurons, pseudospikes",
        "yin_yang_izhikevich": "4-20-3, Izhikevich's neurons",
    },
    "mnist": {
        "mnist": "784-350-10",
        "mnist_trains": "784-350-10, several spikes",
        "mnist_16x16": "256-128-10",
        "mnist_16x16_trains": "256-128-10, several spikes",
        "mnist_conv": "64 channels, pooling, 256-10",
        "mnist_deep": "784-400-400-400-400-10",
        "mnist_deep_trains": "784-400-400-400-400-10, several spikes",
    },
    "fashion": {
        "fashion_mnist": "1568-800-10",
        "fashion_mnist_trains": "784-800-10, several spikes",
        "fashion_mnist_conv": "96 channels, pooling, 256-10",
    },
    "digits": {
        "digits": "128-400-10",
        "digits_deep": "64, fifteen times 64, 10, with connections",
        "digits_deep_plain": "the same without connections",
    },
    "sequences": {
        "delayed_xor": "2-20-2, several spikes",
        "delayed_xor_resonators": "2-20-2, recurrent, neurons that resonate",
        "japanese_vowels": "200 hidden neurons, several spikes",
        "japanese_vowels_adaptive": "the same, with thresholds that adapt",
        "japanese_vowels_recurrent": "100 recurrent neurons, with learnt delays and time constants",
        "spoken_digits": "96-200-10, several spikes",
        "spoken_digits_delays": "the same, with delays of the inputs",
        "spoken_digits_recurrent": "96-200-10, recurrent",
        "spoken_digits_recurrent_delays": "96-100-10, recurrent, with learnt delays and time constants",
    },
}
"""Shipped configs of each table, and their networks. Published accuracies are in the configs."""


def taken_over(runs: Path, numbers: Numbers) -> None:
    """Put the results of finished runs into the numbers.

    Raises:
        ValueError: a run has another config than the shipped one of its name.
    """
    for config in (name for rows in TABLES.values() for name in rows):
        found: dict[str, Numbers] = {}
        commits: set[str] = set()
        seconds = 0.0
        for path in sorted(runs.glob(f"{config}*")):
            if not re.fullmatch(rf"{config}(_\d+)?", path.name) or not (path / "results.json").is_file():
                continue
            folder = run_of(config, path)
            results = folder.results
            found |= results.get("seeds") or {str(folder.config.training.seed): results}
            seconds += results["seconds"]
            commits.add(folder.environment["commit"][:7])
        if found:
            first = next(iter(found.values()))
            numbers["accuracies"][config] = {
                "test": {seed: result["test"]["accuracy"] for seed, result in found.items()},
                "samples": first["test"]["samples"],
                "parameters": first["parameters"],
                "epochs": first["epochs"],
                "minutes": round(seconds / 60, 1),
                "commits": sorted(commits),
            }
    for path in sorted(runs.glob("spoken_speaker_*")):
        if (path / "results.json").is_file():
            name = path.name.removeprefix("spoken_speaker_")
            folder = run_of("spoken_digits", path, f"data.speaker={name}")
            numbers["speakers"][name] = folder.results["test"]["accuracy"]
    sweep = runs / "hidden_sizes"
    if (sweep / "sweep.json").is_file():
        for trial in table_of(*read_study(str(sweep))).rows:
            if trial["state"] == "complete":
                of_kind = numbers["sizes"].setdefault(trial["base"], {})
                of_kind[str(trial["network[lif:0].out_features"])] = [trial["test_accuracy"], trial["test_std"]]


def run_of(config: str, path: Path, *changes: str) -> RunFolder:
    """A run folder, if it is one of the shipped config with these changes.

    Raises:
        ValueError: it is not.
    """
    folder = RunFolder.open(path)
    if comparable(folder.config) != comparable(load_config(config, changes)):
        raise ValueError(f"{path} is not a run of {' '.join(['the shipped config', config, *changes])}")
    return folder


def comparable(config: Config) -> Config:
    """The config without the parts that may differ: seeds, folder of the data, published accuracy."""
    data = config.data.model_copy(update={"folder": None}) if hasattr(config.data, "folder") else config.data
    return config.with_training(seed=0, n_seeds=1).model_copy(update={"data": data, "published": ""})


def accuracy(found: Numbers) -> str:
    """The accuracy in percent: mean and standard deviation, or a 95 % interval (Wilson) if seeds do not differ."""
    values = list(found["test"].values())
    if len(set(values)) > 1:
        return f"**{100 * statistics.fmean(values):.2f} ± {100 * statistics.stdev(values):.2f}**"
    if "std" in found:  # of older runs
        return f"**{100 * found['mean']:.2f} ± {100 * found['std']:.2f}**"
    low, high = wilson(values[0], found["samples"] * len(values))
    return f"**{100 * values[0]:.2f}** ({100 * low:.2f} to {100 * high:.2f})"


def table(rows: dict[str, str], accuracies: Numbers) -> str:
    """A line for each config of which there is a result."""
    lines = [["config", "network", "test accuracy in %", "published in %", "parameters"]]
    for name, network in rows.items():
        if found := accuracies.get(name):
            published = load_config(name).published
            count = found["parameters"] or "-"
            if count != "-" and count >= 10_000:
                count = f"{count:,}".replace(",", "\u00a0")
            lines.append([f"`{name}`", network, accuracy(found), published.replace(" %", ""), str(count)])
    used = [any(column[1:]) for column in zip(*lines, strict=True)]
    return markdown([[x for x, there in zip(line, used, strict=True) if there] for line in lines])


def speakers(found: dict[str, float]) -> str:
    """Accuracy on the recordings of each speaker, of whom none was heard in training."""
    values = [*found.values(), statistics.fmean(found.values())]
    cells = [f"{100 * x:.1f}" for x in values]
    return markdown([["speaker held out", *found, "mean"], ["test accuracy in %", *cells]])


def sizes_figure(found: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Accuracy over the number of hidden neurons."""
    points = [(label, int(size), *values) for kind, label in KINDS.items() for size, values in found[kind].items()]
    labels, x, means, stds = zip(*points, strict=True)
    with style():
        _, ax = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
        accuracy_over(x, means, stds, ax, labels)
        ax.set(xlabel="hidden neurons", ylabel="test accuracy [%],\nmean and standard deviation of 5 seeds")
        ax.legend()
        plt.savefig(path, dpi=150)


def page(numbers: Numbers) -> str:
    tables = {name: table(rows, numbers["accuracies"]) for name, rows in TABLES.items()}
    text = Template(PAGE.read_text(encoding="utf-8"))
    return text.substitute(tables, speakers=speakers(numbers["speakers"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="?", help="folder with run folders")
    options = parser.parse_args()
    numbers = json.loads(NUMBERS.read_text(encoding="utf-8"))
    before = json.dumps(numbers["sizes"])
    if options.runs:
        taken_over(options.runs, numbers)
        NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    if json.dumps(numbers["sizes"]) != before:
        sizes_figure(numbers["sizes"], DOCS / "results_sizes.png")
    (DOCS / "results.md").write_text(page(numbers), encoding="utf-8")


if __name__ == "__main__":
    main()
