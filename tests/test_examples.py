"""The sweeps of examples/ can be built, and a network agrees with NEST; tests/test_own_data.py has the other script."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

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
