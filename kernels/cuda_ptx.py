"""PTX of kernels: compiled by Numba's CUDA target, kept on disk where Numba keeps the CPU's kernels.

One text serves every card: kernels use nothing that came after compute capability 8.0, and the driver assembles the
text for the card that it finds. No dispatcher of Numba's is involved, no linker and no context of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from numba.core.caching import FunctionCache
from numba.cuda import compiler, dispatcher, types

from .jit import stamp

CC = (8, 0)
"""The least compute capability that kernels run on, for which they are compiled."""
ENTRY = "fusedloss_kernel"
"""The name of the one kernel in any PTX of ours."""
COMPILERS = ("numba-cuda", "nvidia-nvvm", "nvidia-cuda-nvcc", "nvidia-cuda-nvcc-cu12", "llvmlite")


@cache
def _origin() -> str:
    """What PTX is made from and by: an edit to a kernel, or another compiler, makes older PTX stale."""
    digest = hashlib.sha256(stamp().encode())
    for distribution in COMPILERS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            digest.update(f"{distribution} {metadata.version(distribution)}\n".encode())
    return digest.hexdigest()


@cache
def _folder() -> Path | None:
    """Numba's cache directory for these sources, or None where none can be written."""
    with contextlib.suppress(RuntimeError):
        return Path(FunctionCache(_folder.__wrapped__).cache_path)
    return None


def _head(ptx: str) -> str:
    """The first line of a cached file, which nothing truncated or stale has."""
    return f"// {_origin()} {hashlib.sha256(ptx.encode()).hexdigest()}\n"


def _read(path: Path) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        head, _, ptx = path.read_text("utf-8").partition("\n")
        if head + "\n" == _head(ptx):
            return ptx
    return None


def _write(path: Path, ptx: str) -> None:
    """Replace a file in one step; what fails costs only the time to compile again."""
    with contextlib.suppress(OSError):
        handle, name = tempfile.mkstemp(".tmp", path.stem, path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(_head(ptx) + ptx)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def ptx_for(function: Callable[..., None], key: Any, integers: int, reals: int, threads: int, resident: int = 0) -> str:
    """The PTX of a kernel: from the disk, or compiled and put there."""
    folder = _folder()
    if folder is None:
        return compiled(function, integers, reals, threads, resident)
    digest = hashlib.sha256(repr((key, integers, reals, threads, resident)).encode()).hexdigest()[:40]
    path = folder / f"fusedloss.{digest}.ptx"
    ptx = _read(path)
    if ptx is None:
        ptx = compiled(function, integers, reals, threads, resident)
        _write(path, ptx)
    return ptx


def compiled(function: Callable[..., None], integers: int, reals: int, threads: int, resident: int = 0) -> str:
    """The PTX of a kernel, compiled now."""
    signature = (types.int64,) * integers + (types.float64,) * reals
    bounds = (threads, resident // threads) if resident else threads
    options = {"device": False, "abi": "numba", "cc": CC, "launch_bounds": bounds}
    with compiler.global_compiler_lock, _no_device():
        library, _ = compiler._compile_pyfunc_with_fixup(function, signature, **options)
        _tell_nvvm(library)
        ptx = library.get_asm_str(cc=CC)
    (mangled,) = re.findall(r"\.visible \.entry (\S+?)\(", ptx)
    ptx = re.sub(r"\.common \.global .*NumbaEnv.*;\n", "", ptx)  # Numba's constants, of which kernels have none
    return ptx.replace(mangled, ENTRY)


@contextlib.contextmanager
def _no_device() -> Iterator[None]:
    """Let Numba compile device functions without a driver: it asks the current device for what it was told."""
    asked, told = dispatcher.get_current_device, SimpleNamespace(compute_capability=CC)
    dispatcher.get_current_device = lambda: told
    try:
        yield
    finally:
        dispatcher.get_current_device = asked


def _tell_nvvm(library: Any) -> None:
    """Tell NVVM what `numba.cuda.compile` has no options for.

    Products are rounded before something is added to them, but for the kernels' own `fma`: as on the CPU, and so that
    one formula comes out the same in all kernels. Functions may hold barriers and shuffles, which must not be moved
    into branches, so they are convergent, as in CUDA C++. Each of them is given once.
    """
    library._nvvm_options["fma"] = False
    modules = {id(module): module for module in library.modules}.values()
    for module in modules:
        for function in module.functions:
            function.attributes.add("convergent")
    library._llvm_strs = [str(module) for module in modules]
