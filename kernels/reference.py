"""The row kernels in NumPy: the fallback where Numba cannot serve, and the oracle of the other backends.

The contract is in ``fusedloss.kernels``; the elementwise kernels are in ``reference_elements``. Elements are computed
in float32, or float64 for float64 inputs, and whatever is one number a row in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .reference_blocks import (
    Array,
    Exponentials,
    Hard,
    Rows,
    Run,
    Soft,
    Targets,
    bin_numbers,
    blocked,
    capped,
    column,
    exponentials,
    numbers_of,
    row_sum,
    weighted_sum,
)
from .reference_elements import binary_cross_entropy, binary_log_loss, mse, score_binary, sigmoid, tally_binary

__all__ = [
    "binary_cross_entropy",
    "binary_log_loss",
    "cross_entropy",
    "kl_divergence",
    "log_loss",
    "log_softmax",
    "logsumexp",
    "mse",
    "score",
    "score_binary",
    "sigmoid",
    "softmax",
    "tally",
    "tally_binary",
]

Formula = Callable[[Array, Any, Array], tuple[Array, Array]]


def _row_loss(
    x: Array, loss: Array, grad: Array | None, targets: Targets, formula: Formula,
    *, grad_scale: float, offends: Callable[[Array], Array] | None = None, block: int, sums: Array | None,
) -> Run:  # fmt: skip
    """Bind a loss: ``formula(x, y, scale)`` gives the losses of some rows and their gradients times ``scale``."""
    inputs, gradients = Rows(x), None if grad is None else Rows(grad)
    classes, inner = x.shape[1:]

    def first_element(rows: slice | Array, bad: Array) -> int:
        row, class_ = np.nonzero(bad)
        outer, position = np.divmod(numbers_of(rows)[row], inner)
        return int(((outer * classes + class_) * inner + position).min())

    def fill(lo: int, hi: int) -> int:
        live, masked = targets.split(lo, hi)
        if (offence := targets.offence(live)) >= 0:
            return offence
        values, weight = inputs[live], targets.weight(live)
        if offends is not None and (bad := offends(values)).any():
            return first_element(live, bad)
        value, gradient = formula(values, targets[live], weight * grad_scale)
        loss[live], loss[masked] = weight * value, 0
        if gradients is not None:
            gradients[live], gradients[masked] = gradient, 0
        return -1

    run = blocked(fill, classes)
    return run if sums is None else _added_up(run, loss, targets, block, sums)


def _added_up(run: Run, loss: Array, targets: Targets, block: int, sums: Array) -> Run:
    """Add up the losses, block by block, and count the rows that are not ignored."""

    def both(lo: int, hi: int) -> int:
        offence = run(lo, hi)
        for start in range(lo, hi, block):
            end = min(start + block, hi)
            sums[start // block] = loss[start:end].sum(dtype=np.float64), targets.count(start, end)
        return offence

    return both


def _softmax_gradient(e: Exponentials, y: Hard | Soft, mass: Array, kept: float, scale: Array) -> Array:
    """Scale times (mass·softmax − kept·y), in the place of the exponentials."""
    gradient = np.multiply(e.powers, column(scale * mass / e.total, e.powers), out=e.powers)
    y.add(gradient, -kept * scale)
    return gradient


def cross_entropy(
    x: Array, target: Array, loss: Array, grad: Array | None, *, class_weight: Array | None,
    sample_weight: Array | None, ignore_index: int, label_smoothing: float, z_loss: float,
    logit_scale: float, softcap: float | None, grad_scale: float, block: int = 0, sums: Array | None = None,
) -> Run:  # fmt: skip
    """Bind Σ w·y'·(lse(z) − z) + z_loss·lse(z)², hard or soft, with y' = (1 − ε)·y + ε/C and z the capped logits."""
    classes = x.shape[1]
    weights = np.ones(classes, loss.dtype) if class_weight is None else class_weight
    all_weight = float(weights.sum(dtype=np.float64))
    kept, spread = 1.0 - label_smoothing, label_smoothing / classes

    def formula(x: Array, y: Hard | Soft, scale: Array) -> tuple[Array, Array]:
        z, slope = capped(x, logit_scale, softcap)
        e = exponentials(z)
        # Without `if kept`, ε = 1 would make 0·inf of a target at −inf.
        value = kept * (y.total * e.log_total - y.dot(e.shifted)) if kept else np.zeros(len(z))
        if spread:
            value += spread * (all_weight * e.log_total - weighted_sum(weights, e.shifted))
        if z_loss:
            value += z_loss * e.log_normalizer**2
        return value, value if grad is None else slopes(e, y, scale * logit_scale, slope)

    def slopes(e: Exponentials, y: Hard | Soft, scale: Array, slope: Array | None) -> Array:
        mass = kept * y.total + spread * all_weight
        if z_loss:
            mass += 2 * z_loss * e.log_normalizer
        gradient = _softmax_gradient(e, y, mass, kept, scale)
        if spread:
            gradient -= column(spread * scale, gradient) * weights
        if slope is not None:
            gradient *= slope
        return gradient

    targets = Targets(target, weights, sample_weight, ignore_index)
    return _row_loss(x, loss, grad, targets, formula, grad_scale=grad_scale, block=block, sums=sums)


def kl_divergence(
    x: Array, target: Array, loss: Array, grad: Array | None, *, sample_weight: Array | None, logit_scale: float,
    grad_scale: float, block: int = 0, sums: Array | None = None,
) -> Run:  # fmt: skip
    """Bind KL(target ‖ softmax) = Σ y·(log y − log softmax(z)), where 0·log 0 = 0."""

    def formula(x: Array, y: Soft, scale: Array) -> tuple[Array, Array]:
        e = exponentials(capped(x, logit_scale, None)[0])
        value = y.total * e.log_total + y.dot(np.log(y.weight, dtype=np.float64) - e.shifted)
        return value, value if grad is None else _softmax_gradient(e, y, y.total, 1.0, scale * logit_scale)

    targets = Targets(target, np.ones(x.shape[1], loss.dtype), sample_weight)
    return _row_loss(x, loss, grad, targets, formula, grad_scale=grad_scale, block=block, sums=sums)


def log_loss(
    x: Array, target: Array, loss: Array, grad: Array | None, *, class_weight: Array | None,
    sample_weight: Array | None, ignore_index: int, label_smoothing: float, eps: float, log_eps: float,
    normalize: bool, grad_scale: float, block: int = 0, sums: Array | None = None,
) -> Run:  # fmt: skip
    """Bind −Σ w·y'·max(log(p + log_eps), −100) of probabilities, normalised and clipped to [eps, 1 − eps] if asked."""
    classes = x.shape[1]
    weights = np.ones(classes, loss.dtype) if class_weight is None else class_weight
    kept, spread = 1.0 - label_smoothing, label_smoothing / classes
    lowest, highest = loss.dtype.type(eps), loss.dtype.type(1) - loss.dtype.type(eps)
    # Before normalising any finite p ≥ 0 will do.
    limit = np.finfo(loss.dtype).max if normalize else 1

    def offends(p: Array) -> Array:
        return (p < 0) | (p > limit)

    def formula(p: Array, y: Hard | Soft, scale: Array) -> tuple[Array, Array]:
        total = row_sum(p) if normalize else None
        q = p if total is None else p / column(total, p)
        clipped = np.clip(q, lowest, highest) if eps else q
        cost = 0 - np.maximum(np.log(clipped + float(log_eps)), -100)
        value = kept * y.dot(cost)
        if spread:
            value += spread * weighted_sum(weights, cost)
        return value, value if grad is None else slopes(q, y, scale, total)

    def slopes(q: Array, y: Hard | Soft, scale: Array, total: Array | None) -> Array:
        share = np.zeros_like(q)
        y.add(share, kept * scale)
        if spread:
            share += column(spread * scale, q) * weights
        gradient = share / -np.maximum(q + float(log_eps), 1e-12)
        gradient[share == 0] = 0
        if eps:
            gradient[(q < lowest) | (q > highest)] = 0
        if total is not None:
            gradient -= column(weighted_sum(q, gradient), q)
            gradient /= column(total, q)
        return gradient

    targets = Targets(target, weights, sample_weight, ignore_index)
    return _row_loss(x, loss, grad, targets, formula, grad_scale=grad_scale, offends=offends, block=block, sums=sums)


