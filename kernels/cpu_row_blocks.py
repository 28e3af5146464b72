"""A block of classes of a row, as the CPU's row kernels go through it: its sums, and a maximum that comes with them."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

from .cpu_parts import Options
from .cpu_row_classes import class_loaders
from .jit import apart, inline, splice
from .memory import first, load, load_part, store
from .packed import higher_peak, no_peak, peak_values
from .pairs import load_two, ramp_two, store_two
from .prefetch import prefetch_vector
from .reductions import count, hmax, hsum, lane
from .simd import Format, following, full, full_wide, maximum, narrow, ramp, select, wide

AHEAD = 8192  # bytes
STRETCH = 256
"""Classes whose exponentials are added up in the arithmetic type."""


@cache
def block_maximum(X: Format, line: Any) -> Any:
    """The maximum of scale·x over so many classes, NaN passed over; -inf for none."""
    lanes = X.lanes

    @inline
    def maximum_of(p: Any, classes: Any, curve: Any) -> Any:
        apart()
        a = b = full(X, -math.inf)
        k = 0
        while k + 2 * lanes <= classes:
            a = maximum(line(load(X, p, k), curve), a)
            b = maximum(line(load(X, p, k + lanes), curve), b)
            k += 2 * lanes
        while k < classes:
            mask = first(X, classes - k)
            a = maximum(select(mask, line(load_part(X, p, k, mask), curve), -math.inf), a)
            k += lanes
        return hmax(maximum(a, b))

    return maximum_of


def vector_step(options: Options, device: SimpleNamespace) -> Any:
    """Add one vector's classes to the sums, and count what ranks before the target."""
    scored, step = options.result == "score", device.step

    @splice
    def add(z: Any, y: Any, w: Any, valid: Any, mark: Any, frame: Any, state: Any) -> Any:
        (sums, before), (hot, limit, aimed) = state, mark
        if scored:
            before += count(valid & (z >= limit))
        e, sums = step(z, valid, hot, aimed, frame, y, w, sums)
        return e, (sums, before)

    return add


