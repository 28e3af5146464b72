"""The caller's arrays and options to a frozen Problem. The only room that rejects input.

A Problem holds what a kernel takes, of the dtypes of the kernel contract but in the caller's shapes; ``plan`` gives it
its normal form.
"""

from typing import Any, NamedTuple

import numpy as np

from .arrays import Array, adopt, is_array
from .errors import DTypeError, FusedLossError, OptionError, ProbabilityError, ShapeError, TargetError
from .layout import Form, Shape, positions
from .options import integer, reduced_by

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_INT64_MAX = np.iinfo(np.int64).max
NO_INDEX = int(np.iinfo(np.int64).min)
"""The ``ignore_index`` of those who have none: messages do not name it."""
_FLOATS = "float16, bfloat16, float32 or float64"


class Problem(NamedTuple):
    """One checked call.

    ``reads`` are arrays of the logits' shape and ``rows`` flat arrays with one entry a row, both by their names in the
    kernel contract; ``fixed`` is whatever else the kernel takes. ``dtype`` is that of per-row results, ``name`` what
    the caller knows the logits as, ``caller`` the caller's own logits, and ``target`` the target as it was given.
    """

    kernel: str
    form: Form
    axis: int
    reads: dict[str, Array]
    rows: dict[str, Array]
    fixed: dict[str, Any]
    dtype: np.dtype[Any]
    device: str
    name: str
    caller: Any
    target: Array | None = None
    reduction: str = "none"
    denominator: float | None = None

    @property
    def x(self) -> Array:
        """The logits."""
        return self.reads["x"]

    @property
    def positions(self) -> Shape:
        """The shape of results with one value a row, or an element."""
        return positions(self.form, self.axis, self.x.shape)


def class_loss(
    kernel: str, logits: Any, target: Any, axis: int, sample_weight: Any, reduction: str, denominator: Any, device: str,
    fixed: dict[str, Any], *, class_weight: Any = None, name: str = "logits", soft_only: bool = False,
    signed: bool = False,
) -> Problem:  # fmt: skip
    """Check a loss with one value a row along the class axis. Weights are at least 0, unless they may be ``signed``."""
    x, dtype = _logits(logits, name)
    axis = _class_axis(axis, x, name)
    reads, rows = {"x": x}, {}
    y = _adopt_target(target, x.shape, axis, name, soft_only)
    if y.ndim == x.ndim:
        reads["target"] = y
    else:
        rows["target"] = class_indices(y)
    if not soft_only:
        classes = x.shape[axis]
        fixed["class_weight"] = None if class_weight is None else _class_weight(class_weight, classes, dtype, signed)
    if sample_weight is None:
        fixed["sample_weight"] = None
    else:
        shape = x.shape[:axis] + x.shape[axis + 1 :]
        rows["sample_weight"] = _leading(sample_weight, "sample_weight", shape, dtype, signed).ravel()
    reduced = reduced_by(reduction, denominator)
    return Problem(kernel, "rows", axis, reads, rows, fixed, dtype, device, name, logits, y, *reduced)


def element_loss(
    kernel: str, logits: Any, target: Any, sample_weight: Any, reduction: str, denominator: Any, device: str,
    fixed: dict[str, Any], *, name: str = "logits", signed: bool = False, **broadcast: Any,
) -> Problem:  # fmt: skip
    """Check a loss with one value an element. Weights in ``broadcast`` follow NumPy's broadcasting to the logits.

    Weights are at least 0, unless they may be ``signed``.
    """
    x, dtype = _logits(logits, name)
    y = _element_target(target, x.shape, name)
    reads = {"x": x, "target": y}
    for weight, value in broadcast.items():
        if value is None:
            fixed[weight] = None
        else:
            reads[weight] = _spread(_weight(value, weight, dtype, signed), weight, x.shape)
    if sample_weight is None:
        fixed["sample_weight"] = None
    else:
        reads["sample_weight"] = _leading(sample_weight, "sample_weight", x.shape, dtype, signed)
    reduced = reduced_by(reduction, denominator)
    return Problem(kernel, "elements", 0, reads, {}, fixed, dtype, device, name, logits, y, *reduced)


def activation(kernel: str, x: Any, axis: int, device: str) -> Problem:
    """Check an activation along an axis."""
    values, dtype = _logits(x, "x")
    return Problem(kernel, "rows", _class_axis(axis, values, "x"), {"x": values}, {}, {}, dtype, device, "x", x)


