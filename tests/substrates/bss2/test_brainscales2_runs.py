"""Training on the chip, here a stand-in, and what becomes of a training when it stalls for good."""

import json
import sys

import pytest
import torch

from firstspike.cli import main
from firstspike.config import load_config
from firstspike.runs import Run
from firstspike.runs.checkpoint import checkpoints, load_checkpoint
from firstspike.substrates import MockBss2, SubstrateError
from trained import resume, start

ON_CHIP = "substrate={kind: brainscales2, calibration: ideal.pbin, retries: 2}"
SMALL = ["data.train=40", "data.validation=20", "data.test=20", "training.epochs=3", "training.checkpoint_every=10"]


@pytest.fixture(autouse=True)
def chip(machine):
    return machine


def final_state(folder):
    tables = [(folder / f"{name}.csv").read_bytes() for name in ("metrics", "output_times")]
    return tables, load_checkpoint(checkpoints(folder / "checkpoints")[-1]).weights


@pytest.mark.slow
def test_training_and_another_chip(machine, tmp_path):
    start(tmp_path / "run", load_config("bars_mock_bss2", [*SMALL, ON_CHIP]), progress_bar=False)
    identity = json.loads((tmp_path / "run" / "environment.json").read_text())["substrate"]
    assert identity["chip"] == "hxcube1chip7"
    assert identity["calibration_sha256"]
    assert machine.calls[-1] == "end"
    weights = Run(tmp_path / "run").network[1].weight
    assert not torch.equal((weights * 30).round() / 30, weights)  # trained in full
    machine.name = "another"
    with pytest.raises(ValueError, match="trained on chip hxcube1chip7, this is chip another"):
        resume(tmp_path / "run", epochs=4, progress_bar=False)
    assert machine.calls[-1] == "end"
    resume(tmp_path / "run", epochs=4, progress_bar=False, allow_other_chip=True)


@pytest.mark.slow
def test_seeds_take_turns_on_one_chip(machine, tmp_path):
    start(tmp_path / "run", load_config("bars_mock_bss2", [*SMALL, ON_CHIP, "training.n_seeds=2"]), progress_bar=False)
    assert (machine.calls.count("setup"), machine.calls.count("end")) == (1, 1)


@pytest.mark.slow
def test_a_chip_that_stalls_for_good_leaves_the_last_whole_epoch(machine, tmp_path):
    config = load_config("bars_mock_bss2", [*SMALL, ON_CHIP])
    start(tmp_path / "whole", config, progress_bar=False)
    runs = machine.runs_ms.copy()
    machine.runs_ms.clear()

    whole_run = machine.run

    def failing(runtime):
        if len(machine.runs_ms) > 0.6 * len(runs):
            machine.stalls = 2
        whole_run(runtime)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["pynn_brainscales.brainscales2"], "run", failing)
        with pytest.raises(
            SubstrateError, match=r"chip .* stalled 2 times in a row .*epoch_000[12] is saved; continue with"
        ):
            start(tmp_path / "parts", config, progress_bar=False)
    machine.stalls = 0
    names = [path.name for path in checkpoints(tmp_path / "parts" / "checkpoints")]
    assert names[-1] in ("epoch_0001", "epoch_0002")
    resume(tmp_path / "parts", progress_bar=False)
    (tables, weights), (others, found) = final_state(tmp_path / "whole"), final_state(tmp_path / "parts")
    assert tables == others
    assert all(torch.equal(weights[key], found[key]) for key in weights)


@pytest.mark.slow
def test_so_does_the_emulated_one(tmp_path, monkeypatch, capsys):
    """Its noise goes on where it was, so that the run ends as if it had never stalled."""
    settings = [*SMALL, "training.epochs=4"]
    start(tmp_path / "whole", load_config("bars_mock_bss2", settings), progress_bar=False)
    calls, ran = [], MockBss2.run

    def failing(self, network, times):
        calls.append(len(times))
        if len(calls) == 7:  # in the middle of the third epoch
            raise SubstrateError("the mock chip 1 stalled 5 times in a row")
        return ran(self, network, times)

    monkeypatch.setattr(MockBss2, "run", failing)
    sets = [part for setting in settings for part in ("--set", setting)]
    monkeypatch.setattr(sys, "argv", ["firstspike", "train", "bars_mock_bss2", "-q", "--out", "parts", *sets])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    shown = capsys.readouterr().err.splitlines()
    saved = checkpoints(tmp_path / "parts" / "checkpoints")[-1].name
    assert shown == [
        f"error: the mock chip 1 stalled 5 times in a row. {saved} is saved; continue with: firstspike resume parts"
    ]
    resume(tmp_path / "parts", progress_bar=False)
    (tables, weights), (others, found) = final_state(tmp_path / "whole"), final_state(tmp_path / "parts")
    assert tables == others
    assert all(torch.equal(weights[key], found[key]) for key in weights)


@pytest.mark.slow
def test_a_stall_in_the_first_epoch(tmp_path, monkeypatch):
    config = load_config("bars_mock_bss2", [*SMALL, "substrate.stall=1", "substrate.retries=2"])
    with pytest.raises(SubstrateError, match="epoch_0000 is saved; continue with: firstspike resume"):
        start(tmp_path / "run", config, progress_bar=False)
    text = (tmp_path / "run" / "config.yaml").read_text()
    (tmp_path / "run" / "config.yaml").write_text(text.replace("stall: 1.0", "stall: 0.0"))
    assert resume(tmp_path / "run", progress_bar=False)["epochs"] == 3
