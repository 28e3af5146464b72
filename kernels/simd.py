"""A vector type for Numba: what the CPU kernels are written in.

A `Format` says how elements lie in memory and how many make a vector; `memory` loads them widened to the arithmetic
type (float32, or float64) and stores them rounded once. Vectors obey ``+ - * /``, comparisons and ``& | ~``, mix with
scalars, and compile to the widest registers the machine has: LLVM splits a 16-lane vector on narrower CPUs. Memory is
named by its address, so that alignment, read-only flags and layouts make no further specialisations. No fast-math
flag is ever set.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_builtin, lower_constant
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model, typeof_impl

I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
F32, F64 = ir.FloatType(), ir.DoubleType()
MEMORY = {
    "f2": ir.HalfType(), "bf": ir.IntType(16), "f4": F32, "f8": F64, "b1": ir.IntType(8),
    **{f"{kind}{size}": ir.IntType(8 * size) for kind in "iu" for size in (1, 2, 4, 8)},
}  # fmt: skip
ELEMENT = {"f4": (F32, types.float32), "f8": (F64, types.float64), "i8": (I64, types.int64), "b1": (I1, types.boolean)}


@dataclass(frozen=True)
class Format:
    """How a vector lies in memory: element code (``f2 bf f4 f8 b1 i1 … u8``), lanes, and the arithmetic type.

    `lies` says how the columns of an operand follow each other: "dense", "apart" (by a stride), "same" (one for all),
    or "absent": read as 1, written nowhere. Where `flushed`, what is subnormal may be written as 0.
    """

    code: str
    lanes: int
    real: str
    lies: str = "dense"
    flushed: bool = False

    @property
    def itemsize(self) -> int:
        return 2 if self.code == "bf" else int(self.code[1])


class FormatType(types.Type):
    """The Numba type of a `Format`: all that it says is known when a kernel is compiled."""

    def __init__(self, fmt: Format) -> None:
        self.format = fmt
        self.vector = Vector(fmt.real, fmt.lanes)
        self.memory = ir.VectorType(MEMORY[fmt.code], fmt.lanes)
        super().__init__(name=str(fmt))


class Vector(types.Type):
    """``lanes`` elements of code ``f4``, ``f8``, ``i8`` or, for masks, ``b1``."""

    def __init__(self, code: str, lanes: int) -> None:
        self.code, self.lanes = code, lanes
        self.element, self.scalar = ELEMENT[code]
        self.ir = ir.VectorType(self.element, lanes)
        super().__init__(name=f"{code}x{lanes}")

    def of(self, code: str) -> Vector:
        """The vector type of as many elements of another code."""
        return Vector(code, self.lanes)


@register_model(FormatType)
class _FormatModel(models.OpaqueModel):
    pass


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        super().__init__(dmm, fe_type, fe_type.ir)


@typeof_impl.register(Format)
def _typeof_format(value: Format, _context: Any) -> FormatType:
    return FormatType(value)


@lower_constant(FormatType)
def _constant_format(context: Any, _builder: Any, _type: Any, _value: Any) -> Any:
    return context.get_dummy_value()


# ---- values ----------------------------------------------------------------------------------------------------------


def splat(builder: Any, value: Any, vector: Vector) -> Any:
    """The LLVM vector of one repeated scalar."""
    if isinstance(value, ir.Constant):
        return ir.Constant(vector.ir, [value] * vector.lanes)
    undefined = ir.Constant(vector.ir, ir.Undefined)
    first = builder.insert_element(undefined, value, I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, vector.lanes), None))


def picks(numbers: Sequence[int]) -> Any:
    """The LLVM constant that says which lanes of two vectors, numbered through, are shuffled to a new one."""
    return ir.Constant(ir.VectorType(I32, len(numbers)), [I32(k) for k in numbers])


def constant(vector: Any, value: float) -> Any:
    """An LLVM constant of a `Vector`'s or a scalar type's elements."""
    if isinstance(vector, Vector):
        return ir.Constant(vector.ir, [vector.element(value)] * vector.lanes)
    return {types.float32: F32, types.float64: F64, types.int64: I64}[vector](value)


def widen(context: Any, builder: Any, value: Any, given: Any, wanted: Any) -> Any:
    """`value` as `wanted`: scalars are cast and repeated, vectors must already agree."""
    if given == wanted:
        return value
    if not isinstance(wanted, Vector):
        return context.cast(builder, value, given, wanted)
    return splat(builder, context.cast(builder, value, types.unliteral(given), wanted.scalar), wanted)


def common(*given: Any) -> Any:
    """The type in which arguments meet: their vector type if any is a vector, else the widest real scalar."""
    vectors = [t for t in given if isinstance(t, Vector)]
    if vectors:
        return vectors[0] if all(v == vectors[0] for v in vectors) else None
    return types.float32 if all(t == types.float32 for t in given) else types.float64


def _typed_binary(result: str | None) -> Any:
    class Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            if kws or not any(isinstance(a, Vector) for a in args):
                return None
            meet = common(*args)
            return meet and signature(meet.of(result) if result else meet, *args)

    return Template


def _lower_binary(op: Any, emit: Any, inplace: Any = None, result: str | None = None) -> None:
    """Make `op` work between vectors, and vectors and scalars."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        meet = common(*sig.args)
        return emit(builder, meet, *(widen(context, builder, a, t, meet) for a, t in zip(args, sig.args, strict=True)))

    for name in (op, inplace) if inplace else (op,):
        infer_global(name)(_typed_binary(result))
        for kinds in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
            lower_builtin(name, *kinds)(lower)


