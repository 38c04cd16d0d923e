import json
import os

import numpy as np
import pytest
import torch
import yaml
from fabricated import delay, layers_config, lif, random_tensors, save_network, save_results, sizes_config, spike_times

import firstspike as fs
from firstspike.config import build
from firstspike.data import yin_yang
from firstspike.interop.fast_and_deep.results import Comparison, compare
from firstspike.interop.fast_and_deep.run_folder import import_folder
from firstspike.interop.fast_and_deep.translate import import_config
from firstspike.interop.torch_file import UnsafePickleError
from firstspike.runs import Run
from firstspike.runs.checkpoint import load_newest
from firstspike.runs.folder import RunFolder
from trained import resume

TEST = yin_yang(1000, 40, dtype=torch.float64)
INPUTS = TEST.times.numpy()


@pytest.fixture
def theirs(tmp_path):
    """A small result folder of theirs."""
    config = sizes_config(training_params__epoch_number=7, training_params__epoch_snapshots=[7])
    tensors = random_tensors(config)
    save_results(tmp_path / "theirs", config, tensors, INPUTS)
    return tmp_path / "theirs"


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "row"])
def test_weights_are_theirs(tmp_path, zipped):
    config = layers_config([delay("Synaptic"), lif(30), delay("Dendritic"), lif()])
    tensors = random_tensors(config)
    save_results(tmp_path / "theirs", config, tensors, zipped=zipped)
    imported = import_folder(tmp_path / "theirs", tmp_path / "run")
    state = Run(tmp_path / "run").network.state_dict()
    np.testing.assert_array_equal(state["0.weight"], tensors[1].T)
    np.testing.assert_array_equal(state["0.delay_raw"], tensors[0].T)
    np.testing.assert_array_equal(state["1.weight"], tensors[3].T)
    np.testing.assert_array_equal(state["2.delay_raw"], tensors[2][0])
    assert imported.parameters == sum(t.size for t in tensors.values())


def test_run_folder(theirs, tmp_path):
    imported = import_folder(theirs, tmp_path / "run")
    run = RunFolder.open(tmp_path / "run")
    assert run.config == import_config(theirs / "config.yaml")[0]
    assert imported.config == str(theirs / "config.yaml")
    assert (run.path / "environment.json").is_file()
    assert [p.name for p in run.checkpoints.iterdir()] == ["epoch_0007"]
    told = json.loads((run.path / "import.json").read_text())
    assert told["no_counterpart"] == imported.no_counterpart
    assert told["comparison"]["samples"] == 1000
    assert told["network"] == str(theirs / "yin_yang_network.pt")
    assert fs.Run(run.path).plot(["weight_matrices", "confusion"], ("svg",))


def test_training_goes_on(theirs, tmp_path):
    import_folder(theirs, tmp_path / "run")
    trainer = build(RunFolder.open(tmp_path / "run").config)
    found = load_newest(tmp_path / "run" / "checkpoints")
    trainer.load_state_dict({"members": [found.state | {"network": found.weights}]})
    assert trainer.members[0].schedule.last_epoch == 7
    results = resume(tmp_path / "run", epochs=8, progress_bar=False)
    assert results["epochs"] == 8
    assert RunFolder.open(tmp_path / "run").table("metrics")["epoch"] == [8]


def test_last_epoch_folder(tmp_path):
    config = sizes_config()
    tensors = {number: random_tensors(config, number) for number in (20, 100)}
    for number in tensors:
        save_results(tmp_path / "theirs" / f"epoch_{number}", config, tensors[number])
    (tmp_path / "theirs" / "config.yaml").write_text(yaml.dump(config))
    save_network(tmp_path / "theirs" / "yin_yang_untrained_network.pt", config, random_tensors(config, 0))
    for folder, number in (("theirs", 100), ("theirs/epoch_20", 20)):
        imported = import_folder(tmp_path / folder, tmp_path / f"run{number}")
        assert imported.epoch == number
        state = Run(tmp_path / f"run{number}").network.state_dict()
        np.testing.assert_array_equal(state["1.weight"], tensors[number][0].T)
        assert imported.comparison == "no spike times were saved for the test data"


