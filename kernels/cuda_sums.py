"""CUDA kernels that reduce a batch: the sum of its losses, the sum of its weights, and a look at the weights.

Sums are in float64 and in an order that the number of elements decides: some blocks each add up a share, and one block
adds up their sums. Where one block suffices it does both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .cuda_compile import Kernel
from .cuda_groups import SIZE
from .cuda_machine import absolute, atomic_least, block, blocks, jit, maximum, minimum, peek, poke, real, select, thread
from .cuda_machine import wide as widened
from .cuda_ops import over_group, plus

THREADS, MOST, SHARE, RESIDENT = 256, 1024, 16, 1024
"""Threads of a block; blocks, and so sums of blocks; elements that a thread should have before there are more; threads
of a multiprocessor, for which there are registers."""
LARGEST = 3.4028234663852886e38
"""The largest float32."""


@dataclass(frozen=True)
class SumOptions:
    """What a sum is specialised for."""

    code: str  # of the values, or of the weights
    target: str = ""  # the code of hard targets that have a weight each
    of_class: bool = False  # it is that of the target's class
    of_sample: bool = False
    finish: str = ""  # what becomes of the sum: "f4" or "f8", a quotient; "weight", itself and its reciprocal


def blocks_for(count: int) -> int:
    """How many blocks add up so many elements."""
    return min(max(-(-count // (THREADS * SHARE)), 1), MOST)


def _finish(options: SumOptions) -> Callable[..., Any]:
    """``f(sum, out, divisor_at, divisor)``: write what a sum comes to; of a share, to the place of its block."""
    exact, load = poke("f8"), peek("f8")

    @jit
    def share(total: Any, out: Any, divisor_at: Any, divisor: Any) -> None:
        exact(out + 8 * block(), total)

    @jit
    def weight(total: Any, out: Any, divisor_at: Any, divisor: Any) -> None:
        total = total * divisor
        exact(out, total)
        exact(out + 8, select(total == 0.0, 0.0, 1.0 / total))

    if options.finish in ("", "weight"):
        return weight if options.finish else share
    store, cast, narrow = poke(options.finish), real(options.finish), options.finish == "f4"

    @jit
    def quotient(total: Any, out: Any, divisor_at: Any, divisor: Any) -> None:
        if divisor_at != 0:
            divisor = load(divisor_at)
        value = select(divisor == 0.0, math.nan, total / divisor)
        if narrow and absolute(value) > LARGEST:
            value = select(value > 0.0, math.inf, -math.inf)
        store(out, cast(value))

    return quotient


def _over_block(options: SumOptions) -> Callable[..., Any]:
    """``f(total, out, divisor_at, divisor)``: add up the threads' sums, and finish."""
    summed, finish = over_group(plus, THREADS, "f8", 0), _finish(options)

    @jit
    def end(total: Any, out: Any, divisor_at: Any, divisor: Any) -> None:
        total = summed(total)
        if thread() == 0:
            finish(total, out, divisor_at, divisor)

    return end


def make_total(options: SumOptions) -> Kernel:
    """``f(count, values, out, divisor_at, divisor)``: the sum of values that lie side by side."""
    load, size, end = peek(options.code), SIZE[options.code], _over_block(options)

    def total(count: Any, values: Any, out: Any, divisor_at: Any, divisor: Any) -> None:
        value, e = 0.0, block() * THREADS + thread()
        while e < count:
            value += widened(load(values + size * e))
            e += blocks() * THREADS
        end(value, out, divisor_at, divisor)

    return Kernel(total, ("total", options), 4, 1, THREADS)


def make_weights(options: SumOptions) -> Kernel:
    """The sum of the weights of what is not ignored: of the target's class, of the sample, their product, or 1."""
    weights, targets = peek(options.code), peek(options.target) if options.target else None
    size, target_size, end = SIZE[options.code], SIZE.get(options.target, 0), _over_block(options)
    hard, of_class, of_sample = options.target != "", options.of_class, options.of_sample

    @jit
    def weight(e: Any, target: Any, ignore_index: Any, classes: Any, class_weight: Any, sample: Any) -> Any:
        value = 1.0
        if hard:
            y = targets(target + target_size * e)
            if y == ignore_index:
                return 0.0
            if of_class:  # a target out of range is found by the kernel of the loss
                value = widened(weights(class_weight + size * maximum(minimum(y, classes - 1), 0)))
        if of_sample:
            at, across, along, columns = sample
            r = e // columns
            value = value * widened(weights(at + r * across + (e - r * columns) * along))
        return value

    def weigh(count: Any, target: Any, ignore_index: Any, classes: Any, class_weight: Any, sample_weight: Any,
              across: Any, along: Any, columns: Any, out: Any, factor: Any) -> None:  # fmt: skip
        total, e = 0.0, block() * THREADS + thread()
        sample = sample_weight, across, along, columns
        while e < count:
            total += weight(e, target, ignore_index, classes, class_weight, sample)
            e += blocks() * THREADS
        end(total, out, 0, factor)

    return Kernel(weigh, ("weigh", options), 10, 1, THREADS, RESIDENT)


def make_check(code: str) -> Kernel:
    """``f(count, columns, weights, across, along, slot)``: report the least weight that is not finite or below 0."""
    load = peek(code)

    def check(count: Any, columns: Any, weights: Any, across: Any, along: Any, slot: Any) -> None:
        e = block() * THREADS + thread()
        while e < count:
            r = e // columns
            value = widened(load(weights + r * across + (e - r * columns) * along))
            if not 0.0 <= value < math.inf:
                atomic_least(slot, e)
            e += blocks() * THREADS

    return Kernel(check, ("check", code), 6, 0, THREADS)
