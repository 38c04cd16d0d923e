import csv
import json
import math
import os
import signal
import time

import pytest
import torch

import forked
from firstspike.config import build, build_data, load_config
from firstspike.layers import LIFLinear, Network, Record
from firstspike.runs.checkpoint import CheckpointError, checkpoints, load_checkpoint, newest_first
from firstspike.runs.files import remove_folder
from firstspike.runs.folder import RunFolder, next_folder
from firstspike.training import Interrupted, SilentNeurons
from firstspike.training.batches import shuffled
from firstspike.training.engines import engine_for
from firstspike.training.silent import activity
from trained import resume, start

SMALL = [
    "data.train=600",
    "data.validation=200",
    "data.test=200",
    "network[1].out_features=20",
    "training.augment.jitter=0.05",
]


def weights(folder):
    return load_checkpoint(newest_first(folder / "checkpoints")[0]).weights


def same_run(one, other):
    assert (one / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()
    assert (one / "output_times.csv").read_bytes() == (other / "output_times.csv").read_bytes()
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.draws
@pytest.mark.slow
def test_bars_are_learned(tmp_path):
    results = start(tmp_path / "run", load_config("bars"), progress_bar=False)
    assert results["best_validation_accuracy"] == 1.0
    assert results["test"]["samples"] == 90
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 31))
    assert float(rows[-1]["train_loss"]) < 0.2 * float(rows[0]["train_loss"])
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["seed"] == 2000
    assert {path.name for path in (tmp_path / "run" / "figures").iterdir()} == {
        "loss_and_error.png",
        "output_times.png",
    }


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_and_another_does_not(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        start(
            tmp_path / name,
            load_config("yin_yang", [*SMALL, "training.epochs=2", f"training.seed={seed}"]),
            progress_bar=False,
        )
    same_run(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "metrics.csv").read_text() != (tmp_path / "c" / "metrics.csv").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [1, 4, 6, 11])
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, stop_after):
    config = load_config("yin_yang", [*SMALL, "training.epochs=4"])
    start(tmp_path / "whole", config, progress_bar=False)
    asked = iter(range(1000))
    with pytest.raises(Interrupted):
        start(tmp_path / "parts", config, progress_bar=False, stop=lambda: next(asked) >= stop_after)
    resume(tmp_path / "parts", progress_bar=False)
    same_run(tmp_path / "whole", tmp_path / "parts")


DELAYS = [
    "network[0]={kind: multiplex, copies: 2}",
    "network[2]={kind: delay, rule: {bound: clip, scale: 1.5, shift: 0.5, mean: 1.2, jitter: 0.05}, lr: 0.02}",
    "network[1].delay={bound: softplus, mean: -1.0, jitter: 0.02}",
    "network[1].delay_lr=0.01",
    "training.augment.jitter=0.0",
]


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [2, 5])
def test_a_run_with_delays_that_jitter_goes_on_bit_for_bit(tmp_path, stop_after):
    raw = load_config("yin_yang", [*SMALL, *DELAYS, "training.epochs=3"]).model_dump()
    raw["network"] = [raw["network"][0], {"kind": "delay", "copies": 2, "rule": {"jitter": 0.02}}, *raw["network"][1:]]
    config = load_config(raw)
    start(tmp_path / "whole", config, progress_bar=False)
    asked = iter(range(1000))
    with pytest.raises(Interrupted):
        start(tmp_path / "parts", config, progress_bar=False, stop=lambda: next(asked) >= stop_after)
    torch.manual_seed(stop_after)
    resume(tmp_path / "parts", progress_bar=False)
    same_run(tmp_path / "whole", tmp_path / "parts")
    first, last = build(config).network.state_dict(), weights(tmp_path / "whole")
    assert {name for name in last if "delay_raw" in name} == {"1.delay_raw", "2.delay_raw", "3.delay_raw"}
    assert not any(torch.equal(first[name], last[name]) for name in last if not name.endswith("_extra_state"))


@pytest.mark.slow
def test_a_run_that_learns_time_constants_goes_on_bit_for_bit(tmp_path):
    learn = [
        "network[1].trainable=[tau_mem, tau_syn, threshold]",
        "network[1].neuron_lr=0.01",
        "network[3].trainable=[tau_mem, threshold]",
        "network[3].per_neuron=true",
    ]
    config = load_config("yin_yang", [*SMALL, *learn, "training.epochs=3"])
    start(tmp_path / "whole", config, progress_bar=False)
    asked = iter(range(1000))
    with pytest.raises(Interrupted):
        start(tmp_path / "parts", config, progress_bar=False, stop=lambda: next(asked) >= 5)
    resume(tmp_path / "parts", progress_bar=False)
    same_run(tmp_path / "whole", tmp_path / "parts")
    learnt = {name: value for name, value in weights(tmp_path / "whole").items() if "log_" in name}
    assert {name: value.shape for name, value in learnt.items()} == {
        "1.log_tau_mem": (),
        "1.log_tau_syn": (),
        "1.log_threshold": (),
        "3.log_tau_mem": (3,),
        "3.log_threshold": (3,),
    }
    assert all(bool(value.all()) for value in learnt.values())  # they started at log(1)


