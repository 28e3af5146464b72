"""CUDA kernels on single elements: binary losses, squared error, sigmoid, binary scores; some threads a segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import SEGMENT, cuda_machine
from .cuda_compile import Kernel
from .cuda_groups import arithmetic, column, constant, picked, reader, replaced, together, writer
from .cuda_machine import (
    WARP,
    atomic_least,
    block,
    blocks,
    each,
    jit,
    peek,
    poke,
    real,
    select,
    sync,
    thread,
    wide,
)
from .cuda_ops import over_group, plus
from .element_parts import SETTINGS, Device, element_values, pointwise

THREADS = 128
RESIDENT = 512
"""Threads of a multiprocessor for which what is worked on in float64 leaves registers."""
INPUTS = ("x", "target", "sample_weight", "pos_weight")
LOSSES, SCORES = ("loss", "out"), ("nll", "probability", "brier", "prediction")
INTEGERS = 2 + 3 * (len(INPUTS) + 4) + 5
REALS = (*SETTINGS, "threshold")


@dataclass(frozen=True)
class ElementOptions:
    """What an elementwise kernel is specialised for.

    An operand is an element code and how its columns lie, as `cuda_groups` has it, or "absent": an input that is 1.
    """

    formula: str
    code: str
    width: int  # columns of a group
    lanes: int  # threads of a segment, a power of 2
    inputs: tuple[tuple[str, str], ...]  # as in INPUTS
    outputs: tuple[tuple[str, str], ...]  # four, as in LOSSES or SCORES
    summed: bool = False
    ragged: bool = False  # the last group of a row is not whole


def device_of(code: str) -> Device:
    """The numbers that the formulas are made for."""
    scalar = np.float64 if code == "f8" else np.float32
    return Device(jit, jit, cuda_machine, scalar, real(arithmetic(code)), jit(lambda: False))


def _loss(options: ElementOptions) -> Any:
    """``f((x, y, w, q), k, settings)``: (loss, gradient, …, whether x is no probability) of one element."""
    weighted = options.inputs[2][1] != "absent"
    values = element_values(options.formula, device_of(options.code), weighted=weighted)

    @jit
    def loss(operands: Any, k: Any, settings: Any) -> Any:
        value, gradient, wrong = values(operands, True, settings)
        return value, gradient, gradient, gradient, wrong

    return loss


def _score(options: ElementOptions) -> Any:
    """``f((x, y, w, q), k, settings)``: the binary scores of one element."""
    device, threshold = device_of(options.code), len(SETTINGS)
    formula, sigmoid = (pointwise(name, device) for name in ("score_binary", "sigmoid"))
    zero, one = device.real(0), device.real(1)

    @jit
    def score(operands: Any, k: Any, settings: Any) -> Any:
        x, y, _, q = operands
        share = sigmoid(x, y, q, settings)[1]
        loss, miss = formula(x, y, one, settings)  # the gradient is p - y
        return loss, share, miss * miss, select(share > settings[threshold], one, zero), False

    return score


def _settled(options: ElementOptions) -> Any:
    """``f(settings, scale)``: the settings in the arithmetic type; the gradient's scale may lie at an address."""
    cast, load = real(arithmetic(options.code)), peek("f8")
    exact = options.formula == "binary_log_loss"  # its probabilities are worked on in float64
    head = each(jit(lambda setting, k, a: setting[0] if exact else cast(setting[0])))

    @jit
    def settled(settings: Any, scale: Any) -> Any:
        factor = settings[5]
        if scale != 0:
            factor = load(scale)
        return head((settings[:5],), 0) + (cast(factor), cast(settings[6]))  # noqa: RUF005

    return settled


def _one_by_one(one: Any, width: int, zero: Any) -> Any:
    """What a formula in float64 makes of a group, in a loop: next to each other they would not fit the registers."""
    blank, number = constant(width), picked(width)
    rows = each(jit(lambda pair, k, flags: (*pair, pair[1], pair[1], (flags >> k) & 1 != 0)))

    @jit
    def compute(operands: Any, settings: Any) -> Any:
        x, y, w, q = operands
        losses, slopes = blank(zero), blank(zero)
        i = flags = 0
        while i < width:
            row = one((number(x, i), number(y, i), number(w, i), number(q, i)), i, settings)
            losses, slopes = replaced((losses,), (i, row[0])), replaced((slopes,), (i, row[1]))
            flags += select(row[4], 1, 0) << i
            i += 1
        return rows((losses, slopes), flags)

    return compute


