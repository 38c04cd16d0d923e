"""Trainings that fail: an error of their own where weights are not finite, a warning where nothing was learnt."""

import csv
import math
import re
import sys
from contextlib import nullcontext

import pytest
import torch

import firstspike as fs
from firstspike.cli import main
from firstspike.config import build, load_config
from firstspike.layers import start_firing_
from firstspike.runs.checkpoint import checkpoints, load_checkpoint
from firstspike.training.divergence import Cures, DivergedError, signs_of_failure, signs_of_silence, staying_finite
from firstspike.training.evaluation import Evaluation, evaluate
from firstspike.training.objective import Objective
from trained import resume, start

SETTINGS = ["data.train=40", "data.validation=30", "data.test=30", "training.batch_size=10", "training.epochs=4"]
EXPLODES = ["training.schedule={kind: step, step_size: 2, gamma: 1.0e+41}", "training.checkpoint_every=100"]
HOPELESS = ["training.optimizer={kind: adam, lr: 1.0e-6}"]


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["firstspike", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, capsys.readouterr().err


def flags(settings):
    return [part for setting in settings for part in ("--set", setting)]


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_state_before_is_saved(tmp_path, monkeypatch, capsys, seeds):
    run, settings = tmp_path / "run", [*SETTINGS, *EXPLODES, f"training.n_seeds={seeds}"]
    code, said = command(monkeypatch, capsys, "train", "bars", "-q", "--out", run, *flags(settings))
    assert code == 1
    which = ", seed 2000" if seeds > 1 else ""
    assert said.startswith(f"error: the training diverged in epoch 3{which}: weights are not finite any more. Try a ")
    assert said.endswith(f"than 0.02. The state before is saved in {run}, as epoch_0002\n")
    assert said.count("\n") == 1
    start(tmp_path / "two", load_config("bars", [*settings, "training.epochs=2"]), progress_bar=False)
    for folder in ["seed_2000", "seed_2001"] if seeds > 1 else ["."]:
        found, expected = (
            load_checkpoint(checkpoints(top / folder / "checkpoints")[-1]) for top in (run, tmp_path / "two")
        )
        assert (found.name, found.epoch, found.batch) == ("epoch_0002", 2, 0)
        assert same(found.weights, expected.weights)
        for state in (found.state, expected.state):
            state["progress"].pop("seconds")
        assert same(found.state, expected.state)
        with (run / folder / "metrics.csv").open() as file:
            assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    with pytest.raises(DivergedError, match="in epoch 3"):
        resume(run, progress_bar=False)


def test_in_the_first_epoch(tmp_path):
    settings = [*SETTINGS, "training.optimizer={kind: sgd, lr: 1.0e+42}", "training.max_weight_grad=null"]
    with pytest.raises(DivergedError, match=r"in epoch 1: .* than 1e\+42, or a bound on gradients") as raised:
        start(tmp_path / "run", load_config("bars", settings), progress_bar=False)
    assert isinstance(raised.value, FloatingPointError)
    first = load_checkpoint(tmp_path / "run" / "checkpoints" / "epoch_0000")
    assert same(first.weights, dict(build(load_config("bars", settings)).members[0].network.state_dict()))


@pytest.mark.parametrize("finite", [True, False])
def test_only_what_comes_of_it_is_put_down_to_it(finite):
    (member,) = build(load_config("bars", SETTINGS)).members
    if not finite:
        member.network[1].weight.data[0, 0] = math.nan
    expected, message = (ValueError, "mine") if finite else (DivergedError, "in epoch 7")
    with pytest.raises(expected, match=message), staying_finite([member], 7, [0]):
        raise ValueError("mine")
    with pytest.raises(DivergedError, match="in epoch 8"), staying_finite([member], 8, [0]):
        member.network[0].weight.data[0, 0] = math.inf


def test_an_increment_that_doubled_too_often_is_divergence():
    with pytest.raises(DivergedError), staying_finite(build(load_config("bars", SETTINGS)).members, 1, [0]):
        _ = 0.1 * 2**5000


def test_a_training_that_learnt_nothing_says_so(tmp_path, monkeypatch, capsys, caplog):
    code, _ = command(
        monkeypatch, capsys, "train", "bars", "-q", "--out", tmp_path / "run", *flags([*SETTINGS, *HOPELESS])
    )
    assert code == 0
    assert "of the validation data correct the network is no better than guessing: the most frequent" in caplog.text


def test_seeds_are_named(tmp_path, caplog):
    start(tmp_path / "run", load_config("bars", [*SETTINGS, *HOPELESS, "training.n_seeds=2"]), progress_bar=False)
    assert "seed 2001: with" in caplog.text


def test_nothing_is_said_of_a_network_that_learnt(bars_folder):
    run = fs.Run(bars_folder)
    assert signs_of_failure(evaluate(run.network, Objective(run.loss), run.data.validation), {}) == []


def test_outputs_that_never_rise_are_told():
    times, labels = torch.rand(20, 3, 2).sort(dim=-1).values, torch.arange(20) % 2
    network = fs.Network(fs.MaximumReadout(3, 4, weight_mean=0.5, weight_std=0.0))
    objective = Objective(fs.losses.ReadoutCrossEntropy())
    told = "2 outputs have the value 0 in most validation data of their class, and no gradient"
    for sign, expected in ((1, False), (-1, True)):
        with torch.no_grad():
            network[0].weight[2:] = 0.5 * sign
        found = signs_of_failure(evaluate(network, objective, fs.data.SpikeData(times, labels, tuple("abcd"))), {})
        assert any(told in x for x in found) == expected


def test_dead_outputs_and_silent_layers_are_told():
    times, labels = torch.rand(20, 3, 2).sort(dim=-1).values, torch.arange(20) % 2
    network = fs.Network(fs.LIFSpikeTrains(3, 4, 9, weight_mean=0.0, weight_std=0.0), fs.IntegralReadout(4, 2))
    data = fs.data.SpikeData(times, labels, tuple("ab"))
    found = evaluate(network, Objective(fs.losses.ReadoutCrossEntropy()), data)
    assert found.dead_outputs == 1.0
    assert any(
        "100.0 % of the neurons of a layer are silent in the validation data" in x for x in signs_of_failure(found, {})
    )
    values = torch.ones(20, 2)
    values[1::2, 1] = 0.0  # in its own class
    half = type(found)(**{**vars(found), "times": values, "silent": (0.5,)})
    assert half.dead_outputs == 0.5
    assert any(x.startswith("1 outputs have the value 0 in most") for x in signs_of_failure(half, {}))
    assert type(found)(**{**vars(found), "times": values.flip(1), "silent": (0.5,)}).dead_outputs == 0.0
    spikes = torch.where(values == 0, math.inf, values)
    assert type(found)(**{**vars(found), "times": spikes, "readout": False}).dead_outputs == 0.5


SILENT = {"weight_mean": 0.01, "weight_std": 0.0}
BURSTS = {"overflow": "drop", "weight_mean": 9.0, "weight_std": 0.0}
FULL = r"100 % of the trains of layer 0 are full in the training data: its neurons burst, .*most=2\)"
IDLE = fs.MaximumReadout(9, 3, weight_mean=-0.5, weight_std=0.0)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([fs.LIFSpikeTrains(9, 6, 4, **SILENT), fs.IntegralReadout(6, 3)], "100.0 % of the neurons of layer 0"),
        ([fs.LIFLinear(9, 6), fs.LIFLinear(6, 3, **SILENT)], "100.0 % of the neurons of layer 1"),
        ([fs.LIFSpikeTrains(9, 6, 4, **BURSTS), fs.IntegralReadout(6, 3)], FULL),
        ([fs.LIFSpikeTrains(9, 6, 1, **BURSTS), fs.IntegralReadout(6, 3)], ""),
        ([IDLE], "3 outputs have the value 0 in most validation data of their class"),
        ([IDLE, torch.nn.Linear(3, 3)], "3 outputs have the value 0 in most validation data,"),
    ],
)
def test_what_dies_is_told_early_once(layers, said, caplog):
    network, data = fs.Network(*layers).double(), fs.data.bars(samples=12)
    loss = fs.losses.ReadoutCrossEntropy() if network.gives == "values" else fs.losses.TimeCrossEntropy()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6)
    trainer = fs.Trainer(network, loss, optimizer, silent=fs.SilentNeurons(limits=1))
    trainer.fit(data, data, epochs=5, batch_size=12, progress_bar=False)
    early = [x for x in caplog.messages if x.startswith("epoch ")]
    assert len(early) == bool(said)
    assert all(re.match(f"epoch 3: {said}", x) for x in early)
    assert any(re.match(said, x) for x in caplog.messages) or not said, "at the end, too"
    caplog.clear()
    trainer.fit(data, epochs=6, batch_size=12, progress_bar=False)
    assert [bool(re.match(said, x)) for x in caplog.messages] == [True] * ("layer 0" in said or "layer 1" in said)


