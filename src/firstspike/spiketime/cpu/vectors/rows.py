"""Arrays whose rows have names: ``x.voltage`` is a row, ``x[lane].voltage`` one number of it.

``Rows`` exist only inside compiled functions: where the first row begins, and how far the rows are apart. A row is
loaded and stored as a vector of ``lanes`` numbers; as one number where ``lanes`` is 1; and where it is 0, as an array.
"""

# mypy: disable-error-code="no-untyped-def"
import operator
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.imputils import lower_builtin, lower_getattr_generic, lower_setattr_generic
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, infer_getattr, infer_global
from numba.extending import register_model
from numba.np.arrayobj import populate_array

from firstspike.spiketime.cpu.runtime.compiling import emitted
from firstspike.spiketime.cpu.vectors.simd import INT64, VecType, element_of


class RowsType(types.Type):
    """Numba's type of rows. Their names are known by the title."""

    def __init__(self, title: str, names: tuple[str, ...], dtype: Any, lanes: int) -> None:
        self.title, self.names, self.dtype, self.lanes = title, names, dtype, lanes
        super().__init__(name=f"Rows({title}, {dtype}, {lanes})")

    def of(self, lanes: int) -> "RowsType":
        """The same rows, as so many lanes."""
        return RowsType(self.title, self.names, self.dtype, lanes)

    @property
    def row(self) -> types.Type:
        """The type of a row."""
        if self.lanes > 1:
            return VecType(self.dtype, self.lanes)
        return self.dtype if self.lanes else types.Array(self.dtype, 1, "C")


@register_model(RowsType)
class _RowsModel(models.StructModel):
    def __init__(self, dmm, fe_type: RowsType) -> None:
        super().__init__(dmm, fe_type, [("data", types.CPointer(fe_type.dtype)), ("stride", types.intp)])


def named_rows(title: str, names: str, lanes: int = 0, width: int | None = None) -> Callable[..., Any]:
    """The function that gives the rows of an array from a flat index on, which are ``width`` numbers apart.

    Unless a width is given, it takes the rows of a matrix.
    """
    each = tuple(names.split())

    def of_matrix(context, builder, sig, array):
        found = context.make_array(sig.args[0])(context, builder, array)
        return _made(context, builder, sig, found.data, cgutils.unpack_tuple(builder, found.shape)[-1])

    def of_array(context, builder, sig, array, start):
        data = element_of(context, builder, sig.args[0], array, start, len(each) * width)
        return _made(context, builder, sig, data, INT64(width))

    if width is None:
        return emitted(lambda array: RowsType(title, each, array.dtype, lanes)(array))(of_matrix)
    return emitted(lambda array, start: RowsType(title, each, array.dtype, lanes)(array, types.intp))(of_array)


def _made(context, builder, sig, data, stride):
    found = cgutils.create_struct_proxy(sig.return_type)(context, builder)
    found.data, found.stride = data, stride
    return found._getvalue()


def _taken(context, builder, kind, x):
    return cgutils.create_struct_proxy(kind)(context, builder, value=x)


def _moved(context, builder, sig, x, by):
    found = _taken(context, builder, sig.args[0 if isinstance(sig.args[0], RowsType) else 1], x)
    return _made(context, builder, sig, builder.gep(found.data, [by]), found.stride)


@emitted(lambda x, first: x.of(16)(x, types.intp))
def sixteen(context, builder, sig, x, first):
    """The rows of 16 lanes, from the first of these on."""
    return _moved(context, builder, sig, x, first)


@emitted(lambda x: x.of(0)(x))
def arrays(context, builder, sig, x):
    """The same rows as arrays, of which lanes can be written."""
    return x


@emitted(lambda zero, x, first: x.of(zero.lanes)(zero, x, types.intp))
def like(context, builder, sig, zero, x, first):
    """The rows of as many lanes as ``zero`` has, from the first of these on."""
    return _moved(context, builder, sig, x, first)


@infer_global(operator.getitem)
class _Item(AbstractTemplate):
    metadata = MappingProxyType({"target": "cpu"})  # tried before Numba's, which are for all targets

    def generic(self, args, kws):
        if isinstance(args[0], RowsType) and isinstance(args[1], types.Integer):
            return args[0].of(1)(args[0], types.intp)
        return None


@lower_builtin(operator.getitem, RowsType, types.Integer)
def _lane(context, builder, sig, args):
    found = _taken(context, builder, sig.args[0], args[0])
    if context.enable_boundscheck:
        cgutils.do_boundscheck(context, builder, args[1], found.stride)
    return _moved(context, builder, sig, *args)


@infer_getattr
class _Row(AttributeTemplate):
    key = RowsType

    def generic_resolve(self, value, attr):  # type: ignore[override]
        return value.row if attr in value.names else None


def _start(context, builder, kind, x, name):
    found = _taken(context, builder, kind, x)
    start = builder.mul(found.stride, INT64(kind.names.index(name)))
    return builder.gep(found.data, [start]), found.stride


@lower_getattr_generic(RowsType)
def _get_row(context, builder, kind, x, name):
    start, stride = _start(context, builder, kind, x, name)
    if kind.lanes == 0:
        found, step = context.make_array(kind.row)(context, builder), INT64(kind.dtype.bitwidth // 8)
        populate_array(found, start, [stride], [step], step, None)
        return found._getvalue()
    where = builder.bitcast(start, context.get_value_type(kind.row).as_pointer())
    return builder.load(where, align=kind.dtype.bitwidth // 8)


@lower_setattr_generic(RowsType)
def _set_row(context, builder, sig, args, name):
    kind, given = sig.args
    start, _ = _start(context, builder, kind, args[0], name)
    x = context.cast(builder, args[1], given, kind.row)
    builder.store(x, builder.bitcast(start, x.type.as_pointer()), align=kind.dtype.bitwidth // 8)
