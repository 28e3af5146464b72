"""Losses without reduction, and their vector-Jacobian products: what a framework differentiates by.

On its way back a framework multiplies each loss by a cotangent. The kernels multiply each loss by a sample weight. So
the cotangent goes in as the weight, and the gradient is one fused pass over the logits, scaled and rounded once; there
is no stored gradient to be multiplied afterwards. Unlike a caller's weights, cotangents may be negative or NaN.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from . import losses
from .arrays import Array, empty
from .check import Problem
from .layout import Shape
from .plan import named, plan, run
from .reduction import solve


class Abstract(Protocol):
    """An array, or a framework's stand-in for one while it traces."""

    @property
    def shape(self) -> Any:
        """The lengths of its axes."""

    @property
    def dtype(self) -> Any:
        """What NumPy's ``dtype`` understands."""


@dataclass(frozen=True)
class Unreduced:
    """A loss of this library with its options, one value a row, or an element.

    Where ``mean_axis`` is given, the losses of elements are averaged along that axis.
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()
    mean_axis: int | None = None

    @classmethod
    def of(cls, loss: Callable[..., Any], *, mean_axis: int | None = None, **options: Any) -> "Unreduced":
        """Name a loss and its options; scalars of NumPy become Python's, which JSON can hold."""
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in options.items()}
        return cls(loss.__name__, tuple(plain.items()), None if mean_axis is None else int(mean_axis))

    @classmethod
    @lru_cache(maxsize=256)
    def from_json(cls, text: str) -> "Unreduced":
        """Read what `to_json` wrote."""
        name, options, mean_axis = json.loads(text)
        return cls(name, tuple(options.items()), mean_axis)

    def to_json(self) -> str:
        """Write it down for a compiled program to keep."""
        return json.dumps([self.name, dict(self.options), self.mean_axis])

    def from_end(self, ndim: int) -> "Unreduced":
        """Count axes from the end, so that a framework may put more of them in front."""

        def back(axis: int) -> int:
            return axis - ndim if 0 <= axis < ndim else axis

        options = tuple((name, back(value) if name == "axis" else value) for name, value in self.options)
        return Unreduced(self.name, options, None if self.mean_axis is None else back(self.mean_axis))

    def result(self, x: Abstract, target: Abstract) -> tuple[Shape, np.dtype[Any]]:
        """Check shapes, dtypes and options without any data, and give the shape and dtype of the losses."""
        problem = self._pose(_stand_in(x), _stand_in(target))
        return self._averaged(problem.positions), problem.dtype

    def value(self, x: Array, target: Array, out: Array | None = None) -> Array:
        """Compute the losses, into ``out`` if that is given."""
        problem = self._pose(x, target)
        shape = problem.positions
        if out is None:
            out = np.empty(self._averaged(shape), problem.dtype)
        if self.mean_axis is None:
            _fill(problem, out)
        else:
            each = np.empty(shape, problem.dtype)
            _fill(problem, each)
            np.mean(each, self.mean_axis, out=out)
        return out

    def vjp(self, x: Array, target: Array, cotangent: Array, out: Array | None = None) -> Array:
        """Compute the gradient, by ``x``, of the sum of losses times cotangents, into ``out`` if that is given.

        ``out`` may be ``x`` itself. Where the cotangent is 0 the gradient is exactly 0, whatever ``x`` holds there.
        """
        problem = self._pose(x, target)
        weight = np.asarray(cotangent, problem.dtype, order="C")
        if self.mean_axis is not None:
            weight = np.expand_dims(weight / problem.dtype.type(x.shape[self.mean_axis]), self.mean_axis)
        if out is None:
            out = empty(x.shape, x.dtype)
        solve(_weighted(problem, weight), gradient=True, out=out)
        return out

    def no_second_derivative(self) -> NotImplementedError:
        """Say that only a first derivative is to be had."""
        return NotImplementedError(f"{self.name} of fusedloss has a first derivative, and a second one was asked for")

    def _pose(self, x: Array, target: Array) -> Problem:
        # What functools.wraps keeps there: the function that only states the problem.
        pose: Callable[..., Problem] = getattr(losses, self.name).__wrapped__
        return pose(x, target, reduction="sum", **dict(self.options))

    def _averaged(self, shape: Shape) -> Shape:
        if self.mean_axis is None:
            return shape
        axis = self.mean_axis % len(shape)
        return shape[:axis] + shape[axis + 1 :]


def _stand_in(array: Abstract) -> Array:
    """Make an array of that shape and dtype that takes no memory."""
    return np.broadcast_to(np.zeros((), array.dtype), tuple(array.shape))


def _fill(problem: Problem, out: Array) -> None:
    kernel = named(problem.kernel)
    fixed: dict[str, Any] = {"grad": None, "grad_scale": 1.0}
    if problem.form == "rows":
        run(plan(problem, kernel, {}, {"loss": out.reshape(-1)}, fixed))
    else:
        run(plan(problem, kernel, {"loss": out}, {}, {"sums": None, **fixed}))


def _weighted(problem: Problem, weight: Array) -> Problem:
    """Give a problem the weights of its rows, or elements, unchecked."""
    fixed = {name: value for name, value in problem.fixed.items() if name != "sample_weight"}
    if problem.form == "rows":
        return problem._replace(rows=problem.rows | {"sample_weight": weight.reshape(-1)}, fixed=fixed)
    return problem._replace(
        reads=problem.reads | {"sample_weight": np.broadcast_to(weight, problem.x.shape)}, fixed=fixed
    )
