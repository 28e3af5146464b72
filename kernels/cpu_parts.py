"""What the row and the lane kernels of the CPU share: their options, their arguments, and the work per vector."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import numerics, roots, simd
from .calls import integers, reals
from .jit import inline, splice
from .row_parts import Flags, curves, kept_value, output_factors, output_value, row_loss
from .simd import Format, fma, full, maximum, narrow, select, wide


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
    kept: bool = False  # row kernels: few classes, whose exponentials are kept for the output
    binary: bool = False  # row kernels: exponentials that are only added up, to a reference of the summand's choice
    gathered: bool = False  # lane kernels: rows that do not lie side by side
    held: bool = False  # lane kernels: few classes, which are copied before they are worked on
    turned: bool = False  # lane kernels: few classes that lie side by side, turned as they are copied
    registers: int = 128  # so many bits have the processor's: 512 those of AVX-512, 256 those of AVX2

    @property
    def real(self) -> Format:
        """Vectors of the arithmetic type as they lie in memory."""
        return Format(self.logits.real, self.logits.lanes, self.logits.real)

    @property
    def bent(self) -> bool:
        """Row kernels: whether a block's logits are bent before they are worked on."""
        return self.transform == "softcap"

    @property
    def wide(self) -> bool:
        """Whether registers have 512 bits, and so there are 32 of them."""
        return self.registers == 512

    @property
    def packed(self) -> bool:
        """Whether maxima are found of 16 bits as they lie: where registers are wide and many, and nothing scales."""
        return self.wide and self.logits.itemsize == 2 and not self.transform

    @property
    def guessed(self) -> bool:
        """Row kernels: whether a block's maximum is found by the loop that adds up, which has registers for it.

        In float64 the sums would keep less of what lies far above the guess; 16 bits wait for no memory.
        """
        return self.binary and self.logits.code == "f4"

    @property
    def real_type(self) -> Any:
        """NumPy's name of the arithmetic type."""
        return np.float32 if self.logits.real == "f4" else np.float64


LAYOUT = "inner classes x_outer x_class x_inner y_outer y_class y_inner out_outer out_class out_inner".split()
PLACES = (
    "x target out class_weight sample_weight ignore_index block sums loss log_normalizer prediction confidence entropy "
    "rank brier"
).split()
INTEGERS = (*LAYOUT, *PLACES)
REALS = "smoothing z_loss scale cap grad_scale weight_total".split()
"""The arguments of a call, in the order in which they are packed: what its arrays' shapes decide comes first."""


@cache
def arguments(real: Format) -> Any:
    """Unpack a call: inner axis and classes; logits, targets and output, each an address and three strides; the rest.

    What depends on less than all the options is made once, so that the kernels of a process share what is compiled.
    """
    n_integers, n_reals = len(INTEGERS), len(REALS)

    @inline
    def unpack(call: Any) -> Any:
        (inner, classes, x_outer, x_class, x_inner, y_outer, y_class, y_inner, out_outer, out_class, out_inner,
         x, target, out, class_weight, sample_weight, ignore_index, block, sums, loss, log_normalizer, prediction,
         confidence, entropy, rank, brier) = integers(call, 0, n_integers)  # fmt: skip
        smoothing, z_loss, scale, cap, grad_scale, weight_total = reals(call, n_integers, n_reals)
        at_x, at_y = (x, x_outer, x_class, x_inner), (target, y_outer, y_class, y_inner)
        at_out, to = (out, out_outer, out_class, out_inner), (prediction, confidence, entropy, rank, brier)
        curve = narrow(real, scale), narrow(real, cap), narrow(real, 1.0 / cap)
        terms = smoothing, z_loss, weight_total, grad_scale
        given, batch = (class_weight, sample_weight, ignore_index), (target, loss, ignore_index, block, sums)
        return (inner, classes), (at_x, at_y, at_out), given, (loss, log_normalizer, to), curve, terms, batch

    return unpack


@cache
def _curves(transform: str, real: Any) -> Any:
    return curves(Flags("", transform=transform), splice, simd, real, inline=inline)


