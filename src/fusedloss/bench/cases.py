"""What is timed: losses, what is asked of them, shapes, dtypes; and the arrays of each."""

from collections.abc import Mapping
from functools import cached_property
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, bfloat16, empty

_RAISED = 6.0  # how far the logit of the target lies above the others, as it does once a model has learnt


class Loss(NamedTuple):
    """A loss of the library with its options, and the kind of its targets: "hard", "soft" or "labels"."""

    function: str
    target: str
    options: Mapping[str, float] = MappingProxyType({})


LOSSES = {
    "hard": Loss("cross_entropy", "hard"),
    "soft": Loss("cross_entropy", "soft"),
    "smoothing": Loss("cross_entropy", "hard", {"label_smoothing": 0.1}),
    "z-loss": Loss("cross_entropy", "hard", {"z_loss": 1e-4}),
    "softcap": Loss("cross_entropy", "hard", {"softcap": 30.0}),
    "binary": Loss("binary_cross_entropy", "labels"),
}
CASES = {"loss": "read", "gradient": "copy", "buffer": "copy", "in-place": "copy", "evaluate": "read"}
"""What is asked of a loss, and the ceiling of that: the mean loss; with its gradient in a new array, in one that is
there, in the place of the logits; or likelihood, accuracy and entropy (with the library: all that `evaluate` tells)."""
DTYPES = ("float32", "float64", "float16", "bfloat16")


class Task(NamedTuple):
    """One thing to time. Axis 1 of the shape is the classes', or the labels'."""

    loss: str
    case: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def ceiling(self) -> str:
        """The ceiling that bounds it: "read" or "copy"."""
        return CASES[self.case]

    @property
    def differentiates(self) -> bool:
        """Whether a gradient is asked for."""
        return self.ceiling == "copy"


class Inputs:
    """Logits ``x``, targets ``y`` and, when asked for, ``out``: a buffer like the logits that begins a cache line."""

    def __init__(self, target: str, shape: tuple[int, ...], dtype: str) -> None:
        rng = np.random.default_rng(0)
        kind = bfloat16("dtype") if dtype == "bfloat16" else np.dtype(dtype)
        x = rng.standard_normal(shape, np.float64 if dtype == "float64" else np.float32)
        if target == "labels":
            self.y = (rng.random(shape, np.float32) < 0.5).astype(kind)
        else:
            classes = rng.integers(0, shape[1], (shape[0], *shape[2:]))
            at = np.expand_dims(classes, 1)
            np.put_along_axis(x, at, np.take_along_axis(x, at, 1) + _RAISED, 1)
            self.y = classes if target == "hard" else _soft(rng, shape).astype(kind)
        self.x = x.astype(kind, copy=False)

    @cached_property
    def out(self) -> Array:
        """A buffer of the logits' shape and dtype, its pages in memory."""
        out = _aligned(self.x.shape, self.x.dtype)
        out.fill(0)
        return out

    def moved(self, task: Task) -> int:
        """Tell the least number of bytes that a task reads and writes."""
        return self.x.nbytes + self.y.nbytes + (self.x.nbytes if task.differentiates else 0)


def _soft(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    y = rng.standard_exponential(shape, np.float32)
    y /= y.sum(1, keepdims=True)
    return y


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """As `arrays.empty` gives for large arrays, for small ones too."""
    size = prod(shape) * dtype.itemsize
    return empty((max(size, 1 << 20),), np.dtype(np.uint8))[:size].view(dtype).reshape(shape)
