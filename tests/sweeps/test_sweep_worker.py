import json
import shutil
import signal
import threading
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from firstspike.runs import start
from firstspike.sweeps import launch
from firstspike.sweeps.plan import load_plan
from firstspike.sweeps.study import (
    ERROR,
    FOLDER,
    RESULTS,
    STOPPED,
    enqueue_open,
    number_of,
    table_of,
    trials_of,
)
from firstspike.sweeps.worker import Worker, copy_run
from firstspike.training import Interrupted


@pytest.fixture
def worker(plan, opened, where, tmp_path):
    return Worker(plan, opened(where), tmp_path / "runs")


def results(folder):
    found = json.loads((folder / "results.json").read_text())
    found.pop("seconds")
    return found


@pytest.mark.slow
def test_all_trials_once(worker, plan, tmp_path):
    assert worker.work()
    assert worker.work()  # nothing is left
    rows = table_of(worker.study, worker.folder).rows
    assert [row["state"] for row in rows] == ["complete"] * 4
    assert [{key: row[key] for key in plan.sweep.axes} for row in rows] == plan.grid()
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["0000", "0001", "0002", "0003"]
    assert len(worker.study.trials) == 4
    for row in rows:
        assert row["test_accuracy"] == results(Path(row["folder"]))["test"]["accuracy"]
    start(tmp_path / "alone", plan.config(plan.grid()[2]), progress_bar=False)
    assert results(tmp_path / "alone") == results(tmp_path / "runs" / "0002")


@pytest.mark.slow
def test_a_trial_that_fails_does_not_stop_the_rest(worker, monkeypatch, tmp_path):
    def fails(folder, config, **others):
        if config.network[0].out_features == 6 and not (tmp_path / "mended").exists():
            folder.mkdir(parents=True)
            raise RuntimeError("the network\nexplodes")
        return start(folder, config, **others)

    monkeypatch.setattr("firstspike.sweeps.worker.start", fails)
    assert worker.work()
    table = table_of(worker.study, worker.folder)
    assert [row["state"] for row in table.rows] == ["complete", "complete", "failed", "failed"]
    assert table.rows[2]["reason"] == "RuntimeError: the network\nexplodes"
    assert "trial 3 failed: RuntimeError: the network" in table.text()
    assert "RuntimeError: the network" in (tmp_path / "runs" / "0003" / "error.txt").read_text()
    (tmp_path / "mended").touch()
    assert worker.work()
    assert [trial.error is None for trial in trials_of(worker.study, 4)] == [True, True, False, False]
    enqueue_open(worker.study, worker.plan, retry_failed=True)
    assert worker.work()
    assert [row["state"] for row in table_of(worker.study, worker.folder).rows] == ["complete"] * 4


@pytest.mark.slow
def test_a_metric_that_is_no_number_is_a_failure(worker, monkeypatch):
    def diverges(folder, config, **others):
        found = start(folder, config, **others)
        found["validation"]["accuracy"] = float("nan")
        return found

    monkeypatch.setattr("firstspike.sweeps.worker.start", diverges)
    assert worker.work()
    assert {trial.error for trial in trials_of(worker.study, 4)} == {"ValueError: validation_accuracy is nan"}


def stop_after(worker, batches):
    """Asks the worker to stop after that many polls."""
    looks = iter(range(batches))
    worker.stop = lambda: next(looks, None) is None


@pytest.mark.slow
def test_a_worker_that_is_stopped_saves_and_another_resumes(worker, plan, opened, where, tmp_path):
    stop_after(worker, 13)
    assert not worker.work()
    trials = trials_of(worker.study, 4)
    stopped = next(trial for trial in trials if any(x.user_attrs.get(STOPPED) for x in trial.attempts))
    left = Path(stopped.attempts[0].user_attrs[FOLDER])
    assert any("_batch_" in path.name for path in (left / "checkpoints").iterdir())
    assert Worker(plan, opened(where), tmp_path / "runs").work()
    trial = trials_of(worker.study, 4)[stopped.number]
    run = Path(trial.done.user_attrs[FOLDER])
    assert (run.name, left.exists()) == (f"{left.name}-2", False)
    start(tmp_path / "alone", plan.config(plan.grid()[trial.number]), progress_bar=False)
    assert results(run) == results(tmp_path / "alone")
    assert (run / "metrics.csv").read_text() == (tmp_path / "alone" / "metrics.csv").read_text()


