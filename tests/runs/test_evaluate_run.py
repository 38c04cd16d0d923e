import csv
import json
import shutil

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

import firstspike as fs
from firstspike.runs.evaluate import decisions, prediction_table, table
from firstspike.substrates import differences


def report(folder, data="test", checkpoint=None):
    return fs.Run(folder, checkpoint).evaluate(data)


def predictions(folder, file):
    return prediction_table(fs.Run(folder), file)


@pytest.fixture
def folder(bars_folder, tmp_path):
    return shutil.copytree(bars_folder, tmp_path / "run")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_numbers_are_those_of_the_network(folder, split):
    run = fs.Run(folder)
    data = getattr(run.data, split)
    found = report(folder, split).numbers
    out = run.network(data.times)
    decisions = run.loss.predict(out)
    right = (decisions == data.labels).double().mean().item()
    assert found["samples"] == len(data)
    assert found["accuracy"] == right
    interval = binomtest(round(right * len(data)), len(data)).proportion_ci(method="wilson")
    assert found["accuracy_interval"] == pytest.approx(interval, abs=1e-4)
    assert found["loss"] == pytest.approx(run.loss(out, data.labels).item())
    assert found["silent"]["output"] == pytest.approx(torch.isinf(out).double().mean().item())
    assert found["silent"]["hidden"] == pytest.approx(torch.isinf(run.network[0](data.times)).double().mean().item())
    first = out.min(dim=1).values[decisions >= 0]
    assert found["decided"] == len(first)
    assert found["decision_time"] == pytest.approx(first.double().mean().item())
    counts = np.array(found["confusion"])
    assert np.trace(counts) == round(right * len(data))
    assert counts.sum(axis=1).tolist() == torch.bincount(data.labels).tolist()


def test_loaders_are_evaluated_like_their_data(folder):
    run = fs.Run(folder)
    data = run.data.test
    found = run.evaluate(torch.utils.data.DataLoader(data, batch_size=7))
    assert torch.equal(found.times, report(folder).times)
    assert found.accuracy == report(folder).accuracy
    pairs = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(data.times, data.labels), batch_size=7)
    assert torch.equal(run.evaluate(pairs).labels, data.labels)


NOT_SHORT = "spike_loss", "membrane_noise"  # which first spikes do not have


def test_names_of_files_follow_from_the_substrate_not_from_what_was_typed(folder):
    def run(substrate, *settings):
        return fs.Run(folder, substrate=substrate, settings=[f"substrate.{x}" for x in settings])

    for bits in (["4"], ["0x4"], ["5", "4"]):
        assert run("exact", *(f"weight_bits={x}" for x in bits)).elsewhere == "exact_weight_bits=4"
    settings = ["input_jitter=.5", "spike_loss=0.10"]
    assert run("noisy", *settings).elsewhere == run("noisy", *reversed(settings)).elsewhere
    names = [name for name, value in run("noisy")._on.substrate if isinstance(value, float) and name not in NOT_SHORT]
    many = [f"{name}=0.00123456789" for name in names]
    long = [run("noisy", *many, f"spike_loss={loss}") for loss in (0.1, 0.2)]
    assert long[0].elsewhere != long[1].elsewhere
    for each in long:
        assert all(path.is_file() and len(path.name) < 150 for path in each.evaluate().save())


def test_differences_on_a_substrate_are_those_from_the_exact_spikes_of_the_same_weights(folder):
    found = fs.Run(folder, substrate="noisy").evaluate()
    run = fs.Run(folder)
    assert found.differences == differences(run.network, run.record, found.record)
    assert all(x.largest > 0 for x in found.differences if x.matched)
    assert found.text().count("hidden: ") == 1
    *_, file = found.save()
    assert file == folder / "evaluation" / "differences_test_on_noisy.csv"
    with file.open() as rows:
        read = list(csv.DictReader(rows))
    assert [int(row["matched"]) for row in read] == [x.matched for x in found.differences]
    rounded = fs.Run(folder, substrate="exact", settings=["substrate.weight_bits=4"]).evaluate()
    assert rounded.differences == []
    assert len(rounded.save()) == 2


