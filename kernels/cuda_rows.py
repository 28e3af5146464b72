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
    block,
    blocks,
    chain,
    each,
    fmax,
    following,
    held16,
    jit,
    load16,
    pack,
    peek,
    poke,
    real,
    store16,
    table,
    thread,
    unpack,
    wide,
)  # fmt: skip
from .cuda_ops import SIZES, SLOT, greater, over_group
from .cuda_parts import CudaOptions, batch, device_functions, entry, no_sums
from .cuda_row_loads import operand_loader, rest_loader, rest_operand_loader, row_loader
from .cuda_row_sums import SLOTS, group_sums, row_target, row_values, scores

ROOM = SLOTS * SLOT
"""Where a row begins in shared memory."""


def vector_loader(options: CudaOptions, device: SimpleNamespace, shifted: bool, careful: bool, n: int) -> Any:
    """Load `n` of a thread's vectors of a row, all in flight at once."""
    load, group = row_loader(options, device, shifted, careful), options.group

    @jit
    def load_next(j: Any, a: Any) -> Any:
        row, k, curve = a
        return load(row, k + j * group, curve)

    return table(load_next, n)


def thread_sums(options: CudaOptions, device: SimpleNamespace, shifted: bool) -> Any:
    """A thread's sums over its share of a row; what is left of the row after the last 16 bytes goes to thread 0."""
    lanes, group, size, start = options.lanes, options.group, SIZES[options.logits], no_sums(options)
    rest, add = rest_loader(options, device), batch(options, device)
    operands, some_operands = operand_loader(options, lanes), rest_operand_loader(options, lanes)
    stride, flight = group * lanes, options.vectors

    @jit
    def targets_next(items: Any, j: Any, a: Any) -> Any:
        beside, c, target = a
        return operands(items[0], beside, c + j * stride, target)[0]

    @jit
    def weights_next(items: Any, j: Any, a: Any) -> Any:
        beside, c, target = a
        return operands(items[0], beside, c + j * stride, target)[1]

    several, last, single = (
        vector_loader(options, device, shifted, *how) for how in ((False, flight), (True, flight), (True, 1))
    )
    targets, weights = each(targets_next), each(weights_next)

    @jit
    def sums(row: Any, beside: Any, classes: Any, lane: Any, reference: Any, aimed: Any, curve: Any) -> Any:
        state, k, vectors, target = start(reference), lane, classes // lanes, aimed[0]
        while k + (flight - 1) * group < vectors:
            c = k * lanes
            at_end = shifted and k + (flight - 1) * group >= row[2]
            z = last((row, k, curve)) if at_end else several((row, k, curve))
            y, w = targets((z,), (beside, c, target)), weights((z,), (beside, c, target))
            state = add(state, z, y, w, c, stride, aimed)
            k += flight * group
        while k < vectors:
            z, c = single((row, k, curve)), k * lanes
            y, w = targets((z,), (beside, c, target)), weights((z,), (beside, c, target))
            state = add(state, z, y, w, c, stride, aimed)
            k += group
        c = vectors * lanes
        if lane == 0 and c < classes:
            z = rest((row[0] + size * c, classes - c, curve))
            y, w = some_operands(z, beside, c, target, classes - c)
            state = add(state, (z,), (y,), (w,), c, stride, aimed)
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


def row_values_loader(options: CudaOptions, device: SimpleNamespace) -> Any:
    """The output of a vector of logits as they lie in memory, and of one class."""
    one, transform, value, size = peek(options.logits), device.transform, device.value, SIZES[options.logits]
    operands, operand = operand_loader(options, options.lanes), rest_operand_loader(options, 1)

    @jit
    def output(items: Any, k: Any, a: Any) -> Any:
        (x, y, w), (ahead, top, factors, curve) = items, a
        return value(transform(x, curve), y, w, k == ahead, top, factors, curve)

    outputs = each(output)

    @jit
    def vector(x: Any, beside: Any, c: Any, target: Any, top: Any, factors: Any, curve: Any) -> Any:
        y, w = operands(x, beside, c, target)
        return outputs((x, y, w), (target - c, top, factors, curve))

    @jit
    def single(at: Any, beside: Any, c: Any, target: Any, top: Any, factors: Any, curve: Any) -> Any:
        x = (one(at + size * c),)
        y, w = operand(x, beside, c, target, 1)
        return outputs((x, y, w), (target - c, top, factors, curve))[0]

    return vector, single


