import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import typer

from firstspike.sweeps import command as sweeps
from firstspike.sweeps.study import TRIAL


@pytest.mark.slow
@pytest.mark.exhaustive  # others interrupt workers, and kill runs
def test_a_worker_is_killed_and_another_finishes(command, six, study_of, busy, check_six, tmp_path):
    process = command.start("sweep", six, "--workers", 2, "-q")
    study = study_of(tmp_path / "runs" / "six" / "study.db")
    taken, worker = busy(study)
    os.kill(worker, signal.SIGKILL)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == "runs/six/table.csv"
    assert "Traceback" not in err
    assert "a worker died of signal 9; its trial will be given to another one" in err
    check_six(six, study, taken)


@pytest.mark.slow
def test_interrupted_and_continued(command, six, study_of, busy, check_six, tmp_path):
    first = command.start("sweep", six, "--workers", 2)
    study = study_of(tmp_path / "runs" / "six" / "study.db")
    taken, _ = busy(study)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "interrupted; all trials are kept in runs/six. Run the same command again to resume." in err
    assert not study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    code, _, err = command("sweep", six, "-q")
    assert code == 0, err
    check_six(six, study, taken)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no groups of processes")
def test_ctrl_c_while_workers_import(command, six, tmp_path):
    line = [sys.executable, "-m", "firstspike", "sweep", str(six), "-q"]
    process = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while len(children.read_text().split()) < 2:  # a worker, and what keeps account of its resources
        time.sleep(0.01)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert said == "interrupted; all trials are kept in runs/six. Run the same command again to resume.\n"
    assert process.returncode == 130


@pytest.mark.slow
def test_table_and_figures(command, command_here, write_sweep, tmp_path):
    sweep = write_sweep()
    assert command("sweep", sweep, "-q", "--name", "mine")[0] == 0

    def call(*arguments):
        done = command_here(*arguments, cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr

    code, out, _ = call("sweep-table", "mine")
    assert code == 0
    head, *rows, _, file = out.splitlines()
    assert head.split()[:3] == ["trial", "network[lif:0].out_features", "training.optimizer.lr"]
    assert len(rows) == 4
    assert file == "runs/mine/table.csv"
    again = call("sweep-table", tmp_path / "runs" / "mine")[1]
    assert again.splitlines() == [*out.splitlines()[:-1], str(tmp_path / "runs" / "mine" / "table.csv")]
    assert call("sweep-table", "mine", "--storage", "sqlite:///runs/mine/study.db")[1] == out
    code, out, _ = call("plot", "mine", "over", "--format", "svg")
    assert (code, out.split()) == (0, ["runs/mine/figures/over.svg"])
    code, _, err = call("plot", "mine", "ower")
    assert code == 2
    assert "there is no figure 'ower'; did you mean over?" in err
    code, out, err = call("evaluate", tmp_path / "runs" / "mine" / "0002")  # an ordinary run
    assert code == 0, err
    moved = (tmp_path / "runs" / "mine").rename(tmp_path / "moved")
    assert call("sweep-table", moved)[0] == 0
    (moved / "table.csv").unlink(missing_ok=True)
    code, out, err = call("report", moved)  # asks the study itself
    assert (code, out.strip()) == (0, str(moved / "report.html")), err
    assert "network[lif:0].out_features" in (moved / "report.html").read_text("utf-8")


@pytest.mark.slow
def test_failed_trials_are_reported_and_retried(command, command_here, write_sweep, tmp_path):
    folder = tmp_path / "images"
    sweep = write_sweep(
        "base: mnist\nheartbeat: 1\n",
        axes="{training.epochs: [1]}",
        set=f"{{data.folder: {folder}, data.train: 20, data.validation: 10, data.test: 10}}",
    )
    done = command_here("sweep", sweep, "-q", cwd=tmp_path)
    for code, out, err in (
        (done.returncode, done.stdout, done.stderr),
        command("sweep", sweep, "-q", "--retry-failed"),
    ):
        assert code == 1, err
        assert "  failed  FileNotFoundError: " in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep", "none.yaml"], "no such file; a sweep is a YAML file with a base and axes"),
        (["sweep", "small.yaml", "--name", "a/b"], "becomes a folder"),
        (["sweep", "small.yaml", "--storage", "x"], "expected a URL such as sqlite:///FILE"),
        (["sweep-table", "none"], "none: there is no"),
        (["sweep-table", "none", "--storage", "sqlite:///none.db"], "none: there is no none.db"),
        (["plot", "none"], "none is not a run folder"),
    ],
)
def test_bad_input_is_one_message(arguments, message, command_here, write_sweep, tmp_path):
    write_sweep()
    done = command_here(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_runs_of_another_study_are_not_touched(command_here, write_sweep, tmp_path):
    (tmp_path / "runs" / "small" / "0000").mkdir(parents=True)
    done = command_here("sweep", write_sweep(), "-q", cwd=tmp_path)
    assert done.returncode == 2
    assert "has runs of another study" in done.stderr


@pytest.mark.slow
def test_the_folder_of_a_run_is_left_to_it(command_here, write_sweep, tmp_path):
    run = tmp_path / "runs" / "small"
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    done = command_here("sweep", write_sweep(), "-q", cwd=tmp_path)
    assert done.returncode == 2
    assert "is the folder of a run; choose another --name" in done.stderr
    assert [path.name for path in run.iterdir()] == ["config.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize("said", ["{", "{}", "[]", '{"name": "small"}'])
def test_a_damaged_folder_is_one_message(said, command_here, tmp_path):
    (tmp_path / "runs" / "small").mkdir(parents=True)
    (tmp_path / "runs" / "small" / "sweep.json").write_text(said)
    done = command_here("sweep-table", "small", cwd=tmp_path)
    assert done.returncode == 2
    assert "sweep.json is damaged" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_worker_ends_with_the_command_that_started_it(command, six, study_of, busy, until, tmp_path):
    first = command.start("sweep", six, "-q")
    study = study_of(tmp_path / "runs" / "six" / "study.db")
    taken, worker = busy(study)
    first.kill()
    until(lambda: not Path(f"/proc/{worker}").exists() or "zombie" in Path(f"/proc/{worker}/status").read_text())
    assert study.trials[taken.number].state is optuna.trial.TrialState.FAIL
    assert sum(trial.user_attrs[TRIAL] == taken.number for trial in study.trials) == 2  # it is queued again
    first.communicate(timeout=30)


def test_optuna_is_needed_and_named(tmp_path):
    code = (
        "import sys; sys.modules['optuna'] = None\nimport importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'optuna' else find(name, *a)\n"
        "import firstspike.sweeps.command as c; c.find_spec = u.find_spec\n"
        "from firstspike.cli import main; sys.argv = ['firstspike', 'sweep-table', 'x']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2
    assert done.stderr == 'error: Optuna is missing. Install it: pip install ".[sweep]" in a copy of the repository\n'


def test_interrupted_before_the_first_trial(write_sweep, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    file = write_sweep()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("firstspike.sweeps.worker.launch", interrupted)
    with pytest.raises(typer.Exit):
        sweeps.sweep(file, quiet=True)
    assert capsys.readouterr().err == "interrupted; no trial had begun. Run the same command again to start.\n"
    with pytest.raises(FileNotFoundError, match="interrupted before its first trial is started again"):
        sweeps.sweep_table("small")
