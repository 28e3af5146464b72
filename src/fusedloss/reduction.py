"""Solving a loss: the gradient's scale before the kernel runs, the sum of its losses after. Kernels know of neither."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from . import cuda
from .arrays import Array, empty, give, on_card
from .check import Problem, output
from .layout import Layout
from .plan import Keep, add_up, is_hosted, named, plan, run, spread
from .threads import Run

_FLOAT64 = np.dtype(np.float64)
_sum = np.add.reduce  # in pairs, whose order is fixed
_LARGEST = float(np.finfo(np.float32).max)


def solve(problem: Problem, gradient: bool = False, out: Any = None, keep: Keep | None = None) -> Any:
    """Compute the loss, or the pair of loss and gradient, in the caller's kind of array.

    The gradient goes to ``out`` where that is given, and is then ``out`` itself. What `repeat` takes is given to
    ``keep``.
    """
    x, by_row, none = problem.x, problem.form == "rows", problem.reduction == "none"
    if on_card(x):
        return cuda.module("losses").solve(problem, gradient, out)
    summed = by_row and not none and is_hosted(problem)  # by the kernel, a block of rows at a time
    counted = summed and not gradient and _counts_rows(problem)
    divisor, writes = math.nan if counted else divisor_of(problem), {}
    fixed = {"grad": None, "grad_scale": 1.0 / divisor if divisor else 0.0}
    if gradient:
        del fixed["grad"]
        writes["grad"] = empty(x.shape, x.dtype) if out is None else output(problem, out, x.shape, x.dtype)
    if by_row or none:
        loss = empty((x.size // x.shape[problem.axis],) if by_row else x.shape, problem.dtype)
    if summed:
        total, rows = run(plan(problem, named(problem.kernel), writes, {"loss": loss}, fixed, (2,), keep=keep))
        value = _quotient(problem.dtype, float(total), float(rows) if counted else divisor)
    elif by_row:
        run(plan(problem, named(problem.kernel), writes, {"loss": loss}, fixed))
        value = loss.reshape(problem.positions)[()] if none else _quotient(problem.dtype, _total(loss), divisor)
    elif none:
        run(plan(problem, named(problem.kernel), {**writes, "loss": loss}, {}, {**fixed, "sums": None}))
        value = loss[()]
    else:
        total = run(plan(problem, named(problem.kernel), writes, {}, {**fixed, "loss": None}, ()))
        value = _quotient(problem.dtype, float(total), divisor)
    value = give(value, problem.caller)
    if not gradient:
        return value
    return value, give(writes["grad"], problem.caller) if out is None else out


def repeat(problem: Problem, gradient: bool, bind: Callable[..., Run], form: Layout) -> Callable[..., Any]:
    """Make a function that solves the problem for other logits, targets and ``out`` of its forms, without a check.

    ``bind`` is what the kernel that was bound for it gives to be bound ``again``. The function returns None where the
    kernel finds something wrong.
    """
    shape, kind, dtype = problem.x.shape, problem.x.dtype, problem.dtype
    rows, blocks, counted = form.units, -(-form.units // form.block), _counts_rows(problem)
    by_target = counted and gradient and "target" in problem.rows
    ignored = _scalar(problem.fixed["ignore_index"]) if by_target else None
    known = math.nan if by_target else divisor_of(problem)

    def again(x: Array, target: Array, out: Array | None) -> Any:
        divisor = int(np.count_nonzero(target != ignored)) if by_target else known
        grad = empty(shape, kind) if gradient and out is None else out
        sums = np.empty((blocks, 2))
        scale = 1.0 / divisor if divisor else 0.0
        if spread(bind(x, target, np.empty(rows, dtype), grad, sums, scale), form) >= 0:
            return None
        total, unmasked = add_up(sums).tolist()
        value = _quotient(dtype, total, unmasked if counted else divisor)
        return (value, grad) if gradient else value

    return again


def quotients(problem: Problem) -> tuple[Any, Any]:
    """Give what the sum of the losses is divided by, NaN for nothing, and its reciprocal, 0 for nothing.

    On a card they are arrays of the caller's kind, without axes and in float64.
    """
    if on_card(problem.x):
        quotients_there: tuple[Any, Any] = cuda.module("losses").quotients(problem)
        return quotients_there
    divisor = divisor_of(problem)
    return (divisor, 1.0 / divisor) if divisor else (math.nan, 0.0)


def divisor_of(problem: Problem) -> float:
    """Give what the sum of the losses is divided by; 0 where there is nothing to average."""
    if problem.reduction == "mean":
        if problem.denominator is not None:
            return problem.denominator
        return _element_weight(problem) if problem.form == "elements" else _row_weight(problem)
    if problem.reduction == "batchmean":
        return problem.positions[0] if problem.positions else 1
    return 1


def _counts_rows(problem: Problem) -> bool:
    """Tell whether the divisor is the number of rows that are not ignored, which kernels count besides."""
    return problem.reduction == "mean" and problem.denominator is None and not problem.is_weighted


def _row_weight(problem: Problem) -> float:
    """Add up the weights of the rows that are not ignored: of the target's class, if it is hard, and of the sample."""
    target, weight = problem.rows.get("target"), problem.rows.get("sample_weight")
    if target is None:
        return _total(weight) if weight is not None else problem.x.size // problem.x.shape[problem.axis]
    counted = target != _scalar(problem.fixed["ignore_index"])
    class_weight = problem.fixed["class_weight"]
    if class_weight is not None:
        # A target out of range is clipped here, and found by the kernel.
        of_class = class_weight.take(target, mode="clip")
        weight = of_class if weight is None else np.multiply(of_class, weight, dtype=np.float64)
    return int(np.count_nonzero(counted)) if weight is None else _total(weight[counted])


_scalar = lru_cache(maxsize=64)(np.array)
"""A number as NumPy compares it at once: what Python's costs is more than comparing a small batch."""


def _element_weight(problem: Problem) -> float:
    weight = problem.reads.get("sample_weight")
    if weight is None:
        return float(problem.x.size)
    distinct = weight[tuple(slice(None, 1 if stride == 0 else None) for stride in weight.strides)]
    return _total(distinct) * float(weight.size // max(distinct.size, 1))


def _total(values: Array) -> float:
    return float(_sum(values, None, _FLOAT64))


def _quotient(dtype: np.dtype[Any], total: float, divisor: float) -> Any:
    """Divide the sum of the losses, NaN for nothing, and cast it to the dtype of the result."""
    value = total / divisor if divisor else math.nan
    # NumPy warns of a cast that overflows; the infinity it gives is what is wanted.
    if dtype.char == "f" and abs(value) > _LARGEST:
        value = math.inf if value > 0 else -math.inf
    return dtype.type(value)
