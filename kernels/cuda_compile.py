"""How a kernel becomes PTX, once for each kind of card, and how it is started.

Where the machine is the simulated one, a kernel is a Python function and is simply run.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from .cuda_machine import SIMULATED

CC = tuple[int, int] | tuple[int, int, str]


class Kernel:
    """A kernel specialised by `key`: a function of int64 and then float64 arguments, for blocks of so many threads."""

    def __init__(self, function: Callable[..., None], key: Any, integers: int, reals: int, threads: int) -> None:
        self.function, self.key, self.threads = function, key, threads
        self.call = struct.Struct(f"={integers}q{reals}d")
        self.integers, self.reals = integers, reals
        self._lock = threading.Lock()
        self._ptx: dict[CC, str] = {}

    def ptx(self, cc: CC) -> str:
        """The kernel's PTX for a compute capability, such as ``(9, 0)``."""
        with self._lock:
            if cc not in self._ptx:
                self._ptx[cc] = _compile(self, cc)
            return self._ptx[cc]

    def launch(self, device: int, stream: int, grid: int, shared: int, call: bytes) -> None:
        """Enqueue `grid` blocks with so many bytes of dynamic shared memory; `call` is what `call.pack` gives."""
        if SIMULATED:
            _simulate(self, grid, shared, call)
            return
        raise NotImplementedError


def ptx_of(kernel: Kernel, cc: CC) -> str:
    return kernel.ptx(cc)


def _simulate(kernel: Kernel, grid: int, shared: int, call: bytes) -> None:
    import numpy as np

    from . import cuda_twins

    values = kernel.call.unpack(call)
    reals = [np.float64(value) for value in values[kernel.integers :]]
    cuda_twins.launch(kernel.function, (*values[: kernel.integers], *reals), grid, kernel.threads, shared)


@contextmanager
def _no_device(cc: CC) -> Iterator[None]:
    """Let Numba compile device functions without a driver: it asks the current device for what it was told."""
    from numba.cuda import dispatcher

    asked, told = dispatcher.get_current_device, SimpleNamespace(compute_capability=cc[:2])
    dispatcher.get_current_device = lambda: told
    try:
        yield
    finally:
        dispatcher.get_current_device = asked


def _compile(kernel: Kernel, cc: CC) -> str:
    from numba import cuda
    from numba.cuda import types

    signature = (types.int64,) * kernel.integers + (types.float64,) * kernel.reals
    with _no_device(cc):
        ptx, _ = cuda.compile(
            kernel.function, signature, device=False, abi="numba", cc=cc, output="ptx", launch_bounds=kernel.threads
        )
    return ptx
