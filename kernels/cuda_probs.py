"""The CUDA kernel of log_loss: some threads a row of probabilities, or one where the class axis is not last.

Arithmetic is in float64, as it is on the CPU. A row that is normalised is read twice, for its sum first, and once more
for its gradient; any other is read once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from . import cuda_machine, numerics
from .cuda_compile import Kernel
from .cuda_groups import SIZE, arithmetic
from .cuda_machine import WARP, atomic_least, block, blocks, jit, peek, poke, real, select, sync, thread, wide
from .cuda_ops import over_group, plus
from .element_parts import SETTINGS

THREADS, RESIDENT = 256, 512
INTEGERS = (
    "inner classes x x_outer x_class x_inner target y_outer y_class y_inner class_weight sample_weight ignore_index "
    "out out_outer out_class out_inner loss scale status lo hi"
).split()
REALS = SETTINGS


@dataclass(frozen=True)
class ProbOptions:
    """What the kernel of log_loss is specialised for."""

    code: str
    target: str  # the element code of a target, hard or soft
    soft: bool
    normalize: bool
    smoothed: bool
    gradient: bool
    lanes: int  # threads of a row, a power of 2


def class_terms(options: ProbOptions) -> Any:
    """``f(row, c)``: a class's probability; ``f(row, c, target, settings)``: its weighted target mass; in float64."""
    probs, masses, weights = peek(options.code), peek(options.target), peek(arithmetic(options.code))
    size, soft, smoothed = SIZE[arithmetic(options.code)], options.soft, options.smoothed

    @jit
    def probability(row: Any, c: Any) -> Any:
        return wide(probs(row[0] + c * row[1]))

    @jit
    def mass(row: Any, c: Any, target: Any, settings: Any) -> Any:
        y = wide(masses(row[2] + c * row[3])) if soft else select(target == c, 1.0, 0.0)
        if smoothed:
            y = y * settings[0] + settings[1]
        if row[4] != 0:
            y = y * wide(weights(row[4] + size * c))
        return y

    return probability, mass


def prob_sums(options: ProbOptions) -> Any:
    """A thread's share of Σ p; and of the loss and Σ gradient·p, writing the gradient if this is the last look.

    With each, the first of its classes whose p is no probability, or -1.
    """
    formulas = numerics.probability_formulas(jit, cuda_machine, numerics.logarithm(jit, cuda_machine))
    class_loss, class_slope = formulas.class_loss, formulas.class_slope
    (probability, mass), lanes, normalize = class_terms(options), options.lanes, options.normalize
    limit, gradient = math.inf if normalize else 1.0, options.gradient
    store, cast = poke(options.code), real(arithmetic(options.code))

    @jit
    def outside(p: Any) -> Any:
        return (p < 0.0) | (p > limit) | (p == math.inf)

    @jit
    def total(row: Any, lane: Any, classes: Any) -> Any:
        value, odd, c = 0.0, -1, lane
        while c < classes:
            p = probability(row, c)
            value, odd = value + p, select(outside(p) & (odd < 0), c, odd)
            c += lanes
        return value, odd

    @jit
    def sweep(row: Any, lane: Any, classes: Any, active: Any, target: Any, sums: Any, out: Any, settings: Any,
              last: Any) -> Any:  # fmt: skip
        _, _, low, high, log_eps, _ = settings
        (total, share, pull), (loss, dot, odd), c = sums, (0.0, 0.0, -1), lane
        while c < classes:
            p = probability(row, c)
            if normalize:
                p = p / total
            else:
                odd = select(outside(p) & (odd < 0), c, odd)
            y, slope = mass(row, c, target, settings), 0.0
            if y != 0.0:
                loss -= class_loss(p, y, low, high, log_eps)
                slope = class_slope(p, y, low, high, log_eps, 1.0)
                dot -= class_slope(p, y, low, high, log_eps, p)
            if gradient and last:
                store(out[0] + c * out[1], cast(select(active, ((0.0 - slope) - pull) * share, 0.0)))
            c += lanes
        return loss, dot, odd

    return total, sweep


