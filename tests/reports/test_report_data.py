"""What a report shows is what the network does."""

import json

import numpy as np
import pytest
import torch

from firstspike.layers.named import named_lif_layers, named_spikes
from firstspike.plots import RunData
from firstspike.reports.details import choose, curves, details, history, inputs, plain, plane, samples, significant
from firstspike.training.evaluation import confusion_counts


def test_numbers_become_short_and_infinity_none():
    assert plain([[1.23456, np.inf], [np.nan, -2.0]]) == [[1.2346, None], [None, -2.0]]
    assert significant([0.000123456789, np.nan, 123456.0]) == [0.00012346, None, 123460.0]


def test_curves_are_the_metrics(yin_yang_data, monkeypatch):
    found = curves(yin_yang_data)
    assert found["epoch"] == [1, 2, 3, 4]
    np.testing.assert_allclose(found["train_loss"], yin_yang_data.metrics["train_loss"], rtol=1e-4)
    monkeypatch.setitem(yin_yang_data.metrics, "raised", np.array([0.0, 2.0, 0.0, 1.0]))
    assert curves(yin_yang_data)["raised"] == [2, 4]
    monkeypatch.setattr("firstspike.reports.details._CURVE", 2)
    assert curves(yin_yang_data)["epoch"] == [2, 4]


def test_inputs_have_the_names_of_the_table(train_run, tmp_path, bars_config):
    cells = np.random.default_rng(0).random((30, 2)).round(2)
    table = tmp_path / "two.csv"
    table.write_text("left,right,class\n" + "".join(f"{x},{y},{'ab'[int(x > y)]}\n" for x, y in cells))
    data = {"kind": "files", "train": str(table), "test": 6, "encode": {"late": 2.0}}
    layers = [{"kind": "lif", "out_features": 4}, {"kind": "lif", "out_features": 2}]
    run = RunData(train_run(tmp_path / "run", bars_config | {"data": data, "network": layers}))
    assert run.data_name == "data from two.csv"
    names = ["left", "right", "left (off)", "right (off)"]
    assert samples(run, 1000)["inputs"] == names
    table.unlink()
    found = samples(RunData(tmp_path / "run"), 1000)  # the run has a copy
    assert found["inputs"] == names
    assert found["of"] == 6
    shown = inputs(run)
    assert (shown["of"], shown["effects"]) == (4, sorted(shown["effects"], reverse=True))
    assert sorted(shown["names"]) == sorted(names)


def test_history_counts_every_sample(yin_yang_data):
    found = history(yin_yang_data)
    assert found["epochs"] == [0, 1, 2, 3, 4]
    together = np.sum(found["counts"], axis=-1) + np.array(found["silent"])  # (checkpoint, class, output)
    np.testing.assert_allclose(together, 100, atol=0.4)  # forty bins of two digits
    test = yin_yang_data.data.validation
    last = yin_yang_data.observe(test.times).output[test.labels == 1]
    silent = 100 * torch.isinf(last).double().mean(dim=0)
    np.testing.assert_allclose(found["silent"][-1][1], silent, atol=0.06)
    assert found["accuracy"][-1] == pytest.approx(yin_yang_data.metrics["validation_accuracy"][-1], abs=1e-4)


def test_history_takes_so_many_checkpoints_at_most(yin_yang_data, monkeypatch):
    monkeypatch.setattr("firstspike.reports.details._CHECKPOINTS", 2)
    epochs = history(yin_yang_data)["epochs"]
    assert epochs[0] == 0
    assert epochs[-1] == 4
    assert len(epochs) <= 3


