"""One recipe for all sequences, next to snnTorch and Norse: ``python benchmarks/sequences.py --digits FOLDER``.

    pip install -e ".[timeseries]" seglearn snntorch norse

Eight tasks: bars that move and bars that turn before a synthetic event camera, delayed XOR, time series that aeon and
seglearn have in their packages, and the Free Spoken Digit Dataset (``--digits``; without it, seven). All networks get
the same spikes, have 100 hidden neurons, and train with Adam, by the cross-entropy, for 30 epochs, or 300 steps of Adam
where these are fewer. The peers count the spikes in 100 steps of time.

``--tune`` measures every setting of a system on the validation data, with seed 0. Each peer takes the best one of each
task, firstspike one recipe for all tasks, found on validation data, too: ``--changes 1`` measures there what each part
of it gives. Time constants are parts of T, the time within which the spikes of 95 % of the samples end. Results go to a
file as they come; what is there is not measured again.
"""

import argparse
import importlib.util
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import firstspike as fs
from firstspike.data import DATASETS
from firstspike.data.aeon import time_series_splits
from firstspike.data.recordings import spoken_digits_splits
from firstspike.layers import start_firing_

EPOCHS, BATCH, HIDDEN, STEPS, SEEDS = 30, 30, 100, 100, 5
LEAST_STEPS = 300  # of Adam, by more epochs
ENCODE = {"kind": "level_crossing", "levels": 16}

Settings = dict[str, Any]


class Task(NamedTuple):
    """Training, validation and test data, the number of classes, and T."""

    train: fs.data.SpikeData
    validation: fs.data.SpikeData
    test: fs.data.SpikeData
    classes: int
    duration: float


def task_of(splits: fs.data.Splits) -> Task:
    trains = splits.train.dense
    last = trains.masked_fill(trains.isinf(), 0).flatten(1).max(dim=1).values
    return Task(*splits, len(splits.train.class_names), float(last.quantile(0.95)))


def epochs_of(task: Task, steps: int = LEAST_STEPS) -> int:
    return max(EPOCHS, math.ceil(steps / math.ceil(len(task.train) / BATCH)))


def drawn(kind: str, train: int, validation: int, **options: Any) -> Task:
    """Of data that are made; as many are test data as are training data."""
    return task_of(DATASETS[kind](train, validation, train, seeds=(1, 3, 2), **options))


def series(name: str) -> Task:
    return task_of(time_series_splits(name, validation=0.25, encode=ENCODE | {"dt": 0.5}))


def exercises() -> Task:
    """Seven exercises of ten people, by accelerometer and gyroscope at 10 Hz; three people are test data."""
    found = importlib.util.find_spec("seglearn")
    if found is None or found.origin is None:
        raise SystemExit("seglearn, which has the exercises, is not installed: pip install seglearn")
    data = np.load(Path(found.origin).parent / "data" / "watch_dataset.npy", allow_pickle=True).item()
    signals = [x[: len(x) // 5 * 5].reshape(-1, 5, 6).mean(axis=1).T for x in data["X"]]
    person, labels = data["subject"].astype(int), data["y"]
    parts = []
    encoder = fs.data.LevelCrossingEncoder(16, dt=0.5)
    for number, chosen in enumerate((person > 5, (person == 4) | (person == 5), person < 4)):
        some = [signals[i] for i in np.flatnonzero(chosen)]
        encoder = encoder.fit(some) if number == 0 else encoder
        parts.append(fs.data.SpikeData(encoder(some), torch.tensor(labels[chosen]), tuple(data["y_labels"])))
    return task_of(fs.data.Splits(*parts))


TASKS: dict[str, Callable[[], Task]] = {
    "bars": lambda: drawn("camera", 300, 150, motion="bars"),
    "rotations": lambda: drawn("camera", 300, 150, motion="rotations"),
    "delayed XOR": lambda: drawn("delayed_xor", 200, 100, noise=0.05, late=4.0),
    "JapaneseVowels": lambda: series("JapaneseVowels"),
    "BasicMotions": lambda: series("BasicMotions"),
    "OSULeaf": lambda: series("OSULeaf"),
    "exercises": exercises,
}


def digits(folder: Path) -> Task:
    """A quarter of the training data, as the peers take long."""
    splits = spoken_digits_splits(folder=folder, encode=ENCODE | {"dt": 1.0})
    train = splits.train
    return task_of(splits._replace(train=fs.data.SpikeData(train.times[::4], train.labels[::4], train.class_names)))


RECIPE: Settings = {
    "lr": 0.03,
    "tau_mem": (0.02, 0.5),  # of the fastest and the slowest hidden neuron
    "jitter": 0.01,
    "steps": LEAST_STEPS,
    "temperature": 0.02,  # an integral is in units of time: one spike makes about its weight times tau_mem
    "count": 0.1,
    "delay": 0.0,
    "readout": "integral",
}
CHANGES: dict[str, Settings] = {
    "the recipe": {},
    "one time constant": {"tau_mem": (0.1, 0.1), "temperature": 0.1},
    "no temperature": {"temperature": 0.0},
    "no jitter": {"jitter": 0.0},
    "30 epochs": {"steps": 0},
    "no SpikeCount": {"count": 0.0},
    "a third of the rate": {"lr": 0.01},
    "delays of the inputs": {"delay": 0.2},
    "MaximumReadout": {"readout": "maximum", "temperature": 0.0},
}


def by_firstspike(task: Task, test: fs.data.SpikeData, seed: int, settings: Settings) -> tuple[float, float]:
    generator, unit, inputs = torch.Generator().manual_seed(seed), task.duration, task.train.features
    fastest, slowest = (unit * part for part in settings["tau_mem"])
    tau_mem = torch.logspace(math.log10(fastest), math.log10(slowest), HIDDEN)
    hidden, outputs = fs.LIF(tau_mem, tau_mem / 2), fs.LIF(fastest, fastest / 2)
    layers: list[nn.Module] = [fs.LIFSpikeTrains(inputs, HIDDEN, 20, hidden, overflow="drop", generator=generator)]
    if settings["delay"]:
        rule = fs.DelayRule(scale=unit * settings["delay"], std=1.0)
        layers.insert(0, fs.Delay(inputs, rule, trains=True, generator=generator))
    if settings["readout"] == "integral":
        layers.append(fs.IntegralReadout(HIDDEN, task.classes, outputs, tau=unit, generator=generator))
    else:
        layers.append(fs.MaximumReadout(HIDDEN, task.classes, outputs, generator=generator))
    network = fs.Network(*layers)
    start_firing_(network, task.train.times[:100], generator)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings["lr"])
    epochs = epochs_of(task, settings["steps"])
    trainer = fs.Trainer(
        network,
        fs.losses.ReadoutCrossEntropy(unit * settings["temperature"] or 1.0),
        optimizer,
        schedule=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs),
        regularizers=[fs.losses.SpikeCount(settings["count"], least=0.5, most=10)] if settings["count"] else [],
        augment=fs.Augment(jitter=unit * settings["jitter"]),
    )
    begin = time.process_time()
    trainer.fit(task.train, epochs=epochs, batch_size=BATCH, seed=seed, progress_bar=False)
    return trainer.evaluate(test).accuracy, (time.process_time() - begin) / epochs


