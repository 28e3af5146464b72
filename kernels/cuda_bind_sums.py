"""What `cuda_sums`, `cuda_copies` and `cuda_tally` do, bound to a queue; see `cuda_bind_elements`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

from . import cuda_tally
from .cuda_bind_elements import MOST_BLOCKS, Array, Run, address, code_of, lanes_for, scale_of
from .cuda_copies import AXES, CopyOptions, make_copy
from .cuda_copies import THREADS as COPY_THREADS
from .cuda_groups import FLOATS, SIZE
from .cuda_ops import SLOT
from .cuda_sums import SHARE, THREADS, SumOptions, blocks_for, make_check, make_total, make_weights
from .cuda_tally import BINARY, FIXED, PER_BIN, TallyOptions, make_tally, make_tally_binary

PARTIALS = 1024
"""How many float64 numbers a sum needs room for, besides its result."""

_total, _weights, _check, _copy, _tally, _tally_binary = (
    lru_cache(maxsize=None)(make)
    for make in (make_total, make_weights, make_check, make_copy, make_tally, make_tally_binary)
)


# ---- copies ----------------------------------------------------------------------------------------------------------


def merged(shape: tuple[int, ...], *strides: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The axes that are left, each a length and a stride for each array, the target's largest stride first."""
    axes = [axis for axis in zip(shape, *strides, strict=True) if axis[0] != 1]
    axes.sort(key=lambda axis: -abs(axis[-1]))
    kept: list[tuple[int, ...]] = []
    for axis in axes:
        if kept and all(outer == inner * axis[0] for outer, inner in zip(kept[-1][1:], axis[1:], strict=True)):
            kept[-1] = (kept[-1][0] * axis[0], *axis[1:])
        else:
            kept.append(axis)
    return kept


def _width(source: str, target: str, axes: list[tuple[int, ...]], at: int, to: int) -> int:
    """How many elements can be copied at once."""
    sizes = [SIZE[code] for code in (source, target) if code]
    if len(axes) != 1 or axes[0][2] != SIZE[target] or (source and axes[0][1] != SIZE[source]) or (at | to) % 16:
        return 1
    if source in ("", target) or (source in FLOATS and target in FLOATS):
        return 16 // min(sizes)
    return 1


