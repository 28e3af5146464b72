"""What a row whose classes lie side by side writes: its softmax or gradient, from logits or from exponentials kept."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

from .cpu_parts import Options, output_terms
from .jit import inline, splice
from .memory import first, load, load_part, load_two, store, store_part, stream
from .simd import Format, apart, full, ramp

BLOCK = 4096
KEPT = BLOCK + 64
"""Room for the exponentials of a row that is one block, to the end of a vector."""


def class_loaders(options: Options, transform: Any) -> Any:
    """Classes of a row: z, their soft target and their class weight, where there are any.

    Two vectors of them, or one, whole or in part.
    """
    X, Y, R = options.logits, options.soft or options.logits, options.real
    soft, weighted = options.target == "soft", options.weighted

    @splice
    def two(row: Any, k: Any, curve: Any) -> Any:
        p, q, v, _ = row
        a, b = load_two(X, X, p, k)
        z = transform(a, curve), transform(b, curve)
        return z, load_two(X, Y, q, k) if soft else z, load_two(X, R, v, k) if weighted else z

    @splice
    def whole(row: Any, k: Any, curve: Any) -> Any:
        p, q, v, _ = row
        z = transform(load(X, p, k), curve)
        return z, load(Y, q, k) if soft else z, load(R, v, k) if weighted else z

    @splice
    def part(row: Any, k: Any, mask: Any, curve: Any) -> Any:
        p, q, v, _ = row
        z = transform(load_part(X, p, k, mask), curve)
        return z, load_part(Y, q, k, mask) if soft else z, load_part(R, v, k, mask) if weighted else z

    return two, whole, part


def row_values(options: Options, device: SimpleNamespace) -> Any:
    """A vector of the output, whole or in part: from the logits, or from exponentials that were kept."""
    R, size, kept, capped = options.real, options.real.itemsize, options.kept, options.transform == "softcap"
    (_, load_whole, load_some), value, kept_value = (
        class_loaders(options, device.transform), device.value, device.kept_value,
    )  # fmt: skip

    @splice
    def made(row: Any, k: Any, loaded: Any, hot: Any, top: Any, factors: Any, curve: Any) -> Any:
        z, y, w = loaded
        if kept:
            z = load(R, row[3] + KEPT * size, k) if capped else z
            return kept_value(load(R, row[3], k), z, y, w, hot, factors, curve)
        return value(z, y, w, hot, top, factors, curve)

    @splice
    def whole(row: Any, k: Any, hot: Any, top: Any, factors: Any, curve: Any) -> Any:
        return made(row, k, load_whole(row, k, curve), hot, top, factors, curve)

    @splice
    def part(row: Any, k: Any, mask: Any, hot: Any, top: Any, factors: Any, curve: Any) -> Any:
        return made(row, k, load_some(row, k, mask, curve), hot, top, factors, curve)

    return whole, part


def row_writer(options: Options, device: SimpleNamespace) -> Any:
    """Write a row of the output; `factors` as `row_parts` describes them."""
    X, lanes, size, streamed = options.logits, options.logits.lanes, options.logits.itemsize, options.streamed
    width, (whole_value, part_value) = float(lanes), row_values(options, device)

    @inline
    def part(row: Any, out: Any, k: Any, n: Any, target: Any, top: Any, factors: Any, curve: Any) -> Any:
        mask = first(X, n)
        hot = ramp(X) == full(X, target - k)
        store_part(X, out, k, mask, part_value(row, k, mask, hot, top, factors, curve))

    @splice
    def whole(row: Any, out: Any, k: Any, gap: Any, top: Any, factors: Any, curve: Any) -> Any:
        g = whole_value(row, k, ramp(X) == gap, top, factors, curve)
        if streamed:
            stream(X, out, k, g)
        else:
            store(X, out, k, g)
        return gap - width

    @inline
    def write(row: Any, out: Any, classes: Any, target: Any, top: Any, factors: Any, curve: Any) -> Any:
        apart()
        k = 0
        if streamed:
            k = min(classes, (-out & (lanes * size - 1)) // size)
            part(row, out, 0, k, target, top, factors, curve)
        while k + 2 * lanes <= classes:
            pause = min(classes, k + BLOCK)
            gap = full(X, min(max(target - k, -1), BLOCK))  # small, so exact
            while k + 2 * lanes <= pause:
                gap = whole(row, out, k, gap, top, factors, curve)
                gap = whole(row, out, k + lanes, gap, top, factors, curve)
                k += 2 * lanes
        while k < classes:
            n = min(lanes, classes - k)
            part(row, out, k, n, target, top, factors, curve)
            k += n

    return write


def row_output(options: Options, device: SimpleNamespace) -> Any:
    """Write a row of the output, from the sums over its classes."""
    write, factors = row_writer(options, device), output_terms(options, device)

    @splice
    def output(row: Any, out: Any, classes: Any, target: Any, top: Any, d: Any, mass: Any, weight: Any, terms: Any,
               curve: Any) -> Any:  # fmt: skip
        write(row, out, classes, target, top, factors(mass, top, d, weight, classes, terms), curve)

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
