"""NumPy, as one would write it without a library; 16 bits are computed in float32."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ...arrays import Array
from ..cases import LOSSES, Task
from ..inputs import Inputs
from ..turns import Contender


def cross_entropy(
    x: Array, y: Array, label_smoothing: float = 0.0, z_loss: float = 0.0, softcap: float | None = None, *,
    gradient: bool = False,
) -> Any:  # fmt: skip
    """The mean loss, and its gradient if that is wanted."""
    z = _single(x) if softcap is None else softcap * np.tanh(_single(x) / softcap)
    top = z.max(1, keepdims=True)
    p = np.exp(z - top)
    total = p.sum(1, keepdims=True)
    lse, rows, classes = np.log(total) + top, x.size // x.shape[1], x.shape[1]
    if y.ndim == x.ndim:
        y = _single(y)
        loss = (lse * y.sum(1, keepdims=True)).sum() / rows - np.vdot(y, z) / rows
    else:
        at = y[:, None]
        loss = (1 - label_smoothing) * (lse - np.take_along_axis(z, at, 1)).mean()
        if label_smoothing:
            loss += label_smoothing * (lse.mean() - z.mean())
    loss += z_loss * np.square(lse).mean() if z_loss else 0
    if not gradient:
        return (loss,)
    p *= ((y.sum(1, keepdims=True) if y.ndim == x.ndim else 1) + 2 * z_loss * lse) / total
    if y.ndim == x.ndim:
        p -= y
    else:
        p -= p.dtype.type(label_smoothing / classes)
        np.put_along_axis(p, at, np.take_along_axis(p, at, 1) - p.dtype.type(1 - label_smoothing), 1)
    if softcap is not None:
        p *= 1 - np.square(z / softcap)
    p /= rows
    return loss, p.astype(x.dtype, copy=False)


def binary_cross_entropy(x: Array, y: Array, *, gradient: bool = False) -> Any:
    """The mean loss, and its gradient if that is wanted."""
    z, t = _single(x), _single(y)
    e = np.exp(-np.abs(z))
    loss = (np.log1p(e) + np.maximum(z, 0) - z * t).mean()
    if not gradient:
        return (loss,)
    p = (np.where(z < 0, e, 1) / (1 + e) - t) / x.size
    return loss, p.astype(x.dtype, copy=False)


def evaluate(x: Array, y: Array) -> Any:
    """The mean loss, the accuracy, the mean entropy."""
    z, at = _single(x), y[:, None]
    z = z - z.max(1, keepdims=True)
    p = np.exp(z)
    total = p.sum(1, keepdims=True)
    lse = np.log(total)
    nll = (lse - np.take_along_axis(z, at, 1)).mean()
    p *= z
    return nll, (x.argmax(1) == y).mean(), (lse - p.sum(1, keepdims=True) / total).mean()


def evaluate_binary(x: Array, y: Array) -> Any:
    """The mean loss, the accuracy."""
    return (*binary_cross_entropy(x, y), ((x > 0) == (y > 0)).mean())


def contender(task: Task, inputs: Inputs, threads: int) -> Contender:
    """Give a call with the arrays as they are."""
    x, y, loss = inputs.x, inputs.y, LOSSES[task.loss]
    run: Callable[..., Any]
    if task.case == "evaluate":
        run = evaluate_binary if loss.target == "labels" else evaluate
    else:
        run = partial(globals()[loss.function], **loss.options, gradient=task.differentiates)
    return Contender(lambda: run(x, y))


def _single(x: Array) -> Array:
    return x.astype(np.float32) if x.itemsize == 2 else x


def answer(result: Any) -> tuple[Array, ...]:
    """As NumPy arrays."""
    return tuple(map(np.asarray, result))
