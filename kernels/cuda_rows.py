"""CUDA kernels for classes that lie side by side: a group of threads a row, 16 bytes a thread and load, one read.

Thread t of a group of G has the 16 bytes number t, t + G, … of each row, counted from where the row begins, whatever
its address: where that is not a multiple of 16, they are cut from two aligned loads. So a row adds up to the same bits
wherever it lies. The output is cut at multiples of 16 in memory instead: what a thread had loaded from there is still
in shared memory, as much of the row as fits, and the rest is read again.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from .cuda_machine import (
    atomic_least,
    block,
    blocks,
    fmax,
    following,
    funnel,
    held16,
    hold16,
    jit,
    load16,
    load16_kept,
    maximum,
    pack,
    peek,
    poke,
    real,
    select,
    store16,
    thread,
    unpack,
    wide,
)  # fmt: skip
from .cuda_ops import SIZES, each, elements, greater, over_group, slots_bytes, tree
from .cuda_parts import CudaOptions, batch, device_functions, entry, no_sums
from .cuda_row_sums import SLOTS, group_sums, hard_target, row_values, scores
from .numerics import LEAST

VECTORS = 4
"""Loads of 16 bytes that a thread has in flight."""
ROOM = slots_bytes(SLOTS)
"""Where a row begins in shared memory."""


def row_loader(options: CudaOptions, device: SimpleNamespace, shifted: bool) -> Any:
    """Load the 16 bytes number k of a row as logits, and leave them in shared memory as they lie in memory."""
    code, lanes, size, staged = options.logits, options.lanes, SIZES[options.logits], options.output != ""
    spread, one, transform = unpack(code), peek(code), device.transform
    apart = each(lambda j: jit(lambda at, a: one(at + j * size)), lanes)
    bend = each(lambda j: jit(lambda x, curve: transform(x[j], curve)), lanes)

    @jit
    def load(row: Any, k: Any, curve: Any) -> Any:
        at, shift, safe, kept, room = row
        if not shifted:
            words = load16(at + 16 * k)
            if staged and k < kept:
                hold16(room + 16 * k, words)
            return bend(spread(words), curve)
        if k >= safe:
            return bend(apart(at + 16 * k, 0), curve)
        words = load16_kept(at - shift + 16 * k)
        if staged and k < kept:
            hold16(room + 16 * k, words)
        return bend(spread(funnel(words, load16_kept(at - shift + 16 * k + 16), shift)), curve)

    return load


def operand_loader(options: CudaOptions, n: int) -> Any:
    """Load n targets and class weights from class c on; where there are none, what comes is not used."""
    soft, weighted, matched, real_size = (
        options.target == "soft",
        options.weighted,
        options.matched,
        SIZES[options.real],
    )
    size, one, zero, convert = (
        SIZES.get(options.soft, 0),
        options.real_type(1),
        options.real_type(0),
        real(options.real),
    )
    given, weights = elements(options.soft or "f4", n), elements(options.real, n)
    targets = each(lambda j: jit(lambda y, a: convert(y[j])), n)
    hits = each(lambda j: jit(lambda c, target: select(c + j == target, one, zero)), n)

    @jit
    def load(z: Any, at: Any, c: Any, target: Any) -> Any:
        y = w = z
        if soft:
            y = targets(given(at[0] + size * c), 0)
        if matched:
            y = hits(c, target)
        if weighted:
            w = weights(at[1] + real_size * c)
        return y, w

    return load


def thread_sums(options: CudaOptions, device: SimpleNamespace, shifted: bool) -> Any:
    """A thread's sums over its share of a row."""
    lanes, group, size, transform = options.lanes, options.group, SIZES[options.logits], device.transform
    load, one, start = row_loader(options, device, shifted), peek(options.logits), no_sums(options)
    add_many, add_vector, add_one = (
        batch(options, device, *n) for n in ((VECTORS, VECTORS * lanes), (1, lanes), (1, 1))
    )
    operands, operand, stride = operand_loader(options, lanes), operand_loader(options, 1), group * lanes

    @jit
    def sums(row: Any, beside: Any, classes: Any, lane: Any, reference: Any, aimed: Any, curve: Any) -> Any:
        state, k, vectors, target = start(reference), lane, classes // lanes, aimed[0]
        while k + 3 * group < vectors:
            c = k * lanes
            a, b = load(row, k, curve), load(row, k + group, curve)
            p, q = load(row, k + 2 * group, curve), load(row, k + 3 * group, curve)
            ya, wa = operands(a, beside, c, target)
            yb, wb = operands(b, beside, c + stride, target)
            yp, wp = operands(p, beside, c + 2 * stride, target)
            yq, wq = operands(q, beside, c + 3 * stride, target)
            z, y, w = a + b + p + q, ya + yb + yp + yq, wa + wb + wp + wq
            state = add_many(state, z, y, w, c, stride, aimed)
            k += 4 * group
        while k < vectors:
            z = load(row, k, curve)
            y, w = operands(z, beside, k * lanes, target)
            state = add_vector(state, z, y, w, k * lanes, stride, aimed)
            k += group
        c = vectors * lanes + lane
        while c < classes:
            z = (transform(one(row[0] + size * c), curve),)
            y, w = operand(z, beside, c, target)
            state = add_one(state, z, y, w, c, stride, aimed)
            c += group
        return state

    return sums


