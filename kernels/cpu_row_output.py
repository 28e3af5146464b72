"""What a row whose classes lie side by side writes: its softmax or gradient, from logits or from exponentials kept."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

from .cpu_parts import Options, output_terms
from .cpu_row_classes import class_loaders, references, row_bender
from .jit import apart, inline, splice
from .memory import LINE, first, load, store_part
from .pairs import load_two, ramp_two, store_two, stream_two
from .prefetch import prefetch_vector
from .simd import Format, full, ramp


def row_values(options: Options, device: SimpleNamespace, order: Format) -> Any:
    """Two vectors of the output, or one in part: from the logits, or from exponentials that were kept."""
    R, kept, (load_pair, load_some) = options.real, options.kept, class_loaders(options, device, order)
    value, kept_value = device.value, device.kept_value

    @splice
    def two(row: Any, k: Any, hot: Any, top: Any, factors: Any, curve: Any) -> Any:
        z, y, w = load_pair(row, k, curve)
        if kept:
            e = load_two(R, R, row[3], k)
            g = kept_value(e[0], z[0], y[0], w[0], hot[0], factors, curve)
            return g, kept_value(e[1], z[1], y[1], w[1], hot[1], factors, curve)
        g = value(z[0], y[0], w[0], hot[0], top, factors, curve)
        return g, value(z[1], y[1], w[1], hot[1], top, factors, curve)

    @splice
    def part(row: Any, k: Any, mask: Any, hot: Any, top: Any, factors: Any, curve: Any) -> Any:
        z, y, w = load_some(row, k, mask, curve)
        if kept:
            return kept_value(load(R, row[3], k), z, y, w, hot, factors, curve)
        return value(z, y, w, hot, top, factors, curve)

    return two, part


def row_stores(options: Options, device: SimpleNamespace, order: Format) -> Any:
    """Write two vectors of the output, past the caches if it is streamed, or one in part.

    While a long row is written, as much is asked for from `onward` on: memory does both in less time than one by one.
    """
    X, kept, streamed = options.logits, options.kept, options.streamed
    size, both, (two_values, part_value) = X.itemsize, replace(X, lanes=2 * X.lanes), row_values(options, device, order)

    @splice
    def two(row: Any, onward: Any, out: Any, k: Any, hot: Any, top: Any, factors: Any, curve: Any) -> Any:
        if not kept:
            prefetch_vector(both, onward + k * size)
        g, h = two_values(row, k, hot, top, factors, curve)
        if streamed:
            stream_two(order, X, out, k, g, h)
        else:
            store_two(order, X, out, k, g, h)

    @inline
    def part(row: Any, out: Any, k: Any, n: Any, target: Any, top: Any, factors: Any, curve: Any) -> Any:
        mask = first(X, n)
        hot = ramp(X) == full(X, target - k)
        store_part(X, out, k, mask, part_value(row, k, mask, hot, top, factors, curve))

    return two, part


def row_writer(options: Options, device: SimpleNamespace) -> Any:
    """Write classes [j, end) of a row of the output; `factors` as `row_parts` describes them."""
    X, lanes, size, streamed = options.logits, options.logits.lanes, options.logits.itemsize, options.streamed
    order = options.real if options.kept or options.bent else X  # what was stored lies in the order of its classes
    hard, both, (two, part) = options.target == "hard", 2 * lanes, row_stores(options, device, order)

    @inline
    def write(row: Any, onward: Any, out: Any, j: Any, end: Any, target: Any, top: Any, factors: Any,
              curve: Any) -> Any:  # fmt: skip
        apart()
        k, none = j, first(X, 0)
        if streamed:
            whole = min(end, j + (-(out + j * size) & (LINE - 1)) // size)
            while k < whole:
                part(row, out, k, min(lanes, whole - k), target, top, factors, curve)
                k += lanes
            k = whole
        stop = end
        if hard and k <= target < end:
            stop = k + (target - k) // both * both  # where the target is in the next two
        while k + both <= end:
            while k + both <= stop:
                two(row, onward, out, k, (none, none), top, factors, curve)
                k += both
            if hard and k + both <= end:
                (near, far), gap = ramp_two(order), full(X, target - k)
                two(row, onward, out, k, (near == gap, far == gap), top, factors, curve)
                k += both
            stop = end
        while k < end:
            n = min(lanes, end - k)
            part(row, out, k, n, target, top, factors, curve)
            k += n

    return write


def row_output(options: Options, device: SimpleNamespace) -> Any:
    """Write a row of the output, from the sums over its classes: in their blocks, if they kept anything of them."""
    write, factors, of_block = row_writer(options, device), output_terms(options, device), row_bender(options, device)
    in_blocks, (_, fall) = options.bent or options.kept, references(options, device)

    @splice
    def output(row: Any, onward: Any, out: Any, classes: Any, span: Any, target: Any, top: Any, d: Any, mass: Any,
               weight: Any, terms: Any, curve: Any) -> Any:  # fmt: skip
        (gain, hit, uniform), j = factors(mass, top, d, weight, classes, terms), 0
        while j < classes:
            end = min(j + span, classes) if in_blocks else classes
            source = of_block(row, onward, j, end, True, curve)
            of_classes = gain * fall(row, j, span, top), hit, uniform
            write(source, onward, out, j, end, target, top, of_classes, curve)
            j = end

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
