"""Run folders that are damaged at random: one message or the right result, nothing lost, nothing executed.

``FIRSTSPIKE_DAMAGES=1000 pytest -s tests/runs/test_damage.py`` does more of the same and counts how they ended. A
damage is repeated by its number, which is its seed.
"""

import collections
import contextlib
import hashlib
import io
import os
import random
import shutil
import signal
import sys
import traceback
import warnings

import pytest
import torch

from damage import CONTENT, UNSIGNED
from firstspike.cli import main
from firstspike.config import load_config
from firstspike.runs.checkpoint import checkpoints, load_checkpoint
from firstspike.training import Interrupted
from trained import start

COUNT = int(os.environ.get("FIRSTSPIKE_DAMAGES", "20"))
AT_ONCE = 20
READING = (["evaluate"], ["evaluate", "--split", "validation", "--checkpoint", "best"], ["plot"], ["report"], [])
LONGEST = 120  # seconds that a command may take before it counts as hanging

TINY = ["data.train=40", "data.validation=20", "data.test=20", "training.batch_size=10", "training.epochs=4"]
TINY += ["training.checkpoint_every=1"]
CONV = "network=[{kind: conv, out_channels: 2, kernel_size: 2}, {kind: lif, out_features: 3}]"
OFTEN_SILENT = "training.silent.limits=[0.9, 0.9]"
SGD = "training.optimizer={kind: sgd, lr: 0.02, momentum: 0.9}"
RUNS = {  # settings, and the number of batches after which a training is interrupted
    "adam": (["training.schedule={kind: multi_step, milestones: [1, 3]}"], None),
    "conv": ([CONV, OFTEN_SILENT, SGD, "training.augment.jitter=0.05"], 10),
    "seeds": ([CONV, OFTEN_SILENT, "training.n_seeds=2", "training.schedule={kind: cosine, final: 0.1}"], None),
    "noisy": (["substrate={kind: noisy, spike_jitter: 0.02}", "training.schedule={kind: exponential, gamma: 0.9}"], 9),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders by name: as the training left it, and as it is when it is done."""
    top = tmp_path_factory.mktemp("damage")
    for name, (settings, batches) in RUNS.items():
        config = load_config("bars", [*TINY, *settings])
        start(top / name / "whole", config, progress_bar=False)
        if batches is None:
            shutil.copytree(top / name / "whole", top / name / "left")
            continue
        asked = iter(range(batches))
        with pytest.raises(Interrupted):
            start(top / name / "left", config, progress_bar=False, stop=lambda left=asked: next(left, None) is None)
    return top


@pytest.fixture(scope="module")
def ended():
    """How often commands ended how, shown at the end with ``-s``."""
    counts = collections.Counter()
    yield counts
    sys.stdout.write("".join(f"\n{count:6} {what}" for what, count in sorted(counts.items())) + "\n")


def content(folder):
    """What is in a folder, by path; the lock comes and goes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
        if path.name != ".lock"
    }


def command(*arguments):
    """Exit code and what was printed as an error; anything but an exit, and a hang, is raised."""

    def hangs(*_):
        raise TimeoutError(f"{arguments} takes more than {LONGEST} s")

    before = sys.argv, signal.signal(signal.SIGALRM, hangs)
    sys.argv = ["firstspike", *map(str, arguments)]
    signal.alarm(LONGEST)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("default")
            main()
    except SystemExit as end:
        return end.code, said.getvalue()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before[1])
        sys.argv = before[0]
    raise AssertionError("the command did not exit")


def one_message(code, said):
    """Whether a command did what it was asked for, or said in one line why not; an error of a config has more lines."""
    lines = [line for line in said.splitlines() if line and not line.startswith("  ")]
    errors = [line for line in lines if line.startswith("error: ")]
    return "Traceback" not in said and (code == 0 or (code in (1, 2) and len(errors) == 1 and lines[-1] == errors[0]))


def same_result(one, other, seeds, tables):
    """Whether two runs ended with the same weights and, if asked, the same tables, bit for bit."""
    for folder in seeds:
        first, second = (load_checkpoint(checkpoints(run / folder / "checkpoints")[-1]) for run in (one, other))
        if first.epoch != second.epoch or first.weights.keys() != second.weights.keys():
            return False
        if not all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights):
            return False
        if tables and any(
            (one / folder / f"{name}.csv").read_bytes() != (other / folder / f"{name}.csv").read_bytes()
            for name in ("metrics", "output_times")
        ):
            return False
    return True


def attempt(number, runs, folder):
    """One damage: what it was, how the commands ended, and what was wrong with that."""
    chance = random.Random(number)
    name = chance.choice(list(RUNS))
    run, marker = folder / "run", folder / "executed"
    shutil.copytree(runs / name / "left", run)
    damage = chance.choice(UNSIGNED if chance.random() < 0.5 else CONTENT)
    damaged = damage(chance, run, marker).relative_to(run)
    seeds = ["seed_2000", "seed_2001"] if name == "seeds" else ["."]
    reading = chance.choices(READING, (10, 10, 1, 1, 10))[0]
    wrong, ends = [], []
    if reading:
        of = run if name != "seeds" or chance.random() < 0.3 else run / "seed_2000"
        code, said = command(reading[0], of, *reading[1:])
        ends.append(f"{reading[0]} {code}")
        if not one_message(code, said):
            wrong.append(f"{reading} ended with {code}: {said}")
    before = content(run)
    code, said = command("resume", run, "-q")
    ends.append(f"resume {code}")
    if not one_message(code, said):
        wrong.append(f"resume ended with {code}: {said}")
    kept_tables = not damaged.name.startswith(("metrics", "output_times"))
    exact = code == 0 and damage in UNSIGNED and damaged.name != "config.yaml"
    if exact and not same_result(run, runs / name / "whole", seeds, kept_tables):
        wrong.append(f"resume ended with another result: {said}")
    if code != 0 and "diverged" not in said and content(run) != before:
        wrong.append(f"resume failed and changed {set(content(run).items()) ^ set(before.items())}: {said}")
    if code != 0 and chance.random() < 0.3:
        code, said = command("resume", run, "-q", "--from-scratch")
        ends.append(f"resume --from-scratch {code}")
        if not one_message(code, said):
            wrong.append(f"resume --from-scratch ended with {code}: {said}")
    if marker.exists():
        wrong.append("executed")
    return f"{name}: {damage.__name__} {damaged}", ends, wrong


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, COUNT, AT_ONCE))
def test_damaged_runs(runs, ended, tmp_path, first):
    failures = []
    for number in range(first, min(first + AT_ONCE, COUNT)):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            what, ends, wrong = attempt(number, runs, folder)
        except Exception:
            what, ends, wrong = "", ["exception"], [traceback.format_exc()]
        ended.update(ends)
        failures += [f"damage {number}, {what}: {line}" for line in wrong]
        shutil.rmtree(folder)
    assert not failures, "\n".join(failures)
