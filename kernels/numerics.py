"""The formulas, written once: each factory takes a device's compiler and operations and returns functions for it.

``jit`` decorates a device function, ``ops`` has the operations ``fma select maximum minimum absolute pow2 exponent
mantissa`` on that device's values (vectors or scalars), ``real`` makes constants: numpy.float32 or numpy.float64.
``maximum(a, b)`` and ``minimum(a, b)`` return ``b`` when either is NaN, so a NaN in ``b`` goes through. What a factory
has made it gives again, so that the kernels of a process share what is compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from .coefficients import EXP2, EXP_LOOKED_UP, EXP_LOOKED_UP_SUMMED, EXP_SUMMED, EXPM1, LOG, LOG1P, LOG_RATIO

Jit = Callable[[Callable[..., Any]], Callable[..., Any]]

LOG2E_REST = {np.float32: 1.9259629911266175e-08, np.float64: 2.0355273740931033e-17}
LN2_REST = {np.float32: -1.904654299957768e-09, np.float64: 2.3190468138462996e-17}
"""What log2(e) and log 2 lose when they are rounded."""
LN2, LOG2E = math.log(2), math.log2(math.e)
LEAST = {np.float32: -127 * LN2, np.float64: -1023 * LN2}
"""Where e^t is taken for 0: the exponent's bits are."""
MAGIC = {np.float32: 1.5 * 2**23 + 127, np.float64: 1.5 * 2**52 + 1023}
"""1.5·2^mantissa rounds what it is added to to an integer, and leaves it, plus the exponent's bias, in the low bits."""
TABLE_MAGIC = {np.float32: 1.5 * 2**23, np.float64: 1.5 * 2**52}
"""Over the parts of a table it rounds to a multiple of one over them, and leaves their number in the low bits."""
LN2_PARTS = (6.93147180369123816490e-01, 1.90821492927058770002e-10)
"""log 2 as a float64 whose products with small integers are exact, and the rest (fdlibm)."""
LEAST_LOG, LEAST_PRODUCT = -100.0, 1e-12
"""PyTorch's bounds of log p and of p(1 - p) in binary_cross_entropy."""


def polynomial(jit: Jit, ops: Any, coefficients: tuple[Any, ...]) -> Callable[..., Any]:
    """Horner's scheme with fused multiply-adds, highest power first; the compiler unrolls it."""
    fma, head, rest = ops.fma, coefficients[0], coefficients[1:]

    @jit
    def evaluate(x: Any) -> Any:
        y = fma(head, x, rest[0])
        for c in rest[1:]:
            y = fma(y, x, c)
        return y

    return evaluate


@cache
def exponential(jit: Jit, ops: Any, real: Any, *, gradual: bool = False) -> Callable[..., Any]:
    """e^t for t well below overflow: within 1.1 ulp, 1 at 0, exactly 0 below 2^-½ of the least normal number.

    e^t = 2^n·2^f with n an integer near t·log2(e) and |f| <= 1/2; adding `MAGIC` leaves n, plus the exponent's bias, in
    the low bits of the sum, whence `ops.pow2` takes it: from about LEAST on, the bits of 0. With `gradual`, t <= 0 may
    have any subnormal result: it is made 2^64 times as large and then scaled.
    """
    log2e, log2e_rest, bias = real(LOG2E), real(LOG2E_REST[real]), 64 if gradual else 0
    raised, scale = real(MAGIC[real] + bias), real(2.0**-bias)
    least = real({np.float32: -104, np.float64: -746}[real] if gradual else LEAST[real])
    fma, maximum, pow2 = ops.fma, ops.maximum, ops.pow2
    power = polynomial(jit, ops, tuple(real(c) for c in (*EXP2[real], 1)))

    @jit
    def exp(t: Any) -> Any:
        t = maximum(least, t)
        shifted = fma(t, log2e, raised)
        n = shifted - raised
        f = fma(t, log2e_rest, fma(t, log2e, -n))
        e = power(f) * pow2(shifted)
        return e * scale if gradual else e

    return exp


