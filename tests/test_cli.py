import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import forked
import python_runs
from firstspike.cli import app, main


def test_help_loads_no_torch():
    code = "import sys\nfrom firstspike.cli import main\nsys.argv = ['firstspike', '--help']\n"
    code += "try: main()\nexcept SystemExit: pass\nprint('torch' in sys.modules, 'numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"


def test_ctrl_c_while_the_process_shuts_down_leaves_no_traceback():
    code = "import atexit, os, signal, sys\nfrom firstspike.cli import main\n"
    code += "atexit.register(os.kill, os.getpid(), signal.SIGINT)\nsys.argv = ['firstspike', 'configs']\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.returncode == -signal.SIGINT
    assert done.stdout.startswith("bars")


@pytest.mark.slow
def test_a_second_ctrl_c_soon_after_the_first(tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "firstspike", "train", "bars", "-q", "--out", folder]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (folder / "metrics.csv").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, more = process.communicate(timeout=60)
    assert said == f"interrupted; saved in {folder}. Continue with: firstspike resume {folder}\n"
    assert more in ("", "error: interrupted\n")  # it may come while the command ends
    assert process.returncode in (130, -signal.SIGINT)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has other terminals")
def test_a_closed_terminal_saves(tmp_path):
    folder, (master, slave) = tmp_path / "run", os.openpty()
    code = "import os, signal\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it\n"
    code += "os.close(os.open(os.ttyname(0), os.O_RDWR))  # it controls the session of this process\n"
    code += "from firstspike.cli import main\nmain()"
    command = [sys.executable, "-c", code, "train", "bars", "--out", folder]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    while not (folder / "metrics.csv").exists():
        time.sleep(0.01)
    os.close(master)
    assert process.wait(timeout=60) not in (0, -signal.SIGHUP)
    saved = {path.name for path in (folder / "checkpoints").iterdir()}
    assert any(name.startswith("epoch_") for name in saved), saved


def test_configs_are_listed_and_printed():
    listed = CliRunner().invoke(app, ["configs"]).output
    assert {line.split()[0] for line in listed.splitlines()} >= {"bars", "yin_yang"}
    assert "kind: yin_yang" in CliRunner().invoke(app, ["configs", "yin_yang"]).output


