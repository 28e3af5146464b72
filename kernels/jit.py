"""The one policy by which the CPU's kernels are compiled and cached."""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.registry import cpu_target
from numba.extending import intrinsic

POLICY = {"nogil": True, "error_model": "numpy", "boundscheck": False}
HELPER = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Only kernels are called from Python: the rest needs no wrapper, which saves a quarter of the time to compile."""


@cache
def stamp() -> str:
    """A digest of every kernel source: an edit to any of them makes what was compiled from them stale."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


class KernelCache(FunctionCache):
    """Numba's disk cache under a key of our own, and never a reason to fail: what cannot be cached is compiled.

    Numba would hash a kernel's closure, which holds compiled helpers and so differs in every process. Here the options
    that specialise the kernel are the key, and the digest of all the sources is the stamp.
    """

    def __init__(self, function: Any, key: Any) -> None:
        super().__init__(function)
        self._key = repr(key)
        self._cache_file = IndexDataCacheFile(self._cache_path, self._impl.filename_base, stamp())

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return sig, codegen.magic_tuple(), self._key

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a truncated or foreign file raises whatever unpickling it raises
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError:  # a read-only or full disk, a directory removed
            self.disable()


@cache
def processor_has(feature: str) -> bool:
    """Whether the processor that kernels are compiled for has a feature, by LLVM's name: ``avx512f``."""
    return f"+{feature}" in cpu_target.target_context.codegen().magic_tuple()[-1].split(",")


def registers() -> int:
    """How many bits have the vector registers of the processor that kernels are compiled for: 512, 256 or 128."""
    return 512 if processor_has("avx512f") else 256 if processor_has("avx2") else 128


def _renamed(function: Any) -> Any:
    """Give a function a name that no other process uses.

    Code loaded from the cache brings its symbols with it, and two helpers of one name would be taken for each other.
    """
    function.__qualname__ = f"{function.__qualname__}.{uuid.uuid4().hex}"
    return function


def splice(function: Any) -> Any:
    """Copy a helper into its callers before they are typed: for what is short or called once, it compiles fastest."""
    return njit(**POLICY, inline="always", **HELPER)(_renamed(function))


def inline(function: Any) -> Any:
    """Compile a helper by itself, to be inlined into the kernels that call it."""
    return njit(**POLICY, forceinline=True, **HELPER)(_renamed(function))


def kernel(key: Any) -> Any:
    """Compile a kernel specialised by `key`: serial, without the GIL, cached on disk where a cache can be written."""

    def compile_(function: Any) -> Any:
        stored = None
        with contextlib.suppress(RuntimeError):  # no directory can be written, neither beside the source nor the user's
            stored = KernelCache(function, key)
        compiled = njit(**POLICY)(_renamed(function))
        compiled._cache = stored or compiled._cache
        return compiled

    return compile_


@intrinsic
def apart(_typingctx: Any) -> Any:
    """Keep the calling helper a function of its own, so that its loop has all the registers to itself."""

    def codegen(context: Any, builder: Any, _sig: Any, _args: Any) -> Any:
        builder.function.attributes.discard("alwaysinline")
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen
