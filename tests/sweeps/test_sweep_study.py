import json
import multiprocessing

import optuna
import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from firstspike.sweeps.plan import load_plan
from firstspike.sweeps.study import (
    ERROR,
    STARTED,
    TRIAL,
    open_storage,
    open_study,
    planned,
    queue_again,
    queue_lost,
    queue_stopped,
    storage_url,
    suggest,
    table_of,
    trials_of,
    without_password,
)
from firstspike.sweeps.worker import launch

pytestmark = pytest.mark.filterwarnings(
    "ignore:Heartbeat of storage is supposed to be used with", "ignore:.*fail_stale_trials is experimental"
)


@pytest.fixture
def study(plan, opened, tmp_path):
    return open_study(plan, opened(tmp_path / "study.db", plan.sweep))


def taken(study, sweep):
    """The next trial of the queue, with its values."""
    trial = study.ask()
    suggest(trial, sweep)
    return trial


def states(study):
    return [trial.state.name for trial in trials_of(study).values()]


def test_every_trial_waits_once(study, plan, opened, tmp_path):
    open_study(plan, opened(tmp_path / "study.db"))
    assert [trial.state for trial in study.trials] == [TrialState.WAITING] * 4
    assert [taken(study, plan.sweep).params for _ in range(4)] == plan.grid()


def take_all(where, name):
    """Takes trials off the queue until there is none; gives their numbers."""
    study = optuna.load_study(study_name=name, storage=open_storage(storage_url(where)))
    found = []
    while any(trial.state is TrialState.WAITING for trial in study.get_trials(deepcopy=False)):
        trial = study.ask()
        if TRIAL in trial.user_attrs:  # not one that Optuna made as the queue was empty by then
            found.append(trial.number)
    return found


@pytest.mark.slow
def test_no_two_processes_take_the_same_trial(opened, tmp_path):
    where = str(tmp_path / "50%20 of 'é' <b>&? #d.db")  # letters that mean something in a URL
    study = optuna.create_study(study_name="queue", storage=opened(where))
    for number in range(24):
        study.enqueue_trial({}, user_attrs={TRIAL: number})
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.starmap(take_all, [(where, "queue")] * 2)
    assert sorted(number for one in found for number in one) == list(range(24))
    assert [str(file) for file in tmp_path.iterdir() if file.suffix == ".db"] == [where]


def test_what_ended_without_a_result_is_queued_again_under_its_number(study, plan):
    first = taken(study, plan.sweep)
    study.tell(first, state=TrialState.FAIL)
    queue_stopped(study, study.trials[0])
    again = [taken(study, plan.sweep) for _ in range(4)][-1]
    assert (again.number, again.user_attrs[TRIAL], again.params) == (4, 0, first.params)
    study.tell(again, 0.5)
    assert list(trials_of(study)) == [0, 1, 2, 3]
    assert trials_of(study)[0].value == 0.5
    queue_again(study, study.trials[0])  # once too often
    twice = taken(study, plan.sweep)
    study.tell(twice, 0.7)
    assert trials_of(study)[0].value == 0.5  # the first result counts
    assert [row["trial"] for row in table_of(study, plan.folder).rows] == [0, 1, 2, 3]


def test_failed_trials_are_queued_on_request_and_those_of_dead_workers_always(study, plan):
    for number in range(2):
        trial = taken(study, plan.sweep)
        trial.set_user_attr(ERROR, "bad") if number else None
        study.tell(trial, state=TrialState.FAIL)
        queue_stopped(study, study.trials[number]) if number else None  # a failure is none
    assert [row["reason"] for row in table_of(study, plan.folder).rows] == ["its worker died", "bad", "", ""]
    queue_lost(study, 1000)
    assert states(study) == ["WAITING", "FAIL", "WAITING", "WAITING"]
    queue_lost(study, 1000, all_failed=True)
    queue_lost(study, 1000, all_failed=True)  # they are queued already
    assert states(study) == ["WAITING"] * 4
    assert len(study.trials) == 6


def test_workers_that_died(study, plan, opened, tmp_path, until):
    """One before its first heartbeat, and one after it."""
    taken(study, plan.sweep)
    with pytest.raises(KeyboardInterrupt):
        study.optimize(lambda trial: _die(trial), n_trials=1)
    with opened(tmp_path / "study.db").engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE trials SET state = 'RUNNING' WHERE trial_id = 2"))
    queue_lost(study, 1000)
    assert states(study)[:2] == ["RUNNING", "RUNNING"]

    def both():
        optuna.storages.fail_stale_trials(study)  # as workers do
        queue_lost(study, plan.sweep.grace)
        return states(study)[:2] == ["WAITING", "WAITING"]

    until(both, 30)
    assert [trial.state.name for trial in study.trials[:2]] == ["FAIL", "FAIL"]


def _die(trial):
    trial.set_user_attr(STARTED, trial.number)
    raise KeyboardInterrupt


