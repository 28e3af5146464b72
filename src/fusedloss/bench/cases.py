"""What is timed: losses, what is asked of them, shapes and dtypes."""

from collections.abc import Iterable, Mapping
from itertools import product
from types import MappingProxyType
from typing import NamedTuple

Shape = tuple[int, ...]


class Loss(NamedTuple):
    """A loss of the library with its options, and the kind of its targets: "hard", "soft" or "labels"."""

    title: str
    function: str
    target: str
    options: Mapping[str, float] = MappingProxyType({})


class Case(NamedTuple):
    """What is asked of a loss, and what bounds it: reading the arrays, or copying the logits past the caches."""

    title: str
    ceiling: str


LOSSES = {
    "hard": Loss("cross_entropy", "cross_entropy", "hard"),
    "soft": Loss("cross_entropy, soft targets", "cross_entropy", "soft"),
    "smoothing": Loss("cross_entropy, label smoothing", "cross_entropy", "hard", {"label_smoothing": 0.1}),
    "z-loss": Loss("cross_entropy, z-loss", "cross_entropy", "hard", {"z_loss": 1e-4}),
    "softcap": Loss("cross_entropy, softcap", "cross_entropy", "hard", {"softcap": 30.0}),
    "binary": Loss("binary_cross_entropy", "binary_cross_entropy", "labels"),
}
CASES = {
    "loss": Case("loss", "read"),
    "gradient": Case("loss + gradient", "copy"),
    "buffer": Case("loss + gradient into a buffer", "copy"),
    "in-place": Case("loss + gradient in place", "copy"),
    "evaluate": Case("evaluate", "read"),
}
"""A loss is the mean loss. ``evaluate`` is the mean loss and the accuracy, and of classes the mean entropy; the library
tells top-k, Brier score and calibration besides."""
DTYPES = ("float32", "float64", "float16", "bfloat16")


class Task(NamedTuple):
    """One thing to time. Axis 1 of the shape is the classes', or the labels'."""

    loss: str
    case: str
    shape: Shape
    dtype: str

    @property
    def differentiates(self) -> bool:
        """Whether a gradient is asked for."""
        return CASES[self.case].ceiling == "copy"

    def __str__(self) -> str:
        """Name it in a line."""
        return f"{self.case} of {self.loss}, {shape_text(self.shape)} {self.dtype}"


def shape_text(shape: Iterable[int]) -> str:
    """Write a shape as the command line does."""
    return "x".join(map(str, shape))


def tasks(losses: Iterable[str], shapes: Iterable[Shape], dtypes: Iterable[str], cases: Iterable[str]) -> list[Task]:
    """Combine all with all, those of the same arrays one after another; only losses without options are evaluated."""
    combined = (Task(loss, case, shape, dtype) for loss, shape, dtype, case in product(losses, shapes, dtypes, cases))
    return [task for task in combined if task.case != "evaluate" or _plain(task.loss)]


def _plain(loss: str) -> bool:
    return LOSSES[loss].target != "soft" and not LOSSES[loss].options