def test_missing_network(tmp_path):
    config = sizes_config()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "config.yaml").write_text(yaml.dump(config))
    nothing = import_folder(theirs, tmp_path / "config only")
    assert (nothing.network, nothing.parameters, nothing.comparison) == (None, 0, "there is no trained network")
    assert not (tmp_path / "config only" / "checkpoints").exists()


def test_saved_inputs_and_labels_count(theirs, tmp_path):
    np.save(theirs / "yin_yang_test_labels.npy", TEST.labels.numpy())
    assert isinstance(import_folder(theirs, tmp_path / "a").comparison, Comparison)
    np.save(theirs / "yin_yang_test_labels.npy", TEST.labels.numpy()[::-1])
    assert "the samples differ" in import_folder(theirs, tmp_path / "b").comparison
    backwards, config = INPUTS[::-1].copy(), yaml.safe_load((theirs / "config.yaml").read_text())
    np.save(theirs / "yin_yang_test_inputs.npy", backwards)
    np.save(theirs / "yin_yang_test_spiketimes.npy", spike_times(config, random_tensors(config), backwards))
    found = import_folder(theirs, tmp_path / "c").comparison
    assert found.above <= 10


def test_reasons_and_unreadable_results(theirs, tmp_path):
    raw = yaml.safe_load((theirs / "config.yaml").read_text())
    raw["training_params"]["use_forward_integrator"] = True
    (theirs / "config.yaml").write_text(yaml.dump(raw))
    assert import_folder(theirs, tmp_path / "a").verdict.endswith("(but the original integrated in steps)")
    np.save(theirs / "yin_yang_test_spiketimes.npy", np.array([object()]), allow_pickle=True)
    assert "cannot be read" in import_folder(theirs, tmp_path / "b").comparison
    np.save(theirs / "yin_yang_test_spiketimes.npy", np.zeros((10, 3)))
    assert "has the shape (10, 3)" in import_folder(theirs, tmp_path / "c").comparison


def test_difference_counts_missing_spikes():
    theirs = np.array([[1.0, np.inf, 2.0], [np.nan, 3.0, 1.0]])
    ours = np.array([[1.5, 1.0, np.inf], [np.inf, 3.0, 1.00001]])
    assert compare(theirs, ours) == Comparison(2, 0.5, 1, 1, 1, 6)


