"""The memory of CUDA hardware, as leaves of our kernels: named by addresses, in elements or in words of 16 bytes.

Element codes are ``b1 i1 … i8 u1 … u8``, which come and go as int64, and ``bf f2 f4 f8``, which come and go as float32
(``f8``: float64) and are rounded once. Words of 16 bytes are four uint32 in registers, and nothing but the leaves here
should look into them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

from .cuda_prims import F32, F64, I32, I64, pure

__all__ = [
    "atomic_least", "funnel", "held", "held16", "hold", "hold16", "load16", "load16_kept", "pack", "peek", "poke",
    "store16", "unpack",
]  # fmt: skip

I8, I16, F16 = ir.IntType(8), ir.IntType(16), ir.HalfType()
V4 = ir.VectorType(I32, 4)
GLOBAL, SHARED = 1, 3
WORDS = types.UniTuple(types.uint32, 4)
MEMORY = {
    "bf": I16, "f2": F16, "f4": F32, "f8": F64, "b1": I8,
    **{f"{kind}{size}": ir.IntType(8 * size) for kind in "iu" for size in (1, 2, 4, 8)},
}  # fmt: skip
SIZE = {code: 2 if code == "bf" else int(code[1]) for code in MEMORY}
HELD = "fusedloss_held"


def number(code: str) -> Any:
    """The type in which elements of a code come and go."""
    return {"bf": types.float32, "f2": types.float32, "f4": types.float32, "f8": types.float64}.get(code, types.int64)


# ---- between memory and registers ------------------------------------------------------------------------------------


def _come(builder: Any, code: str, value: Any) -> Any:
    """What was loaded, as the type that kernels compute in."""
    if code in ("f4", "f8", "i8"):
        return value
    if code == "f2":
        return builder.fpext(value, F32)
    if code == "bf":
        return builder.bitcast(builder.shl(builder.zext(value, I32), I32(16)), F32)
    if code == "u8":
        return builder.select(builder.icmp_signed("<", value, I64(0)), I64(2**63 - 1), value)
    return (builder.sext if code[0] == "i" else builder.zext)(value, I64)


def _go(builder: Any, code: str, value: Any) -> Any:
    """What is to be stored, rounded to nearest even, or an integer's low bits."""
    if code in ("f4", "f8", "i8", "u8"):
        return value
    if code == "f2":
        return builder.fptrunc(value, F16)
    if code == "bf":
        return pure(builder, I16, "cvt.rn.bf16.f32 $0, $1;", "=h,f", (value,))
    if code == "b1":
        return builder.zext(builder.icmp_signed("!=", value, I64(0)), I8)
    return builder.trunc(value, MEMORY[code])


def _far(builder: Any, address: Any, kind: Any) -> Any:
    """A pointer to global memory."""
    return builder.inttoptr(address, kind.as_pointer(GLOBAL))


def _near(builder: Any, offset: Any, kind: Any) -> Any:
    """A pointer into the block's dynamic shared memory."""
    room = builder.module.globals.get(HELD)
    if room is None:
        room = ir.GlobalVariable(builder.module, ir.ArrayType(I8, 0), HELD, SHARED)
        room.linkage, room.align = "external", 16
    return builder.bitcast(builder.gep(room, [I32(0), offset]), kind.as_pointer(SHARED))


def _reader(code: str, point: Any) -> Any:
    @intrinsic
    def read(_typingctx: Any, _at: Any) -> Any:
        def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
            value = builder.load(point(builder, args[0], MEMORY[code]), align=SIZE[code])
            return _come(builder, code, value)

        return number(code)(types.int64), codegen

    return read


def _writer(code: str, point: Any) -> Any:
    @intrinsic
    def write(_typingctx: Any, _at: Any, _value: Any) -> Any:
        def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
            value = _go(builder, code, args[1])
            builder.store(value, point(builder, args[0], MEMORY[code]), align=SIZE[code])
            return context.get_dummy_value()

        return types.void(types.int64, number(code)), codegen

    return write


@cache
def peek(code: str) -> Any:
    """``f(at)``: the element at a global address."""
    return _reader(code, _far)


@cache
def poke(code: str) -> Any:
    """``f(at, value)``: store an element at a global address."""
    return _writer(code, _far)


@cache
def held(code: str) -> Any:
    """``f(offset)``: the element at a byte offset of shared memory."""
    return _reader(code, _near)


@cache
def hold(code: str) -> Any:
    """``f(offset, value)``: store an element at a byte offset of shared memory."""
    return _writer(code, _near)


@intrinsic
def atomic_least(_typingctx: Any, _at: Any, _value: Any) -> Any:
    """Lower the int64 at a global address to a value, if it is above it."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        builder.atomic_rmw("min", _far(builder, args[0], I64), args[1], "monotonic")
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


# ---- 16 bytes at a time ----------------------------------------------------------------------------------------------


def _tuple(builder: Any, values: Any) -> Any:
    packed = ir.Constant(ir.ArrayType(values[0].type, len(values)), ir.Undefined)
    for at, value in enumerate(values):
        packed = builder.insert_value(packed, value, at)
    return packed


def _parts(builder: Any, packed: Any) -> Any:
    return [builder.extract_value(packed, at) for at in range(packed.type.count)]


def _loader(instruction: str) -> Any:
    text = f"{instruction} {{$0,$1,$2,$3}}, [$4];"

    @intrinsic
    def load(_typingctx: Any, _at: Any) -> Any:
        def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
            kind = ir.FunctionType(ir.LiteralStructType([I32] * 4), [I64])
            loaded = builder.call(ir.InlineAsm(kind, text, "=r,=r,=r,=r,l", side_effect=True), args)
            return _tuple(builder, [builder.extract_value(loaded, k) for k in range(4)])

        return WORDS(types.int64), codegen

    return load


load16 = _loader("ld.global.L1::no_allocate.v4.b32")
"""The 16 bytes at a global address that is a multiple of 16, which nobody will want again."""
load16_kept = _loader("ld.global.v4.b32")
"""The same, kept in the L1 cache. Neither takes the read-only path, since a gradient may be in place."""


@intrinsic
def store16(_typingctx: Any, _at: Any, _words: Any) -> Any:
    """Store 16 bytes at a global address that is a multiple of 16, for nobody on the card."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [I64] + [I32] * 4)
        text = "st.global.cs.v4.b32 [$0], {$1,$2,$3,$4};"
        store = ir.InlineAsm(kind, text, "l,r,r,r,r", side_effect=True)
        builder.call(store, [args[0], *_parts(builder, args[1])])
        return context.get_dummy_value()

    return types.void(types.int64, WORDS), codegen


