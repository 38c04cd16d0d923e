import math

import pytest

from firstspike.config import ConfigError
from firstspike.sweeps.config import Range, choices
from firstspike.sweeps.plan import load_plan


def test_grid(plan):
    grid = plan.trials()
    assert grid == [
        {"network[lif:0].out_features": size, "training.optimizer.lr": lr} for size in (4, 6) for lr in (0.005, 0.02)
    ]
    config = plan.config(grid[3])
    assert config.network[0].out_features == 6
    assert config.training.optimizer.lr == 0.02
    assert config.data.train == 60


def test_ranges():
    assert Range(**{"from": 2, "to": 7}).values() == [2, 3, 4, 5, 6, 7]
    assert Range(**{"from": 2, "to": 7, "step": 2}).values() == [2, 4, 6]
    assert Range(**{"from": 0.1, "to": 0.3, "step": 0.1}).values() == [0.1, 0.2, 0.3]
    assert Range(**{"from": 0.12345678, "to": 1.2345678, "count": 2}).values() == [0.12345678, 1.2345678]
    assert Range(**{"from": 0.0, "to": 1.0, "count": 3}).values() == [0.0, 0.5, 1.0]
    assert Range(**{"from": 0.001, "to": 0.1, "log": True, "count": 3}).values() == [0.001, 0.01, 0.1]
    assert Range(**{"from": 1, "to": 100, "log": True, "count": 3}).values() == [1, 10, 100]
    assert all(isinstance(x, int) for x in Range(**{"from": 1, "to": 9, "count": 4}).values())


def test_values_of_any_kind(write_sweep):
    axes = "{training.schedule: [null, {kind: cosine}, {kind: exponential, gamma: 0.9}], neuron.tau_mem: [1.0, .inf]}"
    plan = load_plan(write_sweep("base: bars\n", axes=axes))
    configs = [plan.config(params) for params in plan.trials()]
    assert [getattr(c.training.schedule, "kind", None) for c in configs[::2]] == [None, "cosine", "exponential"]
    assert [c.neuron.tau_mem for c in configs[:2]] == [1.0, math.inf]
    assert choices(plan.sweep.axes["training.schedule"])[1] == "{kind: cosine}"


def test_base_is_an_axis(write_sweep):
    axes = "{base: [yin_yang_w, yin_yang_axonal], 'network[lif:0].out_features': [5, 7], 'network[lif:1].lr': [0.1]}"
    plan = load_plan(write_sweep("seeds: 3\n", axes=axes))
    configs = [plan.config(params) for params in plan.trials()]
    assert [[layer.kind for layer in c.network] for c in configs[::2]] == [["lif"] * 2, ["delay", "lif"] * 2]
    assert [c.network[0 if len(c.network) == 2 else 1].out_features for c in configs] == [5, 7, 5, 7]
    assert configs[3].network[3].lr == 0.1
    assert {c.training.n_seeds for c in configs} == {3}


