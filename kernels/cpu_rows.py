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
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from .cpu_finish import SUMS, loss_tally, shelf, tile_format, tile_results
from .cpu_parts import Options, arguments, device_functions
from .cpu_row_blocks import AHEAD, block_maximum, block_sums, maximum_guess
from .cpu_row_classes import BLOCK, kept_columns, references, row_bender
from .cpu_row_output import row_eraser, row_output
from .cpu_row_scores import row_report
from .jit import inline, kernel, splice
from .memory import fence, first, peek, peek_index
from .prefetch import prefetch_to_write
from .simd import Format, maximum, narrow, wide
from .tiles import hold

REACH = 40.0
"""How far a block's maximum may lie above the reference of exponentials that are only added up."""


def target_share(options: Options) -> Any:
    """What a block's target adds up to, for a hard one if it is `here`: as a one-hot target does, to the bit."""
    hard = options.target == "hard"

    @splice
    def share(exact: Any, here: Any, mass: Any, z_target: Any, base: Any) -> Any:
        if hard and here and mass != 0.0:
            exact = mass, mass * (wide(z_target) - wide(base)), 0.0
        return exact

    return share


def row_sums(options: Options, device: SimpleNamespace) -> Any:
    """The length of a row's blocks; the maximum of one; sums over a row, and the block that first holds its maximum.

    They are relative to it. `peak` is the maximum of the first block; that of the first block at `following`, the next
    row, comes last.
    """
    R, size, maximum_of = options.real, options.logits.itemsize, block_maximum(options.logits, device.line)
    sums_of, rescale, bend = block_sums(options, device), device.rescale, device.bend
    of_block, share, (keep, _) = row_bender(options, device), target_share(options), references(options, device)

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
            keep(row, j, span, top)
            onward = following - j * size
            if end < classes:  # as many classes, to the end of the row at most
                onward = row[0] + (min(end, classes - (end - j)) - j) * size
            source = of_block(row, onward, j, end, False, curve)
            peak, block, exact, scores = sums_of(source, onward, j, end, base, target, z_target, curve)
            exact = share(exact, j <= target < end, target_mass, z_target, base)
            total, shift, seen = total + block[0], shift + block[1], seen + block[2]
            mass, moment, negentropy = mass + exact[0], moment + exact[1], negentropy + exact[2]
            energy, rest, square, before = energy + scores[0], rest + scores[1], square + scores[2], before + scores[3]
            done = end - j
            j = end
        if done < span:
            peak = maximum(maximum_of(following + done * size, span - done, curve), peak)
        return top, total, shift, (mass, moment, negentropy), (energy, rest, square), (before, top_at), peak

    return block_length(R.lanes, BLOCK), maximum_of, sums


def guessed_sums(options: Options, device: SimpleNamespace) -> Any:
    """As `row_sums`, of exponentials that are only added up: a guess stands for the maximum of a row's first block.

    What a row's first classes and the blocks before tell of a block's maximum is right to within `REACH`, or the block
    is read again. So the maximum is found by the same loop, of the same vectors.
    """
    X, R, size, reach = options.logits, options.real, options.logits.itemsize, options.real_type(REACH)
    sums_of, rescale, bend = block_sums(options, device), device.rescale, device.bend
    of_block, share = row_bender(options, device), target_share(options)
    maximum_of, guess = block_maximum(X, device.line), maximum_guess(X, device.line)

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
            source = of_block(row, onward, j, end, False, curve)
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
            exact = share(exact, j <= target < end, target_mass, z_target, base)
            if top > base:
                exact = exact[0], exact[1] - exact[0] * (wide(top) - wide(base)), exact[2]
            total = total + block[0]
            mass, moment, negentropy = mass + exact[0], moment + exact[1], negentropy + exact[2]
            j = end
        return top, total, 0.0, (mass, moment, negentropy), (0.0, 0.0, 0.0), (np.int64(0), np.int64(0)), coming

    return block_length(R.lanes, AHEAD // size), guess, sums


@cache
def block_length(lanes: int, most: int) -> Any:
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
    unpack, clear, lanes = arguments(R), row_eraser(options.logits), W.lanes
    length, look, sums = (guessed_sums if options.guessed else row_sums)(options, device)
    aim, write = row_target(options, device), row_output(options, device)
    report, (put_aside, mask_out, take_back) = row_report(options, device), shelf(W)
    expect, results = tile_results(options, device, Format(R.code, W.lanes, R.code))
    output, result, streamed, size = options.output != "", options.result, options.streamed, options.logits.itemsize
    columns, add_up = kept_columns(options), loss_tally(R, options.target == "hard")

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
                    write(row, onward, written, classes, span, target, top, d, exact[0], weight, terms, curve)
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
