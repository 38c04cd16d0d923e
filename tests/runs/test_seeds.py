"""Several seeds side by side: each as if it were trained alone."""

import csv
import json

import pytest
import torch

from firstspike.config import build, load_config
from firstspike.runs import Run
from firstspike.runs.checkpoint import checkpoints, load_checkpoint
from firstspike.runs.files import remove_folder
from firstspike.training import Interrupted
from firstspike.training.engines import Sequential, SideBySide, engine_for
from trained import resume, start

SMALL = [
    "data.train=600",
    "data.validation=200",
    "data.test=200",
    "network[1].out_features=20",
    "training.epochs=4",
    "training.seed=7",
    "training.dtype=float64",
]
NOISY = ["training.augment.jitter=0.05"]
SGD = ["training.optimizer={kind: sgd, lr: 0.05, momentum: 0.9}", "training.schedule={kind: exponential, gamma: 0.9}"]
EXTRAS = [
    "network[1].delay={mean: -1.0}",
    "network[1].delay_lr=0.01",
    "network[3].trainable=[tau_mem, threshold]",
    "network[3].per_neuron=true",
    "loss.regularizers=[{kind: early_output, alpha: 0.01}, {kind: delay_l2, alpha: 0.001}]",
]
JITTER = ["network[1].delay={jitter: 0.05, bound: clip}"]


def final(folder):
    return load_checkpoint(checkpoints(folder / "checkpoints")[-1])


