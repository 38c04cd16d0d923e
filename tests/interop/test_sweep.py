"""Sweep files of the original code become sweeps whose points are those that its own files stand for."""

import copy
import itertools
import subprocess
import sys

import pytest
import yaml
from fabricated import delay, layers_config, lif, sizes_config

from firstspike.config import parse_config
from firstspike.interop.fast_and_deep import translate
from firstspike.interop.fast_and_deep.sweep import import_sweep
from firstspike.runs.seeds import member_configs
from firstspike.sweeps.plan import load_plan

SEEDS = {"path": ["training_params/torch_seed", "training_params/numpy_seed"], "value": [1000, 1001]}
NAMES = {
    "path": ["network_layout/layers/0/name", "network_layout/layers/2/name"],
    "value": ["DelayAxonal", "BroadcastLayer"],
}
SIZES = {"path": "network_layout/layers/1/size", "value": [30, 5]}
RATES = {"path": "training_params/learning_rate", "value": [0.0025, 1e-2]}
DELAYS = layers_config([delay("Axonal"), lif(30), delay("Axonal"), lif()])


def write(folder, parameters, config=DELAYS):
    """The original's two files."""
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"parameters": parameters}))
    (folder / "base.yaml").write_text(yaml.safe_dump(config))
    return folder / "sweep.yaml", folder / "base.yaml"


def imported(folder, parameters, config=DELAYS):
    """What our files are, written, and the notes."""
    files, notes = import_sweep(*write(folder, parameters, config), "ours")
    for name, text in files.items():
        (folder / name).write_text(text)
    return yaml.safe_load(files["ours.yaml"]), list(files), notes


def original_points(parameters, config):
    """The configs that the original makes of its files, translated."""
    for values in itertools.product(*(p["value"] for p in parameters)):
        raw = copy.deepcopy(config)
        for parameter, value in zip(parameters, values, strict=True):
            for path in [parameter["path"]] if isinstance(parameter["path"], str) else parameter["path"]:
                *parents, last = (int(x) if x.isdigit() else x for x in path.split("/"))
                place = raw
                for step in parents:
                    place = place[step]
                place[last] = value
        yield parse_config(translate(raw).config)


def assert_same_points(folder, parameters, config=DELAYS):
    plan = load_plan(folder / "ours.yaml")
    ours = [member for point in plan.grid() for member in member_configs(plan.config(point))]
    theirs = list(original_points(parameters, config))
    assert len(ours) == len(theirs)
    assert all(config in theirs for config in ours)
    assert all(config in ours for config in theirs)


def test_layers_in_lock_step_become_base_configs(tmp_path):
    parameters = [SEEDS, NAMES, SIZES]
    sweep, files, notes = imported(tmp_path, parameters)
    assert sweep == {
        "seeds": 2,
        "axes": {"base": ["ours_DelayAxonal.yaml", "ours_BroadcastLayer.yaml"], "network[lif:0].out_features": [30, 5]},
    }
    assert files == ["ours.yaml", "ours_DelayAxonal.yaml", "ours_BroadcastLayer.yaml"]
    assert [line.split(" = ")[0] for line in notes] == ["training_params.numpy_seed"]
    assert_same_points(tmp_path, parameters)


def test_single_keys_become_axes(tmp_path):
    parameters = [SIZES, RATES, SEEDS | {"value": [7, 3]}]
    sweep, files, _ = imported(tmp_path, parameters)
    assert sweep == {
        "base": "ours_base.yaml",
        "axes": {
            "network[lif:0].out_features": [30, 5],
            "training.optimizer.lr": [0.0025, 0.01],
            "training.seed": [7, 3],  # not consecutive
        },
    }
    assert files == ["ours.yaml", "ours_base.yaml"]
    assert_same_points(tmp_path, parameters)


