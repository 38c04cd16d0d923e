"""Runs on spike trains with a readout: folder, evaluation, figures, report, and the command's way back."""

import csv
import json

import numpy as np
import pytest
import torch

import firstspike as fs
from firstspike.config import load_config
from firstspike.plots import PLOTS
from firstspike.plots.run_data import NotApplicable
from firstspike.reports.details import samples
from firstspike.reports.write import write_report
from firstspike.runs.evaluate import prediction_table
from firstspike.training import Interrupted
from trained import resume, start

SMALL = ["data.train=60", "data.validation=20", "data.test=20", "training.epochs=3", "training.batch_size=20"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trains") / "run"
    start(folder, load_config("delayed_xor", SMALL), progress_bar=False)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    return fs.Run(folder)


def test_metrics_count_spikes(folder):
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["spikes_0"]) > 0.5 for row in rows] == [True] * 3
    assert all(float(row["full_0"]) == 0.0 for row in rows)
    assert not (folder / "output_times.csv").exists()


def test_evaluation(run):
    found = run.evaluate("test")
    assert found.numbers["decision_time"] is None
    assert list(found.numbers["silent"]) == ["hidden"]
    assert "decision time" not in found.text()
    assert {name: array.shape for name, array in found.spikes.items()} == {
        "inputs": (20, 2, 3),
        "hidden": (20, 20, 10),
        "labels": (20,),
        "predictions": (20,),
    }
    json.dumps(found.numbers)


def test_predictions_on_trains_from_a_file(run, tmp_path):
    np.savez(tmp_path / "trains.npz", trains=run.data.test.times.numpy(), labels=run.data.test.labels.numpy())
    lines = prediction_table(run, tmp_path / "trains.npz").splitlines()
    assert lines[0] == "class,equal,different"
    names = [line.split(",")[0] for line in lines[1:]]
    decisions = run.objective.predict(run.record.output)
    assert names == [run.class_names[k] for k in decisions.tolist()]
    assert run.evaluate(tmp_path / "trains.npz").accuracy == run.evaluation.accuracy


def test_figures(run):
    drawn, reasons = set(), {}
    for name, draw in PLOTS.items():
        try:
            drawn.add(name if draw(run) else "")
        except NotApplicable as reason:
            reasons[name] = str(reason)
    assert drawn >= {"summary", "loss_and_error", "spike_counts", "spike_histogram", "confusion", "raster", "dataset"}
    assert drawn >= {"weight_matrices", "parameters"}
    assert "readout" in reasons["output_times"]
    assert "membrane" in drawn


def test_the_raster_has_every_spike(run):
    figure = PLOTS["raster"](run, sample=3)
    (ax,) = figure.axes
    record = run.record
    expected = sum(int(x[3].isfinite().sum()) for x in (record.inputs, record.layers[0]))
    assert sum(len(lines.get_segments()) for lines in ax.collections) == expected
    hidden = int(record.layers[0][3].isfinite().sum())
    assert ax.get_yticklabels()[1].get_text() == f"hidden 20/20, {hidden} spikes"


def test_figure_on_a_substrate(folder):
    figure = PLOTS["substrate"](fs.Run(folder, substrate="integrator"))
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[0].startswith("hidden, median distance 0.0")
    assert titles[1] == "hidden, test sample 0: exact (solid) and integrator (dashed)"


def test_spike_counts_need_trains(tmp_path):
    start(tmp_path / "run", load_config("bars", ["training.epochs=1"]), progress_bar=False)
    with pytest.raises(NotApplicable, match="the network has no layers of spike trains"):
        PLOTS["spike_counts"](fs.Run(tmp_path / "run"))


def test_report(run):
    found = samples(run, 10_000)
    assert found["readout"] is True
    assert [layer["name"] for layer in found["layers"]] == ["input", "hidden"]
    trains = found["layers"][1]["times"]
    spikes = torch.tensor([[sum(t is not None for t in train) for train in sample] for sample in trains])
    assert torch.equal(spikes, run.record.layers[0].isfinite().sum(-1)[found["index"]])
    membrane, place = found["membrane"], found["index"].index(3)
    assert (membrane["outputs"], membrane["layer"]) == (False, "hidden")
    sample = membrane["samples"][place]
    shown = [run.record.layers[0][3][neuron] for neuron in sample["neurons"]]
    counts = [int(train.isfinite().sum()) for train in shown]
    assert [len(x) for x in sample["spikes"]] == counts
    assert min(counts) >= run.record.layers[0][3].isfinite().sum(-1).sort().values[-6]
    assert [len(x) for x in sample["voltage"]] == [len(sample["at"])] * 6
    assert max(map(max, sample["voltage"])) <= 1.001
    assert write_report(run).is_file()


def test_figures_and_report_of_event_lists(tmp_path):
    source = torch.Generator().manual_seed(0)

    def drawn(samples):  # the first one has the fewest events
        counts = [2, *torch.randint(12, 20, (samples - 1,), generator=source).tolist()]
        events = [(4 * torch.rand(n, generator=source), torch.randint(3, (n,), generator=source)) for n in counts]
        return fs.data.SpikeData(fs.data.event_lists(events, 3), torch.arange(samples) % 2, ["a", "b"])

    hidden = fs.LIFSpikeTrains(3, 5, 60, weight_mean=0.3, weight_std=0.3, generator=source)
    net = fs.Network(hidden, fs.IntegralReadout(5, 2, generator=source))
    trainer = fs.Trainer(net, fs.losses.ReadoutCrossEntropy(), torch.optim.Adam(net.parameters()))
    run = trainer.fit(drawn(20), epochs=1, test=drawn(8), folder=tmp_path / "run", progress_bar=False)
    figures = {file.stem for file in run.plot()}
    assert figures >= {"summary", "confusion", "dataset", "margins", "membrane", "raster", "spike_histogram"}
    dots = PLOTS["margins"](run).axes[0].collections[0]
    first = run.data.test.times[0]
    assert sorted(dots.get_offsets()[:, 0].tolist()) == pytest.approx(sorted(first[first.isfinite()].tolist()))
    assert "Inputs that decide" in run.report().read_text("utf-8")


def test_resume(folder, tmp_path):
    batches = iter(range(100))
    with pytest.raises(Interrupted):
        start(
            tmp_path / "run",
            load_config("delayed_xor", SMALL),
            progress_bar=False,
            stop=lambda: next(batches) >= 4,
        )
    resume(tmp_path / "run", progress_bar=False)
    one, other = (fs.Run(place, checkpoint="epoch_0003").network for place in (folder, tmp_path / "run"))
    assert all(torch.equal(x, y) for x, y in zip(one.parameters(), other.parameters(), strict=True))
