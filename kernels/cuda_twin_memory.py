"""The global memory of a simulated card: host memory that was lent to it.

Every access is checked. What lies outside lent memory or is not aligned is a `Fault`, as is writing what was lent for
reading.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import Counter
from functools import cache
from typing import Any

import cffi
import numpy as np

from .cuda_schedule import Fault

__all__ = ["atomic_least", "funnel", "load16", "load16_kept", "pack", "peek", "poke", "store16", "unpack"]

DTYPE = {
    "bf": "u2", "f2": "f2", "f4": "f4", "f8": "f8", "b1": "u1", "words": "V16",
    **{f"{kind}{size}": f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)},
}  # fmt: skip
SIZE = {code: np.dtype(dtype).itemsize for code, dtype in DTYPE.items()}
LARGEST = 2**63 - 1

_ffi = cffi.FFI()
_lent: Counter[tuple[int, int, bool]] = Counter()
_stale = True
_lending = threading.Lock()
_bounds: list[int] = []  # begin and end of each range in turn, rising
_bases: list[int] = []  # by the index of a range's end in `_bounds`, as below
_writable: list[bool] = []
_views: dict[str, list[Any]] = {code: [] for code in DTYPE}

_cell16 = np.zeros(2, "V16")
_cells = {code: _cell16.view(dtype) for code, dtype in DTYPE.items()}
_wide4 = np.zeros(8, np.float32)
_wide4_bits = _wide4.view(np.uint32)


# ---- what is lent ----------------------------------------------------------------------------------------------------


def lend(address: int, nbytes: int, *, writable: bool = True) -> None:
    """Let kernels use a range of host memory, until it is retracted as often as it was lent."""
    global _stale
    if nbytes:
        with _lending:
            _lent[address, address + nbytes, writable] += 1
            _stale = True


def retract(address: int, nbytes: int, *, writable: bool = True) -> None:
    """Take back what was lent with the same arguments."""
    global _stale
    if nbytes:
        key = (address, address + nbytes, writable)
        with _lending:
            _lent[key] -= 1
            if _lent[key] <= 0:
                del _lent[key]
            _stale = True


def _merged() -> list[list[Any]]:
    """What is lent as ranges that do not overlap, rising."""
    merged: list[list[Any]] = []
    for begin, end, writable in sorted(_lent):
        if merged and begin < merged[-1][1]:
            merged[-1][1] = max(end, merged[-1][1])
            merged[-1][2] |= writable
        else:
            merged.append([begin, end, writable])
    return merged


def _renew() -> None:
    """Make the tables that accesses are checked by."""
    global _stale
    with _lending:
        ranges, _stale = _merged(), False
    _bounds[:] = [bound for begin, end, _ in ranges for bound in (begin, end)]
    _bases[:] = [base for begin, _, _ in ranges for base in (0, begin & -16)] + [0]
    _writable[:] = [flag for _, _, writable in ranges for flag in (False, writable)] + [False]
    for views in _views.values():
        views[:] = [None] * (len(_bounds) + 1)


def prepare() -> None:
    """See what is lent by now."""
    if _stale:
        _renew()


def _view(code: str, index: int) -> Any:
    """A range as an array of elements of a code, from the multiple of 16 at or before its begin."""
    base, size = _bases[index], SIZE[code]
    count = -(-(_bounds[index] - base) // size)
    view = np.frombuffer(_ffi.buffer(_ffi.cast("char *", base), count * size), DTYPE[code])
    view.flags.writeable = _writable[index]
    _views[code][index] = view
    return view


def refused(what: str, at: int, size: int) -> Fault:
    if at % size:
        return Fault(f"{what} of {size} bytes at {at}, which is not a multiple of {size}")
    return Fault(f"{what} of {size} bytes at {at}, outside the memory that was lent")


def _far(code: str, early: bool = False) -> Any:
    """``f(at) -> array, index`` for a global address; of an early access only the last byte need be lent.

    A card's memory is given out in multiples of 16, so that what shares those 16 bytes may be read with it.
    """
    size, bounds, bases, views = SIZE[code], _bounds, _bases, _views[code]
    rest, shift = size - 1, size.bit_length() - 1

    def find(at: int) -> Any:
        k = bisect_right(bounds, at)
        if early and not k & 1 and k < len(bounds) and bounds[k] - at < size:
            k += 1
        if not k & 1 or at & rest or at + size > bounds[k]:
            raise refused("a global access", at, size)
        view = views[k]
        return _view(code, k) if view is None else view, (at - bases[k]) >> shift

    return find


# ---- elements --------------------------------------------------------------------------------------------------------


@cache
def _bfloat16() -> Any:
    """The float32 of every bfloat16."""
    return (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32)


@cache
def _float16() -> Any:
    """The float32 of every float16."""
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


def _rounded(value: Any) -> int:
    """The bits of the bfloat16 nearest to a float32, the even one of two; of the card's NaN for NaN."""
    _wide4[0] = value
    bits = _wide4_bits.item(0)
    if bits & 0x7FFFFFFF > 0x7F800000:
        return 0x7FFF
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def read_as(code: str) -> str:
    """Of which code `reader` takes elements: of 16-bit floats, the bits."""
    return "u2" if code == "f2" else code


