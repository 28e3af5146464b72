"""What the row and the lane kernels of CUDA share: options, arguments, and the sums over a batch of classes.

A thread adds up its classes in batches. Within a batch the exponentials are added to each other in the arithmetic type,
relative to the thread's maximum so far; batches are added in float64. In float32 the maximum is found on the way, so
that a row is read once; float64 logits are read twice, and every sum is relative to the row's maximum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import cuda_machine, numerics
from .cuda_machine import chain, each, ex2, fma, fmax, fold, jit, maximum, peek, real, select, wide
from .cuda_ops import LOWEST, SIZES, greater, plus
from .row_parts import curves, output_factors, output_value, row_loss

LAYOUT = "inner classes x_outer x_class x_inner y_outer y_class y_inner out_outer out_class out_inner".split()
PLACES = (
    "x target out class_weight sample_weight ignore_index loss log_normalizer prediction confidence entropy rank brier "
    "scale_at weights_at status kept"
).split()
INTEGERS = (*LAYOUT, *PLACES, "lo", "hi")
REALS = "smoothing z_loss scale cap grad_scale weight_total".split()
"""The arguments of a kernel over classes, in its order: `scale_at` and `weights_at` are 0 or where a factor of the
gradient and Σ w lie, `status` is where an offence is reported, `kept` how many times 16 bytes of a row are kept
in shared memory."""

BATCH = 8
"""Classes that a thread with a row of its own has in flight."""
FAR = -200.0
"""As good as -inf for what is raised to a power, but harmless where it is multiplied by 0."""


@dataclass(frozen=True)
class CudaOptions:
    """What a CUDA kernel over classes is specialised for: `Flags`, how its arrays lie, and the threads of a row."""

    logits: str  # bf, f2, f4 or f8
    result: str
    target: str = ""  # "hard", "soft" or ""
    target_code: str = ""  # how hard targets lie in memory
    soft: str = ""  # how soft ones do
    weighted: bool = False
    smoothed: bool = False
    divergence: bool = False
    transform: str = ""
    output: str = ""
    group: int = 1  # threads of a row
    threads: int = 128  # of a block
    tiled: bool = False  # lane kernels: rows that follow each other, of few classes

    @property
    def real(self) -> str:
        """The code of the arithmetic type."""
        return "f8" if self.logits == "f8" else "f4"

    @property
    def real_type(self) -> Any:
        """NumPy's name of the arithmetic type."""
        return np.float64 if self.logits == "f8" else np.float32

    @property
    def lanes(self) -> int:
        """Elements of 16 bytes."""
        return 16 // SIZES[self.logits]

    @property
    def vectors(self) -> int:
        """Loads of 16 bytes of logits that a thread has in flight: as many as it has registers for."""
        return 2 if self.target == "soft" or self.weighted or self.transform == "softcap" else 4

    @property
    def online(self) -> bool:
        """Whether the maximum is found while the exponentials are added up."""
        return self.real == "f4"

    @property
    def matched(self) -> bool:
        """Whether a hard target is found class by class, so that it adds up as a one-hot target does, to the bit.

        In float32 it is so anyway: the products of the sums are exact in float64.
        """
        return self.target == "hard" and not self.online and self.result != "score"


def device_functions(options: CudaOptions) -> SimpleNamespace:
    """The formulas in these options' arithmetic type."""
    real = options.real_type
    exact = numerics.exponential(jit, cuda_machine, real)
    log2e = real(numerics.LOG2E)
    near = jit(lambda t: ex2(t * log2e))  # within 2 units in the last place for t near 0, more for a small result
    device = SimpleNamespace(
        exp=exact if options.logits in ("f4", "f8") else near,
        term=near if options.online else exact,
        log=numerics.logarithm(jit, cuda_machine),
        **vars(numerics.row_formulas(jit, cuda_machine)),
    )
    device.transform, _, _ = curves(options, jit, cuda_machine, real, inline=jit)
    device.value = output_value(options, jit, cuda_machine, real, device.exp)
    device.loss, device.factors = row_loss(options, jit, cuda_machine, device), output_factors(options, jit)
    return device


