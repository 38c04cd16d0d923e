"""Everything public, and everything that must leave its values and gradients as they are: one test for each pair.

Seeded and small. A longer run, with its counts, of that many random problems in total::

    FIRSTSPIKE_PROPERTIES=20000 pytest -s tests/invariances
"""

import inspect
import math
import os
import random
import sys
import zlib

import pytest
from checks import Case
from comparing import COUNTS, UnsettledError
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st
from linear_rows import LINEAR_ROWS
from problems import settings_of
from table import INVARIANCES, KNOWN_FAULTS, ROWS, WITHOUT_ROW

from firstspike import layers, losses, spiketime, substrates

# recurrent layers call the kernels for one window after the other; linear neurons have kernels of their own
LONG = {"LIFRecurrent", *(row.name for row in LINEAR_ROWS)}
CELLS = [(row, name) for row in ROWS for name in INVARIANCES if name not in row.excused]
EACH = math.ceil(int(os.environ.get("FIRSTSPIKE_PROPERTIES", 2 * len(CELLS))) / len(CELLS))  # problems of most cells


def public_names():
    """Operators, layers, losses, regularisers and substrates, and the keys of their registries."""
    for room in (spiketime, layers, losses, substrates):
        for name in room.__all__:
            thing = getattr(room, name)
            if inspect.isclass(thing) or (room is spiketime and callable(thing)):
                yield name
    for registry in (layers.LAYERS, losses.LOSSES, losses.REGULARIZERS, substrates.SUBSTRATES):
        yield from registry


def test_everything_public_has_a_row_or_a_reason():
    with_row = {name for row in ROWS for name in row.covers}
    names = set(public_names())
    missing = names - with_row - WITHOUT_ROW.keys()
    assert not missing, f"add a row for {sorted(missing)}, or to WITHOUT_ROW why there is none"
    assert not with_row & WITHOUT_ROW.keys()
    assert with_row | WITHOUT_ROW.keys() <= names, "of a name that is not public"


def test_excuses_are_reasons_for_invariances():
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row.excused.keys() <= INVARIANCES.keys(), row.name
        assert all(len(reason) > 10 for reason in row.excused.values()), row.name
    assert KNOWN_FAULTS.keys() <= {(row.name, name) for row, name in CELLS}


def cell(row, name):
    fault = KNOWN_FAULTS.get((row.name, name))
    marks = [] if fault is None else [pytest.mark.xfail(reason=fault, strict=True)]
    slow = row.slow or row.name in LONG or name == "float32"  # which has kernels of its own
    marks += [pytest.mark.slow] if slow else []
    return pytest.param(row, name, id=f"{row.name}-{name}", marks=marks)


@pytest.mark.filterwarnings("ignore:times of shape")
@pytest.mark.parametrize(("row", "name"), [cell(*x) for x in CELLS])
def test_invariance(row, name):
    shrinks = [Phase.shrink] if (row.name, name) not in KNOWN_FAULTS else []
    some = list(INVARIANCES).index(name) // 7  # these have the same problems, whose solutions ``Case.base`` keeps

    @seed(zlib.crc32(f"{row.name}, {some}".encode()))
    @settings(max_examples=EACH * row.often, phases=[Phase.generate, *shrinks], report_multiple_bugs=False)
    @given(st.data())
    def holds(data):
        backend = data.draw(st.sampled_from(row.backends[::-1]), "backend")
        setting = data.draw(settings_of(small=row.slow or backend == "reference"), "setting")
        COUNTS[name] += 1
        try:
            INVARIANCES[name](Case(row, setting, backend, random.Random(setting.seed)))
        except UnsettledError:
            COUNTS[f"{name}, unsettled"] += 1

    holds()


def test_most_problems_were_steady():
    """Runs last: how many problems there were of each kind."""
    for name in INVARIANCES:
        total, unsettled = COUNTS[name], COUNTS[f"{name}, unsettled"]
        sys.stdout.write(f"{name}: {total} problems, {unsettled} not steady\n")  # with -s
        assert unsettled <= 2 + total / 3, name
    total = sum(COUNTS[name] for name in INVARIANCES)
    sys.stdout.write(f"{total} problems for {len(CELLS)} pairs of a row and an invariance\n")