@intrinsic
def held16(_typingctx: Any, _offset: Any) -> Any:
    """The 16 bytes at an offset of shared memory that is a multiple of 16."""

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        loaded = builder.load(_near(builder, args[0], V4), align=16)
        return _tuple(builder, [builder.extract_element(loaded, I32(k)) for k in range(4)])

    return WORDS(types.int64), codegen


@intrinsic
def hold16(_typingctx: Any, _offset: Any, _words: Any) -> Any:
    """Store 16 bytes at an offset of shared memory that is a multiple of 16."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        vector = ir.Constant(V4, ir.Undefined)
        for k, word in enumerate(_parts(builder, args[1])):
            vector = builder.insert_element(vector, word, I32(k))
        builder.store(vector, _near(builder, args[0], V4), align=16)
        return context.get_dummy_value()

    return types.void(types.int64, WORDS), codegen


def _halves(builder: Any, code: str, word: Any) -> Any:
    """The two 16-bit numbers of a word, lower address first."""
    if code == "bf":
        low, high = builder.shl(word, I32(16)), builder.and_(word, I32(0xFFFF0000))
        return [builder.bitcast(half, F32) for half in (low, high)]
    low, high = builder.trunc(word, I16), builder.trunc(builder.lshr(word, I32(16)), I16)
    return [builder.fpext(builder.bitcast(half, F16), F32) for half in (low, high)]


def _doubles(builder: Any, words: Any) -> Any:
    wide = [builder.zext(word, I64) for word in words]
    pairs = [builder.or_(wide[k], builder.shl(wide[k + 1], I64(32))) for k in (0, 2)]
    return [builder.bitcast(pair, F64) for pair in pairs]


@cache
def unpack(code: str) -> Any:
    """``f(words)``: the 8, 4 or 2 numbers of 16 bytes."""

    @intrinsic
    def numbers(_typingctx: Any, _words: Any) -> Any:
        def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
            words = _parts(builder, args[0])
            if code == "f4":
                return _tuple(builder, [builder.bitcast(word, F32) for word in words])
            if code == "f8":
                return _tuple(builder, _doubles(builder, words))
            return _tuple(builder, [half for word in words for half in _halves(builder, code, word)])

        return types.UniTuple(number(code), 16 // SIZE[code])(WORDS), codegen

    return numbers


def _from_doubles(builder: Any, reals: Any) -> Any:
    words = []
    for value in reals:
        raw = builder.bitcast(value, I64)
        words += [builder.trunc(raw, I32), builder.trunc(builder.lshr(raw, I64(32)), I32)]
    return words


def _from_halves(builder: Any, code: str, reals: Any) -> Any:
    kind = {"bf": "bf16x2", "f2": "f16x2"}[code]
    text = f"cvt.rn.{kind}.f32 $0, $1, $2;"  # the first operand becomes the upper half
    return [pure(builder, I32, text, "=r,f,f", (reals[k + 1], reals[k])) for k in range(0, 8, 2)]


@cache
def pack(code: str) -> Any:
    """``f(reals)``: the 16 bytes of 8, 4 or 2 numbers, each rounded to nearest even."""

    @intrinsic
    def words(_typingctx: Any, _reals: Any) -> Any:
        def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
            reals = _parts(builder, args[0])
            if code == "f4":
                return _tuple(builder, [builder.bitcast(value, I32) for value in reals])
            if code == "f8":
                return _tuple(builder, _from_doubles(builder, reals))
            return _tuple(builder, _from_halves(builder, code, reals))

        return WORDS(types.UniTuple(number(code), 16 // SIZE[code])), codegen

    return words


@intrinsic
def funnel(_typingctx: Any, _a: Any, _b: Any, _shift: Any) -> Any:
    """The 16 bytes from byte `shift`, 0 to 15, of the 32 bytes of `a` and `b`."""

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        row, shift = _parts(builder, args[0]) + _parts(builder, args[1]), builder.trunc(args[2], I32)
        for bit, step in ((8, 2), (4, 1)):
            far = builder.icmp_unsigned("!=", builder.and_(shift, I32(bit)), I32(0))
            moved = len(row) - step
            row = [builder.select(far, row[k + step], row[k]) for k in range(moved)]
        bits = builder.shl(builder.and_(shift, I32(3)), I32(3))
        text, constraints = "shf.r.wrap.b32 $0, $1, $2, $3;", "=r,r,r,r"
        return _tuple(builder, [pure(builder, I32, text, constraints, (row[k], row[k + 1], bits)) for k in range(4)])

    return WORDS(WORDS, WORDS, types.int64), codegen
