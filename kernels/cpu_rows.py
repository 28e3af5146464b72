"""CPU kernels for classes that lie side by side: a row at a time, vectors along the classes, one read of the row.

A row is cut into equal blocks that fit the first cache. While the exponentials of one block are added up, the same
loop looks for the maximum of the block that comes next, in this row or the next one. That brings the block into the
cache, and gives the reference of its exponentials: the row's maximum so far. So a block of -inf poisons nothing, and
the sum, whose greatest term is 1, has a logarithm that is never negative, and 0 where one class has all the mass.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np

from .calls import integers, reals
from .cpu_parts import INTEGERS, REALS, Options, device_functions
from .cpu_row_scores import class_finder, row_results
from .jit import inline, kernel, splice
from .memory import (
    fence,
    first,
    load,
    load_part,
    peek,
    peek_index,
    poke,
    prefetch,
    store,
    store_part,
    stream,
)  # fmt: skip
from .reductions import count, hmax, hsum
from .simd import apart, following, full, full_wide, maximum, narrow, ramp, select, wide

BLOCK = 2048
AHEAD = 4096  # bytes
STRETCH = 16
"""Vectors whose exponentials are added up in the arithmetic type."""


def block_maximum(options: Options, line: Any) -> Any:
    """The maximum of scale·x over so many classes, NaN passed over; -inf for none."""
    X, lanes = options.logits, options.logits.lanes

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
    """Add one vector's classes to the sums, count what ranks before the target, and look at a vector ahead."""
    X, scored, step = options.logits, options.result == "score", device.step
    lanes = float(X.lanes)

    @splice
    def add(z: Any, y: Any, w: Any, ahead: Any, valid: Any, ref: Any, limits: Any, state: Any) -> Any:
        sums, peak, before, gap = state
        hot = first(X, 0)
        if scored:
            hot = ramp(X) == gap
            before += count(valid & (z >= select(ramp(X) < gap, limits[0], limits[1])))
            gap = gap - lanes
        return step(z, valid, hot, ref, y, w, sums), maximum(ahead, peak), before, gap

    return add


def block_sums(options: Options, device: SimpleNamespace) -> Any:
    """Sums over a block of a row, relative to a reference, and the number of its classes that rank before the target.

    Also the maximum over as many classes at `onward`, an address such that class j there is the first.
    """
    X, Y, R = options.logits, options.soft or options.logits, options.real
    lanes, size, soft_size = X.lanes, X.itemsize, Y.itemsize
    soft, weighted = options.target == "soft", options.weighted
    add, pair, fold = vector_step(options, device), device.pair, device.fold
    transform, line = device.transform, device.line

    @splice
    def whole(row: Any, onward: Any, k: Any, ref: Any, limits: Any, state: Any, curve: Any) -> Any:
        p, q, v = row
        prefetch(onward + k * size + AHEAD)
        z, ahead = transform(load(X, p, k), curve), line(load(X, onward, k), curve)
        if soft:
            prefetch(q + k * soft_size + 2 * AHEAD)
        y = load(Y, q, k) if soft else z
        w = load(R, v, k) if weighted else z
        return add(z, y, w, ahead, first(X, lanes), ref, limits, state)

    @inline
    def part(row: Any, onward: Any, k: Any, n: Any, ref: Any, limits: Any, state: Any, curve: Any) -> Any:
        p, q, v = row
        mask = first(X, n)
        z = select(mask, transform(load_part(X, p, k, mask), curve), -math.inf)
        ahead = select(mask, line(load_part(X, onward, k, mask), curve), -math.inf)
        y = load_part(Y, q, k, mask) if soft else z
        w = load_part(R, v, k, mask) if weighted else z
        return add(z, y, w, ahead, mask, ref, limits, state)

    @inline
    def sums_of(row: Any, onward: Any, j: Any, end: Any, ref: Any, target: Any, z_target: Any, curve: Any) -> Any:
        apart()
        zero, zeros, least = full(X, 0.0), full_wide(X, 0.0), full(X, -math.inf)
        limits = full(X, z_target), full(X, following(X, z_target))  # ties rank before the target if they come before
        sums = (full(X, -0.0), zero, zeros, zero, zero, zeros, zeros, zeros, zero, zero, zero)
        state, k = (sums, least, 0, full(X, min(max(target - j, -1), BLOCK))), j
        while k + 2 * lanes <= end:
            pause = min(end, k + STRETCH * lanes)
            while k + 2 * lanes <= pause:
                state = whole(row, onward, k, ref, limits, state, curve)
                state = whole(row, onward, k + lanes, ref, limits, state, curve)
                state = pair(state[0]), state[1], state[2], state[3]
                k += 2 * lanes
            state = fold(state[0]), state[1], state[2], state[3]
        while k < end:
            state = part(row, onward, k, end - k, ref, limits, state, curve)
            k += lanes
        sums, peak, before, _ = state
        _, _, total, shift, seen, mass, moment, negentropy, energy, rest, square = fold(sums)
        real = hsum(total), wide(hsum(shift)), wide(hsum(seen))
        scores = wide(hsum(energy)), wide(hsum(rest)), wide(hsum(square)), before
        return hmax(peak), real, (hsum(mass), hsum(moment), hsum(negentropy)), scores

    return sums_of


