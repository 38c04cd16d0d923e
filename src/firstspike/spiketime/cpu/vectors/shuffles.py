"""Functions that move numbers between lanes or vectors: sums, transpositions, sorting."""

# mypy: disable-error-code="no-untyped-def"
import math
from functools import reduce

from llvmlite import ir
from numba.core import cgutils, types

from firstspike.spiketime.cpu.runtime.compiling import HAS_MASKS, HAS_PERMUTATIONS, emitted, jit
from firstspike.spiketime.cpu.vectors.simd import (
    INT32,
    INT64,
    VecType,
    any_from,
    constant,
    element_of,
    fused,
    lanes_from,
    llvm_type,
    pointer_to,
    shuffle,
    wholes_at,
)

# lanes of what ``fold_short`` gives: as many numbers of 32 bits as fill a register
SHORT = 16 if HAS_MASKS else 8
_LANES = range(16)


def _folded(numbers: int):
    """Return the function that adds up the lanes of a vector until ``numbers`` of them are left."""

    @emitted(lambda x: VecType(x.dtype, numbers)(x))
    def sums(context, builder, sig, x):
        """Lane i is the sum of the lanes i, i + numbers, i + 2 numbers and so on."""
        parts = [shuffle(builder, x, x, range(i, i + numbers)) for i in range(0, sig.args[0].lanes, numbers)]
        while len(parts) > 1:
            parts = [builder.fadd(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    return sums


fold16, fold_short = _folded(16), _folded(SHORT)


@emitted(lambda x, y: VecType(x.dtype, SHORT)(x, y))
def dot_short(context, builder, sig, x, y):
    """``fold_short`` of the products, each of which is added as it is made."""
    pairs = [[shuffle(builder, z, z, range(i, i + SHORT)) for z in (x, y)] for i in range(0, sig.args[0].lanes, SHORT)]
    return reduce(lambda total, pair: fused(builder, *pair, total), pairs[1:], builder.fmul(*pairs[0]))


@emitted(lambda source, index, step, target, *to: types.void(source, types.intp, types.intp, target, *[types.intp] * 2))
def transpose16(context, builder, sig, source, index, step, target, to, to_step):
    """Write 16 rows of 16 numbers, ``step`` apart, as 16 columns that are ``to_step`` apart."""
    vec, rows = VecType(sig.args[0].dtype, 16), []
    for _ in _LANES:
        rows.append(builder.load(pointer_to(context, builder, sig.args[0], source, index, vec), align=vec.bytes))
        index = builder.add(index, step)
    for row in _transposed(builder, rows):
        builder.store(row, pointer_to(context, builder, sig.args[3], target, to, vec), align=vec.bytes)
        to = builder.add(to, to_step)


def _transposed(builder, rows):
    """The columns of 16 rows: blocks of lanes are exchanged between pairs of rows."""
    width = 1
    while width < 16:
        done = list(rows)
        for i in (i for i in _LANES if not i & width):
            left = [x if not x & width else x - width + 16 for x in _LANES]
            done[i] = shuffle(builder, rows[i], rows[i + width], left)
            done[i + width] = shuffle(builder, rows[i], rows[i + width], [x + width for x in left])
        rows, width = done, 2 * width
    return rows


@emitted(lambda x, places, *numbers: types.void(x, places, *[types.intp] * 3, x, types.intp))
def columns16(context, builder, sig, source, places, first, step, start, target, to):
    """Write the columns of 16 rows, at ``step * places[first + i] + start``, one after the other."""
    vec, rows = VecType(sig.args[0].dtype, 16), []
    for i in _LANES:
        place = builder.load(element_of(context, builder, sig.args[1], places, builder.add(first, INT64(i)), 1))
        index = builder.add(builder.mul(builder.zext(place, INT64), step), start)
        rows.append(builder.load(pointer_to(context, builder, sig.args[0], source, index, vec), align=vec.bytes))
    target = pointer_to(context, builder, sig.args[5], target, to, vec, count=16)
    for i, row in enumerate(_transposed(builder, rows)):
        builder.store(row, builder.gep(target, [INT64(i)]), align=vec.bytes)


@emitted(lambda bits, array, index, x: types.intp(types.uint64, array, types.intp, x))
def pack16(context, builder, sig, bits, array, index, x):
    """Write the lanes whose bits are set one after the other, and anything up to 16; returns where they end."""
    wide = 512 if HAS_MASKS else 256 if HAS_PERMUTATIONS else 1
    part = VecType(sig.args[3].dtype, max(wide // sig.args[3].dtype.bitwidth, 1))
    for first in range(0, 16, part.lanes):
        some, word = shuffle(builder, x, x, range(first, first + part.lanes)), builder.lshr(bits, INT64(first))
        used = builder.and_(word, INT64(2**part.lanes - 1))
        if wide == 512:
            kinds = [some.type, some.type, ir.VectorType(ir.IntType(1), part.lanes)]
            name = f"llvm.x86.avx512.mask.compress.v{part.lanes}f{part.dtype.bitwidth}"
            compress = cgutils.get_or_insert_function(builder.module, ir.FunctionType(some.type, kinds), name)
            some = builder.call(compress, [some, some, lanes_from(builder, word, part.lanes)])
        elif wide == 256:
            some = _permuted(builder, some, used)
        if wide > 1:
            used = builder.call(builder.module.declare_intrinsic("llvm.ctpop", [INT64]), [used])
        builder.store(some, pointer_to(context, builder, sig.args[1], array, index, part), align=part.bytes)
        index = builder.add(index, used)
    return index


def _permuted(builder, x, bits):
    """The lanes of a register of AVX2 whose bits are set, one after the other, by a table of their places."""
    words, row = 8 // x.type.count, ir.VectorType(ir.IntType(8), 8)  # places of eight words of 32 bits
    name = f"places of {x.type.count}"
    table = builder.module.globals.get(name)
    if table is None:
        chosen = ([i for i in range(8) if bit >> i // words & 1] for bit in range(2**x.type.count))
        rows = [constant(row, (places + [0] * 8)[:8]) for places in chosen]
        table = ir.GlobalVariable(builder.module, ir.ArrayType(row, len(rows)), name)
        table.initializer = ir.Constant(table.type.pointee, rows)
        table.global_constant, table.linkage = True, "internal"
    floats, wholes = ir.VectorType(ir.FloatType(), 8), ir.VectorType(INT32, 8)
    permute = ir.FunctionType(floats, [floats, wholes])
    permute = cgutils.get_or_insert_function(builder.module, permute, "llvm.x86.avx2.permps")
    places = builder.zext(builder.load(builder.gep(table, [INT64(0), bits]), align=8), wholes)
    return builder.bitcast(builder.call(permute, [builder.bitcast(x, floats), places]), x.type)


def _sums_of(numbers: int):
    """Return the function that sums 16 rows of that many numbers each."""

    @emitted(lambda array, index: VecType(array.dtype, 16)(array, types.intp))
    def sums(context, builder, sig, array, index):
        """The sums of 16 rows, from a flat index into a contiguous array on, as one vector."""
        vec = VecType(sig.args[0].dtype, numbers)
        start = pointer_to(context, builder, sig.args[0], array, index, vec, count=16)
        rows = [builder.load(builder.gep(start, [INT32(i)]), align=vec.bytes) for i in _LANES]
        width = 1
        while width < numbers:  # in each block of lanes: the first half from one row, the second from the other
            left = [lane if lane // width % 2 == 0 else lane - width + numbers for lane in range(numbers)]
            right = [lane + width for lane in left]
            rows = [
                builder.fadd(shuffle(builder, a, b, left), shuffle(builder, a, b, right))
                for a, b in zip(rows[::2], rows[1::2], strict=True)
            ]
            width *= 2
        return rows[0] if numbers == 16 else shuffle(builder, *rows, _LANES)

    return sums


sum_rows16, sum_short16 = _sums_of(16), _sums_of(SHORT)


@emitted(lambda numbers, labels, index: types.boolean(numbers, labels, types.intp))
def sort_pairs16(context, builder, sig, numbers, labels, index):
    """Sort each of 8 pairs of neighbours, from a flat index into a contiguous array on, with labels of 32 bits.

    Returns whether any pair was out of order.
    """
    vec = VecType(sig.args[0].dtype, 16)
    wholes = wholes_at(context, builder, sig.args[1], labels, index)
    values = pointer_to(context, builder, sig.args[0], numbers, index, vec)
    x, label = builder.load(values, align=vec.bytes), builder.load(wholes, align=4)
    left, right = (shuffle(builder, x, x, [lane // 2 * 2 + side for lane in _LANES]) for side in (0, 1))
    wrong = builder.fcmp_ordered(">", left, right)
    other = [lane ^ 1 for lane in _LANES]
    builder.store(builder.select(wrong, shuffle(builder, x, x, other), x), values, align=vec.bytes)
    builder.store(builder.select(wrong, shuffle(builder, label, label, other), label), wholes, align=4)
    return any_from(builder, wrong)


def _exchanged(builder, rows, change: int):
    """Vectors of 16 integers: of two whose places differ in the bits of ``change`` the smaller comes first."""
    across, within = change // 16, [lane ^ (change % 16) for lane in _LANES]
    top, done = 1 << (change.bit_length() - 1), list(rows)
    for i in (i for i in range(len(rows)) if not i & (top // 16)):
        x, y = rows[i], shuffle(builder, rows[i ^ across], rows[i ^ across], within)
        wrong = builder.icmp_signed(">", x, y)
        low, high = builder.select(wrong, y, x), builder.select(wrong, x, y)
        if across:
            done[i], done[i ^ across] = low, shuffle(builder, high, high, within)
        else:
            done[i] = shuffle(builder, low, high, [lane + 16 if lane & top else lane for lane in _LANES])
    return done


def _bitonic(builder, rows):
    """Sort the integers of several vectors of 16 lanes, a power of two of them, by a network of exchanges.

    Sorted runs become one twice as long: the numbers of one are exchanged with those of the other in reverse, then
    numbers half a run apart, a quarter, and so on.
    """
    run = 1
    while run < 16 * len(rows):
        rows = _exchanged(builder, rows, 2 * run - 1)
        apart = run // 2
        while apart:
            rows = _exchanged(builder, rows, apart)
            apart //= 2
        run *= 2
    return rows


def order_of(count: int):
    """The function that finds the order of that many numbers, 16 times a power of two."""

    @emitted(lambda numbers, places: types.void(numbers, places))
    def order(context, builder, sig, numbers, places):
        """Write the places of the smallest number, the next one, and so on. The last ``bits`` bits do not count.

        Numbers that agree in all others keep their order.
        """
        vec = VecType(sig.args[0].dtype, 16)
        data = element_of(context, builder, sig.args[0], numbers, INT64(0), count)
        target = element_of(context, builder, sig.args[1], places, INT64(0), count)
        rows, width = [], vec.dtype.bitwidth
        for first in range(0, count, 16):
            place = builder.bitcast(builder.gep(data, [INT64(first)]), vec.integers.as_pointer())
            raw = builder.load(place, align=vec.bytes)
            # integers that are ordered as the numbers are: those of negative ones with their digits turned
            sign = builder.ashr(raw, constant(vec.integers, width - 1))
            raw = builder.xor(raw, builder.and_(sign, constant(vec.integers, 2 ** (width - 1) - 1)))
            kept = builder.and_(raw, constant(vec.integers, -count))
            rows.append(builder.or_(kept, constant(vec.integers, range(first, first + 16))))
        into = ir.VectorType(INT32, 16)
        for first, row in zip(range(0, count, 16), _bitonic(builder, rows), strict=True):
            label = builder.and_(row, constant(vec.integers, count - 1))
            label = label if width == 32 else builder.trunc(label, into)
            place = builder.bitcast(builder.gep(target, [INT64(first)]), into.as_pointer())
            builder.store(label, place, align=4)

    return order


# Green's network for 16 rows, and parts of merges for eight
_SIXTEEN = (
    *((i, i + d) for d in (1, 2, 4, 8) for i in range(16) if not i & d),
    (5, 10), (6, 9), (3, 12), (13, 14), (4, 8), (7, 11), (1, 2), (1, 4), (7, 13), (2, 8), (11, 14), (2, 4), (5, 6),
    (9, 10), (11, 13), (3, 8), (7, 12), (6, 8), (10, 12), (3, 5), (7, 9), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12),
    (6, 7), (8, 9),
)  # fmt: skip
_APART = tuple((i, i + d) for d in (4, 2, 1) for i in range(8) if not i & d)
_REVERSED = (*((i, i + 4) for i in range(4)), (0, 2), (1, 3), (0, 1), (2, 3), (7, 5), (6, 4), (7, 6), (5, 4))
_VECTOR = 512 if HAS_MASKS else 256  # bits of a register
_ROW = 32  # numbers of a row


def _exchanges(pairs, step, high_step, half=4):
    """The function that exchanges among rows, whose distances are fixed: addresses would need all registers."""

    @emitted(lambda keys, values, low, high: types.void(keys, values, types.intp, types.intp))
    def exchange(context, builder, sig, keys, values, low, high):
        """Exchange among rows, half of them from one flat index on and half from another, and as many lanes as fit."""
        vec = VecType(sig.args[0].dtype, _VECTOR // sig.args[0].dtype.bitwidth)
        # rows that registers have no room for lie on the stack, which LLVM aligns only for what is there from the start
        spare = cgutils.alloca_once(builder, llvm_type(vec))
        spare.align = _VECTOR // 8
        builder.asm(ir.FunctionType(ir.VoidType(), [spare.type]), "", "r", [spare], True)
        places: list[list] = [[], []]
        for column, kind, array in zip(places, sig.args, (keys, values), strict=False):
            for first, apart in ((low, step), (high, high_step)):
                for i in range(half):
                    index = builder.add(first, INT64(i * apart * _ROW))
                    column.append(pointer_to(context, builder, kind, array, index, vec))
        rows = [[builder.load(place, align=vec.bytes) for place in column] for column in places]
        for i, j in pairs:
            wrong = builder.fcmp_ordered(">", rows[0][i], rows[0][j])
            for column in rows:
                a, b = column[i], column[j]
                column[i], column[j] = builder.select(wrong, b, a), builder.select(wrong, a, b)
        for row, place in zip((*rows[0], *rows[1]), (*places[0], *places[1]), strict=True):
            builder.store(row, place, align=vec.bytes)

    return exchange


_sort_sixteen = _exchanges(_SIXTEEN, 1, 1, 8)
_merge_16, _merge_32, _turn = _exchanges(_REVERSED, 4, -4), _exchanges(_REVERSED, 8, -8), _exchanges(_APART[:4], 1, -1)
_apart_far, _apart_16, _apart_4, _apart_2 = (
    _exchanges(_APART[first:end], step, step) for first, end, step in ((0, 4, 1), (0, 12, 4), (0, 12, 1), (4, 12, 1))
)


@jit
def rows_for(n):
    """Rows of keys and of values that ``sort_lanes`` needs for ``n``: a power of two, and one that ends them."""
    rows = 16
    while rows < n:
        rows *= 2
    return rows + 1


@jit
def sort_lanes(keys, values, n):
    """Sort ``n`` rows of 32 numbers, each lane by its own keys. The keys of further rows become ``inf``.

    It is a network of exchanges, some rows of them in registers at a time. Runs of 16 rows are sorted, then merged
    in pairs to runs twice as long. A merge first exchanges the rows of one run with those of the other in reverse, then
    rows that are half a run apart, a quarter, and so on. The smaller key always goes to the lower row.
    """
    keys[n * _ROW : rows_for(n) * _ROW] = math.inf
    for part in range(0, _ROW, _VECTOR // 8 // keys.itemsize):
        for base in range(part, n * _ROW, 16 * _ROW):
            _sort_sixteen(keys, values, base, base + 8 * _ROW)
        run = 16
        while run < n:
            for base in range(0, n - run, 2 * run):
                _merge_runs(keys, values, base, n, part, run)
            run *= 2


@jit
def _merge_runs(keys, values, base, n, part, run):
    """Merge two runs from ``base`` on. Exchanges with rows from n on, which are ``inf``, are left out."""
    end, last = min(base + 2 * run, n), 2 * (base + run) - 1
    if run == 16:
        for i in range(base, base + 4):
            _merge_16(keys, values, i * _ROW + part, (last - i) * _ROW + part)
    elif run == 32:
        for i in range(base, base + 8):
            _merge_32(keys, values, i * _ROW + part, (last - i) * _ROW + part)
    else:
        for i in range(max(base, (last + 1 - n) // 4 * 4), base + run, 4):
            _turn(keys, values, i * _ROW + part, (last - i) * _ROW + part)
        apart = run // 2
        while apart > 16:
            for block in range(base, end, 2 * apart):
                for i in range(block, min(block + apart, end - apart), 4):
                    _apart_far(keys, values, i * _ROW + part, (i + apart) * _ROW + part)
            apart //= 2
        for block in range(base, end, 32):
            for i in range(block, block + 4):
                _apart_16(keys, values, i * _ROW + part, (i + 16) * _ROW + part)
    for i in range(base, end, 8):
        if run == 32:
            _apart_4(keys, values, i * _ROW + part, (i + 4) * _ROW + part)
        else:
            _apart_2(keys, values, i * _ROW + part, (i + 4) * _ROW + part)
