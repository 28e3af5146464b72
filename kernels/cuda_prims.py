"""What CUDA hardware does, as leaves of our kernels: positions, barriers, shuffles and arithmetic.

Everything that knows Numba's CUDA target is here, in ``cuda_memory`` and in ``cuda_compile``. Inline assembly without
side effects is marked so: the compiler may then move and merge it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import cuda
from numba.cuda import types
from numba.cuda.extending import intrinsic

__all__ = [
    "absolute", "block", "blocks", "ex2", "exponent", "fma", "fmax", "following", "jit", "mantissa", "maximum",
    "minimum", "pow2", "real", "select", "shuffle_xor", "sync", "sync_any", "thread", "threads", "vote_any", "whole",
    "wide",
]  # fmt: skip

I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
F32, F64 = ir.FloatType(), ir.DoubleType()
PURE = ("nounwind", "readnone")
REALS = (types.float32, types.float64)


def jit(function: Any) -> Any:
    """Compile a helper by itself, to be inlined by LLVM into whatever calls it; nothing is ever called on the card.

    Numba's own inlining, before types are known, takes minutes for what calls as many helpers as our kernels do.
    """
    return cuda.jit(device=True, forceinline=True)(function)


# ---- position and agreement ------------------------------------------------------------------------------------------


@jit
def thread() -> Any:
    return np.int64(cuda.threadIdx.x)


@jit
def threads() -> Any:
    return np.int64(cuda.blockDim.x)


@jit
def block() -> Any:
    return np.int64(cuda.blockIdx.x)


@jit
def blocks() -> Any:
    return np.int64(cuda.gridDim.x)


@jit
def sync() -> None:
    """Wait for all threads of the block, and see what they wrote."""
    cuda.syncthreads()


@jit
def sync_any(flag: Any) -> Any:
    """Wait as `sync` does; whether any thread of the block brought a flag."""
    return cuda.syncthreads_or(np.int32(flag)) != 0


@jit
def vote_any(flag: Any) -> Any:
    """Whether any lane of the warp brought a flag; all 32 lanes call it."""
    return cuda.any_sync(0xFFFFFFFF, flag)


@jit
def shuffle_xor(value: Any, mask: Any) -> Any:
    """The value of the lane whose number differs in the bits of `mask`; all 32 lanes call it."""
    return cuda.shfl_xor_sync(0xFFFFFFFF, value, mask)


# ---- arithmetic ------------------------------------------------------------------------------------------------------


def pure(builder: Any, result: Any, text: str, constraints: str, args: Any) -> Any:
    """Inline assembly that reads only its operands."""
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(ir.InlineAsm(kind, text, constraints, side_effect=False), args, attrs=PURE)


def common(*given: Any) -> Any:
    """The type in which arguments meet, or None: integers never mix with reals."""
    kinds = {types.unliteral(kind) for kind in given}
    if len(kinds) == 1:
        return kinds.pop()
    if all(kind in REALS for kind in kinds):
        return types.float64
    return types.int64 if all(isinstance(kind, types.Integer) for kind in kinds) else None


def _typed(arity: int, emit: Any, kinds: Any = REALS, result: Any = None) -> Any:
    """An intrinsic whose `arity` arguments meet in one of `kinds`, the type of its result unless another is given."""

    def build(given: Any) -> Any:
        meet = common(*given)
        if meet not in kinds:
            return None

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return emit(builder, *args)

        return (result or meet)(*[meet] * arity), codegen

    if arity == 1:
        return intrinsic(lambda typingctx, a: build((a,)))
    if arity == 2:
        return intrinsic(lambda typingctx, a, b: build((a, b)))
    return intrinsic(lambda typingctx, a, b, c: build((a, b, c)))


def _letter(kind: Any) -> str:
    return "f" if kind == F32 else "d"


def _width(kind: Any) -> int:
    return 32 if kind == F32 else 64


def _fma(builder: Any, *args: Any) -> Any:
    kind = args[0].type
    name = f"llvm.fma.f{_width(kind)}"
    known = builder.module.globals.get(name) or ir.Function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    return builder.call(known, args)


def _pick(symbol: str) -> Any:
    def emit(builder: Any, a: Any, b: Any) -> Any:
        compare = builder.icmp_signed if a.type == I64 else builder.fcmp_ordered
        return builder.select(compare(symbol, a, b), a, b)

    return emit


def _absolute(builder: Any, a: Any) -> Any:
    if a.type == I64:
        return builder.select(builder.icmp_signed("<", a, I64(0)), builder.neg(a), a)
    letter = _letter(a.type)  # NVVM refuses LLVM's fabs
    return pure(builder, a.type, f"abs.f{_width(a.type)} $0, $1;", f"={letter},{letter}", (a,))


def _fmax(builder: Any, a: Any, b: Any) -> Any:
    letter = _letter(a.type)
    return pure(builder, a.type, f"max.f{_width(a.type)} $0, $1, $2;", f"={letter},{letter},{letter}", (a, b))


def _pow2(builder: Any, shifted: Any) -> Any:
    integer, mantissa_bits = (I32, 23) if shifted.type == F32 else (I64, 52)
    return builder.bitcast(builder.shl(builder.bitcast(shifted, integer), integer(mantissa_bits)), shifted.type)


def _exponent(builder: Any, value: Any) -> Any:
    shifted = builder.lshr(builder.bitcast(value, I64), I64(52))
    return builder.sitofp(builder.sub(shifted, I64(1023)), F64)


def _mantissa(builder: Any, value: Any) -> Any:
    kept = builder.and_(builder.bitcast(value, I64), I64((1 << 52) - 1))
    return builder.bitcast(builder.or_(kept, I64(1023 << 52)), F64)


def _following(builder: Any, value: Any) -> Any:
    integer = I32 if value.type == F32 else I64
    raw = builder.bitcast(value, integer)
    step = builder.or_(builder.ashr(raw, integer(integer.width - 1)), integer(1))
    zero = builder.icmp_unsigned("==", builder.shl(raw, integer(1)), integer(0))
    return builder.bitcast(builder.select(zero, integer(1), builder.add(raw, step)), value.type)


def _ex2(builder: Any, x: Any) -> Any:
    return pure(builder, F32, "ex2.approx.ftz.f32 $0, $1;", "=f,f", (x,))


NUMBERS = (*REALS, types.int64)
fma = _typed(3, _fma)
maximum, minimum = _typed(2, _pick(">"), NUMBERS), _typed(2, _pick("<"), NUMBERS)
fmax = _typed(2, _fmax)
absolute = _typed(1, _absolute, NUMBERS)
pow2, following = _typed(1, _pow2), _typed(1, _following)
exponent, mantissa = _typed(1, _exponent, REALS[1:]), _typed(1, _mantissa, REALS[1:])
ex2 = _typed(1, _ex2, REALS[:1])
"""2^x in float32, within 2 ulp, 0 below 2^-126: one instruction of the special function unit."""


@intrinsic
def select(_typingctx: Any, flag: Any, a: Any, b: Any) -> Any:
    """`a` where `flag`, else `b`; both are computed."""
    meet = common(a, b)
    if meet is None:
        return None
    return meet(types.boolean, meet, meet), lambda context, builder, sig, args: builder.select(*args)


def _converted(kind: Any) -> Any:
    @intrinsic
    def convert(_typingctx: Any, value: Any) -> Any:
        given = types.unliteral(value)
        return kind(given), lambda context, builder, sig, args: context.cast(builder, args[0], given, kind)

    return convert


_CONVERT = {"f4": _converted(types.float32), "f8": _converted(types.float64)}
wide = _CONVERT["f8"]


def real(code: str) -> Any:
    """The conversion of any number to float32 (``f4``) or float64 (``f8``)."""
    return _CONVERT[code]


@intrinsic
def whole(_typingctx: Any, value: Any) -> Any:
    """A number's integral part as int64, within its range; NaN gives any integer."""
    given = types.unliteral(value)
    if given not in REALS:
        given = types.int64

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        if args[0].type == I64:
            return args[0]
        size = _width(args[0].type)
        return pure(builder, I64, f"cvt.rzi.s64.f{size} $0, $1;", f"=l,{_letter(args[0].type)}", args)

    return types.int64(given), codegen
