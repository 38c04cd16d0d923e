"""Sorting many lanes at once, each by its own keys: a network of exchanges, eight rows of them in registers at a time.

Runs of eight rows are sorted, then merged in pairs to runs twice as long. A merge first exchanges the rows of one run
with those of the other in reverse, then rows that are half a run apart, a quarter, and so on; the smaller key always
goes to the lower row.
"""

# mypy: disable-error-code="no-untyped-def"
import math

from numba.core import types
from numba.extending import intrinsic

from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.vectors.simd import VecType, pointer_to

_EIGHT = (
    (0, 2), (1, 3), (4, 6), (5, 7), (0, 4), (1, 5), (2, 6), (3, 7), (0, 1), (2, 3), (4, 5), (6, 7), (2, 4), (3, 5),
    (1, 4), (3, 6), (1, 2), (3, 4), (5, 6),
)  # fmt: skip
_APART_4, _APART_2, _APART_1 = (tuple((i, i + d) for i in range(8) if not i & d) for d in (4, 2, 1))
_REVERSED = (*((i, i + 4) for i in range(4)), (0, 2), (1, 3), (0, 1), (2, 3), (7, 5), (6, 4), (7, 6), (5, 4))


def _exchanges(pairs):
    @intrinsic
    def exchange(typingctx, keys, values, low, low_step, high, high_step):
        """Exchange among eight rows, four from one flat index on and four from another, and as many lanes as fit."""
        vec = VecType(keys.dtype, 512 // keys.dtype.bitwidth)

        def codegen(context, builder, sig, args):
            indices = []
            for first, step in ((args[2], args[3]), (args[4], args[5])):
                for _ in range(4):
                    indices.append(first)
                    first = builder.add(first, step)
            places = [[pointer_to(context, builder, sig.args[x], args[x], i, vec) for i in indices] for x in (0, 1)]
            rows = [[builder.load(place, align=vec.dtype.bitwidth // 8) for place in column] for column in places]
            for i, j in pairs:
                swapped = builder.fcmp_ordered(">", rows[0][i], rows[0][j])
                for column in rows:
                    a, b = column[i], column[j]
                    column[i], column[j] = builder.select(swapped, b, a), builder.select(swapped, a, b)
            for column, targets in zip(rows, places, strict=True):
                for row, place in zip(column, targets, strict=True):
                    builder.store(row, place, align=vec.dtype.bitwidth // 8)
            return context.get_dummy_value()

        return types.void(keys, values, *[types.intp] * 4), codegen

    return exchange


_sort_eight, _merge = _exchanges(_EIGHT), _exchanges(_REVERSED)
_apart_421, _apart_21, _apart_1 = (
    _exchanges(_APART_4 + _APART_2 + _APART_1), _exchanges(_APART_2 + _APART_1), _exchanges(_APART_1),
)  # fmt: skip


@jit
def rows_for(n):
    """Rows of keys and of values that ``sort_lanes`` needs for ``n``: a power of two, and one that ends them."""
    rows = 8
    while rows < n:
        rows *= 2
    return rows + 1


@jit
def sort_lanes(keys, values, n, lanes):
    """Sort ``n`` rows of ``lanes`` numbers; the keys of further rows become ``inf``."""
    keys[n * lanes : rows_for(n) * lanes] = math.inf
    for part in range(0, lanes, 64 // keys.itemsize):
        for base in range(part, n * lanes, 8 * lanes):
            _sort_eight(keys, values, base, lanes, base + 4 * lanes, lanes)
        run = 8
        while run < n:
            _merge_runs(keys, values, n, lanes, part, run)
            run *= 2


@jit
def _merge_runs(keys, values, n, lanes, part, run):
    for base in range(0, n - run, 2 * run):
        for i in range(base, base + run // 4):
            low, high, step = i * lanes + part, (2 * (base + run) - 1 - i) * lanes + part, run // 4 * lanes
            _merge(keys, values, low, step, high, -step)
        apart, end = run // 8, min(base + 2 * run, n)
        while apart >= 4:
            step = apart // 4
            for block in range(base, end, 8 * step):
                for i in range(block, block + step):
                    _apart_421(
                        keys, values, i * lanes + part, step * lanes, (i + 4 * step) * lanes + part, step * lanes
                    )
            apart //= 8
        for low in range(base * lanes + part, end * lanes, 8 * lanes):
            if apart == 2:
                _apart_21(keys, values, low, lanes, low + 4 * lanes, lanes)
            elif apart == 1:
                _apart_1(keys, values, low, lanes, low + 4 * lanes, lanes)