def row_state(options: ProbOptions) -> Any:
    """``f(number, …)``: a row's target, its weight, and whether it counts; a target that is no class is reported."""
    hard, size, target_size = not options.soft, SIZE[arithmetic(options.code)], SIZE[options.target]
    weights, targets = peek(arithmetic(options.code)), peek(options.target)

    @jit
    def state(number: Any, sample_weight: Any, at: Any, ignore_index: Any, classes: Any, status: Any) -> Any:
        weight, target, active = 1.0, -1, True
        if sample_weight != 0:
            weight = wide(weights(sample_weight + size * number))
            active = weight != 0.0
        if hard:
            target = targets(at + target_size * number)
            active = active & (target != ignore_index)
            if active & ((target < 0) | (target >= classes)):
                atomic_least(status, number)
                active = False
        return target, weight, active

    return state


def row_work(options: ProbOptions) -> Any:
    """``f(row, lane, count, state, grad_scale, sink, settings)``: a row's loss, and what `prob_sums` finds wrong."""
    (total_of, sweep), lanes, normalize = prob_sums(options), options.lanes, options.normalize
    over_row, looks = over_group(plus, lanes, "f8", 0), 2 if normalize and options.gradient else 1

    @jit
    def summed(value: Any) -> Any:
        value = over_row(value)
        if lanes > WARP:
            sync()  # before the next sum
        return value

    @jit
    def work(row: Any, lane: Any, count: Any, state: Any, grad_scale: Any, sink: Any, settings: Any) -> Any:
        target, weight, active = state
        total, pull, odd, loss, look = 1.0, 0.0, -1, 0.0, 1
        if normalize:
            total, odd = total_of(row, lane, count)
            total = summed(total)
        while look <= looks:  # one loop for both: two would not fit the registers
            sums = total, weight * grad_scale / total if normalize else weight * grad_scale, pull
            value, dot, here = sweep(row, lane, count, active, target, sums, sink, settings, look == looks)
            if look == 1:
                loss = summed(value)
            if look < looks:
                pull = summed(dot)
            if not normalize:
                odd = here
            look += 1
        return select(active, loss * weight, 0.0), odd

    return work


def make_probs(options: ProbOptions) -> Kernel:
    """The kernel of log_loss for these options."""
    state_of, work, load, lanes = row_state(options), row_work(options), peek("f8"), options.lanes
    size, store, cast = SIZE[arithmetic(options.code)], poke(arithmetic(options.code)), real(arithmetic(options.code))
    per, shift = THREADS // lanes, lanes.bit_length() - 1

    def log_loss(
        inner: Any, classes: Any, x: Any, xo: Any, xc: Any, xi: Any, y: Any, yo: Any, yc: Any, yi: Any,
        class_weight: Any, sample_weight: Any, ignore_index: Any, out: Any, oo: Any, oc: Any, oi: Any, loss: Any,
        scale: Any, status: Any, lo: Any, hi: Any, kept: Any, spread: Any, low: Any, high: Any, log_eps: Any,
        grad_scale: Any,
    ) -> None:  # fmt: skip
        if scale != 0:
            grad_scale = grad_scale * load(scale)
        settings = kept, spread, low, high, log_eps, grad_scale
        lane, base = thread() & (lanes - 1), lo + block() * per
        while base < hi:
            number = base + (thread() >> shift)
            there = number < hi
            row_number, count = select(there, number, lo), select(there, classes, 0)
            outer = row_number // inner
            i = row_number - outer * inner
            state = state_of(row_number, sample_weight, y, ignore_index, classes, status)
            row = x + outer * xo + i * xi, xc, y + outer * yo + i * yi, yc, class_weight
            value, odd = work(row, lane, count, state, grad_scale, (out + outer * oo + i * oi, oc), settings)
            if there and lane == 0:
                store(loss + size * number, cast(value))
            if odd >= 0 and state[2]:
                atomic_least(status, (outer * classes + odd) * inner + i)
            base += blocks() * per

    return Kernel(log_loss, ("log_loss", options), len(INTEGERS), len(REALS), THREADS, RESIDENT)
