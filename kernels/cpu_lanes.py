"""CPU kernels with a row in each lane: for a class axis that is not last, for few classes, and for any other strides.

Sixteen rows (eight in float64), or four times as many, go through their classes together, so every step, the logarithm
included, serves them all. Few classes are copied first, so that each is read once: where they lie side by side, rows
are turned to columns in registers; where they lie apart, columns are copied while those of the tile before are worked
on. Lanes never mix: a row's bits do not depend on its neighbours. The exponentials are taken relative to a lane's
maximum, of all classes that are copied, or of the blocks so far where they are many.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

from .cpu_finish import loss_tally, tile_results
from .cpu_lane_tiles import HELD_CLASSES, is_piped, lane_holder, lane_places, lane_weights
from .cpu_parts import Options, arguments, device_functions, output_terms
from .jit import apart, inline, kernel, splice
from .memory import any_set, first, load, peek, read, store, store_indices, write
from .prefetch import prefetch_vector
from .reductions import lowest
from .simd import Format, as_index, following, full, full_index, full_wide, maximum, select, wide
from .tiles import hold

BLOCK = 32
"""Classes whose maximum is found before they are added up."""
STRETCH = 8
"""Classes whose exponentials are added up in the arithmetic type."""
COLUMN_AHEAD = 512  # bytes


@cache
def lane_maximum(X: Format, line: Any) -> Any:
    """Each lane's maximum of scale·x over some classes, NaN passed over."""

    @inline
    def maximum_of(at: Any, step: Any, mask: Any, j: Any, end: Any, curve: Any) -> Any:
        apart()
        peak = full(X, -math.inf)
        for c in range(j, end):
            peak = maximum(line(read(X, at + c * step, mask), curve), peak)
        return peak

    return maximum_of


def lane_block(options: Options, device: SimpleNamespace, source: Format | None) -> Any:
    """Sums over some classes, relative to a reference; of scores, also ranks, the maximum and its place.

    Meanwhile columns of the next tile are copied from where they lie as in `source`, and their maximum is found. What
    the options do not ask for comes back as 0: a function of its own would hand it over through memory.
    """
    X, Y, R, size = options.logits, options.soft or options.logits, options.real, options.real.itemsize
    soft, weighted, scored = options.target == "soft", options.weighted, options.result == "score"
    step, fold, transform, line, smoothed = device.step, device.fold, device.transform, device.line, options.smoothed
    origin = device.origin
    piped, S = source is not None, source or X

    @inline
    def sums_of(row: Any, steps: Any, mask: Any, j: Any, end: Any, ref: Any, aimed: Any, best: Any, curve: Any) -> Any:
        apart()
        at, soft_at, class_weight, (onward, class_step, room) = row
        target, z_target = aimed
        zero, zeros, minus, peak = full(X, 0.0), full_wide(X, 0.0), full(X, -0.0), full(X, -math.inf)
        sums = (minus, zero, zeros, zero, zero, zeros, zeros, zeros, zero, zero, zero)
        y, w, before, hot = zero, zero, full_index(X, 0), mask
        above, (most, winner) = following(X, z_target), best
        start, frame = j, (ref,) + origin(ref)  # noqa: RUF005
        while start < end:
            stop = min(start + STRETCH, end)
            for c in range(start, stop):
                if piped:
                    prefetch_vector(S, onward + c * class_step + COLUMN_AHEAD)
                    x = load(S, onward + c * class_step, 0)
                    store(R, room + c * steps[0], 0, x)
                    peak = maximum(line(x, curve), peak)
                z = transform(read(X, at + c * steps[0], mask), curve)
                if soft:
                    y = read(Y, soft_at + c * steps[1], mask)
                if weighted:
                    w = full(X, peek(R, class_weight + size * c))
                if scored:
                    k = full_index(X, c)
                    hot = k == target
                    before = before + as_index(z >= select(k < target, z_target, above))
                    higher = z > most
                    most, winner = select(higher, z, most), select(higher, k, winner)
                _, sums = step(z, mask, hot, True, frame, y, w, sums)
            start, sums = stop, fold(sums)
        _, _, total, shift, seen, mass, moment, negentropy, energy, rest, square = sums
        smooth = (wide(shift), wide(seen)) if smoothed else (0.0, 0.0)
        exact = (mass, moment, negentropy) if soft else (0.0, 0.0, 0.0)
        scores = (wide(energy), wide(rest), wide(square), before, most, winner) if scored else (0.0,)
        return total, smooth, exact, scores, peak

    return sums_of