def test_values_of_random_trials_depend_on_the_seed_alone(write_sweep):
    axes = "{training.optimizer.lr: {from: 0.001, to: 0.1, log: true}, 'network[lif:0].out_features': {from: 4, to: 8}}"
    plan, other = (
        load_plan(write_sweep("base: bars\n", axes=axes, sampler="random", trials=6, seed=seed)) for seed in (1, 2)
    )
    found = planned(plan)
    assert found == planned(plan) != planned(other)
    assert len({params["training.optimizer.lr"] for params in found}) == 6
    assert {type(params["network[lif:0].out_features"]) for params in found} == {int}
    axes = "{training.optimizer.lr: {from: 0.1, to: 0.35, step: 0.1}}"
    plan = load_plan(write_sweep("base: bars\n", axes=axes, sampler="random", trials=20))
    assert {params["training.optimizer.lr"] for params in planned(plan)} == {0.1, 0.2, 0.3}


@pytest.mark.slow
def test_tpe_learns_from_what_is_done(write_sweep, opened, tmp_path):
    axes = "{training.optimizer.lr: {from: 0.001, to: 1.0}}"
    plan = load_plan(write_sweep("base: bars\n", axes=axes, sampler="tpe", trials=40))
    study = open_study(plan, opened(tmp_path / "study.db"))
    found = []
    for _ in range(40):
        trial = taken(study, plan.sweep)
        found.append(trial.params["training.optimizer.lr"])
        study.tell(trial, -((found[-1] - 0.3) ** 2))
    late = sorted(abs(x - 0.3) for x in found[-15:])
    assert late[7] < 0.15, "numbers at random are 0.29 away in the mean"


def test_more_trials_join_the_study(write_sweep, opened, tmp_path):
    axes = "{training.optimizer.lr: {from: 0.001, to: 1.0}}"
    few, more = (load_plan(write_sweep("base: bars\n", axes=axes, sampler="random", trials=n)) for n in (2, 5))
    open_study(few, opened(tmp_path / "study.db"))
    study = open_study(more, opened(tmp_path / "study.db"))
    assert [trial.system_attrs["fixed_params"] for trial in study.trials] == planned(more)


def test_a_study_of_another_sweep_is_refused(study, plan, write_sweep, opened, tmp_path):
    settings = plan.sweep.settings | {"data.train": 61}
    other = load_plan(write_sweep(set=json.dumps(settings), seeds=2))
    with pytest.raises(ValueError, match=r"is of another sweep; they differ in seeds, set"):
        open_study(other, opened(tmp_path / "study.db"))
    slower = load_plan(write_sweep(heartbeat=3, grace=60))
    assert open_study(slower, opened(tmp_path / "study.db")).study_name == study.study_name
    optuna.create_study(study_name="mine", storage=opened(tmp_path / "study.db")).ask()
    with pytest.raises(ValueError, match="the study mine is not of a sweep, or of an earlier version"):
        open_study(load_plan(write_sweep(), "mine"), opened(tmp_path / "study.db"))


def test_a_study_whose_creation_was_interrupted_gets_the_rest(plan, opened, tmp_path, monkeypatch):
    enqueue, calls = optuna.Study.enqueue_trial, iter(range(2))

    def interrupts(*args, **kwargs):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        enqueue(*args, **kwargs)

    storage = opened(tmp_path / "study.db")
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "enqueue_trial", interrupts)
        with pytest.raises(KeyboardInterrupt):
            open_study(plan, storage)
    study = open_study(plan, storage)
    assert list(trials_of(study)) == [0, 1, 2, 3]
    assert [taken(study, plan.sweep).params for _ in range(4)] == plan.grid()


def test_urls(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage_url("a.db") == storage_url("sqlite:///a.db") == storage_url(f"{tmp_path}/a.db")
    assert without_password(storage_url("a.db")) == f"{tmp_path}/a.db"
    assert without_password(storage_url("postgresql://me:secret@host/db")) == "postgresql+psycopg://me:***@host/db"
    assert without_password(storage_url("mysql://me@host/db")) == "mysql+pymysql://me@host/db"
    in_query = without_password(storage_url("postgresql://me:b@host:1/db?sslmode=on&sslPassword=d"))
    assert in_query == "postgresql+psycopg://me:***@host:1/db?sslmode=on"
    for where in ("somewhere", "study.journal", "postgresql://me:secret@host:5432x/db", "postgresql://me:secret"):
        with pytest.raises(ValueError, match=r"^--storage: expected FILE.db") as refused:
            storage_url(where)
        assert "secret" not in str(refused.value)


def test_a_database_that_does_not_answer_is_one_message():
    with pytest.raises(ConnectionError, match=r"^postgresql\+psycopg://me:\*\*\*@127.0.0.1:1/db: .*refused") as refused:
        open_storage(storage_url("postgresql://me:secret@127.0.0.1:1/db"))
    assert "\n" not in str(refused.value)


def test_a_storage_that_is_gone_is_one_message(plan, tmp_path, monkeypatch):
    def gone(*_):
        raise StorageInternalError("an error of a database") from OSError("the server is gone\nand so on")

    monkeypatch.setattr("firstspike.sweeps.study.queue_lost", gone)
    with pytest.raises(ConnectionError, match=r"study.db: the server is gone$"):
        launch(plan, tmp_path / "runs")


def test_a_driver_that_is_missing_names_its_extra(monkeypatch):
    def missing(*_, **__):
        raise ImportError("no driver")

    monkeypatch.setattr("firstspike.sweeps.study.RDBStorage", missing)
    with pytest.raises(ImportError, match=r"firstspike\[mysql\]"):
        open_storage(storage_url("mysql://me@127.0.0.1/db"))
