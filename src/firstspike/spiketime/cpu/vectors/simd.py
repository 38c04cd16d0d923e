"""A SIMD vector for Numba: LLVM keeps it in registers, and splits it where the machine's are narrower.

``Vec(dtype, lanes)`` exists only inside compiled functions. ``+ - * /`` work lane by lane, also with a number;
``>= > < ==`` give the lanes where they hold as the bits of an integer. LLVM does not promote small arrays to registers,
and its checks whether arrays overlap cost more than the arithmetic in the loops here: hence a type of its own.
"""

# mypy: disable-error-code="no-untyped-def"
import operator
from types import MappingProxyType

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.imputils import lower_builtin, lower_cast
from numba.core.typeconv import Conversion
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, register_model

from firstspike.spiketime.cpu.runtime.compiling import inlined, jit


class VecType(types.Type):
    """Numba's type of a vector."""

    def __init__(self, dtype: types.Float, lanes: int) -> None:
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vec({dtype}, {lanes})")

    @property
    def key(self):
        """What makes two types equal."""
        return self.dtype, self.lanes

    def can_convert_from(self, typingctx, other):
        """A number becomes a vector of equal lanes."""
        return Conversion.safe if isinstance(other, types.Number) else None


@register_model(VecType)
class _VecModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type: VecType) -> None:
        scalar = dmm.lookup(fe_type.dtype).get_value_type()
        super().__init__(dmm, fe_type, ir.VectorType(scalar, fe_type.lanes))


def _llvm_type(vec: VecType | types.Float) -> ir.Type:
    if isinstance(vec, types.Float):
        return ir.FloatType() if vec == types.float32 else ir.DoubleType()
    return ir.VectorType(_llvm_type(vec.dtype), vec.lanes)


def _suffix(vec: VecType | types.Float) -> str:
    return f"f{vec.bitwidth}" if isinstance(vec, types.Float) else f"v{vec.lanes}f{vec.dtype.bitwidth}"


def _call(builder, name: str, result, args):
    """Call an LLVM intrinsic by its full name: llvmlite's own declaration does not know vectors."""
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [x.type for x in args]), name)
    return builder.call(function, args)


def splat_into(builder, scalar, vec: VecType):
    """LLVM's vector of one number."""
    into = _llvm_type(vec)
    one = builder.insert_element(ir.Constant(into, ir.Undefined), scalar, ir.IntType(32)(0))
    return builder.shuffle_vector(
        one, ir.Constant(into, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), vec.lanes), None)
    )


@lower_cast(types.Number, VecType)
def _number_to_vec(context, builder, fromty, toty, value):
    return splat_into(builder, context.cast(builder, value, fromty, toty.dtype), toty)


def _binary(function, emit, compares: bool = False) -> None:
    @infer_global(function)
    class _Typing(AbstractTemplate):
        metadata = MappingProxyType({"target": "cpu"})  # tried before Numba's dozens, which are for all targets

        def generic(self, args, kws):
            vecs = [x for x in args if isinstance(x, VecType)]
            if len(args) != 2 or not vecs or not all(x == vecs[0] or isinstance(x, types.Number) for x in args):
                return None
            return signature(types.uint64 if compares else vecs[0], vecs[0], vecs[0])

    @lower_builtin(function, VecType, VecType)
    def _lower(context, builder, sig, args):
        found = emit(builder, *args)
        if not compares:
            return found
        lanes = sig.args[0].lanes
        bits = builder.bitcast(found, ir.IntType(lanes))
        return bits if lanes == 64 else builder.zext(bits, ir.IntType(64))


_binary(operator.add, lambda b, x, y: b.fadd(x, y))
_binary(operator.sub, lambda b, x, y: b.fsub(x, y))
_binary(operator.mul, lambda b, x, y: b.fmul(x, y))
_binary(operator.truediv, lambda b, x, y: b.fdiv(x, y))
_binary(operator.ge, lambda b, x, y: b.fcmp_ordered(">=", x, y), compares=True)
_binary(operator.gt, lambda b, x, y: b.fcmp_ordered(">", x, y), compares=True)
_binary(operator.lt, lambda b, x, y: b.fcmp_ordered("<", x, y), compares=True)
_binary(operator.eq, lambda b, x, y: b.fcmp_ordered("==", x, y), compares=True)


def _vec_of(*args):
    return next(x for x in args if isinstance(x, VecType))


@intrinsic
def fma(typingctx, x, y, z):
    """``x * y + z``, rounded once where the machine can; numbers among them count for all lanes."""
    vec = _vec_of(x, y, z)

    def codegen(context, builder, sig, args):
        return _call(builder, f"llvm.fmuladd.{_suffix(vec)}", _llvm_type(vec), args)

    return vec(vec, vec, vec), codegen


