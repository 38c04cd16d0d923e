"""The private parts of Numba that compile and keep kernels. Without them ``compiling`` does so the public way.

Functions that kernels call are linked into them and optimised there, never alone as Numba would do it, which nearly
halves the time to compile.
"""

# mypy: disable-error-code="no-untyped-def"
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numba
from numba.core import types
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, CompileResult, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.registry import CPUDispatcher
from numba.core.serialize import dumps as dumps
from numba.core.typed_passes import NopythonRewrites, NopythonTypeInference
from numba.core.untyped_passes import InlineClosureLikes, InlineInlinables, WithLifting
from numba.np import arrayobj

# what Numba does with expressions of whole arrays, closures and with-statements. Kernels have none
_UNUSED = (InlineClosureLikes, InlineInlinables, NopythonRewrites, WithLifting)

# replaced or called below. What is missing shows when this loads
_PARTS = JITCodeLibrary._finalize_final_module, JITCodeLibrary._finalize_dynamic_globals, arrayobj.fix_integer_index
_KEPT = CompileResult._reduce, CompileResult._rebuild


class _Part(JITCodeLibrary):
    """Code for other libraries to link in."""

    codegen = SimpleNamespace(set_env=lambda name, environment: None)

    def _optimize_final_module(self):
        pass

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name):
        self._ensure_finalized()
        return 0


@register_pass(mutates_CFG=False, analysis_only=True)
class _AsPart(FunctionPass):
    _name = "firstspike_as_part"

    def __init__(self):
        FunctionPass.__init__(self)

    def run_pass(self, state):
        state.library = _Part(state.targetctx.codegen(), state.func_id.func_qualname)
        return False


class PartCompiler(CompilerBase):
    """Compiles a function for others to link in."""

    def define_pipelines(self):
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.add_pass_after(_AsPart, NopythonTypeInference)
        passes.passes = [chosen for chosen in passes.passes if chosen[0] not in _UNUSED]
        passes.finalize()
        return [passes]


class PartDispatcher(CPUDispatcher):
    """Takes a constant for a number like any other.

    Numba would compile for each constant that is given, and for the one that a variable starts with.
    """

    def __init__(self, function, **options):
        super().__init__(function, targetoptions={"nopython": True, **options}, pipeline_class=PartCompiler)

    def get_call_template(self, args, kws):
        return super().get_call_template(
            tuple(map(types.unliteral, args)), {name: types.unliteral(x) for name, x in kws.items()}
        )


def c_function(function: Callable[..., Any], signature: Any, cache: Any) -> CFunc:
    """``numba.cfunc`` with a cache, or None. With checks of bounds no index counts from an array's end."""
    made = CFunc(function, (signature.args, signature.return_type), {}, {})
    made._cache = cache or made._cache
    usual = arrayobj.fix_integer_index
    if numba.config.BOUNDSCHECK:
        arrayobj.fix_integer_index = _as_it_is
    try:
        made.compile()
    finally:
        arrayobj.fix_integer_index = usual
    return made


def _as_it_is(context, builder, kind, index, size):
    return context.cast(builder, index, kind, types.intp if kind.signed else types.uintp)
