import csv

from firstspike.sweeps.config import Sweep
from firstspike.sweeps.table import Row, Table


def test_null_is_a_value_and_what_is_not_known_is_empty():
    sweep = Sweep.model_validate({"base": "bars", "axes": {"training.schedule": [None, "é, <b>"], "x": [1, 2]}})
    rows = [
        Row(number, "waiting", {"training.schedule": value}, {}, "", "", "", number)
        for number, value in enumerate(sweep.axes["training.schedule"].values())
    ]
    table = Table("mine", sweep, rows)
    found = list(csv.DictReader(table.csv().splitlines()))
    assert [(row["training.schedule"], row["x"]) for row in found] == [("null", ""), ("é, <b>", "")]
    assert [line.split()[1] for line in table.text().splitlines()] == ["training.schedule", "null", "é,"]
