"""The activations: sigmoid, softmax and its logarithms."""

from typing import Any

import numpy as np

from . import check
from .arrays import empty, flat, give, on_card
from .check import Problem
from .plan import named, plan, run


def sigmoid(x: Any, *, out: Any = None, device: str = "auto") -> Any:
    """Compute 1 / (1 + exp(−x)).

    Parameters
    ----------
    x : array_like, shape (...)
        float16, bfloat16, float32 or float64.
    out : array, optional
        Where to write: of the shape and dtype of `x`, and possibly `x` itself.
    device : str
        As in `cross_entropy`.

    Returns
    -------
    array, shape (...)
        Of the dtype and the kind of `x`; or `out`.

    Raises
    ------
    ShapeError, DTypeError, OptionError, DeviceError
        As in `value_and_grad`.
    """
    return _elements(check.element_activation("sigmoid", x, device), out)


def softmax(x: Any, axis: int = -1, *, out: Any = None, device: str = "auto") -> Any:
    """Compute exp(x) / Σ exp(x) along an axis.

    Parameters
    ----------
    x : array_like, shape (..., C)
        float16, bfloat16, float32 or float64.
    axis : int
        The axis that is normalised.
    out, device
        As in `sigmoid`.

    Returns
    -------
    array, shape (..., C)
        Of the dtype and the kind of `x`; or `out`.

    Raises
    ------
    ShapeError, DTypeError, OptionError, DeviceError
        As in `value_and_grad`.
    """
    return _elements(check.activation("softmax", x, axis, device), out)


def log_softmax(x: Any, axis: int = -1, *, out: Any = None, device: str = "auto") -> Any:
    """Compute x − log Σ exp(x) along an axis. Parameters, result and errors are those of `softmax`."""
    return _elements(check.activation("log_softmax", x, axis, device), out)


def logsumexp(x: Any, axis: int = -1, *, out: Any = None, device: str = "auto") -> Any:
    """Compute log Σ exp(x) along an axis.

    Parameters
    ----------
    x : array_like, shape (..., C)
        float16, bfloat16, float32 or float64.
    axis : int
        The axis that is summed over.
    out : array, optional
        Where to write: of the shape and dtype of the result.
    device : str
        As in `cross_entropy`.

    Returns
    -------
    scalar or array, shape (...)
        float32, or float64 for float64 `x`; or `out`.

    Raises
    ------
    ShapeError, DTypeError, OptionError, DeviceError
        As in `value_and_grad`.
    """
    problem = check.activation("logsumexp", x, axis, device)
    shape = problem.positions
    if out is None:
        result = empty(shape, problem.dtype, problem.x)
        _run(problem, {}, {"out": flat(result)})
        return give(result[()], x)
    target = check.output(problem, out, shape, problem.dtype)
    if on_card(target):
        _run(problem, {}, {"out": target})
        return out
    rows = np.empty(problem.x.size // problem.x.shape[problem.axis], problem.dtype)
    _run(problem, {}, {"out": rows})
    target[...] = rows.reshape(shape)
    return out


def _elements(problem: Problem, out: Any) -> Any:
    x = problem.x
    result = empty(x.shape, x.dtype, x) if out is None else check.output(problem, out, x.shape, x.dtype)
    _run(problem, {"out": result}, {})
    return give(result[()], problem.caller) if out is None else out


def _run(problem: Problem, writes: dict[str, Any], rows: dict[str, Any]) -> None:
    run(plan(problem, named(problem.kernel), writes, rows, {}))
