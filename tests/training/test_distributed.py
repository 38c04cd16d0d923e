"""Processes that torchrun starts train as one does."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import firstspike as fs
import forked
from firstspike import torchrun
from firstspike.cli import main
from firstspike.config import load_config
from firstspike.runs.checkpoint import load_checkpoint, newest_first
from firstspike.runs.folder import RunFolder
from firstspike.torchrun import only_first_reports
from firstspike.training import Interrupted
from firstspike.training.distributed import Distributed, Ranks
from firstspike.training.loop import stop_on_signals
from trained import resume, start

SMALL = [
    "data.train=301",  # batches of 60, the last of one sample: other processes than one have none
    "data.validation=100",
    "data.test=101",
    "network[1].out_features=20",
    "training.silent.limits[1]=0.95",
    "training.batch_size=60",
    "training.epochs=2",
    "training.dtype=float64",
]
NOISY = ["training.augment.jitter=0.05", "training.augment.dropout=0.05"]
DELAYS = [
    "network[0]={kind: multiplex, copies: 2}",
    "network[2]={kind: delay, rule: {bound: clip, scale: 1.5, shift: 0.5, mean: 1.2, jitter: 0.05}, lr: 0.02}",
    "network[1].delay={bound: softplus, mean: -1.0, jitter: 0.02}",
    "network[1].trainable=[tau_mem]",
    "loss.regularizers=[{kind: delay_l2, alpha: 0.01}, {kind: early_output, alpha: 0.01}]",
]
PEAK = [
    "loss.regularizers=[{kind: silent_peak, alpha: 0.1, max_silent: 0.1}]",
    "network[1].weight_mean=0.4",
    "training.silent.limits[0]=0.95",
]
SGD = ["training.optimizer={kind: sgd, lr: 0.05, momentum: 0.9}", "training.schedule={kind: exponential, gamma: 0.9}"]
QUIET = ["network[1].weight_mean=0.4", "training.silent.limits[0]=0.1", "training.silent.increment=0.02"]
CASES = {
    "noise": ("yin_yang_goeltz2021", [*SMALL, *NOISY]),
    "delays": ("yin_yang_goeltz2021", [*SMALL, *DELAYS]),
    "silent_peak": ("yin_yang_goeltz2021", [*SMALL, *PEAK, *SGD]),
    "accumulate": ("yin_yang_goeltz2021", [*SMALL, *NOISY, "training.accumulate=4", "training.weight_average=0.8"]),
    "raised_instead": ("yin_yang_goeltz2021", [*SMALL, *QUIET]),
    "raised_too": ("yin_yang_goeltz2021", [*SMALL, *QUIET, "training.silent.skip_step=false"]),
    "conv": (
        "digits",
        [
            "data.train=121",
            "data.validation=40",
            "data.test=41",
            "network=[{kind: conv, out_channels: 3, kernel_size: 3}, {kind: pool, kernel_size: 2}, "
            "{kind: lif, out_features: 10}]",
            "training.silent.limits=[0.2, 0.5]",
            "training.batch_size=40",
            "training.epochs=2",
            "training.augment.shift=1",
            "training.dtype=float64",
        ],
    ),
}
STOPPED = ("yin_yang_goeltz2021", [*SMALL, *NOISY, *DELAYS[:4], "training.augment.jitter=0.05"])
SCRIPT = """
import json, sys
from pathlib import Path
from firstspike.config import load_config
from firstspike.runs import Run
from firstspike.spiketime.cpu import arrays
arrays.NARROW = ()  # the kernels of the process that trains alone
top = Path(sys.argv[1])
for name, (config, settings) in json.loads((top / "cases.json").read_text()).items():
    print(name, Run.start(top / name, load_config(config, settings)).epochs)
