"""What moves numbers between the lanes of vectors: sums, transpositions, sorting."""

# mypy: disable-error-code="no-untyped-def"
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from firstspike.spiketime.cpu.vectors.simd import VecType, element_of, pointer_to, shuffle


@intrinsic
def fold16(typingctx, x):
    """16 sums of the lanes whose numbers agree modulo 16."""
    vec = VecType(x.dtype, 16)

    def codegen(context, builder, sig, args):
        parts = [shuffle(builder, args[0], args[0], range(i, i + 16)) for i in range(0, x.lanes, 16)]
        while len(parts) > 1:
            parts = [builder.fadd(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    return vec(x), codegen


@intrinsic
def transpose16(typingctx, source, index, step, target, to, to_step, scale):
    """Write 16 rows of 16 numbers, ``step`` apart, times a vector, as 16 columns that are ``to_step`` apart."""
    vec = VecType(source.dtype, 16)

    def codegen(context, builder, sig, args):
        source_, index_, step_, target_, to_, to_step_, scale_ = args
        size = source.dtype.bitwidth // 8
        rows = []
        for _ in range(16):
            rows.append(builder.load(pointer_to(context, builder, sig.args[0], source_, index_, vec), align=size))
            index_ = builder.add(index_, step_)
        width = 1
        while width < 16:  # exchange blocks of lanes between pairs of rows
            done = list(rows)
            for i in (i for i in range(16) if not i & width):
                left = [x if not x & width else x - width + 16 for x in range(16)]
                done[i] = shuffle(builder, rows[i], rows[i + width], left)
                done[i + width] = shuffle(builder, rows[i], rows[i + width], [x + width for x in left])
            rows, width = done, 2 * width
        for row in rows:
            scaled = builder.fmul(row, scale_)
            builder.store(scaled, pointer_to(context, builder, sig.args[3], target_, to_, vec), align=size)
            to_ = builder.add(to_, to_step_)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp, vec), codegen


@intrinsic
def sum_rows16(typingctx, array, index):
    """The sums of 16 rows of 16 numbers each, from a flat index into a contiguous array on, as one vector."""
    vec = VecType(array.dtype, 16)

    def codegen(context, builder, sig, args):
        start = pointer_to(context, builder, sig.args[0], *args, vec, count=16)
        step = array.dtype.bitwidth // 8
        rows = [builder.load(builder.gep(start, [ir.IntType(32)(i)]), align=step) for i in range(16)]
        width = 1
        while len(rows) > 1:  # in each block of lanes: the first half from one row, the second from the other
            left = [lane if lane // width % 2 == 0 else lane - width + 16 for lane in range(16)]
            right = [lane + width for lane in left]
            rows = [
                builder.fadd(shuffle(builder, a, b, left), shuffle(builder, a, b, right))
                for a, b in zip(rows[::2], rows[1::2], strict=True)
            ]
            width *= 2
        return rows[0]

    return vec(array, types.intp), codegen


@intrinsic
def sort_pairs16(typingctx, numbers, labels, index):
    """Sort each of 8 pairs of neighbours, from a flat index into a contiguous array on, with labels of 32 bits.

    Returns whether any pair was out of order.
    """
    vec, lanes = VecType(numbers.dtype, 16), range(16)

    def codegen(context, builder, sig, args):
        numbers_, labels_, index_ = args
        size = numbers.dtype.bitwidth // 8
        data = element_of(context, builder, sig.args[1], labels_, index_, 16)
        wholes = builder.bitcast(data, ir.VectorType(ir.IntType(32), 16).as_pointer())
        values = pointer_to(context, builder, sig.args[0], numbers_, index_, vec)
        x, label = builder.load(values, align=size), builder.load(wholes, align=4)
        left, right = (shuffle(builder, x, x, [lane // 2 * 2 + side for lane in lanes]) for side in (0, 1))
        wrong = builder.fcmp_ordered(">", left, right)
        other = [lane ^ 1 for lane in lanes]
        builder.store(builder.select(wrong, shuffle(builder, x, x, other), x), values, align=size)
        builder.store(builder.select(wrong, shuffle(builder, label, label, other), label), wholes, align=4)
        return builder.icmp_unsigned("!=", builder.bitcast(wrong, ir.IntType(16)), ir.IntType(16)(0))

    return types.boolean(numbers, labels, types.intp), codegen


def _smaller_first(builder, a, b):
    """The smaller and the larger of two vectors of integers, lane by lane."""
    swapped = builder.icmp_signed(">", a, b)
    return builder.select(swapped, b, a), builder.select(swapped, a, b)


def _bitonic(builder, rows):
    """Sort the integers of several vectors of 16 lanes, a power of two of them, by a network of exchanges.

    Sorted runs become one twice as long: the numbers of one are exchanged with those of the other in reverse, then
    numbers half a run apart, a quarter, and so on.
    """

    def within(x, other, of_first):
        low, high = _smaller_first(builder, x, shuffle(builder, x, x, other))
        return shuffle(builder, low, high, [lane if lane & of_first == 0 else lane + 16 for lane in range(16)])

    rows, backwards = list(rows), range(15, -1, -1)
    size = 2
    while size <= 16 * len(rows):
        if size <= 16:
            rows = [within(x, [lane ^ (size - 1) for lane in range(16)], size // 2) for x in rows]
        else:
            for i in (i for i in range(len(rows)) if not i & (size // 32)):
                j = i ^ (size // 16 - 1)
                rows[i], high = _smaller_first(builder, rows[i], shuffle(builder, rows[j], rows[j], backwards))
                rows[j] = shuffle(builder, high, high, backwards)
        apart = size // 4
        while apart >= 16:
            for i in (i for i in range(len(rows)) if not i & (apart // 16)):
                j = i + apart // 16
                rows[i], rows[j] = _smaller_first(builder, rows[i], rows[j])
            apart //= 2
        while apart:
            rows = [within(x, [lane ^ apart for lane in range(16)], apart) for x in rows]
            apart //= 2
        size *= 2
    return rows


def order_of(count: int):
    """The function that finds the order of that many numbers, 16 times a power of two."""
    bits = count.bit_length() - 1

    @intrinsic
    def order(typingctx, numbers, places):
        """Write the places of the smallest number, the next one, and so on; the last ``bits`` bits do not count.

        Numbers that agree in all others keep their order.
        """
        width = numbers.dtype.bitwidth
        wholes = ir.VectorType(ir.IntType(width), 16)

        def codegen(context, builder, sig, args):
            def constant(values):
                return ir.Constant(wholes, list(values))

            start = ir.IntType(64)(0)
            data = element_of(context, builder, sig.args[0], args[0], start, count)
            target = element_of(context, builder, sig.args[1], args[1], start, count)
            rows = []
            for first in range(0, count, 16):
                place = builder.bitcast(builder.gep(data, [ir.IntType(64)(first)]), wholes.as_pointer())
                raw = builder.load(place, align=width // 8)
                # integers that are ordered as the numbers are: those of negative ones with their digits turned
                sign = builder.ashr(raw, constant([width - 1] * 16))
                raw = builder.xor(raw, builder.and_(sign, constant([2 ** (width - 1) - 1] * 16)))
                kept = builder.and_(raw, constant([-(1 << bits)] * 16))
                rows.append(builder.or_(kept, constant(range(first, first + 16))))
            into = ir.VectorType(ir.IntType(32), 16)
            for first, row in zip(range(0, count, 16), _bitonic(builder, rows), strict=True):
                label = builder.and_(row, constant([count - 1] * 16))
                label = label if width == 32 else builder.trunc(label, into)
                place = builder.bitcast(builder.gep(target, [ir.IntType(64)(first)]), into.as_pointer())
                builder.store(label, place, align=4)
            return context.get_dummy_value()

        return types.void(numbers, places), codegen

    return order
