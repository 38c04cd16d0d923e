import json

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from firstspike.sweeps.plan import load_plan
from firstspike.sweeps.study import (
    ERROR,
    POINT,
    STOPPED,
    SURPLUS,
    enqueue_open,
    first_points,
    open_study,
    owns,
    suggest,
    survey,
)

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")  # of trials that are asked for here


@pytest.fixture
def study(plan, opened, tmp_path):
    return open_study(plan, opened(str(tmp_path / "study.db")))


def add(study, point, state, value=None, **said):
    values = {"value": value} if state is TrialState.COMPLETE else {}
    study.add_trial(create_trial(state=state, user_attrs={POINT: point, **said}, **values))
    return study.get_trials(deepcopy=False)[-1].number


def test_every_point_waits_once(study, plan):
    for _ in range(3):
        points = enqueue_open(study, plan)
    assert [len(point.trials) for point in points] == [1, 1, 1, 1]
    assert [trial.state for trial in study.trials] == [TrialState.WAITING] * 4
    asked = [study.ask() for _ in range(4)]
    assert [suggest(trial, plan) for trial in asked] == plan.grid()


def test_points_of_dead_and_stopped_workers_are_open_again_and_failed_ones_are_not(study, plan):
    add(study, 0, TrialState.FAIL)
    add(study, 1, TrialState.FAIL, **{STOPPED: True})
    add(study, 2, TrialState.FAIL, **{ERROR: "bad"})
    add(study, 3, TrialState.PRUNED)
    points = enqueue_open(study, plan)
    assert [len(point.trials) for point in points] == [2, 2, 1, 1]
    assert [point.error for point in points] == [None, None, "bad", None]
    assert points[0].live.system_attrs["fixed_params"] == plan.grid()[0]
    points = enqueue_open(study, plan, again=True)
    assert [len(point.trials) for point in points] == [2, 2, 2, 1]
    assert [point.error for point in points] == [None] * 4


def test_a_point_that_kills_its_workers_fails(study, plan):
    for _ in range(2):
        add(study, 0, TrialState.FAIL)
    for _ in range(5):
        add(study, 1, TrialState.FAIL, **{STOPPED: True})
    add(study, 0, TrialState.FAIL)
    points = enqueue_open(study, plan)
    assert points[0].error == "its worker died 3 times"
    assert points[1].error is None
    assert points[1].live


def test_of_two_trials_for_a_point_one_counts(study):
    first, second = add(study, 0, TrialState.RUNNING), add(study, 0, TrialState.RUNNING)
    assert owns(study, first, 0)
    assert not owns(study, second, 0)
    third = add(study, 1, TrialState.RUNNING)
    add(study, 1, TrialState.WAITING)
    assert owns(study, third, 1)
    done, late = add(study, 2, TrialState.COMPLETE, 0.5), add(study, 2, TrialState.RUNNING)
    assert not owns(study, late, 2)
    add(study, 2, TrialState.COMPLETE, 0.7)
    assert survey(study, 4)[2].done.number == done


def test_surplus_trials_do_not_count(study, plan):
    add(study, 0, TrialState.FAIL, **{SURPLUS: True})
    assert survey(study, 4)[0].trials == []
    assert len(enqueue_open(study, plan)[0].trials) == 1


def test_random_points_are_the_same_everywhere(write_sweep, opened, tmp_path):
    axes = "{training.optimizer.lr: {from: 0.001, to: 0.1, log: true}, 'network[0].out_features': {from: 3, to: 40, step: 4}}"
    few, many = (load_plan(write_sweep("base: bars\n", axes=axes, sampler="random", points=n, seed=3)) for n in (5, 9))
    storage = opened(str(tmp_path / "study.db"))
    study = open_study(few, storage)
    points = list(first_points(many, study))
    assert points[:5] == list(first_points(few, study))
    assert all(0.001 <= point["training.optimizer.lr"] <= 0.1 for point in points)
    assert {point["network[0].out_features"] for point in points} <= set(range(3, 40, 4))
    enqueue_open(study, few)
    study = open_study(many, storage)  # more points of the same study
    assert len(enqueue_open(study, many)) == len(study.trials) == 9
    assert [suggest(study.ask(), many) for _ in range(9)] == points


def test_a_range_in_steps_of_a_fraction_is_drawn_with_its_end(write_sweep, study):
    axes = "{training.optimizer.lr: {from: 0.1, to: 0.3, step: 0.1}}"
    plan = load_plan(write_sweep("base: bars\n", axes=axes, sampler="random", points=20))
    assert {point["training.optimizer.lr"] for point in first_points(plan, study)} == {0.1, 0.2, 0.3}


def test_optuna_does_not_announce_the_study(plan, opened, tmp_path, capfd):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    study = open_study(plan, opened(str(tmp_path / "study.db")))
    enqueue_open(study, plan)
    assert "".join(capfd.readouterr()) == ""
    assert optuna.logging.get_verbosity() == optuna.logging.INFO


def test_tpe_learns_from_what_is_done(write_sweep, opened, tmp_path):
    axes = "{training.optimizer.lr: {from: 0.001, to: 1.0}}"
    plan = load_plan(write_sweep("base: bars\n", axes=axes, sampler="tpe", points=40))
    study = open_study(plan, opened(str(tmp_path / "study.journal")))
    assert isinstance(study.sampler, optuna.samplers.TPESampler)
    enqueue_open(study, plan)
    found = []
    for _ in range(40):
        trial = study.ask()
        found.append(suggest(trial, plan)["training.optimizer.lr"])
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
