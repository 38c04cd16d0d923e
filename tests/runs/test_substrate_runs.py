"""Training, testing and resuming on substrates other than the exact one."""

import json
import shutil

import pytest
import torch
import yaml

from firstspike.config import ConfigError, build, build_data, load_config
from firstspike.config.builder import build_substrate
from firstspike.config.load import with_substrate
from firstspike.config.sections import SUBSTRATE_SECTIONS
from firstspike.runs import Run
from firstspike.runs.checkpoint import checkpoints, load_checkpoint
from firstspike.substrates import SUBSTRATES, Exact, Substrate, SubstrateError
from firstspike.training import Interrupted
from firstspike.training.engines import Sequential, engine_for
from firstspike.training.evaluation import evaluate
from trained import resume, start

SHORT = ["training.epochs=3", "training.checkpoint_every=1"]
INTEGRATOR = "substrate={kind: integrator, step: 0.02, duration: 5}"


def test_kind_in_place_of_the_configs():
    assert load_config("bars", substrate="integrator").substrate == SUBSTRATE_SECTIONS["integrator"](kind="integrator")
    own = load_config("bars", [INTEGRATOR])
    assert with_substrate(own, "integrator").substrate.step == 0.02
    assert with_substrate(own, None) is own
    assert with_substrate(own, "exact").substrate == SUBSTRATE_SECTIONS["exact"](kind="exact")
    with pytest.raises(ConfigError, match=r"substrate.kind: expected one of 'exact', 'integrator'"):
        load_config("bars", substrate="loihi")
    with pytest.raises(ConfigError, match=r"substrate\.stepp: unknown key, did you mean step\?"):
        load_config("bars", ["substrate={kind: integrator, stepp: 0.1}"])
    with pytest.raises(ConfigError, match=r"duration must be 1 to a million steps, got 0.05 in steps of 0.1"):
        load_config("bars", ["substrate={kind: integrator, step: 0.1, duration: 0.05}"])


def test_noisy_by_name_alone_is_noisy(tmp_path):
    typical = {"threshold_spread": 0.03, "threshold_batch_noise": 0.015, "spike_jitter": 0.01, "delay_jitter": 0.01}
    by_name = load_config("bars", substrate="noisy").substrate
    assert by_name == SUBSTRATE_SECTIONS["noisy"](kind="noisy", **typical)
    assert load_config("bars", ["substrate={kind: noisy, seed: 3}"]).substrate.spike_jitter == 0.01
    assert with_substrate(load_config("bars"), "noisy").substrate == by_name
    assert isinstance(build_substrate(load_config("bars", substrate="noisy")), SUBSTRATES["noisy"])

    own = load_config("bars", ["substrate={kind: noisy, spike_jitter: 0.2}"]).substrate
    assert (own.spike_jitter, own.threshold_spread, own.threshold_batch_noise, own.delay_jitter) == (0.2, 0, 0, 0)
    assert load_config("bars", ["substrate={kind: noisy, weight_max: 2}"]).substrate.spike_jitter == 0.0
    ideal = load_config("bars", ["substrate={kind: noisy, threshold_spread: 0}"])
    assert not any(x for name, x in ideal.substrate.arguments().items() if name != "noise_time")
    (tmp_path / "as_it_ran.yaml").write_text(ideal.to_yaml())
    assert load_config(tmp_path / "as_it_ran.yaml") == ideal


def test_evaluation_on_noisy_by_name_has_noise(bars_folder):
    exact, noisy = (Run(bars_folder, substrate=kind).evaluate() for kind in (None, "noisy"))
    both = torch.isfinite(exact.times) & torch.isfinite(noisy.times)
    assert 0.001 < float((exact.times - noisy.times)[both].std()) < 0.5


SMALL = ["data.train=200", "data.validation=100", "data.test=100", "training.epochs=4", "training.checkpoint_every=1"]
NOISE = ["substrate.threshold_sample_noise=0.02", "substrate.input_jitter=0.01", "substrate.spike_loss=0.01"]
CHIP = ["substrate.threshold_sample_noise=0.02", "substrate.spike_jitter=0.01", "substrate.stall=0.1"]


def final_state(folder):
    tables = [(folder / f"{name}.csv").read_bytes() for name in ("metrics", "output_times")]
    return tables, load_checkpoint(checkpoints(folder / "checkpoints")[-1]).weights


def stopping_after(batches):
    left = iter(range(10**9))
    return lambda: next(left) >= batches


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "more"), [("yin_yang_hardware_aware", NOISE), ("yin_yang_mock_bss2", CHIP)], ids=["noisy", "mock_bss2"]
)
@pytest.mark.parametrize("batches", [3, 12])
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, name, more, batches):
    config = load_config(name, [*SMALL, *more, "training.augment.jitter=0.02"])
    start(tmp_path / "whole", config, progress_bar=False)
    with pytest.raises(Interrupted):
        start(tmp_path / "parts", config, progress_bar=False, stop=stopping_after(batches))
    resume(tmp_path / "parts", progress_bar=False)
    (tables, weights), (others, found) = final_state(tmp_path / "whole"), final_state(tmp_path / "parts")
    assert tables == others
    assert all(torch.equal(weights[key], found[key]) for key in weights)
    results = [json.loads((tmp_path / run / "results.json").read_text()) for run in ("whole", "parts")]
    assert results[0]["test"] == results[1]["test"]