def row_sums(options: Options, device: SimpleNamespace, maximum_of: Any) -> Any:
    """Sums over a whole row, relative to its maximum, and the block that first holds it.

    `peak` is the maximum of its first block; that of the first block at `following`, the next row, comes last.
    """
    R, X = options.real, options.logits
    smoothed, weighted, scored = options.smoothed, options.weighted, options.result == "score"
    sums_of, exp, bend = block_sums(options, device), device.exp, device.bend
    hard, size = options.target == "hard", X.itemsize

    @splice
    def sums(row: Any, following: Any, classes: Any, span: Any, target: Any, z_target: Any, target_mass: Any, peak: Any,
             curve: Any) -> Any:  # fmt: skip
        top = narrow(R, -math.inf)
        total = shift = seen = energy = rest = square = mass = moment = negentropy = 0.0
        before = top_at = done = np.int64(0)  # a literal is a type of its own: all that takes one is compiled twice
        for j in range(0, classes, span):
            end, peak = min(j + span, classes), bend(peak, curve)
            if peak > top:
                if top != -math.inf:
                    fall = wide(top) - wide(peak)
                    factor = wide(exp(narrow(R, fall)))
                    if scored:
                        energy = factor * (energy + fall * total) if factor > 0.0 else 0.0
                        rest, square = factor * rest, factor * factor * square
                    if smoothed:
                        shift += fall * (seen if weighted else j)
                    if mass != 0.0:
                        moment += fall * mass
                    total *= factor
                top, top_at = peak, j
            base = narrow(R, 0.0) if top == -math.inf else top  # nothing but -inf so far: 0 lets a NaN show
            onward = following - j * size
            if end < classes:  # as many classes, to the end of the row at most
                onward = row[0] + (min(end, classes - (end - j)) - j) * size
            peak, block, exact, scores = sums_of(row, onward, j, end, base, target, z_target, curve)
            if hard and j <= target < end and target_mass != 0.0:  # as a one-hot target adds up, to the bit
                exact = target_mass, target_mass * (wide(z_target) - wide(base)), 0.0
            total, shift, seen = total + block[0], shift + block[1], seen + block[2]
            mass, moment, negentropy = mass + exact[0], moment + exact[1], negentropy + exact[2]
            energy, rest, square, before = energy + scores[0], rest + scores[1], square + scores[2], before + scores[3]
            done = end - j
        if done < span:
            peak = maximum(maximum_of(following + done * size, span - done, curve), peak)
        return top, total, shift, (mass, moment, negentropy), (energy, rest, square, before, top_at), peak

    return sums


def row_writer(options: Options, device: SimpleNamespace) -> Any:
    """Write a row of the output; `factors` as `cpu_parts` describes them."""
    X, Y, R = options.logits, options.soft or options.logits, options.real
    lanes, size, streamed, width = X.lanes, X.itemsize, options.streamed, float(X.lanes)
    soft, weighted = options.target == "soft", options.weighted
    transform, value = device.transform, device.value

    @inline
    def part(row: Any, out: Any, k: Any, n: Any, target: Any, top: Any, factors: Any, curve: Any) -> Any:
        p, q, v = row
        mask = first(X, n)
        z = transform(load_part(X, p, k, mask), curve)
        y = load_part(Y, q, k, mask) if soft else z
        w = load_part(R, v, k, mask) if weighted else z
        hot = ramp(X) == full(X, target - k)
        store_part(X, out, k, mask, value(z, y, w, hot, top, factors, curve))

    @splice
    def whole(row: Any, out: Any, k: Any, gap: Any, top: Any, factors: Any, curve: Any) -> Any:
        p, q, v = row
        z = transform(load(X, p, k), curve)
        y = load(Y, q, k) if soft else z
        w = load(R, v, k) if weighted else z
        g = value(z, y, w, ramp(X) == gap, top, factors, curve)
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


def row_eraser(options: Options) -> Any:
    """Fill a row of the output with zeros."""
    X, lanes = options.logits, options.logits.lanes

    @splice
    def clear(out: Any, classes: Any) -> Any:
        k = 0
        while k < classes:
            store_part(X, out, k, first(X, classes - k), full(X, 0.0))
            k += lanes

    return clear


