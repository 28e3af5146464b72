"""The caller's arrays and options to a frozen Problem. The only room that rejects input.

A Problem holds what a kernel takes, of the dtypes of the kernel contract but in the caller's shapes; ``plan`` gives it
its normal form.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .arrays import (
    Array,
    addresses,
    adopt,
    beside,
    element,
    flat,
    is_array,
    is_readonly,
    on_card,
    on_host,
)
from .errors import DTypeError, FusedLossError, OptionError, ProbabilityError, ShapeError, TargetError
from .layout import Form, Shape, positions
from .options import integer, reduced_by
from .weights import FLOATS, Logits, is_floating, of_classes, of_elements, of_samples

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_INT64, _INT64_MAX = np.dtype(np.int64), np.iinfo(np.int64).max
NO_INDEX = int(np.iinfo(np.int64).min)
"""The ``ignore_index`` of those who have none: messages do not name it."""


class Problem(NamedTuple):
    """One checked call.

    ``reads`` are arrays of the logits' shape and ``rows`` flat arrays with one entry a row, both by their names in the
    kernel contract; ``fixed`` is whatever else the kernel takes. ``dtype`` is that of per-row results, ``name`` what
    the caller knows the logits as, ``caller`` the caller's own logits, and ``target`` the target as it was given.

    Arrays of a card have neither been read, nor converted, nor flattened: what runs there does that. ``unchecked``
    tells that their weights must be finite and at least 0.
    """

    kernel: str
    form: Form
    axis: int
    reads: dict[str, Any]
    rows: dict[str, Any]
    fixed: dict[str, Any]
    dtype: np.dtype[Any]
    device: str
    name: str
    caller: Any
    target: Any = None
    reduction: str = "none"
    denominator: float | None = None
    unchecked: bool = False

    @property
    def x(self) -> Any:
        """The logits."""
        return self.reads["x"]

    @property
    def is_weighted(self) -> bool:
        """Whether rows have weights, of their samples or their classes."""
        return "sample_weight" in self.rows or self.fixed.get("class_weight") is not None

    @property
    def positions(self) -> Shape:
        """The shape of results with one value a row, or an element."""
        return positions(self.form, self.axis, self.x.shape)


def class_loss(
    kernel: str, logits: Any, target: Any, axis: int, sample_weight: Any, reduction: str, denominator: Any, device: str,
    fixed: dict[str, Any], class_weight: Any = None, name: str = "logits", soft_only: bool = False,
    signed: bool = False,
) -> Problem:  # fmt: skip
    """Check a loss with one value a row along the class axis. Weights are at least 0, unless they may be ``signed``."""
    x = _adopt_logits(logits, name)
    dtype, axis, shape = _along(x.dtype, x.shape, integer("axis", axis, "an integer"), name)
    y = _adopt_target(target, x, axis, shape, name, soft_only)
    reads, rows = {"x": x}, {}
    if y.ndim == x.ndim:
        reads["target"] = y
    else:
        rows["target"] = class_indices(y)
    if class_weight is not None:
        fixed["class_weight"] = of_classes(class_weight, Logits(x, dtype, name), x.shape[axis], signed)
    elif not soft_only:
        fixed["class_weight"] = None
    if sample_weight is None:
        fixed["sample_weight"] = None
    else:
        rows["sample_weight"] = flat(of_samples(sample_weight, Logits(x, dtype, name), shape, signed))
    reduction, denominator = reduced_by(reduction, denominator)
    return Problem(
        kernel, "rows", axis, reads, rows, fixed, dtype, device, name, logits, y, reduction, denominator, not signed
    )


def element_loss(
    kernel: str, logits: Any, target: Any, sample_weight: Any, reduction: str, denominator: Any, device: str,
    fixed: dict[str, Any], *, name: str = "logits", signed: bool = False, **broadcast: Any,
) -> Problem:  # fmt: skip
    """Check a loss with one value an element. Weights in ``broadcast`` follow NumPy's broadcasting to the logits.

    Weights are at least 0, unless they may be ``signed``.
    """
    of = x, dtype, _ = _logits(logits, name)
    y = _element_target(target, of)
    reads = {"x": x, "target": y}
    for weight, value in broadcast.items():
        if value is None:
            fixed[weight] = None
        else:
            reads[weight] = of_elements(value, weight, of, signed)
    if sample_weight is None:
        fixed["sample_weight"] = None
    else:
        reads["sample_weight"] = of_samples(sample_weight, of, x.shape, signed)
    reduced = reduced_by(reduction, denominator)
    return Problem(kernel, "elements", 0, reads, {}, fixed, dtype, device, name, logits, y, *reduced, not signed)


def activation(kernel: str, x: Any, axis: int, device: str) -> Problem:
    """Check an activation along an axis."""
    values = _adopt_logits(x, "x")
    dtype, axis, _ = _along(values.dtype, values.shape, integer("axis", axis, "an integer"), "x")
    return Problem(kernel, "rows", axis, {"x": values}, {}, {}, dtype, device, "x", x)


def element_activation(kernel: str, x: Any, device: str) -> Problem:
    """Check an activation of elements."""
    values, dtype, _ = _logits(x, "x")
    return Problem(kernel, "elements", 0, {"x": values}, {}, {}, dtype, device, "x", x)


def scores(logits: Any, target: Any, axis: int, sample_weight: Any, device: str, fixed: dict[str, Any]) -> Problem:
    """Check logits to be scored against hard targets, if any."""
    x = _adopt_logits(logits, "logits")
    dtype, axis, shape = _along(x.dtype, x.shape, integer("axis", axis, "an integer"), "logits")
    y, rows = None, {}
    if target is None:
        fixed["target"] = None
    else:
        y = _adopt_target(target, x, axis, shape, "logits")
        if y.ndim == x.ndim:
            raise DTypeError(f"target has dtype {y.dtype}, expected integers of shape {shape}: scores need classes")
        rows["target"] = class_indices(y)
    if sample_weight is not None:
        rows["sample_weight"] = flat(of_samples(sample_weight, Logits(x, dtype, "logits"), shape))
    return Problem("score", "rows", axis, {"x": x}, rows, fixed, dtype, device, "logits", logits, y, unchecked=True)


def binary_scores(logits: Any, target: Any, sample_weight: Any, device: str, fixed: dict[str, Any]) -> Problem:
    """Check binary or multi-label logits to be scored; the form is that of elements."""
    of = x, dtype, _ = _logits(logits, "logits")
    reads = {"x": x}
    if target is None:
        fixed["target"] = None
    else:
        reads["target"] = _element_target(target, of)
    if sample_weight is not None:
        reads["sample_weight"] = of_samples(sample_weight, of, x.shape)
    return Problem("score_binary", "elements", 0, reads, {}, fixed, dtype, device, "logits", logits, unchecked=True)


def scored(scores: Any, target: Any, sample_weight: Any, device: str, fixed: dict[str, Any]) -> Problem:
    """Check the scores of rows, and the classes they were scored against; their confidence stands for the logits."""
    columns, dtype = _columns(scores, ("confidence", "nll", "entropy", "brier"), {"prediction": "i8", "rank": "i8"})
    shape = columns["confidence"].shape
    y = _fetched(target, "target")
    if y.dtype.kind not in "iu" and (y.size or is_array(target)):
        raise DTypeError(f"target has dtype {y.dtype}, expected integers: classes")
    if y.shape != shape:
        raise ShapeError(f"target has shape {y.shape}, expected {shape}, the scores' shape")
    rows = {name: column.ravel() for name, column in columns.items()} | {"target": class_indices(y)}
    left_out = (rows["rank"] < 0) & (rows["target"] != fixed["ignore_index"])
    if left_out.any():
        where, value = _where(y, int(left_out.argmax())), element(y, int(left_out.argmax()))
        ignored = fixed["ignore_index"]
        raise TargetError(f"target{where} is {value}, expected ignore_index={ignored}: the row was ignored when scored")
    if sample_weight is None:
        fixed["sample_weight"] = None
    else:
        of = Logits(columns["confidence"], dtype, "scores")
        rows["sample_weight"] = of_samples(_fetched(sample_weight, "sample_weight"), of, shape).ravel()
    reads = {"x": columns["confidence"][..., None]}
    return Problem("tally", "rows", len(shape), reads, rows, fixed, dtype, device, "scores", scores, y)


def binary_scored(scores: Any, target: Any, sample_weight: Any, device: str) -> Problem:
    """Check the scores of elements, and their targets; their probability stands for the logits."""
    columns, dtype = _columns(scores, ("probability", "nll", "brier"), {"prediction": "i1"})
    reads = {"x": columns.pop("probability"), **columns}
    fixed: dict[str, Any] = {}
    of = Logits(reads["x"], dtype, "scores")
    reads["target"] = _element_target(_fetched(target, "target"), of)
    if sample_weight is None:
        fixed["sample_weight"] = None
    else:
        reads["sample_weight"] = of_samples(_fetched(sample_weight, "sample_weight"), of, of.x.shape)
    return Problem("tally_binary", "elements", 0, reads, {}, fixed, dtype, device, "scores", scores)


def output(problem: Problem, out: Any, shape: Shape, dtype: np.dtype[Any]) -> Any:
    """Check an array to write to, which may be the logits themselves but not overlap any input otherwise."""
    if not is_array(out):
        raise DTypeError(f"out is a {type(out).__name__}, expected an array of dtype {dtype} and shape {shape}")
    array = beside(adopt(out, "out"), out, "out", problem.x, problem.name)
    if array.shape != shape:
        raise ShapeError(f"out has shape {array.shape}, expected {shape}")
    if array.dtype.newbyteorder("=") != dtype.newbyteorder("="):
        raise DTypeError(f"out has dtype {array.dtype}, expected {dtype}")
    if is_readonly(array):
        raise OptionError("out is read-only, expected a writable array")
    if any(stride == 0 and length > 1 for stride, length in zip(array.strides, shape, strict=True)):
        raise OptionError("out is broadcast, expected an array whose elements are distinct")
    for name, given in (problem.reads | problem.rows).items():
        if _overlap(array, given) and not (name == "x" and _identical(array, given)):
            which = f"overlaps {problem.name} in part" if name == "x" else f"overlaps {name}"
            raise OptionError(f"out {which}, expected memory of its own, or out={problem.name}")
    return array


def is_target_offence(problem: Problem, number: int) -> bool:
    """Tell whether a kernel that gave this number means the row of a hard target, rather than an element."""
    indices = problem.rows.get("target")
    if indices is None or number >= indices.size:
        return False
    index = element(indices, number)
    return index != problem.fixed["ignore_index"] and not 0 <= index < problem.x.shape[problem.axis]


def offence(problem: Problem, number: int, value: Any = None) -> FusedLossError:
    """Name what a kernel found wrong, by the number it gave, and by the value, where the logits no longer tell it."""
    if problem.target is not None and is_target_offence(problem, number):
        where, value = _where(problem.target, number), element(problem.target, number)
        classes, ignored = problem.x.shape[problem.axis], problem.fixed["ignore_index"]
        other = "" if ignored == NO_INDEX else f" or ignore_index={ignored}"
        return TargetError(f"target{where} is {value}, expected a class in [0, {classes}){other}")
    where, value = _where(problem.x, number), element(problem.x, number) if value is None else value
    expected = "a finite number of at least 0" if problem.fixed.get("normalize") else "a probability in [0, 1]"
    return ProbabilityError(f"{problem.name}{where} is {value}, expected {expected}")


def class_indices(target: Any) -> Any:
    """Flatten hard targets as int64. What int64 cannot hold becomes its maximum, which is never a class."""
    if on_card(target):
        return target
    if target.dtype is _INT64:
        return target.ravel()
    if target.dtype.kind == "u" and target.dtype.itemsize == 8:
        target = np.minimum(target, _INT64_MAX)
    return target.astype(_INT64, copy=False).ravel()


def _columns(scores: Any, floating: tuple[str, ...], whole: dict[str, str]) -> tuple[dict[str, Array], np.dtype[Any]]:
    """Adopt scores of one shape, contiguous: those that are floating in one dtype, the others each in its own."""
    columns: dict[str, Array] = {}
    for name in (*floating, *whole):
        if getattr(scores, name, None) is None:
            raise OptionError(f"scores have no {name}, expected what is scored with a target")
        columns[name] = _fetched(getattr(scores, name), f"scores.{name}")
        shape = columns[floating[0]].shape
        if columns[name].shape != shape:
            raise ShapeError(f"scores.{name} has shape {columns[name].shape}, expected {shape}, as {floating[0]}")
    dtype = _FLOAT64 if any(column.dtype.char == "d" for column in columns.values()) else _FLOAT32
    native = {name: np.asarray(each, whole.get(name, dtype), order="C") for name, each in columns.items()}
    return native, dtype


def _fetched(value: Any, name: str) -> Array:
    """Adopt an array, and fetch it from its card: it is small, and what comes of it are numbers on the host."""
    return on_host(adopt(value, name))


def _logits(value: Any, name: str) -> Logits:
    """Adopt logits, and give the dtype of their results."""
    x = _adopt_logits(value, name)
    return Logits(x, _result_dtype(x.dtype, name), name)


def _adopt_logits(value: Any, name: str) -> Any:
    """Adopt logits. Lists of integers convert to float64, arrays do not."""
    x = adopt(value, name)
    return x.astype(np.float64) if x is not value and x.dtype.kind in "biu" and not is_array(value) else x


def _result_dtype(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    if not is_floating(dtype):
        raise DTypeError(f"{name} {_verb(name)} dtype {dtype}, expected {FLOATS}")
    return _FLOAT64 if dtype.char == "d" else _FLOAT32


@lru_cache(maxsize=1024)
def _along(dtype: np.dtype[Any], shape: Shape, axis: int, name: str) -> tuple[np.dtype[Any], int, Shape]:
    """Give the dtype of results, the class axis counted from the first, and the shape without it."""
    result, ndim = _result_dtype(dtype, name), len(shape)
    if not ndim:
        raise ShapeError(f"{name} {_verb(name)} no axes, expected at least the class axis")
    if not -ndim <= axis < ndim:
        raise OptionError(f"axis is {axis}, expected one in [{-ndim}, {ndim}) of {_of(name)} shape {shape}")
    axis %= ndim
    if not shape[axis]:
        raise ShapeError(f"{name} {_verb(name)} shape {shape}, expected at least one class along axis {axis}")
    return result, axis, shape[:axis] + shape[axis + 1 :]


def _adopt_target(target: Any, x: Any, axis: int, rows: Shape, name: str, soft_only: bool = False) -> Any:
    """Adopt a hard target, integers without the class axis, or a soft one, floating of the logits' shape."""
    y = adopt(target, "target")
    if not y.size and y.dtype.kind == "f" and y.shape == rows and not is_array(target):
        y = y.astype(np.int64)  # an empty list has no dtype of its own
    y = beside(y, target, "target", x, name)
    hard = y.dtype.kind in "iu" and not soft_only
    if y.shape == (rows if hard else x.shape) and (hard or is_floating(y.dtype)):
        return y
    raise _target_error(y, x.shape, rows, f"{_of(name)} shape {x.shape}", axis, soft_only)


