"""The options: their ranges, and what is said of one outside. A part of ``check``."""

import operator
import sys
from typing import Any

import numpy as np

from .errors import OptionError

_REDUCTIONS = ("mean", "sum", "batchmean", "none")
_MAX = sys.float_info.max
_RANGES = {
    "label_smoothing": (0.0, 1.0, "a number in [0, 1]"),
    "z_loss": (0.0, _MAX, "a finite number of at least 0"),
    "logit_scale": (-_MAX, _MAX, "a finite number"),
    "softcap": (5e-324, _MAX, "None or a finite positive number"),
    "eps": (0.0, 0.49999999999999994, "a number in [0, 0.5)"),
    "log_eps": (0.0, _MAX, "a finite number of at least 0"),
    "threshold": (0.0, 1.0, "a number in [0, 1]"),
    "denominator": (5e-324, _MAX, "None or a finite positive number"),
}
_OPTIONAL = ("softcap", "denominator")
_INT64 = np.iinfo(np.int64)


def options(**given: Any) -> dict[str, Any]:
    """Check options that kernels take, by their names."""
    return {name: _option(name, value) for name, value in given.items()}


def positive_integer(name: str, value: object) -> int:
    """Check an option that counts something."""
    number = integer(name, value, "a positive integer")
    if number < 1:
        raise OptionError(f"{name} is {number}, expected a positive integer")
    return number


def positive_integers(name: str, value: Any) -> tuple[int, ...]:
    """Check an option that is one count or several."""
    several = isinstance(value, list | tuple | range) or (isinstance(value, np.ndarray) and value.ndim == 1)
    return tuple(positive_integer(name, each) for each in (value if several else (value,)))


def integer(name: str, value: Any, expected: str) -> int:
    """Check an integer of any kind."""
    try:
        return operator.index(value)
    except TypeError:
        raise OptionError(f"{name} is {value!r}, expected {expected}") from None


def reduced_by(reduction: str, denominator: Any) -> tuple[str, float | None]:
    """Check how losses are reduced, and by which denominator."""
    if reduction not in _REDUCTIONS:
        raise OptionError(f"reduction is {reduction!r}, expected one of {', '.join(map(repr, _REDUCTIONS))}")
    if denominator is None:
        return reduction, None
    if reduction != "mean":
        raise OptionError(f"denominator is given with reduction={reduction!r}, expected reduction='mean'")
    return reduction, _option("denominator", denominator)


def _option(name: str, value: Any) -> Any:
    if name == "ignore_index":
        number = integer(name, value, "an integer")
        if not _INT64.min <= number < _INT64.max:
            raise OptionError(f"ignore_index is {number}, expected an integer in [-2**63, 2**63 - 1)")
        return number
    if name == "normalize":
        if not isinstance(value, bool | np.bool_):
            raise OptionError(f"normalize is {value!r}, expected True or False")
        return bool(value)
    if value is None and name in _OPTIONAL:
        return None
    low, high, expected = _RANGES[name]
    try:
        real = float("nan") if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        real = float("nan")
    if not low <= real <= high:
        raise OptionError(f"{name} is {value!r}, expected {expected}")
    return real
