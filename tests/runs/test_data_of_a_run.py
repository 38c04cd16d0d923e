"""A run knows which data it was trained on, and says so where they are others now."""

import json
import re
import shutil
import sys

import numpy as np
import pytest

import firstspike as fs
import python_runs
from firstspike.cli import main
from firstspike.config import load_config
from firstspike.reports.write import write_report
from firstspike.runs.stored import load_splits, save_splits
from trained import resume, start

SAID = "the data are not those that the run was trained on: "


@pytest.fixture
def moved(bars_folder, tmp_path):
    """A copy of a run whose test data are others now, with what is said about it."""
    run = shutil.copytree(bars_folder, tmp_path / "moved")
    text = (run / "config.yaml").read_text()
    assert "  - 40\n" in text
    (run / "config.yaml").write_text(text.replace("  - 40\n", "  - 39\n"))
    return run, f"{run}: {SAID}test: other times, other labels"


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["firstspike", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


@pytest.mark.parametrize(
    "arguments", [("evaluate",), ("evaluate", "--split", "train"), ("plot", "confusion"), ("report",), ("resume",)]
)
def test_commands_say_so_in_one_line(moved, monkeypatch, caplog, arguments):
    run, said = moved
    assert command(monkeypatch, arguments[0], run, *arguments[1:]) == 0
    assert [record.getMessage() for record in caplog.records] == [said]


@pytest.mark.slow
def test_a_resumed_run_is_one_of_the_data_that_it_goes_on_with(moved, caplog):
    run, said = moved
    before = json.loads((run / "environment.json").read_text())["data"]
    resume(run, epochs=13, progress_bar=False)
    assert caplog.messages == [said]
    found = json.loads((run / "environment.json").read_text())
    assert found["earlier_data"] == [before]
    assert found["data"]["test"] != before["test"]
    resume(run, epochs=14, progress_bar=False)
    assert fs.Run(run).data_changed == ""
    assert caplog.messages == [said]


def test_in_python_and_on_the_page(moved, caplog):
    run, said = moved
    loaded = fs.Run(run)
    assert not caplog.records  # nothing is read before it is asked for
    assert len(loaded.data.test) == 90
    assert caplog.messages == [said]
    assert loaded.data_changed == said
    assert said.removeprefix(str(run)) in write_report(run).read_text("utf-8")


def test_the_same_data_are_not_worth_a_word(bars_folder, tmp_path, caplog):
    run = shutil.copytree(bars_folder, tmp_path / "same")
    assert fs.Run(run).data_changed == ""
    fs.Run(run).plot(["confusion"])
    assert "not those" not in write_report(run).read_text("utf-8")
    resume(run, epochs=13, progress_bar=False)
    assert not caplog.records


def test_other_files_under_the_same_name(write_images, write_idx, tmp_path, monkeypatch, caplog):
    images = write_images(tmp_path / "images")
    data = ["data.train=60", "data.validation=20", "data.test=20", f"data.folder={images}"]
    run = tmp_path / "run"
    start(run, load_config("mnist", [*data, "training.epochs=1"]), progress_bar=False)
    write_idx(images / "t10k-labels-idx1-ubyte", np.arange(1, 61) % 10)
    assert command(monkeypatch, "evaluate", run) == 0
    assert [x for x in caplog.messages if SAID in x] == [f"{run}: {SAID}test: other labels"]


def test_times_of_another_type(bars_folder, tmp_path):
    run = shutil.copytree(bars_folder, tmp_path / "run")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("dtype: float32", "dtype: float64"))
    split = "times in float64 instead of float32"
    assert fs.Run(run).data_changed == f"{run}: {SAID}train: {split}; validation: {split}; test: {split}"


@pytest.mark.parametrize("environment", ["{}", '{"data": {}}', '{"data": [3]}', '{"data": {"test": 3}}', "{", None])
def test_runs_without_a_checksum(moved, caplog, environment):
    run, _ = moved
    (run / "environment.json").unlink()
    if environment is not None:
        (run / "environment.json").write_text(environment)
    assert fs.Run(run).data.test.features == 9
    assert not caplog.records


@pytest.mark.slow
def test_seeds_have_the_same_data(tmp_path, caplog):
    run = tmp_path / "run"
    start(run, load_config("bars", ["training.epochs=1", "training.n_seeds=2", "data.train=60"]), progress_bar=False)
    folders = [run, *run.glob("seed_*")]
    kept = [json.loads((folder / "environment.json").read_text())["data"] for folder in folders]
    assert len(kept) == 3
    assert kept[0] == kept[1] == kept[2]
    loaded = fs.Run(run)
    assert loaded.seeds[1].data is loaded.data
    for folder in folders:
        text = (folder / "config.yaml").read_text()
        (folder / "config.yaml").write_text(text.replace("  - 40\n", "  - 39\n"))
    write_report(run)
    assert [x for x in caplog.messages if SAID in x] == [f"{run}: {SAID}test: other times, other labels"]


def test_any_damage_of_a_copy_of_data_is_one_line(tmp_path):
    data, random = python_runs.data(), np.random.default_rng(0)
    save_splits(tmp_path, fs.data.Splits(data, data.empty(), data.empty()))
    file = tmp_path / "train.npz"
    raw, said = file.read_bytes(), []
    for _ in range(100):
        damaged = bytearray(raw)
        for place in random.integers(len(raw), size=3):
            damaged[place] = random.integers(256)
        file.write_bytes(damaged)
        try:
            load_splits(tmp_path)
        except ValueError as error:
            said.append(str(error))
    assert len(said) > 50
    assert all(re.fullmatch(r".*train\.npz is damaged: .+", line) for line in said)
