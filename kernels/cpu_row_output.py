"""What a row whose classes lie side by side writes: its softmax or gradient, from logits or from exponentials kept."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

from .cpu_parts import Options, output_terms
from .jit import apart, inline, splice
from .memory import LINE, first, load, load_part, prefetch_vector, store_part
from .pairs import load_two, ramp_two, store_two, stream_two
from .simd import Format, full, ramp

BLOCK = 4096
KEPT = BLOCK + 64
"""Room for the exponentials of a row that is one block, to the end of a vector."""


def class_loaders(options: Options, transform: Any, order: Format) -> Any:
    """Classes of a row: z, their soft target and their class weight, where there are any.

    Two vectors of them in the order that suits a format, or one in part.
    """
    X, Y, R = options.logits, options.soft or options.logits, options.real
    soft, weighted = options.target == "soft", options.weighted

    @splice
    def two(row: Any, k: Any, curve: Any) -> Any:
        p, q, v, _ = row
        a, b = load_two(order, X, p, k)
        z = transform(a, curve), transform(b, curve)
        return z, load_two(order, Y, q, k) if soft else z, load_two(order, R, v, k) if weighted else z

    @splice
    def part(row: Any, k: Any, mask: Any, curve: Any) -> Any:
        p, q, v, _ = row
        z = transform(load_part(X, p, k, mask), curve)
        return z, load_part(Y, q, k, mask) if soft else z, load_part(R, v, k, mask) if weighted else z

    return two, part


def row_values(options: Options, device: SimpleNamespace, order: Format) -> Any:
    """Two vectors of the output, or one in part: from the logits, or from exponentials that were kept."""
    R, size, kept, capped = options.real, options.real.itemsize, options.kept, options.transform == "softcap"
    load_pair, load_some = class_loaders(options, device.transform, order)
    value, kept_value = device.value, device.kept_value

    @splice
    def two(row: Any, k: Any, hot: Any, top: Any, factors: Any, curve: Any) -> Any:
        z, y, w = load_pair(row, k, curve)
        if kept:
            e, z = load_two(R, R, row[3], k), load_two(R, R, row[3] + KEPT * size, k) if capped else z
            g = kept_value(e[0], z[0], y[0], w[0], hot[0], factors, curve)
            return g, kept_value(e[1], z[1], y[1], w[1], hot[1], factors, curve)
        g = value(z[0], y[0], w[0], hot[0], top, factors, curve)
        return g, value(z[1], y[1], w[1], hot[1], top, factors, curve)

    @splice
    def part(row: Any, k: Any, mask: Any, hot: Any, top: Any, factors: Any, curve: Any) -> Any:
        z, y, w = load_some(row, k, mask, curve)
        if kept:
            z = load(R, row[3] + KEPT * size, k) if capped else z
            return kept_value(load(R, row[3], k), z, y, w, hot, factors, curve)
        return value(z, y, w, hot, top, factors, curve)

    return two, part


def row_writer(options: Options, device: SimpleNamespace) -> Any:
    """Write a row of the output; `factors` as `row_parts` describes them.

    While a long row is written, as much is asked for from `onward` on: memory does both in less time than one by one.
    """
    X, lanes, size, streamed = options.logits, options.logits.lanes, options.logits.itemsize, options.streamed
    kept, Both = options.kept, replace(X, lanes=2 * lanes)
    order = options.real if kept else X  # exponentials are kept in the order of their classes
    hard, both, (two_values, part_value) = options.target == "hard", 2 * lanes, row_values(options, device, order)

    @inline
    def part(row: Any, out: Any, k: Any, n: Any, target: Any, top: Any, factors: Any, curve: Any) -> Any:
        mask = first(X, n)
        hot = ramp(X) == full(X, target - k)
        store_part(X, out, k, mask, part_value(row, k, mask, hot, top, factors, curve))

    @splice
    def two(row: Any, onward: Any, out: Any, k: Any, hot: Any, top: Any, factors: Any, curve: Any) -> Any:
        if not kept:
            prefetch_vector(Both, onward + k * size)
        g, h = two_values(row, k, hot, top, factors, curve)
        if streamed:
            stream_two(order, X, out, k, g, h)
        else:
            store_two(order, X, out, k, g, h)

    @inline
    def write(row: Any, onward: Any, out: Any, classes: Any, target: Any, top: Any, factors: Any, curve: Any) -> Any:
        apart()
        k, none = 0, first(X, 0)
        if streamed:
            k = min(classes, (-out & (LINE - 1)) // size)
            for j in range(0, k, lanes):
                part(row, out, j, min(lanes, k - j), target, top, factors, curve)
        stop = classes
        if hard and target >= k:
            stop = k + (target - k) // both * both  # where the target is in the next two
        while k + both <= classes:
            while k + both <= stop:
                two(row, onward, out, k, (none, none), top, factors, curve)
                k += both
            if hard and k + both <= classes:
                (near, far), gap = ramp_two(order), full(X, target - k)
                two(row, onward, out, k, (near == gap, far == gap), top, factors, curve)
                k += both
            stop = classes
        while k < classes:
            n = min(lanes, classes - k)
            part(row, out, k, n, target, top, factors, curve)
            k += n

    return write


def row_output(options: Options, device: SimpleNamespace) -> Any:
    """Write a row of the output, from the sums over its classes."""
    write, factors = row_writer(options, device), output_terms(options, device)

    @splice
    def output(row: Any, onward: Any, out: Any, classes: Any, target: Any, top: Any, d: Any, mass: Any, weight: Any,
               terms: Any, curve: Any) -> Any:  # fmt: skip
        write(row, onward, out, classes, target, top, factors(mass, top, d, weight, classes, terms), curve)

    return output


@cache
def row_eraser(X: Format) -> Any:
    """Fill a row of the output with zeros."""
    lanes = X.lanes

    @inline
    def clear(out: Any, classes: Any) -> Any:
        k = 0
        while k < classes:
            store_part(X, out, k, first(X, classes - k), full(X, 0.0))
            k += lanes

    return clear
