"""A run starts over where nothing was saved yet, and nowhere else."""

import errno
import json
import logging
import os
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import firstspike as fs
from damage import MANIFEST
from firstspike.cli import main
from firstspike.config import build, build_data, load_config
from firstspike.runs import Run, writer
from firstspike.runs import checkpoint as checkpoint_module
from firstspike.runs.checkpoint import CheckpointError, checkpoints, save_checkpoint
from firstspike.runs.files import remove_folder
from firstspike.training import Interrupted
from trained import resume, start

SETTINGS = ["data.train=40", "data.validation=20", "data.test=20", "training.batch_size=10", "training.epochs=4"]
SETTINGS += ["training.checkpoint_every=1", "training.seed=7"]
TABLES = ("metrics.csv", "output_times.csv")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Finished runs, of one seed and of two."""
    top = tmp_path_factory.mktemp("resume")
    for name, seeds in (("alone", 1), ("seeds", 2)):
        start(top / name, load_config("bars", [*SETTINGS, f"training.n_seeds={seeds}"]), progress_bar=False)
    return top


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same_tables(one, other):
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in TABLES if (other / name).exists())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alone", "seeds"])
def test_checkpoints_of_a_newer_format_stop_it_and_from_scratch_insists(trained, tmp_path, monkeypatch, capsys, name):
    run = shutil.copytree(trained / name, tmp_path / "run")
    for manifest in run.rglob(MANIFEST):
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 2}))
    before = content(run)
    command = ["firstspike", "resume", str(run), "-q"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.count("\n") == 1
    assert "format should be 1, got 2 (" in said
    assert "more cannot be read either). Nothing was changed. To delete all checkpoints" in said
    assert said.endswith(f"firstspike resume {run} --from-scratch\n")
    assert content(run) == before
    monkeypatch.setattr(sys, "argv", [*command, "--from-scratch"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    same_tables(run, trained / name)
    seeds = ["seed_7", "seed_8"] if name == "seeds" else ["."]
    for seed in seeds:
        same_tables(run / seed, trained / name / seed)
        names = [[path.name for path in checkpoints(x / seed / "checkpoints")] for x in (run, trained / name)]
        assert names[0] == names[1]


@pytest.mark.slow
def test_from_scratch_drops_what_is_sound_too(trained, tmp_path):
    run = shutil.copytree(trained / "alone", tmp_path / "run")
    with pytest.raises(Interrupted):
        resume(run, progress_bar=False, from_scratch=True, stop=lambda: True)
    assert [path.name for path in checkpoints(run / "checkpoints")] == ["epoch_0000"]
    assert not any((run / name).exists() for name in TABLES)
    (run / "metrics.csv").write_text("damaged")
    resume(run, progress_bar=False, from_scratch=True)
    same_tables(run, trained / "alone")


def test_a_disk_that_fails_for_a_moment_costs_nothing(trained, tmp_path, monkeypatch):
    run = shutil.copytree(trained / "alone", tmp_path / "run")
    before, read = content(run), Path.read_bytes

    def fails(path):
        if "checkpoints" in path.parts:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(CheckpointError, match="Input/output error"):
        resume(run, epochs=5, progress_bar=False)
    monkeypatch.undo()
    assert content(run) == before
    assert resume(run, epochs=5, progress_bar=False)["epochs"] == 5


@pytest.mark.parametrize("reason", [errno.EACCES, errno.EIO, errno.ENOTDIR])
def test_a_folder_of_checkpoints_that_cannot_be_read_is_not_an_empty_one(trained, tmp_path, monkeypatch, reason):
    run = shutil.copytree(trained / "alone", tmp_path / "run")
    before = content(run)
    system = os.listdir

    def fails(path):
        if Path(path).name == "checkpoints":
            raise OSError(reason, os.strerror(reason), str(path))
        return system(path)

    monkeypatch.setattr(checkpoint_module.os, "listdir", fails)
    with pytest.raises(OSError, match=os.strerror(reason)):
        resume(run, progress_bar=False)
    assert content(run) == before


def test_without_any_checkpoint_it_starts_over(trained, tmp_path):
    run = shutil.copytree(trained / "alone", tmp_path / "run")
    for path in checkpoints(run / "checkpoints"):
        remove_folder(path)
    (run / "checkpoints" / ".epoch_0001.partial").mkdir()
    resume(run, progress_bar=False)
    same_tables(run, trained / "alone")


def trained_again(folder, *, seeds=1, validation=True, metrics=(), **options):
    """A training in Python with metrics of these names, and its table."""
    data = [fs.data.bars(samples=20, seed=seed) for seed in (1, 2)]
    networks = [fs.Network(fs.LIFLinear(9, 3, generator=torch.Generator().manual_seed(k))) for k in range(seeds)]
    optimizers = [torch.optim.SGD(network.parameters(), lr=0.01) for network in networks]
    found = {"ones": lambda times, labels: 1.0, "twos": lambda times, labels: 2.0}
    chosen = {name: found[name] for name in metrics}
    trainer = fs.Trainer(networks, fs.losses.TimeCrossEntropy(), optimizers, metrics=chosen)
    options = {"folder": folder, "progress_bar": False, **options}
    return trainer.fit(data[0], data[1] if validation else None, **options).metrics


def test_columns_keep_their_names(tmp_path):
    trained_again(tmp_path / "run", epochs=1, metrics=("ones", "twos"))
    again = trained_again(tmp_path / "run", epochs=2, metrics=("twos", "ones"), resume=True)
    assert list(again["validation_ones"]) == [1.0, 1.0]
    assert list(again["validation_twos"]) == [2.0, 2.0]


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"metrics": ("ones", "twos")}, "lacks validation_twos, unlike this training: continue with the metrics"),
        ({}, "has validation_ones, unlike"),
        ({"metrics": ("twos",)}, "lacks validation_twos, has validation_ones, unlike"),
        ({"validation": False}, "has validation_accuracy, has validation_loss, has validation_ones, unlike"),
    ],
)
def test_a_training_with_other_columns_is_refused(tmp_path, other, message, seeds):
    trained_again(tmp_path / "run", epochs=1, metrics=("ones",), seeds=seeds)
    before = content(tmp_path / "run")
    with pytest.raises(ValueError, match=rf"metrics\.csv {message}"):
        trained_again(tmp_path / "run", epochs=2, resume=True, seeds=seeds, **other)
    assert content(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("first", "second", "place"),
    [((1, 0), (2, 0), "run"), ((2, 0), (1, 0), "seed_0"), ((3, 0), (2, 0), "seed_2"), ((2, 0), (2, 5), "seed_0")],
)
def test_another_number_of_networks_is_refused(tmp_path, first, second, place):
    trained_again(tmp_path / "run", epochs=1, seeds=first[0], seed=first[1])
    before = content(tmp_path / "run")
    with pytest.raises(
        CheckpointError, match=f"{place} has checkpoints, and this training's are in .*as many networks"
    ):
        trained_again(tmp_path / "run", epochs=2, resume=True, seeds=second[0], seed=second[1])
    assert content(tmp_path / "run") == before


def test_another_seed_is_refused(tmp_path):
    trained_again(tmp_path / "run", epochs=1, seed=3)
    before = content(tmp_path / "run")
    with pytest.raises(CheckpointError, match="the seed belongs to the run, expected 3, got 4"):
        trained_again(tmp_path / "run", epochs=2, resume=True, seed=4)
    assert content(tmp_path / "run") == before


def test_another_seed_in_the_config_is_refused(trained, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(trained / "alone", tmp_path / "run")
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("  seed: 7\n", "  seed: 8\n"))
    monkeypatch.setattr(sys, "argv", ["firstspike", "resume", str(run), "--epochs", "9"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {run}: the seed belongs to the run, expected 7, got 8\n"


def stopped(folder, loss=None, lr=0.01, **options):
    """A training in Python of which another part may differ when it continues."""
    data = fs.data.bars(samples=40, seed=1)
    network = fs.Network(fs.LIFLinear(9, 3, generator=torch.Generator().manual_seed(1)))
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.5)
    schedule = options.pop("schedule", lambda optimizer: None)(optimizer)
    chosen = {name: options.pop(name) for name in ("clip_grad_norm", "substrate", "regularizers") if name in options}
    trainer = fs.Trainer(network, loss or fs.losses.TimeCrossEntropy(), optimizer, schedule=schedule, **chosen)
    options = {"epochs": 3, "batch_size": 10, "progress_bar": False} | options
    return trainer, trainer.fit(data, data, folder=folder, **options)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"loss": fs.losses.TimeCrossEntropy(xi=0.5)}, "settings: loss.xi is 0.5, was 0.05"),
        ({"loss": fs.losses.TimeMSE(1.0, 2.0)}, "settings: loss is 'mse', was 'cross_entropy'"),
        ({"clip_grad_norm": 0.1}, "settings: training.clip_grad_norm is 0.1, was None"),
        ({"substrate": fs.substrates.Noisy(spike_jitter=0.1)}, "settings: substrate is 'noisy', was 'exact'"),
        ({"lr": 0.5}, "the optimiser continues with the saved lr=0.01, not with lr=0.5"),
        ({}, None),
    ],
)
@pytest.mark.parametrize("epochs", [3, 4])
def test_a_training_that_continues_with_other_parts_says_so(tmp_path, caplog, other, said, epochs):
    with pytest.raises(Interrupted):
        stopped(tmp_path / "run", stop=after(6))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        trainer, run = stopped(tmp_path / "run", resume=True, epochs=epochs, **other)
    found = [record.message for record in caplog.records if "saved" in record.message or "settings" in record.message]
    assert len(found) == (said is not None)
    assert said is None or found[0].endswith(said)
    again = fs.Run(tmp_path / "run")
    assert again.config.training.optimizer.lr == trainer.members[0].optimizer.param_groups[0]["lr"] == 0.01
    assert again.config.substrate.kind == trainer.members[0].substrate.kind
    if "substrate" not in other:
        assert again.evaluate("validation").loss == run.validation.loss == trainer.evaluate(run.data.validation).loss


def test_the_rates_of_a_schedule_are_no_other_settings(tmp_path, caplog):
    schedule = partial(fs.CosineLR, epochs=3)
    with pytest.raises(Interrupted):
        stopped(tmp_path / "run", stop=after(6), schedule=schedule)
    caplog.clear()
    stopped(tmp_path / "run", resume=True, schedule=schedule)
    assert "saved" not in caplog.text
    assert "settings" not in caplog.text


def test_data_of_a_config_stay_in_it(trained, tmp_path):
    run = shutil.copytree(trained / "alone", tmp_path / "run")
    before = load_config(run / "config.yaml")
    data = build_data(before)
    options = {"batch_size": before.training.batch_size, "seed": 7, "folder": run, "resume": True, "epochs": 5}
    build(before, data).fit(data.train, data.validation, test=data.test, progress_bar=False, **options)
    config = load_config(run / "config.yaml")
    assert (config.data, config.training.epochs) == (before.data, 5)


def test_copies_of_checkpoints_under_other_names_stay(tmp_path):
    """Also those whose names are like those of checkpoints that are replaced."""
    trained_again(tmp_path / "run", epochs=1)
    folder, names = tmp_path / "run" / "checkpoints", {"my_best_one", "before_batch_7"}
    for name in names:
        shutil.copytree(folder / "epoch_0001", folder / name)
    trained_again(tmp_path / "run", epochs=4, resume=True)
    assert names <= {path.name for path in folder.iterdir()}
    for path in folder.glob("epoch_*"):
        remove_folder(path)
    trained_again(tmp_path / "run", epochs=1, resume=True)
    assert names <= {path.name for path in folder.iterdir()}


def after(batches):
    """Asks a training to stop after so many batches."""
    asked = iter(range(batches))
    return lambda: next(asked, None) is None


def keep(run, **names):
    """Remove the checkpoints of each seed other than these."""
    for seed, kept in names.items():
        for path in checkpoints(run / seed / "checkpoints"):
            if path.name not in kept:
                remove_folder(path)


class TestSeveralSeeds:
    """Seeds are saved one after the other."""

    @pytest.mark.parametrize("kept", [["epoch_0001", "best_0001"], ["best_0001"], ["epoch_0002"]])
    def test_killed_while_the_first_checkpoints_are_made_it_starts_over(self, trained, tmp_path, kept):
        run = shutil.copytree(trained / "seeds", tmp_path / "run")
        keep(run, seed_7=kept, seed_8=[])
        resume(run, progress_bar=False)
        for seed in (".", "seed_7", "seed_8"):
            same_tables(run / seed, trained / "seeds" / seed)

    def test_a_seed_that_lost_its_checkpoints_stops_it(self, trained, tmp_path):
        run = shutil.copytree(trained / "seeds", tmp_path / "run")
        keep(run, seed_8=[])
        before = content(run)
        message = (
            "no checkpoints of the same moment; the newest are seed_7 epoch_0004, seed_8 none. Nothing was changed"
        )
        with pytest.raises(CheckpointError, match=message):
            resume(run, progress_bar=False)
        assert content(run) == before

    def test_the_last_ones_go_when_all_new_ones_are_there(self, tmp_path, monkeypatch):
        config, run = load_config("bars", [*SETTINGS, "training.n_seeds=2"]), tmp_path / "run"
        with pytest.raises(Interrupted):
            start(run, config, progress_bar=False, stop=after(2))

        def killed(folder, checkpoint):
            if "seed_8" in folder.parts:
                raise KeyboardInterrupt
            save_checkpoint(folder, checkpoint)

        monkeypatch.setattr(writer, "save_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            resume(run, progress_bar=False, stop=after(1))
        monkeypatch.undo()
        names = {seed: {path.name for path in checkpoints(run / seed / "checkpoints")} for seed in ("seed_7", "seed_8")}
        assert names["seed_7"] == {"epoch_0000_batch_00002", "epoch_0000_batch_00003"}
        assert names["seed_8"] == {"epoch_0000_batch_00002"}
        with pytest.raises(Interrupted):
            resume(run, progress_bar=False, stop=after(0))
        resume(tmp_path / "run", progress_bar=False)
        start(tmp_path / "whole", config, progress_bar=False)
        for seed in (".", "seed_7", "seed_8"):
            same_tables(tmp_path / "run" / seed, tmp_path / "whole" / seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alone", "seeds"])
def test_on_a_device_it_continues_bit_for_bit(name, on_device, tmp_path):
    """One network with delays, and two side by side, stopped inside an epoch; then evaluated on the CPU."""
    varied = ["training.augment.jitter=0.1", "training.augment.dropout=0.1", "training.silent.limits=0.4"]
    settings = [*SETTINGS, *varied, "training.epochs=2", f"training.device={on_device}"]
    raw = load_config("bars", [*settings, f"training.n_seeds={2 if name == 'seeds' else 1}"]).model_dump()
    if name == "alone":  # networks that draw random numbers are trained one after the other
        raw["network"][0]["delay"] = {"bound": "clip", "jitter": 0.05, "mean": 0.1}
    config = load_config(raw)
    start(tmp_path / "whole", config, progress_bar=False)
    asked = iter(range(6))
    with pytest.raises(Interrupted):
        start(tmp_path / "parts", config, progress_bar=False, stop=lambda: next(asked, None) is None)
    resume(tmp_path / "parts", progress_bar=False)
    same_tables(tmp_path / "parts", tmp_path / "whole")
    folder = "seed_7" if name == "seeds" else "."
    one, other = (Run(tmp_path / run / folder) for run in ("whole", "parts"))
    for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert one.evaluate().times.isfinite().any()
