import json
import multiprocessing
import threading
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from firstspike.sweeps.plan import load_plan
from firstspike.sweeps.study import (
    ERROR,
    TRIAL,
    one_line_errors,
    open_storage,
    open_study,
    queue_again,
    storage_url,
    suggest,
    table_of,
    trials_of,
)
from firstspike.sweeps.worker import launch

pytestmark = pytest.mark.filterwarnings(
    "ignore:Heartbeat of storage is supposed to be used with", "ignore:.*fail_stale_trials is experimental"
)


@pytest.fixture
def storage(plan, opened, tmp_path):
    return opened(tmp_path / "study.db", plan.sweep.heartbeat)


@pytest.fixture
def study(plan, storage):
    return open_study(plan, storage)


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
    assert [taken(study, plan.sweep).params for _ in range(4)] == plan.trials()


def take_all(where, name):
    """Takes trials off the queue until there is none; gives their numbers."""
    study = optuna.load_study(study_name=name, storage=open_storage(storage_url(where, Path())))
    found = []
    while any(trial.state is TrialState.WAITING for trial in study.get_trials(deepcopy=False)):
        trial = study.ask()
        if TRIAL in trial.user_attrs:  # not one that Optuna made as the queue was empty by then
            found.append(trial.number)
    return found


@pytest.mark.slow
def test_no_two_processes_take_the_same_trial(opened, tmp_path):
    where = f"sqlite:///{tmp_path}/50 of 'é' <b>& #d.db"
    study = optuna.create_study(study_name="queue", storage=opened(where))
    for number in range(24):
        study.enqueue_trial({}, user_attrs={TRIAL: number})
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.starmap(take_all, [(where, "queue")] * 2)
    assert sorted(number for one in found for number in one) == list(range(24))


def test_two_that_start_at_the_same_moment_queue_each_trial_once(plan, opened, tmp_path, monkeypatch):
    enqueue, where = optuna.Study.enqueue_trial, tmp_path / "study.db"
    other = threading.Thread(target=lambda: open_study(plan, opened(where)))

    def meets(study, *args, **kwargs):
        if other.ident is None:
            other.start()
            other.join(1)
        enqueue(study, *args, **kwargs)

    monkeypatch.setattr(optuna.Study, "enqueue_trial", meets)
    study = open_study(plan, opened(where))
    other.join()
    assert [trial.user_attrs[TRIAL] for trial in study.trials] == [0, 1, 2, 3]


def test_what_ended_without_a_result_is_queued_again_under_its_number(study, storage, plan):
    first = taken(study, plan.sweep)
    study.tell(first, state=TrialState.FAIL)
    queue_again(study, storage)
    queue_again(study, storage)  # it is queued already
    again = [taken(study, plan.sweep) for _ in range(4)][-1]
    assert (again.number, again.user_attrs[TRIAL], again.params) == (4, 0, first.params)
    study.tell(again, 0.5)
    assert list(trials_of(study)) == [0, 1, 2, 3]
    assert trials_of(study)[0].value == 0.5
    study.add_trial(study.trials[4])  # trained once too often
    assert trials_of(study)[0].number == 4  # the first result counts
    assert [row["trial"] for row in table_of(study, plan.folder).rows] == [0, 1, 2, 3]


def test_failed_and_stuck_trials_are_queued_on_request_and_those_of_dead_workers_always(study, storage, plan):
    for number in range(3):
        trial = taken(study, plan.sweep)
        trial.set_user_attr(ERROR, "bad") if number == 1 else None
        study.tell(trial, state=TrialState.FAIL) if number < 2 else None
    assert [row["reason"] for row in table_of(study, plan.folder).rows] == ["its worker died", "bad", "", ""]
    queue_again(study, storage)
    assert states(study) == ["WAITING", "FAIL", "RUNNING", "WAITING"]
    queue_again(study, storage, failed=True)
    queue_again(study, storage, failed=True)  # they are queued already
    assert states(study) == ["WAITING"] * 4
    assert len(study.trials) == 7


def test_the_trial_of_a_worker_that_died_is_queued_by_optuna(study, opened, tmp_path, until):
    with pytest.raises(KeyboardInterrupt):
        study.optimize(_die, n_trials=1)
    with opened(tmp_path / "study.db").engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE trials SET state = 'RUNNING' WHERE trial_id = 1"))
    assert states(study)[0] == "RUNNING"

    def queued():
        optuna.storages.fail_stale_trials(study)  # as workers do
        return states(study)[0] == "WAITING"

    until(queued, 30)
    assert study.trials[0].state is TrialState.FAIL


def _die(trial):
    raise KeyboardInterrupt


def test_values_of_random_trials_depend_on_the_seed_alone(write_sweep):
    axes = "{training.optimizer.lr: {from: 0.001, to: 0.1, log: true}, 'network[lif:0].out_features': {from: 4, to: 8}}"
    plan, other = (
        load_plan(write_sweep("base: bars\n", axes=axes, sampler="random", trials=6, seed=seed)) for seed in (1, 2)
    )
    found = plan.trials()
    assert found == plan.trials() != other.trials()
    assert len({params["training.optimizer.lr"] for params in found}) == 6
    assert {type(params["network[lif:0].out_features"]) for params in found} == {int}
    axes = "{training.optimizer.lr: {from: 0.1, to: 0.35, step: 0.1}}"
    plan = load_plan(write_sweep("base: bars\n", axes=axes, sampler="random", trials=20))
    assert {params["training.optimizer.lr"] for params in plan.trials()} == {0.1, 0.2, 0.3}


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
    assert [trial.system_attrs["fixed_params"] for trial in study.trials] == more.trials()


def test_a_study_of_another_sweep_is_refused(study, plan, write_sweep, opened, tmp_path):
    settings = plan.sweep.settings | {"data.train": 61}
    other = load_plan(write_sweep(set=json.dumps(settings), seeds=2))
    with pytest.raises(ValueError, match=r"is of another sweep; they differ in seeds, set"):
        open_study(other, opened(tmp_path / "study.db"))
    slower = load_plan(write_sweep(heartbeat=3))
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
    assert [taken(study, plan.sweep).params for _ in range(4)] == plan.trials()


def test_urls(tmp_path):
    assert storage_url(None, tmp_path).database == str(tmp_path / "study.db")
    for where in ("somewhere", "study.db", "postgresql://me:secret@host:5432x/db", "postgresql://me:secret"):
        with pytest.raises(ValueError, match=r"^--storage: expected a URL such as sqlite:///FILE") as refused:
            storage_url(where, tmp_path)
        assert "secret" not in str(refused.value)


@pytest.mark.slow  # needs psycopg, of the extra dev
def test_a_database_that_does_not_answer_is_one_message():
    url = storage_url("postgresql+psycopg://me:secret@127.0.0.1:1/db?sslpassword=secret", Path())
    with (
        pytest.raises(ConnectionError, match=r"^postgresql\+psycopg://me:\*\*\*@127.0.0.1:1/db: .*refused") as refused,
        one_line_errors(url),
    ):
        open_storage(url)
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_storage_that_is_gone_is_one_message(plan, tmp_path, monkeypatch):
    def gone(*_):
        raise StorageInternalError("an error of a database") from OSError("the server is gone\nand so on")

    monkeypatch.setattr("firstspike.sweeps.study.queue_again", gone)
    with pytest.raises(ConnectionError, match=r"study.db: the server is gone$"):
        launch(plan, tmp_path / "runs")
