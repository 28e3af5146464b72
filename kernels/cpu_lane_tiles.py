"""Tiles of sixteen rows (eight in float64), a row a lane: where they lie, and how few classes are copied first."""

from __future__ import annotations

from typing import Any

from .cpu_parts import Options
from .jit import inline, splice
from .memory import any_set, prefetch, read, store
from .simd import apart, as_index, full_index, iota
from .tiles import turn_in, turn_out

AHEAD = 1024  # bytes
FEW_CLASSES = 256
"""As many as are held."""


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
    """How many rows from `number` on make a tile, and where they begin in arrays of (address, outer, inner stride).

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
        return n, o * x[1] + i * x[2] + x[0], o * y[1] + i * y[2] + y[0], o * out[1] + i * out[2] + out[0]

    return places


def lane_holder(options: Options) -> Any:
    """Bring a tile of rows to where it is worked on, which for few classes is a copy; and write the output of one."""
    X, Y, R = options.logits, options.soft or options.logits, options.real
    gathered, held, turned, soft = options.gathered, options.held, options.turned, options.target == "soft"
    lanes, size, soft_size, real_size = X.lanes, X.itemsize, Y.itemsize, R.itemsize
    column = lanes * real_size

    @inline
    def take(room: Any, at: Any, row_step: Any, step: Any, mask: Any, n: Any, classes: Any) -> Any:
        apart()
        if turned:
            for c in range(0, classes, lanes):
                turn_in(X, R, room + c * column, at + c * size, row_step, n, classes - c)
        else:
            for c in range(classes):
                if not gathered:
                    prefetch(at + c * step + AHEAD)
                store(R, room + c * column, 0, read(X, at + c * step, mask))

    @inline
    def take_soft(room: Any, at: Any, row_step: Any, n: Any, classes: Any) -> Any:
        apart()
        for c in range(0, classes, lanes):
            turn_in(Y, R, room + c * column, at + c * soft_size, row_step, n, classes - c)

    @inline
    def give(room: Any, at: Any, row_step: Any, n: Any, classes: Any) -> Any:
        apart()
        for c in range(0, classes, lanes):
            turn_out(X, R, room + c * column, at + c * size, row_step, n, classes - c)

    @splice
    def bring(rooms: Any, at: Any, soft_at: Any, out: Any, x_steps: Any, y_steps: Any, out_step: Any, mask: Any,
              n: Any, classes: Any) -> Any:  # fmt: skip
        """Where rows, soft targets and output begin, the steps between their classes, and each lane's first logit."""
        row_step, step, lane_step = x_steps
        if not held:
            lanes_at = at if gathered else iota(X) * lane_step + at
            return (at, soft_at, out), (step, y_steps[1], out_step), lanes_at
        take(rooms[0], at, row_step, step, mask, n, classes)
        lanes_at = iota(X) * real_size + rooms[0]
        if not turned:
            return (rooms[0], soft_at, out), (column, y_steps[1], out_step), lanes_at
        if soft:
            take_soft(rooms[1], soft_at, y_steps[0], n, classes)
        return (rooms[0], rooms[1], rooms[0]), (column, column, column), lanes_at

    return bring, give
