"""The library itself."""

from typing import Any

import numpy as np

import fusedloss as fl

from ...arrays import Array
from ..cases import LOSSES, Task
from ..inputs import Inputs
from ..turns import Contender


def contender(task: Task, inputs: Inputs, threads: int) -> Contender:
    """Give a call with NumPy arrays."""
    loss, x, y = LOSSES[task.loss], inputs.x, inputs.y
    function, options = getattr(fl, loss.function), dict[str, Any](loss.options)
    if x.ndim > 2 and loss.target != "labels":
        options["axis"] = 1
    if task.case == "loss":
        return Contender(lambda: (function(x, y, **options),))
    if task.case == "gradient":
        return Contender(lambda: fl.value_and_grad(function)(x, y, **options))
    if task.case == "evaluate":
        evaluate = fl.evaluate_binary if loss.target == "labels" else fl.evaluate
        return Contender(lambda: evaluate(x, y, **options))
    out = inputs.out
    if task.case == "buffer":
        return Contender(lambda: fl.value_and_grad(function, out=out)(x, y, **options))
    return Contender(lambda: fl.value_and_grad(function, out=out)(out, y, **options), lambda: np.copyto(out, x))


def answer(result: Any) -> tuple[Array, ...]:
    """As NumPy arrays."""
    if isinstance(result, fl.Evaluation):
        result = result.nll, result.accuracy, result.entropy
    elif isinstance(result, fl.BinaryEvaluation):
        result = result.nll, result.accuracy
    return tuple(map(np.asarray, result))
