"""CPU kernels for classes that lie side by side: a row at a time, vectors along the classes, one read of the row.

Exponentials are taken relative to a reference near the maximum: that of the row's first block, raised (and the block
done again, from the cache) when a later block's maximum passes it by more than `SLACK`. So no pass over memory looks
for the maximum, and a block of -inf poisons nothing. The true maximum is tracked beside, and the sum is divided by its
term at the end: log d is never negative, and exactly 0 where one class has all the mass.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from .calls import integers, reals
from .cpu_parts import INTEGERS, REALS, SLACK, Options, device_functions
from .jit import inline, kernel, splice
from .memory import (
    fence,
    first,
    load,
    load_part,
    peek,
    peek_index,
    poke,
    poke_index,
    prefetch,
    store,
    store_part,
    stream,
)  # fmt: skip
from .reductions import count, hmax, hsum, lowest
from .simd import apart, following, full, full_wide, maximum, narrow, ramp, select, wide

BLOCK = 2048
AHEAD = 8192  # bytes
STRETCH = 16
"""Vectors whose exponentials are added up in the arithmetic type."""


def block_maximum(options: Options, transform: Any) -> Any:
    """The maximum over part of a row, NaN passed over; -inf for nothing."""
    X, lanes = options.logits, options.logits.lanes

    @inline
    def maximum_of(p: Any, j: Any, end: Any, curve: Any) -> Any:
        apart()
        a = full(X, -math.inf)
        b = c = d = a
        k = j
        while k + 4 * lanes <= end:  # four chains hide the latency of the maximum
            a = maximum(transform(load(X, p, k), curve), a)
            b = maximum(transform(load(X, p, k + lanes), curve), b)
            c = maximum(transform(load(X, p, k + 2 * lanes), curve), c)
            d = maximum(transform(load(X, p, k + 3 * lanes), curve), d)
            k += 4 * lanes
        while k + lanes <= end:
            b = maximum(transform(load(X, p, k), curve), b)
            k += lanes
        if k < end:
            mask = first(X, end - k)
            a = maximum(select(mask, transform(load_part(X, p, k, mask), curve), -math.inf), a)
        return hmax(maximum(maximum(a, b), maximum(c, d)))

    return maximum_of


def whole_vectors(options: Options, device: SimpleNamespace) -> Any:
    """Add the whole vectors from `k` to `stop` to the sums, and to `before` the classes that reach `limit`."""
    X, Y, R = options.logits, options.soft or options.logits, options.real
    lanes, size, soft_size = X.lanes, X.itemsize, Y.itemsize
    soft, weighted, scored = options.target == "soft", options.weighted, options.result == "score"
    step, fold, transform, span = device.step, device.fold, device.transform, STRETCH * lanes

    @inline
    def whole(row: Any, k: Any, stop: Any, ref: Any, limit: Any, sums: Any, before: Any, curve: Any) -> Any:
        p, q, v = row
        y = w = full(X, 0.0)
        every, none = first(X, lanes), first(X, 0)
        while k + lanes <= stop:
            pause = min(stop, (k // span + 1) * span)
            while k + lanes <= pause:
                prefetch(p + k * size + AHEAD)
                z = transform(load(X, p, k), curve)
                if soft:
                    prefetch(q + k * soft_size + AHEAD)
                    y = load(Y, q, k)
                if weighted:
                    w = load(R, v, k)
                if scored:
                    before += count(z >= limit)
                sums = step(z, every, none, ref, y, w, sums)
                k += lanes
            if k % span == 0:  # at the same places with a target and without: to the same bits
                sums = fold(sums)
        return k, sums, before

    return whole


def partial_vector(options: Options, device: SimpleNamespace) -> Any:
    """Add `n` classes from `k` on to the sums, the target perhaps among them."""
    X, Y, R = options.logits, options.soft or options.logits, options.real
    soft, weighted, scored = options.target == "soft", options.weighted, options.result == "score"
    step, transform = device.step, device.transform

    @inline
    def part(row: Any, k: Any, n: Any, ref: Any, target: Any, limits: Any, sums: Any, before: Any, curve: Any) -> Any:
        p, q, v = row
        mask = first(X, n)
        z = select(mask, transform(load_part(X, p, k, mask), curve), -math.inf)
        y = load_part(Y, q, k, mask) if soft else z
        w = load_part(R, v, k, mask) if weighted else z
        place, at = ramp(X), full(X, target - k)
        if scored:
            before += count(mask & (z >= select(place < at, limits[0], limits[1])))
        return step(z, mask, place == at, ref, y, w, sums), before

    return part


def block_sums(options: Options, device: SimpleNamespace) -> Any:
    """Sums over part of a row, relative to a reference, and the number of its classes that rank before the target."""
    X, lanes, scored, fold = options.logits, options.logits.lanes, options.result == "score", device.fold
    whole, part = whole_vectors(options, device), partial_vector(options, device)

    @inline
    def sums_of(row: Any, j: Any, end: Any, ref: Any, target: Any, z_target: Any, curve: Any) -> Any:
        apart()
        zero, zeros = full(X, 0.0), full_wide(X, 0.0)
        sums = (zero, zeros, full(X, -math.inf), zero, zero, zeros, zeros, zeros, zero, zero, zero)
        k, before = j, 0
        limits = tied, above = full(X, z_target), full(X, following(X, z_target))  # ties count before the target only
        if scored and j <= target < end:
            k, sums, before = whole(row, k, target - target % lanes, ref, tied, sums, before, curve)
            sums, before = part(row, k, min(lanes, end - k), ref, target, limits, sums, before, curve)
            k += lanes
        limit = tied if scored and end <= target else above
        k, sums, before = whole(row, k, end, ref, limit, sums, before, curve)
        if k < end:
            sums, before = part(row, k, end - k, ref, target, limits, sums, before, curve)
        _, total, top, shift, seen, mass, moment, negentropy, energy, rest, square = fold(sums)
        real = hsum(total), wide(hsum(shift)), wide(hsum(seen))
        scores = wide(hsum(energy)), wide(hsum(rest)), wide(hsum(square)), before
        return hmax(top), real, (hsum(mass), hsum(moment), hsum(negentropy)), scores

    return sums_of


def row_sums(options: Options, device: SimpleNamespace) -> Any:
    """Sums over a whole row, relative to its last reference, and the block that first holds the maximum."""
    R, smoothed, weighted, scored = options.real, options.smoothed, options.weighted, options.result == "score"
    maximum_of, sums_of, exp = block_maximum(options, device.transform), block_sums(options, device), device.exp
    hard = options.target == "hard"

    @splice
    def sums(row: Any, classes: Any, target: Any, z_target: Any, target_mass: Any, curve: Any) -> Any:
        ref = top = narrow(R, -math.inf)
        total = shift = seen = energy = rest = square = mass = moment = negentropy = 0.0
        before = top_at = j = 0
        while j < classes:
            end = min(j + BLOCK, classes)
            if ref == -math.inf:
                ref = maximum_of(row[0], j, end, curve)
            base = narrow(R, 0.0) if ref == -math.inf else ref  # nothing but -inf so far: 0 lets a NaN show
            peak, block, exact, scores = sums_of(row, j, end, base, target, z_target, curve)
            if peak - base > SLACK:
                fall = wide(ref) - wide(peak)
                factor = wide(exp(narrow(R, fall)))
                if scored:
                    energy = factor * (energy + fall * total) if factor > 0.0 else 0.0
                    rest, square = factor * rest, factor * factor * square
                if smoothed and j > 0:
                    shift += fall * (seen if weighted else j)
                if mass != 0.0:
                    moment += fall * mass
                total *= factor
                ref = peak
                continue
            if peak > top:
                top, top_at = peak, j
            if hard and j <= target < end and target_mass != 0.0:  # as a one-hot target adds up, to the bit
                exact = target_mass, target_mass * (wide(z_target) - wide(base)), 0.0
            total, shift, seen = total + block[0], shift + block[1], seen + block[2]
            mass, moment, negentropy = mass + exact[0], moment + exact[1], negentropy + exact[2]
            energy, rest, square, before = energy + scores[0], rest + scores[1], square + scores[2], before + scores[3]
            j = end
        return top, ref, total, shift, (mass, moment, negentropy), (energy, rest, square, before, top_at)

    return sums


def row_writer(options: Options, device: SimpleNamespace) -> Any:
    """Write a row of the output; `factors` as `cpu_parts` describes them."""
    X, Y, R = options.logits, options.soft or options.logits, options.real
    lanes, size, streamed = X.lanes, X.itemsize, options.streamed
    soft, weighted = options.target == "soft", options.weighted
    transform, value = device.transform, device.value

    @inline
    def write_part(row: Any, out: Any, k: Any, n: Any, target: Any, top: Any, factors: Any, curve: Any) -> Any:
        p, q, v = row
        mask = first(X, n)
        z = transform(load_part(X, p, k, mask), curve)
        y = load_part(Y, q, k, mask) if soft else z
        w = load_part(R, v, k, mask) if weighted else z
        hot = ramp(X) == full(X, target - k)
        store_part(X, out, k, mask, value(z, y, w, hot, top, factors, curve[1]))

    @inline
    def write(row: Any, out: Any, classes: Any, target: Any, top: Any, factors: Any, curve: Any) -> Any:
        apart()
        p, q, v = row
        k = 0
        if streamed:
            k = min(classes, (-out & (lanes * size - 1)) // size)
            write_part(row, out, 0, k, target, top, factors, curve)
        while k + lanes <= classes:
            z = transform(load(X, p, k), curve)
            y = load(Y, q, k) if soft else z
            w = load(R, v, k) if weighted else z
            g = value(z, y, w, ramp(X) == full(X, target - k), top, factors, curve[1])
            if streamed:
                stream(X, out, k, g)
            else:
                store(X, out, k, g)
            k += lanes
        if k < classes:
            write_part(row, out, k, classes - k, target, top, factors, curve)

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


def row_results(options: Options, device: SimpleNamespace) -> Any:
    """Write what a scored row comes to."""
    X, R, lanes, size = options.logits, options.real, options.logits.lanes, options.real.itemsize
    transform, log, brier_of, entropy_of = device.transform, device.log, device.brier, device.entropy

    @inline
    def find(p: Any, start: Any, classes: Any, wanted: Any, curve: Any) -> Any:
        """The first class from `start` on that equals `wanted`, or is NaN if that is NaN; -1 for none."""
        k = start
        while k < classes:
            mask = first(X, classes - k)
            z = transform(load_part(X, p, k, mask), curve)
            hit = mask & ((z == wanted) | ((z != z) & (full(X, wanted) != wanted)))
            if count(hit) > 0:
                return k + lowest(hit)
            k += lanes
        return -1

    @inline
    def rank_in_nan(p: Any, target: Any, z_target: Any, classes: Any, curve: Any) -> Any:
        """The rank in a row that holds NaN, which is above everything: rank 0 is the prediction there, too."""
        k = before = 0
        while k < classes:
            mask = first(X, classes - k)
            z = transform(load_part(X, p, k, mask), curve)
            nan, earlier = z != z, ramp(X) < full(X, target - k)
            above = nan | (z > z_target) | ((z == z_target) & earlier)
            before += count(mask & (nan & earlier if z_target != z_target else above))
            k += lanes
        return before

    @inline
    def results(row: Any, number: Any, classes: Any, at: Any, state: Any, scores: Any, curve: Any) -> Any:
        prediction, confidence, entropy, rank, brier = at
        top, ref, total, d, target, z_target, nan = state
        energy, rest, square, before, top_at = scores
        winner = nan if nan >= 0 else find(row[0], top_at, classes, top, curve)
        poke_index(prediction + 8 * number, winner)
        poke(R, confidence + size * number, 1.0 / d)
        poke(R, entropy + size * number, entropy_of(log(d), energy / total, wide(top) - wide(ref)))
        if rank != 0 and target < 0:
            poke_index(rank + 8 * number, -1)
            poke(R, brier + size * number, 0.0)
        elif rank != 0:
            if nan >= 0:
                before = rank_in_nan(row[0], target, z_target, classes, curve)
            poke_index(rank + 8 * number, before)
            poke(R, brier + size * number, brier_of(rest / total, square / (total * total)))

    return results, find


def make_rows(options: Options) -> Any:
    """The kernel over rows whose classes lie side by side, for these options."""
    device = device_functions(options)
    R, size = options.real, options.real.itemsize
    sums, write, (results, find) = row_sums(options, device), row_writer(options, device), row_results(options, device)
    aim, exp, log = hard_target(options, device), device.exp, device.log
    loss_of, factors_of, normalizer_of = device.loss, device.factors, device.log_normalizer
    hard, output, result, streamed = options.target == "hard", options.output != "", options.result, options.streamed
    clear, n_integers, n_reals = row_eraser(options), len(INTEGERS), len(REALS)

    @kernel(options)
    def rows(call: Any, lo: Any, hi: Any) -> Any:
        (inner, classes, x, x_outer, _, x_inner, targets, y_outer, _, y_inner, class_weight, sample_weight,
         ignore_index, out, out_outer, _, out_inner, loss, normalizer, prediction, confidence, entropy, rank, brier,
         ) = integers(call, 0, n_integers)  # fmt: skip
        smoothing, z_loss, scale, cap, grad_scale, weights = reals(call, n_integers, n_reals)
        curve, terms = (narrow(R, scale), narrow(R, cap)), (smoothing, z_loss, weights, grad_scale)
        for number in range(lo, hi):
            o, i = number, 0
            if inner != 1:
                o = number // inner
                i = number - o * inner
            row = x + o * x_outer + i * x_inner, targets + o * y_outer + i * y_inner, class_weight
            written = out + o * out_outer + i * out_inner
            weight = wide(peek(R, sample_weight + size * number)) if sample_weight else 1.0
            target, z_target, mass = -1, narrow(R, math.nan), 0.0
            if hard:
                target, z_target, mass = aim(row, targets + 8 * number, classes, ignore_index, weight, curve)
                if target == classes:
                    return number
            if result == "loss" and (weight == 0.0 or (hard and target < 0)):
                poke(R, loss + size * number, 0.0)
                if output:
                    clear(written, classes)
                continue
            top, ref, total, shift, exact, scores = sums(row, classes, target, z_target, mass, curve)
            d = total if top == ref else total / wide(exp(top - ref))
            logd, peak = log(d), wide(top)
            if loss:
                value = loss_of(exact, shift, peak, wide(ref), logd, weight, classes, terms)
                poke(R, loss + size * number, value if target >= 0 or not hard else 0.0)
            nan = -1
            if result != "loss" and d != d:
                nan = find(row[0], 0, classes, narrow(R, d), curve)
            if result != "loss" and normalizer:
                poke(R, normalizer + size * number, d if nan >= 0 else normalizer_of(peak, logd))
            if result == "score":
                at = prediction, confidence, entropy, rank, brier
                results(row, number, classes, at, (top, ref, total, d, target, z_target, nan), scores, curve)
            if output:
                gain, hit, uniform = factors_of(exact[0], peak, d, logd, weight, classes, terms)
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
