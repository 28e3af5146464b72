"""The weights of classes, samples and elements: their shapes, dtypes and ranges. A part of ``check``."""

from typing import Any, NamedTuple

import numpy as np

from .arrays import adopt, beside, on_card, spread
from .errors import DTypeError, OptionError, ShapeError
from .layout import Shape

FLOATS = "float16, bfloat16, float32 or float64"


class Logits(NamedTuple):
    """What other arrays have to fit: the logits, the dtype of their results, and what the caller knows them as."""

    x: Any
    dtype: np.dtype[Any]
    name: str


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Tell the floating dtypes that kernels read from all others."""
    return dtype.char in "efd" or (dtype.kind == "V" and dtype.name == "bfloat16")


def of_classes(value: Any, of: Logits, classes: int, signed: bool) -> Any:
    """Check one weight a class."""
    weight = _weight(value, "class_weight", of, signed)
    if weight.shape != (classes,):
        raise ShapeError(f"class_weight has shape {weight.shape}, expected ({classes},), one weight a class")
    return weight


def of_samples(value: Any, of: Logits, shape: Shape, signed: bool = False) -> Any:
    """Check weights of as many axes as the losses, to be broadcast, or of their leading axes alone."""
    weight = _weight(value, "sample_weight", of, signed)
    missing = len(shape) - weight.ndim
    if missing > 0 and weight.shape == shape[: weight.ndim]:
        weight = weight.reshape(weight.shape + (1,) * missing)
    elif missing > 0:
        raise ShapeError(f"sample_weight has shape {weight.shape}, expected {shape}, or its leading axes")
    return _spread(weight, "sample_weight", shape)


def of_elements(value: Any, name: str, of: Logits, signed: bool) -> Any:
    """Check weights that follow NumPy's broadcasting to the logits."""
    return _spread(_weight(value, name, of, signed), name, of.x.shape)


def _spread(weight: Any, name: str, shape: Shape) -> Any:
    if weight.shape == shape:
        return weight
    try:
        return spread(weight, shape)
    except ValueError:
        raise ShapeError(f"{name} has shape {weight.shape}, expected one that broadcasts to {shape}") from None


def _weight(value: Any, name: str, of: Logits, signed: bool) -> Any:
    """Adopt weights, converted and checked in host memory; those of a card are for its kernels to convert and check."""
    given = beside(adopt(value, name), value, name, of.x, of.name)
    if given.dtype.kind not in "biu" and not is_floating(given.dtype):
        raise DTypeError(f"{name} has dtype {given.dtype}, expected bool, an integer dtype, {FLOATS}")
    if on_card(given):
        return given
    with np.errstate(over="ignore"):
        weight = np.asarray(given, of.dtype, order="C")
    if weight.size and not signed:
        low, high = weight.min(), weight.max()
        if not (low >= 0 and high < np.inf):
            raise unfit(name, high if low >= 0 else low)
    return weight


def unfit(name: str, value: Any) -> OptionError:
    """Name a weight that is out of range."""
    return OptionError(f"{name} holds {value}, expected finite weights of at least 0")
