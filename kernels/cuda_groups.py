"""Groups of neighbouring elements, which a CUDA thread reads, works on and writes as one; and sums over threads.

A group is a tuple of numbers in registers. Which thread has which elements follows from their numbers alone, so that
sums come to the same bits wherever the arrays begin: a group that cannot be read 16 bytes at a time is read singly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .cuda_machine import (
    each,
    fold,
    jit,
    load16,
    load16_kept,
    pack,
    peek,
    poke,
    real,
    select,
    store16,
    table,
    unpack,
    whole,
)

Function = Callable[..., Any]

SIZE = {"bf": 2, "b1": 1, **{f"{kind}{size}": size for kind in "fiu" for size in (1, 2, 4, 8)}}
"""Bytes of an element."""
FLOATS, BYTES = ("bf", "f2", "f4", "f8"), ("b1", "i1", "u1")
WORD = {1: "u1", 2: "u2", 4: "u4", 8: "i8"}
"""The integer of so many bytes."""


def arithmetic(code: str) -> str:
    """The arithmetic type of elements."""
    return "f8" if code == "f8" else "f4"


# ---- tuples ----------------------------------------------------------------------------------------------------------

together = fold(jit(lambda a, b: a + b))
"""``f(numbers)``: their sum, in pairs."""


def constant(width: int) -> Function:
    """``f(value)``: a group of one value."""
    return table(jit(lambda k, value: value), width)


def column(j: int) -> Function:
    """``f(rows)``: the j-th number of each of some tuples."""
    only = each(jit(lambda row, k, a: row[0][j]))
    return jit(lambda rows: only((rows,), 0))


def picked(width: int) -> Function:
    """``f(group, i)``: its number i, found without memory."""
    if width == 1:
        return jit(lambda group, i: group[0])
    rest, last = picked(width - 1), width - 1
    return jit(lambda group, i: select(i == last, group[last], rest(group, i)))


replaced = each(jit(lambda old, k, a: select(a[0] == k, a[1], old[0])))
"""``f((group,), (i, value))``: the group with another number i."""


# ---- reading ---------------------------------------------------------------------------------------------------------


def alignment(code: str, width: int) -> int:
    """Of how many bytes a group's address must be a multiple for it to be read or written at once; 0: it never is."""
    if width > 1 and code in BYTES:
        return width
    return 16 if code in FLOATS and width * SIZE[code] % 16 == 0 else 0


def reader(code: str, lies: str, width: int, to: str) -> Function:
    """``f(at, step, value)``: the group of elements at an address, in the arithmetic type `to`.

    Elements lie "together" or "again" (and their bytes will be wanted again), to be read at once; "apart", by a step;
    or are all the "same", a value that is given.
    """
    if lies == "same":
        same = constant(width)
        return jit(lambda at, step, value: same(value))
    if lies == "apart":
        load, cast = peek(code), real(to)
        singly = table(jit(lambda k, place: cast(load(place[0] + k * place[1]))), width)
        return jit(lambda at, step, value: singly((at, step)))
    return _bytes(code, width, to) if code in BYTES else _words(code, lies, width, to)


def _bytes(code: str, width: int, to: str) -> Function:
    """Groups of bytes: an integer that is taken apart."""
    load, cast, sign = peek(WORD[width]), real(to), 128 if code == "i1" else 0
    numbers = table(jit(lambda k, word: cast((((word >> (8 * k)) & 255) ^ sign) - sign)), width)
    return jit(lambda at, step, value: numbers(load(at)))


def _words(code: str, lies: str, width: int, to: str) -> Function:
    load, opened, cast = load16_kept if lies == "again" else load16, unpack(code), real(to)
    converted = each(jit(lambda number, k, a: cast(number[0])))

    def make(count: int) -> Function:
        if count == 1:
            return jit(lambda at: opened(load(at)))
        first, rest = make(1), make(count - 1)
        return jit(lambda at: first(at) + rest(at + 16))

    words = make(width * SIZE[code] // 16)
    if arithmetic(code) == to:
        return jit(lambda at, step, value: words(at))
    return jit(lambda at, step, value: converted((words(at),), 0))


# ---- writing ---------------------------------------------------------------------------------------------------------


def writer(code: str, lies: str, width: int) -> Function:
    """``f(at, step, numbers)``: write a group to an address, each number rounded once; nowhere if it lies "nowhere"."""
    if lies == "nowhere":
        return jit(lambda at, step, numbers: None)
    if lies == "apart":
        return _put_singly(code)
    return _put_bytes(width) if code in BYTES else _put_words(code, width)


def _put_singly(code: str) -> Function:
    store, cast = poke(code), real(arithmetic(code)) if code in FLOATS else whole

    @jit
    def put(number: Any, k: Any, place: Any) -> Any:
        store(place[0] + k * place[1], cast(number[0]))
        return k

    all_of_them = each(put)

    @jit
    def write(at: Any, step: Any, numbers: Any) -> None:
        all_of_them((numbers,), (at, step))

    return write


def _put_bytes(width: int) -> Function:
    """Small integers that are not negative, put together to one."""
    store = poke(WORD[width])
    moved = each(jit(lambda number, k, a: whole(number[0]) << (8 * k)))
    return jit(lambda at, step, numbers: store(at, together(moved((numbers,), 0))))


def _put_words(code: str, width: int) -> Function:
    per, packed, cast = 16 // SIZE[code], pack(code), real(arithmetic(code))

    def make(start: int) -> Function:
        stop, rest = start + per, make(start + per) if start + per < width else None
        converted = each(jit(lambda number, k, a: cast(number[0])))

        @jit
        def put(at: Any, numbers: Any) -> None:
            store16(at, packed(converted((numbers[start:stop],), 0)))
            if rest is not None:
                rest(at + 16, numbers)

        return put

    write = make(0)
    return jit(lambda at, step, numbers: write(at, numbers))