def row_writer(options: CudaOptions, device: SimpleNamespace) -> Any:
    """Write a row of the output, 16 bytes at a time where it lies as the logits do."""
    code, lanes, size, group = options.logits, options.lanes, SIZES[options.logits], options.group
    spread, gather, put, (vector, single) = unpack(code), pack(code), poke(code), row_values_loader(options, device)

    @jit
    def put_one(nothing: Any, items: Any, k: Any, at: Any) -> Any:
        put(at + k * size, items[0])
        return nothing

    scatter = chain(put_one)

    @jit
    def write(row: Any, beside: Any, out: Any, classes: Any, lane: Any, target: Any, top: Any, factors: Any,
              curve: Any) -> Any:  # fmt: skip
        at, shift, safe, kept, room = row
        k, skipped, alike = lane, shift // size, (out & 15) == shift
        while k * lanes < classes + skipped:
            c = k * lanes - skipped
            if c >= 0 and c + lanes <= classes:
                words = held16(room + 16 * k) if k < kept and k < safe else load16(at - shift + 16 * k)
                g = vector(spread(words), beside, c, target, top, factors, curve)
                if alike:
                    store16(out + size * c, gather(g))
                else:
                    scatter(0, (g,), out + size * c)
            else:
                end, c = min(c + lanes, classes), max(c, 0)
                while c < end:
                    put(out + size * c, single(at, beside, c, target, top, factors, curve))
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
    values_of, report_of, factors_of = row_values(options, device), scores(options, device), device.factors
    put, size, convert, hard = poke(options.real), SIZES[options.real], real(options.real), options.target == "hard"
    reported = options.result in ("score", "lse")

    @jit
    def finish(row: Any, number: Any, live: Any, lane: Any, aimed: Any, sums: Any, weight: Any, to: Any, terms: Any,
               curve: Any) -> Any:  # fmt: skip
        peaks, (d, energy, rest, square, before), exact, met = sums
        (target, z_target, target_mass), classes = aimed, row[2]
        value, mass, logd = values_of(peaks, d, exact, z_target, target_mass, weight, wide(classes), terms)
        if live and lane == 0 and to[0] != 0:
            put(to[0] + size * number, convert(value if target >= 0 or not hard else 0.0))
        if reported:
            totals = energy, rest, square, before
            report_of(row, number, live, lane, target, z_target, d, logd, peaks, totals, met, to[1:], curve)
        gain, hit, uniform = factors_of(mass, wide(peaks[1]), d, logd, weight, wide(classes), terms)
        return convert(gain), convert(hit), convert(uniform)

    return finish


def make_rows(options: CudaOptions) -> Any:
    """The kernel over rows whose classes lie side by side, for these options."""
    device, group = device_functions(options), options.group
    size, real_size = SIZES[options.logits], SIZES[options.real]
    sums_of, write, finish = (make(options, device) for make in (row_sums, row_writer, row_finisher))
    clear, aim, together = row_eraser(options), row_target(options, device), options.threads // group
    convert, put, written = real(options.real), poke(options.real), options.output != ""

    @jit
    def rows(form: Any, logits: Any, targets: Any, outputs: Any, weights: Any, to: Any, terms: Any, curve: Any) -> Any:
        inner, classes, kept, lo, hi = form
        mine, lane = thread() // group, thread() % group
        number = lo + block() * together + mine
        while number - mine < hi:
            here = number if number < hi else lo
            at = logits[0] + place(here, inner, logits[1], logits[3])
            live, weight, aimed, masked = aim(
                at, size, targets[0], here, classes, number < hi, lane == 0, weights, curve
            )
            n = classes if live and not masked else 0
            shift = at & 15
            safe = (shift + n * size) // 16 - 1 if shift != 0 else n * size // 16
            row = at, shift, safe, kept, ROOM + 16 * kept * mine
            beside = targets[0] + place(here, inner, targets[1], targets[3]), weights[0]
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