def group_parts(options: ElementOptions, width: int) -> tuple[Any, ...]:
    """What is done with a group of so many columns: read, compute, write, add up, and report what is wrong."""
    to, single = arithmetic(options.code), width != options.width
    lie = {"absent": "same", **({"together": "apart", "again": "apart"} if single else {})}
    x, y, w, q = (reader(code, lie.get(lies, lies), width, to) for code, lies in options.inputs)
    a, b, c, d = (writer(code, lie.get(lies, lies), width) for code, lies in options.outputs)
    firsts, seconds, thirds, fourths = (column(j) for j in range(4))
    one = _score(options) if options.formula == "score_binary" else _loss(options)
    looped = options.formula == "binary_log_loss" and width > 2
    compute = _one_by_one(one, width, device_of(options.code).real(0)) if looped else each(one)

    @jit
    def read(places: Any, k: Any) -> Any:
        (xa, xs, xv), (ya, ys, yv), (wa, ws, wv), (qa, qs, qv) = places
        return x(xa + k * xs, xs, xv), y(ya + k * ys, ys, yv), w(wa + k * ws, ws, wv), q(qa + k * qs, qs, qv)

    @jit
    def put(places: Any, k: Any, rows: Any) -> None:
        (aa, as_), (ba, bs), (ca, cs), (da, ds) = places
        a(aa + k * as_, as_, firsts(rows))
        b(ba + k * bs, bs, seconds(rows))
        c(ca + k * cs, cs, thirds(rows))
        d(da + k * ds, ds, fourths(rows))

    @jit
    def report_one(row: Any, k: Any, where: Any) -> Any:
        if row[0][4]:
            atomic_least(where[0], where[1] + k)
        return k

    widened, report = each(jit(lambda row, k, a: wide(row[0][0]))), each(report_one)
    total = jit(lambda rows: together(widened((rows,), 0)))
    return read, compute, put, total, report


def make_segment(options: ElementOptions) -> Any:
    """``f(from_, to, k, end, first, status, settings)``: a thread's columns of a segment, from k on; their sum."""
    width, step, ragged = options.width, options.width * options.lanes, options.ragged
    checked = options.formula == "binary_log_loss"
    read, compute, put, total_of, report = group_parts(options, width)
    read_one, compute_one, put_one, total_of_one, report_one = group_parts(options, 1)

    @jit
    def segment(source: Any, sink: Any, k: Any, end: Any, first: Any, status: Any, settings: Any) -> Any:
        total = 0.0
        while k + width <= end:
            rows = compute(read(source, k), settings)
            put(sink, k, rows)
            total += total_of(rows)
            if checked:
                report((rows,), (status, first + k))
            k += step
        if ragged:
            while k < end:
                row = compute_one(read_one(source, k), settings)
                put_one(sink, k, row)
                total += total_of_one(row)
                if checked:
                    report_one((row,), (status, first + k))
                k += 1
        return total

    return segment


def _value(options: ElementOptions, number: int) -> Any:
    """``f(at)``: the value of an input that is the same in all columns, 1 for one that is absent; 0 for others."""
    code, lies = options.inputs[number]
    scalar, cast = np.float64 if options.code == "f8" else np.float32, real(arithmetic(options.code))
    if lies != "same":
        fixed = scalar(lies == "absent")
        return jit(lambda at: fixed)
    load = peek(code)
    return jit(lambda at: cast(load(at)))


def make_elements(options: ElementOptions) -> Kernel:
    """The kernel over segments for these options."""
    segment, settled = make_segment(options), _settled(options)
    total_of = over_group(plus, options.lanes, "f8", 0)
    x_value, y_value, w_value, q_value = (_value(options, number) for number in range(len(INPUTS)))
    lanes, width, summed, store = options.lanes, options.width, options.summed, poke("f8")
    per, shift = THREADS // lanes, lanes.bit_length() - 1

    def elements(
        columns: Any, segments: Any, x: Any, xr: Any, xc: Any, y: Any, yr: Any, yc: Any, w: Any, wr: Any, wc: Any,
        q: Any, qr: Any, qc: Any, a: Any, ar: Any, ac: Any, b: Any, br: Any, bc: Any, c: Any, cr: Any, cc: Any,
        d: Any, dr: Any, dc: Any, sums: Any, scale: Any, status: Any, lo: Any, hi: Any, kept: Any, spread: Any,
        lowest: Any, highest: Any, log_eps: Any, grad_scale: Any, threshold: Any,
    ) -> None:  # fmt: skip
        settings = settled((kept, spread, lowest, highest, log_eps, grad_scale, threshold), scale)
        lane, base = thread() & (lanes - 1), lo + block() * per
        while base < hi:
            number, total = base + (thread() >> shift), 0.0
            if number < hi:
                r = number // segments
                start = (number - r * segments) * SEGMENT
                xa, ya, wa, qa = x + r * xr, y + r * yr, w + r * wr, q + r * qr
                source = (
                    (xa, xc, x_value(xa)), (ya, yc, y_value(ya)), (wa, wc, w_value(wa)), (qa, qc, q_value(qa)),
                )  # fmt: skip
                sink = (a + r * ar, ac), (b + r * br, bc), (c + r * cr, cc), (d + r * dr, dc)
                end = min(start + SEGMENT, columns)
                total = segment(source, sink, start + lane * width, end, r * columns, status, settings)
            if summed:
                total = total_of(total)
                if lane == 0 and number < hi:
                    store(sums + 8 * number, total)
                if lanes > WARP:
                    sync()  # before the next sum
            base += blocks() * per

    resident = RESIDENT if options.formula == "binary_log_loss" else 0
    return Kernel(elements, ("elements", options), INTEGERS, len(REALS), THREADS, resident)
