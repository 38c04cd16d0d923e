import multiprocessing
import time

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from firstspike.sweeps.launch import launch
from firstspike.sweeps.storage import Unchanged, has_password, open_storage, storage_url, without_password
from firstspike.sweeps.study import give_back_stale


def take_all(where, name):
    """Takes trials off the queue until there is none; gives their numbers."""
    study = optuna.load_study(study_name=name, storage=open_storage(where, 60, 120))
    taken = []
    while any(t.state is TrialState.WAITING for t in study.get_trials(deepcopy=False)):
        trial_id = study._pop_waiting_trial_id()
        if trial_id is not None:
            taken.append(study._storage.get_trial(trial_id).number)
    return taken


def test_no_two_processes_take_the_same_trial(where, opened):
    study = optuna.create_study(study_name="queue", storage=opened(where))
    for number in range(24):
        study.enqueue_trial({"x": number})
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        taken = pool.starmap(take_all, [(where, "queue")] * 3)
    assert sorted(number for one in taken for number in one) == list(range(24))


def test_a_trial_without_signs_of_life_is_given_back(where, opened):
    storage = opened(where)
    study = optuna.create_study(study_name="one", storage=storage)
    alive, silent, never = (storage.create_new_trial(study._study_id) for _ in range(3))
    storage.record_heartbeat(silent)
    until = time.monotonic() + 6
    while time.monotonic() < until:
        storage.record_heartbeat(alive)
        give_back_stale(study)
        time.sleep(0.25)
    states = [storage.get_trial(trial).state for trial in (alive, silent, never)]
    assert states == [TrialState.RUNNING, TrialState.FAIL, TrialState.FAIL]


def test_a_sign_of_life_of_a_closed_trial_does_no_harm(where, opened):
    storage = opened(where)
    study = optuna.create_study(study_name="one", storage=storage)
    trial = storage.create_new_trial(study._study_id)
    storage.set_trial_state_values(trial, TrialState.FAIL)
    storage.record_heartbeat(trial)
    assert storage.get_trial(trial).state is TrialState.FAIL


def test_a_journal_out_of_reach_fails_as_a_database_does(tmp_path, opened, caplog):
    file = tmp_path / "study.journal"
    storage = opened(str(file))
    study = optuna.create_study(study_name="one", storage=storage)
    trial = storage.create_new_trial(study._study_id)
    aside = file.rename(tmp_path / "aside")
    file.mkdir()
    with pytest.raises(StorageInternalError):
        storage.get_trial(trial)
    storage.record_heartbeat(trial)
    assert "no sign of life could be given" in caplog.text
    file.rmdir()
    aside.rename(file)
    storage.record_heartbeat(trial)
    assert storage.get_trial(trial).state is TrialState.RUNNING


def test_unchanged(monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    watch = Unchanged(10)
    assert watch.among([(1, "a"), (2, "a")]) == []
    now = 9.0
    assert watch.among([(1, "a"), (2, "b")]) == []
    now = 11.0
    assert watch.among([(1, "a"), (2, "b"), (3, "a")]) == [1]
    now = 20.0
    assert watch.among([(2, "b")]) == [2]
    assert watch.among([(1, "a")]) == []  # it was forgotten


def test_urls(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage_url("a.db") == storage_url("sqlite:///a.db") == f"sqlite:///{tmp_path}/a.db"
    assert storage_url("a.journal") == storage_url("journal:a.journal") == f"journal:{tmp_path}/a.journal"
    assert storage_url(f"sqlite:///{tmp_path}/a.db") == f"sqlite:///{tmp_path}/a.db"
    assert storage_url("postgresql://me:secret@host/db") == "postgresql+psycopg://me:secret@host/db"
    assert storage_url("mysql://me@host/db") == "mysql+pymysql://me@host/db"
    assert without_password(storage_url("postgresql://me:secret@host/db")) == "postgresql+psycopg://me:***@host/db"
    assert has_password("mysql+pymysql://me:secret@host/db")
    assert not has_password("mysql+pymysql://me@host/db")
    in_options = storage_url("postgresql://me@host/db?password=secret")
    assert has_password(in_options)
    assert "secret" not in without_password(in_options)
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
    optuna.create_study(study_name="x", storage=open_storage(where, 60, 120))
    assert optuna.load_study(study_name="x", storage=open_storage(where, 60, 120)).study_name == "x"
    assert [str(file) for file in tmp_path.iterdir() if file.suffix == f".{kind}"] == [where]


def test_a_database_that_does_not_answer_is_one_message():
    with pytest.raises(ConnectionError, match=r"^postgresql\+psycopg://me:\*\*\*@127.0.0.1:1/db: .*refused") as refused:
        open_storage("postgresql://me:secret@127.0.0.1:1/db", 1, 2)
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

    monkeypatch.setattr("firstspike.sweeps.storage.Database", missing)
    with pytest.raises(ImportError, match=r"firstspike\[mysql\]"):
        open_storage("mysql://me@127.0.0.1/db", 1, 2)
