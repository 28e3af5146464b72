"""Groups of neighbouring elements, which a CUDA thread reads, works on and writes as one; and sums over threads.

A group is a tuple of numbers in registers. Which thread has which elements follows from their numbers alone, so that
sums come to the same bits wherever the arrays begin: a group that cannot be read 16 bytes at a time is read singly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .cuda_machine import (
    WARP,
    held,
    hold,
    jit,
    load16,
    load16_kept,
    pack,
    peek,
    poke,
    real,
    select,
    shuffle_xor,
    store16,
    sync,
    thread,
    unpack,
    whole,
)  # fmt: skip

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


def listed(size: int, make: Callable[[int], Function], start: int = 0) -> Function:
    """``f(a)``: the tuple of ``make(k)(a)`` for each k; a loop over a tuple would move it out of the registers."""
    if size == 1:
        only = make(start)
        return jit(lambda a: (only(a),))
    left, right = listed(size // 2, make, start), listed(size - size // 2, make, start + size // 2)
    return jit(lambda a: left(a) + right(a))


def added(size: int, make: Callable[[int], Function], start: int = 0) -> Function:
    """``f(a)``: the sum of ``make(k)(a)``, in pairs; of tuples, all that they hold."""
    if size == 1:
        return make(start)
    left, right = added(size // 2, make, start), added(size - size // 2, make, start + size // 2)
    return jit(lambda a: left(a) + right(a))


def done(size: int, make: Callable[[int], Function], start: int = 0) -> Function:
    """``f(a)``: do ``make(k)(a)`` for each k."""
    if size == 1:
        return make(start)
    left, right = done(size // 2, make, start), done(size - size // 2, make, start + size // 2)

    @jit
    def both(a: Any) -> None:
        left(a)
        right(a)

    return both


def item(k: int) -> Function:
    """``f(a)``: a[k]."""
    return jit(lambda a: a[k])


def column(size: int, k: int) -> Function:
    """``f(rows)``: the k-th number of each of so many tuples."""
    return listed(size, lambda row: jit(lambda rows: rows[row][k]))


def constant(width: int) -> Function:
    """``f(value)``: a group of one value."""
    return listed(width, lambda _: jit(lambda value: value))


def picked(width: int) -> Function:
    """``f(group, i)``: its number i, found without memory."""
    if width == 1:
        return jit(lambda group, i: group[0])
    rest, last = picked(width - 1), width - 1
    return jit(lambda group, i: select(i == last, group[last], rest(group, i)))


def replaced(width: int) -> Function:
    """``f(group, i, value)``: the group with another number i."""
    each = listed(width, lambda k: jit(lambda a: select(a[1] == k, a[2], a[0][k])))
    return jit(lambda group, i, value: each((group, i, value)))


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
        return _singly(code, width, to)
    return _bytes(code, width, to) if code in BYTES else _words(code, lies, width, to)


def _singly(code: str, width: int, to: str) -> Function:
    load, cast = peek(code), real(to)
    each = listed(width, lambda k: jit(lambda place: cast(load(place[0] + k * place[1]))))
    return jit(lambda at, step, value: each((at, step)))


def _bytes(code: str, width: int, to: str) -> Function:
    """Groups of bytes: an integer that is taken apart."""
    load, cast, sign = peek(WORD[width]), real(to), 128 if code == "i1" else 0
    each = listed(width, lambda k: jit(lambda word: cast((((word >> (8 * k)) & 255) ^ sign) - sign)))
    return jit(lambda at, step, value: each(load(at)))


def _words(code: str, lies: str, width: int, to: str) -> Function:
    load, opened, cast = load16_kept if lies == "again" else load16, unpack(code), real(to)
    parts = added(width * SIZE[code] // 16, lambda k: jit(lambda at: opened(load(at + 16 * k))))
    if arithmetic(code) == to:
        return jit(lambda at, step, value: parts(at))
    each = listed(width, lambda k: jit(lambda numbers: cast(numbers[k])))
    return jit(lambda at, step, value: each(parts(at)))


# ---- writing ---------------------------------------------------------------------------------------------------------


def writer(code: str, lies: str, width: int) -> Function:
    """``f(at, step, numbers)``: write a group to an address, each number rounded once; nowhere if it lies "nowhere"."""
    if lies == "nowhere":
        return jit(lambda at, step, numbers: None)
    if lies == "apart":
        return _put_singly(code, width)
    return _put_bytes(width) if code in BYTES else _put_words(code, width)


def _put_singly(code: str, width: int) -> Function:
    store, cast = poke(code), real(arithmetic(code)) if code in FLOATS else whole

    def make(k: int) -> Function:
        @jit
        def put(place: Any) -> None:
            store(place[0] + k * place[1], cast(place[2][k]))

        return put

    each = done(width, make)
    return jit(lambda at, step, numbers: each((at, step, numbers)))


def _put_bytes(width: int) -> Function:
    """Small integers that are not negative, put together to one."""
    store = poke(WORD[width])
    together = added(width, lambda k: jit(lambda numbers: whole(numbers[k]) << (8 * k)))
    return jit(lambda at, step, numbers: store(at, together(numbers)))


def _put_words(code: str, width: int) -> Function:
    per, packed, cast = 16 // SIZE[code], pack(code), real(arithmetic(code))

    def make(k: int) -> Function:
        some = listed(per, lambda i: jit(lambda numbers: cast(numbers[i])), k * per)

        @jit
        def put(place: Any) -> None:
            store16(place[0] + 16 * k, packed(some(place[1])))

        return put

    each = done(width // per, make)
    return jit(lambda at, step, numbers: each((at, numbers)))


# ---- sums over threads -----------------------------------------------------------------------------------------------


def scratch(lanes: int) -> int:
    """The bytes of shared memory that a sum over so many threads needs."""
    return 8 * (lanes // WARP) if lanes > WARP else 0


def sum_over(lanes: int) -> Function:
    """``f(value)``: the sum over groups of so many threads, a power of 2; every thread of the block calls it.

    The tree is fixed. Groups larger than a warp are the whole block, and use its shared memory from the start on.
    """

    def make(k: int) -> Function:
        mask = 1 << k
        return jit(lambda value: value + shuffle_xor(value, mask))

    within = _chain([make(k) for k in range(min(lanes, WARP).bit_length() - 1)])
    if lanes <= WARP:
        return within
    load, store = held("f8"), hold("f8")
    across = added(lanes // WARP, lambda k: jit(lambda start: load(start + 8 * k)))

    @jit
    def over_block(value: Any) -> Any:
        value = within(value)
        if thread() & (WARP - 1) == 0:
            store(thread() // WARP * 8, value)
        sync()
        value = across(0)
        sync()
        return value

    return over_block


def _chain(functions: list[Function]) -> Function:
    if not functions:
        return jit(lambda value: value)
    first, rest = functions[0], _chain(functions[1:])
    return jit(lambda value: rest(first(value)))