def test_base_beside_the_sweep(write_sweep, tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text(
        "data: {kind: xor}\nnetwork: [{kind: lif, out_features: 2}]\nloss: {kind: cross_entropy}\n"
        "training: {epochs: 2, batch_size: 50}\n"
    )
    file = write_sweep("base: mine.yaml\n", axes="{training.epochs: [1, 2]}")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_plan(file).config({"training.epochs": 1}).data.kind == "xor"


def errors(file):
    with pytest.raises(ConfigError) as refused:
        load_plan(file)
    return refused.value.errors


def test_all_trials_that_cannot_be_built(write_sweep):
    found = errors(
        write_sweep(
            "base: bars\n",
            set="{data.trains: 5, training.epochs: 3}",
            axes="{'network[lif:7].out_features': [1], 'network[9].out_features': [1], "
            "training.optimizer.lr: [-1, 0.1]}",
            pruning="{kind: median}",
            metric="test_loss",
        )
    )
    assert [line.split(":")[0] for line in found] == [
        "network[lif",
        "network[9].out_features=1",
        "data.trains",
        "training.optimizer.lr",
    ]
    assert "there is no [lif:7]; network has 2 of kind lif" in found[0]
    assert found[-2].startswith("data.trains: unknown key, did you mean train?")
    assert found[-1].startswith("training.optimizer.lr: should be greater than 0, got -1 (at ")


def test_trials_of_a_grid_that_are_refused(write_sweep):
    found = errors(write_sweep("base: bars\n", axes="{'network[1].out_features': [2, 3, 4]}"))
    assert len(found) == 2
    assert "the data has 3 classes" in found[0]
    assert found[0].endswith("(at network[1].out_features=2)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("axes: {training.epochs: [1]}", "base: give one config, or several as the axis base"),
        ("base: barss\naxes: {training.epochs: [1]}", "did you mean bars?"),
        ("base: bars\naxes: {}", "axes: "),
        ("base: bars\naxes: {training.epochs: []}", "axes.training.epochs: List should have at least 1 item"),
        ("base: bars\naxes: {training.epochs: [2020-01-01]}", "should be a valid integer"),  # dates are text
        ("base: bars\naxes: {training.epochs: 3}", "axes.training.epochs: expected a section with the keys from, to"),
        ("base: bars\nset: {base: digits}\naxes: {training.epochs: [1]}", "base: unknown key"),
        (
            "base: bars\nset: {training.n_seeds: 3}\nseeds: 2\naxes: {training.epochs: [1]}",
            "training.n_seeds: is given twice",
        ),
        ("base: bars\nset: {training.epochs: 3}\naxes: {training.epochs: [1]}", "training.epochs: is given twice"),
        ("base: bars\naxes: {training.epochs: {from: 5, to: 1}}", "`low <= high` must hold"),
        ("base: bars\naxes: {training.optimizer.lr: {from: 0.1, to: 1.0}}", "needs a count or a step"),
        (
            "base: bars\naxes: {training.optimizer.lr: {from: 0.0, to: 1.0, log: true, count: 3}}",
            "`low > 0` must hold for `log=True`",
        ),
        ("base: bars\naxes: {training.epochs: {from: 1, too: 5}}", "axes.training.epochs.too: unknown key"),
        ("base: bars\naxes: {training.epochs: [1]}\nsampler: tpe", "trials: is required by the sampler tpe"),
        ("base: bars\naxes: {training.epochs: [1]}\nsampler: gird", "sampler: should be 'grid', 'random' or 'tpe'"),
        ("base: bars\naxes: {training.epochs: [1]}\nmetric: accuracy", "metric: should be 'validation_accuracy'"),
        ("- a", "must be a mapping with the keys base, set, axes"),
        ("base: bars\naxes: {training.epochs: {from: 1, to: 1000000000}}", "at most 10000 values"),
        ("base: bars\naxes: {a: {from: 1, to: 5000}, b: {from: 1, to: 5000}}", "at most 10000 trials, got 25000000"),
        ("base: bars\nsampler: random\ntrials: 10001\naxes: {training.epochs: [1]}", "trials: should be less than"),
        ("base: bars\nseeds: 1001\naxes: {training.epochs: [1]}", "seeds: should be less than or equal to 1000"),
        (
            "base: bars\nsampler: random\ntrials: 9\naxes: {training.optimizer.lr: {from: -1.0, to: 0.1}}",
            "training.optimizer.lr: should be greater than 0, got -1.0",
        ),
    ],
)
def test_what_is_refused(text, message, write_sweep):
    assert any(message in line for line in errors(write_sweep(text))), errors(write_sweep(text))


def test_errors_name_the_line_or_the_first_trial(write_sweep):
    with pytest.raises(ConfigError, match=r"axes\.training\.epochs\.too: unknown key.* \(line 3\)"):
        load_plan(write_sweep("base: bars\naxes:\n  training.epochs: {from: 1, too: 2}\n"))
    found = errors(write_sweep("base: bars\nset: {data.train: 0}\naxes: {training.epochs: [1, 0]}\n"))
    assert found == [
        "data.train: should be greater than 0, got 0 (at training.epochs=1)",
        "training.epochs: should be greater than 0, got 0 (at training.epochs=0)",
    ]


OWN_DATA = """
data: {kind: files, train: mine.csv, validation: 0, test: 0.2}
network: [{kind: lif, out_features: 2}]
loss: {kind: cross_entropy}
training: {epochs: 2, batch_size: 5}
"""


def write_own_data(folder):
    folder.mkdir(exist_ok=True)
    (folder / "mine.csv").write_text("".join(f"0.{k},1.{k},{k % 2}\n" for k in range(10)))
    (folder / "mine.yaml").write_text(OWN_DATA)


def test_a_metric_needs_its_data(write_sweep, tmp_path):
    write_own_data(tmp_path)
    text = "base: mine.yaml\naxes: {training.epochs: [1, 2]}\n"
    with pytest.raises(ConfigError, match=r"metric: needs validation data, but data\.validation is 0 \(at"):
        load_plan(write_sweep(text, metric="best_validation_accuracy"))
    pruned = errors(write_sweep(text, metric="test_accuracy", pruning="{kind: median}"))
    assert pruned == ["pruning: needs validation data, but data.validation is 0 (at training.epochs=1)"]
    assert len(load_plan(write_sweep(text, metric="test_accuracy")).trials()) == 2


def test_machines_may_have_data_in_different_folders(tmp_path):
    plans = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        write_own_data(folder)
        (folder / "sweep.yaml").write_text("base: mine.yaml\nmetric: test_loss\naxes: {training.epochs: [1, 2]}\n")
        plans.append(load_plan(folder / "sweep.yaml"))
        assert plans[-1].config({"training.epochs": 1}).data.train == str(folder / "mine.csv")
    assert plans[0].definition() == plans[1].definition()


def test_no_file(tmp_path):
    assert "no such file" in errors(tmp_path / "none.yaml")[0]
