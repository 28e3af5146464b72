"""Loads and stores of the vector type in `simd`: contiguous, partial, gathered, streamed past the caches."""

from __future__ import annotations

from functools import partial
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .jit import processor_has
from .simd import F32, F64, I32, I64, Format, FormatType, Vector, llvm, splat

LINE = 64  # bytes


def pointer_to(builder: Any, fmt: FormatType, address: Any, index: Any, kind: Any) -> Any:
    """Pointer to element `index` of an array at `address`, seen as `kind`."""
    base = builder.inttoptr(address, fmt.memory.element.as_pointer())
    return builder.bitcast(builder.gep(base, [index]), kind.as_pointer())


def _vector_of(kind: Any, like: Any) -> Any:
    return ir.VectorType(kind, like.count) if isinstance(like, ir.VectorType) else kind


def number(kind: Any, value: int) -> Any:
    """The LLVM constant of an integer, or of a vector of it."""
    return ir.Constant(kind, [kind.element(value)] * kind.count) if isinstance(kind, ir.VectorType) else kind(value)


def to_real(builder: Any, fmt: Format, value: Any) -> Any:
    """Elements as they lie in memory, in the arithmetic type; scalars and vectors alike."""
    real = _vector_of(F32 if fmt.real == "f4" else F64, value.type)
    single = _vector_of(F32, value.type)
    if fmt.code == "bf":
        bits = _vector_of(I32, value.type)
        value = builder.bitcast(builder.shl(builder.zext(value, bits), number(bits, 16)), single)
    elif fmt.code[0] != "f":
        return (builder.sitofp if fmt.code[0] == "i" else builder.uitofp)(value, real)
    if value.type == real:
        return value
    return builder.fptrunc(value, real) if fmt.code == "f8" else builder.fpext(value, real)


def to_memory(builder: Any, fmt: Format, value: Any) -> Any:
    """Arithmetic values as they lie in memory, rounded to nearest even."""
    if fmt.code == "bf":
        return _to_bfloat16(builder, value, fmt.flushed)
    if fmt.code == "i1":
        return builder.fptosi(value, _vector_of(ir.IntType(8), value.type))
    return value if fmt.code == fmt.real else builder.fptrunc(value, _vector_of(ir.HalfType(), value.type))


class _BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


def _to_bfloat16(builder: Any, value: Any, flushed: bool) -> Any:
    half = _vector_of(ir.IntType(16), value.type)
    if flushed and processor_has("avx512bf16"):  # without it LLVM calls a library
        return builder.bitcast(builder.fptrunc(value, _vector_of(_BFloat(), value.type)), half)
    kind = _vector_of(I32, value.type)
    of = partial(number, kind)
    raw = builder.bitcast(value, kind)
    odd = builder.and_(builder.lshr(raw, of(16)), of(1))
    rounded = builder.add(raw, builder.add(odd, of(0x7FFF)))
    quiet = builder.or_(raw, of(0x400000))  # rounding would carry a NaN into the sign
    kept = builder.select(builder.fcmp_unordered("uno", value, value), quiet, rounded)
    return builder.trunc(builder.lshr(kept, of(16)), half)


def store_past(builder: Any, fmt: Format, value: Any, pointer: Any) -> None:
    """Write what lies as in memory past the caches, to an address that is a multiple of its size."""
    if fmt.code == "bf" and processor_has("avx512bf16"):  # what LLVM knows for its bfloat it would write to the caches
        value = builder.asm(ir.FunctionType(value.type, [value.type]), "", "=v,0", [value], False)
    written = builder.store(value, pointer, align=fmt.itemsize * value.type.count)
    written.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))


# ---- vectors ---------------------------------------------------------------------------------------------------------


@intrinsic
def load(_typingctx: Any, fmt: Any, address: Any, index: Any) -> Any:
    """The vector that starts at element `index`."""

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        pointer = pointer_to(builder, fmt, args[1], args[2], fmt.memory)
        return to_real(builder, fmt.format, builder.load(pointer, align=1))

    return fmt.vector(fmt, types.int64, types.int64), codegen


@intrinsic
def store(_typingctx: Any, fmt: Any, address: Any, index: Any, value: Any) -> Any:
    """Write a vector at element `index`."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        pointer = pointer_to(builder, fmt, args[1], args[2], fmt.memory)
        builder.store(to_memory(builder, fmt.format, args[3]), pointer, align=1)
        return context.get_dummy_value()

    return types.void(fmt, types.int64, types.int64, fmt.vector), codegen


@intrinsic
def stream(_typingctx: Any, fmt: Any, address: Any, index: Any, value: Any) -> Any:
    """Write a vector past the caches; the element must lie on a multiple of the vector's size."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        pointer = pointer_to(builder, fmt, args[1], args[2], fmt.memory)
        store_past(builder, fmt.format, to_memory(builder, fmt.format, args[3]), pointer)
        return context.get_dummy_value()

    return types.void(fmt, types.int64, types.int64, fmt.vector), codegen


