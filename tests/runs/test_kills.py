"""Trainings that are killed at random moments and resumed end as if nothing had happened, bit for bit.

``FIRSTSPIKE_KILLS=100 pytest -s tests/runs/test_kills.py`` kills more often, and says where the runs were.
"""

import collections
import logging
import os
import random
import sys
import threading
import time

import pytest
import torch
from tqdm import tqdm

from firstspike.config import load_config
from firstspike.plots import save
from firstspike.runs.checkpoint import checkpoints, load_checkpoint
from firstspike.runs.lock import HOLDER
from forked import processes
from trained import resume, start

KILLS = int(os.environ.get("FIRSTSPIKE_KILLS", "4"))

TINY = ["data.train=60", "data.validation=20", "data.test=20", "training.batch_size=10", "training.epochs=12"]
CONV = "network=[{kind: conv, out_channels: 2, kernel_size: 2}, {kind: lif, out_features: 3}]"
OFTEN_SILENT = "training.silent.limits=[0.9, 0.9]"
RUNS = {
    "seeds": [
        CONV,
        OFTEN_SILENT,
        "training.n_seeds=3",
        "training.schedule={kind: cosine, final: 0.1}",
        "training.checkpoint_every=2",
    ],
    "conv": [
        CONV,
        OFTEN_SILENT,
        "training.optimizer={kind: sgd, lr: 0.02, momentum: 0.9}",
        "training.checkpoint_every=1",
    ],
    "dense": ["training.augment.jitter=0.05", "training.checkpoint_every=3"],
    "noisy": ["substrate={kind: noisy, spike_jitter: 0.02}", "training.checkpoint_every=5"],
}
SEEDS = {"seeds": ["seed_2000", "seed_2001", "seed_2002"]}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Undisturbed runs, by name."""
    top, done = tmp_path_factory.mktemp("whole"), set()

    def get(name):
        if name not in done:
            done.add(name)
            run(start, top / name, load_config("bars", [*TINY, *RUNS[name]])).join()
        return top / name

    return get


@pytest.fixture(scope="module")
def killed():
    """How far the runs were when they were killed, shown at the end with ``-s``."""
    counts = collections.Counter()
    yield counts
    sys.stdout.write("".join(f"\n{count:6} {what}" for what, count in sorted(counts.items())) + "\n")


def run(function, *arguments):
    process = processes().Process(target=victim, args=(function, *arguments))
    process.start()
    return process


def victim(function, *arguments):
    """What a process does until it is killed; figures would take most of its time."""
    save.draw_after_training = lambda *_: None
    logging.disable()
    tqdm.set_lock(threading.RLock())  # its own one outlives a process that is killed
    function(*arguments, progress_bar=False)


def lines(table):
    try:
        return table.read_text().count("\n")
    except FileNotFoundError:
        return 0


def moment(folder, seed):
    """How far a run is, by its newest checkpoint, which can be read."""
    if not (folder / "config.yaml").exists():
        return "before there is a config"
    found = checkpoints(folder / seed / "checkpoints")
    if not found:
        return "before the first checkpoint"
    load_checkpoint(found[-1])
    return "done" if (folder / "results.json").exists() else f"after {found[-1].name}"


@pytest.mark.slow
@pytest.mark.parametrize("number", range(0, KILLS, 2))
def test_killed_runs_are_resumed(whole, killed, tmp_path, number):
    chance = random.Random(number)
    name = list(RUNS)[number // 2 % len(RUNS)]
    config, folder, expected = load_config("bars", [*TINY, *RUNS[name]]), tmp_path / "run", whole(name)
    first, *_ = seeds = SEEDS.get(name, ["."])
    for last in (8, 13):
        begun = (folder / "config.yaml").exists()
        process = run(*((resume, folder) if begun else (start, folder, config)))
        after = chance.randint(-2, last)  # rows of the first table; also before there is any
        while process.is_alive() and (lines(folder / first / "metrics.csv") < after or not (folder / HOLDER).exists()):
            time.sleep(0.0005)
        time.sleep(chance.uniform(0, 0.03))
        process.kill()
        process.join()
        killed[f"{name}: {moment(folder, first)}"] += 1
    process = run(resume, folder) if (folder / "config.yaml").exists() else run(start, folder, config)
    process.join()
    assert process.exitcode == 0
    assert not (folder / HOLDER).exists()
    for seed in {".", *seeds}:
        for table in ("metrics.csv", "output_times.csv"):
            one, other = (top / seed / table for top in (folder, expected))
            assert one.exists() == other.exists()
            assert not one.exists() or one.read_bytes() == other.read_bytes()
    for seed in seeds:
        one, other = (load_checkpoint(checkpoints(top / seed / "checkpoints")[-1]) for top in (folder, expected))
        assert one.epoch == other.epoch == 12
        assert all(torch.equal(one.weights[key], other.weights[key]) for key in other.weights)
        moments = zip(one.state["optimizer"]["state"].values(), other.state["optimizer"]["state"].values(), strict=True)
        assert all(torch.equal(mine[key], theirs[key]) for mine, theirs in moments for key in theirs)