def test_both_files_can_be_read_back(folder):
    result = report(folder, "test", "epoch_0008")
    numbers, spikes = result.save()
    assert numbers == folder / "evaluation" / "test_at_epoch_0008.json"
    assert json.loads(numbers.read_text()) == result.numbers
    assert result.numbers["checkpoint"] == "epoch_0008"
    run = fs.Run(folder, "epoch_0008")
    with np.load(spikes, allow_pickle=False) as arrays:
        assert list(arrays) == ["inputs", "hidden", "output", "labels", "predictions"]
        np.testing.assert_array_equal(arrays["inputs"], run.data.test.times)
        np.testing.assert_array_equal(arrays["hidden"], run.network[0](run.data.test.times))
        np.testing.assert_array_equal(arrays["output"], run.network(run.data.test.times))
        np.testing.assert_array_equal(arrays["labels"], run.data.test.labels)
        np.testing.assert_array_equal(arrays["predictions"], run.evaluation.predictions)
    assert {path.name for path in (folder / "spikes").iterdir()} == {"test_at_epoch_0008.npz"}


def test_layers_of_the_same_kind_are_numbered(folder):
    run = fs.Run(folder)
    run.network = fs.Network(
        fs.BiasSpikes([0.9]),
        fs.LIFLinear(10, 6),
        fs.BiasSpikes([0.5, 0.7]),
        fs.LIFLinear(8, 5),
        fs.Delay(5),
        fs.LIFLinear(5, 3),
        fs.Delay(3),
    ).requires_grad_(False)
    spikes = run.evaluate("test").spikes
    assert {name: values.shape[1:] for name, values in spikes.items()} == {
        "inputs": (9,),
        "bias": (1,),
        "hidden_1": (6,),
        "bias_2": (2,),
        "hidden_2": (5,),
        "delayed": (5,),
        "output": (3,),
        "delayed_2": (3,),
        "labels": (),
        "predictions": (),
    }
    assert bool((spikes["bias_2"] == np.float32([0.5, 0.7])).all())


def test_a_network_that_never_decides(folder):
    run = fs.Run(folder)
    for layer in run.network:
        layer.weight.fill_(-1.0)
    result = run.evaluate("test")
    found = result.numbers
    assert (found["decided"], found["decision_time"], found["accuracy"]) == (0, None, 0.0)
    assert found["decisions"] == ["horizontal", "vertical", "diagonal", "silent"]
    assert np.array(found["confusion"])[:, 3].sum() == 90
    assert "0 of 90 samples decide" in result.text()
    assert json.loads(result.save()[0].read_text())["decision_time"] is None


def test_other_data(folder, tmp_path):
    test = fs.Run(folder).data.test
    np.savez(tmp_path / "mine.npz", times=test.times[:30], labels=test.labels[:30])
    result = report(folder, tmp_path / "mine.npz")
    assert [path.name for path in result.save()] == ["data_mine.json", "data_mine.npz"]
    assert result.numbers["samples"] == 30
    assert result.labels.tolist() == test.labels[:30].tolist()


def test_text_names_everything(folder):
    result = report(folder)
    found, text = result.numbers, result.text()
    low, high = (100 * x for x in found["accuracy_interval"])
    assert text.startswith(f"test accuracy {100 * found['accuracy']:.2f} % ({low:.2f} to {high:.2f})")
    for part in ("(epoch_0012)", f"loss {found['loss']:.4g}", "hidden", "output", "samples decide", "true \\ decision"):
        assert part in text


def test_the_word_for_no_decision_depends_on_the_classes_alone(folder):
    run = fs.Run(folder)
    object.__setattr__(run.data.train, "class_names", ("a", "silent", "b"))
    for times in ([[0.5, np.inf, np.inf], [np.inf] * 3], [[np.inf] * 3, [np.inf, 0.5, np.inf]]):
        found = decisions(run, torch.tensor(times))
        assert set(found) - {"a", "silent"} == {"no decision"}
        assert found.count("no decision") == 1
    assert decisions(run, torch.empty(0, 3)) == []


def test_table():
    assert table(["a", "longest of them"], ["a", "longest of them", "silent"], [[10, 2, 0], [0, 3, 1000]]) == [
        "true \\ decision   a  longest of them  silent",
        "a                10                2       0",
        "longest of them   0                3    1000",
    ]


def test_no_table_of_many_classes(folder, monkeypatch):
    monkeypatch.setattr("firstspike.runs.evaluate._TABLE_UP_TO", 2)
    assert "decision  " not in report(folder).text()


def test_predictions(folder, tmp_path):
    run = fs.Run(folder)
    times = run.data.test.times[:5].clone()
    times[2] = torch.inf
    np.save(tmp_path / "in.npy", times)
    head, *rows = [line.split(",") for line in predictions(folder, tmp_path / "in.npy").splitlines()]
    assert head == ["class", "horizontal", "vertical", "diagonal"]
    out = run.network(times)
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], dtype=np.float32), out)
    names = [*run.class_names, "silent"]
    assert [row[0] for row in rows] == [names[index] for index in run.loss.predict(out).tolist()]
    assert rows[2] == ["silent", "inf", "inf", "inf"]