def element_activation(kernel: str, x: Any, device: str) -> Problem:
    """Check an activation of elements."""
    values, dtype = _logits(x, "x")
    return Problem(kernel, "elements", 0, {"x": values}, {}, {}, dtype, device, "x", x)


def scores(logits: Any, target: Any, axis: int, sample_weight: Any, device: str, fixed: dict[str, Any]) -> Problem:
    """Check logits to be scored against hard targets, if any."""
    x, dtype = _logits(logits, "logits")
    axis = _class_axis(axis, x, "logits")
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    y, rows = None, {}
    if target is None:
        fixed["target"] = None
    else:
        y = _adopt_target(target, x.shape, axis, "logits")
        if y.ndim == x.ndim:
            raise DTypeError(f"target has dtype {y.dtype}, expected integers of shape {shape}: scores need classes")
        rows["target"] = class_indices(y)
    if sample_weight is not None:
        rows["sample_weight"] = _leading(sample_weight, "sample_weight", shape, dtype).ravel()
    return Problem("score", "rows", axis, {"x": x}, rows, fixed, dtype, device, "logits", logits, y)


def binary_scores(logits: Any, target: Any, sample_weight: Any, device: str, fixed: dict[str, Any]) -> Problem:
    """Check binary or multi-label logits to be scored; the form is that of elements."""
    x, dtype = _logits(logits, "logits")
    reads = {"x": x}
    if target is None:
        fixed["target"] = None
    else:
        reads["target"] = _element_target(target, x.shape, "logits")
    if sample_weight is not None:
        reads["sample_weight"] = _leading(sample_weight, "sample_weight", x.shape, dtype)
    return Problem("score_binary", "elements", 0, reads, {}, fixed, dtype, device, "logits", logits)


def scored(scores: Any, target: Any, sample_weight: Any, device: str, fixed: dict[str, Any]) -> Problem:
    """Check the scores of rows, and the classes they were scored against; their confidence stands for the logits."""
    columns, dtype = _columns(scores, ("confidence", "nll", "entropy", "brier"), {"prediction": "i8", "rank": "i8"})
    shape = columns["confidence"].shape
    y = adopt(target, "target")
    if y.dtype.kind not in "iu" and (y.size or is_array(target)):
        raise DTypeError(f"target has dtype {y.dtype}, expected integers: classes")
    if y.shape != shape:
        raise ShapeError(f"target has shape {y.shape}, expected {shape}, the scores' shape")
    rows = {name: column.ravel() for name, column in columns.items()} | {"target": class_indices(y)}
    left_out = (rows["rank"] < 0) & (rows["target"] != fixed["ignore_index"])
    if left_out.any():
        where, value = _element(y, int(left_out.argmax()))
        ignored = fixed["ignore_index"]
        raise TargetError(f"target{where} is {value}, expected ignore_index={ignored}: the row was ignored when scored")
    if sample_weight is None:
        fixed["sample_weight"] = None
    else:
        rows["sample_weight"] = _leading(sample_weight, "sample_weight", shape, dtype).ravel()
    reads = {"x": columns["confidence"][..., None]}
    return Problem("tally", "rows", len(shape), reads, rows, fixed, dtype, device, "scores", scores, y)


def binary_scored(scores: Any, target: Any, sample_weight: Any, device: str) -> Problem:
    """Check the scores of elements, and their targets; their probability stands for the logits."""
    columns, dtype = _columns(scores, ("probability", "nll", "brier"), {"prediction": "i1"})
    reads = {"x": columns.pop("probability"), **columns}
    fixed: dict[str, Any] = {}
    shape = reads["x"].shape
    reads["target"] = _element_target(target, shape, "scores")
    if sample_weight is None:
        fixed["sample_weight"] = None
    else:
        reads["sample_weight"] = _leading(sample_weight, "sample_weight", shape, dtype)
    return Problem("tally_binary", "elements", 0, reads, {}, fixed, dtype, device, "scores", scores)


