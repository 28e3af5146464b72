"""From a vector to a scalar: sums, maxima and counts over the lanes, by one tree, so to the same bits anywhere."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .simd import I1, I32, I64, constant, llvm, mangle, picks


def _reduction(combine: Any) -> Any:
    """Fold a vector by halves: the same tree, so the same bits, on every machine."""

    @intrinsic
    def reduce(_typingctx: Any, vector: Any) -> Any:
        def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
            value, lanes = args[0], vector.lanes
            while lanes > 1:
                lanes //= 2
                low, high = picks(range(lanes)), picks(range(lanes, 2 * lanes))
                value = combine(
                    builder, builder.shuffle_vector(value, value, low), builder.shuffle_vector(value, value, high)
                )
            return builder.extract_element(value, I32(0))

        return vector.scalar(vector), codegen

    return reduce


hsum = _reduction(lambda builder, a, b: builder.fadd(a, b))
hmax = _reduction(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))


@intrinsic
def lane(_typingctx: Any, vector: Any) -> Any:
    """The first lane, where all are alike."""
    return vector.scalar(vector), lambda context, builder, sig, args: builder.extract_element(args[0], I32(0))


@intrinsic
def least(_typingctx: Any, mask: Any, index: Any) -> Any:
    """The least int64 of the lanes where `mask` is set."""

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        chosen = builder.select(args[0], args[1], constant(index, (1 << 63) - 1))
        return llvm(builder, f"llvm.vector.reduce.smin.{mangle(chosen.type)}", I64, chosen)

    return types.int64(mask, index), codegen


@intrinsic
def count(_typingctx: Any, mask: Any) -> Any:
    """How many lanes of a mask are set."""

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        packed = ir.IntType(mask.lanes)
        return builder.zext(llvm(builder, f"llvm.ctpop.{packed}", packed, builder.bitcast(args[0], packed)), I64)

    return types.int64(mask), codegen


@intrinsic
def lowest(_typingctx: Any, mask: Any) -> Any:
    """The number of the first set lane of a mask, or the number of lanes."""

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        packed = ir.IntType(mask.lanes)
        zeros = llvm(builder, f"llvm.cttz.{packed}", packed, builder.bitcast(args[0], packed), I1(0))
        return builder.zext(zeros, I64)

    return types.int64(mask), codegen