def lane_sums(options: Options, device: SimpleNamespace, maximum_of: Any, source: Format | None) -> Any:
    """Sums over all classes, relative to each lane's maximum: the `peak` of columns that are held."""
    X, hard, scored, held = options.logits, options.target == "hard", options.result == "score", options.held
    sums_of, rescale, bend = lane_block(options, device, source), device.rescale, device.bend
    block = HELD_CLASSES if held else BLOCK

    @splice
    def sums(row: Any, steps: Any, mask: Any, classes: Any, aimed: Any, target_mass: Any, peak: Any, curve: Any) -> Any:
        top = full(X, -math.inf)
        zeros = full_wide(X, 0.0)
        total = shift = seen = energy = rest = square = mass = moment = negentropy = zeros
        before, best, ahead = full_index(X, 0), (top, full_index(X, 0)), top
        for j in range(0, classes, block):
            end = min(j + block, classes)
            if not held:
                peak = maximum_of(row[0], steps[0], mask, j, end, curve)
            peak = maximum(bend(peak, curve), top)
            raised = (peak > top) & (top != -math.inf)
            if not held and any_set(raised):
                so_far = total, shift, seen, mass, moment, energy, rest, square
                fall = select(raised, wide(top) - wide(peak), 0.0)
                total, shift, moment, energy, rest, square = rescale(fall, j, so_far)
            top = peak
            base = select(top == -math.inf, 0.0, top)  # nothing but -inf so far: 0 lets a NaN show
            part, smooth, exact, scores, ahead = sums_of(row, steps, mask, j, end, base, aimed, best, curve)
            total, shift, seen = total + part, shift + smooth[0], seen + smooth[1]
            if hard:  # as a one-hot target adds up, to the bit
                here = select((aimed[0] >= j) & (aimed[0] < end), target_mass, 0.0)
                mass, moment = mass + here, moment + select(here == 0.0, 0.0, here * (wide(aimed[1]) - wide(base)))
            else:
                mass, moment, negentropy = mass + exact[0], moment + exact[1], negentropy + exact[2]
            if scored:
                energy, rest, square = energy + scores[0], rest + scores[1], square + scores[2]
                before, best = before + scores[3], (scores[4], scores[5])
        return top, total, shift, (mass, moment, negentropy), (energy, rest, square), (before, best[1]), ahead

    return sums


def lane_writer(options: Options, device: SimpleNamespace, O: Any) -> Any:
    """Write the output of all the lanes, in format O; zeros where a lane is masked."""
    X, Y, R, size = options.logits, options.soft or options.logits, options.real, options.real.itemsize
    soft, weighted = options.target == "soft", options.weighted
    transform, value = device.transform, device.value

    @inline
    def outputs(row: Any, steps: Any, mask: Any, active: Any, out: Any, out_step: Any, classes: Any, target: Any,
                top: Any, factors: Any, curve: Any) -> Any:  # fmt: skip
        apart()
        at, soft_at, class_weight, _ = row
        for c in range(classes):
            z = transform(read(X, at + c * steps[0], mask), curve)
            y = read(Y, soft_at + c * steps[1], mask) if soft else z
            w = full(X, peek(R, class_weight + size * c)) if weighted else z
            g = value(z, y, w, target == full_index(X, c), top, factors, curve)
            write(O, out + out_step * c, mask, select(active, g, 0.0))

    return outputs


@cache
def lanes_amid_nan(X: Format, transform: Any) -> Any:
    """Which rows hold NaN, and their prediction and rank: NaN is above everything."""

    @inline
    def amid_nan(at: Any, step: Any, mask: Any, classes: Any, aimed: Any, curve: Any) -> Any:
        apart()
        target, z_target = aimed
        holds, winner, before = full(X, 0.0) != 0.0, full_index(X, 0), full_index(X, 0)
        for c in range(classes - 1, -1, -1):
            z, k = transform(read(X, at + c * step, mask), curve), full_index(X, c)
            nan, earlier = z != z, k < target
            winner, holds = select(nan, k, winner), holds | nan
            above = ((z_target == z_target) & (nan | (z > z_target) | ((z == z_target) & earlier))) | (nan & earlier)
            before = before + as_index(above)
        return holds, winner, before

    return amid_nan


