"""What memory allows: reading arrays, and copying one past the caches, by the library's own vectors and threads."""

from collections.abc import Callable

import numpy as np

from ..arrays import Array
from ..kernels.ceilings import LINE, TURN, copy, read
from ..threads import run_blocks
from .inputs import Inputs
from .turns import Contender

BLOCK = 1 << 19  # bytes; the library's own blocks have half to twice as many
LEAST = 1 << 20  # bytes of logits for which memory is a bound at all


def ceilings(inputs: Inputs) -> dict[str, Contender]:
    """Make what every case is held against, and call it once: "read" and "copy"; nothing for small arrays."""
    if inputs.x.nbytes < LEAST:
        return {}
    calls = {"read": reader(inputs.x, inputs.y), "copy": copier(inputs.x, inputs.out, inputs.y)}
    for call in calls.values():
        call()
    return {name: Contender(call) for name, call in calls.items()}


def reader(*arrays: Array) -> Callable[[], float]:
    """Make a function that reads contiguous arrays, each to its last whole 256 bytes, and sums them as int32."""
    passes = [_reading(array) for array in arrays]
    return lambda: float(sum(each() for each in passes))


def copier(source: Array, out: Array, *others: Array) -> Callable[[], object]:
    """Make a function that copies an array past the caches, to its last whole 256 bytes, and reads the others.

    Raises
    ------
    ValueError
        If an array is not contiguous, or `out` does not begin on a cache line.
    """
    at, to, size = source.ctypes.data, out.ctypes.data, _whole(source)
    if to % LINE:
        raise ValueError(f"out begins at {to}, expected a multiple of {LINE}")
    read_others = reader(*others)

    def run(kept: object = (source, out)) -> object:  # alive as long as their addresses are used
        run_blocks(lambda lo, hi: int(copy(at, to, lo, hi)), size, BLOCK)
        return read_others()

    return run


def _reading(array: Array) -> Callable[[], float]:
    at, size, sums = array.ctypes.data, _whole(array), np.zeros(-(-array.nbytes // BLOCK))

    def run(kept: object = array) -> float:  # alive as long as its address is used
        run_blocks(lambda lo, hi: int(read(at, sums, BLOCK, lo, hi)), size, BLOCK)
        return float(sums.sum())

    return run


def _whole(array: Array) -> int:
    if not array.flags.c_contiguous:
        raise ValueError(f"an array has strides {array.strides}, expected a contiguous one")
    return array.nbytes // int(TURN) * int(TURN)