@intrinsic
def fence(_typingctx: Any) -> Any:
    """Order streamed stores before everything after them."""

    def codegen(context: Any, builder: Any, _sig: Any, _args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


def leading(builder: Any, lanes: int, number: Any) -> Any:
    """The LLVM mask of the first `number` lanes."""
    kind, all_lanes = ir.VectorType(I32, lanes), I64(lanes)
    within = builder.select(builder.icmp_signed("<", number, all_lanes), number, all_lanes)
    wanted = builder.insert_element(ir.Constant(kind, ir.Undefined), builder.trunc(within, I32), I32(0))
    wanted = builder.shuffle_vector(wanted, ir.Constant(kind, ir.Undefined), ir.Constant(kind, None))
    return builder.icmp_signed("<", ir.Constant(kind, [I32(k) for k in range(lanes)]), wanted)


@intrinsic
def first(_typingctx: Any, fmt: Any, number: Any) -> Any:
    """The mask of the first `number` lanes."""
    mask = fmt.vector.of("b1")
    return mask(fmt, types.int64), lambda context, builder, sig, args: leading(builder, mask.lanes, args[1])


def _load_bits(builder: Any, kind: Any, pointer: Any, mask: Any) -> Any:
    return llvm(builder, "llvm.masked.load.*.p0", kind, pointer, I32(1), mask, ir.Constant(kind, None))


def _store_bits(builder: Any, pointer: Any, mask: Any, value: Any) -> None:
    llvm(builder, "llvm.masked.store.*.p0", ir.VoidType(), value, pointer, I32(1), mask)


def load_masked(builder: Any, fmt: FormatType, pointer: Any, mask: Any) -> Any:
    return to_real(builder, fmt.format, _load_bits(builder, fmt.memory, pointer, mask))


def store_masked(builder: Any, fmt: FormatType, pointer: Any, mask: Any, value: Any) -> None:
    _store_bits(builder, pointer, mask, to_memory(builder, fmt.format, value))


def _pointers(builder: Any, kind: Any, addresses: Any) -> Any:
    return builder.inttoptr(addresses, ir.VectorType(kind.as_pointer(), addresses.type.count))


def _gather(builder: Any, kind: Any, addresses: Any, mask: Any) -> Any:
    name = f"llvm.masked.gather.*.v{kind.count}p0"
    pointers = _pointers(builder, kind.element, addresses)
    return llvm(builder, name, kind, pointers, I32(1), mask, ir.Constant(kind, None))


def _scatter(builder: Any, addresses: Any, mask: Any, value: Any) -> None:
    name = f"llvm.masked.scatter.*.v{value.type.count}p0"
    llvm(builder, name, ir.VoidType(), value, _pointers(builder, value.type.element, addresses), I32(1), mask)


def _columns(builder: Any, fmt: FormatType, address: Any, stride: Any, index: Any) -> Any:
    """Addresses of the elements from `index` on, a stride apart."""
    kind = fmt.vector.of("i8")
    lanes = ir.Constant(kind.ir, [I64(k) for k in range(kind.lanes)])
    offset = builder.mul(builder.add(lanes, splat(builder, index, kind)), splat(builder, stride, kind))
    return builder.add(splat(builder, address, kind), offset)


@intrinsic
def fetch(_typingctx: Any, fmt: Any, address: Any, stride: Any, index: Any, mask: Any) -> Any:
    """The vector of an operand from column `index` on, read only where `mask` is set, however its columns lie."""

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        _, address, stride, index, mask = args
        lies = fmt.format.lies
        if lies == "dense":
            return load_masked(builder, fmt, pointer_to(builder, fmt, address, index, fmt.memory), mask)
        if lies == "apart":
            addresses = _columns(builder, fmt, address, stride, index)
            return to_real(builder, fmt.format, _gather(builder, fmt.memory, addresses, mask))
        if lies == "absent":
            return ir.Constant(fmt.vector.ir, [fmt.vector.element(1.0)] * fmt.vector.lanes)
        pointer = builder.inttoptr(address, fmt.memory.element.as_pointer())
        return splat(builder, to_real(builder, fmt.format, builder.load(pointer, align=1)), fmt.vector)

    return fmt.vector(fmt, types.int64, types.int64, types.int64, mask), codegen


@intrinsic
def put(_typingctx: Any, fmt: Any, address: Any, stride: Any, index: Any, mask: Any, value: Any) -> Any:
    """Write a vector to an operand from column `index` on, where `mask` is set, however its columns lie."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        _, address, stride, index, mask, value = args
        if fmt.format.lies == "dense":
            store_masked(builder, fmt, pointer_to(builder, fmt, address, index, fmt.memory), mask, value)
        elif fmt.format.lies == "apart":
            addresses = _columns(builder, fmt, address, stride, index)
            _scatter(builder, addresses, mask, to_memory(builder, fmt.format, value))
        return context.get_dummy_value()

    return types.void(fmt, types.int64, types.int64, types.int64, mask, fmt.vector), codegen


@intrinsic
def load_part(_typingctx: Any, fmt: Any, address: Any, index: Any, mask: Any) -> Any:
    """The vector at element `index`, reading only where `mask` is set; 0 elsewhere."""

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        return load_masked(builder, fmt, pointer_to(builder, fmt, args[1], args[2], fmt.memory), args[3])

    return fmt.vector(fmt, types.int64, types.int64, mask), codegen


@intrinsic
def store_part(_typingctx: Any, fmt: Any, address: Any, index: Any, mask: Any, value: Any) -> Any:
    """Write a vector at element `index` where `mask` is set."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        store_masked(builder, fmt, pointer_to(builder, fmt, args[1], args[2], fmt.memory), args[3], args[4])
        return context.get_dummy_value()

    return types.void(fmt, types.int64, types.int64, mask, fmt.vector), codegen


@intrinsic
def read(_typingctx: Any, fmt: Any, at: Any, mask: Any) -> Any:
    """The elements at one address, side by side, or at a vector of addresses; 0 where `mask` is not set."""

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        if isinstance(at, Vector):
            return to_real(builder, fmt.format, _gather(builder, fmt.memory, args[1], args[2]))
        return load_masked(builder, fmt, pointer_to(builder, fmt, args[1], I64(0), fmt.memory), args[2])

    return fmt.vector(fmt, at, mask), codegen


@intrinsic
def write(_typingctx: Any, fmt: Any, at: Any, mask: Any, value: Any) -> Any:
    """Write elements at one address, side by side, or at a vector of addresses, where `mask` is set."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        if isinstance(at, Vector):
            _scatter(builder, args[1], args[2], to_memory(builder, fmt.format, args[3]))
        else:
            store_masked(builder, fmt, pointer_to(builder, fmt, args[1], I64(0), fmt.memory), args[2], args[3])
        return context.get_dummy_value()

    return types.void(fmt, at, mask, fmt.vector), codegen


# ---- scalars ---------------------------------------------------------------------------------------------------------


@intrinsic
def peek(_typingctx: Any, fmt: Any, address: Any) -> Any:
    """One element, in the arithmetic type."""

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[1], fmt.memory.element.as_pointer())
        return to_real(builder, fmt.format, builder.load(pointer, align=1))

    return fmt.vector.scalar(fmt, types.int64), codegen


@intrinsic
def poke(_typingctx: Any, fmt: Any, address: Any, value: Any) -> Any:
    """Write one element, rounded to the format."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[1], fmt.memory.element.as_pointer())
        real = context.cast(builder, args[2], sig.args[2], fmt.vector.scalar)
        builder.store(to_memory(builder, fmt.format, real), pointer, align=1)
        return context.get_dummy_value()

    return types.void(fmt, types.int64, value), codegen


@intrinsic
def peek_index(_typingctx: Any, address: Any) -> Any:
    """The int64 at an address."""

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], I64.as_pointer()), align=1)

    return types.int64(types.int64), codegen


