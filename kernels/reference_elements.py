"""The elementwise kernels in NumPy; the contract is in ``fusedloss.kernels``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from . import SEGMENT
from .reference_blocks import BLOCK, Array, Run, bin_numbers, compute_dtype

Place = tuple[slice, slice]
Formula = Callable[[Array, Array, Place], tuple[Array, Array]]


def _tiles(lo: int, hi: int, cols: int) -> Iterator[tuple[Place, slice]]:
    """Cut segments lo … hi-1 into tiles of one row or of whole rows: their place, and their segments."""
    in_row = -(-cols // SEGMENT)
    if in_row <= 1:
        step = max(1, BLOCK // max(1, cols))
        for start in range(lo, hi, step):
            rows = slice(start, min(start + step, hi))
            yield (rows, slice(0, cols)), rows
        return
    while lo < hi:
        row, first = divmod(lo, in_row)
        last = min(first + BLOCK // SEGMENT, in_row, first + hi - lo)
        columns, segments = slice(first * SEGMENT, min(last * SEGMENT, cols)), slice(lo, lo + last - first)
        yield (slice(row, row + 1), columns), segments
        lo = segments.stop


def _segment_sums(values: Array) -> Array:
    edges = np.arange(0, values.shape[1], SEGMENT)
    return np.add.reduceat(values.astype(np.float64, order="C"), edges, axis=1).ravel()


def _elementwise(cols: int, tile: Callable[[Place, slice], int]) -> Run:
    """Run ``tile(place, segments) -> offence`` over tiles, up to the first offence."""

    def run(lo: int, hi: int) -> int:
        with np.errstate(all="ignore"):
            found = (tile(place, segments) for place, segments in _tiles(lo, hi, cols))
            return next((offence for offence in found if offence >= 0), -1)

    return run


def _element_loss(
    x: Array, target: Array, loss: Array | None, sums: Array | None, grad: Array | None, formula: Formula,
    *, sample_weight: Array | None, grad_scale: float, offends: Callable[[Array], Array] | None = None,
) -> Run:  # fmt: skip
    """Bind a loss: ``formula(x, y, place)`` gives the losses of a tile and their derivatives."""
    dtype, cols = compute_dtype(x.dtype), x.shape[1]

    def tile(place: Place, segments: slice) -> int:
        values = x[place].astype(dtype, order="C")
        live = None if sample_weight is None else sample_weight[place] != 0
        if offends is not None:
            bad = offends(values) if live is None else offends(values) & live
            if bad.any():
                row, column = divmod(int(bad.argmax()), values.shape[1])
                return (place[0].start + row) * cols + place[1].start + column
        value, slope = formula(values, target[place].astype(dtype, order="C"), place)
        if live is not None:
            value, slope = (np.where(live, sample_weight[place] * each, 0) for each in (value, slope))
        if loss is not None:
            loss[place] = value
        else:
            sums[segments] = _segment_sums(value)
        if grad is not None:
            grad[place] = slope * dtype.type(grad_scale)
        return -1

    return _elementwise(cols, tile)


def _smoothed(y: Array, label_smoothing: float) -> tuple[Array, Array]:
    """Smooth y, and 1 − y apart, so that neither loses the other's last bits."""
    kept, spread = 1.0 - float(label_smoothing), float(label_smoothing) / 2
    return y * kept + spread, (1 - y) * kept + spread


def _sigmoids(x: Array) -> tuple[Array, Array]:
    """σ(x) and σ(−x), neither by subtraction from the other."""
    total = 1 + np.exp(-np.abs(x))
    return np.exp(np.minimum(x, 0)) / total, np.exp(np.minimum(-x, 0)) / total


def _logistic_loss(x: Array, positive: Array, negative: Array) -> Array:
    """Σ of positive·softplus(−x) and negative·softplus(x); an infinite softplus of weight 0 adds nothing."""
    tail = np.log1p(np.exp(-np.abs(x)))
    loss = np.zeros_like(x)
    for weight, softplus in ((positive, tail + np.maximum(-x, 0)), (negative, tail + np.maximum(x, 0))):
        loss += np.where((weight == 0) & np.isinf(softplus), 0, weight * softplus)
    return loss


def binary_cross_entropy(
    x: Array, target: Array, loss: Array | None, sums: Array | None, grad: Array | None, *, pos_weight: Array | None,
    sample_weight: Array | None, label_smoothing: float, grad_scale: float,
) -> Run:  # fmt: skip
    """Bind (1 − y)·softplus(x) + q·y·softplus(−x), whose derivative is (1 − y)·σ(x) − q·y·σ(−x)."""

    def formula(x: Array, y: Array, place: Place) -> tuple[Array, Array]:
        positive, negative = _smoothed(y, label_smoothing)
        if pos_weight is not None:
            positive = positive * pos_weight[place]
        value = _logistic_loss(x, positive, negative)
        if grad is None:
            return value, value
        p, q = _sigmoids(x)
        return value, negative * p - positive * q

    return _element_loss(x, target, loss, sums, grad, formula, sample_weight=sample_weight, grad_scale=grad_scale)


