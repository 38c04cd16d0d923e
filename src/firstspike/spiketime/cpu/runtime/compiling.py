"""How functions become kernels, and where compiled kernels are kept.

``inside`` has the private parts of Numba that this takes. With a version of Numba that lacks one, functions are
compiled the public way, which takes longer, and not kept.

Kernels lie in the user's cache folder, or in the one that ``NUMBA_CACHE_DIR`` names, below a name made of the versions
of firstspike and numba and of the sources here. So a new installation of the same version finds them, and another
version does not. Damaged files are dropped and compiled anew. To read a kernel is to run it, so a folder in which
others could put theirs is not used.

With ``NUMBA_BOUNDSCHECK=1`` kernels are others, kept beside the usual ones, which an index out of bounds ends.
"""

# mypy: disable-error-code="no-untyped-def"
import contextlib
import errno
import gc
import hashlib
import logging
import os
import pickle
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache, update_wrapper, wraps
from inspect import Signature, signature
from pathlib import Path
from typing import Any
from uuid import uuid4

import numba
from numba.core.registry import cpu_target
from numba.extending import intrinsic, overload

from firstspike._version import __version__
from firstspike.spiketime import shared
from firstspike.spiketime.cpu.runtime import beside

try:
    from firstspike.spiketime.cpu.runtime import inside
except (AttributeError, ImportError, TypeError):  # another Numba
    inside = None

logger = logging.getLogger(__name__)

Kernel = Callable[[Any], None]

LINE = 64  # bytes of a cache line
_LONG_UNUSED = 30 * 24 * 3600  # seconds after which the kernels of other versions are dropped

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def _has(feature: str, named: str) -> bool:
    """Whether kernels are compiled for a machine with a feature. Where only its name is given, a word of that tells."""
    _, name, features = cpu_target.target_context.codegen().magic_tuple()
    return f"+{feature}" in features if features else named in name


HAS_MASKS, HAS_PERMUTATIONS = _has("avx512f", "avx512"), _has("avx2", "haswell")


def jit(function: Callable[..., Any]) -> Any:
    """``numba.njit`` for a function that kernels call. A division by 0 gives inf, without a check each time."""
    return numba.njit(**_OPTIONS)(function) if inside is None else inside.PartDispatcher(function, **_OPTIONS)


def chosen_by_type(choose: Callable[..., Any]) -> Any:
    """A function that kernels call, which ``choose`` finds by the types of the arguments."""

    @wraps(choose)
    def called(*args: Any) -> Any:
        raise NotImplementedError

    options: Any = _OPTIONS | ({} if inside is None else {"pipeline_class": inside.PartCompiler, "forceinline": True})
    overload(called, jit_options=options)(choose)
    return called


def inlined(function: Callable[..., Any]) -> Any:
    """``jit`` for functions that are called often: a call copies seven numbers for each array that it is given.

    The function must not make arrays: without numba's count of references it cannot.
    """
    if inside is None:
        return numba.njit(**_OPTIONS, forceinline=True)(function)
    return inside.PartDispatcher(function, **_OPTIONS, forceinline=True, _nrt=False)


def emitted(typed: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """``numba.extending.intrinsic`` for a function of Numba's context, LLVM's builder, the signature and LLVM's values.

    ``typed`` is given the types of the arguments, and returns the types of the result and the arguments. A function
    without a result is called for its effect.
    """

    def decorated(emit: Callable[..., Any]) -> Any:
        def codegen(context, builder, sig, args):
            found = emit(context, builder, sig, *args)
            return context.get_dummy_value() if found is None else found

        def defined(typingctx, *args):
            sig = typed(*args)
            return None if sig is None else (sig, codegen)

        update_wrapper(defined, emit)
        defined.__signature__ = Signature([*signature(emit).parameters.values()][2:])
        return intrinsic(defined)

    return decorated


def c_function(signature: Any, *kind: Any, following: str = "") -> Callable[[Callable[[Any], None]], Any]:
    """``numba.cfunc``, kept on disk. ``kind`` is all that the function depends on beside its sources.

    ``following`` is the kernel that is needed next for the same kind, which may be compiled at the same time.
    """

    def compiled(function: Callable[[Any], None]) -> Any:
        cache = None if inside is None or folder() is None else _OnDisk(function, kind, following)
        if cache is None:
            _announce()
        collects = gc.isenabled()
        gc.disable()  # it would go through what compiling makes, and keeps, time and again
        try:
            return numba.cfunc(signature)(function) if inside is None else inside.c_function(function, signature, cache)
        finally:
            if collects:
                gc.enable()

    return compiled


@lru_cache(maxsize=1)
def folder() -> Path | None:
    """Where this version's kernels are kept; None if no such folder can be written."""
    try:
        home = numba.config.CACHE_DIR or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "firstspike"
        path = Path(home) / f"kernels-{__version__}-numba{numba.__version__}-{_sources()}"
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
        os.utime(path)
        found = path.stat()
        if hasattr(os, "geteuid") and (found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o002):
            raise PermissionError(errno.EPERM, "others could put kernels there", str(path))
    except (OSError, RuntimeError) as error:  # the latter if the user has no home
        logger.warning("cannot keep compiled kernels (%s); NUMBA_CACHE_DIR names another folder", error)
        return None
    _drop_unused(path)
    return path


class _OnDisk:
    """A kernel's file, in place of Numba's cache.

    That looks at one file of sources, and hashes enclosed values, which may differ between processes.
    """

    def __init__(self, function: Callable[..., Any], kind: tuple[Any, ...], following: str) -> None:
        self._kernel = f"{function.__module__}.{function.__qualname__.split('.')[0]}"
        self._place = function.__qualname__, function.__code__.co_firstlineno
        self._kind, self._following = kind, following

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        beside.wait(self._kernel, self._kind)
        target_context.refresh()
        machine, checks = target_context.codegen().magic_tuple(), bool(numba.config.BOUNDSCHECK)
        key = repr((self._place, self._kind, str(sig), machine, checks, sys.implementation.cache_tag))
        self._key = hashlib.sha256(key.encode())
        self._path = folder() / f"{self._kernel}-{self._key.hexdigest()[:16]}.kernel"
        try:
            content = self._path.read_bytes()
            if content != self._sealed(content[: -self._key.digest_size]):
                raise ValueError("damaged")  # LLVM would end the process, or link what is wrong
            return inside.CompileResult._rebuild(target_context, *pickle.loads(content))
        except FileNotFoundError:
            pass
        except Exception:  # whatever damaged files make pickle raise
            logger.warning("dropped what cannot be read of the compiled kernels in %s", self._path.parent)
        _announce()
        if self._following:
            beside.start(self._following, self._kind, self._path.parents[1])
        return None

    def save_overload(self, sig: Any, result: Any) -> None:
        if result.library.has_dynamic_globals:  # addresses of this process
            return
        part = self._path.with_suffix(f".{uuid4().hex}")
        try:
            part.write_bytes(self._sealed(inside.dumps(result._reduce())))
            part.replace(self._path)
        except OSError as error:
            logger.warning("cannot keep a compiled kernel in %s: %s", part.parent, error.strerror)
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def _sealed(self, data: bytes) -> bytes:
        """The content of this kernel's file: data, and a digest of it and of what the kernel depends on."""
        digest = self._key.copy()
        digest.update(data)
        return data + digest.digest()


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
