"""What sixteen rows (eight in float64) come to, all at once: losses, log-normalisers, confidence, entropy, Brier score.

A logarithm takes longer than the classes of a short row, and whatever waits for it keeps the next row from starting. So
row kernels put the sums of a tile of rows aside, a row a lane, and finish them together. Last, the losses of a block of
rows are added up, while they are in the cache.
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

from .cpu_parts import Options
from .jit import inline, splice
from .memory import first, load, load_indices, load_part, poke, poke_real, store_part
from .prefetch import prefetch_vector
from .reductions import count, hsum
from .simd import Format, full_wide, narrow, select, wide

SUMS = 10
"""Columns of what is put aside of a row: its maximum, NaN where it holds one; Σ exp(z - top); its weight, 0 where it is
masked; and the sums that losses and scores are made of."""
STRETCH = 1024
"""Losses that are added up before their sum is added to others: rounding grows with the number of terms."""


def tile_format(R: Format) -> Format:
    """A tile's rows in float64, a row a lane."""
    return Format("f8", 64 // R.itemsize, "f8")


@cache
def shelf(W: Format) -> Any:
    """Put the sums of a row aside at `room`, in a lane; mark one as masked; take those of all lanes back."""
    lanes = W.lanes

    @splice
    def put_aside(room: Any, lane: Any, state: Any, shift: Any, exact: Any, scores: Any) -> Any:
        (top, d, weight), (mass, moment, negentropy), (energy, rest, square) = state, exact, scores
        poke(W, room + 8 * lane, top)
        poke(W, room + 8 * (lane + lanes), d)
        poke(W, room + 8 * (lane + 2 * lanes), weight)
        poke(W, room + 8 * (lane + 3 * lanes), shift)
        poke(W, room + 8 * (lane + 4 * lanes), mass)
        poke(W, room + 8 * (lane + 5 * lanes), moment)
        poke(W, room + 8 * (lane + 6 * lanes), negentropy)
        poke(W, room + 8 * (lane + 7 * lanes), energy)
        poke(W, room + 8 * (lane + 8 * lanes), rest)
        poke(W, room + 8 * (lane + 9 * lanes), square)

    @splice
    def mask_out(room: Any, lane: Any) -> Any:
        poke(W, room + 8 * (lane + 2 * lanes), 0.0)

    @splice
    def take_back(room: Any) -> Any:
        state = load(W, room, 0), load(W, room, lanes), load(W, room, 2 * lanes)
        exact = load(W, room, 4 * lanes), load(W, room, 5 * lanes), load(W, room, 6 * lanes)
        scores = load(W, room, 7 * lanes), load(W, room, 8 * lanes), load(W, room, 9 * lanes)
        return state, load(W, room, 3 * lanes), exact, scores

    return put_aside, mask_out, take_back


def tile_results(options: Options, device: SimpleNamespace, rows: Format) -> Any:
    """Ask for the cache lines of the targets and results of a tile to come; write what the rows of one come to.

    A few bytes a row are so few that processors do not see the next line coming, and wait for it in every tile.
    """
    R, size, normalizer_of, log = rows, rows.itemsize, device.log_normalizer, device.log
    loss_of, brier_of, entropy_of = device.loss, device.brier, device.entropy
    asked, scored = options.result in ("lse", "score"), options.result == "score"
    aimed, I = options.target == "hard", Format("i8", rows.lanes, "f8")

    @splice
    def expect(number: Any, target: Any, places: Any) -> Any:
        loss, normalizer, (prediction, confidence, entropy, rank, brier) = places
        if aimed:
            prefetch_vector(I, target + 8 * number)
        if loss:
            prefetch_vector(R, loss + size * number)
        if scored:
            for column in (prediction, rank):
                prefetch_vector(I, column + 8 * number)
            for column in (normalizer, confidence, entropy, brier):
                prefetch_vector(R, column + size * number)

    @splice
    def results(mask: Any, number: Any, classes: Any, places: Any, sums: Any, terms: Any) -> Any:
        loss, normalizer, (_, confidence, entropy, _, brier) = places
        (top, d, weight), shift, exact, scores = sums
        logd = log(d)
        if loss:
            value = loss_of(exact, shift, top, logd, weight, classes, terms)
            store_part(R, loss + size * number, 0, mask, narrow(R, select(weight == 0.0, 0.0, value)))
        if asked and normalizer:
            store_part(R, normalizer + size * number, 0, mask, narrow(R, normalizer_of(top, logd)))
        if scored:
            energy, rest, square = scores
            # top - top is NaN in a row of -inf
            store_part(R, confidence + size * number, 0, mask, narrow(R, (top - top + 1.0) / d))
            store_part(R, entropy + size * number, 0, mask, narrow(R, entropy_of(logd, energy / d)))
            if brier:
                missed = select(weight == 0.0, 0.0, brier_of(rest / d, square / (d * d)))
                store_part(R, brier + size * number, 0, mask, narrow(R, missed))

    return expect, results


@cache
def loss_tally(R: Format, hard: bool) -> Any:
    """Add up the losses of rows, of format `R`, and count those not ignored: block by block, where sums are wanted."""
    lanes = R.lanes

    @inline
    def stretch(target: Any, loss: Any, ignore_index: Any, k: Any, end: Any) -> Any:
        total, rows = full_wide(R, 0.0), end - k
        while k < end:
            mask = first(R, end - k)
            total = total + wide(load_part(R, loss, k, mask))
            if hard:
                rows -= count(mask & (load_indices(R, target + 8 * k, mask) == ignore_index))
            k += lanes
        return hsum(total), rows

    @splice
    def add_up(batch: Any, lo: Any, hi: Any) -> Any:
        target, loss, ignore_index, block, sums = batch
        if sums:
            for start in range(lo, hi, block):
                total, rows, end = 0.0, 0, min(start + block, hi)
                for k in range(start, end, STRETCH):
                    part, counted = stretch(target, loss, ignore_index, k, min(k + STRETCH, end))
                    total, rows = total + part, rows + counted
                at = sums + 16 * (start // block)
                poke_real(at, total)
                poke_real(at + 8, float(rows))

    return add_up
