"""Checkpoints whose checksums are right and whose content belongs to something else."""

import json
import math
import shutil

import pytest
import torch

from damage import MANIFEST, STATE, read_state, read_weights, sign, write_state, write_weights
from firstspike.cli import main
from firstspike.config import build, build_data, load_config
from firstspike.runs import Run
from firstspike.runs.checkpoint import CheckpointError, checkpoints, load_checkpoint
from firstspike.runs.writer import RunWriter
from trained import start

SETTINGS = ["data.train=40", "data.validation=20", "data.test=20", "training.batch_size=10", "training.epochs=3"]
SETTINGS += ["training.schedule={kind: multi_step, milestones: [1, 2]}"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit") / "run"
    start(folder, load_config("bars", SETTINGS), progress_bar=False)
    return folder


@pytest.fixture
def newest(trained, tmp_path):
    """The newest checkpoint of a copy of the run."""
    return checkpoints(shutil.copytree(trained, tmp_path / "run") / "checkpoints")[-1]


def restore(trainer, folder):
    """Continue from a checkpoint, as a run does."""
    config = load_config("bars", SETTINGS)
    data = build_data(config)
    settings = {"epochs": 3, "batch_size": 10, "seed": config.training.seed, "progress_bar": False}
    writer = RunWriter(folder.parents[1], resume=True)
    trainer.fit(data.train, data.validation, test=data.test, callbacks=[writer], **settings)


def refused(newest, message):
    """The checkpoint is refused before anything of it is taken over."""
    trainer = build(load_config("bars", SETTINGS))
    (member,) = trainer.members
    before = {name: value.clone() for name, value in member.network.state_dict().items()}
    with pytest.raises(CheckpointError, match=message) as raised:
        restore(trainer, newest)
    assert "\n" not in str(raised.value)
    assert str(newest) in str(raised.value)
    assert all(torch.equal(value, before[name]) for name, value in member.network.state_dict().items())
    assert not member.optimizer.state_dict()["state"]
    assert member.optimizer.param_groups[0]["lr"] == 0.02


def at(state, *path):
    for key in path:
        state = state[key]
    return state


ADAM = ("optimizer", "state", 0)
CASES = {
    "shape of Adam's averages": (
        ADAM,
        "exp_avg",
        torch.zeros(9, 11),
        r"state: 0: exp_avg is float32 of shape \(9, 11\)",
    ),
    "type of Adam's averages": (ADAM, "exp_avg_sq", torch.zeros(11, 9).double(), "is float64 of shape"),
    "a step that is no tensor": (ADAM, "step", 3, "step is 3, expected float32 of shape"),
    "NaN in the optimiser": (ADAM, "exp_avg", torch.full((11, 9), math.nan), "has NaN: the training had diverged"),
    "another optimiser": (("optimizer", "state"), 0, {"momentum_buffer": torch.zeros(11, 9)}, "lacks 'step'"),
    "a parameter more": (("optimizer", "state"), 7, {}, "state of 7, which is none of the network's parameters"),
    "no state": ((), "optimizer", [], "optimizer is a list of 0, expected a mapping"),
    "a group more": (("optimizer",), "param_groups", [{}, {}], "param_groups is a list of 2, expected a list of 1"),
    "callbacks that are none": ((), "callbacks", torch.zeros(3), "callbacks does not hold the states"),
    "groups that are none": ((), "groups", torch.zeros(2), "saved with other parameters"),
    "groups of numbers": ((), "groups", [[1, 2]], "saved with other parameters"),
    "no schedule": ((), "schedule", None, "schedule is nothing, expected a mapping"),
    "other milestones": (("schedule",), "milestones", {5: 1}, "milestones lacks 1"),
    "more epochs than the manifest": (
        ("progress",),
        "epoch",
        2,
        "is at epoch 2, batch 0 of 4, but its manifest has epoch 3",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_states_that_do_not_fit(newest, case):
    path, key, value, message = CASES[case]
    state = read_state(newest)
    at(state, *path)[key] = value
    write_state(newest, state)
    refused(newest, message)


@pytest.mark.parametrize("part", ["optimizer", "schedule", "silent", "progress"])
def test_states_without_a_part(newest, part):
    state = read_state(newest)
    del state[part]
    write_state(newest, state)
    refused(newest, f"lacks '{part}'")


def test_a_batch_beyond_the_epoch(newest):
    state = read_state(newest)
    state["progress"]["batch"] = 9
    write_state(newest, state)
    manifest = json.loads((newest / MANIFEST).read_text()) | {"batch": 9}
    (newest / MANIFEST).write_text(json.dumps(manifest))
    refused(newest, "batch 9 of 4")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("0.weight", None, "lacks 0.weight: it belongs to another network than the config's"),
        (
            "0.weight",
            torch.zeros(9, 11),
            r"0\.weight is float32 of shape \(9, 11\), expected float32 of shape \(11, 9\)",
        ),
        ("0.weight", torch.zeros(11, 9).double(), "0.weight is float64"),
        ("0.weight", torch.full((11, 9), math.nan), "0.weight has NaN: the training had diverged"),
        ("0.weight", torch.full((11, 9), math.inf), "0.weight has infinite values"),
        ("2.weight", torch.zeros(3), "has 2.weight: it belongs to another network"),
    ],
)
def test_weights_that_do_not_fit(newest, name, value, message):
    weights = {key: tensor for key, tensor in read_weights(newest).items() if key != name}
    write_weights(newest, weights if value is None else weights | {name: value})
    refused(newest, message)
    with pytest.raises(CheckpointError, match=message):
        _ = Run(newest.parents[1], newest.name).network


def test_what_a_newer_torch_keeps_beside_is_left_out_and_what_an_older_one_lacks_is_its_own(newest):
    state = read_state(newest)
    del state["schedule"]["_last_lr"]
    state["schedule"]["step"] = 5  # would hide the method
    state["optimizer"]["param_groups"][0].pop("weight_decay")
    state["optimizer"]["param_groups"][0] |= {"fused": False, "capturable": True, "other": []}
    write_state(newest, state)
    trainer = build(load_config("bars", SETTINGS))
    restore(trainer, newest)
    (member,) = trainer.members
    (group,) = member.optimizer.param_groups
    assert (group["fused"], group["capturable"], group["weight_decay"]) == (False, False, 0.0)
    assert group["lr"] == pytest.approx(0.02 * 0.1**2)
    assert "other" not in group
    member.schedule.step()


def test_one_message_and_nothing_changed(newest, monkeypatch, capsys):
    run = newest.parents[1]
    state = read_state(newest)
    state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(3)
    write_state(newest, state)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    monkeypatch.setattr("sys.argv", ["firstspike", "resume", str(run), "-q", "--epochs", "5"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {newest}: optimizer: state: 0: exp_avg")
    assert said.count("\n") == 1
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive"])
def test_a_state_that_is_no_archive(newest, content):
    (newest / STATE).write_bytes(content)
    sign(newest)
    with pytest.raises(CheckpointError, match=r"state\.pt is refused: "):
        load_checkpoint(newest)


@pytest.mark.parametrize("state", [[1, 2], torch.zeros(3), {1: 2}, None])
def test_a_state_that_is_no_mapping_of_names(newest, state):
    write_state(newest, state)
    with pytest.raises(CheckpointError, match="refused: expected a mapping of names, it holds a"):
        load_checkpoint(newest)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged"),
        ("[]", "of another version: .*expected a section with the keys format, epoch"),
        ("null", "got None"),
        ("[" * 100_000, "is damaged"),
        ('{"format": 1}', "epoch is missing"),
        ('{"format": 2}', "format should be 1, got 2"),
        ('{"format": "x"}', "format should be 1, got 'x'"),
        ('{"epoch": 1}', "format is missing"),
        ('{"format": 1, "epoch": 1e999, "batch": 0, "sha256": {}}', "epoch should be a valid integer, got inf"),
        (
            '{"format": 1, "epoch": -1, "batch": 0, "sha256": {}}',
            "epoch should be greater than .*, got -1",
        ),
        ('{"format": 1, "epoch": true, "batch": 0, "sha256": {}}', "epoch should be a valid integer, got True"),
        ('{"format": 1, "epoch": 1, "batch": 0, "sha256": []}', "sha256 should be a valid dictionary"),
        (
            '{"format": 1, "epoch": 1, "batch": 0, "sha256": {"state.pt": 5}}',
            "sha256.state.pt should be a valid str",
        ),
        ('{"format": 1, "epoch": 1, "batch": 0, "sha256": {}}', "checksum differs"),
    ],
)
def test_manifests_that_are_none(newest, text, message):
    (newest / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match=message) as raised:
        load_checkpoint(newest)
    assert "\n" not in str(raised.value)
    checkpoints(newest.parent)  # leaves it out, or not, and does not stumble


@pytest.mark.parametrize("name", ["epoch_²", "x", "epoch_٣", "_", "epoch_" + "9" * 200])
def test_folders_of_any_name_lie_beside_checkpoints(newest, name):
    (newest.parent / name).mkdir()
    assert newest in checkpoints(newest.parent)
    assert Run(newest.parents[1]).checkpoint.name == newest.name
