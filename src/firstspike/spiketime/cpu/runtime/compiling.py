"""How functions become kernels, and where compiled kernels are kept.

Functions that kernels call are linked into them and optimised there, never alone as Numba would do it, which nearly
halves the time to compile.

Kernels lie in the user's cache folder, or in the one that ``NUMBA_CACHE_DIR`` names, below a name made of the versions
of firstspike and numba and of the sources here. So a new installation of the same version finds them, and another
version does not. What cannot be read is dropped and compiled anew.

With ``NUMBA_BOUNDSCHECK=1`` kernels are others, kept beside the usual ones, which an index out of bounds ends.
"""

# mypy: disable-error-code="no-untyped-def"
import contextlib
import gc
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, update_wrapper, wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Any

import numba
from numba.core import types
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.registry import CPUDispatcher
from numba.core.sigutils import normalize_signature
from numba.core.typed_passes import NopythonRewrites, NopythonTypeInference
from numba.core.untyped_passes import InlineClosureLikes, InlineInlinables, WithLifting
from numba.extending import intrinsic, overload
from numba.misc.appdirs import AppDirs
from numba.np import arrayobj

from firstspike._version import __version__
from firstspike.spiketime import shared
from firstspike.spiketime.cpu.runtime import beside

logger = logging.getLogger(__name__)

Kernel = Callable[[Any], None]

LINE = 64  # bytes of a cache line
_LONG_UNUSED = 30 * 24 * 3600  # seconds after which the kernels of other versions are dropped

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

    options: Any = {**_OPTIONS, "pipeline_class": _PartCompiler}
    overload(called, jit_options=options)(choose)
    return called


def inlined(function: Callable[..., Any]) -> Any:
    """``jit`` for what is called often: a call copies seven numbers for each array that it is given.

    The function must not make arrays: without numba's count of references it cannot.
    """
    return _PartDispatcher(function, forceinline=True, _nrt=False)


def emitted(typed: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """``numba.extending.intrinsic`` for a function of Numba's context, LLVM's builder, the signature and LLVM's values.

    ``typed`` is given the types of the arguments, and says what the function returns and takes. What returns nothing is
    one for its effect.
    """

    def decorated(emit: Callable[..., Any]) -> Any:
        def codegen(context, builder, sig, args):
            found = emit(context, builder, sig, *args)
            return context.get_dummy_value() if found is None else found

        def defined(typingctx, *args):
            sig = typed(*args)
            return None if sig is None else (sig, codegen)

        update_wrapper(defined, emit)
        own = list(signature(emit).parameters.values())[3:]
        defined.__signature__ = Signature([Parameter("typingctx", Parameter.POSITIONAL_OR_KEYWORD), *own])
        return intrinsic(defined)

    return decorated


def c_function(signature: Any, *kind: Any, following: str = "") -> Callable[[Callable[[Any], None]], CFunc]:
    """``numba.cfunc``, kept on disk; ``kind`` is all that the function depends on beside its sources.

    ``following`` is the kernel that is needed next for the same kind, which may be compiled at the same time.
    """

    def compiled(function: Callable[[Any], None]) -> CFunc:
        made = CFunc(function, normalize_signature(signature), {}, {})
        if folder() is not None:
            made._cache = _OnDisk(function)
            made._cache.kind, made._cache.following = kind, following
        else:
            _announce()
        with _as_kernels_need_it():
            made.compile()
        return made

    return compiled


@contextlib.contextmanager
def _as_kernels_need_it() -> Iterator[None]:
    """Numba, changed while it compiles a kernel.

    There is no garbage collection: it would go through what compiling makes, and keeps, time and again. With checks of
    bounds no index counts from an array's end, so that one below 0 is out of bounds.
    """

    def as_it_is(context: Any, builder: Any, kind: Any, index: Any, size: Any) -> Any:
        return context.cast(builder, index, kind, types.intp if kind.signed else types.uintp)

    collects, usual = gc.isenabled(), arrayobj.fix_integer_index
    gc.disable()
    if numba.config.BOUNDSCHECK:
        arrayobj.fix_integer_index = as_it_is
    try:
        yield
    finally:
        arrayobj.fix_integer_index = usual
        if collects:
            gc.enable()


@lru_cache(maxsize=1)
def folder() -> Path | None:
    """Where this version's kernels are kept; None if no such folder can be written."""
    home = numba.config.CACHE_DIR or AppDirs("firstspike", appauthor=False).user_cache_dir
    path = Path(home) / f"kernels-{__version__}-numba{numba.__version__}-{_sources()}"
    try:
        new = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
        os.utime(path)
    except OSError as error:
        logger.warning("cannot keep compiled kernels in %s (%s); NUMBA_CACHE_DIR names another folder", path, error)
        return None
    if new:
        _drop_unused(path)
    return path


class _Locator(_CacheLocator):
    """Tells numba the folder, whose name says all that a kernel depends on; so it need not look at the sources."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        self._place = f"{Path(file).parent.name}{function.__code__.co_firstlineno}"
        self._py_file = file

    def get_cache_path(self) -> str:
        return str(folder())

    def get_source_stamp(self) -> str:
        return ""

    def get_disambiguator(self) -> str:
        return self._place

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> "_Locator":
        return cls(py_func, py_file)


class _Impl(CompileResultCacheImpl):
    _locator_classes = (_Locator,)


class _OnDisk(FunctionCache):
    _impl_class = _Impl
    kind: tuple[Any, ...] = ()
    following = ""

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        # numba would hash what the function encloses, which may be other bytes in each process
        return sig, codegen.magic_tuple(), self.kind, bool(numba.config.BOUNDSCHECK)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        beside.wait(f"{self._py_func.__module__}.{self._py_func.__qualname__.split('.')[0]}", self.kind)
        try:
            found = super().load_overload(sig, target_context)
        except Exception:  # whatever damaged files make pickle raise
            logger.warning("dropped what cannot be read of the compiled kernels in %s", self._cache_path)
            found = None
            self.flush()
        if found is None:
            _announce()
            if self.following:
                beside.start(self.following, self.kind, Path(self._impl.locator.get_cache_path()).parent)
        return found


def _announce() -> None:
    logger.info("compiling CPU kernels")
    for listener in tuple(shared.listeners):
        listener()


def _sources() -> str:
    """A digest of all sources of kernels: numba itself only looks at the file that a kernel is written in."""
    digest = hashlib.sha256()
    home = Path(__file__).parents[1]
    for path in (*sorted(home.rglob("*.py")), home.parent / "shared.py"):
        digest.update(path.relative_to(home.parent).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _drop_unused(path: Path) -> None:
    """Drop the kernels of other versions that no process has used for some time."""
    for other in path.parent.glob("kernels-*"):
        with contextlib.suppress(OSError):  # another process was faster
            if other != path and time.time() - other.stat().st_mtime > _LONG_UNUSED:
                shutil.rmtree(other)