def _minmax(name: str, relation: str):
    @intrinsic
    def function(typingctx, x, y):
        vec = _vec_of(x, y)

        def codegen(context, builder, sig, args):
            return builder.select(builder.fcmp_ordered(relation, *args), *args)

        return vec(vec, vec), codegen

    return function


minimum = _minmax("minimum", "<")
maximum = _minmax("maximum", ">")


def _unary(name: str):
    @intrinsic
    def function(typingctx, x):
        def codegen(context, builder, sig, args):
            return _call(builder, f"llvm.{name}.{_suffix(x)}", _llvm_type(x), args)

        return x(x), codegen

    return function


sqrt = _unary("sqrt")
absolute = _unary("fabs")  # also of a number


@intrinsic
def nearest(typingctx, x):
    """The nearest whole numbers, for lanes far below ``2**22``. Rounding is a library call on some machines."""
    shift = 1.5 * 2.0 ** (23 if x.dtype == types.float32 else 52)

    def codegen(context, builder, sig, args):
        shifts = ir.Constant(_llvm_type(x), [shift] * x.lanes)
        return builder.fsub(builder.fadd(args[0], shifts), shifts)

    return x(x), codegen


@intrinsic
def select(typingctx, bits, x, y):
    """Lane by lane ``x`` where the bit is set, else ``y``; or all of one of them, by what is true or false."""
    vec = _vec_of(x, y)
    if bits == types.boolean:
        return vec(bits, vec, vec), lambda context, builder, sig, args: builder.select(*args)

    def codegen(context, builder, sig, args):
        mask, yes, no = args
        mask = builder.trunc(mask, ir.IntType(vec.lanes)) if vec.lanes < 64 else mask
        mask = builder.bitcast(mask, ir.VectorType(ir.IntType(1), vec.lanes))
        return builder.select(mask, yes, no)

    return vec(types.uint64, vec, vec), codegen


@intrinsic
def those(typingctx, truth, bits):
    """Those of the lanes that are also among ``truth``, or all or none by what is true or false."""
    if truth == types.boolean:
        return bits(truth, bits), lambda context, builder, sig, args: builder.select(
            args[0], args[1], ir.IntType(64)(0)
        )
    return types.uint64(types.uint64, types.uint64), lambda context, builder, sig, args: builder.and_(*args)


@intrinsic
def all_of(typingctx, bits, x):
    """Whether all lanes of a vector are set."""

    def codegen(context, builder, sig, args):
        return builder.icmp_unsigned("==", args[0], ir.IntType(64)(2**x.lanes - 1))

    return types.boolean(types.uint64, x), codegen


@intrinsic
def next_up(typingctx, x):
    """The next larger number of each finite lane."""
    integers = ir.VectorType(ir.IntType(x.dtype.bitwidth), x.lanes)

    def codegen(context, builder, sig, args):
        zero, one = ir.Constant(integers, None), ir.Constant(integers, [1] * x.lanes)
        raw = builder.bitcast(builder.fadd(args[0], ir.Constant(_llvm_type(x), None)), integers)  # -0 becomes 0
        step = builder.select(builder.icmp_signed("<", raw, zero), ir.Constant(integers, [-1] * x.lanes), one)
        return builder.bitcast(builder.add(raw, step), _llvm_type(x))

    return x(x), codegen


@intrinsic
def power_of_two(typingctx, n):
    """``2**n`` for lanes that are whole numbers in the range of normal numbers."""
    bits, digits, bias = (32, 23, 127) if n.dtype == types.float32 else (64, 52, 1023)
    integers = ir.VectorType(ir.IntType(bits), n.lanes)

    def codegen(context, builder, sig, args):
        exponent = builder.add(builder.fptosi(args[0], integers), ir.Constant(integers, [bias] * n.lanes))
        return builder.bitcast(builder.shl(exponent, ir.Constant(integers, [digits] * n.lanes)), _llvm_type(n))

    return n(n), codegen


@intrinsic
def split_power(typingctx, x):
    """``(n, m)`` with ``x = 2**n m`` and ``m`` in [1/2, 1), for lanes that are positive normal numbers."""
    bits, digits, bias = (32, 23, 126) if x.dtype == types.float32 else (64, 52, 1022)
    integers = ir.VectorType(ir.IntType(bits), x.lanes)

    def constant(value):
        return ir.Constant(integers, [value] * x.lanes)

    def codegen(context, builder, sig, args):
        raw = builder.bitcast(args[0], integers)
        exponent = builder.sub(builder.lshr(raw, constant(digits)), constant(bias))
        fraction = builder.or_(builder.and_(raw, constant((1 << digits) - 1)), constant(bias << digits))
        pair = builder.sitofp(exponent, _llvm_type(x)), builder.bitcast(fraction, _llvm_type(x))
        return context.make_tuple(builder, sig.return_type, pair)

    return types.UniTuple(x, 2)(x), codegen