def _target_error(y: Any, shape: Shape, rows: Shape, origin: str, axis: int, soft_only: bool) -> FusedLossError:
    """Say what is wrong with a target: its dtype, or its shape for that dtype."""
    if soft_only and not is_floating(y.dtype):
        return DTypeError(f"target has dtype {y.dtype}, expected probabilities: {FLOATS}")
    if y.dtype.kind in "iu":
        hint = "; a soft target must be floating" if y.shape == shape else ""
        return ShapeError(f"target has shape {y.shape}, expected {rows}, {origin} without axis {axis}{hint}")
    if not is_floating(y.dtype):
        return DTypeError(f"target has dtype {y.dtype}, expected integer classes, or probabilities: {FLOATS}")
    if y.shape == rows and not soft_only:
        return DTypeError(f"target has dtype {y.dtype}, expected integers for classes of shape {rows}")
    return ShapeError(f"target has shape {y.shape}, expected {shape}, {origin}")


def _element_target(target: Any, of: Logits) -> Any:
    y = beside(adopt(target, "target"), target, "target", of.x, of.name)
    if y.dtype.kind not in "biu" and not is_floating(y.dtype):
        raise DTypeError(f"target has dtype {y.dtype}, expected bool, an integer dtype, {FLOATS}")
    if y.shape != of.x.shape:
        raise ShapeError(f"target has shape {y.shape}, expected {of.x.shape}, {_of(of.name)} shape")
    return y


def _overlap(a: Any, b: Any) -> bool:
    try:
        return np.shares_memory(addresses(a), addresses(b), max_work=10_000)  # type: ignore[arg-type]
    except RuntimeError:  # too hard to tell
        return True


def _identical(a: Any, b: Any) -> bool:
    """Tell whether two arrays are the same elements in the same order."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    same_strides = all(s == t or n == 1 for s, t, n in zip(a.strides, b.strides, a.shape, strict=True))
    first, second = (addresses(each).__array_interface__["data"][0] for each in (a, b))
    return bool(same_strides and first == second)


def _where(array: Any, number: int) -> str:
    index = np.unravel_index(number, array.shape)
    return f"[{', '.join(map(str, index))}]" if index else ""


def _of(name: str) -> str:
    return f"the {name}'" if name.endswith("s") else f"{name}'s"


def _verb(name: str) -> str:
    return "have" if name.endswith("s") else "has"
