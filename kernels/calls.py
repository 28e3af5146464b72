"""A call's arguments: packed once by the backend, unpacked by the kernel, which takes one address and a range."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic

from .simd import ELEMENT, I64

CALL = types.int64, types.int64, types.int64
"""What a kernel is called with: the address of its arguments and a range. Numba need not look at them every time."""

Run = Callable[[int, int], int]
Array = np.ndarray[Any, Any]


_HEAD = object.__basicsize__
"""NumPy's C interface: the pointer to an array's data comes right after the head that every object has."""
_BYTES = bytes.__basicsize__ - 1
"""Python's: bytes begin where their object would end if it held none but the closing zero."""
_pointer_at = ctypes.c_void_p.from_address


def address(array: Array | None) -> int:
    """Where an array begins; 0 for none. Read as C reads it: the array interface takes five times as long."""
    return 0 if array is None else _pointer_at(id(array) + _HEAD).value or 0


def pack(integers: Sequence[str], reals: Sequence[str], values: dict[str, Any]) -> bytes:
    """Pack a call's arguments in the order its kernel unpacks them."""
    numbers = [values.get(name, 0) for name in (*integers, *reals)]
    return struct.pack(f"{len(integers)}q{len(reals)}d", *numbers)


def bound(kernel: Any, call: bytes, *kept: Any) -> Run:
    """A kernel with its packed call, which it only reads, and the arrays it points into kept alive."""
    at = id(call) + _BYTES

    def run(lo: int, hi: int, _kept: Any = (call, kept)) -> int:
        return kernel(at, lo, hi)

    return run


def _unpack(code: str) -> Any:
    """An intrinsic that reads `size` numbers from a packed call, as a tuple."""
    element, scalar = ELEMENT[code]

    @intrinsic(prefer_literal=True)
    def unpack(_typingctx: Any, call: Any, offset: Any, size: Any) -> Any:
        kind = types.UniTuple(scalar, size.literal_value)

        def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
            base = builder.gep(builder.inttoptr(args[0], element.as_pointer()), [args[1]])
            fields = [builder.load(builder.gep(base, [I64(k)])) for k in range(size.literal_value)]
            return cgutils.pack_array(builder, fields)

        return kind(types.int64, types.int64, size), codegen

    return unpack


integers, reals = _unpack("i8"), _unpack("f8")
