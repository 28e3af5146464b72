"""Solving a loss on the card, where its divisor and its result stay: nothing here waits for a kernel."""

from math import nan
from operator import attrgetter
from typing import Any

import numpy as np

from ..arrays import empty, give
from ..backends import resolve
from ..check import Problem, output
from .arrays import CardArray
from .calls import Call
from .running import enqueue, segments

_FLOAT64 = np.dtype(np.float64)

Divisor = float | CardArray


def solve(problem: Problem, gradient: bool, out: Any) -> Any:
    """Compute the loss, or the pair of loss and gradient, as ``reduction.solve`` does."""
    resolve(problem.device, problem.x)
    x, grad = problem.x, None
    if gradient:
        grad = empty(x.shape, x.dtype, x) if out is None else output(problem, out, x.shape, x.dtype)
    value = empty(problem.positions if problem.reduction == "none" else (), problem.dtype, x)
    with Call(x) as call:
        ready = call.ready(problem)
        divisor, scale = _divisor(call, ready)
        _enqueue(call, ready, grad, value, divisor, scale)
    result = give(value, problem.caller)
    if grad is None:
        return result
    return result, give(grad, problem.caller) if out is None else out


def quotients(problem: Problem) -> tuple[Any, Any]:
    """Give what ``reduction.quotients`` does."""
    holder = empty((2,), _FLOAT64, problem.x)
    with Call(problem.x) as call:
        call.use((holder,), writable=True)
        divisor, scale = _divisor(call, call.ready(problem), holder)
        if not isinstance(divisor, CardArray):
            call.card.write(np.array([divisor or nan, scale]), holder)
    both = give(holder, problem.caller)
    return both[0], both[1]


def _enqueue(
    call: Call, problem: Problem, grad: CardArray | None, value: CardArray, divisor: Divisor, scale: Divisor
) -> None:
    x, none = problem.x, problem.reduction == "none"
    call.use((value,), writable=True)
    writes: dict[str, CardArray] = {} if grad is None else {"grad": grad}
    options: dict[str, Any] = {"grad_scale": scale} | ({"grad": None} if grad is None else {})
    outputs: dict[str, CardArray] = {}
    partial = None
    if not x.size:
        if not none:
            call.card.write(np.array(0.0 if divisor else nan, problem.dtype), value)
        return
    if problem.form == "rows":
        outputs["loss"] = losses = value if none else call.empty((x.size // x.shape[problem.axis],), problem.dtype)
    elif none:
        writes["loss"], options["sums"] = value, None
    else:
        options["loss"] = None
        partial = losses = call.empty((segments(problem),), _FLOAT64)
    if problem.kernel == "cross_entropy" and problem.fixed["class_weight"] is not None:
        weight = options["weight_total"] = call.empty((), _FLOAT64)
        _total(call, problem.fixed["class_weight"], weight, 1.0)
    enqueue(call, problem, attrgetter(problem.kernel), writes, outputs, options, partial)
    if not none:
        _total(call, losses, value, divisor)


def _total(call: Call, values: CardArray, out: CardArray, divisor: Divisor) -> None:
    bound = call.backend.total(values.ravel(), out, divisor, partials=call.partials(values.size))
    bound(0, values.size)


def _divisor(call: Call, problem: Problem, holder: CardArray | None = None) -> tuple[Divisor, Divisor]:
    """Give what the sum of the losses is divided by, and its reciprocal or 0; on the card where it is found there."""
    x = problem.x
    number: float | None = 1.0
    if problem.reduction == "batchmean":
        number = float(problem.positions[0] if problem.positions else 1)
    elif problem.reduction == "mean":
        number = problem.denominator
    rows = x.size // x.shape[problem.axis] if problem.form == "rows" else x.size
    weight = problem.rows.get("sample_weight", problem.reads.get("sample_weight"))
    hard = problem.rows.get("target")
    if number is None and hard is None and weight is None:
        number = float(rows)
    if number is None and not rows:
        number = 0.0
    if number is not None:
        return number, 1.0 / number if number else 0.0
    class_weight = None if hard is None else problem.fixed.get("class_weight")
    ignored = problem.fixed.get("ignore_index", 0)
    holder = holder or call.empty((2,), _FLOAT64)
    if weight is not None and hard is None:
        distinct = weight.distinct().ravel()
        weight = distinct.broadcast_to((rows // distinct.size, distinct.size))
    bound = call.backend.weigh(hard, class_weight, weight, ignored, rows, holder, partials=call.partials(rows))
    bound(0, rows)
    first = holder.seen(holder.address, (), ())
    return first, first.seen(first.address + 8, (), ())