@cache
def raster(data: fs.data.SpikeData, duration: float) -> Tensor:
    """Numbers of spikes ``(STEPS, samples, inputs)``. Those after T are in the last step."""
    trains = data.dense
    step = (trains / duration * STEPS).clamp(0, STEPS - 1).nan_to_num(0).long()
    counts = torch.zeros(*trains.shape[:2], STEPS).scatter_add_(2, step, trains.isfinite().float())
    return counts.movedim(2, 0).contiguous()


class SNNTorch(nn.Module):
    def __init__(self, task: Task, settings: Settings) -> None:
        import snntorch

        super().__init__()
        betas = [math.exp(-1 / STEPS / part) for part in (settings["tau_mem"], 1.0)]
        self.counts = settings["output"] == "count"
        self.first, self.second = nn.Linear(task.train.features, HIDDEN), nn.Linear(HIDDEN, task.classes)
        self.hidden = snntorch.Leaky(beta=betas[0], learn_beta=True)
        self.out = snntorch.Leaky(beta=betas[1], reset_mechanism="subtract" if self.counts else "none")

    def forward(self, steps: Tensor) -> Tensor:
        hidden, out = self.hidden.init_leaky(), self.out.init_leaky()
        values = []
        for x in self.first(steps):
            spikes, hidden = self.hidden(x, hidden)
            counted, out = self.out(self.second(spikes), out)
            values.append(counted if self.counts else out)
        return torch.stack(values).sum(dim=0) if self.counts else torch.stack(values).mean(dim=0)


class Norse(nn.Module):
    def __init__(self, task: Task, settings: Settings) -> None:
        from norse.torch import LICell, LIFCell, LIFParameters, LIParameters

        super().__init__()
        rate, leak = (torch.tensor(x) for x in (1 / settings["tau_mem"], 1.0))
        self.first, self.second = nn.Linear(task.train.features, HIDDEN), nn.Linear(HIDDEN, task.classes)
        self.hidden = LIFCell(LIFParameters(tau_mem_inv=rate, tau_syn_inv=2 * rate), dt=1 / STEPS)
        self.out = LICell(LIParameters(tau_mem_inv=leak, tau_syn_inv=2 * rate), dt=1 / STEPS)

    def forward(self, steps: Tensor) -> Tensor:
        hidden = out = None
        values = []
        for x in self.first(steps):
            spikes, hidden = self.hidden(x, hidden)
            value, out = self.out(self.second(spikes), out)
            values.append(value)
        return STEPS * torch.stack(values).mean(dim=0)  # as large as those of snnTorch

    @torch.no_grad()
    def start_(self, steps: Tensor) -> None:
        """Scale the weights of the inputs up until neurons spike once in the mean. With usual ones, many never do."""
        for _ in range(20):
            hidden, count = None, 0.0
            for x in self.first(steps):
                spikes, hidden = self.hidden(x, hidden)
                count += float(spikes.mean())
            if count >= 1:
                return
            self.first.weight *= 1.5