def test_a_loss_that_is_not_finite(bars_folder):
    run = fs.Run(bars_folder)
    found = evaluate(run.network, Objective(run.loss), run.data.validation)
    (sign,) = signs_of_failure(type(found)(**{**vars(found), "loss": math.nan}), {})
    assert sign == "the loss on the validation data is nan"


def test_silent_neurons_before_a_layer_of_torch_are_named(tmp_path):
    network = torch.nn.Sequential(fs.LIFLinear(3, 4), torch.nn.Linear(4, 2))
    with torch.no_grad():
        network[0].weight[0] = -1.0
        network[1].weight[1, 0] = math.nan  # what inf has led to
    trainer = fs.Trainer(network, fs.losses.TimeCrossEntropy(), torch.optim.Adam(network.parameters()))
    said = r"Or do spike times enter the Linear '1'\? A silent neuron has the time inf, .* give it times\.clamp"
    with pytest.raises(DivergedError, match=said), staying_finite(trainer.members, 1, [0]):
        pass


@pytest.mark.parametrize(
    ("shape", "said"), [((4, 1), "labels' mean; scale them"), ((4, 1, 2), "number of spikes of the")]
)
def test_numbers_and_target_trains_that_are_not_learnt(shape, said):
    labels = torch.rand(shape).sort(dim=-1).values + 1
    labels[0, ..., 1:] = math.inf  # another number of spikes
    data = fs.data.SpikeData(torch.rand(4, 3) + 1, labels)
    trains = len(shape) == 3
    last = fs.SpikeTrains(3, 1, 5, weight_mean=0.0, weight_std=0.0) if trains else fs.MembraneReadout(3, 1, time=0.5)
    loss = fs.losses.VanRossum(1.0) if trains else fs.losses.ReadoutRegression()
    network = fs.Network(last)
    (found,) = [x for x in signs_of_failure(evaluate(network, Objective(loss), data), {}) if "r2" in x]
    assert said in found
    assert ("SpikeErrors" in found) == trains