def block_length(options: Options) -> Any:
    """The length of the equal blocks that a row is cut into; the last may be shorter."""
    lanes = options.logits.lanes

    @splice
    def length(classes: Any) -> Any:
        if classes <= BLOCK:
            return classes
        blocks = (classes + BLOCK - 1) // BLOCK
        each = (classes + blocks - 1) // blocks
        return (each + lanes - 1) // lanes * lanes

    return length


@inline
def place(number: Any, inner: Any, outer_step: Any, inner_step: Any) -> Any:
    """Where a row begins, from the start of its array."""
    if inner == 1:
        return number * outer_step
    o = number // inner
    return o * outer_step + (number - o * inner) * inner_step


def make_rows(options: Options) -> Any:
    """The kernel over rows whose classes lie side by side, for these options."""
    device, length = device_functions(options), block_length(options)
    R, size, maximum_of = options.real, options.real.itemsize, block_maximum(options, device.line)
    sums, write = row_sums(options, device, maximum_of), row_writer(options, device)
    results = row_results(options, device)
    find_nan = class_finder(options, device.transform, splice(lambda z, wanted: z != z))
    aim = hard_target(options, device)
    log, loss_of, factors_of, normalizer_of = device.log, device.loss, device.factors, device.log_normalizer
    hard, output, result, streamed = options.target == "hard", options.output != "", options.result, options.streamed
    clear, n_integers, n_reals = row_eraser(options), len(INTEGERS), len(REALS)

    @kernel(options)
    def rows(call: Any, lo: Any, hi: Any) -> Any:
        (inner, classes, x_outer, _, x_inner, y_outer, _, y_inner, out_outer, _, out_inner,
         x, targets, out, class_weight, sample_weight, ignore_index, loss, normalizer, prediction, confidence,
         entropy, rank, brier) = integers(call, 0, n_integers)  # fmt: skip
        smoothing, z_loss, scale, cap, grad_scale, weights = reals(call, n_integers, n_reals)
        curve = narrow(R, scale), narrow(R, cap), narrow(R, 1.0 / cap)
        terms = smoothing, z_loss, weights, grad_scale
        span, peak, ready = length(classes), narrow(R, math.nan), -1
        for number in range(lo, hi):
            soft_target = targets + place(number, inner, y_outer, y_inner)
            row = x + place(number, inner, x_outer, x_inner), soft_target, class_weight
            written = out + place(number, inner, out_outer, out_inner)
            weight = wide(peek(R, sample_weight + size * number)) if sample_weight else 1.0
            target, z_target, mass = -1, narrow(R, math.nan), 0.0
            if hard and targets:
                target, z_target, mass = aim(row, targets + 8 * number, classes, ignore_index, weight, curve)
                if target == classes:
                    return number
            if result == "loss" and (weight == 0.0 or (hard and target < 0)):
                poke(R, loss + size * number, 0.0)
                if output:
                    clear(written, classes)
                continue
            if ready != number:
                peak = maximum_of(row[0], span, curve)
            ready = number + 1
            following = x + place(ready, inner, x_outer, x_inner) if ready < hi else row[0]
            top, d, shift, exact, scores, peak = sums(
                row, following, classes, span, target, z_target, mass, peak, curve
            )
            logd, lead = log(d), wide(top)
            if loss:
                value = loss_of(exact, shift, lead, logd, weight, classes, terms)
                poke(R, loss + size * number, value if target >= 0 or not hard else 0.0)
            nan = -1
            if result != "loss" and d != d:
                nan = find_nan(row[0], 0, classes, top, curve)
            if result != "loss" and normalizer:
                poke(R, normalizer + size * number, d if nan >= 0 else normalizer_of(lead, logd))
            if result == "score":
                at = prediction, confidence, entropy, rank, brier
                results(row, number, classes, at, (top, d, logd, target, z_target, nan), scores, curve)
            if output:
                gain, hit, uniform = factors_of(exact[0], lead, d, logd, weight, classes, terms)
                factors = narrow(R, gain), narrow(R, hit), narrow(R, uniform)
                write(row, written, classes, target, top, factors, curve)
        if streamed:
            fence()
        return -1

    return rows


def hard_target(options: Options, device: SimpleNamespace) -> Any:
    """A row's class (-1 where it is masked, `classes` where out of range), its logit and weight."""
    X, R, transform = options.logits, options.real, device.transform
    size, real_size = X.itemsize, R.itemsize

    @splice
    def aim(row: Any, at: Any, classes: Any, ignore_index: Any, weight: Any, curve: Any) -> Any:
        target = peek_index(at)
        if target == ignore_index or weight == 0.0:
            return -1, narrow(R, math.nan), 0.0
        if target < 0 or target >= classes:
            return classes, narrow(R, math.nan), 0.0
        z = transform(peek(X, row[0] + size * target), curve)
        mass = wide(peek(R, row[2] + real_size * target)) if row[2] else 1.0
        return target, z, mass

    return aim
