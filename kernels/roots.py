"""Powers of two whose fraction is looked up in a table of roots, which two registers of 512 bits hold."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from .numerics import PARTS
from .simd import F32, F64, I32, I64, Vector, elementwise, llvm, picks


def _in_registers(builder: Any, emit: Any, meet: Vector, value: Any, lanes: int) -> Any:
    """Call `emit` for each register of so many lanes that a vector fills, and join what it gives."""
    starts = range(0, meet.lanes, lanes)
    pieces = [emit(builder.shuffle_vector(value, value, picks(range(k, k + lanes)))) for k in starts]
    while len(pieces) > 1:
        whole = picks(range(2 * pieces[0].type.count))
        pieces = [builder.shuffle_vector(a, b, whole) for a, b in zip(pieces[::2], pieces[1::2], strict=True)]
    return pieces[0]


def _table_pow2(builder: Any, meet: Vector, shifted: Any) -> Any:
    single = meet.scalar == types.float32
    suffix, mantissa, kind, integer = ("ps", 23, F32, I32) if single else ("pd", 52, F64, I64)
    real, whole = (np.float32, np.int32) if single else (np.float64, np.int64)
    parts = PARTS[real]
    step, lanes = mantissa - parts.bit_length() + 1, parts // 2
    roots = np.exp2(np.arange(parts) / parts).astype(real).view(whole) - (np.arange(parts, dtype=whole) << step)
    bits, places = ir.VectorType(integer, lanes), ir.VectorType(kind, lanes)
    low, high = (ir.Constant(places, [kind(float(root)) for root in half]) for half in np.split(roots.view(real), 2))

    def emit(shifted: Any) -> Any:
        at = builder.bitcast(shifted, bits)
        root = llvm(builder, f"llvm.x86.avx512.vpermi2var.{suffix}.512", places, low, at, high)
        raised = builder.shl(at, ir.Constant(bits, [integer(step)] * lanes))
        return builder.bitcast(builder.add(builder.bitcast(root, bits), raised), places)

    return _in_registers(builder, emit, meet, shifted, lanes)


table_pow2 = elementwise(_table_pow2, 1)
"""2^n for n a multiple of 1/32 (1/16 in float64), from its sum with 1.5·2^mantissa over that; needs AVX-512.

The low bits of the sum are the place of 2 to the fraction in a table, and, shifted, what its exponent is raised by and
what the table has been lowered by.
"""
