"""Every kind of run has a report, of all that it has."""

import json

import pytest
import torch

import firstspike as fs
import python_runs
from firstspike.reports.write import write_report

EVERYTHING = {"name", "classes", "split", "notes", "confusion", "samples"}

TESTED = ("plain_module", "more_outputs_than_classes", "own_layer", "images", "data_elsewhere", "table")
VALIDATED = ("own_loss", "more_outputs_than_classes", "images", "data_elsewhere", "seeds")


@pytest.fixture(scope="module", params=python_runs.KINDS)
def made(request, tmp_path_factory):
    folder, parts = python_runs.KINDS[request.param](tmp_path_factory.mktemp("python") / request.param)
    return request.param, folder, parts


@pytest.mark.slow
def test_report_with_all_parts(made, data_in):
    kind, folder, parts = made
    page = write_report(fs.Run(folder, **parts))
    assert page == folder / "report.html"
    html = page.read_text("utf-8")
    data = data_in(html)
    count, has_test, has_validation = 2 if kind.startswith("seeds") else 1, kind in TESTED, kind in VALIDATED
    assert len(data["members"]) == count
    assert html.count('<img src="data:image/png') == 1 + count * (2 if has_validation else 1)
    for member in data["members"]:
        assert member["notes"] == []
        assert set(member) == EVERYTHING
        assert member["split"] == ("test" if has_test else "validation" if has_validation else "train")
        assert ("membrane" in member["samples"]) == (kind != "plain_module")
        assert ("image" in member["samples"]) == (kind == "images")
        assert len(member["confusion"]["counts"]) == len(member["classes"])
        json.dumps(member, allow_nan=False)


@pytest.mark.slow
def test_report_of_what_the_folder_has(made, data_in):
    _, folder, parts = made
    html = write_report(folder).read_text("utf-8")
    notes = {note for member in data_in(html)["members"] for note in member["notes"]}
    assert len(notes) == len(parts)
    for name in parts:
        assert any(f"{name}=..." in note for note in notes)
    assert "not finished" not in html


def test_seeds_without_validation_or_test_data_have_no_empty_columns(tmp_path):
    folder, _ = python_runs.seeds_with_only_training_data(tmp_path / "run")
    html = write_report(folder).read_text("utf-8")
    assert ">nan<" not in html
    assert fs.Run(folder).results["test"] is None


def test_a_training_that_stopped_early_is_finished(tmp_path):
    net = python_runs.network(python_runs.INPUTS, 8, python_runs.CLASSES)
    trainer = fs.Trainer(net, fs.losses.TimeCrossEntropy(), torch.optim.SGD(net.parameters(), lr=1e-9))
    stopping = fs.EarlyStopping(patience=1, metric="validation_accuracy")
    trainer.fit(
        python_runs.data(), python_runs.data(seed=1), epochs=9, batch_size=15, folder=tmp_path / "run",
        callbacks=[stopping], progress_bar=False,
    )  # fmt: skip
    html = write_report(tmp_path / "run").read_text("utf-8")
    assert "finished early, after 2 of 9 epochs" in html