def test_random_samples_are_not_compared(tmp_path):
    config = sizes_config(dataset="xor", network_layout__layer_sizes=[10, 2])
    inputs = np.array([[a, b, 0, 1] for a in (0, 1) for b in (0, 1)]) * 1.85 + 0.15
    save_results(tmp_path / "theirs", config, random_tensors(config), inputs, name="xor")
    assert "drawn at random" in import_folder(tmp_path / "theirs", tmp_path / "a").comparison
    np.save(tmp_path / "theirs" / "xor_test_inputs.npy", inputs)
    found = import_folder(tmp_path / "theirs", tmp_path / "b").comparison
    assert (found.samples, found.above, found.only_ours, found.only_theirs) == (4, 0, 0, 0)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda config: config["network_layout"].update(layer_sizes=[31, 3]), r"expected shape \(5, 31\)"),
        (lambda config: config["network_layout"].update(layer_sizes=[30, 9, 3]), "2 layers, but 3 layer_sizes"),
        (lambda config: config.update(dataset="morse"), "'morse' has no counterpart"),
        (lambda config: config["training_params"].update(batch_size=0), "training.batch_size"),
    ],
)
def test_bad_folders(theirs, tmp_path, spoil, message):
    config = yaml.safe_load((theirs / "config.yaml").read_text())
    spoil(config)
    (theirs / "config.yaml").write_text(yaml.dump(config))
    with pytest.raises(ValueError, match=message):
        import_folder(theirs, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_networks(theirs, tmp_path):
    path = theirs / "yin_yang_network.pt"
    for saved, message in (
        ({"a": torch.ones(2)}, "expected a network, got dict"),
        (torch.nn.Linear(2, 3), "has no layers"),
    ):
        torch.save(saved, path)
        with pytest.raises(ValueError, match=message):
            import_folder(theirs, tmp_path / "run")
    config = layers_config([lif(30), lif()])
    save_network(path, config, random_tensors(config))
    (theirs / "config.yaml").write_text(yaml.dump(layers_config([delay("Axonal"), lif(30), lif()])))
    with pytest.raises(ValueError, match=r"expected DelayLayer, got .*NeuronLayer"):
        import_folder(theirs, tmp_path / "run")
    save_network(theirs / "other_network.pt", config, random_tensors(config))
    path.rename(theirs / "more_network.pt")
    with pytest.raises(ValueError, match="several networks"):
        import_folder(theirs, tmp_path / "run")


class Harm:
    def __reduce__(self):
        return os.system, ("touch harm",)


def test_harm_is_refused(theirs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save([Harm()], theirs / "yin_yang_network.pt")
    with pytest.raises(UnsafePickleError, match=r"wants to call \w+\.system"):
        import_folder(theirs, tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.slow
def test_command(theirs, tmp_path, command_here):
    done = command_here("import-fastanddeep", theirs, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, check, *others, last = done.stdout.splitlines()
    assert first == f"network: 243 parameters of {theirs / 'yin_yang_network.pt'}, 7 epochs"
    assert check.startswith("check: spike times of 1000 test samples differ by at most ")
    assert others[0] == "no counterpart here:"
    assert others[1].startswith("  training_params.numpy_seed = 12345: ")
    assert last == "run folder: runs/theirs"
    tested = command_here("evaluate", "runs/theirs", cwd=tmp_path)
    assert tested.stdout.startswith("test accuracy ")
    twice = command_here("import-fastanddeep", theirs, "--out", "runs/theirs", cwd=tmp_path)
    assert twice.returncode == 2
    assert "is not empty" in twice.stderr


def test_command_on_a_config(theirs, tmp_path, command_here):
    shown = command_here("import-fastanddeep", theirs / "config.yaml", cwd=tmp_path)
    assert "kind: yin_yang" in shown.stdout
    assert shown.stderr.startswith("no counterpart here:\n  training_params.numpy_seed")
    written = command_here("import-fastanddeep", theirs / "config.yaml", "--out", "mine.yaml", cwd=tmp_path)
    assert written.stdout == "config: mine.yaml\n"
    assert (tmp_path / "mine.yaml").read_text() == shown.stdout
    same = command_here("import-fastanddeep", "mine.yaml", "--out", tmp_path / "mine.yaml", cwd=tmp_path)
    assert (same.returncode, same.stdout) == (2, "")
    missing = command_here("import-fastanddeep", "nowhere", cwd=tmp_path)
    assert (missing.returncode, missing.stderr) == (2, "error: nowhere: no such file or folder\n")


@pytest.mark.parametrize("name", ["test_spiketimes", "test_labels"])
@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04damaged", b"\x93NUMPY\x01\x00\x10\x00{'descr': [(((", b"\x93NUMPY\x01\x00\x76\x00" + b"(" * 200],
    ids=["empty", "archive", "head", "nested"],
)
def test_damaged_results_are_told_and_leave_a_whole_run(theirs, tmp_path, name, content):
    (theirs / f"yin_yang_{name}.npy").write_bytes(content)
    assert "cannot be read" in import_folder(theirs, tmp_path / "run").comparison
    assert (tmp_path / "run" / "import.json").is_file()


def test_an_import_that_fails_leaves_nothing(theirs, tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("odd results")

    monkeypatch.setattr("firstspike.interop.fast_and_deep.run_folder.compare", fails)
    with pytest.raises(RuntimeError, match="odd results"):
        import_folder(theirs, tmp_path / "run")
    assert not (tmp_path / "run").exists()
