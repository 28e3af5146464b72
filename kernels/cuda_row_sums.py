"""What the sums over a row come to on CUDA: those of its threads together, then its loss and its scores."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from .cuda_machine import atomic_least, fmax, jit, peek, poke, real, select, vote_any, whole, wide
from .cuda_ops import LOWEST, SIZES, greater, over_group, plus
from .cuda_parts import BATCH, CudaOptions, lanes_sums

SLOTS = 14
"""Numbers that the warps of a block exchange for a row: each has a place of its own in shared memory."""
REFERENCE, PEAK, TOTAL, ENERGY, REST, SQUARE, BEFORE, SHIFT, MASS, MOMENT, NEGENTROPY, WINNER, NAN, AMID = range(SLOTS)


def group_sums(options: CudaOptions) -> Any:
    """The sums of a row's threads together: maximum and reference, sums over classes, each thread's own maximum."""
    group, scored, smoothed = options.group, options.result == "score", options.smoothed
    soft, divergence, online = options.target == "soft" or options.matched, options.divergence, options.online
    peak, relative, lowest = (
        over_group(greater, group, options.real, PEAK),
        lanes_sums(options),
        options.real_type(LOWEST),
    )
    add = [over_group(plus, group, "f8", slot) for slot in range(SLOTS)]
    total_of, energy_of, rest_of, square_of, before_of = (add[k] for k in (TOTAL, ENERGY, REST, SQUARE, BEFORE))
    shift_of, mass_of, moment_of, negentropy_of = add[SHIFT], add[MASS], add[MOMENT], add[NEGENTROPY]

    @jit
    def together(state: Any) -> Any:
        mine, base, _, (before, where), (shift, mass, moment, negentropy) = state
        top = peak(mine)
        if online:
            base = fmax(top, lowest)
        total, energy, rest, square = relative(state, base)
        total = total_of(total)
        if scored:
            energy, rest, square = energy_of(energy), rest_of(rest), square_of(square)
            before = before_of(wide(before))
        if smoothed:
            shift = shift_of(shift)
        if soft:
            mass, moment = mass_of(mass), moment_of(moment)
            if divergence:
                negentropy = negentropy_of(negentropy)
        return (top, base), (total, energy, rest, square, before), (shift, mass, moment, negentropy), (mine, where)

    return together


def row_target(options: CudaOptions, device: SimpleNamespace) -> Any:
    """Whether a row is there and right; its weight; its class, whose logit, and whose weight; whether it is masked.

    The class is -1 where there is none, or it is masked. One that is out of range is reported, by one thread.
    """
    one, at_class, weight_of = peek(options.logits), peek(options.target_code or "i8"), peek(options.real)
    transform, real_size, target_size = device.transform, SIZES[options.real], int((options.target_code or "i8")[1])
    hard, lossy, nan = options.target == "hard", options.result == "loss", options.real_type(math.nan)

    @jit
    def aim(at: Any, step: Any, targets: Any, number: Any, classes: Any, live: Any, reports: Any, weights: Any,
            curve: Any) -> Any:  # fmt: skip
        class_weight, sample_weight, ignore_index, status = weights
        weight, target, z, mass = 1.0, -1, nan, 0.0
        if sample_weight != 0:
            weight = wide(weight_of(sample_weight + real_size * number))
        masked = weight == 0.0
        if hard:
            index = at_class(targets + target_size * number)
            masked = masked or index == ignore_index
            if not masked and (index < 0 or index >= classes):
                if live and reports:
                    atomic_least(status, number)
                live = False
            elif not masked:
                target, z, mass = index, transform(one(at + step * index), curve), 1.0
                if class_weight != 0:
                    mass = wide(weight_of(class_weight + real_size * index))
        return live, weight, (target, z, mass), lossy and masked

    return aim


def row_values(options: CudaOptions, device: SimpleNamespace) -> Any:
    """A row's loss, unweighted Σ y, and logarithm of its sum, from its sums and its target's logit and weight."""
    online, hard, matched = options.online, options.target == "hard", options.matched
    loss_of, log = device.loss, device.log

    @jit
    def values(peaks: Any, d: Any, exact: Any, z_target: Any, target_mass: Any, weight: Any, classes: Any,
               terms: Any) -> Any:  # fmt: skip
        shift, mass, moment, negentropy = exact
        base, logd = wide(peaks[1]), log(d)
        if matched:
            mass, moment = target_mass, select(target_mass == 0.0, 0.0, target_mass * moment)
        elif hard:
            lead = wide(z_target) if online else wide(z_target - peaks[1])
            mass, moment = target_mass, select(target_mass == 0.0, 0.0, target_mass * lead)
        if online:  # the sums are of z itself
            moment, shift = moment - mass * base, shift - terms[2] * base
        return loss_of((mass, moment, negentropy), shift, base, logd, weight, classes, terms), mass, logd

    return values


def winner(options: CudaOptions, device: SimpleNamespace) -> Any:
    """The first class that holds a row's maximum; a thread looks for it in the batch where it met its own."""
    one, transform = peek(options.logits), device.transform
    first_of, stride = over_group(greater, options.group, "f8", WINNER), options.group * options.lanes
    vectors = 1 if options.group == 1 else options.vectors
    lanes = BATCH if options.group == 1 else options.lanes

    @jit
    def find(at: Any, step: Any, classes: Any, top: Any, met: Any, curve: Any) -> Any:
        mine, where = met
        found = -math.inf
        if mine == top and where >= 0:
            b = 0
            while b < vectors and found == -math.inf:
                c = where + b * stride
                end = min(c + lanes, classes)
                while c < end and found == -math.inf:
                    if transform(one(at + step * c), curve) == top:
                        found = -wide(c)
                    c += 1
                b += 1
        found = first_of(found)
        return 0 if found == -math.inf else whole(-found)

    return find


