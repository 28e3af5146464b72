"""What CUDA kernels build from the leaves of a machine: loads of several elements, and sums over threads."""

from __future__ import annotations

from typing import Any

from .cuda_machine import (
    WARP,
    each,
    fmax,
    fold,
    held,
    hold,
    jit,
    load16,
    peek,
    shuffle_xor,
    sync,
    table,
    thread,
    unpack,
)  # fmt: skip

LOWEST = -3.4028234663852886e38
"""The least float32: where a maximum starts, so that a row of -inf has a finite reference."""
SIZES = {"bf": 2, "f2": 2, "f4": 4, "f8": 8}
SLOT = 8 * WARP
"""Bytes of shared memory for one number a warp."""


@jit
def plus(a: Any, b: Any) -> Any:
    """a + b: of numbers their sum, of tuples one after the other."""
    return a + b


@jit
def greater(a: Any, b: Any) -> Any:
    """The maximum, NaN passed over."""
    return fmax(a, b)


def elements(code: str, n: int, convert: Any) -> Any:
    """A function of an address that loads n elements: by 16 bytes where it is aligned so, else one by one."""
    size = SIZES[code]
    one, spread, whole = peek(code), unpack(code), max(n * size // 16, 1)
    aligned = n * size == 16 * whole

    @jit
    def single(k: Any, at: Any) -> Any:
        return convert(one(at + k * size))

    @jit
    def same(items: Any, k: Any, a: Any) -> Any:
        return convert(items[0])

    converted = each(same)

    @jit
    def several(k: Any, at: Any) -> Any:
        return converted((spread(load16(at + 16 * k)),), 0)

    apart, words, together = table(single, n), table(several, whole), fold(plus)

    @jit
    def load(at: Any) -> Any:
        if aligned:
            return together(words(at)) if at & 15 == 0 else apart(at)
        return apart(at)

    return load


def over_lanes(combine: Any, lanes: int) -> Any:
    """Combine a number over groups of so many threads of a warp, neighbours first; every thread gets the result."""
    if lanes == 1:
        return jit(lambda v: v)
    half, pairs = lanes // 2, over_lanes(combine, lanes // 2)

    @jit
    def step(v: Any) -> Any:
        v = pairs(v)
        return combine(v, shuffle_xor(v, half))

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