def by_steps(make: Any, task: Task, test: fs.data.SpikeData, seed: int, settings: Settings) -> tuple[float, float]:
    torch.manual_seed(seed)
    network, steps = make(task, settings), raster(task.train, task.duration)
    if hasattr(network, "start_"):
        network.start_(steps[:, :100])
    optimizer, epochs = torch.optim.Adam(network.parameters(), lr=settings["lr"]), epochs_of(task)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    begin = time.process_time()
    for _ in range(epochs):
        for chosen in torch.randperm(len(task.train)).split(BATCH):
            optimizer.zero_grad()
            cross_entropy(network(steps[:, chosen]), task.train.labels[chosen]).backward()
            optimizer.step()
        schedule.step()
    seconds = (time.process_time() - begin) / epochs
    with torch.no_grad():
        decided = torch.cat([network(x).argmax(dim=1) for x in raster(test, task.duration).split(200, dim=1)])
    return float((decided == test.labels).double().mean()), seconds


class System(NamedTuple):
    """How a system is trained, and the values of its settings."""

    train: Callable[[Task, fs.data.SpikeData, int, Settings], tuple[float, float]]
    settings: dict[str, tuple[Any, ...]]

    def grid(self) -> Iterator[Settings]:
        return (dict(zip(self.settings, values, strict=True)) for values in itertools.product(*self.settings.values()))


RATES, PARTS = (0.003, 0.01), (0.1, 0.3)
SYSTEMS = {
    "firstspike": System(by_firstspike, {name: (value,) for name, value in RECIPE.items()}),
    "snnTorch": System(
        lambda *given: by_steps(SNNTorch, *given), {"lr": RATES, "tau_mem": PARTS, "output": ("count", "mean")}
    ),
    "Norse": System(lambda *given: by_steps(Norse, *given), {"lr": RATES, "tau_mem": PARTS, "output": ("mean",)}),
}


class Store:
    """Accuracies and seconds of CPU time an epoch, of all that was measured, in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, list[float]] = json.loads(path.read_text("utf-8")) if path.exists() else {}

    def measured(self, system: str, name: str, part: str, seed: int, settings: Settings) -> list[float]:
        key = json.dumps([system, name, part, seed, settings])
        if key not in self.found:
            task = known(name)
            self.found[key] = list(SYSTEMS[system].train(task, getattr(task, part), seed, settings))
            self.path.write_text(json.dumps(self.found, indent=0), "utf-8")
            print(f"{system}, {name}, {part}, seed {seed}, {settings}: {100 * self.found[key][0]:.1f} %", flush=True)
        return self.found[key]

    def best(self, system: str, name: str) -> Settings:
        """The setting with the best validation accuracy in a task."""
        grid = SYSTEMS[system].grid()
        return max(grid, key=lambda settings: self.measured(system, name, "validation", 0, settings)[0])


def what_parts_give(store: Store, names: list[str], seeds: range) -> None:
    """A row for each change of the recipe: the validation accuracy of each task in percent, and the mean."""
    print("| change |", " | ".join([*names, "mean"]), "|\n| --- |" + " --- |" * (len(names) + 1))
    for change, settings in CHANGES.items():
        given = [[store.measured("firstspike", x, "validation", k, RECIPE | settings)[0] for k in seeds] for x in names]
        means = [100 * statistics.fmean(each) for each in given]
        print(f"| {change} |", " | ".join(f"{x:.1f}" for x in [*means, statistics.fmean(means)]), "|", flush=True)


@cache
def known(name: str) -> Task:
    return TASKS[name]()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=Path, help="folder of the Free Spoken Digit Dataset")
    parser.add_argument("--only", nargs="+", help="tasks")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--tune", action="store_true", help="measure the settings on validation data, and no more")
    parser.add_argument("--changes", type=int, metavar="SEEDS", help="measure what each part of the recipe gives")
    parser.add_argument("--store", type=Path, default=Path(__file__).with_name("sequences.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.digits:
        TASKS["spoken digits"] = lambda: digits(options.digits)
    store, names = Store(options.store), options.only or list(TASKS)
    if options.changes:
        what_parts_give(store, names, range(options.changes))
        return
    chosen = {(system, name): store.best(system, name) for system in options.systems for name in names}
    if options.tune:
        return
    print(
        "| data |", " | ".join(f"{system}: worst, mean of {SEEDS} seeds; s an epoch" for system in options.systems), "|"
    )
    print("| --- |" + " --- |" * len(options.systems))
    for name in names:
        cells = []
        for system in options.systems:
            each = [store.measured(system, name, "test", seed, chosen[system, name]) for seed in range(SEEDS)]
            right, seconds = ([x[k] for x in each] for k in (0, 1))
            mean, spent = 100 * statistics.fmean(right), statistics.median(seconds)
            cells.append(f"**{100 * min(right):.1f}** %, {mean:.1f} %; {spent:.2f}")
        print(f"| {name} |", " | ".join(cells), "|", flush=True)
    for (system, name), settings in chosen.items():
        print(f"- {system}, {name}: {settings}")


if __name__ == "__main__":
    main()
