"""The sweeps of examples/ can be built; tests/test_own_data.py runs the script there."""

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