def device_functions(options: Options) -> SimpleNamespace:
    """The formulas in these options' arithmetic type, for vectors and scalars alike."""
    real = options.real_type
    exp, log = numerics.exponential(inline, simd, real), numerics.logarithm(inline, simd, real)
    table, binary = roots.table(real, options.registers), options.binary
    term = numerics.summand(inline, simd, real, table, binary=binary)
    device = SimpleNamespace(exp=exp, log=log, **vars(numerics.row_formulas(splice, simd)))
    device.transform, device.line, device.bend = _curves(options.transform, real)
    device.step, (device.pair, device.fold) = _step(options, term, numerics.logarithm(inline, simd)), _folds(options)
    device.term, device.origin = term, numerics.origin(inline, simd, real, table, binary=binary)
    device.rescale = _rescale(options, exp)
    if options.logits.itemsize == 2:
        exp = _product(term, device.origin, real)
    elif table:
        exp = numerics.table_exponential(inline, simd, real, table)
    device.value = output_value(options, splice, simd, real, exp)
    device.kept_value = kept_value(options, splice, simd, real)
    device.loss, device.factors = row_loss(options, splice, simd, device), output_factors(options, splice)
    return device


def output_terms(options: Options, device: SimpleNamespace) -> Any:
    """What `output_value` needs of a row, or of a lane's rows, in the arithmetic type; a logarithm only if it does."""
    R, factors_of, log, logarithmic = options.real, device.factors, device.log, options.output == "log_softmax"

    @splice
    def factors(mass: Any, top: Any, d: Any, weight: Any, classes: Any, terms: Any) -> Any:
        logd = d
        if logarithmic or terms[1] != 0.0:
            logd = log(d)
        gain, hit, uniform = factors_of(mass, wide(top), d, logd, weight, classes, terms)
        return narrow(R, gain), narrow(R, hit), narrow(R, uniform)

    return factors


@cache
def _product(term: Any, origin: Any, real: Any) -> Any:
    """e^t for an output of 16 bits, whose rounding hides an ulp of the arithmetic."""
    zero = real(0)

    @splice
    def exp(t: Any) -> Any:
        _, least, raised = origin(zero)
        fraction, power = term(maximum(least, t), raised)
        return fraction * power

    return exp


def _step(options: Options, term: Any, log: Any) -> Any:
    """One vector's exponentials, and the sums over classes with its share.

    A frame is the reference, and what `origin` makes of it.
    A scored target (`hot`) is left out of `rest` and `square`, which make its Brier score: 1 - p would cancel. Where it
    is not looked for, the rest is what the total gains.
    """
    soft, smoothed, weighted = options.target == "soft", options.smoothed, options.weighted
    divergence, scored = options.divergence, options.result == "score"

    @splice
    def step(z: Any, valid: Any, hot: Any, aimed: Any, frame: Any, y: Any, w: Any, sums: Any) -> Any:
        pair, some, total, shift, seen, mass, moment, negentropy, energy, rest, square = sums
        ref, away, least, raised = frame
        lead = z - away
        t = maximum(least, lead)
        fraction, power = term(t, raised)
        e, pair = fraction * power, fma(fraction, power, pair)
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
            if aimed:
                rest = rest + other
            square = fma(other, other, square)
        return e, (pair, some, total, shift, seen, mass, moment, negentropy, energy, rest, square)

    return step


def _rescale(options: Options, exp: Any) -> Any:
    """Take sums over `number` classes from a reference to one that is higher, a `fall` of 0 or less away."""
    X, smoothed, weighted, scored = options.logits, options.smoothed, options.weighted, options.result == "score"

    @splice
    def rescale(fall: Any, number: Any, sums: Any) -> Any:
        total, shift, seen, mass, moment, energy, rest, square = sums
        factor = wide(exp(narrow(X, fall)))
        if scored:
            energy = select(factor > 0.0, factor * (energy + fall * total), 0.0)
            rest, square = factor * rest, factor * factor * square
        if smoothed:
            shift = shift + fall * (seen if weighted else number)
        moment = moment + select(mass == 0.0, 0.0, fall * mass)
        return total * factor, shift, moment, energy, rest, square

    return rescale


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
