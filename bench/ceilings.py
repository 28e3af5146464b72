"""What memory allows: reading logits, and copying them past the caches, by the library's own vectors and threads."""

from collections.abc import Callable
from typing import Any

import numpy as np
from fusedloss.kernels.memory import fence, load, prefetch, stream
from fusedloss.kernels.reductions import hsum
from fusedloss.kernels.simd import Format, full
from numba import njit

from fusedloss.threads import run_blocks

F = Format("f4", 16, "f4")
STEP = 4 * F.lanes  # elements a turn: four vectors, of one cache line each
LINE, AHEAD = 64, 8192  # bytes of a cache line, and of how far it is asked for ahead of its use
BLOCK = 1 << 17  # elements, of the library's blocks of half a megabyte


@njit(nogil=True, error_model="numpy")
def _read(x: Any, sums: Any, lo: Any, hi: Any) -> Any:
    a = full(F, 0.0)
    b, c, d = a, a, a
    for i in range(lo, hi, STEP):
        for line in range(4):
            prefetch(x + 4 * i + AHEAD + LINE * line)
        a = a + load(F, x, i)
        b = b + load(F, x, i + 16)
        c = c + load(F, x, i + 32)
        d = d + load(F, x, i + 48)
    sums[lo // BLOCK] = hsum((a + b) + (c + d))
    return -1


@njit(nogil=True, error_model="numpy")
def _copy(x: Any, out: Any, lo: Any, hi: Any) -> Any:
    for i in range(lo, hi, STEP):
        for part in range(0, STEP, 16):
            stream(F, out, i + part, load(F, x, i + part))
    fence()
    return -1


def reader(x: np.ndarray) -> Callable[[], float]:
    """A function that reads all of x, float32 and contiguous, and gives its sum."""
    at, n = x.ctypes.data, _whole(x)
    sums = np.zeros(-(-n // BLOCK))

    def read() -> float:
        run_blocks(lambda lo, hi: _read(at, sums, lo, hi), n, BLOCK)
        return float(sums.sum())

    return read


def copier(x: np.ndarray, out: np.ndarray) -> Callable[[], np.ndarray]:
    """A function that copies x to out, which begins on a cache line, with stores that leave the caches alone."""
    source, target, n = x.ctypes.data, out.ctypes.data, _whole(x)
    if target % LINE:
        raise ValueError(f"out begins at {target}, expected a multiple of {LINE}")

    def copy() -> np.ndarray:
        run_blocks(lambda lo, hi: _copy(source, target, lo, hi), n, BLOCK)
        return out

    return copy


def aligned(shape: tuple[int, int]) -> np.ndarray:
    """An array of zeros, float32, that begins on a cache line and whose pages are there."""
    size = shape[0] * shape[1]
    whole = np.full(size + LINE // 4, 0, np.float32)
    start = -whole.ctypes.data % LINE // 4
    return whole[start : start + size].reshape(shape)


def _whole(x: np.ndarray) -> int:
    if x.dtype != np.float32 or not x.flags.c_contiguous or x.size % STEP:
        raise ValueError(f"x is {x.dtype} {x.shape}, expected contiguous float32 of a multiple of {STEP} elements")
    return x.size
