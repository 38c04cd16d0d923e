"""Compiled kernels on disk: where they are kept, when they are compiled, and what happens to damaged ones.

They lie in the user's cache folder, or in the one that ``NUMBA_CACHE_DIR`` names, below a name made of the versions of
firstspike and numba and of the sources here. So a new installation of the same version finds them, and another version
does not.

With ``NUMBA_BOUNDSCHECK=1`` kernels are others, kept beside the usual ones: an index that is out of bounds ends them,
also in a load or store of vectors, and one below 0, which elsewhere in Numba counts from an array's end.
"""

import contextlib
import gc
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
from numba.core import types
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.ccallback import CFunc
from numba.core.registry import cpu_target
from numba.core.sigutils import normalize_signature
from numba.misc.appdirs import AppDirs
from numba.np import arrayobj

from firstspike._version import __version__
from firstspike.spiketime import kernels
from firstspike.spiketime.cpu.runtime import beside
from firstspike.spiketime.cpu.runtime.arguments import LINE

logger = logging.getLogger(__name__)

Kernel = Callable[[Any], None]

_UNUSED = 30 * 24 * 3600  # seconds after which the kernels of other versions are dropped


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
        with _uncollected(), _aligned(), _counted_from_the_start():
            made.compile()
        return made

    return compiled


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage collection: it would go through what compiling makes, and keeps, time and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _aligned() -> Iterator[None]:
    """Arrays that kernels make begin with a cache line.

    By chance numba's begin in the middle of one, and vectors of 64 bytes that lie in two lines cost up to half of a
    kernel's time again.
    """
    context: Any = cpu_target.target_context
    context.get_preferred_array_alignment = lambda dtype: LINE
    try:
        yield
    finally:
        vars(context).pop("get_preferred_array_alignment", None)  # unless another thread was faster


@contextlib.contextmanager
def _counted_from_the_start() -> Iterator[None]:
    """With checks of bounds: no index counts from an array's end, so that one below 0 is out of bounds."""

    def as_it_is(context: Any, builder: Any, kind: Any, index: Any, size: Any) -> Any:
        return context.cast(builder, index, kind, types.intp if kind.signed else types.uintp)

    usual = arrayobj.fix_integer_index
    if numba.config.BOUNDSCHECK:
        arrayobj.fix_integer_index = as_it_is
    try:
        yield
    finally:
        arrayobj.fix_integer_index = usual


kept_on_disk = lru_cache(maxsize=8)
"""For functions that make a kernel with ``c_function``: once in a process."""


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
    for listener in tuple(kernels.listeners):
        listener()


def _sources() -> str:
    """A digest of all sources of kernels: numba itself only looks at the file that a kernel is written in."""
    digest = hashlib.sha256()
    home = Path(__file__).parents[1]
    for path in (*sorted(home.rglob("*.py")), home.parent / "limits.py"):
        digest.update(path.relative_to(home.parent).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _drop_unused(path: Path) -> None:
    """Drop the kernels of other versions that no process has used for some time."""
    for other in path.parent.glob("kernels-*"):
        with contextlib.suppress(OSError):  # another process was faster
            if other != path and time.time() - other.stat().st_mtime > _UNUSED:
                shutil.rmtree(other)
