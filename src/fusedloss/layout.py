"""Shapes and strides to normal forms: how a call's arrays are seen by a kernel, and in which blocks it runs.

Everything here is arithmetic on integers; no array is touched. The kernel contract states the normal forms.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import prod
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import numpy as np

from fusedloss.kernels import SEGMENT

Form = Literal["rows", "elements", "labels"]
"""Rows along a class axis, (outer, C, inner); elements, (rows, cols); elements of labels, (rows, labels)."""

Shape = tuple[int, ...]

Kind = tuple[np.dtype[Any], Shape]
"""The dtype and the strides of an array."""

_BLOCK_BYTES, _LEAST_BYTES = 1 << 20, 1 << 18
_BLOCKS = 8  # at least, where they do not become smaller than that: for threads to share evenly
_BLOCK_ROWS = 16
_ROW_BYTES = 256  # of a long row: in their time a row's target, sums and logarithm are seen to
_THREAD_BYTES = 1 << 21  # of long rows: in some 40 µs they are read, and another thread is awake


class Layout(NamedTuple):
    """How a kernel sees its arrays.

    ``normal`` is the shape of the normal form; None where some array has no view of it, and the call is staged.
    ``units`` is what the kernel counts, in blocks of ``block``: rows or segments; slabs if staged. No more than
    ``threads`` threads are worth waking for them; for one they are one block.
    """

    normal: Shape | None
    units: int
    block: int
    threads: int


@dataclass(frozen=True)
class Slabs:
    """Cuts of an array's axes, in C order, into slabs of whole positions: ``step`` along axis ``cut``, all after it."""

    shape: Shape
    cut: int
    step: int

    @property
    def count(self) -> int:
        """The number of slabs."""
        if not prod(self.shape):
            return 0
        return prod(self.shape[: self.cut]) * self._along if self.shape else 1

    @property
    def _along(self) -> int:
        return -(-self.shape[self.cut] // self.step)

    def slab(self, number: int) -> tuple[tuple[slice, ...], int, int]:
        """Return the index of a slab and the range of positions, counted in C order, that it holds."""
        if not self.shape:
            return (), 0, 1
        outer, part = divmod(number, self._along)
        start = part * self.step
        stop = min(start + self.step, self.shape[self.cut])
        inner = prod(self.shape[self.cut + 1 :])
        first = outer * self.shape[self.cut] * inner
        index = [slice(start, stop)]
        for length in reversed(self.shape[: self.cut]):
            outer, here = divmod(outer, length)
            index.insert(0, slice(here, here + 1))
        return tuple(index), first + start * inner, first + stop * inner


def slabs(shape: Shape, positions: int) -> Slabs:
    """Cut ``shape`` into slabs of at most ``positions`` positions, and at least one."""
    inner, cut = 1, 0
    for cut in reversed(range(len(shape))):
        if inner * shape[cut] > positions:
            break
        inner *= shape[cut]
    else:
        return Slabs(shape, 0, max(shape[0], 1) if shape else 1)
    return Slabs(shape, cut, max(positions // inner, 1))


kind_of: Callable[[Any], Kind] = attrgetter("dtype", "strides")


@lru_cache(maxsize=1024)
def layout(form: Form, axis: int, shape: Shape, itemsize: int, kinds: tuple[Kind, ...]) -> Layout:
    """Decide the normal form of arrays of one shape.

    Parameters
    ----------
    form, axis
        The form, and the class axis of rows.
    shape, itemsize
        The logits' shape and the bytes of an element.
    kinds
        The dtype and the strides of every array of that shape that the kernel takes. Kernels read native byte order
        alone.
    """
    native = all(dtype.isnative for dtype, _ in kinds)
    normal = _normal(form, axis, shape, tuple(strides for _, strides in kinds)) if native else None
    if normal is None:
        cuts = row_slabs(form, axis, shape, itemsize)
        return Layout(None, cuts.count, 1, cuts.count)
    units = count_units(form, normal)
    threads = _threads(form, normal, itemsize)
    return Layout(normal, units, _block(form, normal, itemsize) if threads > 1 else max(units, 1), threads)


def contiguous_form(form: Form, axis: int, shape: Shape) -> Shape:
    """Return the normal form of contiguous arrays."""
    if form == "rows":
        return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
    if form == "labels":
        return prod(shape[:-1]), shape[-1]
    return 1, prod(shape)


def count_units(form: Form, normal: Shape) -> int:
    """Count what a kernel of this form counts: rows, or segments of them."""
    if form == "rows":
        return normal[0] * normal[2]
    if form == "labels":
        return normal[0]
    segments: int = -(-normal[1] // SEGMENT)
    return normal[0] * segments


def row_slabs(form: Form, axis: int, shape: Shape, itemsize: int, nbytes: int = 0) -> Slabs:
    """Cut an array of logits into slabs of whole rows of about ``nbytes``, or a block's. Index them with ``across``."""
    rows = positions(form, axis, shape)
    width = prod(shape) // prod(rows) if prod(rows) else 1
    return slabs(rows, max((nbytes or _BLOCK_BYTES) // (width * itemsize), 1))


def positions(form: Form, axis: int, shape: Shape) -> Shape:
    """Return the shape of the positions that a kernel may be given apart: rows, or elements."""
    if form == "rows":
        return shape[:axis] + shape[axis + 1 :]
    return shape[:-1] if form == "labels" else shape


def across(index: tuple[slice, ...], form: Form, axis: int) -> tuple[slice, ...]:
    """Turn an index of positions into one of the logits, whole along the class axis."""
    return index if form != "rows" else (*index[:axis], slice(None), *index[axis:])


def _normal(form: Form, axis: int, shape: Shape, strides: tuple[Shape, ...]) -> Shape | None:
    if prod(shape) == 0:
        return contiguous_form(form, axis, shape)
    if form == "rows":
        before, after = range(axis), range(axis + 1, len(shape))
        breaks = _breaks(shape, strides, before) or _breaks(shape, strides, after)
        return None if breaks else contiguous_form(form, axis, shape)
    if form == "labels":
        breaks = _breaks(shape, strides, range(len(shape) - 1))
        return None if breaks else contiguous_form(form, axis, shape)
    breaks = _breaks(shape, strides, range(len(shape)))
    if len(breaks) > 1:
        return None
    split = breaks[0] if breaks else 0
    return prod(shape[:split]), prod(shape[split:])


def _breaks(shape: Shape, strides: tuple[Shape, ...], axes: range) -> list[int]:
    """List the axes that some array cannot merge into one stride with the axis before. Those of length 1 merge."""
    wide = [axis for axis in axes if shape[axis] != 1]
    return [
        axis for previous, axis in pairwise(wide) if any(each[previous] != each[axis] * shape[axis] for each in strides)
    ]


def _unit_bytes(form: Form, normal: Shape, itemsize: int) -> int:
    """Count the bytes of a unit; a short row's as many as of a long row would take its time."""
    if form == "elements":
        return int(min(normal[1], SEGMENT)) * itemsize
    return normal[1] * itemsize + (_ROW_BYTES if form == "rows" and normal[2] == 1 else 0)


def _block(form: Form, normal: Shape, itemsize: int) -> int:
    """Choose the units of a block from the shape alone, so that results do not depend on the number of threads."""
    unit = max(_unit_bytes(form, normal, itemsize), 1)
    size = min(_BLOCK_BYTES, max(count_units(form, normal) * unit // _BLOCKS, _LEAST_BYTES))
    units = max(size // unit, 1)
    inner = normal[2] if form == "rows" else 1
    whole = inner if 1 < inner <= units else _BLOCK_ROWS
    return units // whole * whole or units


def _threads(form: Form, normal: Shape, itemsize: int) -> int:
    """Choose how many threads are worth waking. Two bytes take as long as four, and an element as three of a row."""
    size = count_units(form, normal) * _unit_bytes(form, normal, max(itemsize, 4)) * (1 if form == "rows" else 3)
    return max(size // _THREAD_BYTES, 1)