@pytest.mark.slow
def test_noise_leaves_the_trainings_random_numbers_alone(tmp_path):
    silent = ["substrate.threshold_offset=0", "substrate.threshold_spread=0", "substrate.threshold_batch_noise=0"]
    base = [*SMALL, "training.augment.jitter=0.02", "training.dtype=float64"]
    off = ["substrate={kind: noisy, threshold_spread: 0}"]
    start(
        tmp_path / "exact",
        load_config("yin_yang_hardware_aware", [*base, "substrate={kind: exact}"]),
        progress_bar=False,
    )
    start(tmp_path / "off", load_config("yin_yang_hardware_aware", [*base, *off]), progress_bar=False)
    a, b = (Run(tmp_path / name).metrics["train_loss"] for name in ("exact", "off"))
    assert a == pytest.approx(b, rel=1e-9)
    start(
        tmp_path / "drawn", load_config("yin_yang_hardware_aware", [*base, *silent]), progress_bar=False
    )  # delays jitter
    assert Run(tmp_path / "drawn").metrics["train_loss"][0] != a[0]


def test_weights_stay_within_the_chips_range(tmp_path):
    config = load_config("yin_yang_mock_bss2", [*SMALL, "network[2].weight_mean=2.0", "training.optimizer.lr=0.1"])
    start(tmp_path / "run", config, progress_bar=False)
    weights = Run(tmp_path / "run").network[2].weight
    assert float(weights.abs().max()) == pytest.approx(2.1)
    assert not torch.equal((weights * 30).round() / 30, weights)


@pytest.fixture(scope="module")
def on_chip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chip") / "run"
    start(folder, load_config("yin_yang_mock_bss2", SMALL), progress_bar=False)
    return folder


def test_the_chip_is_in_the_run_folder(on_chip):
    identity = json.loads((on_chip / "environment.json").read_text())["substrate"]
    assert identity["chip"] == "mock 1"
    assert identity["settings"]["threshold_spread"] == 0.08
    kept = load_checkpoint(checkpoints(on_chip / "checkpoints")[-1]).state["substrate"]
    assert kept["identity"] == identity


def test_results_go_on_with_the_noise_of_the_training_and_evaluations_begin_it_anew(on_chip):
    run, found = Run(on_chip), []
    for noise in (run.checkpoint.state["substrate"]["state"], None):
        with build_substrate(run.config).open(run.network) as chip:
            if noise is not None:
                chip.load_state_dict(noise)
                evaluate(run.network, run.objective, run.data.validation, chip)  # before the test data
            found.append(evaluate(run.network, run.objective, run.data.test, chip).loss)
    assert found[0] == run.results["test"]["loss"]
    assert found[1] == run.evaluate("test").loss != found[0]


def test_another_chip_is_refused_unless_allowed(on_chip, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(on_chip, folder)
    text = (folder / "config.yaml").read_text()
    assert "chip: 1\n" in text
    (folder / "config.yaml").write_text(text.replace("chip: 1\n", "chip: 2\n"))
    before = (folder / "metrics.csv").read_bytes()
    with pytest.raises(ValueError, match=r"trained on chip mock 1, this is chip mock 2.*--allow-other-chip"):
        resume(folder, epochs=5, progress_bar=False)
    assert (folder / "metrics.csv").read_bytes() == before
    resume(folder, epochs=5, progress_bar=False, allow_other_chip=True)
    found = json.loads((folder / "environment.json").read_text())
    assert found["substrate"]["chip"] == "mock 2"
    assert [x["chip"] for x in found["earlier_substrates"]] == ["mock 1"]
    resume(folder, epochs=6, progress_bar=False)  # by now it is a run of that chip
    (folder / "config.yaml").write_text(
        yaml.safe_dump(yaml.safe_load((folder / "config.yaml").read_text()) | {"substrate": {"kind": "exact"}})
    )
    with pytest.raises(ValueError, match="trained on chip mock 2, this is not a chip"):
        resume(folder, epochs=7, progress_bar=False)


def test_a_chip_that_stalls_for_good_ends_the_training_with_one_message(tmp_path):
    with pytest.raises(SubstrateError, match="stalled 2 times"):
        start(tmp_path, load_config("bars_mock_bss2", ["substrate.stall=1", "substrate.retries=2"]), progress_bar=False)
    with pytest.raises(ValueError, match="612 neuron circuits needed"):
        start(tmp_path / "none", load_config("bars_mock_bss2", ["network[1].out_features=597"]), progress_bar=False)
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_each_seed_on_a_substrate_is_trained_as_if_alone(tmp_path):
    settings = [*SMALL, "training.seed=5"]
    start(
        tmp_path / "all", load_config("yin_yang_hardware_aware", [*settings, "training.n_seeds=2"]), progress_bar=False
    )
    start(tmp_path / "6", load_config("yin_yang_hardware_aware", [*SMALL, "training.seed=6"]), progress_bar=False)
    (tables, weights), (others, found) = final_state(tmp_path / "all" / "seed_6"), final_state(tmp_path / "6")
    assert tables == others
    assert all(torch.equal(weights[key], found[key]) for key in weights)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings", "chance"),
    [
        ("bars_mock_bss2", ["training.epochs=10"], 1 / 3),
        ("yin_yang_mock_bss2", ["data.train=1500", "training.epochs=3"], 1 / 3),
        ("yin_yang_hardware_aware", ["data.train=1500", "training.epochs=4"], 1 / 3),
    ],
)
def test_shipped_configs_learn_in_a_few_epochs(tmp_path, name, settings, chance):
    results = start(tmp_path / "run", load_config(name, settings), progress_bar=False)
    assert results["best_validation_accuracy"] > chance + 0.2


