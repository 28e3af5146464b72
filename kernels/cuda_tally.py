"""CUDA kernels that add up, over blocks of rows, what `evaluate` keeps: a block of threads for each, or each label.

Every thread has sums of its own in shared memory, which are then added up in the order of the threads. Where so many
bins do not fit there, one thread adds up everything in global memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import numerics
from .cuda_compile import Kernel
from .cuda_groups import SIZE
from .cuda_machine import block, blocks, held, hold, jit, peek, poke, select, sync, thread, whole, wide

ROOM = 200 << 10
"""Bytes of shared memory that sums may take."""
FIXED, PER_BIN, BINARY = 6, 4, 8


@dataclass(frozen=True)
class TallyOptions:
    """What a tally is specialised for: element codes, and how the threads share rows and labels."""

    code: str  # of the scores
    target: str
    weighted: bool
    threads: int
    labels: int = 1  # that a block of threads has at a time
    alone: bool = False  # one thread, in global memory


def threads_for(fields: int) -> int:
    """How many threads have room for so many sums each; 0 if not even one."""
    threads = 128
    while threads and 8 * fields * (threads + 1) > ROOM:
        threads //= 2
    return threads


def shared_for(fields: int, threads: int) -> int:
    """The bytes of shared memory of a block."""
    return 8 * fields * (threads + 1)


def _sums(options: TallyOptions) -> tuple[Callable[..., Any], ...]:
    """A thread's own sums: clear them, add to one, add them up. A row of each, for all threads, and one place more."""
    load, store = (peek("f8"), poke("f8")) if options.alone else (held("f8"), hold("f8"))
    threads, labels, alone, out_store = options.threads, options.labels, options.alone, poke("f8")
    pitch = 8 if alone else 8 * (threads + 1)

    @jit
    def clear(base: Any, fields: Any) -> None:
        f = 0
        while f < fields:
            store(base + f * pitch, 0.0)
            f += 1

    @jit
    def add(base: Any, field: Any, value: Any) -> None:
        at = base + field * pitch
        store(at, load(at) + value)

    @jit
    def finish(out: Any, fields: Any, there: Any) -> None:
        """Write the sums of the labels that are there, from `out` on."""
        if alone:
            return
        sync()
        k = thread()
        while k < there * fields:
            label, total = k // fields, 0.0
            t = label
            while t < threads:
                total += load((k - label * fields) * pitch + 8 * t)
                t += labels
            out_store(out + 8 * k, total)
            k += threads
        sync()

    return clear, add, finish


def _row_adder(options: TallyOptions, add: Callable[..., Any]) -> Callable[..., Any]:
    """``f(i, base, y, w, arrays, tops, bins)``: add the scores of a row."""
    reals, wholes, size = peek(options.code), peek("i8"), SIZE[options.code]
    bin_of = numerics.bin_finder(jit, whole)

    @jit
    def tally_row(i: Any, base: Any, y: Any, w: Any, arrays: Any, tops: Any, bins: Any) -> None:
        nll, prediction, confidence, entropy, rank, brier = arrays
        top_k, ks = tops
        correct, share = select(wholes(prediction + 8 * i) == y, w, 0.0), wide(reals(confidence + size * i))
        add(base, 0, 1.0)
        add(base, 1, w)
        add(base, 2, w * wide(reals(nll + size * i)))
        add(base, 3, w * wide(reals(entropy + size * i)))
        add(base, 4, w * wide(reals(brier + size * i)))
        add(base, 5, correct)
        here, k = wholes(rank + 8 * i), 0
        while k < ks:
            if here < wholes(top_k + 8 * k):
                add(base, FIXED + k, w)
            k += 1
        b = bin_of(share, bins)
        if b >= 0:
            at = FIXED + ks + PER_BIN * b
            add(base, at, 1.0)
            add(base, at + 1, w)
            add(base, at + 2, w * share)
            add(base, at + 3, correct)

    return tally_row


