"""A SIMD vector for Numba: LLVM keeps it in registers, and splits it where the machine's are narrower.

``Vec(dtype, lanes)`` exists only inside compiled functions. ``+ - * /``, ``min``, ``max`` and ``abs`` work lane by
lane, also with a number. Of NaN and a number y, ``min(x, y)`` is y. ``>= > < ==`` give the lanes where they hold as the
bits of an integer. LLVM does not promote small arrays to registers, and its checks whether arrays overlap cost more
than the arithmetic in the loops here: hence a separate type.
"""

# mypy: disable-error-code="no-untyped-def"
import operator
from types import MappingProxyType

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.imputils import lower_builtin, lower_cast
from numba.core.typeconv import Conversion
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import register_model

from firstspike.spiketime.cpu.runtime.compiling import HAS_MASKS, emitted, inlined, jit

INT32, INT64 = ir.IntType(32), ir.IntType(64)


class VecType(types.Type):
    """Numba's type of a vector."""

    def __init__(self, dtype: types.Float, lanes: int) -> None:
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vec({dtype}, {lanes})")

    @property
    def key(self):
        """The key by which types are equal."""
        return self.dtype, self.lanes

    def can_convert_from(self, typingctx, other):
        """A number becomes a vector of equal lanes."""
        return Conversion.safe if isinstance(other, types.Number) else None

    @property
    def integers(self) -> ir.VectorType:
        """LLVM's type of as many integers, as wide as the numbers."""
        return ir.VectorType(ir.IntType(self.dtype.bitwidth), self.lanes)

    @property
    def bytes(self) -> int:
        """Bytes of a number, and so its alignment."""
        return self.dtype.bitwidth // 8


@register_model(VecType)
class _VecModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type: VecType) -> None:
        super().__init__(dmm, fe_type, llvm_type(fe_type))


def llvm_type(vec: VecType | types.Float) -> ir.Type:
    """LLVM's type of a vector or number."""
    if isinstance(vec, types.Float):
        return ir.FloatType() if vec == types.float32 else ir.DoubleType()
    return ir.VectorType(llvm_type(vec.dtype), vec.lanes)


def constant(vec: ir.VectorType, values):
    """LLVM's vector of those numbers, or of one number in each lane."""
    return ir.Constant(vec, [values] * vec.count if isinstance(values, int | float) else list(values))


def shuffle(builder, a, b, lanes):
    """LLVM's choice of lanes from ``a`` and ``b``."""
    return builder.shuffle_vector(a, b, constant(ir.VectorType(INT32, len(lanes)), lanes))


def splat_into(builder, scalar, vec: VecType):
    """LLVM's vector of one number."""
    nothing = ir.Constant(llvm_type(vec), ir.Undefined)
    return shuffle(builder, builder.insert_element(nothing, scalar, INT32(0)), nothing, [0] * vec.lanes)


def lanes_from(builder, bits, lanes: int):
    """LLVM's truth values of that many lanes from the bits of an integer."""
    bits = builder.trunc(bits, ir.IntType(lanes)) if lanes < bits.type.width else bits
    return builder.bitcast(bits, ir.VectorType(ir.IntType(1), lanes))


def bits_from(builder, truth):
    """The bits of an integer from LLVM's truth values."""
    bits = builder.bitcast(truth, ir.IntType(truth.type.count))
    return bits if truth.type.count == 64 else builder.zext(bits, INT64)


def any_from(builder, truth):
    """Whether any of LLVM's truth values is true."""
    word = ir.IntType(truth.type.count)
    return builder.icmp_unsigned("!=", builder.bitcast(truth, word), word(0))


def fused(builder, x, y, z):
    """LLVM's ``x * y + z``."""
    return _call(builder, "fmuladd", x.type, [x, y, z], x.type)


def _call(builder, name: str, result: ir.Type, args, of: ir.Type):
    """Call an intrinsic of LLVM for values of a type, by its full name: llvmlite's declarations do not know vectors."""
    scalar, lanes = (of.element, f"v{of.count}") if isinstance(of, ir.VectorType) else (of, "")
    kind = f"i{scalar.width}" if isinstance(scalar, ir.IntType) else "f32" if scalar == ir.FloatType() else "f64"
    full = f"llvm.{name}.{lanes}{kind}" + (".p0" if name.startswith("masked") else "")
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [x.type for x in args]), full)
    return builder.call(function, args)


def _lanewise(*args):
    """A vector from vectors, and from numbers that count for all lanes."""
    vec = next(x for x in args if isinstance(x, VecType))
    return vec(*[vec] * len(args))


