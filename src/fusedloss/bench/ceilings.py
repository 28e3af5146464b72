"""What memory allows: reading arrays, and copying one past the caches, by the library's own vectors and threads."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import Array
from ..kernels.ceilings import LINE, TURN, copy, read
from ..threads import run_blocks

_BLOCK = 1 << 19  # bytes, as much as the library's own blocks


def reader(*arrays: Array) -> Callable[[], float]:
    """Make a function that reads contiguous arrays, each to its last whole 256 bytes, and sums them as int32s."""
    parts = [(array.ctypes.data, _turns(array), np.zeros(-(-array.nbytes // _BLOCK))) for array in arrays]

    def run(kept: Any = arrays) -> float:
        for at, size, sums in parts:
            run_blocks(lambda lo, hi, at=at, sums=sums: read(at, sums, _BLOCK, lo, hi), size, _BLOCK)  # type: ignore[misc]
        return float(sum(sums.sum() for *_, sums in parts))

    return run


def copier(source: Array, out: Array, *others: Array) -> Callable[[], Array]:
    """Make a function that copies an array past the caches, to its last whole 256 bytes, and reads the others.

    Raises
    ------
    ValueError
        If `out` does not begin on a cache line.
    """
    at, to, size = source.ctypes.data, out.ctypes.data, _turns(source)
    if to % LINE:
        raise ValueError(f"out begins at {to}, expected a multiple of {LINE}")
    read_others = reader(*others)

    def run(kept: Any = source) -> Array:
        run_blocks(lambda lo, hi: copy(at, to, lo, hi), size, _BLOCK)
        read_others()
        return out

    return run


def _turns(array: Array) -> int:
    if not array.flags.c_contiguous:
        raise ValueError(f"an array has strides {array.strides}, expected a contiguous one")
    return array.nbytes // TURN * TURN