def written_as(code: str) -> str:
    """Of which code `writer` takes elements: of integers, the bits."""
    return code.replace("i", "u")


def reader(code: str, find: Any) -> Any:
    """``f(at)``, for elements that ``find(at)`` gives as an array and an index."""
    if code in ("f4", "f8"):

        def read(at: int) -> Any:
            view, k = find(at)
            return view[k]
    elif code in ("bf", "f2"):
        table = _bfloat16() if code == "bf" else _float16()

        def read(at: int) -> Any:
            view, k = find(at)
            return table[view.item(k)]
    else:

        def read(at: int) -> Any:
            view, k = find(at)
            value = view.item(k)
            return value if value <= LARGEST else LARGEST

    return read


def writer(code: str, find: Any) -> Any:
    """``f(at, value)``, likewise."""
    mask = (1 << 8 * SIZE[code]) - 1
    if code == "bf":

        def write(at: int, value: Any) -> None:
            view, k = find(at)
            view[k] = _rounded(value)
    elif code == "f2":

        def write(at: int, value: Any) -> None:
            view, k = find(at)
            view[k] = np.float32(value)
    elif code[0] == "f":

        def write(at: int, value: Any) -> None:
            view, k = find(at)
            view[k] = value
    elif code == "b1":

        def write(at: int, value: Any) -> None:
            view, k = find(at)
            view[k] = value != 0
    else:

        def write(at: int, value: Any) -> None:
            view, k = find(at)
            view[k] = int(value) & mask

    return write


@cache
def peek(code: str) -> Any:
    """``f(at)``: the element at a global address."""
    return reader(code, _far(read_as(code)))


@cache
def poke(code: str) -> Any:
    """``f(at, value)``: store an element at a global address."""
    return writer(code, _far(written_as(code)))


def atomic_least(at: int, value: int) -> None:
    """Lower the int64 at a global address to a value, if it is above it."""
    view, k = _far_i8(at)
    view[k] = min(view.item(k), int(value))


_far_i8, _far16, _early16 = _far("i8"), _far("words"), _far("words", early=True)


# ---- 16 bytes at a time ----------------------------------------------------------------------------------------------


def load16(at: int) -> Any:
    """The 16 bytes at a global address that is a multiple of 16; lent memory may begin among them."""
    view, k = _early16(at)
    return view[k]


load16_kept = load16


def store16(at: int, words: Any) -> None:
    """Store 16 bytes at a global address that is a multiple of 16."""
    view, k = _far16(at)
    view[k] = words


def _unpack_f4(words: Any) -> Any:
    _cell16[0] = words
    cell = _cells["f4"]
    return cell[0], cell[1], cell[2], cell[3]


def _unpack_f8(words: Any) -> Any:
    _cell16[0] = words
    cell = _cells["f8"]
    return cell[0], cell[1]


def _unpack_f2(words: Any) -> Any:
    _cell16[0] = words
    w = _wide4
    w[:] = _cells["f2"][:8]
    return w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]


def _unpack_bf(words: Any) -> Any:
    _cell16[0] = words
    np.left_shift(_cells["u2"][:8], 16, out=_wide4_bits, dtype=np.uint32)
    w = _wide4
    return w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]


@cache
def unpack(code: str) -> Any:
    """``f(words)``: the 8, 4 or 2 numbers of 16 bytes."""
    return {"f4": _unpack_f4, "f8": _unpack_f8, "f2": _unpack_f2, "bf": _unpack_bf}[code]


@cache
def pack(code: str) -> Any:
    """``f(reals)``: the 16 bytes of 8, 4 or 2 numbers, each rounded to nearest even."""
    count = 16 // SIZE[code]
    cells = _cells[code][:count]

    def words(reals: Any) -> Any:
        if len(reals) != count:
            raise Fault(f"{len(reals)} numbers for the {count} of 16 bytes")
        cells[:] = [_rounded(value) for value in reals] if code == "bf" else reals
        return _cell16[0]

    return words


_SHIFTED = [np.frombuffer(_cell16.data, "V16", 1, shift) for shift in range(16)]


def funnel(a: Any, b: Any, shift: int) -> Any:
    """The 16 bytes from byte `shift`, 0 to 15, of the 32 bytes of `a` and `b`."""
    _cell16[0], _cell16[1] = a, b
    return _SHIFTED[shift][0]