@pytest.mark.slow
def test_clipped_delays_stay_inside_their_bounds(tmp_path):
    settings = [*SMALL, *DELAYS, "network[2].lr=3.0", "training.epochs=1"]
    start(tmp_path / "run", load_config("yin_yang", settings), progress_bar=False)
    raw = weights(tmp_path / "run")["2.delay_raw"]
    assert torch.equal(raw, raw.clamp(0.5, 2.0))
    assert bool(((raw == 0.5) | (raw == 2.0)).any())


@pytest.mark.slow
def test_evaluation_knows_no_jitter():
    config = load_config("yin_yang", [*SMALL, *DELAYS])
    trainer, data = build(config), build_data(config).test
    one, two = (trainer.evaluate(data) for _ in range(2))
    assert torch.equal(one.times, two.times)
    assert trainer.network.training
    assert not torch.equal(trainer.network(data.times), trainer.network(data.times))


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(tmp_path):
    settings = [x for pair in (("--set", setting) for setting in [*SMALL, "training.epochs=6"]) for x in pair]
    assert forked.run("train", "yin_yang", "-q", "--out", tmp_path / "whole", *settings).returncode == 0
    first, again = (
        ("train", "yin_yang", "-q", "--out", tmp_path / "parts", *settings),
        ("resume", tmp_path / "parts", "-q"),
    )
    for delay, arguments in ((0.0, first), (0.5, again), (0.3, again)):
        process = forked.Forked(*arguments)
        while not (tmp_path / "parts" / "config.yaml").exists() and process.poll() is None:
            time.sleep(0.02)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert forked.run(*again).returncode == 0
    same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_a_signal_saves_and_ends(tmp_path):
    process = forked.Forked("train", "bars", "-q", "--out", tmp_path / "run")
    while not (tmp_path / "run" / "metrics.csv").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"firstspike resume {tmp_path / 'run'}" in message
    newest = load_checkpoint(newest_first(tmp_path / "run" / "checkpoints")[0])
    assert newest.epoch >= 1


@pytest.mark.slow
def test_damaged_checkpoints_are_passed_over(tmp_path, caplog):
    config = load_config("yin_yang", [*SMALL, "training.epochs=6"])
    start(tmp_path / "whole", config, progress_bar=False)
    start(tmp_path / "run", config, progress_bar=False)
    folder = tmp_path / "run" / "checkpoints"
    flipped = folder / "epoch_0006" / "weights.safetensors"
    data = bytearray(flipped.read_bytes())
    data[-3] ^= 1
    flipped.write_bytes(data)
    state = folder / "epoch_0005" / "state.pt"
    state.write_bytes(state.read_bytes()[:100])
    (folder / "epoch_0004" / "manifest.json").write_text('{"format": 99}')
    for path in checkpoints(folder):
        if path.name.startswith("best_"):
            (path / "weights.safetensors").unlink()
    resume(tmp_path / "run", progress_bar=False)
    assert "epoch_0006: weights.safetensors is damaged" in caplog.text
    assert "epoch_0005: state.pt is damaged" in caplog.text
    assert "format should be 1, got 99" in caplog.text
    same_run(tmp_path / "whole", tmp_path / "run")


def test_a_checkpoint_executes_nothing(tmp_path):
    import hashlib
    import pickle

    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    start(tmp_path / "run", load_config("bars", ["training.epochs=1"]), progress_bar=False)
    folder = tmp_path / "run" / "checkpoints" / "epoch_0001"
    (folder / "state.pt").write_bytes(pickle.dumps(Bomb()))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["state.pt"] = hashlib.sha256((folder / "state.pt").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError):
        load_checkpoint(folder)
    assert not (tmp_path / "executed").exists()


@pytest.mark.slow
def test_more_epochs_for_a_finished_run(tmp_path):
    start(
        tmp_path / "whole",
        load_config("bars", ["training.epochs=4", "training.checkpoint_every=2"]),
        progress_bar=False,
    )
    start(
        tmp_path / "run", load_config("bars", ["training.epochs=2", "training.checkpoint_every=2"]), progress_bar=False
    )
    before = RunFolder.open(tmp_path / "run").results["seconds"]
    after = resume(tmp_path / "run", epochs=4, progress_bar=False)
    assert after["epochs"] == 4
    assert after["seconds"] > before > 0
    same_run(tmp_path / "whole", tmp_path / "run")
    with pytest.raises(ValueError, match="4 epochs are done already"):
        resume(tmp_path / "run", epochs=1, progress_bar=False)


def test_checkpoints_that_are_kept(tmp_path):
    start(
        tmp_path / "run", load_config("bars", ["training.epochs=7", "training.checkpoint_every=3"]), progress_bar=False
    )
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert [name for name in names if name.startswith("epoch")] == ["epoch_0003", "epoch_0006", "epoch_0007"]
    assert len([name for name in names if name.startswith("best")]) == 1


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty"):
        start(tmp_path, load_config("bars"), progress_bar=False)
    assert (tmp_path / "file").read_text() == "mine"


