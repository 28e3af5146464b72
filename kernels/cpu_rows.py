"""CPU kernels for classes that lie side by side: a row at a time, vectors along the classes, one read of the row.

A row is cut into equal blocks that fit the first cache. While the exponentials of one block are added up, the same
loop looks for the maximum of the block that comes next, in this row or the next one. That brings the block into the
cache, and gives the reference of its exponentials: the row's maximum so far. So a block of -inf poisons nothing, and
the sum, whose greatest term is 1, has a logarithm that is never negative, and 0 where one class has all the mass.

Exponentials of float32 that are only added up need no maximum beforehand, only a reference near it, which is guessed.
So the loop reads one place of memory, not two, and waits less: `guessed_sums`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from .cpu_finish import SUMS, loss_tally, shelf, tile_format, tile_results
from .cpu_parts import Options, arguments, device_functions
from .cpu_row_classes import BLOCK, class_loaders, kept_columns, row_bender
from .cpu_row_output import row_eraser, row_output
from .cpu_row_scores import row_report
from .jit import apart, inline, kernel, splice
from .memory import fence, first, load, load_part, peek, peek_index, prefetch_to_write, prefetch_vector, store
from .packed import higher_peak, no_peak, peak_values
from .pairs import load_two, ramp_two, store_two
from .reductions import count, hmax, hsum, lane
from .simd import Format, following, full, full_wide, maximum, narrow, ramp, select, wide
from .tiles import hold

AHEAD = 8192  # bytes
REACH = 40.0
"""How far a block's maximum may lie above the reference of exponentials that are only added up."""
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


def block_vectors(options: Options, device: SimpleNamespace) -> Any:
    """A block's vectors: where the target is in some; the sums with the share of two; with that of one not whole.

    `onward` is an address such that class j there is the first whose maximum is looked for. A tie ranks before a target
    `gap` classes on if it comes before it: `limits` are the least logits that do, before and after the target. A mark
    is the lane of a scored target and each lane's limit. Exponentials that are kept for the output go to a row's last
    place.
    """
    X, Y, R, soft = options.logits, options.soft or options.logits, options.real, options.target == "soft"
    lanes, size, soft_size, line, pair = X.lanes, X.itemsize, Y.itemsize, device.line, device.pair
    kept, order, guessed = options.kept, R if options.bent else X, options.guessed
    scored, both, both_soft = options.result == "score", replace(X, lanes=2 * lanes), replace(Y, lanes=2 * lanes)
    (load_pair, load_some), add = class_loaders(options, device, order), vector_step(options, device)
    _, raise_peak, _ = peak_keeper(X, line, options.packed)
    ahead = 0 if guessed else AHEAD

    @splice
    def mark_of(numbers: Any, gap: Any, limits: Any) -> Any:
        if not scored:
            return first(X, 0), limits[0], False
        here = full(X, min(max(gap, -1), 2 * lanes))
        return numbers == here, select(numbers < here, limits[0], limits[1]), True

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

    return mark_of, two, part


def block_sums(options: Options, device: SimpleNamespace) -> Any:
    """Sums over a block of a row, relative to a reference, and the number of its classes that rank before the target.

    Also the maximum over as many classes `onward`.
    """
    X, R, lanes, scored = options.logits, options.real, options.logits.lanes, options.result == "score"
    (mark_of, two, part), fold, origin, term = block_vectors(options, device), device.fold, device.origin, device.term
    spared = scored and options.looked_up  # with fewer registers, another sum would cost more than an addition
    no_peak_yet, _, highest = peak_keeper(X, device.line, options.packed)
    binary, guessed, order = options.binary, options.guessed, R if options.bent else X

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
        total, unit = hsum(total), 1.0
        if binary:
            fraction, power = term(full(X, (max(highest(peak), ref) if guessed else ref) - start[0]), start[2])
            unit = wide(lane(fraction * power))
        real = total / unit, wide(hsum(shift)), wide(hsum(seen))
        scores = wide(hsum(energy)), hsum(others + wide(rest)), wide(hsum(square)), before
        return highest(peak), real, (hsum(mass), hsum(moment), hsum(negentropy)), scores

    return sums_of


