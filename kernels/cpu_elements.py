"""CPU kernels on single elements: binary losses, squared error, sigmoid, binary scores; vectors along the columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import SEGMENT, simd
from .calls import integers, reals
from .element_parts import SETTINGS, Device, element_values, pointwise
from .jit import apart, inline, kernel, splice
from .memory import any_set, fence, fetch, first, poke_real, put, stream
from .prefetch import prefetch_vector
from .reductions import hsum, lowest
from .simd import Format, full, full_wide, narrow, select, wide

AHEAD = 4096  # bytes
OPERANDS = "x target weight pos_weight out loss nll probability prediction brier".split()
INTEGERS = ["columns", "segments", *(f"{name}{part}" for name in OPERANDS for part in ("", "_row", "_col")), "sums"]
REALS = (*SETTINGS, "threshold")


@dataclass(frozen=True)
class ElementOptions:
    """What an elementwise kernel is specialised for.

    `operands` has a format for each array of the call, by name.
    """

    formula: str
    logits: Format
    operands: tuple[tuple[str, Format], ...]
    streamed: bool = False  # write the output past the caches; each of its segments starts on a cache line

    def operand(self, name: str) -> Format:
        """The format of an operand; one that is absent is read as 1."""
        fmt = self.logits
        return dict(self.operands).get(name, Format(fmt.real, fmt.lanes, fmt.real, "absent"))


def device_of(options: ElementOptions) -> Device:
    """The vectors that the formulas are made for."""
    X = options.logits
    real = np.float32 if X.real == "f4" else np.float64
    return Device(splice, inline, simd, real, splice(lambda v: narrow(X, v)), splice(lambda: first(X, 0)))


def element_loader(options: ElementOptions) -> Any:
    """A vector of the logits, targets, weights and positive weights."""
    XO, YO, WO, QO = (options.operand(name) for name in OPERANDS[:4])

    @splice
    def read(at: Any, k: Any, mask: Any) -> Any:
        (x, xs), (y, ys), (w, ws), (q, qs), _, _ = at
        z, target = fetch(XO, x, xs, k, mask), fetch(YO, y, ys, k, mask)
        return z, target, fetch(WO, w, ws, k, mask), fetch(QO, q, qs, k, mask)

    return read


def element_losses(options: ElementOptions) -> Any:
    """One segment of a loss and its gradient, or of sigmoid: its sum in float64, and the first column that is wrong."""
    X, lanes = options.logits, options.logits.lanes
    XO, YO, WO, _, GO, LO = (options.operand(name) for name in OPERANDS[:6])
    checked, streamed, weighted = options.formula == "binary_log_loss", options.streamed, WO.lies != "absent"
    read, values = element_loader(options), element_values(options.formula, device_of(options), weighted=weighted)

    @inline
    def part(at: Any, k: Any, n: Any, settings: Any) -> Any:
        _, _, _, _, (o, os), (l, ls) = at
        mask = first(X, n)
        value, gradient, wrong = values(read(at, k, mask), mask, settings)
        put(GO, o, os, k, mask, gradient)
        put(LO, l, ls, k, mask, value)
        return wide(select(mask, value, 0.0)), k + lowest(wrong) if checked and any_set(wrong) else -1

    @inline
    def segment(at: Any, k: Any, end: Any, settings: Any) -> Any:
        apart()
        (x, xs), (y, ys), _, _, (o, os), (l, ls) = at
        total, every = full_wide(X, 0.0), first(X, lanes)
        while k + lanes <= end:
            prefetch_vector(XO, x + k * xs + AHEAD)
            prefetch_vector(YO, y + k * ys + AHEAD)
            value, gradient, wrong = values(read(at, k, every), every, settings)
            if checked and any_set(wrong):
                return 0.0, k + lowest(wrong)
            if streamed:
                stream(X, o, k, gradient)
            else:
                put(GO, o, os, k, every, gradient)
            put(LO, l, ls, k, every, value)
            total = total + wide(value)
            k += lanes
        if k < end:
            value, wrong_at = part(at, k, end - k, settings)
            total = total + value
            if wrong_at >= 0:
                return 0.0, wrong_at
        return hsum(total), -1

    return segment


def make_elements(options: ElementOptions) -> Any:
    """The kernel over segments for these options."""
    segment, scores = element_losses(options), element_scores(options)
    scored = options.formula == "score_binary"
    streamed = options.streamed
    n_integers, n_reals = len(INTEGERS), len(REALS)

    @kernel(options)
    def elements(call: Any, lo: Any, hi: Any) -> Any:
        (columns, segments, x, xr, xc, y, yr, yc, w, wr, wc, q, qr, qc, o, o_r, oc, l, lr, lc, n, nr, nc, p, pr, pc,
         d, dr, dc, b, br, bc, sums) = integers(call, 0, n_integers)  # fmt: skip
        settings = reals(call, n_integers, n_reals)
        for number in range(lo, hi):
            r = number // segments
            start = (number - r * segments) * SEGMENT
            end = min(start + SEGMENT, columns)
            read = (x + r * xr, xc), (y + r * yr, yc), (w + r * wr, wc), (q + r * qr, qc)
            if scored:
                to = (n + r * nr, nc), (p + r * pr, pc), (d + r * dr, dc), (b + r * br, bc)
                scores(read, to, start, end, settings)
            else:
                total, wrong = segment((*read, (o + r * o_r, oc), (l + r * lr, lc)), start, end, settings)
                if wrong >= 0:
                    return r * columns + wrong
                if sums:
                    poke_real(sums + 8 * number, total)
        if streamed:
            fence()
        return -1

    return elements


def element_scores(options: ElementOptions) -> Any:
    """One segment of binary scores; without a target only the probability and the prediction."""
    X, lanes = options.logits, options.logits.lanes
    XO, YO, NO, PO, DO, BO = (options.operand(name) for name in (*OPERANDS[:2], *OPERANDS[6:]))
    formula, sigmoid = (pointwise(name, device_of(options)) for name in ("score_binary", "sigmoid"))
    aimed, threshold = YO.lies != "absent", len(SETTINGS)

    @inline
    def scores(read: Any, to: Any, k: Any, end: Any, settings: Any) -> Any:
        apart()
        (x, xs), (y, ys), _, _ = read
        (n, ns), (p, ps), (d, ds), (b, bs) = to
        while k < end:
            mask = first(X, end - k)
            z = fetch(XO, x, xs, k, mask)
            share = sigmoid(z, z, z, settings)[1]
            put(PO, p, ps, k, mask, share)
            put(DO, d, ds, k, mask, select(share > settings[threshold], full(X, 1.0), 0.0))
            if aimed:
                t = fetch(YO, y, ys, k, mask)
                loss, miss = formula(z, t, full(X, 1.0), settings)  # the gradient is p - t
                put(NO, n, ns, k, mask, loss)
                put(BO, b, bs, k, mask, miss * miss)
            k += lanes

    return scores
