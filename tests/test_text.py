"""Names that users give are text wherever they are shown: on terminals, in files, in figures."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

import firstspike as fs
from firstspike.cli import main
from firstspike.config import load_config
from firstspike.plots.look import TAU_SYN, as_text
from firstspike.runs.evaluate import RunEvaluation, prediction_table
from firstspike.sweeps.figures import accuracy_over
from firstspike.text import no_decision, printable
from trained import start

NAMES = ["$\\frac{$", "silent", "a\x1b[31mb"]
CONFIG = """
data: {kind: files, train: table.npz, validation: 10, test: 10}
network: [{kind: lif, out_features: 5}, {kind: lif, out_features: 3}]
loss: {kind: cross_entropy}
training: {epochs: 1, batch_size: 20}
"""


def trained(folder, names, trains=False):
    numbers = np.random.default_rng(0).random((40, 4, 2) if trains else (40, 4))
    arrays = {"trains" if trains else "times": np.sort(numbers)}
    np.savez(folder / "table.npz", labels=np.array(names)[np.arange(40) % len(names)], **arrays)
    network = "network=[{kind: spike_trains, out_features: 3, max_spikes: 3, overflow: drop}, {kind: first_spike}]"
    (folder / "own.yaml").write_text(CONFIG)
    start(folder / "run", load_config(folder / "own.yaml", [network] if trains else []), progress_bar=False)
    return folder / "run"


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A run whose classes have odd names; tests add evaluations only."""
    return trained(tmp_path_factory.mktemp("odd"), NAMES)


def command(*arguments, **environment):
    line = [sys.executable, "-m", "firstspike", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, timeout=120, env=os.environ | environment)


def test_control_characters_are_written_out():
    assert printable("a\x1b[31m\x9b\x7f\rb\tc\n") == "a\\x1b[31m\\x9b\\x7f\\x0db\tc\n"
    assert printable("Größe 字 $x$") == "Größe 字 $x$"


def test_no_decision_is_no_class():
    assert [no_decision(x) for x in (["a"], ["silent"], ["silent", "no decision"])] == [
        "silent", "no decision", "(no decision)"
    ]  # fmt: skip


@pytest.mark.parametrize("name", [NAMES[0], "$x$", "a\\$b$", "$", "_^{", "$a$ $\\b$"])
def test_no_formula_in_a_figure(name):
    figure = Figure()
    ax = figure.subplots()
    text = ax.set_title(as_text(name))
    accuracy_over([name, "b"], [0.1, 0.2], [0.0, 0.0], ax, [name, "b"])
    ax.legend()
    figure.draw_without_rendering()
    assert text._preprocess_math(text.get_text()) == (name, False)
    ax.set_title(f"{as_text(name)} [{TAU_SYN}]")
    figure.draw_without_rendering()


@pytest.mark.slow
def test_all_figures_of_odd_names(odd):
    files = fs.Run(odd).plot()
    assert {"confusion", "dataset", "membrane", "output_times"} <= {file.stem for file in files}
    assert (odd / "figures" / "summary.png").exists()


def test_a_class_called_silent_is_another_than_no_decision(odd):
    run = fs.Run(odd)
    times = np.full((3, 4), np.inf)
    times[0] = 0.1
    np.save(odd.parent / "inputs.npy", times)
    decided = [row["class"] for row in csv.DictReader(prediction_table(run, odd.parent / "inputs.npy").splitlines())]
    assert decided[1:] == ["no decision"] * 2
    np.savez(odd.parent / "inputs.npz", times=times, labels=np.array(NAMES))
    numbers = run.evaluate(odd.parent / "inputs.npz").numbers
    assert numbers["decisions"] == [*numbers["classes"], "no decision"]


def test_terminals_obey_no_name(odd):
    text = fs.Run(odd).evaluate().text()
    assert "\x1b" not in text
    assert "a\\x1b[31mb" in text
    heads = [line for line in text.splitlines() if line.startswith(("true", "$", "silent", "a"))]
    assert len({len(line) for line in heads[-4:]}) == 1  # columns are aligned


@pytest.mark.slow
def test_what_cannot_be_shown_is_saved(tmp_path):
    run = trained(tmp_path, ["é", "b", "c"])
    done = command("evaluate", run, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\xe9" in done.stdout
    assert (run / "spikes" / "test.npz").is_file()


def test_evaluations_are_saved_before_they_are_shown(bars_folder, monkeypatch):
    saved = []
    monkeypatch.setattr(RunEvaluation, "save", lambda self: saved.append(self.name) or [])
    monkeypatch.setattr(RunEvaluation, "text", lambda self: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["firstspike", "evaluate", str(bars_folder)])
    with pytest.raises(ZeroDivisionError):
        main()
    assert saved == ["test"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has other pipes")
def test_nobody_reads_what_a_finished_training_says(tmp_path):
    small = ["--set", "training.epochs=1", "--set", "data.train=30", "--out", tmp_path / "run"]
    line = [sys.executable, "-m", "firstspike", "train", "bars", "-q", *map(str, small)]
    for arguments in (line, [*line[:3], "resume", str(tmp_path / "run"), "-q"]):
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.stdout.close()
        with process.stderr as stream:
            said = stream.read()
        assert process.wait(timeout=120) == 1
        assert "room" not in said
        assert "Traceback" not in said
        assert "error" not in said
        assert (tmp_path / "run" / "results.json").is_file()


def test_trains_have_to_be_sorted(tmp_path):
    run = fs.Run(trained(tmp_path, ["a", "b", "c"], trains=True))
    np.savez(tmp_path / "more.npz", trains=np.full((3, 4, 2), [0.9, 0.2]), labels=[0, 1, 2])
    for use in (run.predict, run.evaluate):
        with pytest.raises(ValueError, match="expected spike trains sorted"):
            use(tmp_path / "more.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "data.encode.kind={a: 1}"], "expected a kind out of"),
        (["--set", "data.encode.kind=[a]"], "expected a kind out of"),
        (["--out", "/".join("d" * 1500)], "a path or a file is nested too deeply"),
    ],
)
def test_one_message(odd, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["firstspike", "train", str(odd.parent / "own.yaml"), "-q", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert not list(tmp_path.iterdir())
