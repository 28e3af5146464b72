"""A CUDA machine in plain Python: the leaves of our kernels, for tests on machines without a card.

Real numbers are numpy.float32 and numpy.float64 scalars, integers are Python's, words of 16 bytes are opaque. Memory
is in ``cuda_twin_memory``, barriers and shuffles are in ``cuda_schedule``.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import cffi
import numpy as np

from . import cuda_schedule, cuda_twin_memory, cuda_twin_shared

__all__ = [
    "absolute", "chain", "each", "ex2", "exponent", "fma", "fmax", "fold", "following", "jit", "mantissa", "maximum",
    "minimum", "pow2", "real", "select", "table", "whole", "wide",
]  # fmt: skip

f4, f8 = np.float32, np.float64
_ffi = cffi.FFI()
_ffi.cdef("float fmaf(float, float, float); double fma(double, double, double);")
_math = _ffi.dlopen("ucrtbase.dll" if sys.platform == "win32" else None)
_fma4, _fma8 = _math.fmaf, _math.fma

# One cell of each type: storing there and reading back is the cheapest way to round, and to see bits.
_cell4 = np.zeros(1, f4)
_single_cell = memoryview(_cell4)
_cells = memoryview(bytearray(8))
_float, _float_bits, _double, _double_bits = (_cells.cast(kind) for kind in "fIdQ")
_POW2_4 = list((np.arange(1 << 9, dtype=np.uint32) << 23).view(f4))
_POW2_8 = list((np.arange(1 << 12, dtype=np.uint64) << np.uint64(52)).view(f8))
_EXPONENT = list(np.arange(1 << 12, dtype=f8) - 1023)
_ZERO, _INFINITE = f4(0), f4(math.inf)


def launch(function: Any, args: Any, grid: int, count: int, shared: int) -> None:
    """Run a kernel: `grid` blocks of `count` threads, with so many bytes of shared memory."""

    def begin() -> None:
        cuda_twin_memory.prepare()
        cuda_twin_shared.begin_block(shared)

    cuda_schedule.run(function, args, grid, count, begin)


def jit(function: Any) -> Any:
    return function


def _typed(value: Any) -> Any:
    """A number of NumPy's, whose division by zero raises nothing."""
    return f8(value) if value.__class__ is float else value


def fma(a: Any, b: Any, c: Any) -> Any:
    if a.__class__ is f4 and b.__class__ is f4 and c.__class__ is f4:
        # In float64 the product is exact. Rounding the sum there first changes nothing, unless that is what brings it
        # halfway between two float32, or near their least; then, or for NaN, the C library is asked, which is slower.
        total = float(a) * float(b) + float(c)
        _double[0] = total
        if _double_bits[0] & 0x1FFFFFFF == 0x10000000 or not (total > 1e-37 or total < -1e-37):
            total = _fma4(a, b, c)
        _single_cell[0] = total
        return _cell4[0]
    return f8(_fma8(a, b, c))


def select(flag: Any, a: Any, b: Any) -> Any:
    chosen = a if flag else b
    return f8(chosen) if chosen.__class__ is float else chosen


def maximum(a: Any, b: Any) -> Any:
    chosen = a if a > b else b
    return f8(chosen) if chosen.__class__ is float else chosen


def minimum(a: Any, b: Any) -> Any:
    chosen = a if a < b else b
    return f8(chosen) if chosen.__class__ is float else chosen


def fmax(a: Any, b: Any) -> Any:
    """The greater of two, or the one that is not NaN."""
    if a == b:
        return _typed(a if a else a + b)  # of two zeros the positive one
    return _typed(a if a > b or b != b else b)


def absolute(a: Any) -> Any:
    return _typed(abs(a))


def pow2(shifted: Any) -> Any:
    if shifted.__class__ is f4:
        _float[0] = shifted
        return _POW2_4[_float_bits[0] & 0x1FF]
    _double[0] = shifted
    return _POW2_8[_double_bits[0] & 0xFFF]


def exponent(value: Any) -> Any:
    _double[0] = value
    return _EXPONENT[_double_bits[0] >> 52]


def mantissa(value: Any) -> Any:
    _double[0] = value
    _double_bits[0] = _double_bits[0] & (1 << 52) - 1 | 1023 << 52
    return f8(_double[0])


def following(value: Any) -> Any:
    """The least number above one; NaN above +inf."""
    if value != value:
        return value
    if value == math.inf:
        return type(value)(math.nan)
    return np.nextafter(value, type(value)(math.inf))


def ex2(x: Any) -> Any:
    """2^x in float32, 0 below 2^-126."""
    power = float(x)
    if power < -126.0:
        return _ZERO
    if power >= 128.0:
        return _INFINITE
    _single_cell[0] = 2.0**power
    return _cell4[0]


def _single(value: Any) -> Any:
    _cell4[0] = value
    return _cell4[0]


def wide(value: Any) -> Any:
    """A number in float64."""
    return f8(value)


def real(code: str) -> Any:
    """The conversion of any number to float32 (``f4``) or float64 (``f8``)."""
    return _single if code == "f4" else f8


def whole(value: Any) -> int:
    """A number's integral part as int64, within its range; NaN gives any integer."""
    if value != value:
        return -(2**63)
    return int(max(-(2**63), min(2**63 - 1, value if abs(value) < 2**63 else math.copysign(2**63, value))))


def table(function: Any, n: int) -> Any:
    """A function of `a` that gives the tuple (function(0, a), …, function(n-1, a))."""
    return lambda a: tuple([function(k, a) for k in range(n)])


def each(function: Any) -> Any:
    """A function of (v, a) that gives function((p, q, …), k, a) for all p, q, … at the place k of the tuples in v."""
    return lambda v, a: tuple([function(items, k, a) for k, items in enumerate(zip(*v, strict=True))])


def fold(function: Any) -> Any:
    """A function of a tuple that combines its elements by function(p, q), neighbours first."""

    def folded(values: Any) -> Any:
        while len(values) > 1:
            odd = values[len(values) // 2 * 2 :]
            values = [*map(function, values[::2], values[1::2]), *odd]
        return values[0]

    return folded


def chain(function: Any) -> Any:
    """A function of (state, v, a) that takes the state through function(state, (p, q, …), k, a) from first to last."""

    def chained(state: Any, v: Any, a: Any) -> Any:
        for k, items in enumerate(zip(*v, strict=True)):
            state = function(state, items, k, a)
        return state

    return chained