def test_run_folders_are_numbered(tmp_path):
    assert next_folder(tmp_path, "a").name == "a"
    assert next_folder(tmp_path, "a").name == "a-2"


@pytest.mark.slow
@pytest.mark.parametrize(
    "schedule",
    [
        "{kind: step, step_size: 2, gamma: 0.5}",
        "{kind: multi_step, milestones: [1, 3]}",
        "{kind: exponential, gamma: 0.9}",
        "{kind: cosine, final: 0.1}",
    ],
)
def test_resume_with_every_schedule(tmp_path, schedule):
    settings = [*SMALL, f"training.schedule={schedule}", "training.epochs=4", "training.checkpoint_every=2"]
    config = load_config("yin_yang", settings)
    start(tmp_path / "whole", config, progress_bar=False)
    start(tmp_path / "parts", config, progress_bar=False)
    remove_folder(checkpoints(tmp_path / "parts" / "checkpoints")[-1])
    resume(tmp_path / "parts", progress_bar=False)
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_every_epoch_has_an_order_of_its_own():
    first, again, second = shuffled(100, 1, 0), shuffled(100, 1, 0), shuffled(100, 1, 1)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, torch.arange(100))


class TestSilentNeurons:
    """Weights are raised, as Göltz et al. 2021 do."""

    def network(self):
        return Network(
            LIFLinear(2, 3, weight_mean=0.0, weight_std=0.0), LIFLinear(3, 2, weight_mean=0.0, weight_std=0.0)
        )

    def record(self, hidden, output):
        return Record(torch.zeros(len(hidden), 2), (torch.tensor(hidden), torch.tensor(output)))

    def test_only_the_silent_neurons_of_the_foremost_layer(self):
        network, policy = self.network(), SilentNeurons([0.3, 0.0], increment=0.1)
        silent = self.record([[1.0, math.inf, math.inf], [1.0, 2.0, math.inf]], [[math.inf, 1.0], [1.0, 1.0]])
        assert policy.raise_weights_(network, silent)
        torch.testing.assert_close(network[0].weight.detach(), torch.tensor([[0.0, 0.0], [0.1, 0.1], [0.1, 0.1]]))
        assert not bool(network[1].weight.any())

    def test_nothing_below_the_limit(self):
        network, policy = self.network(), SilentNeurons([0.5, 0.0], increment=0.1)
        fine = self.record([[1.0, math.inf, math.inf], [1.0, 2.0, math.inf]], [[1.0, 1.0], [1.0, 1.0]])
        assert not policy.raise_weights_(network, fine)
        assert activity(network, fine.layers) == [0.5, 0.0]
        assert not any(bool(p.any()) for p in network.parameters())

    def test_the_increment_doubles_while_it_repeats(self):
        network, policy = self.network(), SilentNeurons([1.0, 0.0], increment=0.1)
        silent = self.record([[1.0] * 3] * 2, [[math.inf, 1.0]] * 2)
        for total in (0.1, 0.3, 0.7):
            policy.raise_weights_(network, silent)
            assert network[1].weight[0, 0].item() == pytest.approx(total)
        policy.raise_weights_(network, self.record([[1.0] * 3] * 2, [[1.0, 1.0]] * 2))
        policy.raise_weights_(network, silent)
        assert network[1].weight[0, 0].item() == pytest.approx(0.8)

    @pytest.mark.parametrize("instead", [True, False])
    def test_a_batch_that_raises_weights_learns_only_if_it_shall(self, instead):
        settings = ["training.silent.limits[0]=0", "network[1].weight_mean=0.7", f"training.silent.skip_step={instead}"]
        more = ["network[1].out_features=10", "training.silent.increment=1e-9"]
        config = load_config("yin_yang", [*settings, *more])
        trainer, data = build(config), build_data(config).train
        before = trainer.network[3].weight.clone()
        means = engine_for(trainer.members, trainer.objective).step(data.times[None, :20], data.labels[None, :20])
        assert means[0, 2] == 1, "the batch raised weights"
        assert torch.equal(trainer.network[3].weight, before) == instead

    def test_any_silence_counts_if_it_shall(self):
        rare = self.record([[1.0, math.inf, 2.0]] * 2 + [[math.inf, math.inf, 2.0]], [[1.0, 1.0]] * 3)
        for targeted, raised in ((True, [0.0, 0.1, 0.0]), ("any", [0.1, 0.1, 0.0])):
            network = self.network()
            assert SilentNeurons([0.4, 0.1], increment=0.1, targeted=targeted).raise_weights_(network, rare)
            torch.testing.assert_close(network[0].weight[:, 0].detach(), torch.tensor(raised))

    def test_untargeted_and_constant(self):
        network, policy = self.network(), SilentNeurons([1.0, 0.0], 0.1, targeted=False, exponential=False)
        for _ in range(2):
            policy.raise_weights_(network, self.record([[1.0] * 3] * 2, [[math.inf, 1.0]] * 2))
        torch.testing.assert_close(network[1].weight.detach(), torch.full((2, 3), 0.2))