def _activation(x: Array, out: Array, formula: Callable[[Exponentials], Array], *, per_row: bool = False) -> Run:
    logits, results = Rows(x), out if per_row else Rows(out)

    def block(lo: int, hi: int) -> int:
        results[lo:hi] = formula(exponentials(logits[lo:hi]))
        return -1

    return blocked(block, x.shape[1])


def softmax(x: Array, out: Array) -> Run:
    """Bind exp(x − m) / Σ exp(x − m)."""
    return _activation(x, out, lambda e: e.powers * column(1 / e.total, e.powers))


def log_softmax(x: Array, out: Array) -> Run:
    """Bind (x − m) − log Σ exp(x − m)."""
    return _activation(x, out, lambda e: e.shifted - column(e.log_total, e.shifted))


def logsumexp(x: Array, out: Array) -> Run:
    """Bind m + log Σ exp(x − m); a row of −inf gives −inf, one with +inf gives +inf, as in SciPy."""
    return _activation(x, out, lambda e: e.log_normalizer, per_row=True)


def _ranks(z: Array, index: Array) -> Array:
    """Classes above the target, and equal ones of lower index; NaN is the greatest value, as it is to argmax."""
    own = z[np.arange(len(z)), index][:, None]
    above = ~((z <= own) | np.isnan(own))
    equal = (z == own) | (np.isnan(z) & np.isnan(own))
    return (above | equal & (np.arange(z.shape[1]) < index[:, None])).sum(axis=1)