def amid_nan(options: CudaOptions, device: SimpleNamespace) -> Any:
    """The first NaN of a row, -1 for none, and how many classes rank before the target: NaN is above everything."""
    one, transform, group = peek(options.logits), device.transform, options.group
    first_of, count = over_group(greater, group, "f8", NAN), over_group(plus, group, "f8", AMID)

    @jit
    def look(at: Any, step: Any, classes: Any, lane: Any, target: Any, z_target: Any, curve: Any) -> Any:
        found, before, c = -math.inf, 0.0, lane
        while c < classes:
            z = transform(one(at + step * c), curve)
            nan, earlier = z != z, c < target
            if nan:
                found = fmax(found, -wide(c))
            above = z > z_target or (z == z_target and earlier)
            if (nan and earlier) or (z_target == z_target and (nan or above)):
                before += 1.0
            c += group
        found, before = first_of(found), count(before)
        return -1 if found == -math.inf else whole(-found), before

    return look


def scores(options: CudaOptions, device: SimpleNamespace) -> Any:
    """Write what a scored row comes to; thread 0 of the row does."""
    find, look = winner(options, device), amid_nan(options, device)
    put, put_index, size = poke(options.real), poke("i8"), SIZES[options.real]
    entropy_of, brier_of, normalizer_of = device.entropy, device.brier, device.log_normalizer
    convert, scored = real(options.real), options.result == "score"

    @jit
    def write(number: Any, target: Any, at: Any, state: Any) -> Any:
        prediction, confidence, entropy, rank, brier = at
        top, d, logd, rest, energy, square, first, before = state
        put_index(prediction + 8 * number, first)
        put(confidence + size * number, convert((wide(top - top) + 1.0) / d))  # NaN in a row of -inf
        put(entropy + size * number, convert(entropy_of(logd, energy / d)))
        if rank != 0:
            put_index(rank + 8 * number, whole(before) if target >= 0 else -1)
            value = brier_of(rest / d, square / (d * d))
            put(brier + size * number, convert(value if target >= 0 else 0.0))

    @jit
    def report(row: Any, number: Any, live: Any, lane: Any, target: Any, z_target: Any, d: Any, logd: Any, peaks: Any,
               totals: Any, met: Any, to: Any, curve: Any) -> Any:  # fmt: skip
        at, step, classes = row
        normalizer, places = to
        top, _ = peaks
        energy, rest, square, before = totals
        nan, first = -1, 0
        if scored:
            first = find(at, step, classes, top, met, curve)
        if vote_any(d != d):
            nan, amid = look(at, step, classes, lane, target, z_target, curve)
            if nan >= 0:
                first, before = nan, amid
        if live and lane == 0:
            if normalizer != 0:
                lse = normalizer_of(wide(top), logd)
                put(normalizer + size * number, convert(math.nan if nan >= 0 else lse))
            if scored:
                write(number, target, places, (top, d, logd, rest, energy, square, first, before))

    return report
