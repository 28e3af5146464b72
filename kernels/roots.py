"""Powers of two whose fraction is looked up in a table of roots, which one or two registers hold."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir

from .simd import F32, F64, I32, I64, Vector, elementwise, llvm, picks


class Table(NamedTuple):
    """The powers of two from 1 to 2 that are looked up, and what looks them up."""

    parts: int
    pow2: Any


def _in_registers(builder: Any, emit: Any, meet: Vector, value: Any, lanes: int) -> Any:
    """Call `emit` for each register of so many lanes that a vector fills, and join what it gives."""
    starts = range(0, meet.lanes, lanes)
    pieces = [emit(builder.shuffle_vector(value, value, picks(range(k, k + lanes)))) for k in starts]
    while len(pieces) > 1:
        whole = picks(range(2 * pieces[0].type.count))
        pieces = [builder.shuffle_vector(a, b, whole) for a, b in zip(pieces[::2], pieces[1::2], strict=True)]
    return pieces[0]


def _table(real: type, parts: int, lanes: int) -> Table:
    """2^n for n a multiple of 1/parts, from its sum with 1.5·2^mantissa over that, so many lanes at a time.

    The low bits of the sum are the place of 2 to the fraction in a table, and, shifted, what its exponent is raised by
    and what the table has been lowered by.
    """
    mantissa, kind, integer, whole = (23, F32, I32, np.int32) if real is np.float32 else (52, F64, I64, np.int64)
    step = mantissa - parts.bit_length() + 1
    roots = np.exp2(np.arange(parts) / parts).astype(real).view(whole) - (np.arange(parts, dtype=whole) << step)
    bits, places = ir.VectorType(integer, lanes), ir.VectorType(kind, lanes)
    held = [ir.Constant(places, [kind(float(root)) for root in part]) for part in roots.view(real).reshape(-1, lanes)]
    suffix = "ps" if kind == F32 else "pd"

    def look_up(builder: Any, at: Any) -> Any:
        if len(held) == 2:
            return llvm(builder, f"llvm.x86.avx512.vpermi2var.{suffix}.512", places, held[0], at, held[1])
        return llvm(builder, "llvm.x86.avx2.permps", places, held[0], at)

    def emit(builder: Any, shifted: Any) -> Any:
        at = builder.bitcast(shifted, bits)
        raised = builder.shl(at, ir.Constant(bits, [integer(step)] * lanes))
        return builder.bitcast(builder.add(builder.bitcast(look_up(builder, at), bits), raised), places)

    def pow2(builder: Any, meet: Vector, shifted: Any) -> Any:
        return _in_registers(builder, lambda piece: emit(builder, piece), meet, shifted, lanes)

    return Table(parts, elementwise(pow2, 1))


_TABLES = {
    (np.float32, 512): _table(np.float32, 32, 16),
    (np.float64, 512): _table(np.float64, 16, 8),
    (np.float32, 256): _table(np.float32, 8, 8),
}


def table(real: type, registers: int) -> Table | None:
    """The table that registers of so many bits look up, if they do: those of AVX-512 and of AVX2."""
    return _TABLES.get((real, registers))
