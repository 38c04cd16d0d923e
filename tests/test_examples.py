"""The sweeps and scripts of examples/, with few steps; tests/test_own_data.py has own_data.py."""

import re
import subprocess
import sys
import wave
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import forked
from firstspike.sweeps.plan import load_plan

EXAMPLES = Path(__file__).parents[1] / "examples"
SWEEPS = {"fashion_mnist_recipe": 16, "hidden_sizes": 24, "yin_yang_small": 12}


@pytest.mark.parametrize(("name", "trials"), list(SWEEPS.items()))
def test_sweeps_can_be_built(name, trials):
    assert len(load_plan(EXAMPLES / "sweeps" / f"{name}.yaml").trials()) == trials


def test_every_sweep_has_a_test():
    assert sorted(path.stem for path in (EXAMPLES / "sweeps").iterdir()) == sorted(SWEEPS)


@pytest.mark.slow
@pytest.mark.nest
def test_twin_in_nest(tmp_path):
    command = [sys.executable, EXAMPLES / "nest_twin.py", tmp_path / "twin.png"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found = re.findall(r"^(.*): (\d+) spikes, firstspike (\d+); (\d+) agree, .* (\S+) ms$", shown.stdout, re.MULTILINE)
    assert [row[0] for row in found] == ["plain NEST", "substrate nest"]
    assert [row[1:4] for row in found] == [("330", "330", "330")] * 2
    assert all(float(row[4]) < 1e-9 for row in found)
    assert shown.stderr == ""
    assert (tmp_path / "twin.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("target_trains", ["--steps", "3"], r"one neuron: \d of 6 targets hit.*\nrecurrent: \d+ of 30 targets hit"),
        (
            "large_network",
            ["rates", "--steps", "3", "--neurons", "200"],
            r"excitatory: target [\d.]+, before [\d.]+, after [\d.]+ Hz; correlation .*\ninhibitory: target",
        ),
        ("coincidence", ["--epochs", "2"], r"test accuracy [\d.]+ %\nleft minus right delay \[us\]:(?: -?\d+){5}"),
    ],
)
def test_scripts_draw_a_picture(name, arguments, says, tmp_path):
    shown = forked.run(EXAMPLES / f"{name}.py", *arguments, tmp_path / "picture.png")
    assert shown.returncode == 0, shown.stderr
    assert re.search(says, shown.stdout)
    assert (tmp_path / "picture.png").stat().st_size > 10_000


@pytest.mark.slow
def test_recurrent_synapses_learn_digits_and_resume(tmp_path):
    sounds, runs, picture = (tmp_path / x for x in ("sounds", "runs", "picture.png"))
    sounds.mkdir()
    for digit, number in product(range(10), range(15)):
        tone = np.sin(2 * np.pi * (200 + 300 * digit) * np.arange(800 + 80 * number) / 8000)
        with wave.open(str(sounds / f"{digit}_ada_{number}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes((1000 * tone).astype("<i2").tobytes())
    command = [sys.executable, EXAMPLES / "large_network.py", "digits", sounds, "--learns", "synapses"]
    command += ["--neurons", "300", "--epochs", "6", "--runs", runs, "--picture", picture]
    shown = [subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout for _ in range(2)]
    accuracies = [float(re.match(r"seed 0: test accuracy (\S+) %", x)[1]) for x in shown]
    assert accuracies[0] == accuracies[1] > 30  # chance is 10
    assert picture.stat().st_size > 10_000


@pytest.mark.exhaustive
@pytest.mark.nest
def test_parameters_of_a_neuron_are_found():
    command = [sys.executable, EXAMPLES / "fit_neuron.py", "--seeds", "1", "--until", "200", "--only", "lif, no noise"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found = re.search(r"tau_m (\S+) .*, tau_syn (\S+) .*, V_th (\S+) ", shown.stdout)
    assert all(float(error) < 1e-3 for error in found.groups())  # %


@pytest.mark.slow
def test_trains_that_teach(tmp_path):
    shown = forked.run(EXAMPLES / "teach_trains.py", "teacher", "--samples", "2")
    assert shown.returncode == 0, shown.stderr
    before, after = (float(x) for x in re.search(r"before: (\S+); after \d+ s: (\S+),", shown.stdout).groups())
    assert before < 0.1 < after
    assert "in fifths of the time: 1.000" in shown.stdout
    random = np.random.default_rng(0)
    for name, count, first in (("input", 2000, 0), ("target", 400, 1)):
        rows = np.stack([random.uniform(0, 1.89, count), random.integers(200, size=count) + first], axis=1)
        np.savetxt(tmp_path / f"oxford-{name}.ras", rows)
    shown = forked.run(EXAMPLES / "teach_trains.py", "oxford", tmp_path, tmp_path / "city.png", "--hidden", "100")
    assert shown.returncode == 0, shown.stderr
    assert float(re.search(r"s: (\S+)% of 400 targets hit within 2 ms", shown.stdout)[1]) > 90
    assert (tmp_path / "city.png").stat().st_size > 10_000
