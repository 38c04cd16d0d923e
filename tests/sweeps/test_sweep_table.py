import csv
from concurrent.futures import ThreadPoolExecutor

from firstspike.runs.seeds import digest
from firstspike.sweeps.plan import load_plan
from firstspike.sweeps.study import open_study, table_of
from firstspike.sweeps.table import SweepTable


def test_null_is_a_value_and_what_is_not_known_is_empty(write_sweep, opened, tmp_path):
    axes = "{training.schedule: [null, {kind: cosine}], training.epochs: [1]}"
    plan = load_plan(write_sweep("base: bars\n", axes=axes))
    table = table_of(open_study(plan, opened(tmp_path / "study.db")), tmp_path)
    found = list(csv.DictReader(table.write(tmp_path).read_text().splitlines()))
    assert [(row["training.schedule"], row["training.epochs"]) for row in found] == [
        ("null", "1"),
        ("{kind: cosine}", "1"),
    ]
    assert {(row["state"], row["validation_accuracy"], row["reason"]) for row in found} == {("waiting", "", "")}
    assert [line.split()[1] for line in table.text().splitlines()] == ["training.schedule", "null", "{kind:"]
    plan = load_plan(write_sweep("base: bars\n", axes=axes, sampler="tpe", trials=1, seeds=2), "tpe")
    table = table_of(open_study(plan, opened(tmp_path / "study.db")), tmp_path)
    assert [row["training.epochs"] for row in table.rows] == [""]


def test_two_commands_write_a_table_at_the_same_moment(tmp_path):
    table = SweepTable(["x"], [{"trial": number, "x": 0.1} for number in range(2000)])
    with ThreadPoolExecutor(4) as pool:
        files = list(pool.map(lambda _: table.write(tmp_path), range(40)))
    assert len(files[0].read_text().splitlines()) == 2001


def test_a_reason_in_several_lines_is_one_row(tmp_path):
    row = {"trial": 0, "reason": "of\rthis\nand\x1bthat"}
    with SweepTable([], [row]).write(tmp_path).open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"trial": "0", "reason": "of\\x0dthis\nand\\x1bthat"}]


def test_runs_without_test_data_have_no_numbers_of_it(tmp_path):
    part = {"accuracy": 0.75, "accuracy_std": 0.01, "loss": 0.5}
    results = {"parameters": 9, "epochs": 2, "seconds": 1.0, "best_validation_accuracy": 0.8, "validation": part}
    row = {"trial": 0, "state": "complete", "x": 1, **digest(results | {"test": None}), "folder": "", "reason": ""}
    assert (row["validation_accuracy"], row["test_accuracy"], row["test_loss"]) == (0.75, None, None)
    table = SweepTable(["x"], [row])
    assert table.text().splitlines()[1].split() == ["0", "1", "75.00", "±", "1.00", "9", "1.0", "complete"]
    assert next(csv.DictReader(table.write(tmp_path).read_text().splitlines()))["test_accuracy"] == ""
