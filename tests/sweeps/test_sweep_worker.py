import json
import re
import threading
from pathlib import Path

import pytest
from optuna.trial import TrialState

from firstspike.runs import Run
from firstspike.runs.lock import locked
from firstspike.sweeps.plan import load_plan
from firstspike.sweeps.study import ERROR, queue_again, table_of, trials_of
from firstspike.sweeps.worker import Worker
from trained import start

pytestmark = pytest.mark.slow


@pytest.fixture
def worker(plan, opened, tmp_path):
    return Worker(plan, opened(tmp_path / "study.db", plan.sweep.heartbeat), tmp_path / "runs")


def rows(worker):
    return table_of(worker.study, worker.folder).rows


def results(folder):
    found = json.loads((folder / "results.json").read_text())
    found.pop("seconds")
    return found


def test_all_trials_once(worker, plan, tmp_path):
    worker.work()
    worker.work()  # nothing is left
    assert [row["state"] for row in rows(worker)] == ["complete"] * 4
    assert [{key: row[key] for key in plan.sweep.axes} for row in rows(worker)] == plan.trials()
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["0000", "0001", "0002", "0003"]
    assert len(worker.study.trials) == 4
    for row in rows(worker):
        assert row["test_accuracy"] == results(Path(row["folder"]))["test"]["accuracy"]
    start(tmp_path / "alone", plan.config(plan.trials()[2]), progress_bar=False)
    assert results(tmp_path / "alone") == results(tmp_path / "runs" / "0002")


def test_a_trial_that_fails_does_not_stop_the_rest(worker, monkeypatch, tmp_path):
    train = Run.start

    def fails(folder, config, **others):
        if config.network[0].out_features == 6:
            raise RuntimeError("the network\nexplodes")
        run = train(folder, config, **others)
        if config.training.optimizer.lr == 0.02:
            run.results["validation"]["accuracy"] = float("nan")
        return run

    with monkeypatch.context() as patch:
        patch.setattr(Run, "start", fails)
        worker.work()
    reasons = ["", "ValueError: validation_accuracy is nan", *["RuntimeError: the network\nexplodes"] * 2]
    assert [row["reason"] for row in rows(worker)] == reasons
    assert re.search(r"failed +RuntimeError: the network\n", table_of(worker.study, worker.folder).text())
    assert "in _train" in worker.study.trials[1].user_attrs["traceback"]
    worker.work()
    assert [row["state"] for row in rows(worker)] == ["complete", "failed", "failed", "failed"]
    queue_again(worker.study, worker.storage, failed=True)
    worker.work()
    assert [row["state"] for row in rows(worker)] == ["complete"] * 4


def test_a_worker_that_is_stopped_saves_and_another_resumes(worker, plan, opened, tmp_path):
    polls = iter(range(13))
    worker.stop = lambda: next(polls, None) is None
    worker.work()
    stopped = next(trial for trial in worker.study.trials if trial.state is TrialState.FAIL)
    assert not stopped.user_attrs[ERROR]
    run = tmp_path / "runs" / f"{stopped.number:04d}"
    assert any("_batch_" in path.name for path in (run / "checkpoints").iterdir())
    assert [trial.state.name for trial in trials_of(worker.study).values()].count("WAITING") >= 3
    Worker(plan, opened(tmp_path / "study.db", plan.sweep.heartbeat), tmp_path / "runs").work()
    assert [row["state"] for row in rows(worker)] == ["complete"] * 4
    start(tmp_path / "alone", plan.config(plan.trials()[stopped.number]), progress_bar=False)
    assert results(run) == results(tmp_path / "alone")
    assert (run / "metrics.csv").read_text() == (tmp_path / "alone" / "metrics.csv").read_text()


def test_a_trial_whose_checkpoints_cannot_be_read_starts_over(worker, plan, tmp_path, caplog):
    polls = iter(range(13))
    worker.stop = lambda: next(polls, None) is None
    worker.work()
    manifests = list((tmp_path / "runs").rglob("manifest.json"))
    for manifest in manifests:
        manifest.write_text("{}")
    assert manifests
    worker.stop = lambda: False
    worker.work()
    assert "the trial starts over" in caplog.text
    assert [row["state"] for row in rows(worker)] == ["complete"] * 4


def test_a_worker_that_was_taken_for_dead(worker, plan, opened, tmp_path, caplog):
    """Another one waits for the results of its training, which count once."""
    other = Worker(plan, opened(tmp_path / "study.db", plan.sweep.heartbeat), tmp_path / "runs")
    helper = threading.Thread(target=other.work)

    def look():
        if helper.ident is None and (tmp_path / "runs" / "0000" / "checkpoints" / "epoch_0002").exists():
            worker.study.tell(0, state=TrialState.FAIL)  # as if it had sent no heartbeat for long
            queue_again(worker.study, worker.storage)
            helper.start()
        return False

    worker.stop = look
    worker.work()
    helper.join()
    assert "was given to another worker" in caplog.text
    assert worker.study.trials[0].state is TrialState.FAIL
    assert [row["state"] for row in rows(worker)] == ["complete"] * 4
    assert sum(trial.state is TrialState.COMPLETE for trial in worker.study.trials) == 4


def test_a_worker_that_waits_for_another_one_can_be_stopped(worker, tmp_path):
    polls = iter(range(4))
    worker.stop = lambda: next(polls, None) is None
    with locked(tmp_path / "runs" / "0000"):
        worker.work()
    assert {trial.state.name for trial in trials_of(worker.study).values()} == {"WAITING"}


def test_what_was_finished_but_not_recorded_is_not_trained_again(worker, plan, tmp_path, monkeypatch):
    start(tmp_path / "runs" / "0000", plan.config(plan.trials()[0]), progress_bar=False)
    resumed = []
    monkeypatch.setattr(Run, "resume", lambda run, **_: resumed.append(run) or run)
    worker.train_next()
    assert resumed == []
    assert rows(worker)[0]["epochs"] == 4


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed to be used with")
def test_what_optuna_adds_to_an_empty_queue_is_no_trial(worker):
    """Between a look at the queue and the taking another worker may have emptied it."""
    for _ in range(4):
        worker.study.tell(worker.study.ask(), 0.5)
    worker.train_next()
    assert [trial.state.name for trial in worker.study.trials] == ["COMPLETE"] * 4 + ["FAIL"]
    assert len(rows(worker)) == 4


def test_pruning_by_the_mean_over_the_seeds(write_sweep, opened, tmp_path):
    file = write_sweep(
        "base: bars\nheartbeat: 1\n",
        axes="{training.optimizer.lr: [0.02, 0.019, 1.0e-6, 1.1e-6]}",
        seeds=2,
        pruning="{kind: median, n_startup_trials: 2, n_warmup_steps: 1}",
        set="{data.train: 60, data.validation: 30, data.test: 30, training.epochs: 12, "
        "'network[lif:0].weight_mean': 0.5, 'network[lif:0].weight_std': 0.1}",
    )
    plan = load_plan(file)
    worker = Worker(plan, opened(tmp_path / "study.db", plan.sweep.heartbeat), tmp_path / "runs")
    worker.work()
    assert [row["state"] for row in rows(worker)] == ["complete"] * 2 + ["pruned"] * 2
    metrics = Path(rows(worker)[2]["folder"]) / "metrics.csv"
    head, *lines = [line.split(",") for line in metrics.read_text().splitlines()]
    column = head.index("validation_accuracy")
    assert worker.study.trials[2].intermediate_values == {int(line[0]): float(line[column]) for line in lines}
    assert len(lines) < 12
