import itertools
import multiprocessing
import time

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from firstspike.sweeps.launch import launch
from firstspike.sweeps.storage import open_storage, storage_url, without_password
from firstspike.sweeps.study import HEARTBEAT, StaleAttempts
from firstspike.sweeps.worker import Lease


def take_all(where, name):
    """Takes trials off the queue until there is none; gives their numbers."""
    study = optuna.load_study(study_name=name, storage=open_storage(where))
    taken = []
    while any(t.state is TrialState.WAITING for t in study.get_trials(deepcopy=False)):
        trial = study.ask()
        if "queued" in trial.user_attrs:  # not one that Optuna made as the queue was empty by then
            taken.append(trial.number)
    return taken


@pytest.mark.slow
def test_no_two_processes_take_the_same_trial(where, opened):
    study = optuna.create_study(study_name="queue", storage=opened(where))
    for _ in range(24):
        study.enqueue_trial({}, user_attrs={"queued": True})
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        taken = pool.starmap(take_all, [(where, "queue")] * 3)
    assert sorted(number for one in taken for number in one) == list(range(24))


def test_an_attempt_without_heartbeats_fails(where, opened):
    study = optuna.create_study(study_name="one", storage=opened(where))
    alive, silent, _ = (study.ask() for _ in range(3))
    silent.set_user_attr(HEARTBEAT, 1)
    stale = StaleAttempts(2)
    until = time.monotonic() + 4
    for count in itertools.count():
        alive.set_user_attr(HEARTBEAT, count)
        stale.fail(study)
        time.sleep(0.25)
        if time.monotonic() > until:
            break
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING, TrialState.FAIL, TrialState.FAIL]


def test_the_clock_of_whoever_looks_is_what_counts(opened, tmp_path, monkeypatch):
    now = 0.0
    study = optuna.create_study(storage=opened(str(tmp_path / "study.journal")))
    _, second = study.ask(), study.ask()
    stale = StaleAttempts(10)

    def states_at(seconds):
        nonlocal now
        now = seconds
        with monkeypatch.context() as patch:
            patch.setattr("time.monotonic", lambda: now)
            stale.fail(study)
        return [trial.state for trial in study.trials]

    running, failed = TrialState.RUNNING, TrialState.FAIL
    assert states_at(100) == [running, running]  # however long they have been silent before the first look
    second.set_user_attr(HEARTBEAT, 1)
    assert states_at(109) == [running, running]
    assert states_at(111) == [failed, running]
    second.set_user_attr(HEARTBEAT, 2)
    assert states_at(120) == [failed, running]
    study.tell(second, state=failed)  # by another worker
    assert states_at(131) == [failed, failed]


def test_a_stale_attempt_that_ends_meanwhile_is_left_alone(opened, tmp_path, monkeypatch):
    study = optuna.create_study(storage=opened(str(tmp_path / "study.db")))
    trial = study.ask()
    stale = StaleAttempts(-1)
    with monkeypatch.context() as patch:
        running = study.get_trials()
        patch.setattr(study, "get_trials", lambda **_: running)
        study.tell(trial, 0.5)
        stale.fail(study)
    assert study.trials[0].state is TrialState.COMPLETE


def test_heartbeats_outlive_a_journal_out_of_reach(tmp_path, opened, plan, until, caplog):
    file = tmp_path / "study.journal"
    storage = opened(str(file))
    study = optuna.create_study(study_name="one", storage=storage)
    trial = study.ask()
    lease = Lease(trial, plan, tmp_path, lambda: False)
    until(lambda: HEARTBEAT in study.trials[0].user_attrs)
    aside = file.rename(tmp_path / "aside")
    file.mkdir()
    until(lambda: "no heartbeat could be sent" in caplog.text)
    file.rmdir()
    aside.rename(file)
    beat = study.trials[0].user_attrs[HEARTBEAT]
    until(lambda: study.trials[0].user_attrs[HEARTBEAT] > beat)
    lease.close()
    assert not lease.lost
    assert study.trials[0].state is TrialState.RUNNING


def test_urls(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage_url("a.db") == storage_url("sqlite:///a.db") == f"sqlite:///{tmp_path}/a.db"
    assert storage_url("a.journal") == storage_url("journal:a.journal") == f"journal:{tmp_path}/a.journal"
    assert storage_url(f"sqlite:///{tmp_path}/a.db") == f"sqlite:///{tmp_path}/a.db"
    assert storage_url("postgresql://me:secret@host/db") == "postgresql+psycopg://me:secret@host/db"
    assert storage_url("mysql://me@host/db") == "mysql+pymysql://me@host/db"
    assert without_password(storage_url("postgresql://me:secret@host/db")) == "postgresql+psycopg://me:***@host/db"
    assert without_password("mysql+pymysql://me@host/db") == "mysql+pymysql://me@host/db"
    in_query = without_password("postgresql+psycopg://me:a/b:c@host:1/db?sslmode=on&sslPassword=d&x=1")
    assert in_query == "postgresql+psycopg://me:***@host:1/db?sslmode=on&sslPassword=***&x=1"
    assert without_password("sqlite:////tmp/password=1.db") == "sqlite:////tmp/password=1.db"
    with pytest.raises(ValueError, match="expected sqlite:///FILE"):
        storage_url("somewhere")
    for place in ("host:abc/db", "host:5432x/db", "host:/db", "host:99999/db", "host:-1/db", "host:0/db", "[::1/db"):
        with pytest.raises(ValueError, match=r"^--storage: expected KIND://USER@HOST:PORT/NAME with a port") as refused:
            storage_url(f"postgresql://me:secret@{place}")
        assert "secret" not in str(refused.value)
    with pytest.raises(ValueError, match="with a port from 1 to 65535"):
        storage_url("postgresql://me:secret")


@pytest.mark.parametrize("kind", ["db", "journal"])
def test_a_path_with_letters_that_mean_something_in_a_url(kind, tmp_path):
    where = str(tmp_path / f"50%20 of 'é' <b>&? #{kind[0]}.{kind}")
    optuna.create_study(study_name="x", storage=open_storage(where))
    assert optuna.load_study(study_name="x", storage=open_storage(where)).study_name == "x"
    assert [str(file) for file in tmp_path.iterdir() if file.suffix == f".{kind}"] == [where]


def test_a_database_that_does_not_answer_is_one_message():
    with pytest.raises(ConnectionError, match=r"^postgresql\+psycopg://me:\*\*\*@127.0.0.1:1/db: .*refused") as refused:
        open_storage("postgresql://me:secret@127.0.0.1:1/db")
    assert "\n" not in str(refused.value)


def test_a_storage_that_is_gone_is_one_message(plan, tmp_path, monkeypatch):
    def gone(*_):
        raise StorageInternalError("an error of a database") from OSError("the server is gone\nand so on")

    monkeypatch.setattr("firstspike.sweeps.launch.enqueue_open", gone)
    with pytest.raises(ConnectionError, match=r"study.db: the server is gone$"):
        launch(plan, tmp_path / "runs")


def test_a_driver_that_is_missing_names_its_extra(monkeypatch):
    def missing(*_, **__):
        raise ImportError("no driver")

    monkeypatch.setattr("firstspike.sweeps.storage.RDBStorage", missing)
    with pytest.raises(ImportError, match=r"firstspike\[mysql\]"):
        open_storage("mysql://me@127.0.0.1/db")
