"""CUDA kernels with a row a thread: for a class axis that is not last, for few classes, and for any other strides.

Neighbouring threads have neighbouring rows, so that loads along an inner axis coalesce. Rows of few classes that follow
each other are brought to shared memory together, 16 bytes a thread and load, and leave it the same way.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from .cuda_machine import (
    block,
    blocks,
    fmax,
    following,
    held,
    held16,
    hold,
    hold16,
    jit,
    load16,
    peek,
    poke,
    real,
    select,
    store16,
    sync,
    table,
    thread,
)  # fmt: skip
from .cuda_ops import SIZES
from .cuda_parts import BATCH, CudaOptions, batch, device_functions, entry, no_sums
from .cuda_row_sums import group_sums, row_target
from .cuda_rows import place, row_finisher

TILE_BYTES = 256
"""The longest row that is brought to shared memory."""


@jit
def spot(byte: Any) -> Any:
    """Where a byte of a tile lies in shared memory: 16 bytes are left free after each 128, so that banks differ."""
    return byte + (byte >> 7 << 4)


def reader(options: CudaOptions, device: SimpleNamespace) -> Any:
    """Read the logit of a class, from shared memory where the row is there."""
    one, near, transform, tiled = peek(options.logits), held(options.logits), device.transform, options.tiled

    @jit
    def read(at: Any, step: Any, c: Any, curve: Any) -> Any:
        return transform(near(spot(at + c * step)) if tiled else one(at + c * step), curve)

    return read


def lane_loader(options: CudaOptions, device: SimpleNamespace) -> Any:
    """Load some logits, targets and class weights from class c on; those past the last are -inf, without weight."""
    soft, weighted, matched, smoothed = options.target == "soft", options.weighted, options.matched, options.smoothed
    read, given, weight, size = (
        reader(options, device),
        peek(options.soft or "f4"),
        peek(options.real),
        SIZES[options.real],
    )
    convert, one, zero, minus = real(options.real), *(options.real_type(v) for v in (1, 0, -math.inf))

    @jit
    def logit(k: Any, a: Any) -> Any:
        (at, step, _, _, _), c, classes, curve = a
        return read(at, step, c + k, curve) if c + k < classes else minus

    @jit
    def target(k: Any, a: Any) -> Any:
        (_, _, at, step, _), c, classes, _ = a
        return convert(given(at + (c + k) * step)) if c + k < classes else zero

    @jit
    def hit(k: Any, ahead: Any) -> Any:
        return select(k == ahead, one, zero)

    @jit
    def weigh(k: Any, a: Any) -> Any:
        (_, _, _, _, at), c, classes, _ = a
        if weighted:
            return weight(at + (c + k) * size) if c + k < classes else zero
        return select(c + k < classes, one, zero)

    def loader(n: int) -> Any:
        logits, targets, hits, weights = (table(make, n) for make in (logit, target, hit, weigh))

        @jit
        def load(at: Any, c: Any, classes: Any, aim: Any, curve: Any) -> Any:
            z = logits((at, c, classes, curve))
            y = w = z
            if soft:
                y = targets((at, c, classes, curve))
            if matched:
                y = hits(aim - c)
            if weighted or smoothed:
                w = weights((at, c, classes, curve))
            return z, y, w

        return load

    return loader


def lane_sums(options: CudaOptions, device: SimpleNamespace) -> Any:
    """The sums over a thread's row."""
    start, together, online, read = no_sums(options), group_sums(options), options.online, reader(options, device)
    add, load = batch(options, device), lane_loader(options, device)(BATCH)
    minus, zero = options.real_type(-math.inf), options.real_type(0)

    @jit
    def sums(at: Any, classes: Any, aimed: Any, curve: Any) -> Any:
        reference, c = zero, 0
        if not online:
            best = minus
            while c < classes:
                best = fmax(best, read(at[0], at[1], c, curve))
                c += 1
            reference = zero if best == minus else best
        state, c = start(reference), 0
        while c < classes:
            z, y, w = load(at, c, classes, aimed[0], curve)
            state = add(state, (z,), (y,), (w,), c, 0, aimed)
            c += BATCH
        return together(state)

    return sums


