"""What a row's output and loss are made of, on any device: factories over its compiler and operations, as `numerics`.

``options`` are those of a kernel: `Flags`, and whether its target is "hard", "soft" or "".
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, NamedTuple

from .numerics import Jit, soft_cap


class Flags(NamedTuple):
    """What a call asks of a kernel over classes; what is not asked for is not compiled."""

    result: str  # "loss", "score", "lse", or "" for the output alone
    weighted: bool = False  # class weights within the sums over classes
    smoothed: bool = False
    divergence: bool = False  # add Σ y·log y
    transform: str = ""  # "scale", "softcap" or ""
    output: str = ""  # "gradient", "softmax", "log_softmax" or ""


def curves(options: Any, jit: Jit, ops: Any, real: Any, *, inline: Jit) -> Any:
    """z = softcap(scale·x), infinities staying what they are: -inf is a masked class, +inf a fault to be seen.

    Also its two steps, x to scale·x and on to z: the second never falls, so a maximum can be found between them.
    """
    scale = jit(lambda x, curve: x * curve[0])
    same = jit(lambda x, curve: x)
    if options.transform != "softcap":
        line = scale if options.transform else same
        return line, line, same
    capped, select, absolute, infinite = soft_cap(inline, ops, real), ops.select, ops.absolute, real(math.inf)

    @inline
    def bend(v: Any, curve: Any) -> Any:
        return select(absolute(v) == infinite, v, capped(v, curve[1], curve[2]))

    return jit(lambda x, curve: bend(x * curve[0], curve)), scale, bend


def kept_value(options: Any, jit: Jit, ops: Any, real: Any) -> Any:
    """The output from e = exp(z - top): softmax gain·e, or the gradient gain·e - hit·y - uniform·w."""
    gradient, hard = options.output == "gradient", options.target == "hard"
    soft, weighted, smoothed = options.target == "soft", options.weighted, options.smoothed
    capped = options.transform == "softcap"
    select, maximum, fma, zero, one = ops.select, ops.maximum, ops.fma, real(0), real(1)

    @jit
    def value(e: Any, z: Any, y: Any, w: Any, hot: Any, factors: Any, curve: Any) -> Any:
        gain, hit, uniform = factors
        g = e * gain
        if gradient:
            if hard:
                g = select(hot, g - hit, g)
            if soft:
                g = g - (y * w if weighted else y) * hit
            if smoothed:
                g = g - (w * uniform if weighted else uniform)
            if capped:
                ratio = z * curve[2]
                g = g * maximum(zero, fma(-ratio, ratio, one))  # 0 at infinities
        return g

    return value


def output_value(options: Any, jit: Jit, ops: Any, real: Any, exp: Any) -> Any:
    """The output from z: that of `kept_value`, or log-softmax."""
    logarithmic, of_kept = options.output == "log_softmax", kept_value(options, jit, ops, real)

    @jit
    def value(z: Any, y: Any, w: Any, hot: Any, top: Any, factors: Any, curve: Any) -> Any:
        if logarithmic:
            return (z - top) - factors[0]
        return of_kept(exp(z - top), z, y, w, hot, factors, curve)

    return value


def row_loss(options: Any, jit: Jit, ops: Any, formulas: SimpleNamespace) -> Any:
    """A row's weighted loss in float64, from the sums over its classes."""
    smoothed, divergence = options.smoothed, options.divergence
    nll, smooth, select = formulas.nll, formulas.smooth, ops.select

    @jit
    def loss(exact: Any, shift: Any, top: Any, logd: Any, weight: Any, classes: Any, terms: Any) -> Any:
        mass, moment, negentropy = exact
        smoothing, z_loss, weights, _ = terms
        value = nll(mass, moment, logd)
        if smoothed:
            value = select(smoothing == 1.0, 0.0, value)  # else 0 times an infinite loss
            value = smooth(value, smoothing, classes, weights, logd, shift)
        if divergence:
            value = value + negentropy
        if z_loss != 0.0:
            value = value + (top + logd) * (top + logd) * z_loss
        return value * weight

    return loss


def output_factors(options: Any, jit: Jit) -> Any:
    """What `output_value` needs of a row, in float64: gain, hit and uniform."""
    output, smoothed, hard = options.output, options.smoothed, options.target == "hard"

    @jit
    def factors(mass: Any, top: Any, d: Any, logd: Any, weight: Any, classes: Any, terms: Any) -> Any:
        smoothing, z_loss, weights, grad_scale = terms
        if output == "log_softmax":
            return logd, logd, logd
        if output == "softmax":
            return 1.0 / d, d, d
        gain, share = mass, weight * grad_scale
        if smoothed:
            gain = gain * (1.0 - smoothing) + smoothing / classes * weights
        if z_loss != 0.0:
            gain = gain + (top + logd) * (2.0 * z_loss)
        hit = share * (1.0 - smoothing)
        return gain * share / d, hit * mass if hard else hit, share * (smoothing / classes)

    return factors
