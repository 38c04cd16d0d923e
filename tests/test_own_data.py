"""Data, a network and a loss of one's own, in Python: ``examples/own_data.py``, and the same data for the command."""

import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_wine

import firstspike as fs
import forked
from firstspike.config import load_config
from firstspike.runs.checkpoint import load_checkpoint, newest_first
from firstspike.runs.evaluate import prediction_table
from trained import start

SCRIPT = Path(__file__).parents[1] / "examples" / "own_data.py"


def newest(folder):
    return load_checkpoint(newest_first(folder / "checkpoints")[0])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wine") / "whole"
    done = forked.run(SCRIPT, folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_the_script_is_short_and_has_no_yaml():
    text = SCRIPT.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    assert "yaml" not in text.lower()


@pytest.mark.slow
def test_a_killed_script_resumes_bit_for_bit(whole, tmp_path):
    folder, shown = whole
    assert float(shown.split()[-2]) > 85
    process = forked.Forked(SCRIPT, tmp_path / "killed")
    while not (tmp_path / "killed" / "checkpoints" / "epoch_0012").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert newest(tmp_path / "killed").epoch < 60
    assert forked.run(SCRIPT, tmp_path / "killed").returncode == 0
    for table in ("metrics.csv", "output_times.csv"):
        assert (tmp_path / "killed" / table).read_bytes() == (folder / table).read_bytes()
    one, other = newest(folder).weights, newest(tmp_path / "killed").weights
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_a_loss_of_ones_own_is_named_and_can_be_handed_over(whole, command_here):
    folder, _ = whole
    done = command_here("evaluate", folder)
    assert done.returncode == 2
    assert done.stderr.count("\n") <= 2
    assert "'Margin' is not in the registries; pass it in Python: loss=..." in done.stderr
    sys.path.insert(0, str(SCRIPT.parent))
    run = fs.Run(folder, loss=lambda times, labels: times.clamp(max=10.0).mean())
    assert run.evaluation.accuracy > 0.8
    assert run.network[0].log_tau_mem.shape == ()


@pytest.mark.slow
def test_commands_work_on_a_run_made_in_python(tmp_path, command_here):
    folder = tmp_path / "run"
    assert forked.run(SCRIPT, folder, "--cross-entropy").returncode == 0
    for arguments, shown in (
        (["evaluate", folder], "test accuracy"),
        (["plot", folder], "summary.png"),
        (["report", folder], "report.html"),
        (["export", folder, tmp_path / "wine.nir"], "wine.nir"),
        (["resume", folder, "--epochs", "62", "-q"], "62 epochs"),
    ):
        done = command_here(*arguments)
        assert done.returncode == 0, done.stderr
        assert shown in done.stdout, arguments
    assert fs.Run(folder).metrics["epoch"][-1] == 62


TABLE = """\
data:
  kind: files
  train: wine.csv
  encode: {late: 1.5}
network:
  - {kind: lif, out_features: 30}
  - {kind: lif, out_features: 3}
loss: {kind: cross_entropy, xi: 0.1}
training: {epochs: 40, batch_size: 16, optimizer: {kind: adam, lr: 0.01},
  silent: {limits: [0.5, 0.1], increment: 0.005}}
"""


@pytest.mark.slow
def test_a_table_is_trained_on_by_the_command(tmp_path, command_here):
    wine = load_wine()
    rows = [[*map(str, values), wine.target_names[label]] for values, label in zip(wine.data, wine.target, strict=True)]
    text = "\n".join(",".join(row) for row in [[*wine.feature_names, "cultivar"], *rows])
    (tmp_path / "wine.csv").write_text(text + "\n")
    (tmp_path / "mine.yaml").write_text(TABLE)
    assert len(TABLE.splitlines()) == 10
    trained = command_here("train", tmp_path / "mine.yaml", "-q", "--out", tmp_path / "run")
    assert trained.returncode == 0, trained.stderr
    assert fs.Run(tmp_path / "run").results["test"]["accuracy"] > 0.8
    (tmp_path / "new.csv").write_text("\n".join(",".join(row[:-1]) for row in rows[::20]) + "\n")
    (tmp_path / "wine.csv").unlink()  # the run has a copy
    answer = command_here("predict", tmp_path / "run", tmp_path / "new.csv")
    assert answer.returncode == 0, answer.stderr
    decisions = [line.split(",")[0] for line in answer.stdout.splitlines()[1:]]
    truth = [row[-1] for row in rows[::20]]
    assert sum(a == b for a, b in zip(decisions, truth, strict=True)) >= len(truth) - 1
    evaluated = command_here("evaluate", tmp_path / "run")
    assert evaluated.stdout.startswith("test accuracy"), evaluated.stderr


@pytest.mark.parametrize("copied", [True, False])
def test_columns_of_new_tables_are_found_by_their_names(tmp_path, copied):
    wine = load_wine()
    rows = [[*map(str, values), str(label)] for values, label in zip(wine.data, wine.target, strict=True)]
    names = [*wine.feature_names, "cultivar"]
    (tmp_path / "wine.csv").write_text("\n".join(",".join(row) for row in [names, *rows]) + "\n")
    (tmp_path / "mine.yaml").write_text(TABLE.replace("epochs: 40", "epochs: 1"))
    start(tmp_path / "run", load_config(tmp_path / "mine.yaml"), progress_bar=False)
    if copied:
        (tmp_path / "wine.csv").unlink()
    else:
        shutil.rmtree(tmp_path / "run" / "data")
    run = fs.Run(tmp_path / "run")
    assert run.data.train.columns == tuple(wine.feature_names)

    def predicted(order, header=True):
        lines = [names, *rows[::9]] if header else rows[::9]
        (tmp_path / "new.csv").write_text("\n".join(",".join(row[k] for k in order) for row in lines) + "\n")
        return prediction_table(run, tmp_path / "new.csv")

    assert predicted(range(12, -1, -1)) == predicted(range(13)) == predicted(range(13), header=False)
    assert predicted(range(12, -1, -1), header=False) != predicted(range(13))
    with pytest.raises(ValueError, match=r"new\.csv, line 1: .* it lacks proline$"):
        predicted(range(12))
    (tmp_path / "new.csv").write_text("\n".join(",".join(reversed(row[:13])) + "," + row[13] for row in [names, *rows]))
    assert run.evaluate(tmp_path / "new.csv").accuracy == pytest.approx(
        sum(len(x) * run.evaluate(n).accuracy for n, x in zip(run.data._fields, run.data, strict=True)) / len(rows)
    )


@pytest.mark.slow
def test_a_bad_table_is_one_line(tmp_path, command_here):
    (tmp_path / "wine.csv").write_text("a,b,c\n1,2,x\n1,oops,y\n")
    (tmp_path / "mine.yaml").write_text(TABLE)
    done = command_here("train", tmp_path / "mine.yaml", "-q", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert (
        "wine.csv, column 2 (b), line 3: expected a number or nothing, got 'oops' (line 1 of mine.yaml)" in done.stderr
    )
    assert done.stderr.splitlines()[0].endswith("mine.yaml: 1 error")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "shown"), [("", "the last column"), ("labels: b", "'b'"), ("labels: 1", "column 1, counted from 0")]
)
def test_many_classes_ask_for_the_right_labels(key, shown, tmp_path):
    (tmp_path / "wine.csv").write_text("a,b,c\n" + "".join(f"{k},{k},{k}\n" for k in range(20)))
    (tmp_path / "mine.yaml").write_text(TABLE.replace("wine.csv\n", f"wine.csv\n  {key}\n"))
    with pytest.raises(fs.config.ConfigError) as error:
        fs.config.load_config(tmp_path / "mine.yaml")
    assert error.value.errors == [
        f"network[1].out_features: the last lif layer has 3 neurons, the data has 20 classes ({shown}): if "
        "data.labels is correct, write out_features: 20, otherwise correct it"
    ]