def lane_writer(options: CudaOptions, device: SimpleNamespace) -> Any:
    """Write a thread's row of the output: to shared memory, over its logits, where they are there."""
    load, value, tiled = lane_loader(options, device)(1), device.value, options.tiled
    put, keep = poke(options.logits), hold(options.logits)

    @jit
    def write(at: Any, out: Any, out_step: Any, classes: Any, target: Any, top: Any, factors: Any, curve: Any) -> Any:
        c = 0
        while c < classes:
            z, y, w = load(at, c, classes, target, curve)
            g = value(z[0], y[0], w[0], c == target, top, factors, curve)
            if tiled:
                keep(spot(at[0] + c * at[1]), g)
            else:
                put(out + c * out_step, g)
            c += 1

    return write


def lane_eraser(options: CudaOptions) -> Any:
    """Fill a thread's row of the output with zeros."""
    put, keep, tiled, zero = poke(options.logits), hold(options.logits), options.tiled, options.real_type(0)

    @jit
    def clear(at: Any, out: Any, out_step: Any, classes: Any) -> Any:
        c = 0
        while c < classes:
            if tiled:
                keep(spot(at[0] + c * at[1]), zero)
            else:
                put(out + c * out_step, zero)
            c += 1

    return clear


def tile_mover(options: CudaOptions) -> Any:
    """Bring the bytes of a tile to shared memory, and back; by elements where they are not at a multiple of 16."""
    size, step, one, put = SIZES[options.logits], options.threads, peek(options.logits), poke(options.logits)
    near, keep = held(options.logits), hold(options.logits)

    @jit
    def bring(at: Any, size_of_tile: Any) -> Any:
        sync()  # what is there is still in use
        whole = size_of_tile // 16 * 16 if at & 15 == 0 else 0
        byte = 16 * thread()
        while byte < whole:
            hold16(spot(byte), load16(at + byte))
            byte += 16 * step
        byte = whole + size * thread()
        while byte < size_of_tile:
            keep(spot(byte), one(at + byte))
            byte += size * step
        sync()

    @jit
    def give(at: Any, size_of_tile: Any) -> Any:
        sync()
        whole = size_of_tile // 16 * 16 if at & 15 == 0 else 0
        byte = 16 * thread()
        while byte < whole:
            store16(at + byte, held16(spot(byte)))
            byte += 16 * step
        byte = whole + size * thread()
        while byte < size_of_tile:
            put(at + byte, near(spot(byte)))
            byte += size * step

    return bring, give


def make_lanes(options: CudaOptions) -> Any:
    """The kernel with a row a thread, for these options."""
    device, size, real_size = device_functions(options), SIZES[options.logits], SIZES[options.real]
    sums_of, write, finish = lane_sums(options, device), lane_writer(options, device), row_finisher(options, device)
    (bring, give), clear, aim = tile_mover(options), lane_eraser(options), row_target(options, device)
    convert, together, put, tiled = real(options.real), options.threads, poke(options.real), options.tiled
    written = options.output != ""

    @jit
    def lanes(form: Any, logits: Any, targets: Any, outputs: Any, weights: Any, to: Any, terms: Any, curve: Any) -> Any:
        inner, classes, _, lo, hi = form
        first = lo + block() * together
        while first < hi:
            number = first + thread()
            here = number if number < hi else lo
            at = logits[0] + place(here, inner, logits[1], logits[3])
            to_row = outputs[0] + place(here, inner, outputs[1], outputs[3])
            if tiled:
                bring(logits[0] + first * logits[1], min(together, hi - first) * classes * size)
            live, weight, aimed, masked = aim(
                at, logits[2], targets[0], here, classes, number < hi, True, weights, curve
            )
            n = classes if live and not masked else 0
            near, step = (thread() * classes * size, size) if tiled else (at, logits[2])
            beside = near, step, targets[0] + place(here, inner, targets[1], targets[3]), targets[2], weights[0]
            sums = sums_of(beside, n, (aimed[0], aimed[1], following(aimed[1])), curve)
            row = at, logits[2], n
            factors = finish(row, number, live and not masked, 0, aimed, sums, weight, to, terms, curve)
            if live and masked:
                put(to[0] + real_size * number, convert(0.0))
            if written and live and masked:
                clear(beside, to_row, outputs[2], classes)
            elif written:
                write(beside, to_row, outputs[2], n, aimed[0], sums[0][0], factors, curve)
            if written and tiled:
                give(outputs[0] + first * outputs[1], min(together, hi - first) * classes * size)
            first += blocks() * together

    return entry(options, lanes)
