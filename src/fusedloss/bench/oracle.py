"""Whether a contender is right: the losses once more, from their formulas, in float64, over blocks of rows."""

from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..errors import AnswerError
from .cases import LOSSES, Shape, Task
from .inputs import Inputs

_BLOCK = 1 << 20  # elements
_SAMPLE = 1 << 22  # elements of the gradient that are compared, at most
_TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "float16": 8e-3, "bfloat16": 6e-2}
"""Relative, by the dtype of an answer: sums of 10⁵ float32 terms; log p, which is about -10, in 16 bits."""


class Truth(NamedTuple):
    """What a loss and its evaluation come to, and the gradient of some slices along the first axis.

    ``unit`` is what the gradient is a difference of, by which its errors are measured.
    """

    loss: float
    accuracy: float
    entropy: float
    sample: Array
    gradient: Array
    unit: Array


def truth(loss: str, inputs: Inputs) -> Truth:
    """Compute a loss and all that is asked of it."""
    x, y = inputs.x, inputs.y
    each = prod(x.shape[1:])
    step = max(1, _BLOCK // each)
    sums = np.zeros(3)
    for lo in range(0, len(x), step):
        sums += _totals(loss, x[lo : lo + step], y[lo : lo + step])
    sample = np.unique(np.linspace(0, len(x) - 1, min(64, max(1, _SAMPLE // each))).astype(int))
    scale = 1 / _count(loss, x.shape)
    gradient, unit = _gradient(loss, x[sample], y[sample])
    value, correct, entropy = (sums * scale).tolist()
    return Truth(value, correct, entropy, sample, gradient * scale, unit * scale)


def check(task: Task, truth: Truth, answer: tuple[Any, ...], who: str) -> None:
    """Compare an answer, as NumPy arrays: (loss,), (loss, gradient), (loss, accuracy) or (loss, accuracy, entropy).

    Raises
    ------
    AnswerError
        If it is wrong; the message says where, what came and what was expected.
    """
    arithmetic = "float64" if task.dtype == "float64" else "float32"
    wanted = {"loss": truth.loss, "accuracy": truth.accuracy, "entropy": truth.entropy}
    numbers = answer[:1] if task.differentiates else answer
    for (name, want), got in zip(wanted.items(), numbers, strict=False):
        tolerance = max(_TOLERANCE[arithmetic], _TOLERANCE[got.dtype.name])
        if not abs(float(got) - want) <= tolerance * abs(want):
            raise _wrong(who, task, name, got, want)
    if task.differentiates:
        _check_gradient(task, truth, answer[1], who)


def _check_gradient(task: Task, truth: Truth, gradient: Array, who: str) -> None:
    gradient = gradient[truth.sample]
    allowed = _TOLERANCE[task.dtype] * truth.unit + _smallest(task.dtype)
    wrong = ~(np.abs(gradient.astype(np.float64) - truth.gradient) <= allowed)
    if wrong.any():
        at = tuple(int(index[0]) for index in wrong.nonzero())
        place = [int(truth.sample[at[0]]), *at[1:]]
        raise _wrong(who, task, f"gradient{place}", gradient[at], truth.gradient[at])


def _wrong(who: str, task: Task, what: str, got: Any, want: float) -> AnswerError:
    return AnswerError(f"{who} answers {what} = {float(got):.9g} to {task}; expected {want:.9g}")


def _smallest(dtype: str) -> float:
    """The least normal number: below it, a gradient may be 0."""
    return float(np.finfo("float32" if dtype == "bfloat16" else dtype).tiny)  # of the same exponents


def _count(loss: str, shape: Shape) -> int:
    return prod(shape) // (1 if LOSSES[loss].target == "labels" else shape[1])


def _totals(loss: str, x: Array, y: Array) -> Array:
    """Sums over a block: of the loss, of correct predictions, of entropies."""
    if LOSSES[loss].target == "labels":
        z, t = x.astype(np.float64), y.astype(np.float64)
        return np.array([(np.logaddexp(0, z) - z * t).sum(), np.count_nonzero((z > 0) == t), 0])
    z, t, _ = _rows(loss, x, y)
    lse, p = _softmax(z)
    losses = t.sum(1) * lse - (t * z).sum(1) + LOSSES[loss].options.get("z_loss", 0.0) * lse**2
    correct = np.count_nonzero(z.argmax(1) == t.argmax(1))
    return np.array([losses.sum(), correct, (lse - (p * z).sum(1)).sum()])


def _gradient(loss: str, x: Array, y: Array) -> tuple[Array, Array]:
    """The gradient of a block's summed loss, and its unit."""
    if LOSSES[loss].target == "labels":
        p, t = 1 / (1 + np.exp(-x.astype(np.float64))), y.astype(np.float64)
        return p - t, p + t
    z, t, slope = _rows(loss, x, y)
    lse, p = _softmax(z)
    p *= (t.sum(1) + 2 * LOSSES[loss].options.get("z_loss", 0.0) * lse)[:, None]
    whole = (x.shape[0], *x.shape[2:], x.shape[1])
    gradient, unit = ((each * slope).reshape(whole) for each in (p - t, p + t))
    return np.moveaxis(gradient, -1, 1), np.moveaxis(unit, -1, 1)


def _rows(loss: str, x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Transformed logits, smoothed targets and dz/dx, each (rows, C)."""
    options, classes = LOSSES[loss].options, x.shape[1]
    z = np.moveaxis(x, 1, -1).reshape(-1, classes).astype(np.float64)
    if LOSSES[loss].target == "soft":
        t = np.moveaxis(y, 1, -1).reshape(-1, classes).astype(np.float64)
    else:
        t = np.zeros_like(z)
        t[np.arange(len(z)), y.reshape(-1)] = 1
    smoothing, cap = options.get("label_smoothing", 0.0), options.get("softcap")
    t = (1 - smoothing) * t + smoothing / classes
    if cap is None:
        return z, t, np.ones(1)
    bounded = np.tanh(z / cap)
    return cap * bounded, t, 1 - bounded**2


def _softmax(z: Array) -> tuple[Array, Array]:
    top = z.max(1, keepdims=True)
    p = np.exp(z - top)
    total = p.sum(1, keepdims=True)
    return (top + np.log(total))[:, 0], p / total
