import json

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from firstspike.sweeps.plan import load_plan
from firstspike.sweeps.study import (
    DUPLICATE,
    ERROR,
    NUMBER,
    PARAMS,
    STOPPED,
    distributions,
    enqueue_open,
    fixed_params,
    number_of,
    open_study,
    owns,
    trials_of,
)


@pytest.fixture
def study(plan, opened, tmp_path):
    return open_study(plan, opened(str(tmp_path / "study.db")))


def add(study, number, state, value=None, **said):
    values = {"value": value} if state is TrialState.COMPLETE else {}
    study.add_trial(create_trial(state=state, user_attrs={NUMBER: number, **said}, **values))
    return study.get_trials(deepcopy=False)[-1].number


def test_every_trial_waits_once(study, plan):
    for _ in range(3):
        trials = enqueue_open(study, plan)
    assert [len(trial.attempts) for trial in trials] == [1, 1, 1, 1]
    assert [trial.state for trial in study.trials] == [TrialState.WAITING] * 4
    assert [study.ask(distributions(plan)).params for _ in range(4)] == plan.grid()


def test_trials_of_dead_and_stopped_workers_are_open_again_and_failed_ones_are_not(study, plan):
    add(study, 0, TrialState.FAIL)
    add(study, 1, TrialState.FAIL, **{STOPPED: True})
    add(study, 2, TrialState.FAIL, **{ERROR: "bad"})
    add(study, 3, TrialState.PRUNED)
    trials = enqueue_open(study, plan)
    assert [len(trial.attempts) for trial in trials] == [2, 2, 1, 1]
    assert [trial.error for trial in trials] == [None, None, "bad", None]
    assert trials[0].active.user_attrs[PARAMS] == plan.grid()[0]
    trials = enqueue_open(study, plan, retry_failed=True)
    assert [len(trial.attempts) for trial in trials] == [2, 2, 2, 1]
    assert [trial.error for trial in trials] == [None] * 4


def test_a_trial_that_kills_its_workers_fails(study, plan):
    for _ in range(2):
        add(study, 0, TrialState.FAIL)
    for _ in range(5):
        add(study, 1, TrialState.FAIL, **{STOPPED: True})
    add(study, 0, TrialState.FAIL)
    trials = enqueue_open(study, plan)
    assert trials[0].error == "its worker died 3 times"
    assert trials[1].error is None
    assert trials[1].active


def test_of_two_attempts_one_counts(study):
    def asked(number):  # a running attempt
        study.enqueue_trial({}, user_attrs={NUMBER: number})
        return study.ask()

    first, second = asked(0), asked(0)
    assert owns(study, first)
    assert not owns(study, second)
    third = asked(1)
    study.enqueue_trial({}, user_attrs={NUMBER: 1})
    assert owns(study, third)
    done = add(study, 2, TrialState.COMPLETE, 0.5)
    study.ask()  # the one that waits for trial 1
    assert not owns(study, asked(2))
    add(study, 2, TrialState.COMPLETE, 0.7)
    assert trials_of(study, 4)[2].done.number == done
    assert not owns(study, study.ask())  # of no trial


@pytest.mark.slow
def test_attempts_of_older_versions_are_found(study):
    study.add_trial(create_trial(state=TrialState.COMPLETE, user_attrs={"point": 3}, value=0.5))
    assert number_of(study.trials[0]) == 3
    assert trials_of(study)[3].done.value == 0.5


def test_duplicate_attempts_do_not_count(study, plan):
    add(study, 0, TrialState.FAIL, **{DUPLICATE: True})
    assert trials_of(study, 4)[0].attempts == []
    assert len(enqueue_open(study, plan)[0].attempts) == 1


def test_random_trials_are_the_same_everywhere(write_sweep, opened, tmp_path):
    size = "'network[0].out_features': {from: 3, to: 40, step: 4}"
    axes = f"{{training.optimizer.lr: {{from: 0.001, to: 0.1, log: true}}, {size}}}"
    few, many = (load_plan(write_sweep("base: bars\n", axes=axes, sampler="random", trials=n, seed=3)) for n in (5, 9))
    storage = opened(str(tmp_path / "study.db"))
    study = open_study(few, storage)
    params = list(fixed_params(many, study))
    assert params[:5] == list(fixed_params(few, study))
    assert all(0.001 <= one["training.optimizer.lr"] <= 0.1 for one in params)
    assert {one["network[0].out_features"] for one in params} <= set(range(3, 40, 4))
    enqueue_open(study, few)
    study = open_study(many, storage)  # more trials of the same study
    assert len(enqueue_open(study, many)) == len(study.trials) == 9
    assert [study.ask(distributions(many)).params for _ in range(9)] == params


def test_a_range_in_steps_of_a_fraction_is_drawn_with_its_end(write_sweep, study):
    axes = "{training.optimizer.lr: {from: 0.1, to: 0.3, step: 0.1}}"
    plan = load_plan(write_sweep("base: bars\n", axes=axes, sampler="random", trials=20))
    assert {one["training.optimizer.lr"] for one in fixed_params(plan, study)} == {0.1, 0.2, 0.3}
    axes = "{training.optimizer.lr: {from: 0.1, to: 0.95, step: 1.0e-6}}"  # more values than a grid may have
    found = distributions(load_plan(write_sweep("base: bars\n", axes=axes, sampler="random", trials=20)))
    assert found["training.optimizer.lr"].high == 0.95


def test_optuna_does_not_announce_the_study(plan, opened, tmp_path, capfd):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    study = open_study(plan, opened(str(tmp_path / "study.db")))
    enqueue_open(study, plan)
    assert "".join(capfd.readouterr()) == ""
    assert optuna.logging.get_verbosity() == optuna.logging.INFO


def test_tpe_learns_from_what_is_done(write_sweep, opened, tmp_path):
    axes = "{training.optimizer.lr: {from: 0.001, to: 1.0}}"
    plan = load_plan(write_sweep("base: bars\n", axes=axes, sampler="tpe", trials=40))
    study = open_study(plan, opened(str(tmp_path / "study.journal")))
    assert isinstance(study.sampler, optuna.samplers.TPESampler)
    enqueue_open(study, plan)
    found = []
    for _ in range(40):
        trial = study.ask(distributions(plan))
        found.append(trial.params["training.optimizer.lr"])
        study.tell(trial, -((found[-1] - 0.3) ** 2))
    late = sorted(abs(x - 0.3) for x in found[-15:])
    assert late[7] < 0.15, "numbers at random are 0.29 away in the mean"


def test_a_study_of_another_sweep_is_refused(study, plan, write_sweep, opened, tmp_path):
    settings = plan.sweep.settings | {"data.train": 61}
    other = load_plan(write_sweep(set=json.dumps(settings), seeds=2))
    with pytest.raises(ValueError, match=r"is of another sweep; they differ in sweep.seeds, sweep.set.data.train"):
        open_study(other, opened(str(tmp_path / "study.db")))
    slower = load_plan(write_sweep(heartbeat=3, grace=60))
    assert open_study(slower, opened(str(tmp_path / "study.db")))._study_id == study._study_id