def output(problem: Problem, out: Any, shape: Shape, dtype: np.dtype[Any]) -> Array:
    """Check an array to write to, which may be the logits themselves but not overlap any input otherwise."""
    if not is_array(out):
        raise DTypeError(f"out is a {type(out).__name__}, expected an array of dtype {dtype} and shape {shape}")
    array = adopt(out, "out")
    if array.shape != shape:
        raise ShapeError(f"out has shape {array.shape}, expected {shape}")
    if array.dtype.newbyteorder("=") != dtype.newbyteorder("="):
        raise DTypeError(f"out has dtype {array.dtype}, expected {dtype}")
    if not array.flags.writeable:
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
    if indices is None or number >= indices.size or indices[number] == problem.fixed["ignore_index"]:
        return False
    return not 0 <= indices[number] < problem.x.shape[problem.axis]


def offence(problem: Problem, number: int) -> FusedLossError:
    """Name what a kernel found wrong, by the number it gave."""
    if problem.target is not None and is_target_offence(problem, number):
        where, value = _element(problem.target, number)
        classes, ignored = problem.x.shape[problem.axis], problem.fixed["ignore_index"]
        other = "" if ignored == NO_INDEX else f" or ignore_index={ignored}"
        return TargetError(f"target{where} is {value}, expected a class in [0, {classes}){other}")
    where, value = _element(problem.x, number)
    expected = "a finite number of at least 0" if problem.fixed.get("normalize") else "a probability in [0, 1]"
    return ProbabilityError(f"{problem.name}{where} is {value}, expected {expected}")


def class_indices(target: Array) -> Array:
    """Flatten hard targets as int64. What int64 cannot hold becomes its maximum, which is never a class."""
    if target.dtype.kind == "u" and target.dtype.itemsize == 8:
        target = np.minimum(target, _INT64_MAX)
    return target.astype(np.int64, copy=False).ravel()


def _columns(scores: Any, floating: tuple[str, ...], whole: dict[str, str]) -> tuple[dict[str, Array], np.dtype[Any]]:
    """Adopt scores of one shape, contiguous: those that are floating in one dtype, the others each in its own."""
    columns: dict[str, Array] = {}
    for name in (*floating, *whole):
        if getattr(scores, name, None) is None:
            raise OptionError(f"scores have no {name}, expected what is scored with a target")
        columns[name] = adopt(getattr(scores, name), f"scores.{name}")
        shape = columns[floating[0]].shape
        if columns[name].shape != shape:
            raise ShapeError(f"scores.{name} has shape {columns[name].shape}, expected {shape}, as {floating[0]}")
    dtype = _FLOAT64 if any(column.dtype.char == "d" for column in columns.values()) else _FLOAT32
    native = {name: np.asarray(each, whole.get(name, dtype), order="C") for name, each in columns.items()}
    return native, dtype


def _logits(value: Any, name: str) -> tuple[Array, np.dtype[Any]]:
    """Adopt logits, and give the dtype of their results. Lists of integers convert to float64, arrays do not."""
    x = adopt(value, name)
    if x.dtype.kind in "biu" and not is_array(value):
        x = x.astype(np.float64)
    if not is_floating(x.dtype):
        raise DTypeError(f"{name} {_verb(name)} dtype {x.dtype}, expected {_FLOATS}")
    return x, _FLOAT64 if x.dtype.char == "d" else _FLOAT32


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Tell the floating dtypes that kernels read from all others."""
    return dtype.char in "efd" or (dtype.kind == "V" and dtype.name == "bfloat16")


def _class_axis(axis: int, x: Array, name: str) -> int:
    number = integer("axis", axis, "an integer")
    if not x.ndim:
        raise ShapeError(f"{name} {_verb(name)} no axes, expected at least the class axis")
    if not -x.ndim <= number < x.ndim:
        raise OptionError(f"axis is {number}, expected one in [{-x.ndim}, {x.ndim}) of {_of(name)} shape {x.shape}")
    number %= x.ndim
    if not x.shape[number]:
        raise ShapeError(f"{name} {_verb(name)} shape {x.shape}, expected at least one class along axis {number}")
    return number


def _adopt_target(target: Any, shape: Shape, axis: int, name: str, soft_only: bool = False) -> Array:
    """Adopt a hard target, integers without the class axis, or a soft one, floating of the logits' shape."""
    y = adopt(target, "target")
    rows = shape[:axis] + shape[axis + 1 :]
    if not y.size and y.dtype.kind == "f" and y.shape == rows and not is_array(target):
        y = y.astype(np.int64)  # an empty list has no dtype of its own
    hard = y.dtype.kind in "iu" and not soft_only
    if y.shape == (rows if hard else shape) and (hard or is_floating(y.dtype)):
        return y
    raise _target_error(y, shape, rows, f"{_of(name)} shape {shape}", axis, soft_only)


