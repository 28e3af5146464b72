"""What the row and the lane kernels of the CPU share: their options, their arguments, and the work per vector."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from . import numerics, simd
from .jit import inline, splice
from .simd import Format, absolute, fma, full, maximum, select, wide


class Flags(NamedTuple):
    """What a call asks of a kernel over classes; what is not asked for is not compiled."""

    result: str  # "loss", "score", "lse", or "" for the output alone
    weighted: bool = False  # class weights within the sums over classes
    smoothed: bool = False
    divergence: bool = False  # add Σ y·log y
    transform: str = ""  # "scale", "softcap" or ""
    output: str = ""  # "gradient", "softmax", "log_softmax" or ""


@dataclass(frozen=True)
class Options:
    """What a kernel over classes is specialised for: `Flags`, and how its arrays lie."""

    logits: Format
    result: str
    target: str = ""  # "hard", "soft" or ""
    soft: Format | None = None
    weighted: bool = False
    smoothed: bool = False
    divergence: bool = False
    transform: str = ""
    output: str = ""
    streamed: bool = False  # write the output past the caches
    gathered: bool = False  # lane kernels: rows that do not lie side by side
    held: bool = False  # lane kernels: few classes, which are copied before they are worked on
    turned: bool = False  # lane kernels: few classes that lie side by side, turned as they are copied

    @property
    def real(self) -> Format:
        """Vectors of the arithmetic type as they lie in memory."""
        return Format(self.logits.real, self.logits.lanes, self.logits.real)

    @property
    def real_type(self) -> Any:
        """NumPy's name of the arithmetic type."""
        return np.float32 if self.logits.real == "f4" else np.float64


LAYOUT = "inner classes x_outer x_class x_inner y_outer y_class y_inner out_outer out_class out_inner".split()
PLACES = (
    "x target out class_weight sample_weight ignore_index loss log_normalizer prediction confidence entropy rank brier"
).split()
INTEGERS = (*LAYOUT, *PLACES)
REALS = "smoothing z_loss scale cap grad_scale weight_total".split()
"""The arguments of a call, in the order in which they are packed: what its arrays' shapes decide comes first."""


def device_functions(options: Options) -> SimpleNamespace:
    """The formulas in these options' arithmetic type, for vectors and scalars alike."""
    real = options.real_type
    exp, term = (numerics.exponential(inline, simd, real, summed=summed) for summed in (False, True))
    log = numerics.logarithm(inline, simd)
    device = SimpleNamespace(exp=exp, term=term, log=log, **vars(numerics.row_formulas(splice, simd)))
    device.transform, device.line, device.bend = _transform(options, numerics.hyperbolic_tangent(inline, simd, real))
    device.step, (device.pair, device.fold) = _step(options, term, log), _folds(options)
    device.value = _value(options, exp)
    device.loss, device.factors = _loss(options, device), _factors(options)
    return device


def _transform(options: Options, tanh: Any) -> Any:
    """z = softcap(scale·x), infinities staying what they are: -inf is a masked class, +inf a fault to be seen.

    Also its two steps, x to scale·x and on to z: the second never falls, so a maximum can be found between them.
    """
    scale = splice(lambda x, curve: x * curve[0])
    same = splice(lambda x, curve: x)
    if options.transform != "softcap":
        line = scale if options.transform else same
        return line, line, same

    @inline
    def bend(v: Any, curve: Any) -> Any:
        return select(absolute(v) == math.inf, v, tanh(v * curve[2]) * curve[1])

    return splice(lambda x, curve: bend(x * curve[0], curve)), scale, bend


def _step(options: Options, term: Any, log: Any) -> Any:
    """One vector's share in the sums over classes.

    A scored target (`hot`) is left out of `rest` and `square`, which make its Brier score: 1 - p would cancel.
    """
    soft, smoothed, weighted = options.target == "soft", options.smoothed, options.weighted
    divergence, scored = options.divergence, options.result == "score"
    least = numerics.LEAST[options.real_type]

    @splice
    def step(z: Any, valid: Any, hot: Any, ref: Any, y: Any, w: Any, sums: Any) -> Any:
        pair, some, total, shift, seen, mass, moment, negentropy, energy, rest, square = sums
        lead = z - ref
        t = maximum(least, lead)
        e = term(t)
        pair = pair + e
        if smoothed:
            if weighted:  # a class of weight 0 adds nothing, at -inf too
                shift, seen = shift + select(valid & (w != 0.0), lead * w, 0.0), seen + w
            else:
                shift = shift + select(valid, lead, 0.0)
        if soft:
            a = wide(y * w if weighted else y)
            mass = mass + a
            moment = fma(a, select(a == 0.0, 0.0, wide(z) - wide(ref)), moment)
            if divergence:
                negentropy = negentropy + select(a > 0.0, a * log(a), a)
        if scored:
            energy = fma(e, t, energy)  # a masked class has e = 0
            other = select(hot, 0.0, e)
            rest = rest + other
            square = fma(other, other, square)
        return pair, some, total, shift, seen, mass, moment, negentropy, energy, rest, square

    return step


def _folds(options: Options) -> Any:
    """Take the sum of two exponentials over to that of some, and that to float64.

    A term near 1 swallows small ones that are added to it, so they are added to each other first, and not for long.
    """
    X = options.logits

    @splice
    def pair(sums: Any) -> Any:
        return (full(X, -0.0), sums[1] + sums[0]) + sums[2:]  # noqa: RUF005

    @splice
    def fold(sums: Any) -> Any:
        return (full(X, -0.0), full(X, 0.0), sums[2] + wide(sums[1] + sums[0])) + sums[3:]  # noqa: RUF005

    return pair, fold


def _value(options: Options, exp: Any) -> Any:
    """One vector of the output: softmax, log-softmax, or the gradient gain·e^(z - top) - hit·y - uniform·w."""
    gradient, hard = options.output == "gradient", options.target == "hard"
    soft, weighted, smoothed = options.target == "soft", options.weighted, options.smoothed
    logarithmic, capped = options.output == "log_softmax", options.transform == "softcap"

    @splice
    def value(z: Any, y: Any, w: Any, hot: Any, top: Any, factors: Any, curve: Any) -> Any:
        gain, hit, uniform = factors
        if logarithmic:
            return (z - top) - gain
        g = exp(z - top) * gain
        if gradient:
            if hard:
                g = select(hot, g - hit, g)
            if soft:
                g = g - (y * w if weighted else y) * hit
            if smoothed:
                g = g - (w * uniform if weighted else uniform)
            if capped:
                ratio = z * curve[2]
                g = g * select(absolute(z) == math.inf, 0.0, 1.0 - ratio * ratio)
        return g

    return value


def _loss(options: Options, device: SimpleNamespace) -> Any:
    """A row's weighted loss in float64, from the sums over its classes."""
    smoothed, divergence = options.smoothed, options.divergence
    nll, smooth = device.nll, device.smooth

    @splice
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


def _factors(options: Options) -> Any:
    """What `value` needs of a row, in float64: gain, hit and uniform."""
    output, smoothed, hard = options.output, options.smoothed, options.target == "hard"

    @splice
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