def row_sums(options: Options, device: SimpleNamespace, maximum_of: Any) -> Any:
    """Sums over a whole row, relative to its maximum, and the block that first holds it.

    `peak` is the maximum of its first block; that of the first block at `following`, the next row, comes last.
    """
    R, size, hard = options.real, options.logits.itemsize, options.target == "hard"
    sums_of, rescale, bend = block_sums(options, device), device.rescale, device.bend
    of_block = row_bender(options, device)

    @splice
    def sums(row: Any, following: Any, classes: Any, span: Any, target: Any, z_target: Any, target_mass: Any, peak: Any,
             curve: Any) -> Any:  # fmt: skip
        top = narrow(R, -math.inf)
        total = shift = seen = energy = rest = square = mass = moment = negentropy = 0.0
        before = top_at = done = j = np.int64(0)  # a literal is a type of its own: all that takes one is compiled twice
        while j < classes:
            end, peak = min(j + span, classes), bend(peak, curve)
            if peak > top:
                if top != -math.inf:
                    so_far = total, shift, seen, mass, moment, energy, rest, square
                    total, shift, moment, energy, rest, square = rescale(wide(top) - wide(peak), j, so_far)
                top, top_at = peak, j
            base = narrow(R, 0.0) if top == -math.inf else top  # nothing but -inf so far: 0 lets a NaN show
            onward = following - j * size
            if end < classes:  # as many classes, to the end of the row at most
                onward = row[0] + (min(end, classes - (end - j)) - j) * size
            source = of_block(row, onward, j, end, True, curve)
            peak, block, exact, scores = sums_of(source, onward, j, end, base, target, z_target, curve)
            if hard and j <= target < end and target_mass != 0.0:  # as a one-hot target adds up, to the bit
                exact = target_mass, target_mass * (wide(z_target) - wide(base)), 0.0
            total, shift, seen = total + block[0], shift + block[1], seen + block[2]
            mass, moment, negentropy = mass + exact[0], moment + exact[1], negentropy + exact[2]
            energy, rest, square, before = energy + scores[0], rest + scores[1], square + scores[2], before + scores[3]
            done = end - j
            j = end
        if done < span:
            peak = maximum(maximum_of(following + done * size, span - done, curve), peak)
        return top, total, shift, (mass, moment, negentropy), (energy, rest, square), (before, top_at), peak

    return sums


def guessed_sums(options: Options, device: SimpleNamespace, maximum_of: Any) -> Any:
    """`row_sums` of exponentials that are only added up: `peak` is a guess, and nothing is known of the next row.

    What a row's first classes and the blocks before tell of a block's maximum is right to within `REACH`, or the block
    is read again. So the maximum is found by the same loop, of the same vectors.
    """
    R, size, hard = options.real, options.logits.itemsize, options.target == "hard"
    sums_of, rescale, bend = block_sums(options, device), device.rescale, device.bend
    of_block, reach = row_bender(options, device), options.real_type(REACH)
    guess = maximum_guess(options.logits, device.line)

    @splice
    def sums(row: Any, following: Any, classes: Any, span: Any, target: Any, z_target: Any, target_mass: Any, peak: Any,
             curve: Any) -> Any:  # fmt: skip
        top, coming = bend(peak, curve), peak
        total = mass = moment = negentropy = 0.0
        j = np.int64(0)
        while j < classes:
            end = min(j + span, classes)
            if top == -math.inf:
                top = bend(maximum_of(row[0] + j * size, end - j, curve), curve)
            base = narrow(R, 0.0) if top == -math.inf else top  # nothing but -inf so far: 0 lets a NaN show
            onward = row[0] + end * size
            if end == classes:
                onward, coming = following, guess(following, span, curve)
            onward += max(AHEAD - (end - j) * size, 0) - j * size
            source = of_block(row, onward, j, end, True, curve)
            while True:
                high, block, exact, _ = sums_of(source, onward, j, end, base, target, z_target, curve)
                if not high > base + reach:
                    break
                base = high
            if high > top != -math.inf:  # where nothing but -inf is, the loop knows no maximum
                if j > 0:
                    so_far = total, 0.0, 0.0, mass, moment, 0.0, 0.0, 0.0
                    total, _, moment, _, _, _ = rescale(wide(top) - wide(high), j, so_far)
                top = high
            block_mass, block_moment, block_negentropy = exact
            if hard and j <= target < end and target_mass != 0.0:  # as a one-hot target adds up, to the bit
                block_mass, block_moment = target_mass, target_mass * (wide(z_target) - wide(base))
            if block_mass != 0.0 and top > base:
                block_moment -= block_mass * (wide(top) - wide(base))
            total, mass = total + block[0], mass + block_mass
            moment, negentropy = moment + block_moment, negentropy + block_negentropy
            j = end
        return top, total, 0.0, (mass, moment, negentropy), (0.0, 0.0, 0.0), (np.int64(0), np.int64(0)), coming

    return sums


