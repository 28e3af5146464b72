"""Two vectors at a time, in the order of elements that costs least: bfloat16 lies two to a word of 32 bits."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .memory import number, pointer_to, store_past, to_memory, to_real
from .simd import I32, I64, Format, FormatType, picks


def _paired(fmt: Format) -> bool:
    """Whether two vectors hold elements of even and of odd numbers: sixteen bits of each word become an element's."""
    return fmt.code == "bf"


def _order(fmt: Format) -> list[int]:
    """The numbers of the elements that two vectors hold between them: those of the first, then of the second."""
    both = range(2 * fmt.lanes)
    return [*both[::2], *both[1::2]] if _paired(fmt) else [*both]


@intrinsic
def load_two(_typingctx: Any, order: Any, fmt: Any, address: Any, index: Any) -> Any:
    """Two vectors that hold what starts at element `index`, in the order that costs least in the format `order`."""
    pair, numbers, lanes = types.UniTuple(fmt.vector, 2), _order(order.format), fmt.format.lanes

    def words(builder: Any, address: Any, index: Any) -> Any:
        kind = ir.VectorType(I32, lanes)
        word = builder.load(pointer_to(builder, fmt, address, index, kind), align=1)
        bits = builder.shl(word, number(kind, 16)), builder.and_(word, number(kind, 0xFFFF0000))
        return [builder.bitcast(each, fmt.vector.ir) for each in bits]

    def dense(builder: Any, address: Any, index: Any) -> Any:
        pointers = (pointer_to(builder, fmt, address, builder.add(index, I64(k)), fmt.memory) for k in (0, lanes))
        loaded = [to_real(builder, fmt.format, builder.load(pointer, align=1)) for pointer in pointers]
        return [builder.shuffle_vector(*loaded, picks(half)) for half in (numbers[:lanes], numbers[lanes:])]

    def codegen(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        paired = _paired(order.format) and _paired(fmt.format)
        return cgutils.pack_array(builder, (words if paired else dense)(builder, *args[2:]))

    return pair(order, fmt, types.int64, types.int64), codegen


def _joined(builder: Any, order: FormatType, fmt: FormatType, first: Any, second: Any) -> Any:
    """Two vectors in the order of `load_two`, as they lie in memory: converted first, since that halves what moves."""
    numbers, halves = _order(order.format), [to_memory(builder, fmt.format, each) for each in (first, second)]
    return builder.shuffle_vector(*halves, picks([numbers.index(k) for k in range(len(numbers))]))


@intrinsic
def store_two(_typingctx: Any, order: Any, fmt: Any, address: Any, index: Any, first: Any, second: Any) -> Any:
    """Write two vectors in the order of `load_two` from element `index` on."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        value = _joined(builder, order, fmt, *args[4:])
        builder.store(value, pointer_to(builder, fmt, args[2], args[3], value.type), align=1)
        return context.get_dummy_value()

    return types.void(order, fmt, types.int64, types.int64, fmt.vector, fmt.vector), codegen


@intrinsic
def stream_two(_typingctx: Any, order: Any, fmt: Any, address: Any, index: Any, first: Any, second: Any) -> Any:
    """Write two vectors as `store_two` does, past the caches; the element must lie on a multiple of their size."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        value = _joined(builder, order, fmt, *args[4:])
        store_past(builder, fmt.format, value, pointer_to(builder, fmt, args[2], args[3], value.type))
        return context.get_dummy_value()

    return types.void(order, fmt, types.int64, types.int64, fmt.vector, fmt.vector), codegen


@intrinsic
def ramp_two(_typingctx: Any, fmt: Any) -> Any:
    """The numbers, in the arithmetic type, of what `load_two` gives."""
    pair, numbers, lanes = types.UniTuple(fmt.vector, 2), _order(fmt.format), fmt.format.lanes

    def codegen(_context: Any, builder: Any, _sig: Any, _args: Any) -> Any:
        halves = numbers[:lanes], numbers[lanes:]
        vectors = [ir.Constant(fmt.vector.ir, [fmt.vector.element(float(k)) for k in half]) for half in halves]
        return cgutils.pack_array(builder, vectors)

    return pair(fmt), codegen
