"""Tiles of rows, a row a lane: where they lie, and how few classes are copied first."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from .cpu_parts import Options
from .jit import apart, inline, splice
from .memory import LINE, any_set, first, load, load_indices, load_part, read, store
from .prefetch import prefetch
from .simd import Format, as_index, full_index, full_wide, iota, wide
from .tiles import turn_in, turn_out

FEW_CLASSES, HELD_CLASSES = 64, 256
"""As many are turned where they lie side by side, and copied where they lie apart."""

AHEAD, MOST_AHEAD = 4096, 16384
"""Bytes: how far ahead rows that lie side by side are asked for at least, and how many of a tile at most."""


def lane_positions(options: Options) -> Any:
    """The positions on the outer and the inner axis of the rows from `number` on, a lane each."""
    X = options.logits

    @splice
    def positions(number: Any, inner: Any) -> Any:
        o = number // inner
        outer, i = full_index(X, o), iota(X) + (number - o * inner)
        if inner == 1:
            outer, i = outer + i, full_index(X, 0)
        else:
            past = i >= inner
            while any_set(past):
                outer, i = outer + as_index(past), i - as_index(past) * inner
                past = i >= inner
        return outer, i

    return positions


def lane_places(options: Options) -> Any:
    """How many rows from `number` on make a tile, and where they begin in arrays of (address, outer, …, inner stride).

    An address a lane where rows are gathered; else one for all, and a tile ends with the inner axis.
    """
    lanes, gathered, turned, positions = (
        options.logits.lanes, options.gathered, options.turned, lane_positions(options),
    )  # fmt: skip

    @splice
    def places(number: Any, hi: Any, inner: Any, x: Any, y: Any, out: Any) -> Any:
        n = min(lanes, hi - number)
        if turned:
            return n, number * x[1] + x[0], number * y[1] + y[0], number * out[1] + out[0]
        if gathered:
            o, i = positions(number, inner)
        else:
            o = number // inner
            i = number - o * inner
            n = min(n, inner - i)
        return n, o * x[1] + i * x[-1] + x[0], o * y[1] + i * y[-1] + y[0], o * out[1] + i * out[-1] + out[0]

    return places


@cache
def row_turners(X: Format, R: Format) -> Any:
    """Read rows of classes that lie side by side to columns, square by square, and write columns to such rows."""
    square, size, column = LINE // R.itemsize, X.itemsize, R.lanes * R.itemsize
    XS, RS, squares = replace(X, lanes=square), replace(R, lanes=square), R.lanes // square

    @inline
    def take(room: Any, at: Any, row_step: Any, n: Any, classes: Any) -> Any:
        apart()
        tile = squares * square * row_step
        for b in range(0, min(tile, MOST_AHEAD), LINE):
            prefetch(at + max(tile, AHEAD) + b)
        for q in range(squares):
            held, first_row, rows = room + q * LINE, at + q * square * row_step, n - q * square
            for c in range(0, classes, square):
                turn_in(XS, RS, held + c * column, column, first_row + c * size, row_step, rows, classes - c)

    @inline
    def give(room: Any, at: Any, row_step: Any, n: Any, classes: Any) -> Any:
        apart()
        for q in range(squares):
            held, first_row, rows = room + q * LINE, at + q * square * row_step, n - q * square
            for c in range(0, classes, square):
                turn_out(XS, RS, held + c * column, column, first_row + c * size, row_step, rows, classes - c)

    return take, give


@cache
def column_copier(X: Format, R: Format, gathered: Any) -> Any:
    """Read columns of classes that lie apart: where rows lie side by side and a tile is whole, without a mask.

    Classes are often a power of two apart, and then all of their lines share a few places in the caches.
    """
    lanes, column = X.lanes, R.lanes * R.itemsize

    @inline
    def some(room: Any, at: Any, class_step: Any, mask: Any, classes: Any) -> Any:
        apart()
        for c in range(classes):
            store(R, room + c * column, 0, read(X, at + c * class_step, mask))

    @inline
    def every(room: Any, at: Any, class_step: Any, classes: Any) -> Any:
        apart()
        for c in range(classes):
            store(R, room + c * column, 0, load(X, at + c * class_step, 0))

    @splice
    def copy(room: Any, at: Any, class_step: Any, n: Any, classes: Any) -> Any:
        if gathered or n < lanes:
            some(room, at, class_step, first(X, n), classes)
        else:
            every(room, at, class_step, classes)

    return copy


def lane_weights(options: Options) -> Any:
    """Each lane's weight and class, and the masks of lanes that are not masked, and whose class is out of range."""
    X, R, size, hard = options.logits, options.real, options.real.itemsize, options.target == "hard"

    @splice
    def asked(mask: Any, number: Any, targets: Any, classes: Any, sample_weight: Any, ignore_index: Any) -> Any:
        weight, target, bad = full_wide(X, 1.0), full_index(X, -1), first(X, 0)
        if sample_weight:
            weight = wide(load_part(R, sample_weight + size * number, 0, mask))
        active = mask & (weight != 0.0)
        if hard and targets:
            target = load_indices(X, targets + 8 * number, mask)
            active = active & (target != ignore_index)
            bad = active & ((target < 0) | (target >= classes))
        return weight, target, active, bad

    return asked


def is_piped(options: Options) -> bool:
    """Whether a tile's columns are copied while those of the tile before are worked on."""
    return options.held and not (options.turned or options.gathered)


def lane_holder(options: Options) -> Any:
    """Bring a tile of rows to where it is worked on, which for few classes is a copy; and write the output of one.

    First the columns of two rooms for copies: for those of the tile after, too, or for soft targets.
    """
    X, R, gathered, held, piped = options.logits, options.real, options.gathered, options.held, is_piped(options)
    turned, soft, real_size, column = options.turned, options.target == "soft", R.itemsize, R.lanes * R.itemsize
    columns = FEW_CLASSES if turned else HELD_CLASSES if held else 1
    rooms_of = columns, columns if piped or (turned and soft) else 1
    take, give = row_turners(X, R)
    (take_soft, _), copy = row_turners(options.soft or X, R), column_copier(X, R, gathered)

    @splice
    def bring(rooms: Any, ready: Any, at: Any, soft_at: Any, out: Any, x: Any, y: Any, written: Any, n: Any,
              classes: Any) -> Any:  # fmt: skip
        """Where rows, soft targets and output begin, the steps between their classes, and each lane's first logit.

        Columns that are `ready` are there already.
        """
        if not held:
            return (at, soft_at, out), (x[2], y[2], written[2]), at if gathered else iota(X) * x[3] + at
        lanes_at = iota(X) * real_size + rooms[0]
        if turned:
            take(rooms[0], at, x[1], n, classes)
            if soft:
                take_soft(rooms[1], soft_at, y[1], n, classes)
            return (rooms[0], rooms[1], rooms[0]), (column, column, column), lanes_at
        if not (piped and ready):
            copy(rooms[0], at, x[2], n, classes)
        return (rooms[0], soft_at, out), (column, y[2], written[2]), lanes_at

    return rooms_of, bring, give
