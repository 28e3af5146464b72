"""Loops over the elements of a tuple, unrolled when a kernel is compiled: leaves of CUDA hardware.

The function that is applied is compiled once, however many elements there are; LLVM then inlines it.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

__all__ = ["chain", "each", "fold", "table"]

I64 = ir.IntType(64)
tuple_of = types.BaseTuple.from_types


def _applied(typingctx: Any, function: Any, args: Any) -> tuple[Any, Any]:
    """The signature of a device function for some argument types, and how a call of it is made."""
    kind = typingctx.resolve_value_type(function)
    sig = kind.get_call_type(typingctx, tuple(types.unliteral(arg) for arg in args), {})

    def call(context: Any, builder: Any, values: Any) -> Any:
        return context.get_function(kind, sig)(builder, values)

    return sig, call


def _element(context: Any, builder: Any, kind: Any, value: Any, k: int) -> Any:
    """Element k of each of some tuples, as a tuple."""
    elements = [builder.extract_value(builder.extract_value(value, j), k) for j in range(len(kind))]
    return context.make_tuple(builder, tuple_of([each[k] for each in kind]), elements)


def table(function: Any, n: int) -> Any:
    """A function of `a` that gives the tuple (function(0, a), …, function(n-1, a))."""

    @intrinsic
    def made(typingctx: Any, a: Any) -> Any:
        sig, call = _applied(typingctx, function, (types.int64, a))
        result = types.UniTuple(sig.return_type, n)

        def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
            values = [call(context, builder, (I64(k), args[0])) for k in range(n)]
            return context.make_tuple(builder, result, values)

        return result(a), codegen

    return made


def each(function: Any) -> Any:
    """A function of (v, a) that gives function((p, q, …), k, a) for all p, q, … at the place k of the tuples in v."""

    @intrinsic
    def mapped(typingctx: Any, v: Any, a: Any) -> Any:
        n = len(v[0])
        applied = [_applied(typingctx, function, (tuple_of([kind[k] for kind in v]), types.int64, a)) for k in range(n)]
        result = tuple_of([sig.return_type for sig, _ in applied])

        def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
            values = [
                call(context, builder, (_element(context, builder, v, args[0], k), I64(k), args[1]))
                for k, (_, call) in enumerate(applied)
            ]
            return context.make_tuple(builder, result, values)

        return result(v, a), codegen

    return mapped


def fold(function: Any) -> Any:
    """A function of a tuple that combines its elements by function(p, q), neighbours first."""

    @intrinsic
    def folded(typingctx: Any, v: Any) -> Any:
        levels, kinds = [], list(v)
        while len(kinds) > 1:
            pairs = [_applied(typingctx, function, kinds[k : k + 2]) for k in range(0, len(kinds) - 1, 2)]
            levels.append([call for _, call in pairs])
            kinds = [sig.return_type for sig, _ in pairs] + kinds[2 * len(pairs) :]

        def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
            values = [builder.extract_value(args[0], k) for k in range(len(v))]
            for calls in levels:
                merged = [call(context, builder, values[2 * k : 2 * k + 2]) for k, call in enumerate(calls)]
                values = merged + values[2 * len(calls) :]
            return values[0]

        return kinds[0](v), codegen

    return folded


def chain(function: Any) -> Any:
    """A function of (state, v, a) that takes the state through function(state, (p, q, …), k, a) from first to last."""

    @intrinsic
    def chained(typingctx: Any, state: Any, v: Any, a: Any) -> Any:
        kinds = [tuple_of([kind[k] for kind in v]) for k in range(len(v[0]))]
        applied = [_applied(typingctx, function, (state, kind, types.int64, a)) for kind in kinds]

        def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
            value = args[0]
            for k, (_, call) in enumerate(applied):
                item = _element(context, builder, v, args[1], k)
                value = call(context, builder, (value, item, I64(k), args[2]))
            return value

        return state(state, v, a), codegen

    return chained