def score(
    x: Array, target: Array | None, *, ignore_index: int, logit_scale: float, softcap: float | None,
    log_normalizer: Array, prediction: Array, confidence: Array, entropy: Array,
    nll: Array | None, rank: Array | None, brier: Array | None,
) -> Run:  # fmt: skip
    """Bind the statistics of rows of logits; ``nll``, ``rank`` and ``brier`` are filled where there is a target."""
    logits, classes = Rows(x), x.shape[1]
    targets = None if target is None else Targets(target, np.ones(classes), None, ignore_index)

    def block(lo: int, hi: int) -> int:
        offence = -1 if targets is None else targets.offence(targets.split(lo, hi)[0])
        if offence >= 0:
            return offence
        z, _ = capped(logits[lo:hi], logit_scale, softcap)
        prediction[lo:hi] = z.argmax(axis=1)
        if targets is None:
            fill(lo, hi, exponentials(z))
            return -1
        ignored = target[lo:hi] == ignore_index
        index = np.where(ignored, 0, target[lo:hi])
        rank[lo:hi] = np.where(ignored, -1, _ranks(z, index))
        e = exponentials(z)
        fill(lo, hi, e)
        at = np.arange(hi - lo), index
        nll[lo:hi] = np.where(ignored, 0, e.log_total - e.shifted[at])
        # 1 − p of the target is the sum of the others: nothing cancels.
        e.powers[at] = 0
        missing, squares = row_sum(e.powers) / e.total, weighted_sum(e.powers, e.powers) / e.total**2
        brier[lo:hi] = np.where(ignored, 0, missing**2 + squares)
        return -1

    def fill(lo: int, hi: int, e: Exponentials) -> None:
        log_normalizer[lo:hi] = e.log_normalizer
        confidence[lo:hi] = 1 / e.total
        entropy[lo:hi] = e.log_total - weighted_sum(e.powers, e.shifted) / e.total

    return blocked(block, classes)


def tally(
    target: Array, sample_weight: Array | None, *, nll: Array, prediction: Array, confidence: Array, entropy: Array,
    rank: Array, brier: Array, ignore_index: int, top_k: Array, bins: int, block: int, sums: Array,
) -> Run:  # fmt: skip
    """Bind the sums over blocks of rows, of rows that count, in the order of the contract."""

    def fill(lo: int, hi: int, row: Array) -> None:
        weight = np.ones(hi - lo) if sample_weight is None else sample_weight[lo:hi].astype(np.float64)
        live = np.flatnonzero((target[lo:hi] != ignore_index) & (weight != 0))
        weight, rows = weight[live], lo + live
        correct = prediction[rows] == target[rows]
        row[:2] = len(rows), weight.sum()
        row[2:6] = [(weight * each).sum() for each in (nll[rows], entropy[rows], brier[rows], correct)]
        row[6 : 6 + len(top_k)] = [(weight * (rank[rows] < k)).sum() for k in top_k]
        bin_of = bin_numbers(confidence[rows], bins)
        columns = (np.ones(len(rows)), weight, weight * confidence[rows], weight * correct)
        tallies = [np.bincount(bin_of, column, bins + 1)[:bins] for column in columns]
        row[6 + len(top_k) :] = np.transpose(tallies).ravel()

    def run(lo: int, hi: int) -> int:
        with np.errstate(all="ignore"):
            for start in range(lo, hi, block):
                fill(start, min(start + block, hi), sums[start // block])
        return -1

    return run