# The sums of a thread: maximum; reference; (Σ e^t, Σ e^t·t, Σ e^t and Σ e^2t without the target); (how many classes
# rank before the target, the first class of the batch that holds the maximum); (Σ w·z, Σ y, Σ y·z, Σ y·log y). With
# float64 logits z is relative to the maximum.


def no_sums(options: CudaOptions) -> Any:
    """Sums over nothing, relative to a reference that is known, or the least there is."""
    real, online = options.real_type, options.online
    minus, lowest, zero = real(-math.inf), real(LOWEST), np.float64(0)

    @jit
    def start(reference: Any) -> Any:
        base = lowest if online else reference
        return minus, base, (zero, zero, zero, zero), (0, -1), (zero, zero, zero, zero)

    return start


def exponential_sums(options: CudaOptions, term: Any) -> Any:
    """Σ e^t and Σ e^t·t over the logits of a vector, relative to a reference; Σ e^t and Σ e^2t without the target.

    In float64. What 1 - p would cancel in the Brier score is so added up by itself.
    """
    least, zero = (options.real_type(v) for v in (numerics.LEAST[options.real_type], 0))
    scored = options.result == "score"

    @jit
    def one(items: Any, k: Any, base: Any) -> Any:
        return term(items[0] - base)

    @jit
    def lead(items: Any, k: Any, base: Any) -> Any:
        return items[0] * maximum(least, items[1] - base)

    @jit
    def other(items: Any, k: Any, ahead: Any) -> Any:
        return select(k == ahead, zero, items[0])

    @jit
    def square(items: Any, k: Any, a: Any) -> Any:
        return items[0] * items[0]

    terms, leads, others, squares, total = each(one), each(lead), each(other), each(square), fold(plus)

    @jit
    def sums(items: Any, k: Any, a: Any) -> Any:
        (z,), (base, first, step, target) = items, a
        e = terms((z,), base)
        if scored:
            rest = others((e,), target - first - k * step)
            energy, squared = wide(total(leads((e, z), base))), wide(total(squares((rest,), base)))
            return wide(total(e)), energy, wide(total(rest)), squared
        return wide(total(e)), nothing, nothing, nothing

    nothing = np.float64(0)
    return sums


def target_sums(options: CudaOptions, log: Any) -> Any:
    """Add Σ w·z, Σ y, Σ y·z and Σ y·log y over a vector, in float64; what has no weight adds nothing, at -inf too."""
    soft, smoothed, weighted = options.target == "soft" or options.matched, options.smoothed, options.weighted
    divergence, online, given = options.divergence, options.online, options.target == "soft"

    @jit
    def one(sums: Any, items: Any, k: Any, base: Any) -> Any:
        (z, y, w), (shift, mass, moment, negentropy) = items, sums
        t = wide(z) if online else wide(z - base)
        if smoothed:
            shift = shift + select(w != zero, wide(w) * t, 0.0)
        if soft:
            a = wide(y) * wide(w) if weighted and given else wide(y)
            mass = mass + a
            moment = fma(a, select(a == 0.0, 0.0, t), moment)
            if divergence:
                negentropy = negentropy + select(a > 0.0, a * log(a), a)
        return shift, mass, moment, negentropy

    zero, through = options.real_type(0), chain(one)

    @jit
    def add(sums: Any, items: Any, k: Any, base: Any) -> Any:
        return through(sums, items, base) if soft or smoothed else sums

    return add


def ranking(options: CudaOptions) -> Any:
    """How many classes of a vector rank before the target: if greater, or equal and first."""

    @jit
    def before(items: Any, k: Any, a: Any) -> Any:
        ahead, z_target, above = a
        return select(items[0] >= select(k < ahead, z_target, above), 1, 0)

    counts, total = each(before), fold(plus)

    @jit
    def rank(items: Any, k: Any, a: Any) -> Any:
        first, step, (target, z_target, above) = a
        return total(counts((items[0],), (target - first - k * step, z_target, above)))

    return each(rank)