@pytest.mark.parametrize(
    ("parameters", "config", "bases"),
    [
        # two sizes in lock-step
        ([{"path": ["network_layout/layers/1/size", "network_layout/layers/4/size"], "value": [4, 6]}, RATES], None, 2),
        # the mean over delays becomes a sum, so its factor depends on their number
        ([SIZES, RATES], {"type": "MSE", "t_correct": 1, "t_wrong": 2, "regulariser": [{"type": "l2_delay"}]}, 2),
        # threshold and leak make one number together
        ([{"path": f"default_neuron_params/{k}", "value": [0.1, 0.2]} for k in ("leak", "g_leak")], None, 4),
        ([{"path": "training_params/rounding_precision", "value": [False, 0.1]}, RATES], None, 2),
        ([SEEDS], None, 1),
        ([RATES | {"value": 0.03}, SIZES], None, 1),
        ([{"path": "training_params/loss", "value": [{"type": "TTFS", "xi": x} for x in (0.1, 0.2)]}, SEEDS], None, 1),
    ],
    ids=["sizes", "factor", "threshold", "substrate", "seeds", "one value", "loss"],
)
def test_points_are_the_original_s(tmp_path, parameters, config, bases):
    raw = layers_config([delay("Axonal"), lif(30), delay("Axonal"), lif(20), lif(9), lif()])
    raw["training_params"]["rounding_precision"] = False
    if config is not None:
        config["regulariser"][0]["alpha"] = 0.1
        raw["training_params"]["loss"] = config
    _, files, _ = imported(tmp_path, parameters, raw)
    assert len(files) == 1 + bases
    listed = [p | {"value": p["value"] if isinstance(p["value"], list) else [p["value"]]} for p in parameters]
    assert_same_points(tmp_path, listed, raw)


def test_what_changes_nothing_is_noted(tmp_path):
    parameters = [SIZES, {"path": "training_params/numpy_seed", "value": [1, 2]}]
    parameters.append({"path": "training_params/batch_size", "value": []})
    sweep, _, notes = imported(tmp_path, parameters)
    assert list(sweep["axes"]) == ["network[lif:0].out_features"]
    assert "parameters[1]: training_params/numpy_seed changes nothing here" in notes
    assert "parameters[2].value is empty: training_params/batch_size stays as it is, as in the original" in notes


def test_release_form(tmp_path):
    raw = sizes_config()
    parameters = [{"path": "network_layout/layer_sizes/0", "value": [10, 20]}, RATES]
    assert list(imported(tmp_path, parameters, raw)[0]["axes"]) == [
        "network[lif:0].out_features",
        "training.optimizer.lr",
    ]
    assert_same_points(tmp_path, parameters, raw)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            [{"path": "network_layout/layers/9/size", "value": [1]}],
            r"parameters\[0\].path: the config has no network_l",
        ),
        ([{"path": "training_params/typo", "value": [1]}], "the config has no training_params/typo"),
        ([{"path": 3, "value": [1]}], "expected a path such as training_params/learning_rate, got 3"),
        ([{"value": [1]}], r"parameters\[0\].path is missing"),
        ([SIZES | {"value": list(range(2001))}], "expected at most 2000 trials, got 2001"),
        ([{"path": "training_params/numpy_seed", "value": [1, 2]}], "changes nothing that firstspike has"),
        ([RATES | {"value": ["fast"]}], "learning_rate: expected a number, got 'fast'"),
        (3, "parameters: expected a list, got 3"),
    ],
)
def test_errors(tmp_path, parameters, message):
    with pytest.raises(ValueError, match=message) as caught:
        import_sweep(*write(tmp_path, parameters), "ours")
    assert "sweep.yaml with " in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def command(*arguments, cwd):
    run = [sys.executable, "-m", "firstspike", "import-fastanddeep", *map(str, arguments)]
    return subprocess.run(run, capture_output=True, text=True, timeout=120, cwd=cwd)


@pytest.mark.slow
def test_command(tmp_path):
    write(tmp_path, [SEEDS, NAMES, SIZES])
    missing = command("sweep.yaml", cwd=tmp_path)
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    assert "sweep.yaml is a sweep; name the config that it varies: --config FILE" in missing.stderr
    done = command("sweep.yaml", "--config", "base.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "sweep: sweeps/sweep.yaml, 2 config(s)"
    assert load_plan(tmp_path / "sweeps" / "sweep.yaml").n_trials == 4
    twice = command("sweep.yaml", "--config", "base.yaml", cwd=tmp_path)
    assert (twice.returncode, twice.stderr) == (2, "error: sweeps/sweep.yaml exists; choose another --out\n")
    config = command("base.yaml", "--config", "base.yaml", cwd=tmp_path)
    assert (config.returncode, "base.yaml is not a sweep file" in config.stderr) == (2, True)


@pytest.mark.slow
def test_command_on_the_result_folder_of_a_sweep(tmp_path):
    folder = tmp_path / "sweep_yin_yang_2024-05-01"
    folder.mkdir()
    for path, name in zip(write(tmp_path, [SIZES]), ("sweep_config.yaml", "initial_config.yaml"), strict=True):
        path.rename(folder / name)
    done = command(folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert load_plan(tmp_path / "sweeps" / f"{folder.name}.yaml").n_trials == 2