def test_samples_are_the_record(yin_yang_data):
    found = samples(yin_yang_data, 10**6)
    run = yin_yang_data
    assert found["index"] == list(range(50))
    assert found["label"] == run.data.test.labels.tolist()
    assert found["decision"] == run.evaluation.predictions.tolist()
    assert [layer["name"] for layer in found["layers"]] == ["input", "bias", "hidden", "output"]
    for layer, spikes in zip(found["layers"], named_spikes(run.network, run.record), strict=True):
        times = np.array(layer["times"], dtype=float)
        np.testing.assert_allclose(np.where(np.isnan(times), np.inf, times), spikes.times, atol=6e-5)
    np.testing.assert_allclose(found["points"], run.plane.coordinates(run.data.test.times), atol=6e-5)


def test_membranes_reach_the_threshold_at_the_spike(yin_yang_data):
    """Each trace is below 1 before the spike of its neuron and passes 1 there."""
    found = samples(yin_yang_data, 10**6)["membrane"]
    seen = 0
    for at, traces, spikes in zip(*(found[key] for key in ("points", "traces", "spikes")), strict=True):
        for trace, own in zip(traces, spikes, strict=True):
            before = np.array(trace)[np.array(at) < (own[0] if own else np.inf)]
            assert before.max() <= 1.0005
            for spike in own:
                seen += 1
                assert trace[at.index(spike)] == pytest.approx(1, abs=0.002)
    assert seen > 20


def test_a_small_budget_keeps_wrong_decisions(yin_yang_data):
    size = sum(len(layer["times"][0]) for layer in samples(yin_yang_data, 10**6)["layers"]) + 3 * 160
    found = samples(yin_yang_data, 20 * size)
    assert len(found["index"]) == 20
    assert found["of"] == 50
    wrong = [label != decision for label, decision in zip(found["label"], found["decision"], strict=True)]
    assert sum(wrong) >= 10


def test_choose():
    wrong = torch.tensor([False, True, False, False, True, True, True])
    assert choose(wrong, 4).tolist() == [0, 1, 2, 4]
    assert choose(wrong, 100).tolist() == list(range(7))
    assert choose(torch.zeros(5, dtype=torch.bool), 3).tolist() == [0, 1, 2]


def test_plane_has_the_decisions(yin_yang_data):
    found = plane(yin_yang_data)
    decisions = yin_yang_data.loss.predict(yin_yang_data.plane_record.output).reshape(200, 200)
    letters = np.array([[*row] for row in found["rows"]])
    shown = np.where(letters == ".", "-1", letters).astype(int)
    np.testing.assert_array_equal(shown, decisions)


def test_all_of_it_is_json(yin_yang_data, report_runs):
    for run in (yin_yang_data, RunData(report_runs / "bars")):
        found = details(run, 10**5)
        assert found["notes"] == []
        json.dumps(found, allow_nan=False)
        assert found["confusion"]["counts"] == confusion_counts(run.evaluation).tolist()


def test_images_keep_their_shape(report_runs):
    found = samples(RunData(report_runs / "bars"), 10**5)
    assert found["image"] == {"rows": 3, "columns": 3, "every": 1}
    assert "points" not in found


def test_traces_of_neurons_with_their_own_thresholds_and_delays(tmp_path, bars_config, train_run):
    network = [
        {"kind": "lif", "out_features": 5},
        {
            "kind": "lif",
            "out_features": 3,
            "trainable": ["threshold"],
            "per_neuron": True,
            "delay": {"bound": "softplus"},
        },
        {"kind": "delay"},
    ]
    run = RunData(train_run(tmp_path / "run", bars_config | {"network": network}))
    lif = named_lif_layers(run.network)[-1]
    with torch.no_grad():
        lif.layer.neuron.threshold.copy_(torch.tensor([0.5, 0.8, 1.1]))
    found = samples(run, 10**5)["membrane"]
    times = run.record.layers[lif.index]
    for sample, (at, traces) in enumerate(zip(found["points"], found["traces"], strict=True)):
        for trace, spike in zip(traces, times[sample].tolist(), strict=True):
            if np.isfinite(spike):
                assert np.interp(spike, at, trace) == pytest.approx(1, abs=0.02)