def thread_maximum(options: CudaOptions, device: SimpleNamespace) -> Any:
    """The maximum of a thread's share of a row, NaN passed over."""
    group, size, transform, one = options.group, SIZES[options.logits], device.transform, peek(options.logits)
    minus = options.real_type(-math.inf)

    @jit
    def maximum_of(at: Any, classes: Any, lane: Any, curve: Any) -> Any:
        best, c = minus, lane
        while c < classes:
            best = fmax(best, transform(one(at + size * c), curve))
            c += group
        return best

    return maximum_of


def row_sums(options: CudaOptions, device: SimpleNamespace) -> Any:
    """The sums over a row, of all its threads together."""
    aligned, cut = thread_sums(options, device, False), thread_sums(options, device, True)
    maximum_of, together, online = thread_maximum(options, device), group_sums(options), options.online
    over, minus, zero = (
        over_group(greater, options.group, options.real, 0),
        options.real_type(-math.inf),
        options.real_type(0),
    )

    @jit
    def sums(row: Any, beside: Any, classes: Any, lane: Any, aimed: Any, curve: Any) -> Any:
        reference = zero
        if not online:
            best = over(maximum_of(row[0], classes, lane, curve))
            reference = zero if best == minus else best
        if row[1] == 0:
            state = aligned(row, beside, classes, lane, reference, aimed, curve)
        else:
            state = cut(row, beside, classes, lane, reference, aimed, curve)
        return together(state)

    return sums


def row_writer(options: CudaOptions, device: SimpleNamespace) -> Any:
    """Write a row of the output, 16 bytes at a time where it lies as the logits do."""
    code, lanes, size, group = options.logits, options.lanes, SIZES[options.logits], options.group
    spread, gather, one, put, transform, value = (
        unpack(code),
        pack(code),
        peek(code),
        poke(code),
        device.transform,
        device.value,
    )
    operands, operand = operand_loader(options, lanes), operand_loader(options, 1)

    def element(j: int) -> Any:
        @jit
        def output(v: Any, a: Any) -> Any:
            z, y, w = v
            c, target, top, factors, curve = a
            return value(transform(z[j], curve), y[j], w[j], c + j == target, top, factors, curve)

        return output

    values, single = each(element, lanes), element(0)
    spill = tree(lambda j: jit(lambda g, at: put(at + j * size, g[j])), jit(lambda a, b: 0), lanes)

    @jit
    def write(row: Any, beside: Any, out: Any, classes: Any, lane: Any, target: Any, top: Any, factors: Any,
              curve: Any) -> Any:  # fmt: skip
        at, shift, safe, kept, room = row
        k, skipped, alike = lane, shift // size, (out & 15) == shift
        while k * lanes < classes + skipped:
            c = k * lanes - skipped
            if c >= 0 and c + lanes <= classes:
                words = held16(room + 16 * k) if k < kept and k < safe else load16(at - shift + 16 * k)
                z = spread(words)
                y, w = operands(z, beside, c, target)
                g = values((z, y, w), (c, target, top, factors, curve))
                if alike:
                    store16(out + size * c, gather(g))
                else:
                    spill(g, out + size * c)
            else:
                end = min(c + lanes, classes)
                c = max(c, 0)
                while c < end:
                    z = (one(at + size * c),)
                    y, w = operand(z, beside, c, target)
                    put(out + size * c, single((z, y, w), (c, target, top, factors, curve)))
                    c += 1
            k += group

    return write


def row_eraser(options: CudaOptions) -> Any:
    """Fill a row of the output with zeros."""
    size, group, put, zero = SIZES[options.logits], options.group, poke(options.logits), options.real_type(0)

    @jit
    def clear(out: Any, classes: Any, lane: Any) -> Any:
        c = lane
        while c < classes:
            put(out + size * c, zero)
            c += group

    return clear


