"""What a report shows is what the network does."""

import base64
import io
import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from firstspike.layers.named import named_layers, named_spikes
from firstspike.plots.run_data import data_name
from firstspike.plots.yin_yang import plane_of, plane_record
from firstspike.reports.details import choose, details, plain, plane, samples
from firstspike.runs import Run
from firstspike.training.evaluation import confusion_counts


def test_numbers_become_short_and_infinity_none():
    assert plain([[1.23456, np.inf], [np.nan, -2.0]]) == [[1.2346, None], [None, -2.0]]


def test_inputs_have_the_names_and_values_of_the_table(train_run, tmp_path, bars_config):
    cells = np.random.default_rng(0).random((30, 2)).round(2)
    table = tmp_path / "two.csv"
    table.write_text("left,right,class\n" + "".join(f"{x},{y},{'ab'[int(x > y)]}\n" for x, y in cells))
    data = {"kind": "files", "train": str(table), "test": 6, "encode": {"late": 2.0}}
    layers = [{"kind": "lif", "out_features": 4}, {"kind": "lif", "out_features": 2}]
    run = Run(train_run(tmp_path / "run", bars_config | {"data": data, "network": layers}))
    assert data_name(run) == "data from two.csv"
    names = ["left", "right"]
    assert samples(run, 1000)["inputs"] == names
    values = np.array(samples(run, 1000)["values"], dtype=float)
    inside = [row for row in values if row.min() > 0.2 and row.max() < 0.8]  # of the range of the training data
    assert inside
    assert all(np.abs(cells - row).max(axis=1).min() < 1e-6 for row in inside)
    table.unlink()
    found = samples(Run(tmp_path / "run"), 1000)  # the run has a copy
    assert found["inputs"] == names
    assert found["of"] == 6


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
    np.testing.assert_allclose(found["points"], plane_of(run).coordinates(run.data.test.times), atol=6e-5)


def test_membranes_reach_the_threshold_at_the_spike(yin_yang_data):
    """Each trace is below 1 before the spike of its neuron and passes 1 there."""
    found = samples(yin_yang_data, 10**6)["membrane"]
    seen = 0
    for sample in found["samples"]:
        at = sample["at"]
        for trace, own in zip(sample["voltage"], sample["spikes"], strict=True):
            before = np.array(trace)[np.array(at) < (own[0] if own else np.inf)]
            assert before.max() <= 1.0005
            for spike in own:
                seen += 1
                assert trace[at.index(spike)] == pytest.approx(1, abs=0.002)
    assert seen > 20


def test_a_small_budget_keeps_wrong_decisions(yin_yang_data):
    size = sum(len(layer["times"][0]) for layer in samples(yin_yang_data, 10**6)["layers"]) + 6 * 160
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


def test_plane_is_an_image_of_the_decisions(yin_yang_data):
    found = plane(yin_yang_data)
    image = Image.open(io.BytesIO(base64.b64decode(found["image"].removeprefix("data:image/png;base64,"))))
    pixels = np.asarray(image.convert("RGB")).astype(float)
    decisions = yin_yang_data.loss.predict(plane_record(yin_yang_data).output).reshape(200, 200)
    shown = {  # the commonest colour where a class is decided; lines are in between
        klass: Counter(
            tuple(pixels[-1 - 3 * y, 3 * x]) for y, x in np.argwhere(decisions.numpy() == klass)
        ).most_common(1)
        for klass in decisions.unique().tolist()
    }
    assert len({colour for ((colour, _),) in shown.values()}) == len(shown) > 1


def test_all_of_it_is_json(yin_yang_data, report_runs):
    for run in (yin_yang_data, Run(report_runs / "bars")):
        found = details(run, 10**5)
        assert found["notes"] == []
        json.dumps(found, allow_nan=False)
        assert found["confusion"]["counts"] == confusion_counts(run.evaluation).tolist()


def test_images_keep_their_shape(report_runs):
    found = samples(Run(report_runs / "bars"), 10**5)
    assert found["image"] == {"rows": 3, "columns": 3}
    assert "points" not in found


@pytest.mark.slow
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
    run = Run(train_run(tmp_path / "run", bars_config | {"network": network}))
    lif = named_layers(run.network)[-1]
    with torch.no_grad():
        lif.layer.neuron.threshold.copy_(torch.tensor([0.5, 0.8, 1.1]))
    found = samples(run, 10**5)["membrane"]
    times = run.record.layers[lif.index]
    for sample, shown in enumerate(found["samples"]):
        for neuron, trace in zip(shown["neurons"], shown["voltage"], strict=True):
            if np.isfinite(spike := float(times[sample][neuron])):
                assert np.interp(spike, shown["at"], trace) == pytest.approx(1, abs=0.02)