def _target_error(y: Array, shape: Shape, rows: Shape, origin: str, axis: int, soft_only: bool) -> FusedLossError:
    """Say what is wrong with a target: its dtype, or its shape for that dtype."""
    if soft_only and not is_floating(y.dtype):
        return DTypeError(f"target has dtype {y.dtype}, expected probabilities: {_FLOATS}")
    if y.dtype.kind in "iu":
        hint = "; a soft target must be floating" if y.shape == shape else ""
        return ShapeError(f"target has shape {y.shape}, expected {rows}, {origin} without axis {axis}{hint}")
    if not is_floating(y.dtype):
        return DTypeError(f"target has dtype {y.dtype}, expected integer classes, or probabilities: {_FLOATS}")
    if y.shape == rows and not soft_only:
        return DTypeError(f"target has dtype {y.dtype}, expected integers for classes of shape {rows}")
    return ShapeError(f"target has shape {y.shape}, expected {shape}, {origin}")


def _element_target(target: Any, shape: Shape, name: str) -> Array:
    y = adopt(target, "target")
    if y.dtype.kind not in "biu" and not is_floating(y.dtype):
        raise DTypeError(f"target has dtype {y.dtype}, expected bool, an integer dtype, {_FLOATS}")
    if y.shape != shape:
        raise ShapeError(f"target has shape {y.shape}, expected {shape}, {_of(name)} shape")
    return y


def _class_weight(value: Any, classes: int, dtype: np.dtype[Any], signed: bool) -> Array:
    weight = _weight(value, "class_weight", dtype, signed)
    if weight.shape != (classes,):
        raise ShapeError(f"class_weight has shape {weight.shape}, expected ({classes},), one weight a class")
    return weight


def _leading(value: Any, name: str, shape: Shape, dtype: np.dtype[Any], signed: bool = False) -> Array:
    """Weights of samples: of as many axes as the losses, to be broadcast, or of their leading axes alone."""
    weight = _weight(value, name, dtype, signed)
    missing = len(shape) - weight.ndim
    if missing > 0 and weight.shape == shape[: weight.ndim]:
        weight = weight.reshape(weight.shape + (1,) * missing)
    elif missing > 0:
        raise ShapeError(f"{name} has shape {weight.shape}, expected {shape}, or its leading axes")
    return _spread(weight, name, shape)


def _spread(weight: Array, name: str, shape: Shape) -> Array:
    if weight.shape == shape:
        return weight
    try:
        return np.broadcast_to(weight, shape)
    except ValueError:
        raise ShapeError(f"{name} has shape {weight.shape}, expected one that broadcasts to {shape}") from None


def _weight(value: Any, name: str, dtype: np.dtype[Any], signed: bool) -> Array:
    given = adopt(value, name)
    if given.dtype.kind not in "biu" and not is_floating(given.dtype):
        raise DTypeError(f"{name} has dtype {given.dtype}, expected bool, an integer dtype, {_FLOATS}")
    with np.errstate(over="ignore"):
        weight = np.asarray(given, dtype, order="C")
    if weight.size and not signed:
        low, high = weight.min(), weight.max()
        if not (low >= 0 and high < np.inf):
            raise OptionError(f"{name} holds {high if low >= 0 else low}, expected finite weights of at least 0")
    return weight


def _overlap(a: Array, b: Array) -> bool:
    try:
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]
    except RuntimeError:  # too hard to tell
        return True


def _identical(a: Array, b: Array) -> bool:
    """Tell whether two arrays are the same elements in the same order."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    same_strides = all(s == t or n == 1 for s, t, n in zip(a.strides, b.strides, a.shape, strict=True))
    return bool(same_strides and a.__array_interface__["data"][0] == b.__array_interface__["data"][0])


def _element(array: Array, number: int) -> tuple[str, Any]:
    index = np.unravel_index(number, array.shape)
    return f"[{', '.join(map(str, index))}]" if index else "", array[index]


def _of(name: str) -> str:
    return f"the {name}'" if name.endswith("s") else f"{name}'s"


def _verb(name: str) -> str:
    return "have" if name.endswith("s") else "has"