@lower_cast(types.Number, VecType)
def _number_to_vec(context, builder, fromty, toty, value):
    return splat_into(builder, context.cast(builder, value, fromty, toty.dtype), toty)


def _define(function, emit, count: int = 2, compares: bool = False) -> None:
    @infer_global(function)
    class _Typing(AbstractTemplate):
        metadata = MappingProxyType({"target": "cpu"})  # tried before Numba's dozens, which are for all targets

        def generic(self, args, kws):
            vecs = [x for x in args if isinstance(x, VecType)]
            if len(args) != count or not vecs or not all(x == vecs[0] or isinstance(x, types.Number) for x in args):
                return None
            return (types.uint64 if compares else vecs[0])(*[vecs[0]] * count)

    @lower_builtin(function, *[VecType] * count)
    def _lower(context, builder, sig, args):
        return bits_from(builder, builder.fcmp_ordered(emit, *args)) if compares else emit(builder, *args)


_ARITHMETIC = {operator.add: "fadd", operator.sub: "fsub", operator.mul: "fmul", operator.truediv: "fdiv"}
_ARITHMETIC |= {operator.iadd: "fadd", operator.isub: "fsub"}
_COMPARISONS = {operator.ge: ">=", operator.gt: ">", operator.lt: "<", operator.eq: "=="}
for _operator, _name in _ARITHMETIC.items():
    _define(_operator, getattr(ir.IRBuilder, _name))
for _operator, _relation in _COMPARISONS.items():
    _define(_operator, _relation, compares=True)
_define(min, lambda builder, x, y: builder.select(builder.fcmp_ordered("<", x, y), x, y))
_define(max, lambda builder, x, y: builder.select(builder.fcmp_ordered(">", x, y), x, y))
_define(abs, lambda builder, x: _call(builder, "fabs", x.type, [x], x.type), 1)


@emitted(_lanewise)
def fma(context, builder, sig, x, y, z):
    """``x * y + z``, rounded once where the machine can. Numbers among them count for all lanes."""
    return fused(builder, x, y, z)


def _called(name: str, typed):
    """An intrinsic of LLVM by its name."""

    def emit(context, builder, sig, x):
        return _call(builder, name, context.get_value_type(sig.return_type), [x], x.type)

    return emitted(typed)(emit)


sqrt = _called("sqrt", lambda x: x(x))  # also of a number


def _first_by(relation: str):
    """The function that finds which lane comes before all others. LLVM's own takes one lane after the other."""

    @emitted(lambda x: x.dtype(x))
    def first(context, builder, sig, x):
        lanes = sig.args[0].lanes
        while lanes > 1:
            lanes //= 2
            left, right = (shuffle(builder, x, x, range(start, start + lanes)) for start in (0, lanes))
            x = builder.select(builder.fcmp_ordered(relation, left, right), left, right)
        return builder.extract_element(x, INT32(0))

    return first


lowest, highest = _first_by("<"), _first_by(">")


@emitted(_lanewise)
def nearest(context, builder, sig, x):
    """The nearest whole numbers, for lanes far below ``2**22``. Rounding is a library call on some machines."""
    shift = constant(x.type, 1.5 * 2.0 ** (23 if sig.return_type.dtype == types.float32 else 52))
    return builder.fsub(builder.fadd(x, shift), shift)


def _chosen(bits, x, y):
    vec = _lanewise(x, y).return_type
    return vec(bits if bits == types.boolean else types.uint64, vec, vec)


@emitted(_chosen)
def select(context, builder, sig, bits, x, y):
    """Lane by lane ``x`` where the bit is set, else ``y``; all of one of them for a single truth value."""
    truth = bits if sig.args[0] == types.boolean else lanes_from(builder, bits, sig.return_type.lanes)
    return builder.select(truth, x, y)


@emitted(_lanewise)
def next_up(context, builder, sig, x):
    """The next larger number of each finite lane."""
    integers = sig.return_type.integers
    raw = builder.bitcast(builder.fadd(x, constant(x.type, 0.0)), integers)  # -0 becomes 0
    step = builder.select(
        builder.icmp_signed("<", raw, constant(integers, 0)), constant(integers, -1), constant(integers, 1)
    )
    return builder.bitcast(builder.add(raw, step), x.type)


def _digits(vec: VecType) -> tuple[int, int]:
    """Digits of a number's fraction, and the bias of its exponent."""
    return (23, 127) if vec.dtype == types.float32 else (52, 1023)