def element_of(context, builder, array_type, array, index, count, mask=None):
    """LLVM's pointer to ``count`` elements from a flat index into an array on, or to those of them in a mask.

    Where Numba checks bounds, so does this.
    """
    found = context.make_array(array_type)(context, builder, array)
    if context.enable_boundscheck:
        for lane in (0, count - 1) if mask is None else range(count):
            used = ir.IntType(1)(1) if mask is None else builder.extract_element(mask, ir.IntType(32)(lane))
            with builder.if_then(used):
                cgutils.do_boundscheck(context, builder, builder.add(index, ir.IntType(64)(lane)), found.nitems)
    return builder.gep(found.data, [index])


def pointer_to(context, builder, array_type, array, index, vec: VecType, mask=None, count=1):
    """LLVM's pointer to a number of vectors that start at a flat index of an array."""
    first = element_of(context, builder, array_type, array, index, count * vec.lanes, mask)
    return builder.bitcast(first, _llvm_type(vec).as_pointer())


def _loader(lanes: int):
    @intrinsic
    def load(typingctx, array, index):
        vec = VecType(array.dtype, lanes)

        def codegen(context, builder, sig, args):
            pointer = pointer_to(context, builder, sig.args[0], *args, vec)
            return builder.load(pointer, align=array.dtype.bitwidth // 8)

        return vec(array, types.intp), codegen

    return load


load16 = _loader(16)  # lanes from a flat index into a contiguous array on
load32 = _loader(32)


@intrinsic
def load(typingctx, zero, array, index):
    """As many lanes as the vector ``zero`` has, from a flat index into a contiguous array on."""

    def codegen(context, builder, sig, args):
        pointer = pointer_to(context, builder, sig.args[1], args[1], args[2], zero)
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return zero(zero, array, types.intp), codegen


@intrinsic(prefer_literal=True)
def zeros(typingctx, array, lanes):
    """A vector of zeros in the dtype of an array; ``lanes`` is a constant."""
    if not isinstance(lanes, types.IntegerLiteral):
        return None
    vec = VecType(array.dtype, lanes.literal_value)

    def codegen(context, builder, sig, args):
        return ir.Constant(_llvm_type(vec), None)

    return vec(array, lanes), codegen


@intrinsic
def splat(typingctx, zero, number):
    """As many lanes of one number as the vector ``zero`` has."""

    def codegen(context, builder, sig, args):
        return splat_into(builder, args[1], zero)

    return zero(zero, zero.dtype), codegen


@intrinsic
def lanes_of(typingctx, zero):
    """How many lanes a vector has."""

    def codegen(context, builder, sig, args):
        return ir.IntType(64)(zero.lanes)

    return types.intp(zero), codegen


@intrinsic
def store(typingctx, array, index, x):
    """Write the lanes from a flat index into a contiguous array on."""

    def codegen(context, builder, sig, args):
        pointer = pointer_to(context, builder, sig.args[0], args[0], args[1], x)
        builder.store(args[2], pointer, align=x.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, x), codegen


@intrinsic
def store_some16(typingctx, bits, array, index, x):
    """Write the lanes whose bits are set; nothing else is touched."""
    name = f"llvm.masked.store.{_suffix(x)}.p0"

    def codegen(context, builder, sig, args):
        bits_, array_, index_, x_ = args
        mask = builder.bitcast(builder.trunc(bits_, ir.IntType(16)), ir.VectorType(ir.IntType(1), 16))
        pointer = pointer_to(context, builder, sig.args[1], array_, index_, x, mask)
        align = ir.IntType(32)(x.dtype.bitwidth // 8)
        _call(builder, name, ir.VoidType(), [x_, pointer, align, mask])
        return context.get_dummy_value()

    return types.void(types.uint64, array, types.intp, x), codegen


@intrinsic
def load_some16(typingctx, bits, array, index):
    """Lanes whose bits are set, 0 for the others, whose memory is not touched."""
    vec = VecType(array.dtype, 16)
    name = f"llvm.masked.load.{_suffix(vec)}.p0"

    def codegen(context, builder, sig, args):
        bits_, array_, index_ = args
        mask = builder.bitcast(builder.trunc(bits_, ir.IntType(16)), ir.VectorType(ir.IntType(1), 16))
        pointer = pointer_to(context, builder, sig.args[1], array_, index_, vec, mask)
        align = ir.IntType(32)(vec.dtype.bitwidth // 8)
        return _call(builder, name, _llvm_type(vec), [pointer, align, mask, ir.Constant(_llvm_type(vec), None)])

    return vec(types.uint64, array, types.intp), codegen


@intrinsic
def gather16(typingctx, array, start, places, first):
    """Lanes ``array[start + places[first + i]]``, by flat indices; ``places`` are integers of 32 bits."""
    vec = VecType(array.dtype, 16)

    def codegen(context, builder, sig, args):
        array_, start_, places_, first_ = args
        data = builder.gep(context.make_array(sig.args[0])(context, builder, array_).data, [start_])
        place = element_of(context, builder, sig.args[2], places_, first_, 16)
        found = ir.Constant(_llvm_type(vec), ir.Undefined)
        for lane in range(16):
            at = builder.sext(builder.load(builder.gep(place, [ir.IntType(64)(lane)])), ir.IntType(64))
            element_of(context, builder, sig.args[0], array_, builder.add(start_, at), 1)
            found = builder.insert_element(found, builder.load(builder.gep(data, [at])), ir.IntType(32)(lane))
        return found

    return vec(array, types.intp, places, types.intp), codegen


@intrinsic
def store_whole16(typingctx, bits, places, first, x):
    """Write the lanes whose bits are set as integers of 32 bits."""
    integers = ir.VectorType(ir.IntType(32), 16)

    def codegen(context, builder, sig, args):
        bits_, places_, first_, x_ = args
        data = element_of(context, builder, sig.args[1], places_, first_, 16)
        where = builder.bitcast(data, integers.as_pointer())
        mask = builder.bitcast(builder.trunc(bits_, ir.IntType(16)), ir.VectorType(ir.IntType(1), 16))
        kept = builder.load(where, align=4)
        builder.store(builder.select(mask, builder.fptosi(x_, integers), kept), where, align=4)
        return context.get_dummy_value()

    return types.void(types.uint64, places, types.intp, x), codegen


@intrinsic
def load_whole16(typingctx, array, places, first):
    """Lanes of integers of 32 bits, as numbers of an array's dtype."""
    vec = VecType(array.dtype, 16)
    integers = ir.VectorType(ir.IntType(32), 16)

    def codegen(context, builder, sig, args):
        data = element_of(context, builder, sig.args[1], args[1], args[2], 16)
        found = builder.load(builder.bitcast(data, integers.as_pointer()), align=4)
        return builder.sitofp(found, _llvm_type(vec))

    return vec(array, places, types.intp), codegen


def _filler(lanes: int):
    @intrinsic
    def fill(typingctx, array, number):
        vec = VecType(array.dtype, lanes)

        def codegen(context, builder, sig, args):
            return splat_into(builder, args[1], vec)

        return vec(array, array.dtype), codegen

    return fill


fill16 = _filler(16)  # lanes of one number, in the dtype of an array
fill32 = _filler(32)


def shuffle(builder, a, b, lanes):
    """LLVM's choice of lanes from ``a`` and ``b``."""
    indices = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))
    return builder.shuffle_vector(a, b, indices)


@intrinsic
def lowest_bit(typingctx, bits):
    """Number of the lowest set bit; ``bits`` must not be 0."""

    def codegen(context, builder, sig, args):
        return _call(builder, "llvm.cttz.i64", ir.IntType(64), [args[0], ir.IntType(1)(1)])

    return types.intp(types.uint64), codegen


def _reduced(name: str):
    @intrinsic
    def function(typingctx, x):
        def codegen(context, builder, sig, args):
            scalar = context.get_value_type(x.dtype)
            return _call(builder, f"llvm.vector.reduce.{name}.{_suffix(x)}", scalar, args)

        return x.dtype(x), codegen

    return function


lowest, highest = _reduced("fmin"), _reduced("fmax")  # of the lanes


@jit
def clear(array):
    """Fill a contiguous array with zeros, a multiple of 16 numbers."""
    none = fill16(array, 0.0)
    for place in range(0, array.size, 16):
        store(array, place, none)


@inlined
def load_part16(bits, array, index):
    """16 numbers, or those of ``bits`` and 0 where there are fewer."""
    return load16(array, index) if bits & 0xFFFF == 0xFFFF else load_some16(bits, array, index)


@inlined
def store_part16(bits, array, index, x):
    """Write 16 numbers, or those of ``bits`` where there are fewer."""
    if bits & 0xFFFF == 0xFFFF:
        store(array, index, x)
    else:
        store_some16(bits, array, index, x)
