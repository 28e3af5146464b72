"""The maximum of elements of 16 bits as they lie in memory: their bits order like integers, twice as many a register.

Signed, the greatest bits are the maximum where any element is not negative; unsigned, the least are it where all are.
A NaN that is not negative is greater than all else: the maximum may then be too low, of a row whose sum is NaN.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .memory import number, pointer_to, to_real
from .simd import FormatType, Vector, llvm, picks

I16 = ir.IntType(16)


def _bits(fmt: FormatType) -> Any:
    """As many elements as two vectors hold."""
    return ir.VectorType(I16, 2 * fmt.format.lanes)


def _held(fmt: FormatType) -> Any:
    """What is kept of them: the greatest signed, and the least unsigned, bits, as vectors of words."""
    return types.UniTuple(Vector("i8", fmt.format.lanes // 2), 2)


@intrinsic
def no_peak(_typingctx: Any, fmt: Any) -> Any:
    """Bits that anything replaces; as a value they are NaN, which maxima pass over."""
    held = _held(fmt)

    def codegen(_context: Any, builder: Any, _sig: Any, _args: Any) -> Any:
        starts = (builder.bitcast(number(_bits(fmt), bits), held.dtype.ir) for bits in (0x8000, 0xFFFF))
        return cgutils.pack_array(builder, list(starts))

    return held(fmt), codegen


@intrinsic
def higher_peak(_typingctx: Any, fmt: Any, address: Any, index: Any, peak: Any) -> Any:
    """The peak so far, and that of two vectors of elements from `index` on."""
    held = _held(fmt)

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        kind = _bits(fmt)
        x = builder.load(pointer_to(builder, fmt, args[1], args[2], kind), align=1)
        so_far = (builder.bitcast(builder.extract_value(args[3], k), kind) for k in range(2))
        names = "llvm.smax", "llvm.umin"
        both = (llvm(builder, f"{n}.v{kind.count}i16", kind, x, b) for n, b in zip(names, so_far, strict=True))
        return cgutils.pack_array(builder, [builder.bitcast(each, held.dtype.ir) for each in both])

    return held(fmt, types.int64, types.int64, held), codegen


@intrinsic
def peak_values(_typingctx: Any, fmt: Any, peak: Any) -> Any:
    """Two vectors whose maximum is the peak."""
    pair, lanes = types.UniTuple(fmt.vector, 2), fmt.format.lanes

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        kind = _bits(fmt)
        greatest, least = (builder.bitcast(builder.extract_value(args[1], k), kind) for k in range(2))
        bits = builder.select(builder.icmp_signed("<", greatest, number(kind, 0)), least, greatest)
        halves = (builder.shuffle_vector(bits, bits, picks(range(k, k + lanes))) for k in (0, lanes))
        memory = fmt.memory
        values = (to_real(builder, fmt.format, builder.bitcast(half, memory)) for half in halves)
        return cgutils.pack_array(builder, list(values))

    return pair(fmt, peak), codegen
