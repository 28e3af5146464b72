"""Ask for cache lines before they are needed."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .memory import LINE
from .simd import I32, I64, llvm

BYTE = ir.IntType(8).as_pointer()


@intrinsic
def prefetch(_typingctx: Any, address: Any) -> Any:
    """Ask for the cache line at an address, which need not exist."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        _prefetch(builder, args[0])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def prefetch_vector(_typingctx: Any, fmt: Any, address: Any) -> Any:
    """Ask for the cache lines of a vector at an address, which need not exist."""
    size = fmt.format.lanes * fmt.format.itemsize

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        for offset in range(0, size, LINE):
            _prefetch(builder, builder.add(args[1], I64(offset)))
        return context.get_dummy_value()

    return types.void(fmt, types.int64), codegen


@intrinsic
def prefetch_to_write(_typingctx: Any, address: Any) -> Any:
    """Ask for a cache line that will be written in part, at an address that need not exist."""

    def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        _prefetch(builder, args[0], write=1)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


def _prefetch(builder: Any, address: Any, write: int = 0) -> None:
    pointer = builder.inttoptr(address, BYTE)
    llvm(builder, "llvm.prefetch.p0", ir.VoidType(), pointer, I32(write), I32(3), I32(1))
