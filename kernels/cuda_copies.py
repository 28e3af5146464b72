"""CUDA kernels that copy arrays on the card: between any strides and any dtypes, and zeros."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cuda_compile import Kernel
from .cuda_groups import FLOATS, SIZE, arithmetic, reader, writer
from .cuda_machine import block, blocks, jit, load16, pack, peek, poke, real, select, store16, thread, whole

THREADS, AXES = 256, 8
INTEGERS = 3 + 3 * AXES


@dataclass(frozen=True)
class CopyOptions:
    """What a copy is specialised for."""

    source: str  # element codes; "" for zeros
    target: str
    axes: int = 1
    width: int = 1  # elements that are copied at once: both lie side by side on multiples of 16 bytes


def converted(source: str, target: str) -> Callable[..., Any]:
    """``f(value)``: what is read of one element as what is written of another; a float's integral part."""
    if target in FLOATS:
        return real(arithmetic(target))
    if source not in FLOATS:
        return jit(lambda value: value)
    return jit(lambda value: select(value != 0, 1, 0)) if target == "b1" else whole


def _places(axes: int) -> Callable[..., Any]:
    """``f(e, at, to, shape, across, along)``: where element e lies in the source and in the target."""
    last = axes - 1
    if not last:
        return jit(lambda e, at, to, shape, across, along: (at + e * across[0], to + e * along[0]))
    before = _places(last)

    @jit
    def places(e: Any, at: Any, to: Any, shape: Any, across: Any, along: Any) -> Any:
        rest = e // shape[last]
        i = e - rest * shape[last]
        return before(rest, at + i * across[last], to + i * along[last], shape, across, along)

    return places


def _group(options: CopyOptions) -> Callable[..., Any]:
    """``f(at, to)``: copy a group of elements."""
    source, target, width = options.source, options.target, options.width
    if source == target:
        return jit(lambda at, to: store16(to, load16(at)))
    if not source:
        zero, packed = np.float32(0), pack("f4")
        return jit(lambda at, to: store16(to, packed((zero, zero, zero, zero))))
    read, write = reader(source, "together", width, arithmetic(target)), writer(target, "together", width)
    return jit(lambda at, to: write(to, 0, read(at, 0, 0)))


def _one(options: CopyOptions) -> Callable[..., Any]:
    """``f(at, to)``: copy one element."""
    load, store = peek(options.source or "u1"), poke(options.target)
    convert = converted(options.source, options.target)
    if options.source:
        return jit(lambda at, to: store(to, convert(load(at))))
    return jit(lambda at, to: store(to, convert(0)))


def make_copy(options: CopyOptions) -> Kernel:
    """The kernel that copies for these options: 8 axes are given, of which it uses the first."""
    one, group, places = _one(options), _group(options) if options.width > 1 else None, _places(options.axes)
    width, source_size, size = options.width, SIZE.get(options.source, 0), SIZE[options.target]

    @jit
    def groups(count: Any, at: Any, to: Any) -> Any:
        k = block() * THREADS + thread()
        while (k + 1) * width <= count:
            group(at + k * width * source_size, to + k * width * size)
            k += blocks() * THREADS
        return count // width * width

    def copy(count: Any, at: Any, to: Any, n0: Any, n1: Any, n2: Any, n3: Any, n4: Any, n5: Any, n6: Any, n7: Any,
             s0: Any, s1: Any, s2: Any, s3: Any, s4: Any, s5: Any, s6: Any, s7: Any,
             t0: Any, t1: Any, t2: Any, t3: Any, t4: Any, t5: Any, t6: Any, t7: Any) -> None:  # fmt: skip
        shape, across = (n0, n1, n2, n3, n4, n5, n6, n7), (s0, s1, s2, s3, s4, s5, s6, s7)
        along = t0, t1, t2, t3, t4, t5, t6, t7
        e = block() * THREADS + thread()
        if width > 1:
            e += groups(count, at, to)
        while e < count:
            source, target = places(e, at, to, shape, across, along)
            one(source, target)
            e += blocks() * THREADS

    return Kernel(copy, ("copy", options), INTEGERS, 0, THREADS)
