"""Which lanes of a long vector are still at work.

A ``Mask`` holds a vector's lanes in parts of 16, each an LLVM value of its own: as one value, or as an integer, the
parts would be joined and cut again at every use. Where the machine has mask registers (AVX-512) a lane is a bit there,
and a masked update of a vector costs no more than an unmasked one. Elsewhere it is the sign of an integer as wide as
the numbers, as machines without such registers compare and select: bits would be packed and unpacked at every use.
"""

# mypy: disable-error-code="no-untyped-def"
from functools import lru_cache

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.registry import cpu_target
from numba.extending import intrinsic, register_model

from firstspike.spiketime.cpu.vectors.simd import VecType, shuffle, splat_into

_PART = 16
_REGISTER = 256  # bits of a vector register without a mask register beside it


@lru_cache(maxsize=1)
def has_mask_registers() -> bool:
    """Whether kernels are compiled for a machine with mask registers."""
    _, name, features = cpu_target.target_context.codegen().magic_tuple()
    return "+avx512f" in features if features else "avx512" in name


class MaskType(types.Type):
    """Numba's type of a mask: its lanes, and the bits of the numbers that it is for."""

    def __init__(self, lanes: int, bits: int) -> None:
        self.lanes, self.bits = lanes, 1 if has_mask_registers() else bits
        super().__init__(name=f"Mask({lanes}, {self.bits})")

    @property
    def part(self) -> ir.VectorType:
        """LLVM's type of 16 lanes."""
        return ir.VectorType(ir.IntType(self.bits), _PART)


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type: MaskType) -> None:
        super().__init__(dmm, fe_type, ir.LiteralStructType([fe_type.part] * (fe_type.lanes // _PART)))


def _kept(builder, truth, mask: MaskType):
    """A part of a mask from LLVM's truth values."""
    return truth if mask.bits == 1 else builder.sext(truth, mask.part)


def _truth(builder, part, mask: MaskType):
    return part if mask.bits == 1 else builder.icmp_signed("<", part, ir.Constant(mask.part, None))


def _parts(builder, x, lanes: int):
    if isinstance(x.type, ir.VectorType):
        return [shuffle(builder, x, x, range(i, i + _PART)) for i in range(0, lanes, _PART)]
    return cgutils.unpack_tuple(builder, x)


@intrinsic
def mask_of(typingctx, zero, bits):
    """The mask of the lanes whose bits are set, for vectors like ``zero``."""
    mask = MaskType(zero.lanes, zero.dtype.bitwidth)

    def codegen(context, builder, sig, args):
        words = [
            builder.trunc(builder.lshr(args[1], ir.IntType(64)(i)), ir.IntType(_PART))
            for i in range(0, zero.lanes, _PART)
        ]
        parts = [builder.bitcast(word, ir.VectorType(ir.IntType(1), _PART)) for word in words]
        return cgutils.make_anonymous_struct(builder, [_kept(builder, part, mask) for part in parts])

    return mask(zero, types.uint64), codegen


@intrinsic
def bits_of(typingctx, mask):
    """The lanes of a mask as the bits of an integer."""

    def codegen(context, builder, sig, args):
        total = ir.IntType(64)(0)
        for i, part in enumerate(_parts(builder, args[0], mask.lanes)):
            word = builder.zext(builder.bitcast(_truth(builder, part, mask), ir.IntType(_PART)), ir.IntType(64))
            total = builder.or_(total, builder.shl(word, ir.IntType(64)(_PART * i)))
        return total

    return types.uint64(mask), codegen


@intrinsic
def any_of(typingctx, mask):
    """Whether any lane is set."""

    def codegen(context, builder, sig, args):
        first, *rest = _parts(builder, args[0], mask.lanes)
        for part in rest:
            first = builder.or_(first, part)
        bits = builder.bitcast(_truth(builder, first, mask), ir.IntType(_PART))
        return builder.icmp_unsigned("!=", bits, ir.IntType(_PART)(0))

    return types.boolean(mask), codegen


@intrinsic
def any_reaches(typingctx, x, bound):
    """Whether any lane has ``x >= bound``, a number. Cheaper than to ask which ones, without mask registers."""

    def codegen(context, builder, sig, args):
        if has_mask_registers():
            truth = builder.fcmp_ordered(">=", args[0], splat_into(builder, args[1], x))
        else:  # the signs of integers as wide as the numbers, joined before they become bits
            lanes = _REGISTER // x.dtype.bitwidth
            part = VecType(x.dtype, lanes)
            signs, level = ir.VectorType(ir.IntType(x.dtype.bitwidth), lanes), splat_into(builder, args[1], part)
            total = ir.Constant(signs, None)
            for i in range(0, x.lanes, lanes):
                some = shuffle(builder, args[0], args[0], range(i, i + lanes))
                total = builder.or_(total, builder.sext(builder.fcmp_ordered(">=", some, level), signs))
            truth = builder.icmp_signed("<", total, ir.Constant(signs, None))
        word = ir.IntType(truth.type.count)
        return builder.icmp_unsigned("!=", builder.bitcast(truth, word), word(0))

    return types.boolean(x, x.dtype), codegen


@intrinsic
def where_below(typingctx, mask, x, bound):
    """The lanes of the mask with ``x < bound``."""

    def codegen(context, builder, sig, args):
        parts = [
            builder.and_(m, _kept(builder, builder.fcmp_ordered("<", a, b), mask))
            for m, a, b in zip(*(_parts(builder, value, mask.lanes) for value in args), strict=True)
        ]
        return cgutils.make_anonymous_struct(builder, parts)

    return mask(mask, x, x), codegen


def _joined(builder, parts):
    while len(parts) > 1:
        lanes = range(2 * parts[0].type.count)
        parts = [shuffle(builder, a, b, lanes) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


@intrinsic
def update(typingctx, mask, new, old):
    """``new`` in the lanes of the mask, ``old`` in the others."""

    def codegen(context, builder, sig, args):
        parts = [
            builder.select(_truth(builder, m, mask), a, b)
            for m, a, b in zip(*(_parts(builder, value, mask.lanes) for value in args), strict=True)
        ]
        return _joined(builder, parts)

    return old(mask, old, old), codegen