def batch(options: CudaOptions, device: SimpleNamespace) -> Any:
    """Add a batch of vectors to a thread's sums: the class `first` and, in each further vector, `step` classes on."""
    real_type, online, scored = options.real_type, options.online, options.result == "score"
    lowest, far, log2e = real_type(LOWEST), real_type(FAR), real_type(numerics.LOG2E)
    largest, total, ranks = fold(greater), fold(plus), ranking(options)
    sums_of, exact_of = each(exponential_sums(options, device.term)), chain(target_sums(options, device.log))

    @jit
    def peak_of(items: Any, k: Any, a: Any) -> Any:
        return largest(items[0])

    @jit
    def added(p: Any, q: Any) -> Any:
        return p[0] + q[0], p[1] + q[1], p[2] + q[2], p[3] + q[3]

    peaks, together = each(peak_of), fold(added)

    @jit
    def add(state: Any, z: Any, y: Any, w: Any, first: Any, step: Any, aimed: Any) -> Any:
        best, base, (mass, energy, rest, square), (before, where), exact = state
        peak = largest(peaks((z,), 0))
        if scored:
            where = select(peak > best, first, where)
            before = before + total(ranks((z,), (first, step, aimed)))
        best = fmax(best, peak)
        if online:
            raised = fmax(best, lowest)
            fall = fmax(base - raised, far)
            factor = wide(ex2(fall * log2e))
            energy = factor * (energy + wide(fall) * mass)
            mass, rest, square, base = factor * mass, factor * rest, factor * factor * square, raised
        here, lead, others, squared = together(sums_of((z,), (base, first, step, aimed[0])))
        exact = exact_of(exact, (z, y, w), base)
        sums = mass + here, energy + lead, rest + others, square + squared
        return best, base, sums, (before, where), exact

    return add


def lanes_sums(options: CudaOptions) -> Any:
    """What a thread's sums of exponentials come to relative to the row's maximum."""
    real, online = options.real_type, options.online
    far, log2e = real(FAR), real(numerics.LOG2E)

    @jit
    def relative(state: Any, base: Any) -> Any:
        _, mine, (total, energy, rest, square), _, _ = state
        if online:
            fall = fmax(mine - base, far)
            factor = wide(ex2(fall * log2e))
            return factor * total, factor * (energy + wide(fall) * total), factor * rest, factor * factor * square
        return total, energy, rest, square

    return relative


def entry(options: CudaOptions, body: Any) -> Any:
    """The kernel over classes that `body` is the rest of: its arguments, put together as they belong."""
    convert, number_at = real(options.real), peek("f8")

    def kernel(inner: Any, classes: Any, x_outer: Any, x_class: Any, x_inner: Any, y_outer: Any, y_class: Any,
               y_inner: Any, out_outer: Any, out_class: Any, out_inner: Any, x: Any, targets: Any, out: Any,
               class_weight: Any, sample_weight: Any, ignore_index: Any, loss: Any, normalizer: Any, prediction: Any,
               confidence: Any, entropy: Any, rank: Any, brier: Any, scale_at: Any, weights_at: Any, status: Any,
               kept: Any, lo: Any, hi: Any, smoothing: Any, z_loss: Any, scale: Any, cap: Any, grad_scale: Any,
               weights: Any) -> None:  # fmt: skip
        if scale_at != 0:
            grad_scale = grad_scale * number_at(scale_at)
        if weights_at != 0:
            weights = number_at(weights_at)
        body(
            (inner, classes, kept, lo, hi), (x, x_outer, x_class, x_inner), (targets, y_outer, y_class, y_inner),
            (out, out_outer, out_class, out_inner), (class_weight, sample_weight, ignore_index, status),
            (loss, normalizer, (prediction, confidence, entropy, rank, brier)),
            (smoothing, z_loss, weights, grad_scale),
            (convert(scale), convert(cap), convert(1.0 / cap)),
        )  # fmt: skip

    return kernel
