"""Which lanes of a long vector are still at work.

A ``Mask`` holds a vector's lanes in parts of 16, each its own LLVM value: as one value, or as an integer, the
parts would be joined and cut again at every use. Where the machine has mask registers (AVX-512) a lane is a bit there,
and a masked update of a vector costs no more than an unmasked one. Elsewhere it is the sign of an integer as wide as
the numbers, as machines without such registers compare and select: bits would be packed and unpacked at every use.
"""

# mypy: disable-error-code="no-untyped-def"
from functools import reduce

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.extending import register_model

from firstspike.spiketime.cpu.runtime.compiling import HAS_MASKS, emitted
from firstspike.spiketime.cpu.vectors.simd import (
    INT64,
    VecType,
    any_from,
    bits_from,
    constant,
    lanes_from,
    shuffle,
    splat_into,
    store_lanes,
)

_PART = 16
_REGISTER = 256  # bits of a vector register without a mask register beside it


class MaskType(types.Type):
    """Numba's type of a mask: its lanes, and the bits of the numbers that it is for."""

    def __init__(self, lanes: int, bits: int) -> None:
        self.lanes, self.bits = lanes, 1 if HAS_MASKS else bits
        super().__init__(name=f"Mask({lanes}, {self.bits})")

    def kept(self, builder, truth):
        """A part of a mask from LLVM's truth values."""
        return truth if self.bits == 1 else builder.sext(truth, ir.VectorType(ir.IntType(self.bits), _PART))

    def truth(self, builder, part):
        """LLVM's truth values from a part of a mask."""
        return part if self.bits == 1 else builder.icmp_signed("<", part, constant(part.type, 0))


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type: MaskType) -> None:
        part = ir.VectorType(ir.IntType(fe_type.bits), _PART)
        super().__init__(dmm, fe_type, ir.LiteralStructType([part] * (fe_type.lanes // _PART)))


def _parts(builder, *values):
    """The parts of masks and vectors, for each 16 lanes one of each."""

    def cut(x):
        if isinstance(x.type, ir.VectorType):
            return [shuffle(builder, x, x, range(i, i + _PART)) for i in range(0, x.type.count, _PART)]
        return cgutils.unpack_tuple(builder, x)

    return zip(*map(cut, values), strict=True)


@emitted(lambda zero, bits: MaskType(zero.lanes, zero.dtype.bitwidth)(zero, types.uint64))
def mask_of(context, builder, sig, zero, bits):
    """The mask of the lanes whose bits are set, for vectors like ``zero``."""
    words = [builder.lshr(bits, INT64(i)) for i in range(0, sig.return_type.lanes, _PART)]
    parts = [sig.return_type.kept(builder, lanes_from(builder, word, _PART)) for word in words]
    return cgutils.make_anonymous_struct(builder, parts)


@emitted(lambda mask: types.uint64(mask))
def bits_of(context, builder, sig, mask):
    """The lanes of a mask as the bits of an integer."""
    words = [bits_from(builder, sig.args[0].truth(builder, part)) for (part,) in _parts(builder, mask)]
    return reduce(builder.or_, (builder.shl(word, INT64(_PART * i)) for i, word in enumerate(words)))


@emitted(lambda mask: types.boolean(mask))
def any_of(context, builder, sig, mask):
    """Whether any lane is set."""
    total = reduce(builder.or_, (part for (part,) in _parts(builder, mask)))
    return any_from(builder, sig.args[0].truth(builder, total))


@emitted(lambda x, bound: types.boolean(x, x.dtype))
def any_reaches(context, builder, sig, x, bound):
    """Whether any lane has ``x >= bound``, a number. Cheaper than to ask which ones, without mask registers."""
    vec = sig.args[0]
    if HAS_MASKS:
        return any_from(builder, builder.fcmp_ordered(">=", x, splat_into(builder, bound, vec)))
    # the signs of integers as wide as the numbers, joined before they become bits
    part = VecType(vec.dtype, _REGISTER // vec.dtype.bitwidth)
    level, total = splat_into(builder, bound, part), constant(part.integers, 0)
    for i in range(0, vec.lanes, part.lanes):
        some = shuffle(builder, x, x, range(i, i + part.lanes))
        total = builder.or_(total, builder.sext(builder.fcmp_ordered(">=", some, level), part.integers))
    return any_from(builder, builder.icmp_signed("<", total, constant(part.integers, 0)))


@emitted(lambda mask, x, bound: mask(mask, x, x))
def where_below(context, builder, sig, mask, x, bound):
    """The lanes of the mask with ``x < bound``."""
    kept = sig.return_type.kept
    parts = [
        builder.and_(m, kept(builder, builder.fcmp_ordered("<", a, b))) for m, a, b in _parts(builder, mask, x, bound)
    ]
    return cgutils.make_anonymous_struct(builder, parts)


@emitted(lambda mask, new, old: old(mask, old, old))
def update(context, builder, sig, mask, new, old):
    """``new`` in the lanes of the mask, ``old`` in the others."""
    truth = sig.args[0].truth
    parts = [builder.select(truth(builder, m), a, b) for m, a, b in _parts(builder, mask, new, old)]
    while len(parts) > 1:
        lanes = range(2 * parts[0].type.count)
        parts = [shuffle(builder, a, b, lanes) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


@emitted(lambda mask, array, index, x: types.void(mask, array, types.intp, x))
def store_where(context, builder, sig, mask, array, index, x):
    """Write the lanes of the mask from a flat index into an array on. It is slow without mask registers."""
    for i, (m, part) in enumerate(_parts(builder, mask, x)):
        truth, at = sig.args[0].truth(builder, m), builder.add(index, INT64(_PART * i))
        store_lanes(context, builder, sig.args[1], truth, array, at, part, VecType(sig.args[3].dtype, _PART))
