"""JSON files and tables of a run that are damaged: one message that names the file."""

import json
import math

import pytest

from firstspike.runs.folder import RunFolder

PART = {"samples": 90, "accuracy": 0.5, "loss": math.inf, "silent": [0.0]}
ALONE = {"epochs": 3, "parameters": 5, "seconds": 1.5, "best_validation_accuracy": 0.5} | dict.fromkeys(
    ("validation", "test"), PART
)
JOINT = ALONE | {split: PART | {"accuracy_std": 0.1} for split in ("validation", "test")} | {"seeds": {"7": ALONE}}


@pytest.mark.parametrize("found", [ALONE, JOINT])
def test_results_as_they_are_written(tmp_path, found):
    RunFolder(tmp_path).write("results", found)
    assert RunFolder(tmp_path).results == found


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([], r"expected a section with the keys epochs, .*, got \[\]"),
        ("x", r"expected a section with the keys epochs, .*, got 'x'"),
        ({}, "epochs is missing"),
        (ALONE | {"seconds": math.nan}, "seconds should be a finite number, got nan"),
        (ALONE | {"epochs": True}, "epochs should be a valid integer, got True"),
        (ALONE | {"test": 5}, "test expected a section with the keys samples, .*, got 5"),
        (JOINT | {"test": PART | {"accuracy_std": None}}, "test.accuracy_std should be a valid number, got None"),
        (
            ALONE | {"test": ALONE["test"] | {"silent": [None]}},
            "test.silent\\[0\\] should be a valid number, got None",
        ),
        (JOINT | {"seeds": []}, "seeds should be a valid dictionary"),
        (JOINT | {"seeds": {"7": ALONE, "8": {}}}, "seeds.8.epochs is missing"),
        (
            ALONE | {"test": ALONE["test"] | {"accuracy": "x" * 99}},
            r"accuracy should be .* number, got 'x+\.\.\. \(101 characters\)$",
        ),
    ],
)
def test_results_that_are_none(tmp_path, found, message):
    (tmp_path / "results.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match=message) as raised:
        _ = RunFolder(tmp_path).results
    assert str(raised.value).startswith(f"{tmp_path / 'results.json'} is damaged, or of another version: ")


@pytest.mark.parametrize("text", ["", "{", "\xff", "[" * 100_000, '{"command": [1]}', '{"substrate": []}', "[]"])
def test_environments_that_are_none(tmp_path, text):
    (tmp_path / "environment.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"environment\.json is damaged") as raised:
        _ = RunFolder(tmp_path).environment
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "epoch,loss\n1,x\n",
        "epoch,loss\n1,0.5\nx,0.5\n",
        "loss\n0.5\n",
        "epoch,loss\nnan,0.5\n",
        "epoch,loss\n1e999,0.5\n",
        "epoch,loss\n1.5,0.5\n",
        "epoch,loss\n\0,1\n",
        "\xff",
    ],
)
def test_tables_that_are_none(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"metrics\.csv is damaged: ") as raised:
        RunFolder(tmp_path).table("metrics")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("row", ["x,0.5", "1", "1,2,3", "\xff"])
def test_a_damaged_row_is_not_dropped_unasked(tmp_path, row):
    text = f"epoch,loss\n{row}\n2,0.5\n"
    (tmp_path / "metrics.csv").write_text("epoch,loss\n1,0.5\n3,0.5\n")
    (tmp_path / "output_times.csv").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"output_times\.csv is damaged: .* Repair it, or remove it"):
        RunFolder(tmp_path).drop_rows_after(2)
    assert (tmp_path / "output_times.csv").read_text(encoding="latin-1") == text
    assert (tmp_path / "metrics.csv").read_text().endswith("3,0.5\n")
