"""The library itself."""

from typing import Any

import numpy as np

import fusedloss as fl

from ...arrays import Array
from ..cases import LOSSES, Inputs, Task
from ..turns import Contender


def contender(task: Task, inputs: Inputs, threads: int) -> Contender | None:
    """Give a call with NumPy arrays."""
    loss, x, y = LOSSES[task.loss], inputs.x, inputs.y
    function, options = getattr(fl, loss.function), dict(loss.options)
    if loss.target != "labels":
        options["axis"] = 1
    if task.case == "loss":
        return Contender(lambda: (function(x, y, **options),))
    if task.case == "gradient":
        return Contender(lambda: fl.value_and_grad(function)(x, y, **options))
    if task.case == "evaluate":
        return Contender(lambda: _evaluate(x, y)) if task.loss == "hard" else None
    out = inputs.out
    if task.case == "buffer":
        return Contender(lambda: fl.value_and_grad(function, out=out)(x, y, **options))
    return Contender(lambda: fl.value_and_grad(function, out=out)(out, y, **options), lambda: np.copyto(out, x))


def _evaluate(x: Array, y: Array) -> tuple[float, ...]:
    report = fl.evaluate(x, y, axis=1)
    return report.nll, report.accuracy, report.entropy


def answer(result: tuple[Any, ...]) -> tuple[Array, ...]:
    """As NumPy arrays."""
    return tuple(map(np.asarray, result))
