"""The arrays that losses are timed on."""

from functools import cached_property
from math import log, prod
from typing import Any

import numpy as np

from ..arrays import Array, bfloat16, empty
from .cases import CASES, LOSSES, Shape, Task


class Inputs:
    """Logits ``x`` and targets ``y`` of a loss; contiguous, and the same in every run.

    Parameters
    ----------
    loss : str
        One of ``LOSSES``.
    shape : tuple of int
        Of the logits; axis 1 is the classes' or the labels'.
    dtype : str
        Of the logits, and of targets that are not classes.

    Raises
    ------
    DTypeError
        If `dtype` is bfloat16 and the package ml_dtypes is missing.
    """

    def __init__(self, loss: str, shape: Shape, dtype: str) -> None:
        rng = np.random.default_rng(0)
        kind = bfloat16("dtype") if dtype == "bfloat16" else np.dtype(dtype)
        real = np.float64 if dtype == "float64" else np.float32
        x: Array = rng.standard_normal(shape, real)
        target = LOSSES[loss].target
        if target == "labels":
            self.y: Array = (rng.random(shape, np.float32) < 0.5).astype(kind)
        else:
            # above the others, as once a model has learnt: most are right, and some are not
            classes = rng.integers(0, shape[1], (shape[0], *shape[2:]))
            at = np.expand_dims(classes, 1)
            np.put_along_axis(x, at, np.take_along_axis(x, at, 1) + real(log(shape[1]) / 2), 1)
            self.y = classes if target == "hard" else _distributions(rng, shape, real).astype(kind)
        self.x: Array = x.astype(kind, copy=False)

    @cached_property
    def out(self) -> Array:
        """A buffer of the logits' shape and dtype, on a cache line, its pages in memory."""
        out = _on_a_line(self.x.shape, self.x.dtype)
        out.fill(0)
        return out

    def moved(self, task: Task) -> int:
        """Tell the least number of bytes that a task reads and writes."""
        written = self.x.nbytes if CASES[task.case].ceiling == "copy" else 0
        return self.x.nbytes + self.y.nbytes + written


def _distributions(rng: np.random.Generator, shape: Shape, dtype: type[np.float32 | np.float64]) -> Array:
    y: Array = rng.standard_exponential(shape, dtype)
    y /= y.sum(1, keepdims=True)
    return y


def _on_a_line(shape: Shape, dtype: np.dtype[Any]) -> Array:
    """As `arrays.empty`, which cares for large arrays only."""
    size = prod(shape) * dtype.itemsize
    block: Array = empty((max(size, 1 << 20),), np.dtype(np.uint8))
    return block[:size].view(dtype).reshape(shape)