TOLD = {
    2e3: r"come about 100 times further apart .* constant of neurons, 2, .* divide the times, .* neuron.tau_mem",
    1e-3: "within about 0.0008 of the shortest time constant of neurons, 1, .* multiply the times",
}


@pytest.mark.parametrize("unit", [2e3, 1.0, 0.05, 1e-3])
def test_times_in_another_unit_are_told_at_the_start_and_in_the_first_batch(unit):
    times, labels = unit * torch.rand(20, 3, 2, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
    data = fs.data.SpikeData(times.sort(dim=-1).values, labels, ("a", "b"))
    network = fs.Network(fs.LIFSpikeTrains(3, 4, 9, fs.LIF(2.0), overflow="drop"), fs.IntegralReadout(4, 2))
    trainer = fs.Trainer(network, fs.losses.ReadoutCrossEntropy(), torch.optim.SGD(network.parameters(), lr=0.0))
    for what in (lambda: start_firing_(network, data.times), lambda: trainer.fit(data, epochs=1, progress_bar=False)):
        with pytest.warns(UserWarning, match=TOLD[unit]) if unit in TOLD else nullcontext():
            what()
    trainer.fit(data, epochs=2, progress_bar=False)  # later batches say nothing; warnings are errors


INTEGRAL = fs.Network(fs.LIFSpikeTrains(3, 4, 9), fs.IntegralReadout(4, 2))
MAXIMUM = fs.Network(fs.LIFSpikeTrains(3, 4, 9, weight_mean=1.0, weight_std=0.0), fs.MaximumReadout(4, 2))
COUNT = r"add the regulariser SpikeCount\(0.1, least=0.5\), or lower the limits of SilentNeurons$"
KEY = r"add \{kind: spike_count, alpha: 0.1, least: 0.5\} to loss.regularizers, or lower training.silent.limits$"


@pytest.mark.parametrize(
    ("cures", "silent", "cure"),
    [
        (Cures(INTEGRAL), 1.0, "no spike reaches them: start with start_firing_, " + COUNT),
        (Cures(MAXIMUM), 1.0, "no spike reaches them: start with start_firing_, " + COUNT),
        (Cures(MAXIMUM), 0.2, r"above rest: start with start_firing_, MaximumReadout\(negative_slope=0.1\)$"),
        (Cures(INTEGRAL, keys=True), 1.0, "no spike reaches them: " + KEY),
        (Cures(MAXIMUM, keys=True), 1.0, "no spike reaches them: leave out weight_mean and weight_std, " + KEY),
        (Cures(MAXIMUM, keys=True), 0.2, r"weight_mean and weight_std, network\[1\].negative_slope: 0.1$"),
        (Cures(INTEGRAL, misfit=True), 1.0, "no spike reaches them: fit the unit of the times .* said above, or start"),
    ],
)
def test_cures_are_those_of_the_network_in_the_terms_that_made_it(cures, silent, cure):
    zeros, labels = torch.zeros(6, 2), torch.arange(6) % 2
    sign = signs_of_silence(Evaluation(0.7, 0.5, (silent,), zeros, labels, labels, readout=True), {}, cures)[-1]
    assert re.search(f"2 outputs have the value 0 in most validation data of their class.* {cure}", sign)


def test_too_many_spikes_name_layer_and_key(tmp_path, monkeypatch, capsys):
    first = "{kind: spike_trains, out_features: 9, max_spikes: 1, weight_mean: 9, weight_std: 0}"
    layers = f"network=[{first}, {{kind: integral, out_features: 3}}]"
    settings = flags([*SETTINGS, layers, "loss={kind: readout_cross_entropy}", "training.silent={limits: 1.0}"])
    code, told = command(monkeypatch, capsys, "train", "bars", "-q", "--out", tmp_path / "run", *settings)
    assert code == 2
    assert re.search(r"network\[0\]: \d+ of \d+ neurons .*; raise network\[0\]\.max.* network\[0\]\.overflow='w", told)