Run(top / "stopped").resume()
"""


@contextmanager
def together(processes, *what):
    """Processes with what torchrun tells them; it and each process that it starts import torch for seconds."""
    store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    given = {"WORLD_SIZE": processes, "MASTER_ADDR": "localhost", "MASTER_PORT": store.port}
    given |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "OMP_NUM_THREADS": 1}
    forked.processes()  # not first in this environment
    found = []
    for rank in range(processes):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (given | {"RANK": rank, "LOCAL_RANK": rank}).items():
                patch.setenv(name, str(value))
            found.append(forked.Forked(*what))
    try:
        yield found
    finally:
        for process in found:
            process.kill()
            process.wait()


def flags(settings):
    return [x for setting in settings for x in ("--set", setting)]


def final(folder):
    return load_checkpoint(newest_first(folder / "checkpoints")[0])


def same_training(one, other, tolerance=1e-10):
    for table in ("metrics", "output_times"):
        with (one / f"{table}.csv").open() as a, (other / f"{table}.csv").open() as b:
            for left, right in zip(csv.reader(a), csv.reader(b), strict=True):
                for x, y in zip(left, right, strict=True):
                    assert x == y or float(x) == pytest.approx(float(y), rel=1e-9, abs=tolerance, nan_ok=True), table
    first, second = final(one), final(other)
    assert (first.epoch, first.weights.keys()) == (second.epoch, second.weights.keys())
    for name, weight in first.weights.items():
        torch.testing.assert_close(second.weights[name], weight, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """All cases, trained by three processes; also the rest of one that a single process began."""
    top = tmp_path_factory.mktemp("shared")
    (top / "cases.json").write_text(json.dumps(CASES))
    (top / "script.py").write_text(SCRIPT)
    begun = load_config(*STOPPED)
    asked = iter(range(1000))
    with pytest.raises(Interrupted):
        start(top / "stopped", begun, progress_bar=False, stop=lambda: next(asked) >= 8)
    with together(3, top / "script.py", top) as processes:
        said = [process.communicate()[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0, 0], said
    return top, "".join(said)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_three_processes_train_as_one(tmp_path, shared, name):
    top, _ = shared
    alone = start(tmp_path / "alone", load_config(*CASES[name]), progress_bar=False)
    same_training(tmp_path / "alone", top / name)
    together = RunFolder.open(top / name)
    assert together.environment["processes"] == 3
    for split in ("validation", "test"):
        for key, value in alone[split].items():
            assert together.results[split][key] == pytest.approx(value, rel=1e-9), key
    with (top / name / "metrics.csv").open() as file:
        raised = [float(row["raised"]) for row in csv.DictReader(file)]
    assert any(raised) == name.startswith("raised")


@pytest.mark.slow
def test_the_first_of_the_processes_shows_a_bar(shared):
    _, said = shared
    bars = [line for line in said.replace("\r", "\n").splitlines() if "12/12" in line]
    assert 0 < len(bars) <= 2 * len(CASES), "a bar of each training, drawn once or twice at its end"


@pytest.mark.slow
def test_more_processes_go_on_with_what_one_began(tmp_path, shared):
    top, _ = shared
    start(tmp_path / "whole", load_config(*STOPPED), progress_bar=False)
    same_training(tmp_path / "whole", top / "stopped")


def until(happens, process):
    while not happens():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def running(*what):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.Popen([*launch, "-m", "firstspike", *what], stderr=subprocess.PIPE, text=True)


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.slow
def test_two_processes_are_interrupted_and_lost_and_one_goes_on(tmp_path):
    settings = [*SMALL, *NOISY, "training.checkpoint_every=3"]
    folder = tmp_path / "run"
    process = running(
        "train", "yin_yang_goeltz2021", "-q", "--out", str(folder), *flags([*settings, "training.epochs=100000"])
    )
    until(lambda: (folder / "metrics.csv").exists(), process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert said.count(f"Continue with: firstspike resume {folder}") == 1
    interrupted = final(folder)

    process = running("resume", str(folder), "-q")
    saved = folder / "checkpoints" / f"epoch_{interrupted.epoch // 3 * 3 + 6:04d}"
    until(saved.exists, process)
    (lost, *_), first = children(process)[1:], children(process)[0]
    os.kill(lost, signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert first != lost
    assert said.count("error: another process of this training has ended") == 1

    epochs = final(folder).epoch + 1
    resume(folder, epochs=epochs, progress_bar=False)
    start(
        tmp_path / "whole",
        load_config("yin_yang_goeltz2021", [*settings, f"training.epochs={epochs}"]),
        progress_bar=False,
    )
    same_training(tmp_path / "whole", folder, tolerance=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "message"),
    [
        pytest.param(
            ["bars", "--set", "network[1].out_features=x"], "network[1].out_features", marks=pytest.mark.exhaustive
        ),
        (["bars", "--out", "."], "is not empty"),  # the first process alone meets it
    ],
    ids=["met by all", "met by the first"],
)
def test_an_error_is_said_once(what, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    with together(2, "train", *what) as (first, second):
        _, said = first.communicate(timeout=120)
        second.kill()  # as torchrun does
        said += second.communicate()[1]
    assert first.returncode != 0
    assert said.count("error: ") == said.count(message) == 1, said
    assert "firstspike/cli.py" not in said, "no traceback"


@pytest.fixture
def second_of_two(monkeypatch):
    monkeypatch.setattr(torchrun, "_WAIT", 0.0)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("second_of_two")
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.n_seeds=2", "start it without torchrun"),
        ("substrate={kind: noisy}", "cannot be shared by 2 processes"),
        ("training.device=cuda:1", "each process takes its own device"),
    ],
)
def test_what_cannot_be_shared_is_refused(tmp_path, setting, message):
    with pytest.raises(ValueError, match=message):
        start(tmp_path / "run", load_config("yin_yang_goeltz2021", [setting]), progress_bar=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("second_of_two")
def test_other_commands_are_for_one_process(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["firstspike", "evaluate", "runs/none"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "firstspike evaluate is for one process: start it without torchrun" in capsys.readouterr().err


def ends(code, said):
    print(said, file=sys.stderr)  # noqa: T201
    sys.exit(code)


@pytest.mark.usefixtures("second_of_two")
def test_only_an_error_of_its_own_makes_another_process_speak(capsys):
    with only_first_reports():
        print("results")  # noqa: T201
    with pytest.raises(SystemExit), only_first_reports():
        ends(130, "interrupted")
    with pytest.raises(SystemExit), only_first_reports():
        raise torchrun.ProcessLostError("lost")
    assert capsys.readouterr() == ("", "")
    with pytest.raises(SystemExit), only_first_reports():
        ends(2, "usage")
    assert capsys.readouterr().err == "process 1 of 2:\nusage\n"


def test_a_process_that_lost_another_reports_it_before_torchrun_ends_it():
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(torchrun.ProcessLostError), stop_on_signals() as stopped:
            raise torchrun.ProcessLostError("lost")
        signal.raise_signal(signal.SIGTERM)
        assert stopped()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("kind", [fs.losses.SilentPeak, fs.losses.SpikeCount])
def test_the_callers_regularizers_stay_as_they_are(kind):
    network = fs.Network(fs.LIFLinear(4, 3, weight_mean=0.3, weight_std=0.0))
    regularizer = kind(0.1)
    before = regularizer.batch_mean
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    trainer = fs.Trainer(network, fs.losses.TimeCrossEntropy(), optimizer, regularizers=[regularizer])
    engine = Distributed(trainer.members[0], trainer.objective, None, Ranks(), lambda: False)
    assert engine.step(torch.zeros(1, 6, 4), torch.zeros(1, 6, dtype=torch.int64)).isfinite().all()
    assert engine.objective.regularizers[0].batch_mean == engine._mean
    assert trainer.objective.regularizers == (regularizer,)
    assert regularizer.batch_mean is before


@pytest.mark.parametrize("samples", [0, 1, 5, 12])
def test_parts_make_up_the_batch(samples):
    parts = [list(range(samples))[Ranks(rank, 4).part(samples)] for rank in range(4)]
    assert [x for part in parts for x in part] == list(range(samples))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