@cache
def maximum_guess(X: Format, line: Any) -> Any:
    """What stands for a `block_maximum` that need not be exact: that of a vector at the start and one in the middle."""

    @inline
    def guess(p: Any, classes: Any, curve: Any) -> Any:
        lowest = full(X, -math.inf)
        return hmax(maximum(line(load(X, p, 0), curve), maximum(line(load(X, p, classes // 2), curve), lowest)))

    return guess


@cache
def peak_keeper(X: Format, line: Any, as_bits: bool) -> Any:
    """The maximum of scale·x so far: none yet, raised by two vectors of classes, and read off.

    A vector of it, and, `as_bits`, another of elements as they lie.
    """

    @splice
    def none() -> Any:
        return full(X, -math.inf), no_peak(X) if as_bits else 0

    @splice
    def higher(p: Any, k: Any, so_far: Any, curve: Any) -> Any:
        peak, packed = so_far
        if as_bits:
            return peak, higher_peak(X, p, k, packed)
        near, far = load_two(X, X, p, k)
        return maximum(line(far, curve), maximum(line(near, curve), peak)), packed

    @splice
    def highest(so_far: Any) -> Any:
        peak, packed = so_far
        if as_bits:
            near, far = peak_values(X, packed)
            peak = maximum(near, maximum(far, peak))
        return hmax(peak)

    return none, higher, highest


def target_mark(options: Options) -> Any:
    """Where a scored target is in a vector: its lane, and each lane's limit.

    A tie ranks before a target `gap` classes on if it comes before it: `limits` are the least logits that do, before
    and after the target.
    """
    X, lanes, scored = options.logits, options.logits.lanes, options.result == "score"

    @splice
    def mark_of(numbers: Any, gap: Any, limits: Any) -> Any:
        if not scored:
            return first(X, 0), limits[0], False
        here = full(X, min(max(gap, -1), 2 * lanes))
        return numbers == here, select(numbers < here, limits[0], limits[1]), True

    return mark_of


def block_vectors(options: Options, device: SimpleNamespace) -> Any:
    """A block's vectors: the sums, and the maximum, with the share of two; with that of one not whole.

    `onward` is an address such that class j there is the first that comes next: the one whose maximum is looked for,
    or, where the block's own is, the one asked for. Exponentials that are kept for the output go to a row's last place.
    """
    X, Y, R, soft = options.logits, options.soft or options.logits, options.real, options.target == "soft"
    lanes, size, soft_size, line, pair = X.lanes, X.itemsize, Y.itemsize, device.line, device.pair
    kept, order, guessed = options.kept, R if options.bent else X, options.guessed
    both, both_soft, mark_of = replace(X, lanes=2 * lanes), replace(Y, lanes=2 * lanes), target_mark(options)
    (load_pair, load_some), add = class_loaders(options, device, order), vector_step(options, device)
    _, raise_peak, _ = peak_keeper(X, line, options.packed)
    ahead = 0 if guessed else AHEAD

    @splice
    def two(row: Any, onward: Any, k: Any, marks: Any, frame: Any, state: Any, curve: Any) -> Any:
        prefetch_vector(both, onward + k * size + ahead)
        if soft:
            prefetch_vector(both_soft, row[1] + k * soft_size + 2 * AHEAD)
        (z, y, w), every, (sums, peak, before) = load_pair(row, k, curve), first(X, lanes), state
        if guessed:
            least = frame[2]  # no less than it is what is added up
            peak = maximum(maximum(least, z[1]), maximum(maximum(least, z[0]), peak[0])), peak[1]
        else:
            peak = raise_peak(onward, k, peak, curve)
        e, state = add(z[0], y[0], w[0], every, marks[0], frame, (sums, before))
        f, (sums, before) = add(z[1], y[1], w[1], every, marks[1], frame, state)
        if kept:
            store_two(order, R, row[3], k, e, f)
        return pair(sums), peak, before

    @inline
    def part(row: Any, onward: Any, k: Any, n: Any, gap: Any, limits: Any, frame: Any, state: Any, curve: Any) -> Any:
        mask = first(X, n)
        z, y, w = load_some(row, k, mask, curve)
        z = select(mask, z, -math.inf)
        new = z if guessed else select(mask, line(load_part(X, onward, k, mask), curve), -math.inf)
        (sums, (peak, packed), before), marks = state, mark_of(ramp(X), gap, limits)
        e, (sums, before) = add(z, y, w, mask, marks, frame, (sums, before))
        if kept:
            store(R, row[3], k, e)
        return sums, (maximum(new, peak), packed), before

    return two, part


def reference_term(options: Options, device: SimpleNamespace) -> Any:
    """The term of a reference, or of a higher maximum than was guessed, in sums that start from an `origin`."""
    X, term, binary, guessed = options.logits, device.term, options.binary, options.guessed

    @splice
    def unit(peak: Any, ref: Any, start: Any) -> Any:
        if not binary:
            return 1.0
        if guessed:
            ref = max(peak, ref)
        fraction, power = term(full(X, ref - start[0]), start[2])
        return wide(lane(fraction * power))

    return unit


def block_sums(options: Options, device: SimpleNamespace) -> Any:
    """Sums over a block of a row, relative to a reference, and the number of its classes that rank before the target.

    Also the maximum over as many classes `onward`; or, where the reference was guessed, the block's own, to which the
    total is relative if it is the higher one.
    """
    X, R, lanes, scored = options.logits, options.real, options.logits.lanes, options.result == "score"
    (two, part), fold, origin = block_vectors(options, device), device.fold, device.origin
    mark_of, unit = target_mark(options), reference_term(options, device)
    spared = scored and options.wide  # with fewer registers, another sum would cost more than an addition
    no_peak_yet, _, highest = peak_keeper(X, device.line, options.packed)
    binary, order = options.binary, R if options.bent else X

    @inline
    def sums_of(row: Any, onward: Any, j: Any, end: Any, ref: Any, target: Any, z_target: Any, curve: Any) -> Any:
        apart()
        zero, zeros, none = full(X, 0.0), full_wide(X, 0.0), first(X, 0)
        limits, numbers = (full(X, z_target), full(X, following(X, z_target))), ramp_two(order)
        sums = (full(X, -0.0), zero, zeros, zero, zero, zeros, zeros, zeros, zero, zero, zero)
        start = origin(ref)
        frame = near = (ref,) + start  # noqa: RUF005
        state, k, paired, others = (sums, no_peak_yet(), 0), j, end, zeros
        if binary:  # two vectors are lowered by nothing
            near = ref, narrow(R, 0.0), start[1], start[2]
            if start[0] != 0.0:
                paired = j
        while k + 2 * lanes <= paired:
            pause, away = min(paired, k + STRETCH), (none, limits[0] if k <= target else limits[1], not spared)
            if scored and k <= target < pause:
                while k + 2 * lanes <= pause:
                    marks = mark_of(numbers[0], target - k, limits), mark_of(numbers[1], target - k, limits)
                    state = two(row, onward, k, marks, near, state, curve)
                    k += 2 * lanes
            if k + 2 * lanes <= pause:
                while k + 2 * lanes <= pause:
                    state = two(row, onward, k, (away, away), near, state, curve)
                    k += 2 * lanes
                if spared:
                    others = others + wide(state[0][1])
            state = fold(state[0]), state[1], state[2]
        while k < end:
            state = part(row, onward, k, end - k, target - k, limits, frame, state, curve)
            k += lanes
        sums, peak, before = state
        _, _, total, shift, seen, mass, moment, negentropy, energy, rest, square = fold(sums)
        real = hsum(total) / unit(highest(peak), ref, start), wide(hsum(shift)), wide(hsum(seen))
        scores = wide(hsum(energy)), hsum(others + wide(rest)), wide(hsum(square)), before
        return highest(peak), real, (hsum(mass), hsum(moment), hsum(negentropy)), scores

    return sums_of
