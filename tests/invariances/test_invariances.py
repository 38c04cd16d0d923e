"""Everything public, and everything that must leave its values and gradients as they are: one test for each pair.

Seeded and small. A longer run, with its counts, of that many random problems in total::

    FIRSTSPIKE_PROPERTIES=20000 pytest -s tests/invariances
"""

import math
import os
import random
import sys

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from checks import INVARIANCES, Case
from comparing import COUNTS, Unsettled
from problems import settings_of
from table import KNOWN_FAULTS, ROWS

CELLS = [(row, name) for row in ROWS for name in INVARIANCES if name not in row.excused]
PROBLEMS = int(os.environ.get("FIRSTSPIKE_PROPERTIES", 2 * len(CELLS)))
EACH = max(1, math.ceil(PROBLEMS / len(CELLS)))


def cell(row, name):
    fault = KNOWN_FAULTS.get((row.name, name))
    marks = [] if fault is None else [pytest.mark.xfail(reason=fault, strict=True, run="memory" not in fault)]
    return pytest.param(row, name, id=f"{row.name}-{name}", marks=marks)


@pytest.mark.filterwarnings("ignore:times of shape")
@pytest.mark.parametrize(("row", "name"), [cell(*x) for x in CELLS])
def test_invariance(row, name):
    @settings(max_examples=EACH, phases=[Phase.explicit, Phase.generate, Phase.shrink])
    @given(st.data())
    def holds(data):
        backend = data.draw(st.sampled_from(row.backends[::-1]), "backend")
        setting = data.draw(settings_of(small=row.slow or backend == "reference"), "setting")
        COUNTS[name] += 1
        try:
            INVARIANCES[name](Case(row, setting, backend, random.Random(setting.seed)))
        except Unsettled:
            COUNTS[f"{name}, unsettled"] += 1

    holds()