def _arithmetic(floating: str, integer: str) -> Any:
    return lambda builder, meet, a, b: getattr(builder, floating if meet.code[0] == "f" else integer)(a, b)


def _comparison(symbol: str) -> Any:
    def emit(builder: Any, meet: Any, a: Any, b: Any) -> Any:
        if meet.code[0] == "f":
            return (builder.fcmp_unordered if symbol == "!=" else builder.fcmp_ordered)(symbol, a, b)
        return builder.icmp_signed(symbol, a, b)

    return emit


_lower_binary(operator.add, _arithmetic("fadd", "add"), operator.iadd)
_lower_binary(operator.sub, _arithmetic("fsub", "sub"), operator.isub)
_lower_binary(operator.mul, _arithmetic("fmul", "mul"), operator.imul)
_lower_binary(operator.truediv, lambda builder, meet, a, b: builder.fdiv(a, b), operator.itruediv)
_lower_binary(operator.and_, lambda builder, meet, a, b: builder.and_(a, b), operator.iand)
_lower_binary(operator.or_, lambda builder, meet, a, b: builder.or_(a, b), operator.ior)
for _op, _symbol in {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}.items():
    _lower_binary(getattr(operator, _op), _comparison(_symbol), result="b1")


@infer_global(operator.neg)
@infer_global(operator.invert)
class _Unary(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        return signature(args[0], *args) if isinstance(args[0], Vector) else None


@lower_builtin(operator.neg, Vector)
def _neg(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
    return builder.fneg(args[0])


@lower_builtin(operator.invert, Vector)
def _invert(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
    return builder.not_(args[0])


def llvm(builder: Any, name: str, result: Any, *args: Any) -> Any:
    """Call an LLVM intrinsic; ``*`` in its name stands for the mangled vector type."""
    mangled = name
    if "*" in name:
        mangled = name.replace("*", mangle(result if not isinstance(result, ir.VoidType) else args[0].type))
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, mangled), args)


def mangle(kind: Any) -> str:
    """LLVM's name of a type inside an overloaded intrinsic's name: ``v16f32``, ``f64``."""
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{mangle(kind.element)}"
    names = {"half": "f16", "float": "f32", "double": "f64"}
    return names.get(str(kind), str(kind))


def elementwise(emit: Any, arity: int) -> Any:
    """An intrinsic on `arity` vectors or scalars that meet in one real type."""

    def typed(sig_args: Any) -> Any:
        meet = common(*sig_args)
        if meet is None:
            return None

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return emit(
                builder, meet, *(widen(context, builder, a, t, meet) for a, t in zip(args, sig.args, strict=True))
            )

        return meet(*sig_args), codegen

    if arity == 1:
        return intrinsic(lambda typingctx, a: typed((a,)))
    if arity == 2:
        return intrinsic(lambda typingctx, a, b: typed((a, b)))
    return intrinsic(lambda typingctx, a, b, c: typed((a, b, c)))


def _pick(symbol: str) -> Any:
    """The maximum or minimum that returns its second argument when either is NaN: one x86 instruction."""
    return lambda builder, meet, a, b: builder.select(builder.fcmp_ordered(symbol, a, b), a, b)


def _pow2(builder: Any, meet: Any, shifted: Any) -> Any:
    real = getattr(meet, "scalar", meet)
    mantissa, integer = (23, I32) if real == types.float32 else (52, I64)
    if isinstance(meet, Vector):
        integer = ir.VectorType(integer, meet.lanes)
        count = ir.Constant(integer, [integer.element(mantissa)] * meet.lanes)
    else:
        count = integer(mantissa)
    return builder.bitcast(builder.shl(builder.bitcast(shifted, integer), count), shifted.type)


fma = elementwise(lambda builder, meet, a, b, c: llvm(builder, "llvm.fma.*", a.type, a, b, c), 3)
maximum = elementwise(_pick(">"), 2)
minimum = elementwise(_pick("<"), 2)
absolute = elementwise(lambda builder, meet, a: llvm(builder, "llvm.fabs.*", a.type, a), 1)
pow2 = elementwise(_pow2, 1)
"""2^n, from the sum of n, the exponent's bias and 1.5·2^mantissa: the sum's low bits are the exponent to be."""


@intrinsic
def select(_typingctx: Any, mask: Any, a: Any, b: Any) -> Any:
    """`a` where `mask`, else `b`, lane by lane."""
    meet = common(a, b) if a != b else a
    if isinstance(mask, Vector) and not isinstance(meet, Vector):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        flag, *values = args
        if isinstance(meet, Vector) and not isinstance(sig.args[0], Vector):
            flag = splat(builder, flag, meet.of("b1"))
        pair = [widen(context, builder, v, t, meet) for v, t in zip(values, sig.args[1:], strict=True)]
        return builder.select(flag, *pair)

    return meet(mask, a, b), codegen


# ---- between element types -------------------------------------------------------------------------------------------


def _filled(code: str) -> Any:
    """An intrinsic for a vector with one value in every lane, of the format's arithmetic type or of another code."""

    @intrinsic
    def fill(_typingctx: Any, fmt: Any, value: Any) -> Any:
        kind = fmt.vector.of(code or fmt.format.real)
        return kind(fmt, value), lambda context, builder, sig, args: widen(context, builder, args[1], sig.args[1], kind)

    return fill


full, full_wide, full_index = _filled(""), _filled("f8"), _filled("i8")


@intrinsic
def iota(_typingctx: Any, fmt: Any) -> Any:
    """The int64 vector 0, 1, 2 and so on."""
    kind = fmt.vector.of("i8")
    return kind(fmt), lambda context, builder, sig, args: ir.Constant(kind.ir, [I64(k) for k in range(kind.lanes)])


@intrinsic
def ramp(_typingctx: Any, fmt: Any) -> Any:
    """The vector 0, 1, 2 and so on, in the arithmetic type."""
    kind = fmt.vector
    return kind(fmt), lambda context, builder, sig, args: ir.Constant(
        kind.ir, [kind.element(float(k)) for k in range(kind.lanes)]
    )


def _resize(builder: Any, value: Any, kind: Any) -> Any:
    """A float vector or scalar as another floating type."""
    source, target = (getattr(k, "element", k) for k in (value.type, kind))
    if source == target:
        return value
    return builder.fpext(value, kind) if target == F64 else builder.fptrunc(value, kind)


@intrinsic
def wide(_typingctx: Any, value: Any) -> Any:
    """A real vector or scalar in float64."""
    kind = value.of("f8") if isinstance(value, Vector) else types.float64
    return kind(value), lambda context, builder, sig, args: _resize(builder, args[0], getattr(kind, "ir", F64))


@intrinsic
def narrow(_typingctx: Any, fmt: Any, value: Any) -> Any:
    """A float64 vector or scalar in the format's arithmetic type."""
    kind = fmt.vector if isinstance(value, Vector) else fmt.vector.scalar
    lowered = getattr(kind, "ir", fmt.vector.element)
    return kind(fmt, value), lambda context, builder, sig, args: _resize(builder, args[1], lowered)


@intrinsic
def as_index(_typingctx: Any, mask: Any) -> Any:
    """1 where a mask is set, else 0, in int64."""
    kind = mask.of("i8")
    return kind(mask), lambda context, builder, sig, args: builder.zext(args[0], kind.ir)


def _bits(value: Any) -> Any:
    """The integer type as wide as a float64 vector or scalar."""
    return (ir.VectorType(I64, value.type.count), value.type.count) if hasattr(value.type, "count") else (I64, None)


def _int_constant(value: int, lanes: int | None) -> Any:
    return I64(value) if lanes is None else ir.Constant(ir.VectorType(I64, lanes), [I64(value)] * lanes)


@intrinsic
def exponent(_typingctx: Any, value: Any) -> Any:
    """The exponent e of a positive normal float64, as float64: value = m·2^e with m in [1, 2)."""

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        kind, lanes = _bits(args[0])
        shifted = builder.lshr(builder.bitcast(args[0], kind), _int_constant(52, lanes))
        return builder.sitofp(builder.sub(shifted, _int_constant(1023, lanes)), args[0].type)

    return value(value), codegen


@intrinsic
def mantissa(_typingctx: Any, value: Any) -> Any:
    """The mantissa m in [1, 2) of a positive normal float64."""

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        kind, lanes = _bits(args[0])
        kept = builder.and_(builder.bitcast(args[0], kind), _int_constant((1 << 52) - 1, lanes))
        return builder.bitcast(builder.or_(kept, _int_constant(1023 << 52, lanes)), args[0].type)

    return value(value), codegen


@intrinsic
def following(_typingctx: Any, fmt: Any, value: Any) -> Any:
    """The least arithmetic value above a scalar or vector; NaN above +inf."""
    integer, bits = (I32, 32) if fmt.format.real == "f4" else (I64, 64)

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        lanes = getattr(args[1].type, "count", None)
        kind = integer if lanes is None else ir.VectorType(integer, lanes)
        number = integer if lanes is None else lambda v: ir.Constant(kind, [integer(v)] * lanes)
        raw = builder.bitcast(args[1], kind)
        step = builder.or_(builder.ashr(raw, number(bits - 1)), number(1))
        zero = builder.icmp_unsigned("==", builder.shl(raw, number(1)), number(0))
        return builder.bitcast(builder.select(zero, number(1), builder.add(raw, step)), args[1].type)

    return value(fmt, value), codegen