@jit
def place(number: Any, inner: Any, outer_step: Any, inner_step: Any) -> Any:
    """Where a row begins, from the start of its array."""
    if inner == 1:
        return number * outer_step
    o = number // inner
    return o * outer_step + (number - o * inner) * inner_step


def row_finisher(options: CudaOptions, device: SimpleNamespace) -> Any:
    """Write a row's loss and scores, and give what its output needs: gain, hit and uniform."""
    values_of, report_of, exp, factors_of = (
        row_values(options, device),
        scores(options, device, VECTORS),
        device.exp,
        device.factors,
    )
    put, size, convert, hard = poke(options.real), SIZES[options.real], real(options.real), options.target == "hard"
    scored, reported = options.result == "score", options.result in ("score", "lse")
    least = options.real_type(LEAST[options.real_type])

    @jit
    def finish(row: Any, number: Any, live: Any, lane: Any, aimed: Any, sums: Any, weight: Any, to: Any, terms: Any,
               curve: Any) -> Any:  # fmt: skip
        peaks, (total, energy, square, before), exact, met = sums
        (target, z_target, target_mass), classes, d = aimed, row[2], total
        if scored and hard and target >= 0:  # the target was left out, since 1 - p would cancel
            lead = z_target - peaks[1]
            e = wide(exp(lead))
            d, energy = total + e, energy + e * wide(maximum(least, lead))
        value, mass, logd = values_of(peaks, d, exact, z_target, target_mass, weight, wide(classes), terms)
        if live and lane == 0 and to[0] != 0:
            put(to[0] + size * number, convert(value if target >= 0 or not hard else 0.0))
        if reported:
            totals = total, energy, square, before
            report_of(row, number, live, lane, target, z_target, d, logd, peaks, totals, met, to[1:], curve)
        gain, hit, uniform = factors_of(mass, wide(peaks[1]), d, logd, weight, wide(classes), terms)
        return convert(gain), convert(hit), convert(uniform)

    return finish


def make_rows(options: CudaOptions) -> Any:
    """The kernel over rows whose classes lie side by side, for these options."""
    device, group, size, real_size = (
        device_functions(options),
        options.group,
        SIZES[options.logits],
        SIZES[options.real],
    )
    sums_of, write, finish = (make(options, device) for make in (row_sums, row_writer, row_finisher))
    clear = row_eraser(options)
    aim, convert, together, put = (
        hard_target(options, device),
        real(options.real),
        options.threads // group,
        poke(options.real),
    )
    hard, written, lossy, nan = (
        options.target == "hard",
        options.output != "",
        options.result == "loss",
        options.real_type(math.nan),
    )
    weight_of = peek(options.real)

    @jit
    def rows(form: Any, logits: Any, targets: Any, outputs: Any, weights: Any, to: Any, terms: Any, curve: Any) -> Any:
        (inner, classes, kept, lo, hi), (class_weight, sample_weight, ignore_index, status) = form, weights
        mine, lane = thread() // group, thread() % group
        number = lo + block() * together + mine
        while number - mine < hi:
            live, weight, aimed = number < hi, 1.0, (-1, nan, 0.0)
            here = number if live else lo
            at = logits[0] + place(here, inner, logits[1], logits[3])
            if sample_weight != 0:
                weight = wide(weight_of(sample_weight + real_size * here))
            if hard:
                aimed = aim(at, size, targets[0], here, classes, ignore_index, class_weight, weight, curve)
                if aimed[0] == classes:
                    if live and lane == 0:
                        atomic_least(status, number)
                    live = False
            masked = lossy and (weight == 0.0 or (hard and aimed[0] < 0))
            n = classes if live and not masked else 0
            shift = at & 15
            safe = (shift + n * size) // 16 - 1 if shift != 0 else n * size // 16
            row = at, shift, safe, kept, ROOM + 16 * kept * mine
            beside = targets[0] + place(here, inner, targets[1], targets[3]), class_weight
            sums = sums_of(row, beside, n, lane, (aimed[0], aimed[1], following(aimed[1])), curve)
            factors = finish((at, size, n), number, live and not masked, lane, aimed, sums, weight, to, terms, curve)
            to_row = outputs[0] + place(here, inner, outputs[1], outputs[3])
            if live and masked and lane == 0:
                put(to[0] + real_size * number, convert(0.0))
            if written and live and masked:
                clear(to_row, classes, lane)
            elif written:
                write(row, beside, to_row, n, lane, aimed[0], sums[0][0], factors, curve)
            number += blocks() * together

    return entry(options, rows)