@intrinsic
def poke_index(_typingctx: Any, address: Any, value: Any) -> Any:
    """Write an int64 at an address."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        builder.store(args[1], builder.inttoptr(args[0], I64.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def poke_real(_typingctx: Any, address: Any, value: Any) -> Any:
    """Write a float64 at an address."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        builder.store(args[1], builder.inttoptr(args[0], F64.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.float64), codegen


@intrinsic
def load_indices(_typingctx: Any, fmt: Any, address: Any, mask: Any) -> Any:
    """The int64s from an address on, where `mask` is set; 0 elsewhere."""
    kind = fmt.vector.of("i8")

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        return _load_bits(builder, kind.ir, builder.inttoptr(args[1], kind.ir.as_pointer()), args[2])

    return kind(fmt, types.int64, mask), codegen


@intrinsic
def store_indices(_typingctx: Any, fmt: Any, address: Any, mask: Any, value: Any) -> Any:
    """Write int64s from an address on, where `mask` is set."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        _store_bits(builder, builder.inttoptr(args[1], args[3].type.as_pointer()), args[2], args[3])
        return context.get_dummy_value()

    return types.void(fmt, types.int64, mask, value), codegen


@intrinsic
def any_set(_typingctx: Any, mask: Any) -> Any:
    """Whether any lane of a mask is set."""

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        packed = ir.IntType(mask.lanes)
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], packed), packed(0))

    return types.boolean(mask), codegen