def same_training(together, alone, tolerance=1e-12):
    for table in ("metrics", "output_times"):
        with (together / f"{table}.csv").open() as a, (alone / f"{table}.csv").open() as b:
            for left, right in zip(csv.reader(a), csv.reader(b), strict=True):
                for x, y in zip(left, right, strict=True):
                    assert x == y or float(x) == pytest.approx(float(y), rel=1e-9, nan_ok=True)
    one, other = final(together), final(alone)
    assert (one.epoch, one.weights.keys()) == (other.epoch, other.weights.keys())
    for name, weight in other.weights.items():
        torch.testing.assert_close(one.weights[name], weight, rtol=0, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("extra", [[], NOISY, SGD, EXTRAS, JITTER], ids=["adam", "noise", "sgd", "extras", "jitter"])
def test_each_seed_is_trained_as_if_alone(tmp_path, extra):
    settings = [*SMALL, *extra]
    results = start(tmp_path / "all", load_config("yin_yang", [*settings, "training.n_seeds=3"]), progress_bar=False)
    for seed in (7, 8, 9):
        alone = start(
            tmp_path / str(seed), load_config("yin_yang", [*settings, f"training.seed={seed}"]), progress_bar=False
        )
        same_training(tmp_path / "all" / f"seed_{seed}", tmp_path / str(seed))
        assert results["seeds"][str(seed)]["test"]["accuracy"] == alone["test"]["accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize("instead", ["true", "false"])
def test_some_members_raise_weights_while_others_do_not(tmp_path, instead):
    strict = [*SMALL, "training.silent.limits[0]=0.005", "training.silent.exponential=true"]
    strict.append(f"training.silent.skip_step={instead}")
    start(tmp_path / "all", load_config("yin_yang", [*strict, "training.n_seeds=3"]), progress_bar=False)
    raised = [seed.metrics["raised"].mean() for seed in Run(tmp_path / "all").seeds]
    assert min(raised) == 0
    assert 0 < max(raised) < 1
    for seed in (7, 9):
        start(tmp_path / str(seed), load_config("yin_yang", [*strict, f"training.seed={seed}"]), progress_bar=False)
        same_training(tmp_path / "all" / f"seed_{seed}", tmp_path / str(seed))


@pytest.mark.slow
def test_the_first_member_raises_weights_while_neurons_learn_their_time_constants(tmp_path):
    """The gradient of the others is that of their own neurons."""
    own = [f"network[{k}].{key}" for k in (1, 3) for key in ("trainable=[tau_mem, tau_syn]", "per_neuron=true")]
    strict = [*SMALL, *own, "training.silent.limits[0]=0.005", "training.silent.skip_step=true", "training.epochs=2"]
    start(
        tmp_path / "all",
        load_config("yin_yang", [*strict, "training.seed=9", "training.n_seeds=3"]),
        progress_bar=False,
    )
    raised = [seed.metrics["raised"].mean() for seed in Run(tmp_path / "all").seeds]
    assert raised[0] > 0
    assert raised[1:] == [0, 0]
    for seed in (9, 10, 11):
        start(tmp_path / str(seed), load_config("yin_yang", [*strict, f"training.seed={seed}"]), progress_bar=False)
        same_training(tmp_path / "all" / f"seed_{seed}", tmp_path / str(seed))


def test_networks_that_jitter_take_turns():
    together = build(load_config("yin_yang", [*SMALL, "training.n_seeds=2"]))
    jittering = build(load_config("yin_yang", [*SMALL, *JITTER, "training.n_seeds=2"]))
    assert type(engine_for(together.members, together.objective)) is SideBySide
    assert type(engine_for(jittering.members, jittering.objective)) is Sequential
    assert type(engine_for(together.members[:1], together.objective)) is Sequential


@pytest.mark.draws
def test_the_folder_of_all_has_the_mean_and_each_seed(tmp_path, capsys):
    results = start(tmp_path / "run", load_config("yin_yang", [*SMALL, "training.n_seeds=3"]), progress_bar=False)
    accuracies = torch.tensor([results["seeds"][seed]["test"]["accuracy"] for seed in ("7", "8", "9")])
    assert results["test"]["accuracy"] == pytest.approx(accuracies.mean().item())
    assert results["test"]["accuracy_std"] == pytest.approx(accuracies.std().item())
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results
    with (tmp_path / "run" / "seeds.csv").open() as file:
        rows = {row["seed"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["7", "8", "9", "mean", "std"]
    assert float(rows["mean"]["test_accuracy"]) == pytest.approx(results["test"]["accuracy"])
    run = Run(tmp_path / "run")
    each = [seed.metrics["validation_accuracy"] for seed in run.seeds]
    assert run.metrics["validation_accuracy"] == pytest.approx(sum(each) / 3)
    assert run.seeds[2].results == results["seeds"]["9"]
    assert (tmp_path / "run" / "figures" / "loss_and_error.png").stat().st_size > 1000
    with pytest.raises(ValueError, match=r"holds 3 seeds; choose one of them, e.g. .*seed_7"):
        run.network  # noqa: B018


def stopping_after(batches):
    left = iter(range(10**9))
    return lambda: next(left) >= batches


@pytest.mark.parametrize(
    "batches", [pytest.param(1, marks=pytest.mark.slow), 6, pytest.param(9, marks=pytest.mark.slow)]
)
def test_resume_is_bit_for_bit(tmp_path, batches):
    config = load_config("yin_yang", [*SMALL, *NOISY, "training.n_seeds=2", "training.dtype=float32"])
    start(tmp_path / "whole", config, progress_bar=False)
    with pytest.raises(Interrupted):
        start(tmp_path / "parts", config, progress_bar=False, stop=stopping_after(batches))
    resume(tmp_path / "parts", progress_bar=False)
    for seed in (7, 8):
        one, other = (tmp_path / name / f"seed_{seed}" for name in ("whole", "parts"))
        same_training(one, other, tolerance=0)
        assert (one / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()
    assert (tmp_path / "whole" / "metrics.csv").read_bytes() == (tmp_path / "parts" / "metrics.csv").read_bytes()


def test_resume_goes_back_to_where_all_seeds_have_a_checkpoint(tmp_path):
    config = load_config("yin_yang", [*SMALL, "training.n_seeds=2"])
    start(tmp_path / "run", config, progress_bar=False)
    before = final(tmp_path / "run" / "seed_7").weights
    remove_folder(checkpoints(tmp_path / "run" / "seed_8" / "checkpoints")[-1])  # killed between the two
    resume(tmp_path / "run", progress_bar=False)
    after = final(tmp_path / "run" / "seed_7")
    assert after.epoch == 4
    assert all(torch.equal(before[name], after.weights[name]) for name in before)
    with (tmp_path / "run" / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]
