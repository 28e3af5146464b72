"""Columns of a few classes, a row in each lane, held on the stack; and rows turned in registers to become such."""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.extending import intrinsic

from .memory import LINE, leading, load_masked, pointer_to, store_masked
from .simd import I64, FormatType, picks


def _turned(builder: Any, rows: list[Any]) -> list[Any]:
    """The columns of a square of vectors: the two blocks off the diagonal trade places, for blocks of 1, 2, 4 lanes."""
    lanes, width = len(rows), 1
    while width < lanes:
        low = picks([lanes + k - width if k & width else k for k in range(lanes)])
        high = picks([lanes + k if k & width else k + width for k in range(lanes)])
        for k in range(lanes):
            if not k & width:
                a, b = rows[k], rows[k + width]
                rows[k], rows[k + width] = builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high)
        width *= 2
    return rows


def _places(builder: Any, fmt: FormatType, args: Any) -> Any:
    """For each row of a tile: where it begins, and which lanes of it there are."""
    address, step, rows, columns = args
    for k in range(fmt.format.lanes):
        at = builder.add(address, builder.mul(step, I64(k)))
        there = builder.select(builder.icmp_signed("<", I64(k), rows), columns, I64(0))
        yield pointer_to(builder, fmt, at, I64(0), fmt.memory), leading(builder, fmt.format.lanes, there)


def _columns(builder: Any, real: FormatType, held: Any, apart: Any) -> list[Any]:
    """Where the columns of a tile are held, so many bytes apart."""
    places = [builder.add(held, builder.mul(apart, I64(k))) for k in range(real.format.lanes)]
    return [pointer_to(builder, real, place, I64(0), real.memory) for place in places]


@intrinsic
def turn_in(_typingctx: Any, fmt: Any, real: Any, held: Any, apart: Any, address: Any, step: Any, rows: Any,
            columns: Any) -> Any:  # fmt: skip
    """Read up to a square of `rows`, a step apart, and hold its columns, `apart` bytes apart; 0 where there is none."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        rows = [load_masked(builder, fmt, at, mask) for at, mask in _places(builder, fmt, args[4:])]
        for column, at in zip(_turned(builder, rows), _columns(builder, real, args[2], args[3]), strict=True):
            builder.store(column, at, align=LINE)
        return context.get_dummy_value()

    return types.void(fmt, real, *[types.int64] * 6), codegen


@intrinsic
def turn_out(_typingctx: Any, fmt: Any, real: Any, held: Any, apart: Any, address: Any, step: Any, rows: Any,
             columns: Any) -> Any:  # fmt: skip
    """Write the columns that are held as rows, a step apart."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        columns = [builder.load(at, align=LINE) for at in _columns(builder, real, args[2], args[3])]
        for row, (at, mask) in zip(_turned(builder, columns), _places(builder, fmt, args[4:]), strict=True):
            store_masked(builder, fmt, at, mask, row)
        return context.get_dummy_value()

    return types.void(fmt, real, *[types.int64] * 6), codegen


@intrinsic(prefer_literal=True)
def hold(_typingctx: Any, real: Any, columns: Any) -> Any:
    """The address of room for columns on the stack of the calling kernel, for as long as it runs."""
    number = columns.literal_value

    def codegen(_context: Any, builder: Any, _sig: Any, _args: Any) -> Any:
        with builder.goto_entry_block():
            room = builder.alloca(real.memory, number)
            room.align = LINE
        return builder.ptrtoint(room, I64)

    return types.int64(real, columns), codegen
