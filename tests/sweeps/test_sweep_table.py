import csv

from firstspike.sweeps.plan import load_plan
from firstspike.sweeps.study import NUMBER, PARAMS, enqueue_open, open_study, table_of


def test_null_is_a_value_and_what_is_not_known_is_empty(write_sweep, opened, tmp_path):
    axes = "{training.schedule: [null, {kind: cosine}], training.epochs: [1]}"
    plan = load_plan(write_sweep("base: bars\n", axes=axes))
    study = open_study(plan, opened(str(tmp_path / "study.db")))
    enqueue_open(study, plan)
    study.enqueue_trial({}, user_attrs={NUMBER: 2, PARAMS: {"training.schedule": None}})  # the rest is not known yet
    table = table_of(study, tmp_path)
    found = list(csv.DictReader(table.csv().splitlines()))
    assert [(row["training.schedule"], row["training.epochs"]) for row in found] == [
        ("null", "1"),
        ('{"kind": "cosine"}', "1"),
        ("null", ""),
    ]
    assert {(row["state"], row["validation_accuracy"], row["reason"]) for row in found} == {("waiting", "", "")}
    assert [line.split()[1] for line in table.text().splitlines()] == ["training.schedule", "null", '{"kind":', "null"]