@cache
def table_exponential(jit: Jit, ops: Any, real: Any, table: Any) -> Callable[..., Any]:
    """e^t as `exponential` gives it, by 2^n with n a multiple of 1/table.parts, which `table.pow2` looks up.

    The rest r = t - n·log 2 is so small that its polynomial is short.
    """
    log2e, raised, least = real(LOG2E), real(TABLE_MAGIC[real] / table.parts), real(LEAST[real])
    ln2, ln2_rest, fma, maximum, pow2 = real(LN2), real(LN2_REST[real]), ops.fma, ops.maximum, table.pow2
    ratio = polynomial(jit, ops, tuple(real(c) for c in EXP_LOOKED_UP[table.parts]))

    @jit
    def exp(t: Any) -> Any:
        t = maximum(least, t)
        shifted = fma(t, log2e, raised)
        n = raised - shifted
        r = fma(n, ln2_rest, fma(n, ln2, t))
        power = pow2(shifted)
        return fma(power, r * ratio(r), power)

    return exp


@cache
def summand(jit: Jit, ops: Any, real: Any, table: Any = None, *, binary: bool = False) -> Callable[..., Any]:
    """e^t as a product of two, for the terms of a sum that has a term 1, and t >= LEAST; `raised` is that of `origin`.

    Within 3 ulp, and |t|/16 more for a small one; 1 times 1 at 0, and 0 at LEAST. With a `table` as in
    `table_exponential`. A `binary` one is 2^(t·log2(e) - c), with the c of any `origin` and log2(e) as it is rounded:
    |t|/4 more.
    """
    log2e, ln2, ln2_rest, single = real(LOG2E), real(LN2), real(LN2_REST[real]), real is np.float32
    fma, pow2 = ops.fma, table.pow2 if table else ops.pow2
    coefficients = EXP_LOOKED_UP_SUMMED[table.parts] if table else EXP_SUMMED[real]
    if binary:
        coefficients = tuple(c * LN2 ** (len(coefficients) - k) for k, c in enumerate(coefficients))
    power = polynomial(jit, ops, tuple(real(c) for c in (*coefficients, 1)))

    @jit
    def rest_of(t: Any, n: Any) -> Any:
        if binary:
            return fma(t, log2e, n)
        return fma(n, ln2, t) if single else fma(n, ln2_rest, fma(n, ln2, t))

    @jit
    def factors(t: Any, raised: Any) -> Any:
        shifted = fma(t, log2e, raised)
        n = raised - shifted
        return power(rest_of(t, n)), pow2(shifted)

    return factors


@cache
def origin(jit: Jit, ops: Any, real: Any, table: Any = None, *, binary: bool = False) -> Callable[..., Any]:
    """What makes e^(z - ref) of a `summand`: what z is lowered by, its least value then, and what raises it.

    A `binary` one lowers nothing, unless ref is huge: what raises z·log2(e), exactly, is less by c, the multiple of the
    summand's grain that is next to ref·log2(e). So ref has no term 1, but one that all the others may be divided by.
    """
    log2e, ln2, zero, least = real(LOG2E), real(LN2), real(0), real(LEAST[real])
    raised = real(TABLE_MAGIC[real] / table.parts if table else MAGIC[real])
    absolute, huge = ops.absolute, raised / real(8)

    @jit
    def start(ref: Any) -> Any:
        if binary and absolute(ref) < huge:
            lower = raised - ref * log2e
            return zero, (raised - lower) * ln2 + least, lower
        return ref, least, raised

    return start


@cache
def logarithm(jit: Jit, ops: Any, real: Any = np.float64) -> Callable[..., Any]:
    """log x in float64 for x >= 0, within 1 ulp; for results in float32 within 1.25e-10 of itself, without a division.

    Subnormals give -inf, NaN and +inf themselves. What is within 1 ulp is that of fdlibm's e_log.c.
    """
    fma, select, exponent, mantissa = ops.fma, ops.select, ops.exponent, ops.mantissa
    first, second, others = LOG[0], LOG[1], LOG[2:]
    (high, low), ln2, least = LN2_PARTS, LN2, 2.2250738585072014e-308
    single, ratio = real is np.float32, polynomial(jit, ops, LOG_RATIO)

    @jit
    def log(x: Any) -> Any:
        e, m = exponent(x), mantissa(x)
        large = m > 1.4142135623730951
        e, f = select(large, e + 1.0, e), select(large, 0.5 * m, m) - 1.0
        if single:
            y = fma(e, ln2, f * ratio(f))
        else:
            s = f / (f + 2.0)
            z = s * s
            half = 0.5 * f * f
            r = fma(first, z, second)
            for c in others:
                r = fma(r, z, c)
            y = e * high - ((half - (s * (half + z * r) + e * low)) - f)
        return select(x < least, -math.inf, select(x < math.inf, y, x))

    return log