@pytest.mark.slow
def test_train_evaluate_plot(tmp_path, command_here):
    out = tmp_path / "run"
    trained = forked.run(
        "train",
        "bars",
        "--out",
        out,
        "--set",
        "training.epochs=3",
        "--set",
        "training.dtype=float64",
        "--seed",
        "7",
        "-q",
    )
    assert trained.returncode == 0, trained.stderr
    shown = re.search(r"test (accuracy \S+ % \(\S+ to \S+\))", trained.stdout)
    assert shown is not None
    text = (out / "config.yaml").read_text()
    assert "dtype: float64" in text
    assert "seed: 7" in text
    tested = command_here("evaluate", out)
    assert f"test {shown[1]}" in tested.stdout
    drawn = command_here("plot", out, "confusion", "--format", "pdf")
    assert drawn.stdout.strip() == str(out / "figures" / "confusion.pdf")
    assert (out / "figures" / "confusion.pdf").read_bytes().startswith(b"%PDF")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small run, made by the command with everything that may look on."""
    out = tmp_path_factory.mktemp("runs") / "bars"
    done = forked.run("train", "bars", "-q", "--out", out, "--set", "training.epochs=8", "--live", "--tensorboard")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return out


def invoke(monkeypatch, capsys, *arguments):
    """The command in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["firstspike", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, *capsys.readouterr()


@pytest.mark.slow
def test_a_warning_is_one_line(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,label\n" + "".join(f"{k},-1,{'xy'[k % 2]}\n" for k in range(9)))
    settings = "loss: {kind: cross_entropy}\ntraining: {epochs: 1}\nnetwork: [{kind: lif, out_features: 2}]\n"
    (tmp_path / "c.yaml").write_text("data: {kind: files, train: t.csv, test: 0.2}\n" + settings)
    done = forked.run("train", "c.yaml", "-q", cwd=tmp_path)
    assert done.returncode == 0
    assert re.search(r"^warning: there are spike times before 0, the earliest is -1[^\n]+$", done.stderr, re.MULTILINE)
    assert "UserWarning" not in done.stderr


@pytest.mark.slow
def test_who_looks_on(trained, command_here):
    assert len(list((trained / "tensorboard").glob("events.out.tfevents.*"))) == 1
    resumed = command_here("resume", trained, "--epochs", 10, "-q", "--live", "--tensorboard")
    assert resumed.returncode == 0, resumed.stderr
    assert len(list((trained / "tensorboard").glob("events.out.tfevents.*"))) == 2


@pytest.mark.slow  # a process with narrow layers trains for it
def test_evaluate(trained, monkeypatch, capsys):
    code, shown, _ = invoke(monkeypatch, capsys, "evaluate", trained, "--split", "validation", "--checkpoint", "best")
    assert code == 0
    assert re.match(r"validation accuracy \S+ % \(\S+ to \S+\) on 90 samples, loss \S+ \(best_\d{4}\)\n", shown)
    assert re.search(r"^horizontal( +\d+){3,4}$", shown, re.MULTILINE)
    name = f"validation_at_{re.search(r'best_[0-9]{4}', shown)[0]}"
    files = [trained / "evaluation" / f"{name}.json", trained / "spikes" / f"{name}.npz"]
    assert shown.splitlines()[-2:] == [str(file) for file in files]
    assert json.loads(files[0].read_text())["samples"] == 90
    with np.load(files[1], allow_pickle=False) as arrays:
        assert arrays["output"].shape == (90, 3)
        np.savetxt(trained / "mine.csv", np.c_[arrays["inputs"], arrays["labels"]], delimiter=",")
    code, again, _ = invoke(
        monkeypatch, capsys, "evaluate", trained, "--data", trained / "mine.csv", "--checkpoint", "best"
    )
    assert code == 0
    assert again.splitlines()[1:-2] == shown.splitlines()[1:-2]


def test_predict(trained, tmp_path, monkeypatch, capsys):
    times = [[0.15] * 3 + [2.0] * 6, [0.15] * 3 + [np.inf] * 6, [np.inf] * 9]
    np.save(tmp_path / "in.npy", times)
    (tmp_path / "in.csv").write_text(
        "".join(",".join("" if t == np.inf else str(t) for t in row) + "\n" for row in times)
    )
    code, shown, _ = invoke(monkeypatch, capsys, "predict", trained, tmp_path / "in.npy")
    assert code == 0
    head, *rows = [line.split(",") for line in shown.splitlines()]
    assert head == ["class", "horizontal", "vertical", "diagonal"]
    assert rows[0][0] == "horizontal"
    assert rows[2] == ["silent", "inf", "inf", "inf"]
    for row in rows[:2]:
        assert head[1:][int(np.argmin([float(time) for time in row[1:]]))] == row[0]
    code, nothing, _ = invoke(
        monkeypatch, capsys, "predict", trained, tmp_path / "in.csv", "--out", tmp_path / "out.csv"
    )
    assert (code, nothing) == (0, "")
    assert (tmp_path / "out.csv").read_text() == shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "RUN", "--checkpoint", "epoch_8"], "did you mean epoch_0008?"),
        (["evaluate", "RUN", "--split", "tests"], "'tests' is not one of"),
        (["evaluate", "RUN", "--split", "test", "--data", "x.csv"], "--split and --data exclude each other"),
        (["evaluate", "RUN", "--data", "x.csv"], "x.csv: there is no such file"),
        (["evaluate", "RUN", "--data", "bad.csv"], "bad.csv, line 1: expected 9 inputs and a label, got 7 too few"),
        (["predict", "RUN", "x.npy"], "x.npy: there is no such file"),
        (["predict", "RUN", "bad.csv"], "bad.csv, line 1: expected 9 inputs, got 6 too few"),
        (["predict", "RUN", "bad.csv", "--checkpoint", "first"], "has no 'first'; it has "),
        (["predict", "nowhere", "bad.csv"], "is not a run folder"),
        (["predict", "RUN"], "Missing argument"),
        (["predict", "RUN", "in.csv", "--out", "in.csv"], "in.csv is the file that is read; choose another --out"),
    ],
)
def test_bad_input_of_a_run_is_one_message(trained, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text("1,2,3\n")
    (tmp_path / "in.csv").write_text("1,2,3,4,5,6,7,8,9\n")
    code, out, shown = invoke(monkeypatch, capsys, *(trained if part == "RUN" else part for part in arguments))
    assert (code, out) == (2, "")
    assert message in shown
    assert "Traceback" not in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv", "in.csv"]
    assert (tmp_path / "in.csv").read_text() == "1,2,3,4,5,6,7,8,9\n"


def test_no_standard_output(trained, tmp_path, monkeypatch, capsys):
    (tmp_path / "in.csv").write_text("1,2,3,4,5,6,7,8,9\n")
    monkeypatch.setattr(sys, "stdout", None)
    code, _, shown = invoke(monkeypatch, capsys, "predict", trained, tmp_path / "in.csv")
    assert (code, shown) == (2, "error: standard output is closed; choose a file with --out\n")
    assert invoke(monkeypatch, capsys, "predict", trained, tmp_path / "in.csv", "--out", tmp_path / "out.csv")[0] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /dev/full")
def test_a_full_standard_output(monkeypatch, capsys):
    with suppress(OSError), open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        code, _, shown = invoke(monkeypatch, capsys, "configs")
    assert (code, shown) == (1, "error: standard output: No space left on device\n")


@pytest.mark.parametrize("allocate", [torch.empty, np.empty])
def test_out_of_memory_is_one_message(monkeypatch, capsys, allocate):
    monkeypatch.setattr("firstspike.config.load_config", lambda *_: allocate(1 << 50))
    code, _, shown = invoke(monkeypatch, capsys, "train", "bars")
    assert code == 1
    assert shown.startswith("error: out of memory; smaller layers or a smaller batch_size need less (")
    assert shown.count("\n") == 1


def test_other_errors_have_a_traceback(monkeypatch, capsys):
    def fails(*_):
        raise RuntimeError("a fault of the program")

    monkeypatch.setattr("firstspike.config.load_config", fails)
    monkeypatch.setattr(sys, "argv", ["firstspike", "train", "bars"])
    with pytest.raises(RuntimeError, match="a fault of the program"):
        main()


@pytest.mark.draws
@pytest.mark.parametrize("substrate", ["exact", "noisy"])
def test_a_training_names_its_figures(substrate, tmp_path, monkeypatch, capsys):
    """The map has as many samples as a simulator takes hours for."""
    sizes = [f"data.{split}=20" for split in ("train", "validation", "test")]
    options = [part for setting in [*sizes, "training.epochs=1"] for part in ("--set", setting)]
    run = tmp_path / "run"
    code, shown, _ = invoke(
        monkeypatch, capsys, "train", "yin_yang", "-q", "--out", run, "--substrate", substrate, *options
    )
    first = "decision_map, " if substrate == "exact" else ""
    assert code == 0
    assert f"\nfigures: {run / 'figures'} ({first}loss_and_error, output_times)\nrun folder: {run}\n" in shown
    assert (run / "figures" / "decision_map.png").is_file() == (substrate == "exact")


@pytest.mark.parametrize("kind", ["only_training_data", "seeds_with_only_training_data"])
def test_a_run_without_held_out_data(kind, tmp_path, monkeypatch, capsys):
    folder, _ = python_runs.KINDS[kind](tmp_path / "run")
    code, shown, _ = invoke(monkeypatch, capsys, "resume", folder, "--epochs", 4, "-q")
    assert code == 0
    assert re.fullmatch(
        rf"(seed .*\n)*(.*: )?no validation or test data, 4 epochs in \S+ s\nrun folder: {re.escape(f'{folder}')}\n",
        shown,
    )
    single = folder / "seed_0" if "seeds" in kind else folder
    code, shown, _ = invoke(monkeypatch, capsys, "evaluate", single)
    assert code == 0
    assert shown.startswith("train accuracy ")
    code, _, shown = invoke(monkeypatch, capsys, "evaluate", single, "--split", "test")
    assert code == 2
    assert "has no test data; it has train data" in shown


@pytest.mark.slow
def test_a_finished_run_says_so(tmp_path, monkeypatch, capsys):
    folder, _ = python_runs.seeds(tmp_path / "run")
    for damaged in (False, True):
        if damaged:
            (folder / "results.json").write_text("{")
        code, shown, _ = invoke(monkeypatch, capsys, "resume", folder, "-q")
        assert code == 0
        assert ("the training was finished already; --epochs N continues it" in shown) is not damaged
    assert "finished already" not in invoke(monkeypatch, capsys, "resume", folder, "--epochs", 9, "-q")[1]


def test_a_run_that_was_stopped_early_says_so(tmp_path, monkeypatch, capsys):
    early = "training.early_stopping={patience: 1, metric: validation_accuracy, min_delta: 2}"
    arguments = "--set", "training.epochs=5", "--set", early, "--out", tmp_path / "run", "-q"
    assert invoke(monkeypatch, capsys, "train", "bars", *arguments)[0] == 0
    code, shown, _ = invoke(monkeypatch, capsys, "resume", tmp_path / "run", "--epochs", 9, "-q")
    assert code == 0
    assert "the training was finished already; after 2 of 9 epochs" in shown


def test_a_run_with_validation_data_only(tmp_path, monkeypatch, capsys):
    folder, _ = python_runs.seeds(tmp_path / "run")
    code, shown, _ = invoke(monkeypatch, capsys, "resume", folder, "--epochs", 4, "-q")
    assert code == 0
    *seeds, mean, _ = shown.splitlines()
    assert len(seeds) == 2
    assert all(re.fullmatch(r"seed \d: validation accuracy \S+ % \(\S+ to \S+\)", line) for line in seeds)
    assert re.match(r"mean of 2 seeds: validation accuracy \S+ ± \S+ %, 4 epochs", mean)


def test_missing_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    code, _, shown = invoke(monkeypatch, capsys, "train", "bars", "--out", tmp_path / "run", "--tensorboard")
    assert code == 2
    assert (
        shown == 'error: TensorBoard is missing. Install it: pip install ".[tensorboard]" in a copy of the repository\n'
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nothing"], "no such file or shipped config"),
        (["train", "bars", "--set", "network[1].out_features=4"], "the data has 3 classes"),
        (["train", "bars", "--set", "neuron.tau_syn=-1"], "neuron.tau_syn: should be greater than 0"),
        (["train", "bars", "--device", "nonsense"], "device 'nonsense' cannot be used"),
        (["evaluate", "nowhere"], "is not a run folder"),
        (["resume", "nowhere"], "is not a run folder"),
        (["plot", "nowhere"], "is not a run folder"),
        (["configs", "nothing"], "no such config"),
        (["train", "bars", "--nonsense"], "No such option"),
    ],
)
def test_bad_input_is_one_message(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["firstspike", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_substrates(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"

    def call(*arguments):
        return invoke(monkeypatch, capsys, *arguments)

    code, _, err = call(
        "train", "bars", "--substrate", "integrator", "--set", "training.epochs=2", "--out", folder, "-q"
    )
    assert code == 0, err
    assert (folder / "config.yaml").read_text().count("kind: integrator") == 1
    assert "test_on_exact.json" in call("evaluate", folder, "--substrate", "exact")[1]
    code, _, err = call("evaluate", folder, "--substrate", "exakt")
    assert code == 2
    assert "substrate.kind: expected one of 'exact', 'integrator'" in err
    assert call("evaluate", folder, "--substrate", "mock_bss2")[0] == 0
    assert "figures/substrate_on_mock_bss2.png" in call("plot", folder, "substrate", "--substrate", "mock_bss2")[1]
    np.savetxt(tmp_path / "new.csv", np.full((2, 9), 0.5), delimiter=",")
    here, there = (call("predict", folder, tmp_path / "new.csv", *on)[1] for on in ((), ("--substrate", "exact")))
    assert len(here.splitlines()) == len(there.splitlines()) == 3
    assert here != there


def test_a_stalled_chip_is_one_message(tmp_path, monkeypatch, capsys):
    stalls = ["--set", "substrate.stall=1", "--set", "substrate.retries=1", "--out", tmp_path, "-q"]
    code, _, err = invoke(monkeypatch, capsys, "train", "bars_mock_bss2", *stalls)
    assert code == 1
    assert "error: the mock chip 1 stalled 1 times in a row" in err


@pytest.mark.slow
def test_another_chip(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    short = ["--set", "training.epochs=1", "--out", folder, "-q"]
    assert invoke(monkeypatch, capsys, "train", "bars_mock_bss2", *short)[0] == 0
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("chip: 1\n", "chip: 2\n"))
    code, _, err = invoke(monkeypatch, capsys, "resume", folder, "--epochs", "2", "-q")
    assert code == 2
    assert "--allow-other-chip" in err
    assert invoke(monkeypatch, capsys, "resume", folder, "--epochs", "2", "-q", "--allow-other-chip")[0] == 0