@pytest.mark.slow
def test_a_trial_whose_checkpoints_cannot_be_read_starts_over(worker, plan, opened, where, tmp_path, caplog):
    stop_after(worker, 13)
    assert not worker.work()
    manifests = list((tmp_path / "runs").rglob("manifest.json"))
    for manifest in manifests:
        manifest.write_text("{}")
    assert manifests
    assert Worker(plan, opened(where), tmp_path / "runs").work()
    assert "the trial starts over" in caplog.text
    assert all(trial.done for trial in trials_of(worker.study, 4))


@pytest.mark.parametrize("groups", [True, False], ids=["posix", "windows"])
def test_a_worker_leaves_ctrl_c_to_the_command(monkeypatch, groups):
    called = []
    monkeypatch.setattr(launch.signal, "signal", lambda number, handler: called.append((number, handler)))
    if groups:
        monkeypatch.setattr(launch.os, "setpgid", lambda *group: called.append(group))
    else:
        monkeypatch.delattr(launch.os, "setpgid")
    launch._leave_ctrl_c_to_the_command()
    assert called == ([(0, 0)] if groups else [(signal.SIGINT, signal.SIG_IGN)])


@pytest.mark.slow
def test_a_stalled_worker_notices_that_its_trial_is_anothers(worker, plan, opened, where, until, tmp_path, caplog):
    """It is stalled in its second epoch, without heartbeats, until another worker has done all."""
    other = Worker(plan, opened(where), tmp_path / "runs")
    stalls = []

    class Stall(threading.Event):
        def look(self):
            lease = worker.lease
            if lease and not stalls and (Path(worker.folder) / "0000" / "checkpoints" / "epoch_0002").exists():
                stalls.append(lease.attempt.number)
                # as if nobody had heard of it for long
                worker.study.tell(lease.attempt.number, state=TrialState.FAIL)
                done = threading.Thread(target=other.work)
                done.start()
                done.join()
                until(lambda: lease.lost)  # with its next heartbeat
            return False

    worker.stop = Stall().look
    assert worker.work()
    assert stalls == [0]
    assert "was given to another worker" in caplog.text
    trials = trials_of(worker.study, 4)
    assert [sum(x.state is TrialState.COMPLETE for x in trial.attempts) for trial in trials] == [1] * 4
    assert trials[0].done.number != 0
    assert worker.study.trials[0].state is TrialState.FAIL
    assert RESULTS not in worker.study.trials[0].user_attrs
    assert ERROR not in worker.study.trials[0].user_attrs
    assert Path(trials[0].done.user_attrs[FOLDER]).name == "0000-2"


@pytest.mark.slow
def test_what_was_finished_but_not_recorded_is_not_trained_again(worker, plan, tmp_path, monkeypatch):
    enqueue_open(worker.study, plan)
    start(tmp_path / "runs" / "0000", plan.config(plan.grid()[0]), progress_bar=False)
    trial = worker.study.ask()
    assert number_of(trial) == 0
    trial.set_user_attr(FOLDER, str(tmp_path / "runs" / "0000"))
    worker.study.tell(trial, state=TrialState.FAIL)
    trained = []
    monkeypatch.setattr("firstspike.sweeps.worker.resume", lambda folder, **_: trained.append(folder))
    assert worker.work()
    assert trained == []
    assert trials_of(worker.study, 4)[0].done.user_attrs[RESULTS]["epochs"] == 4