def _launches(source: Array | None, out: Array) -> Iterator[tuple[Any, int, tuple[int, ...]]]:
    """The kernels that copy, each with its blocks and its arguments: several where there are too many axes."""
    codes = "" if source is None else code_of(source.dtype), code_of(out.dtype)
    strides = out.strides if source is None else source.strides
    axes = merged(out.shape, strides, out.strides) or [(1, SIZE.get(codes[0], 0), SIZE[codes[1]])]
    above, axes = axes[:-AXES], axes[-AXES:]
    width = _width(*codes, axes, address(source), out.address) if not above else 1
    kernel, count = _copy(CopyOptions(*codes, len(axes), width)), prod(axis[0] for axis in axes)
    columns = [(*column, *[0] * (AXES - len(axes))) for column in zip(*axes, strict=True)]
    grid = min(-(-count // (COPY_THREADS * width)), MOST_BLOCKS)
    for index in product(*[range(axis[0]) for axis in above]):
        at, to = (sum(i * axis[k] for i, axis in zip(index, above, strict=True)) for k in (1, 2))
        yield kernel, grid, (count, address(source) + at, out.address + to, *columns[0], *columns[1], *columns[2])


class SumKernels:
    """Reductions of a batch, copies, and the tallies of the contract."""

    queue: Any

    def _launch(self, kernel: Any, grid: int, shared: int, *arguments: Any) -> None:
        kernel.launch(self.queue.device, self.queue.stream, grid, shared, kernel.call.pack(*arguments))

    def copy(self, source: Array, out: Array) -> Run:
        """Bind a copy between arrays of one shape, of any strides and any dtypes; what is not whole is cut to be."""
        return self._copied(source, out)

    def fill(self, out: Array) -> Run:
        """Bind writing zeros."""
        return self._copied(None, out)

    def _copied(self, source: Array | None, out: Array) -> Run:
        launches = list(_launches(source, out)) if out.size else []

        def run(lo: int, hi: int, _kept: Any = (source, out)) -> int:
            for kernel, grid, arguments in launches:
                self._launch(kernel, grid, 0, *arguments)
            return -1

        return run

    # ---- sums ----

    def total(self, values: Array, out: Array, divisor: Any, *, partials: Array | None = None) -> Run:
        """Bind the sum of float32 or float64 values that lie side by side, divided; NaN where the divisor is 0.

        The divisor is a number or a float64 on the card. ``partials`` is room for `PARTIALS` float64 numbers; without
        it a single block adds up everything, which gives the same only where that would be so anyway.
        """
        blocks, shared = blocks_for(values.size) if partials is not None else 1, SLOT
        (number, at), code = scale_of(divisor), code_of(values.dtype)
        finish = SumOptions("f8" if blocks > 1 else code, finish=code_of(out.dtype))

        def run(lo: int, hi: int, _kept: Any = (values, out, divisor, partials)) -> int:
            place, count = values.address, values.size
            if blocks > 1:
                self._launch(_total(SumOptions(code)), blocks, shared, count, place, partials.address, 0, 1.0)
                place, count = partials.address, blocks
            self._launch(_total(finish), 1, shared, count, place, out.address, at, number)
            return -1

        return run

    def weigh(
        self, target: Array | None, class_weight: Array | None, sample_weight: Array | None, ignore_index: int,
        rows: int, out: Array, *, partials: Array | None = None,
    ) -> Run:  # fmt: skip
        """Bind Σ of the weights of what is not ignored, and its reciprocal, 0 for none: two float64 numbers in ``out``.

        A sample weight is (R,) or, for elements, (rows, cols), of any strides. Partials as in `total`.
        """
        given = sample_weight if sample_weight is not None else class_weight
        code, factor, sample = "f4" if given is None else code_of(given.dtype), 1.0, (0, 0, 0, 1)
        if sample_weight is not None:
            rows, factor, sample = _distinct(sample_weight) if target is None else (rows, 1.0, _plane(sample_weight))
        blocks, shared = blocks_for(rows) if partials is not None else 1, SLOT
        options = SumOptions(
            code, "" if target is None else code_of(target.dtype), class_weight is not None, sample_weight is not None,
            "weight" if blocks == 1 else "",
        )  # fmt: skip
        classes = 0 if class_weight is None else class_weight.size
        head = rows, address(target), ignore_index, classes, address(class_weight), *sample

        def run(lo: int, hi: int, _kept: Any = (target, class_weight, sample_weight, out, partials)) -> int:
            if blocks == 1:
                self._launch(_weights(options), 1, shared, *head, out.address, factor)
                return -1
            self._launch(_weights(options), blocks, shared, *head, partials.address, 1.0)
            finish = _total(SumOptions("f8", finish="weight"))
            self._launch(finish, 1, shared, blocks, partials.address, out.address, 0, factor)
            return -1

        return run

    def check_weights(self, weights: Array, slot: int | None = None) -> Run:
        """Bind a look for weights that are not finite or below 0: the least number of one goes where the queue says.

        Or to the int64 at another address, `slot`. Weights are (n,) or (rows, cols), of any strides, and are numbered
        in C order.
        """
        place = self.queue.status if slot is None else slot
        kernel, (at, across, along, columns) = _check(code_of(weights.dtype)), _plane(weights)
        grid = min(-(-weights.size // (THREADS * SHARE)), MOST_BLOCKS)

        def run(lo: int, hi: int, _kept: Any = weights) -> int:
            if grid:
                self._launch(kernel, grid, 0, weights.size, columns, at, across, along, place)
            return -1

        return run

    # ---- tallies ----

    def tally(
        self, target: Array, sample_weight: Array | None, *, nll: Array, prediction: Array, confidence: Array,
        entropy: Array, rank: Array, brier: Array, ignore_index: int, top_k: Array, bins: int, block: int, sums: Array,
    ) -> Run:  # fmt: skip
        """Bind the sums over blocks of rows that `evaluate` keeps; ``top_k`` and ``sums`` are on the card."""
        fields = FIXED + top_k.size + PER_BIN * bins
        threads = cuda_tally.threads_for(fields)
        kernel = _tally(TallyOptions(
            code_of(nll.dtype), code_of(target.dtype), sample_weight is not None, threads or 1, alone=not threads,
        ))  # fmt: skip
        arrays = target, sample_weight, nll, prediction, confidence, entropy, rank, brier
        tail = ignore_index, top_k.address, top_k.size, bins, block, sums.address
        shared = cuda_tally.shared_for(fields, threads) if threads else 0

        def run(lo: int, hi: int, _kept: Any = (arrays, top_k, sums)) -> int:
            if lo < hi:
                grid = min(-(-(hi - lo) // block), MOST_BLOCKS)
                self._launch(kernel, grid, shared, *map(address, arrays), *tail, lo, hi)
            return -1

        return run

    def tally_binary(
        self, target: Array, sample_weight: Array | None, *, nll: Array, probability: Array, prediction: Array,
        brier: Array, bins: int, block: int, sums: Array,
    ) -> Run:  # fmt: skip
        """Bind the sums over blocks of binary scores that `evaluate_binary` keeps, a label each."""
        fields, every = BINARY + PER_BIN * bins, target.shape[1]
        threads = cuda_tally.threads_for(fields)
        labels = min(lanes_for(every, 32), threads or 1)
        kernel = _tally_binary(TallyOptions(
            code_of(nll.dtype), code_of(target.dtype), sample_weight is not None, threads or 1, labels, not threads,
        ))  # fmt: skip
        arrays = target, sample_weight, nll, probability, prediction, brier
        places = [n for array in arrays for n in ((array.address, *array.strides) if array is not None else (0, 0, 0))]
        shared = cuda_tally.shared_for(fields, threads) if threads else 0

        def run(lo: int, hi: int, _kept: Any = (arrays, sums)) -> int:
            if lo < hi and every:
                grid = min(-(-(hi - lo) // block) * -(-every // labels), MOST_BLOCKS)
                self._launch(kernel, grid, shared, *places, bins, every, block, sums.address, lo, hi)
            return -1

        return run


def _plane(weights: Array) -> tuple[int, int, int, int]:
    """Where weights lie as (rows, cols): address, both strides, columns."""
    if weights.ndim == 1:
        return weights.address, weights.strides[0], 0, 1
    return weights.address, *weights.strides, max(weights.shape[1], 1)


def _distinct(weights: Array) -> tuple[int, float, tuple[int, int, int, int]]:
    """How many different weights there are where strides of 0 repeat them, how often, and where they lie."""
    at, across, along, columns = _plane(weights)
    rows, times = weights.shape[0], 1
    if along == 0 and columns > 1 and weights.size:
        times, columns = columns, 1
    if across == 0 and rows > 1 and weights.size:
        times, rows = times * rows, 1
    return (rows * columns if weights.size else 0), float(times), (at, across, along, columns)