def make_tally(options: TallyOptions) -> Kernel:
    """The kernel that tallies rows of scores."""
    reals, targets, size, target_size = (
        peek(options.code),
        peek(options.target),
        SIZE[options.code],
        SIZE[options.target],
    )
    weighted, threads, alone = options.weighted, options.threads, options.alone
    clear, add, finish = _sums(options)
    tally_row = _row_adder(options, add)

    def tally(target: Any, weights: Any, nll: Any, prediction: Any, confidence: Any, entropy: Any, rank: Any,
              brier: Any, ignore_index: Any, top_k: Any, ks: Any, bins: Any, rows: Any, sums: Any, lo: Any,
              hi: Any) -> None:  # fmt: skip
        fields, start = FIXED + ks + PER_BIN * bins, lo + block() * rows
        arrays, tops = (nll, prediction, confidence, entropy, rank, brier), (top_k, ks)
        while start < hi:
            out = sums + 8 * fields * (start // rows)
            base = out if alone else 8 * thread()
            clear(base, fields)
            i, end = start + thread(), min(start + rows, hi)
            while i < end:
                y, w = targets(target + target_size * i), wide(reals(weights + size * i)) if weighted else 1.0
                if y != ignore_index and w != 0.0:
                    tally_row(i, base, y, w, arrays, tops, bins)
                i += threads
            finish(out, fields, 1)
            start += blocks() * rows

    return Kernel(tally, ("tally", options), 16, 0, threads)


def _element_adder(options: TallyOptions, add: Callable[..., Any]) -> Callable[..., Any]:
    """``f(base, positive, w, scores, bins)``: add the scores of an element."""
    reals, flags, bin_of = peek(options.code), peek("i1"), numerics.bin_finder(jit, whole)

    @jit
    def tally_one(base: Any, positive: Any, w: Any, scores: Any, bins: Any) -> None:
        nll, probability, prediction, brier = scores
        flagged, share = flags(prediction) != 0, wide(reals(probability))
        add(base, 0, 1.0)
        add(base, 1, w)
        add(base, 2, w * wide(reals(nll)))
        add(base, 3, w * wide(reals(brier)))
        add(base, select(flagged, select(positive, 4, 5), select(positive, 7, 6)), w)
        b = bin_of(share, bins)
        if b >= 0:
            at = BINARY + PER_BIN * b
            add(base, at, 1.0)
            add(base, at + 1, w)
            add(base, at + 2, w * share)
            add(base, at + 3, select(positive, w, 0.0))

    return tally_one


def make_tally_binary(options: TallyOptions) -> Kernel:
    """The kernel that tallies binary scores, a label each; a block of threads has some labels of some rows."""
    reals, targets, labels = peek(options.code), peek(options.target), options.labels
    weighted, threads, alone = options.weighted, options.threads, options.alone
    clear, add, finish = _sums(options)
    tally_one = _element_adder(options, add)

    @jit
    def place(array: Any, i: Any, label: Any) -> Any:
        return array[0] + i * array[1] + label * array[2]

    def tally_binary(
        target: Any, tr: Any, tl: Any, weights: Any, wr: Any, wl: Any, nll: Any, nr: Any, nl: Any, probability: Any,
        pr: Any, pl: Any, prediction: Any, dr: Any, dl: Any, brier: Any, br: Any, bl: Any, bins: Any, every: Any,
        rows: Any, sums: Any, lo: Any, hi: Any,
    ) -> None:  # fmt: skip
        fields, groups = BINARY + PER_BIN * bins, (every + labels - 1) // labels
        number, last = block(), (hi - lo + rows - 1) // rows * groups
        while number < last:
            part = number // groups
            start, first = lo + part * rows, (number - part * groups) * labels
            label, out = first + thread() % labels, sums + 8 * fields * (start // rows * every + first)
            base = out if alone else 8 * thread()
            clear(base, fields)
            i, end = start + thread() // labels, min(start + rows, hi)
            while i < end and label < every:
                w = wide(reals(place((weights, wr, wl), i, label))) if weighted else 1.0
                if w != 0.0:
                    scores = (
                        place((nll, nr, nl), i, label), place((probability, pr, pl), i, label),
                        place((prediction, dr, dl), i, label), place((brier, br, bl), i, label),
                    )  # fmt: skip
                    tally_one(base, wide(targets(place((target, tr, tl), i, label))) > 0.5, w, scores, bins)
                i += threads // labels
            finish(out, fields, min(labels, every - first))
            number += blocks()

    return Kernel(tally_binary, ("tally_binary", options), 24, 0, threads)