def lane_report(options: Options, device: SimpleNamespace) -> Any:
    """Write scored rows' predictions and ranks; the rows' maxima, NaN where a row that is asked for holds one."""
    X, amid_nan = options.logits, lanes_amid_nan(options.logits, device.transform)
    asked, scored = options.result in ("lse", "score"), options.result == "score"

    @splice
    def report(at: Any, step: Any, mask: Any, classes: Any, number: Any, to: Any, state: Any, found: Any,
               curve: Any) -> Any:  # fmt: skip
        (top, d, aimed), (before, winner) = state, found
        holds = mask & ~mask
        if asked and any_set(mask & (d != d)):
            holds, first_nan, amid = amid_nan(at, step, mask, classes, aimed, curve)
            winner, before = select(holds, first_nan, winner), select(holds, amid, before)
        if scored:
            prediction, _, _, rank, _ = to
            store_indices(X, prediction + 8 * number, mask, winner)
            if rank:
                ranks = select(aimed[0] < 0, full_index(X, -1), before)
                store_indices(X, rank + 8 * number, mask, ranks)
        return select(holds, math.nan, wide(top))

    return report


def lane_target(options: Options, device: SimpleNamespace) -> Any:
    """Each lane's weight, 0 where masked; its class (-1 there), whose logit, and whose weight; and two masks.

    They are of the lanes that are not masked, and of those whose class is out of range.
    """
    X, R, size, transform = options.logits, options.real, options.real.itemsize, device.transform
    hard, asked = options.target == "hard", lane_weights(options)

    @splice
    def aim(at: Any, step: Any, mask: Any, number: Any, targets: Any, classes: Any, given: Any, curve: Any) -> Any:
        class_weight, sample_weight, ignore_index = given
        weight, target, active, bad = asked(mask, number, targets, classes, sample_weight, ignore_index)
        z, mass = full(X, math.nan), weight
        if hard and targets:
            active = active & ~bad
            target = select(active, target, full_index(X, -1))
            z = select(active, transform(read(X, at + target * step, active), curve), math.nan)
            mass = select(active, full_wide(X, 1.0), 0.0)
            if class_weight:
                mass = wide(read(R, target * size + class_weight, active))
        return select(active, weight, 0.0), (target, z), mass, active, bad

    return aim


def make_lanes(options: Options) -> Any:
    """The kernel over rows whose classes lie apart, or are few, for these options."""
    device, X, R = device_functions(options), options.logits, options.real
    held, turned, piped = options.held, options.turned, is_piped(options)
    seen = replace(options, logits=R if held else X, soft=options.soft and (R if turned else options.soft))
    maximum_of, outputs = lane_maximum(seen.logits, device.line), lane_writer(seen, device, R if turned else X)
    sums, factors = lane_sums(seen, device, maximum_of, X if piped else None), output_terms(seen, device)
    report, aim, unpack = lane_report(seen, device), lane_target(seen, device), arguments(R)
    places, ((room, other), bring, give) = lane_places(options), lane_holder(options)
    expect, results = tile_results(seen, device, R)
    output, result, add_up, lanes = options.output != "", options.result, loss_tally(R, seen.target == "hard"), R.lanes

    @kernel(options)
    def tiles(call: Any, lo: Any, hi: Any) -> Any:
        (inner, classes), (at_x, at_y, at_out), given, results_at, curve, terms, batch = unpack(call)
        here, there, number, ready, peak = hold(R, room), hold(R, other), lo, False, full(X, -math.inf)
        tile = places(lo, hi, inner, at_x, at_y, at_out)
        while number < hi:
            n, at, soft_at, written = tile
            tile = places(number + n, hi, inner, at_x, at_y, at_out)
            mask = first(X, n)
            (at, soft_at, to_row), (x_step, y_step, out_step), lanes_at = bring(
                (here, there), ready, at, soft_at, written, at_x, at_y, at_out, n, classes
            )
            if held and not ready:
                peak = maximum_of(at, x_step, mask, 0, classes, curve)
            ready = piped and tile[0] == lanes
            onward = (tile[1], at_x[2], there) if ready else (here, x_step, there)
            row, steps = (at, soft_at, given[0], onward), (x_step, y_step)
            expect(number + 2 * lanes, at_y[0], results_at)
            weight, aimed, mass, active, bad = aim(lanes_at, x_step, mask, number, at_y[0], classes, given, curve)
            if any_set(bad):
                return number + lowest(bad)
            top, d, shift, exact, scores, found, ahead = sums(row, steps, mask, classes, aimed, mass, peak, curve)
            if result != "":
                peaks = report(at, x_step, mask, classes, number, results_at[2], (top, d, aimed), found, curve)
                results(mask, number, classes, results_at, ((peaks, d, weight), shift, exact, scores), terms)
            if output:
                terms_of = factors(exact[0], top, d, weight, classes, terms)
                outputs(row, steps, mask, active, to_row, out_step, classes, aimed[0], top, terms_of, curve)
                if turned:
                    give(to_row, written, at_out[1], n, classes)
            if piped:
                here, there, peak = there, here, ahead
            number += n
        if result == "loss":
            add_up(batch, lo, hi)
        return -1

    return tiles
