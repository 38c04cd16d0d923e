"""Functions that kernels call: they are compiled as parts of a kernel, never alone.

Numba makes machine code of every function that it compiles, optimised by itself, and two wrappers to call it from
Python and C. Only the kernels need that. The functions that they call are linked into them and optimised there, which
nearly halves the time to compile.
"""

# mypy: disable-error-code="no-untyped-def"
from collections.abc import Callable
from functools import wraps
from typing import Any

from numba.core import types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.registry import CPUDispatcher
from numba.core.typed_passes import NopythonRewrites, NopythonTypeInference
from numba.core.untyped_passes import InlineClosureLikes, InlineInlinables, WithLifting
from numba.extending import overload

# what Numba does with expressions of whole arrays, closures and with-statements; kernels have none
_UNUSED = (InlineClosureLikes, InlineInlinables, NopythonRewrites, WithLifting)


class _Part(JITCodeLibrary):
    """Code for other libraries to link in."""

    class _NoMachineCode:
        def set_env(self, env_name, env):
            pass

    codegen = _NoMachineCode()

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


class _PartCompiler(CompilerBase):
    def define_pipelines(self):
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.add_pass_after(_AsPart, NopythonTypeInference)
        passes.passes = [chosen for chosen in passes.passes if chosen[0] not in _UNUSED]
        passes.finalize()
        return [passes]


class _PartDispatcher(CPUDispatcher):
    """Takes a constant for a number like any other.

    Numba would compile for each constant that is given, and for the one that a variable starts with.
    """

    def __init__(self, function, **options):
        super().__init__(function, targetoptions={**_OPTIONS, **options}, pipeline_class=_PartCompiler)

    def get_call_template(self, args, kws):
        return super().get_call_template(
            tuple(map(types.unliteral, args)), {name: types.unliteral(x) for name, x in kws.items()}
        )


_OPTIONS: dict[str, Any] = {
    "nopython": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True,
}  # fmt: skip


def jit(function: Callable[..., Any]) -> Any:
    """``numba.njit`` for a function that kernels call; a division by 0 gives inf, without a check each time."""
    return _PartDispatcher(function)


def chosen_by_type(choose: Callable[..., Any]) -> Any:
    """A function that kernels call, which ``choose`` finds by the types of the arguments."""

    @wraps(choose)
    def called(*args: Any) -> Any:
        raise NotImplementedError

    overload(called, jit_options={**_OPTIONS, "pipeline_class": _PartCompiler})(choose)
    return called


def inlined(function: Callable[..., Any]) -> Any:
    """``jit`` for what is called often: a call copies seven numbers for each array that it is given.

    The function must not make arrays: without numba's count of references it cannot.
    """
    return _PartDispatcher(function, forceinline=True, _nrt=False)
