"""The CPU kernel of log_loss: rows of probabilities, a row in each lane as in `cpu_lanes`, arithmetic in float64."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from . import numerics, simd
from .calls import integers, reals
from .cpu_finish import loss_tally
from .cpu_lane_tiles import lane_places, lane_positions, lane_weights
from .cpu_parts import Options
from .element_parts import SETTINGS
from .jit import apart, inline, kernel, splice
from .memory import any_set, first, peek, read, store_part, write
from .reductions import least, lowest
from .simd import full_index, full_wide, narrow, select, wide

INTEGERS = (
    "inner classes x x_outer x_class x_inner target y_outer y_class y_inner class_weight sample_weight ignore_index "
    "block sums out out_outer out_class out_inner loss normalize"
).split()
REALS = SETTINGS


def class_terms(options: Options) -> SimpleNamespace:
    """A class's probability and its weighted target mass, in float64, for all lanes."""
    X, Y, R, size = options.logits, options.soft or options.logits, options.real, options.real.itemsize
    soft, smoothed = options.target == "soft", options.smoothed

    @splice
    def mass(row: Any, steps: Any, mask: Any, target: Any, c: Any, settings: Any) -> Any:
        if soft:
            y = wide(read(Y, row[1] + c * steps[1], mask))
        else:
            y = select(target == full_index(X, c), full_wide(X, 1.0), 0.0)
        if smoothed:
            y = y * settings[0] + settings[1]
        return y * wide(peek(R, row[2] + size * c)) if row[2] else y

    @splice
    def probability(row: Any, steps: Any, mask: Any, c: Any) -> Any:
        return wide(read(X, row[0] + c * steps[0], mask))

    return SimpleNamespace(mass=mass, probability=probability)


def prob_sums(options: Options, formulas: SimpleNamespace, terms: SimpleNamespace) -> Any:
    """Each lane's Σ p and the first class whose p is no probability; and its Σ y·log p and Σ gradient·p."""
    X, probability, mass = options.logits, terms.probability, terms.mass
    class_loss, class_slope = formulas.class_loss, formulas.class_slope

    @inline
    def totals(row: Any, steps: Any, mask: Any, classes: Any, limit: Any) -> Any:
        apart()
        total, wrong = full_wide(X, 0.0), full_index(X, -1)
        for c in range(classes):
            p = probability(row, steps, mask, c)
            total = total + p
            outside = ((p < 0.0) | (p > limit) | (p == math.inf)) & (wrong < 0)
            wrong = select(outside, full_index(X, c), wrong)
        return total, wrong

    @inline
    def losses(row: Any, steps: Any, mask: Any, target: Any, total: Any, classes: Any, settings: Any) -> Any:
        apart()
        _, _, low, high, log_eps, _ = settings
        loss = dot = full_wide(X, 0.0)
        for c in range(classes):
            p = probability(row, steps, mask, c) / total
            y = mass(row, steps, mask, target, c, settings)
            loss = loss - class_loss(p, y, low, high, log_eps)
            dot = dot - class_slope(p, y, low, high, log_eps, p)
        return loss, dot

    return totals, losses


def prob_writer(options: Options, formulas: SimpleNamespace, terms: SimpleNamespace) -> Any:
    """Write the gradient: -w·y/(p + log_eps) inside the clip range, through p = q/Σq where rows are normalised."""
    X, probability, mass, class_slope = options.logits, terms.probability, terms.mass, formulas.class_slope

    @inline
    def outputs(row: Any, steps: Any, mask: Any, active: Any, out: Any, out_step: Any, target: Any, sums: Any,
                share: Any, classes: Any, settings: Any) -> Any:  # fmt: skip
        apart()
        total, dot = sums
        _, _, low, high, log_eps, _ = settings
        for c in range(classes):
            p = probability(row, steps, mask, c) / total
            y = mass(row, steps, mask, target, c, settings)
            g = 0.0 - class_slope(p, y, low, high, log_eps, 1.0)
            value = select(active, (g - dot) / total * share, 0.0)
            write(X, out + out_step * c, mask, narrow(X, value))

    return outputs


def make_probs(options: Options) -> Any:
    """The kernel of log_loss for these options."""
    formulas = numerics.probability_formulas(splice, simd, numerics.logarithm(inline, simd))
    terms = class_terms(options)
    (totals, losses), outputs = prob_sums(options, formulas, terms), prob_writer(options, formulas, terms)
    X, R, size = options.logits, options.real, options.real.itemsize
    output, positions, places, asked = (
        options.output != "", lane_positions(options), lane_places(options), lane_weights(options),
    )  # fmt: skip
    n_integers, n_reals, add_up = len(INTEGERS), len(REALS), loss_tally(R, options.target == "hard")

    @kernel(("log_loss", options))
    def tiles(call: Any, lo: Any, hi: Any) -> Any:
        (inner, classes, x, x_outer, x_class, x_inner, targets, y_outer, y_class, y_inner, class_weight, sample_weight,
         ignore_index, block, sums, out, out_outer, out_class, out_inner, loss, normalize,
         ) = integers(call, 0, n_integers)  # fmt: skip
        settings = reals(call, n_integers, n_reals)
        steps, limit, worst = (x_class, y_class), math.inf if normalize else 1.0, -1
        number = lo
        at_x, at_y, at_out = (x, x_outer, x_inner), (targets, y_outer, y_inner), (out, out_outer, out_inner)
        while number < hi:
            n, at, soft_at, written = places(number, hi, inner, at_x, at_y, at_out)
            row = at, soft_at, class_weight
            mask = first(X, n)
            weight, target, active, bad = asked(mask, number, targets, classes, sample_weight, ignore_index)
            if any_set(bad):
                return number + lowest(bad)
            total, wrong = totals(row, steps, mask, classes, limit)
            if any_set(active & (wrong >= 0)):
                outer, i = positions(number, inner)
                element = least(active & (wrong >= 0), (outer * classes + wrong) * inner + i)
                worst = element if worst < 0 else min(worst, element)
            if not normalize:
                total = full_wide(X, 1.0)
            value, dot = losses(row, steps, mask, target, total, classes, settings)
            store_part(R, loss + size * number, 0, mask, narrow(X, select(active, value * weight, 0.0)))
            if output:
                through = total, dot if normalize else full_wide(X, 0.0)
                share = weight * settings[5]
                outputs(row, steps, mask, active, written, out_class, target, through, share, classes, settings)
            number += n
        add_up((targets, loss, ignore_index, block, sums), lo, hi)
        return worst

    return tiles