@cache
def soft_cap(jit: Jit, ops: Any, real: Any) -> Callable[..., Any]:
    """cap·tanh(v/cap) within 5 ulp, from v, cap and 1/cap: tanh(b/2) = m/(m + 2) with m = e^b - 1 and b = 2v/cap.

    m = 2^n·(e^r - 1) + (2^n - 1), with b = n·log 2 + r.
    """
    single, fma, maximum, minimum, pow2 = real is np.float32, ops.fma, ops.maximum, ops.minimum, ops.pow2
    (high, low), ln2, log2e, magic = LN2_PARTS, real(LN2), real(LOG2E), real(MAGIC[real])
    bound, one, two = real(20 if single else 40), real(1), real(2)  # beyond it tanh(b/2) rounds to 1
    rest = polynomial(jit, ops, tuple(real(c) for c in EXPM1[real]))

    @jit
    def capped(v: Any, cap: Any, over_cap: Any) -> Any:
        b = maximum(-bound, minimum(bound, v * (over_cap + over_cap)))
        shifted = fma(b, log2e, magic)
        n = shifted - magic
        r = fma(n, -ln2, b) if single else fma(n, -low, fma(n, -high, b))
        power = pow2(shifted)
        m = fma(power, fma(r * r, rest(r), r), power - one)
        return m / (m + two) * cap

    return capped


@cache
def row_formulas(jit: Jit, ops: Any) -> SimpleNamespace:
    """What a row's sums come to, in float64: ``top`` is the row's maximum and ``logd`` = log Σ exp(z - top)."""
    maximum, select = ops.maximum, ops.select

    @jit
    def nll(mass: Any, moment: Any, logd: Any) -> Any:
        """Σ y·(lse - z), from mass = Σ y and moment = Σ y·(z - top); never from lse alone."""
        return mass * logd - moment

    @jit
    def smooth(loss: Any, smoothing: Any, classes: Any, weights: Any, logd: Any, shift: Any) -> Any:
        """(1 - ε)·loss + (ε/C)·Σ w·(lse - z), from weights = Σ w and shift = Σ w·(z - top)."""
        return (1.0 - smoothing) * loss + (smoothing / classes) * (weights * logd - shift)

    @jit
    def entropy(logd: Any, energy: Any) -> Any:
        """-Σ p·log p, from energy = Σ p·(z - top)."""
        return maximum(0.0, logd - energy)

    @jit
    def brier(miss: Any, squares: Any) -> Any:
        """(1 - p_y)² + Σ p² over the other classes, from miss = 1 - p_y and squares = Σ p²."""
        return miss * miss + squares

    @jit
    def log_normalizer(top: Any, logd: Any) -> Any:
        """lse, which is the maximum itself where that is infinite."""
        return select((top == math.inf) | (top == -math.inf), top, top + logd)

    return SimpleNamespace(nll=nll, smooth=smooth, entropy=entropy, brier=brier, log_normalizer=log_normalizer)


@cache
def binary_formulas(jit: Jit, ops: Any, real: Any, exp: Callable[..., Any]) -> SimpleNamespace:
    """Losses of a logit against a binary target, and their derivatives, elementwise."""
    absolute, fma, select = ops.absolute, ops.fma, ops.select
    zero, one = real(0), real(1)
    log1p_ratio = polynomial(jit, ops, tuple(real(c) for c in LOG1P[real]))

    @jit
    def loss_and_gradient(x: Any, positive: Any, negative: Any) -> Any:
        """For weights q·y and 1-y: (1-y)·softplus(x) + q·y·softplus(-x), (1-y)·σ(x) - q·y·σ(-x); nothing cancels."""
        size = absolute(x)
        e = exp(-size)
        rising = x >= zero
        against = select(rising, negative, positive)  # the weight of the class that the logit speaks against
        loss = fma(positive + negative, e * log1p_ratio(e), select(against == zero, zero, against * size))
        share = one / (one + e)
        other = e * share
        gradient = negative * select(rising, share, other) - positive * select(rising, other, share)
        return loss, gradient

    @jit
    def sigmoid(x: Any) -> Any:
        """1/(1 + e^-x), with no overflow on either side."""
        e = exp(-absolute(x))
        share = one / (one + e)
        return select(x >= zero, share, e * share)

    return SimpleNamespace(loss_and_gradient=loss_and_gradient, sigmoid=sigmoid)