def test_several_seeds_take_turns():
    trainer = build(load_config("bars", [INTEGRATOR, "training.n_seeds=2"]))
    assert type(engine_for(trainer.members, trainer.objective)) is Sequential


def test_the_training_step_takes_the_times_of_the_substrate():
    config = load_config("bars", [INTEGRATOR])
    trainer, data = build(config), build_data(config).train
    substrate = trainer.members[0].substrate
    _, loss, record = trainer.objective(trainer.network, data.times[:30], data.labels[:30], substrate)
    for layer in record.layers:
        grid = layer[torch.isfinite(layer)].detach() / 0.02
        torch.testing.assert_close(grid, grid.round(), rtol=0, atol=1e-3)
    loss.backward()
    assert float(trainer.network[0].weight.grad.abs().max()) > 0


@pytest.fixture(scope="module")
def integrated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("substrates") / "bars"
    start(folder, load_config("bars", [*SHORT, "training.epochs=15", INTEGRATOR]), progress_bar=False)
    return folder


@pytest.mark.slow
def test_a_run_on_the_integrator_learns(integrated):
    run = Run(integrated)
    assert run.results["test"]["accuracy"] > 0.6  # chance is a third
    assert run.evaluation.accuracy == run.results["test"]["accuracy"]
    assert run.substrate == "integrator"
    identity = json.loads((integrated / "environment.json").read_text())["substrate"]
    assert identity == {"kind": "integrator", "step": 0.02, "duration": 5.0}


def test_evaluate_elsewhere(integrated):
    here, there = (Run(integrated, substrate=kind).evaluate() for kind in (None, "exact"))
    assert (here.name, there.name) == ("test", "test_on_exact")
    assert there.numbers["substrate"] == "exact"
    difference = (here.times - there.times).abs()
    both = torch.isfinite(here.times) & torch.isfinite(there.times)
    assert 0 < float(difference[both].median()) < 0.06
    assert {path.name for path in there.save()} == {"test_on_exact.json", "test_on_exact.npz"}
    rounded = Run(here.run.folder, substrate="exact", settings=["substrate.weight_bits=4"]).evaluate("test")
    assert rounded.name == "test_on_exact_weight_bits=4"


class OnlyOne(Exact):
    exclusive = True
    side_by_side = False
    opened = closed = 0

    def open(self, network):
        OnlyOne.opened += 1
        return self

    def close(self):
        OnlyOne.closed += 1


@pytest.mark.slow
def test_several_seeds_share_what_there_is_only_one_of(tmp_path, monkeypatch):
    monkeypatch.setattr(SUBSTRATE_SECTIONS["exact"], "_target", OnlyOne)
    settings = [*SHORT, "training.n_seeds=3", "data.train=60"]
    start(tmp_path / "run", load_config("bars", settings), progress_bar=False)
    assert (OnlyOne.opened, OnlyOne.closed) == (1, 1)
    monkeypatch.undo()
    start(tmp_path / "exact", load_config("bars", settings), progress_bar=False)
    for seed in (2000, 2001, 2002):
        one, other = (Run(tmp_path / name / f"seed_{seed}") for name in ("run", "exact"))
        assert one.results["test"] == other.results["test"]


class Broken(Substrate):
    kind = "exact"

    def __init__(self, weight_bits=None):
        self.weight_bits = weight_bits

    def open(self, network):
        raise OSError("no chip answers")

    def run(self, network, times):
        raise AssertionError("never open")


def test_a_substrate_that_does_not_open_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(SUBSTRATE_SECTIONS["exact"], "_target", Broken)
    assert isinstance(build_substrate(load_config("bars")), Broken)
    with pytest.raises(OSError, match="no chip answers"):
        start(tmp_path / "run", load_config("bars", SHORT), progress_bar=False)
    assert not (tmp_path / "run").exists()
