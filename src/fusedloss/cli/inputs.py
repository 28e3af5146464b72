"""The files of ``fusedloss score``: opened, checked against each other before any work, and cut into blocks of rows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from ..arrays import Array, bfloat16
from ..errors import DTypeError, OptionError, ShapeError, TargetError
from ..files import ArrayFile, open_array
from ..layout import Shape, slabs

_BLOCK_BYTES = 1 << 26
_LOGITS, _TARGETS = ("logits",), ("target", "targets", "labels")


@dataclass(frozen=True)
class Inputs:
    """Logits and targets that fit each other.

    Attributes
    ----------
    logits, targets : ArrayFile
        The targets have the shape of the logits, or (``binary`` is False) that without ``axis``.
    axis : int or None
        The axis that no block cuts: classes or labels; ``None`` if there is none, as with plain binary logits.
    decode : callable
        Turns a block of the logits' file into logits.
    """

    logits: ArrayFile
    targets: ArrayFile
    axis: int | None
    binary: bool
    decode: Callable[[Array], Array]

    @property
    def rows(self) -> Shape:
        """The shape of the logits without ``axis``."""
        shape = self.logits.shape
        return shape if self.axis is None else shape[: self.axis] + shape[self.axis + 1 :]

    @property
    def classes(self) -> int:
        """The length of ``axis``."""
        return 1 if self.axis is None else self.logits.shape[self.axis]

    @property
    def nbytes(self) -> int:
        """The size of all logits in bytes."""
        return prod(self.logits.shape) * self.logits.dtype.itemsize

    def blocks(self, rows: int | None) -> Iterator[tuple[Array, Array]]:
        """Yield logits and targets in blocks of about ``rows`` rows, in C order; nothing at all is one empty block."""
        logits = self.logits.blocks(self._whole(index) for index in self._indices(rows))
        targets = self.targets.blocks(self._whole(i) if self.binary else i for i in self._indices(rows))
        for block, target in zip(logits, targets, strict=True):
            yield self.decode(block), target

    def example(self) -> tuple[Array, Array]:
        """One row of zeros, of the dtypes and axes of the files."""
        index = self._whole(tuple(slice(0, 1) for _ in self.rows))
        shape = [part.stop for part in index]
        target = [length for axis, length in enumerate(shape) if self.binary or axis != self.axis]
        return self.decode(np.zeros(shape, self.logits.dtype)), np.zeros(target, self.targets.dtype)

    def check_targets(self, ignore_index: int) -> None:
        """Look at every target before the first logit is read.

        Raises
        ------
        TargetError
            A target is neither a class nor ``ignore_index``; the message has its index in the file.
        """
        grid = slabs(self.rows, max(1, _BLOCK_BYTES // self.targets.dtype.itemsize))
        for number, block in enumerate(self.targets.blocks(grid.slab(at)[0] for at in range(grid.count))):
            wrong = ((block < 0) | (block >= self.classes)) & (block != ignore_index)
            if wrong.any():
                row = grid.slab(number)[1] + int(wrong.argmax())
                where = ", ".join(map(str, np.unravel_index(row, self.rows)))
                raise TargetError(
                    f"{self.targets.name}: target[{where}] is {block.ravel()[wrong.argmax()]}, "
                    f"expected a class in [0, {self.classes}) or the ignored {ignore_index}"
                )

    def _indices(self, rows: int | None) -> Iterator[tuple[slice, ...]]:
        row_bytes = self.classes * self.logits.dtype.itemsize
        grid = slabs(self.rows, rows or max(1, _BLOCK_BYTES // row_bytes))
        if not grid.count:
            yield tuple(slice(0, length) for length in self.rows)
        for number in range(grid.count):
            yield grid.slab(number)[0]

    def _whole(self, index: tuple[slice, ...]) -> tuple[slice, ...]:
        """Add all of ``axis`` to an index of rows."""
        if self.axis is None:
            return index
        return (*index[: self.axis], slice(0, self.classes), *index[self.axis :])


def open_inputs(logits: str, targets: str, axis: int, *, binary: bool, bits16: bool) -> Inputs:
    """Open two files and check that they are logits, of bfloat16 bits if so said, and their targets.

    Raises
    ------
    FileError, DTypeError, ShapeError, OptionError
        With the file's name, what it holds and what was expected.
    """
    x, y = open_array(logits, _LOGITS), open_array(targets, _TARGETS)
    decode = _decoder(x, bits16)
    kinds = "iubf" if binary else "iu"
    if y.dtype.kind not in kinds or y.dtype.char == "g":
        expected = "bool, integers or floating numbers" if binary else "integer classes"
        raise DTypeError(f"{targets}: has dtype {y.dtype}, expected {expected}")
    inputs = Inputs(x, y, _uncut(x, axis, binary), binary, decode)
    shape = x.shape if binary else inputs.rows
    if y.shape != shape:
        origin = f"that of {logits} {x.shape}" + ("" if binary else f" without axis {inputs.axis}")
        raise ShapeError(f"{targets}: has shape {y.shape}, expected {shape}, {origin}")
    return inputs


def _uncut(x: ArrayFile, axis: int, binary: bool) -> int | None:
    ndim = len(x.shape)
    if binary and ndim < 2:
        return None
    if binary:
        axis = -1
    if not -ndim <= axis < ndim:
        raise OptionError(f"--axis is {axis}, expected one of the {ndim} axes of {x.name}, whose shape is {x.shape}")
    if not x.shape[axis]:
        raise ShapeError(f"{x.name}: has shape {x.shape}, expected at least one along axis {axis % ndim}")
    return axis % ndim


def _decoder(x: ArrayFile, bits16: bool) -> Callable[[Array], Array]:
    can_be_bits = x.dtype.kind in "uV" and x.dtype.itemsize == 2 and x.dtype.names is None
    if not bits16:
        if x.dtype.char not in "efd":
            hint = "; for bfloat16 bits give --dtype bfloat16" if can_be_bits else ""
            raise DTypeError(f"{x.name}: has dtype {x.dtype}, expected float16, float32 or float64{hint}")
        return lambda block: block
    if not can_be_bits:
        raise DTypeError(f"{x.name}: has dtype {x.dtype}, expected uint16 with --dtype bfloat16")
    number = bfloat16(x.name)
    if x.dtype.kind == "V":  # what np.save makes of a bfloat16 array
        return lambda block: block.view(number)
    return lambda block: block.astype(np.uint16, copy=False).view(number)
