"""Kernels as their callers see them: compiled and loaded on first use, once for each device, and started.

In the simulator a kernel is a Python function and is simply run.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from . import cuda_card
from .cuda_card import SIMULATED


class Kernel:
    """A kernel specialised by `key`: a function of int64 and then float64 arguments, for blocks of so many threads.

    Registers are left for `resident` threads of a multiprocessor; where that is 0, the assembler finds a number.
    ``call`` packs the arguments of one launch.
    """

    def __init__(
        self, function: Callable[..., None], key: Any, integers: int, reals: int, threads: int, resident: int = 0
    ) -> None:
        self.function, self.key, self.threads, self.resident = function, key, threads, resident
        self.integers, self.reals = integers, reals
        self.call = struct.Struct(f"={integers}q{reals}d")
        self._loaded: dict[int, Any] = {}
        self._arguments = None if SIMULATED else cuda_card.Arguments(self.call.size)
        self._lock = threading.Lock()

    def launch(self, device: int, stream: int, grid: int, shared: int, call: bytes) -> None:
        """Enqueue `grid` blocks with so many bytes of dynamic shared memory; `call` is what ``call.pack`` gives."""
        if not grid:
            return
        if SIMULATED:
            self._simulate(grid, shared, call)
            return
        loaded = self._loaded.get(device) or self._load(device)
        here = cuda_card.context(device)
        if here.is_current():
            cuda_card.launch(loaded, grid, self.threads, shared, stream, self._arguments, call)
            return
        with here:
            cuda_card.launch(loaded, grid, self.threads, shared, stream, self._arguments, call)

    def load(self, device: int) -> None:
        """Have the kernel ready on a device."""
        if not SIMULATED and device not in self._loaded:
            self._load(device)

    def _load(self, device: int) -> Any:
        from .cuda_ptx import ENTRY

        with self._lock:
            if device not in self._loaded:
                ptx = ptx_of(self)
                self._loaded[device] = cuda_card.kernel_of(ptx, ENTRY, device)
            return self._loaded[device]

    def _simulate(self, grid: int, shared: int, call: bytes) -> None:
        from . import cuda_twins

        values = self.call.unpack(call)
        reals = [np.float64(value) for value in values[self.integers :]]
        cuda_twins.launch(self.function, (*values[: self.integers], *reals), grid, self.threads, shared)


def ptx_of(kernel: Kernel) -> str:
    """A kernel's PTX."""
    from .cuda_ptx import ptx_for

    return ptx_for(kernel.function, kernel.key, kernel.integers, kernel.reals, kernel.threads, kernel.resident)