def binary_log_loss(
    x: Array, target: Array, loss: Array | None, sums: Array | None, grad: Array | None, *,
    sample_weight: Array | None, label_smoothing: float, eps: float, log_eps: float, grad_scale: float,
) -> Run:  # fmt: skip
    """Bind −y·max(log(p + log_eps), −100) − (1 − y)·max(log(1 − p + log_eps), −100), p clipped to [eps, 1 − eps]."""
    dtype = compute_dtype(x.dtype)
    lowest, highest = dtype.type(eps), dtype.type(1) - dtype.type(eps)
    extra = float(log_eps)

    def offends(p: Array) -> Array:
        return (p < 0) | (p > 1)

    def formula(p: Array, y: Array, place: Place) -> tuple[Array, Array]:
        y, rest = _smoothed(y, label_smoothing)
        q = np.clip(p, lowest, highest) if eps else p
        log_q, log_rest = np.log(q + extra), np.log((1 - q) + extra) if extra else np.log1p(-q)
        value = 0 - y * np.maximum(log_q, -100) - rest * np.maximum(log_rest, -100)
        return value, value if grad is None else slope(p, y, rest)

    def slope(p: Array, y: Array, rest: Array) -> Array:
        if extra:
            # (p − y)/(p(1 − p)) is the derivative only without log_eps; with it, the two logarithms differ apart.
            derivative = rest / np.maximum((1 - p) + extra, 1e-12) - y / np.maximum(p + extra, 1e-12)
        else:
            derivative = (p - y) / np.maximum(p * (1 - p), 1e-12)
        if eps:
            derivative[(p < lowest) | (p > highest)] = 0
        return derivative

    return _element_loss(
        x, target, loss, sums, grad, formula, sample_weight=sample_weight, grad_scale=grad_scale, offends=offends
    )


def mse(
    x: Array, target: Array, loss: Array | None, sums: Array | None, grad: Array | None, *,
    sample_weight: Array | None, grad_scale: float,
) -> Run:  # fmt: skip
    """Bind (x − y)²."""

    def formula(x: Array, y: Array, place: Place) -> tuple[Array, Array]:
        error = x - y
        return error * error, 2 * error

    return _element_loss(x, target, loss, sums, grad, formula, sample_weight=sample_weight, grad_scale=grad_scale)


def sigmoid(x: Array, out: Array) -> Run:
    """Bind 1/(1 + exp(−x))."""
    dtype = compute_dtype(x.dtype)

    def tile(place: Place, segments: slice) -> int:
        out[place] = _sigmoids(x[place].astype(dtype))[0]
        return -1

    return _elementwise(x.shape[1], tile)


def score_binary(
    x: Array, target: Array | None, *, threshold: float, nll: Array | None, probability: Array, prediction: Array,
    brier: Array | None,
) -> Run:  # fmt: skip
    """Bind σ(x), whether it is above the threshold, and with a target the logistic loss and (σ(x) − y)²."""
    dtype = compute_dtype(x.dtype)

    def tile(place: Place, segments: slice) -> int:
        values = x[place].astype(dtype)
        p, q = _sigmoids(values)
        probability[place], prediction[place] = p, p > dtype.type(threshold)
        if target is not None:
            y = target[place].astype(dtype)
            nll[place] = _logistic_loss(values, y, 1 - y)
            brier[place] = ((1 - y) * p - y * q) ** 2
        return -1

    return _elementwise(x.shape[1], tile)


def tally_binary(
    target: Array, sample_weight: Array | None, *, nll: Array, probability: Array, prediction: Array, brier: Array,
    bins: int, block: int, sums: Array,
) -> Run:  # fmt: skip
    """Bind the sums over blocks of rows, label by label, of elements that count, in the order of the contract."""
    labels = target.shape[1]

    def fill(place: Place, table: Array) -> None:
        weight = np.ones(target[place].shape) if sample_weight is None else sample_weight[place].astype(np.float64)
        live, positive, flagged = weight != 0, target[place] > 0.5, prediction[place] != 0
        confusion = positive & flagged, ~positive & flagged, ~positive & ~flagged, positive & ~flagged
        measures = nll[place], brier[place], *confusion
        weighted = [weight, *(np.where(live, weight * each, 0) for each in measures)]
        table[:, :8] = np.stack([each.sum(axis=0) for each in (live, *weighted)], axis=1)
        count = len(table)
        cell = bin_numbers(probability[place], bins) + np.arange(count) * (bins + 1)
        columns = live, weight, np.where(live, weight * probability[place], 0), weight * positive
        tallies = [np.bincount(cell.ravel(), each.ravel(), count * (bins + 1)) for each in columns]
        kept = np.stack(tallies, axis=1).reshape(count, bins + 1, 4)[:, :bins]
        table[:, 8:] = kept.reshape(count, 4 * bins)

    def run(lo: int, hi: int) -> int:
        step = max(1, BLOCK // block)
        with np.errstate(all="ignore"):
            for start in range(lo, hi, block):
                for label in range(0, labels, step):
                    place = slice(start, min(start + block, hi)), slice(label, min(label + step, labels))
                    fill(place, sums[start // block, place[1]])
        return -1

    return run