@emitted(_lanewise)
def power_of_two(context, builder, sig, n):
    """``2**n`` for lanes that are whole numbers in the range of normal numbers."""
    (digits, bias), integers = _digits(sig.return_type), sig.return_type.integers
    exponent = builder.add(builder.fptosi(n, integers), constant(integers, bias))
    return builder.bitcast(builder.shl(exponent, constant(integers, digits)), n.type)


@emitted(lambda x: types.UniTuple(x, 2)(x))
def split_power(context, builder, sig, x):
    """``(n, m)`` with ``x = 2**n m`` and ``m`` in [1/2, 1), for lanes that are positive normal numbers."""
    (digits, bias), integers = _digits(sig.args[0]), sig.args[0].integers
    raw = builder.bitcast(x, integers)
    exponent = builder.sub(builder.lshr(raw, constant(integers, digits)), constant(integers, bias - 1))
    fraction = builder.and_(raw, constant(integers, (1 << digits) - 1))
    fraction = builder.or_(fraction, constant(integers, (bias - 1) << digits))
    pair = builder.sitofp(exponent, x.type), builder.bitcast(fraction, x.type)
    return context.make_tuple(builder, sig.return_type, pair)


def element_of(context, builder, array_type, array, index, count, mask=None):
    """LLVM's pointer to ``count`` elements from a flat index into an array on, or to those of them in a mask.

    Where Numba checks bounds, so does this.
    """
    found = context.make_array(array_type)(context, builder, array)
    if context.enable_boundscheck:
        for lane in (0, count - 1) if mask is None else range(count):
            used = ir.IntType(1)(1) if mask is None else builder.extract_element(mask, INT32(lane))
            with builder.if_then(used):
                cgutils.do_boundscheck(context, builder, builder.add(index, INT64(lane)), found.nitems)
    return builder.gep(found.data, [index])


def pointer_to(context, builder, array_type, array, index, vec: VecType, mask=None, count=1):
    """LLVM's pointer to a number of vectors that start at a flat index of an array."""
    first = element_of(context, builder, array_type, array, index, count * vec.lanes, mask)
    return builder.bitcast(first, llvm_type(vec).as_pointer())


def wholes_at(context, builder, array_type, array, index):
    """LLVM's pointer to 16 integers of 32 bits from a flat index on."""
    first = element_of(context, builder, array_type, array, index, 16)
    return builder.bitcast(first, ir.VectorType(INT32, 16).as_pointer())


def _load(context, builder, sig, array, index):
    vec = sig.return_type
    return builder.load(pointer_to(context, builder, sig.args[-2], array, index, vec), align=vec.bytes)


def _fill(context, builder, sig, array, number):
    return splat_into(builder, number, sig.return_type)


def filled(lanes: int):
    """The function that gives so many lanes of one number, in the dtype of an array."""
    return emitted(lambda array, number: VecType(array.dtype, lanes)(array, array.dtype))(_fill)


fill16, fill32 = filled(16), filled(32)
# lanes from a flat index into a contiguous array on
load16, load32 = (emitted(lambda x, i, n=n: VecType(x.dtype, n)(x, types.intp))(_load) for n in (16, 32))


@emitted(lambda zero, array, index: zero(zero, array, types.intp))
def load(context, builder, sig, zero, array, index):
    """Load as many lanes as ``zero`` has, from a flat index into a contiguous array on."""
    return _load(context, builder, sig, array, index)


@emitted(lambda zero, number: zero(zero, zero.dtype))
def splat(context, builder, sig, zero, number):
    """A vector of one number, with as many lanes as ``zero``."""
    return splat_into(builder, number, sig.return_type)


@emitted(lambda x: types.boolean(x))
def is_single(context, builder, sig, x):
    """Whether numbers are of single precision."""
    return ir.IntType(1)(sig.args[0].dtype == types.float32)


@emitted(lambda zero: types.intp(zero))
def lanes_of(context, builder, sig, zero):
    """How many lanes a vector has."""
    return INT64(sig.args[0].lanes)


@emitted(lambda array, index, x: types.void(array, types.intp, x))
def store(context, builder, sig, array, index, x):
    """Write the lanes from a flat index into a contiguous array on."""
    vec = sig.args[2]
    builder.store(x, pointer_to(context, builder, sig.args[0], array, index, vec), align=vec.bytes)


def store_lanes(context, builder, array_type, mask, array, index, x, vec: VecType):
    """Write the lanes of LLVM's mask."""
    pointer = pointer_to(context, builder, array_type, array, index, vec, mask)
    _call(builder, "masked.store", ir.VoidType(), [x, pointer, INT32(vec.bytes), mask], x.type)


