"""Evaluations of what has been scored, so that one read of a file's logits gives both."""

from collections.abc import Sequence

import numpy as np

from ..arrays import Array
from ..backends import resolve
from ..check import class_indices
from ..scores import BinaryEvaluation, BinaryScores, Evaluation, Scores
from ..threads import Run, run_blocks

_BLOCK = 1 << 14


def tally(
    scores: Scores, target: Array, *, ignore_index: int, top_k: Sequence[int], bins: int, device: str
) -> Evaluation:
    """Evaluate rows by their scores, as ``evaluate`` does by their logits."""
    ks, rows = np.array(top_k, np.int64), class_indices(target)
    sums = _sums(rows.size, 6 + ks.size + 4 * bins)
    names = ("nll", "prediction", "confidence", "entropy", "rank", "brier")
    results = {name: np.ravel(getattr(scores, name)) for name in names}
    kernel = resolve(device).tally(
        rows, None, ignore_index=ignore_index, top_k=ks, bins=bins, block=_BLOCK, sums=sums, **results
    )
    return Evaluation(tuple(top_k), bins, tuple(_total(kernel, rows.size, sums).tolist()))


def tally_binary(scores: BinaryScores, target: Array, *, threshold: float, bins: int, device: str) -> BinaryEvaluation:
    """Evaluate elements by their scores, as ``evaluate_binary`` does by their logits."""
    labels = target.shape[-1] if target.ndim > 1 else 1
    flat = np.asarray(target, target.dtype.newbyteorder("=")).reshape(-1, labels)
    sums = _sums(len(flat), labels, 8 + 4 * bins)
    names = ("nll", "probability", "prediction", "brier")
    results = {name: np.reshape(getattr(scores, name), flat.shape) for name in names}
    kernel = resolve(device).tally_binary(flat, None, bins=bins, block=_BLOCK, sums=sums, **results)
    return BinaryEvaluation(threshold, bins, tuple(map(tuple, _total(kernel, len(flat), sums).tolist())))


def _sums(rows: int, *width: int) -> Array:
    return np.zeros((-(-rows // _BLOCK), *width))


def _total(kernel: Run, rows: int, sums: Array) -> Array:
    run_blocks(kernel, rows, _BLOCK)
    total: Array = np.add.reduce(sums)
    return total