def clip_range(eps: float, real: Any) -> tuple[float, float]:
    """The ends of [eps, 1 - eps] as the arithmetic type `real` has them: in float32, 1 - 1e-7 is 1 - 1.19e-7."""
    least = real(eps)
    return float(least), float(real(1) - least)


@cache
def bounded_logs(jit: Jit, ops: Any, log: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    """log(p + log_eps), log(1 - p + log_eps) and the derivative of the former, within PyTorch's bounds, in float64."""
    maximum, floor, least = ops.maximum, LEAST_LOG, LEAST_PRODUCT

    @jit
    def log_p(p: Any, log_eps: Any) -> Any:
        return maximum(floor, log(p + log_eps))

    @jit
    def log_rest(p: Any, log_eps: Any) -> Any:
        """What the sum rounds off is put back."""
        change = log_eps - p
        rest = 1.0 + change
        return maximum(floor, log(rest) + (change - (rest - 1.0)) / maximum(least, rest))

    @jit
    def slope(p: Any, log_eps: Any) -> Any:
        return 1.0 / maximum(least, p + log_eps)

    return log_p, log_rest, slope


@cache
def probability_formulas(jit: Jit, ops: Any, log: Callable[..., Any]) -> SimpleNamespace:
    """Losses of a probability against a target, and their derivatives, in float64."""
    maximum, minimum, select, least = ops.maximum, ops.minimum, ops.select, LEAST_PRODUCT
    log_p, log_rest, slope = bounded_logs(jit, ops, log)

    @jit
    def clip(p: Any, low: Any, high: Any) -> Any:
        return minimum(high, maximum(low, p))

    @jit
    def clipped(p: Any, low: Any, high: Any) -> Any:
        """Where `clip` changes p, so that nothing depends on it."""
        return (p < low) | (p > high)

    @jit
    def class_loss(p: Any, y: Any, low: Any, high: Any, log_eps: Any) -> Any:
        """y·log p; 0 where y is 0, whatever p is."""
        return select(y == 0.0, 0.0, y * log_p(clip(p, low, high), log_eps))

    @jit
    def class_slope(p: Any, y: Any, low: Any, high: Any, log_eps: Any, factor: Any) -> Any:
        """The derivative of y·log p, times a factor; 0 where y is 0, and outside the clip range."""
        beyond = (y == 0.0) | clipped(p, low, high)
        return select(beyond, 0.0, y * slope(clip(p, low, high), log_eps) * factor)

    @jit
    def loss_and_gradient(p: Any, y: Any, no: Any, low: Any, high: Any, log_eps: Any) -> Any:
        """-[y·log p + no·log(1 - p)], where no = 1 - y, and its derivative, 0 outside the clip range."""
        c = clip(p, low, high)
        rest = 1.0 - c
        loss = 0.0 - (y * log_p(c, log_eps) + no * log_rest(c, log_eps))  # a minus sign would make 0 of it -0
        if log_eps == 0.0:
            gradient = (c - y) / maximum(least, c * rest)
        else:
            gradient = no * slope(rest, log_eps) - y * slope(c, log_eps)
        return loss, select(clipped(p, low, high), 0.0, gradient)

    return SimpleNamespace(class_loss=class_loss, class_slope=class_slope, loss_and_gradient=loss_and_gradient)


def bin_finder(jit: Jit, whole: Callable[..., Any]) -> Callable[..., Any]:
    """The bin b with confidence in (b/bins, (b+1)/bins], 0 for 0 too; -1 for NaN. `whole` gives the integral part."""

    @jit
    def bin_of(confidence: Any, bins: Any) -> Any:
        if not confidence >= 0.0:
            return -1
        b = min(whole(confidence * bins), bins - 1) if confidence < 1.0 else bins - 1
        while b > 0 and confidence <= b / bins:  # the product rounds, the edges rule
            b -= 1
        while b < bins - 1 and confidence > (b + 1) / bins:
            b += 1
        return b

    return bin_of