@emitted(lambda bits, array, index, x: types.void(types.uint64, array, types.intp, x))
def store_some(context, builder, sig, bits, array, index, x):
    """Write the lanes whose bits are set. Nothing else is touched."""
    vec = sig.args[3]
    some = lanes_from(builder, bits, vec.lanes)
    if HAS_MASKS:
        store_lanes(context, builder, sig.args[1], some, array, index, x, vec)
        return
    # masked stores take some processors five times as long, and most often all lanes are stored
    word = ir.IntType(vec.lanes)
    with builder.if_else(builder.icmp_unsigned("==", builder.bitcast(some, word), word(-1))) as (whole, part):
        with whole:
            builder.store(x, pointer_to(context, builder, sig.args[1], array, index, vec), align=vec.bytes)
        with part:
            store_lanes(context, builder, sig.args[1], some, array, index, x, vec)


def _load_some(context, builder, sig, bits, array, index):
    mask, vec = lanes_from(builder, bits, sig.return_type.lanes), sig.return_type
    pointer, kind = pointer_to(context, builder, sig.args[1], array, index, vec, mask), llvm_type(vec)
    return _call(builder, "masked.load", kind, [pointer, INT32(vec.bytes), mask, constant(kind, 0.0)], kind)


# lanes whose bits are set, 0 for the others, whose memory is not touched
load_some16, load_some32 = (
    emitted(lambda bits, x, i, n=n: VecType(x.dtype, n)(types.uint64, x, types.intp))(_load_some) for n in (16, 32)
)


@emitted(lambda array, start, places, first: VecType(array.dtype, 16)(array, types.intp, places, types.intp))
def gather16(context, builder, sig, array, start, places, first):
    """Lanes ``array[start + places[first + i]]``, by flat indices. ``places`` are integers of 32 bits."""
    data = builder.gep(context.make_array(sig.args[0])(context, builder, array).data, [start])
    place = element_of(context, builder, sig.args[2], places, first, 16)
    found = ir.Constant(llvm_type(sig.return_type), ir.Undefined)
    for lane in range(16):
        at = builder.sext(builder.load(builder.gep(place, [INT64(lane)])), INT64)
        element_of(context, builder, sig.args[0], array, builder.add(start, at), 1)
        found = builder.insert_element(found, builder.load(builder.gep(data, [at])), INT32(lane))
    return found


@emitted(lambda bits, places, first, x: types.void(types.uint64, places, types.intp, x))
def store_whole16(context, builder, sig, bits, places, first, x):
    """Write the lanes whose bits are set as integers of 32 bits."""
    where = wholes_at(context, builder, sig.args[1], places, first)
    kept, new = builder.load(where, align=4), builder.fptosi(x, where.type.pointee)
    builder.store(builder.select(lanes_from(builder, bits, 16), new, kept), where, align=4)


@emitted(lambda array, places, first: VecType(array.dtype, 16)(array, places, types.intp))
def load_whole16(context, builder, sig, array, places, first):
    """Lanes of integers of 32 bits, as numbers of an array's dtype."""
    found = builder.load(wholes_at(context, builder, sig.args[1], places, first), align=4)
    return builder.sitofp(found, llvm_type(sig.return_type))


@emitted(lambda array, index: types.void(array, types.intp))
def prefetch32(context, builder, sig, array, index):
    """Have the processor read 32 numbers ahead, if there are any."""
    data, byte = context.make_array(sig.args[0])(context, builder, array).data, ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, *[INT32] * 3])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    for lane in range(0, 32, 512 // sig.args[0].dtype.bitwidth):  # of each line of the cache one
        place = builder.bitcast(builder.gep(data, [builder.add(index, INT64(lane))]), byte)
        builder.call(function, [place, INT32(0), INT32(3), INT32(1)])


@emitted(lambda bits: types.intp(types.uint64))
def lowest_bit(context, builder, sig, bits):
    """Number of the lowest set bit. ``bits`` must not be 0."""
    return _call(builder, "cttz", INT64, [bits, ir.IntType(1)(1)], INT64)


@inlined
def next_lane(bits):
    """Number of the lowest set bit, and the other bits. ``bits`` must not be 0."""
    return lowest_bit(bits), bits & (bits - np.uint64(1))


@emitted(lambda bits: types.intp(types.uint64))
def count_of(context, builder, sig, bits):
    """How many bits are set."""
    return builder.call(builder.module.declare_intrinsic("llvm.ctpop", [INT64]), [bits])


@jit
def clear(array):
    """Fill a contiguous array with zeros, a multiple of 16 numbers."""
    none = fill16(array, 0.0)
    for place in range(0, array.size, 16):
        store(array, place, none)
