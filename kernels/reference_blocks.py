"""How the NumPy backend goes through rows in blocks: reading, masking, targets, row sums, and the shifted softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 16
"""Elements worked on at a time: each temporary is 256 KiB of float32, or 512 KiB of float64."""

Array = NDArray[Any]
Run = Callable[[int, int], int]


def compute_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Give float64 for float64, float32 for every narrower dtype."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def bin_numbers(confidence: Array, bins: int) -> Array:
    """Find the b of (b/bins, (b+1)/bins] around each confidence: 0 for 0, ``bins`` for NaN."""
    return np.searchsorted(np.arange(1, bins + 1) / bins, confidence)


def blocked(block: Callable[[int, int], int], classes: int) -> Run:
    """Run ``block(lo, hi) -> offence`` over blocks of rows."""
    step = max(1, BLOCK // classes)

    def run(lo: int, hi: int) -> int:
        with np.errstate(all="ignore"):
            found = [block(start, min(start + step, hi)) for start in range(lo, hi, step)]
        return min((offence for offence in found if offence >= 0), default=-1)

    return run


def numbers_of(rows: slice | Array) -> Array:
    return np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows


class Rows:
    """The rows of an ``(outer, C, inner)`` array, numbered ``o * inner + i``, read and written as ``(n, C)`` blocks."""

    def __init__(self, array: Array) -> None:
        self.inner = array.shape[2]
        self.array = array[:, :, 0] if self.inner == 1 else array
        self.dtype = compute_dtype(array.dtype)

    def __getitem__(self, rows: slice | Array) -> Array:
        return self.array[self._place(rows)].astype(self.dtype, order="C")

    def __setitem__(self, rows: slice | Array, values: Array | float) -> None:
        self.array[self._place(rows)] = values

    def _place(self, rows: slice | Array) -> Any:
        if self.inner == 1:
            return rows
        outer, inner = np.divmod(numbers_of(rows), self.inner)
        return outer, slice(None), inner


class Hard:
    """A block of class indices: all the weight of a row is on one class."""

    def __init__(self, index: Array, class_weight: Array) -> None:
        self.at = np.arange(len(index)), index
        self.total = class_weight[index].astype(np.float64)

    def dot(self, values: Array) -> Array:
        return np.multiply(self.total, values[self.at], out=np.zeros(len(self.total)), where=self.total != 0)

    def add(self, gradient: Array, scale: Array) -> None:
        gradient[self.at] += (scale * self.total).astype(gradient.dtype)


class Soft:
    """A block of rows of class weight times target probability."""

    def __init__(self, weight: Array) -> None:
        self.weight = weight
        self.total = row_sum(weight)

    def dot(self, values: Array) -> Array:
        return weighted_sum(self.weight, values)

    def add(self, gradient: Array, scale: Array) -> None:
        gradient += column(scale, gradient) * self.weight


class Targets:
    """What is asked of the rows: their target, hard or soft, their weight, and which of them are masked."""

    def __init__(
        self, target: Array, class_weight: Array, sample_weight: Array | None = None, ignore_index: int = -1
    ) -> None:
        self.hard = target.ndim == 1
        self.target = target if self.hard else Rows(target)
        self.class_weight, self.sample_weight, self.ignore_index = class_weight, sample_weight, ignore_index

    def __getitem__(self, rows: slice | Array) -> Hard | Soft:
        if self.hard:
            return Hard(self.target[rows], self.class_weight)
        return Soft(self.target[rows].astype(self.class_weight.dtype, copy=False) * self.class_weight)

    def split(self, lo: int, hi: int) -> tuple[slice | Array, Array]:
        """Part rows lo … hi-1 into those that count and those that are masked."""
        live = self.target[lo:hi] != self.ignore_index if self.hard else np.ones(hi - lo, bool)
        if self.sample_weight is not None:
            live &= self.sample_weight[lo:hi] != 0
        masked = lo + np.flatnonzero(~live)
        return (lo + np.flatnonzero(live) if len(masked) else slice(lo, hi)), masked

    def count(self, lo: int, hi: int) -> int:
        """Count the rows lo … hi-1 that are not ignored."""
        return np.count_nonzero(self.target[lo:hi] != self.ignore_index) if self.hard else hi - lo

    def weight(self, rows: slice | Array) -> Array:
        """Give the sample weight of each row, 1 without."""
        if self.sample_weight is None:
            return np.ones(len(numbers_of(rows)))
        return self.sample_weight[rows].astype(np.float64)

    def offence(self, rows: slice | Array) -> int:
        """Find the first of these rows whose class does not exist, or -1."""
        if not self.hard:
            return -1
        index = self.target[rows]
        bad = (index < 0) | (index >= len(self.class_weight))
        return int(numbers_of(rows)[bad.argmax()]) if bad.any() else -1


class Exponentials(NamedTuple):
    """A block of logits, less their row's maximum, and exp of that; float64 numbers of each row."""

    shifted: Array
    powers: Array
    top: Array
    total: Array
    log_total: Array

    @property
    def log_normalizer(self) -> Array:
        return np.where(np.isinf(self.top), self.top, self.top + self.log_total)


def exponentials(z: Array) -> Exponentials:
    """Shift and exponentiate logits, which are overwritten; a row with NaN or +inf, or all of -inf, has NaN sums."""
    top = z.max(axis=1, keepdims=True)
    shifted = np.subtract(z, top, out=z)
    powers = np.exp(shifted)
    total = row_sum(powers)
    return Exponentials(shifted, powers, top[:, 0].astype(np.float64), total, np.log(total))


def capped(x: Array, logit_scale: float, softcap: float | None) -> tuple[Array, Array | None]:
    """Scale and soft-cap logits, which are overwritten, and give the cap's derivative; infinities stay infinite."""
    if logit_scale != 1.0:
        x *= float(logit_scale)
    if softcap is None:
        return x, None
    bent = np.tanh(x / float(softcap))
    np.multiply(bent, float(softcap), out=x, where=~np.isinf(x))
    return x, (1 - bent) * (1 + bent)


def row_sum(values: Array) -> Array:
    return values.astype(np.float64, copy=False).sum(axis=1)


def weighted_sum(weight: Array, values: Array) -> Array:
    """Sum weight·values over each row; a term of weight 0 is exactly 0, whatever its value."""
    terms = np.multiply(weight, values, dtype=np.float64)
    terms[np.broadcast_to(weight == 0, terms.shape)] = 0
    return terms.sum(axis=1)


def column(numbers: Array, like: Array) -> Array:
    return numbers.astype(like.dtype)[:, None]
