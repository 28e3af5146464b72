"""What CUDA kernels build from the leaves of a machine: trees over the elements of a tuple, and sums over threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .cuda_machine import WARP, fmax, held, hold, jit, load16, peek, shuffle_xor, sync, thread, unpack

LOWEST = -3.4028234663852886e38
"""The least float32: where a maximum starts, so that a row of -inf has a finite reference."""
SIZES = {"bf": 2, "f2": 2, "f4": 4, "f8": 8}
SLOT = 8 * WARP
"""Bytes of shared memory for one number a warp."""


def tree(make: Callable[[int], Any], combine: Any, n: int, at: int = 0) -> Any:
    """A function of (v, a) that combines make(0)(v, a) … make(n-1)(v, a) by halves; it compiles to straight code."""
    if n == 1:
        return make(at)
    low, high = tree(make, combine, n // 2, at), tree(make, combine, n - n // 2, at + n // 2)

    @jit
    def both(v: Any, a: Any) -> Any:
        return combine(low(v, a), high(v, a))

    return both


@jit
def plus(a: Any, b: Any) -> Any:
    """a + b: of numbers their sum, of tuples one after the other."""
    return a + b


def each(make: Callable[[int], Any], n: int) -> Any:
    """A function of (v, a) that gives the tuple (make(0)(v, a), …, make(n-1)(v, a))."""

    def single(k: int) -> Any:
        one = make(k)
        return jit(lambda v, a: (one(v, a),))

    return tree(single, plus, n)


def elements(code: str, n: int, kept: bool = False) -> Any:
    """A function of an address that loads n elements from there: by 16 bytes where it is aligned, else one by one."""
    size = SIZES[code]
    one, wide, whole = peek(code), unpack(code), n * size // 16
    apart = each(lambda k: jit(lambda at, a: one(at + k * size)), n)
    words = each(lambda k: jit(lambda at, a: load16(at + 16 * k)), max(whole, 1))
    spread = tree(lambda k: jit(lambda w, a: wide(w[k])), plus, max(whole, 1))

    @jit
    def load(at: Any) -> Any:
        if at & 15 == 0 and n * size == 16 * whole:
            return spread(words(at, 0), 0)
        return apart(at, 0)

    return load


def over_lanes(combine: Any, lanes: int) -> Any:
    """Combine a number over groups of so many neighbouring threads of a warp; every thread gets the result."""
    masks = [1 << k for k in range(lanes.bit_length() - 1)][::-1]
    if not masks:
        return jit(lambda v: v)
    first, rest = masks[0], over_lanes(combine, lanes // 2)

    @jit
    def step(v: Any) -> Any:
        return rest(combine(v, shuffle_xor(v, first)))

    return step


def over_group(combine: Any, group: int, code: str, slot: int) -> Any:
    """Combine a number over the threads of a row, which are some lanes of a warp or the whole block.

    In a fixed order, so always to the same bits. `slot` is where in shared memory the warps of a block meet; nobody
    may write there again before the next barrier.
    """
    lanes = over_lanes(combine, min(group, WARP))
    if group <= WARP:
        return lanes
    write, read, base, among = hold(code), held(code), slot * SLOT, over_lanes(combine, group // WARP)

    @jit
    def block(v: Any) -> Any:
        v = lanes(v)
        t = thread()
        if t & (WARP - 1) == 0:
            write(base + 8 * (t // WARP), v)
        sync()
        return among(read(base + 8 * (t & (group // WARP - 1))))

    return block


@jit
def greater(a: Any, b: Any) -> Any:
    """The maximum, NaN passed over."""
    return fmax(a, b)


def slots_bytes(slots: int) -> int:
    """The bytes of so many slots, a multiple of 16."""
    return slots * SLOT