@pytest.mark.slow
def test_an_attempt_of_no_trial_is_left_alone(worker, plan):
    """Between a look at the queue and the taking another worker may have emptied it."""
    study = worker.study
    worker.train_next()  # the queue is empty: Optuna makes a trial of its own
    assert [trial.state for trial in study.trials] == [TrialState.FAIL]
    assert all(not trial.attempts for trial in trials_of(study, 4))
    assert worker.work()
    assert len(table_of(study, worker.folder).rows) == 4


def test_copy_run_is_whole_or_not_at_all(tmp_path, monkeypatch, caplog):
    old, new = tmp_path / "old", tmp_path / "new"
    assert not copy_run(old, new)
    (old / "checkpoints" / ".epoch_1.partial").mkdir(parents=True)
    (old / "config.yaml").write_text("x")
    assert copy_run(old, new)
    assert [path.name for path in (new / "checkpoints").iterdir()] == []
    shutil.rmtree(new)

    def full(*_, **__):
        raise OSError("no space")

    monkeypatch.setattr("shutil.copytree", full)
    assert not copy_run(old, new)
    assert "no space" in caplog.text
    assert not new.exists()


@pytest.mark.slow
def test_pruning_by_the_mean_over_the_seeds(write_sweep, opened, where, tmp_path):
    file = write_sweep(
        "base: bars\nheartbeat: 1\ngrace: 2\n",
        axes="{training.optimizer.lr: [0.02, 0.019, 1.0e-6, 1.1e-6]}",
        seeds=2,
        pruning="{kind: median, startup: 2, warmup: 1}",
        set="{data.train: 60, data.validation: 30, data.test: 30, training.epochs: 12, "
        "'network[lif:0].weight_mean': 0.5, 'network[lif:0].weight_std': 0.1}",
    )
    plan = load_plan(file)
    worker = Worker(plan, opened(where), tmp_path / "runs")
    assert worker.work()
    table = table_of(worker.study, worker.folder)
    assert [row["state"] for row in table.rows[:2]] == ["complete"] * 2
    assert [row["state"] for row in table.rows[2:]] == ["pruned"] * 2
    assert "pruned" in table.text()
    trial = worker.study.trials[2]
    mean = Path(trial.user_attrs[FOLDER]) / "metrics.csv"
    head, *lines = [line.split(",") for line in mean.read_text().splitlines()]
    column = head.index("validation_accuracy")
    assert trial.intermediate_values == {int(line[0]): float(line[column]) for line in lines}
    assert len(lines) < 12


@pytest.mark.slow
def test_a_storage_that_fails_for_a_while_ends_no_worker(worker, monkeypatch):
    fails = iter([optuna.exceptions.StorageInternalError("of a database"), OSError("of a journal")])

    def unsteady(*args, **kwargs):
        if (error := next(fails, None)) is not None:
            raise error
        return enqueue_open(*args, **kwargs)

    tell, lost = worker.study.tell, iter([optuna.exceptions.StorageInternalError("once more")])

    def unsteady_tell(*args, **kwargs):
        if (error := next(lost, None)) is not None:
            raise error
        return tell(*args, **kwargs)

    monkeypatch.setattr("firstspike.sweeps.worker.enqueue_open", unsteady)
    monkeypatch.setattr(worker.study, "tell", unsteady_tell)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert worker.work()
    assert len(table_of(worker.study, worker.folder).rows) == 4
    assert len(worker.study.trials) == 4  # results are recorded once the storage is back


def test_interrupted_is_not_a_failure(worker, monkeypatch):
    def interrupts(*_, **__):
        raise Interrupted

    monkeypatch.setattr("firstspike.sweeps.worker.start", interrupts)
    assert not worker.work()
    assert [t.state for t in worker.study.trials if t.user_attrs.get(STOPPED)] == [TrialState.FAIL]
    assert not any(trial.error for trial in trials_of(worker.study, 4))