@cache
def block_length(lanes: int, most: int = BLOCK) -> Any:
    """The length of the equal blocks, of `most` classes, that a row is cut into; the last may be shorter."""

    @inline
    def length(classes: Any) -> Any:
        if classes <= most:
            return classes
        blocks = (classes + most - 1) // most
        each = (classes + blocks - 1) // blocks
        return (each + lanes - 1) // lanes * lanes

    return length


@inline
def place(number: Any, inner: Any, at: Any) -> Any:
    """Where a row begins in an array of (address, outer, class, inner stride)."""
    if inner == 1:
        return at[0] + number * at[1]
    o = number // inner
    return at[0] + o * at[1] + (number - o * inner) * at[3]


def make_rows(options: Options) -> Any:
    """The kernel over rows whose classes lie side by side, for these options."""
    device, R, W = device_functions(options), options.real, tile_format(options.real)
    unpack, clear, lanes, guessed = arguments(R), row_eraser(options.logits), W.lanes, options.guessed
    length = block_length(R.lanes, AHEAD // options.logits.itemsize if guessed else BLOCK)
    maximum_of, aim = block_maximum(options.logits, device.line), row_target(options, device)
    sums = (guessed_sums if guessed else row_sums)(options, device, maximum_of)
    look = maximum_guess(options.logits, device.line) if guessed else maximum_of
    write = row_output(options, device)
    report, (put_aside, mask_out, take_back) = row_report(options, device), shelf(W)
    expect, results = tile_results(options, device, Format(R.code, W.lanes, R.code))
    hard, output, result, streamed = options.target == "hard", options.output != "", options.result, options.streamed
    size = options.logits.itemsize
    columns = kept_columns(options)
    add_up = loss_tally(R, hard)

    @kernel(options)
    def rows(call: Any, lo: Any, hi: Any) -> Any:
        (inner, classes), (at_x, at_y, at_out), given, places, curve, terms, batch = unpack(call)
        room, held, span, peak, ready = hold(W, SUMS), hold(R, columns), length(classes), narrow(R, math.nan), -1
        for number in range(lo, hi):
            row = place(number, inner, at_x), place(number, inner, at_y), given[0], held
            written, lane = place(number, inner, at_out), (number - lo) & (lanes - 1)
            if streamed:  # a line that the next row shares is read before it is written, and stores would wait for it
                prefetch_to_write(written + classes * size)
            if lane == 0:
                expect(number + lanes, at_y[0], places)
            weight, masked, target, z_target, mass = aim(row, number, at_y[0], classes, given, curve)
            if target == classes:
                return number
            if result == "loss" and masked:
                mask_out(room, lane)
                if output:
                    clear(written, classes)
            else:
                if ready != number:
                    peak = look(row[0], span, curve)
                ready = number + 1
                onward = place(ready, inner, at_x) if ready < hi else row[0]
                top, d, shift, exact, scores, found, peak = sums(
                    row, onward, classes, span, target, z_target, mass, peak, curve
                )
                seen = report(row, number, classes, places[2], (top, d, target, z_target), found, curve)
                put_aside(room, lane, (seen, d, 0.0 if masked else weight), shift, exact, scores)
                if output:
                    write(row, onward, written, classes, target, top, d, exact[0], weight, terms, curve)
            if result != "" and (lane == lanes - 1 or number == hi - 1):
                results(first(W, lane + 1), number - lane, classes, places, take_back(room), terms)
        if result == "loss":
            add_up(batch, lo, hi)
        if streamed:
            fence()
        return -1

    return rows


def row_target(options: Options, device: SimpleNamespace) -> Any:
    """A row's weight, and whether it is masked; its class, whose logit, and whose weight.

    The class is -1 where there is none, or it is masked, and `classes` where it is out of range.
    """
    X, R, transform, hard = options.logits, options.real, device.transform, options.target == "hard"
    size, real_size = X.itemsize, R.itemsize

    @splice
    def aim(row: Any, number: Any, targets: Any, classes: Any, given: Any, curve: Any) -> Any:
        _, sample_weight, ignore_index = given
        weight = wide(peek(R, sample_weight + real_size * number)) if sample_weight else 1.0
        masked, target, z, mass = weight == 0.0, -1, narrow(R, math.nan), 0.0
        if hard:
            index = peek_index(targets + 8 * number) if targets else ignore_index
            masked = masked or index == ignore_index
            if not masked:
                target = classes
                if 0 <= index < classes:
                    target, z = index, transform(peek(X, row[0] + size * index), curve)
                    mass = wide(peek(R, row[2] + real_size * index)) if row[2] else 1.0
        return weight, masked, target, z, mass

    return aim
