"""Scoring logits, row by row, and evaluating them, in sums: each in one pass over the logits."""

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from . import check
from .arrays import Array, empty, flat, give
from .check import Problem
from .errors import ShapeError
from .layout import across, slabs
from .options import options, positive_integer, positive_integers
from .plan import attempt, is_hosted, named, plan, run
from .scores import BinaryEvaluation, BinaryScores, CalibrationBin, Evaluation, Scores
from .tallies import score_then_tally, score_then_tally_binary, with_labels

__all__ = [
    "BinaryEvaluation",
    "BinaryScores",
    "CalibrationBin",
    "Evaluation",
    "Scores",
    "evaluate",
    "evaluate_binary",
    "score",
    "score_binary",
]

_CHUNK_BYTES, _ROW_BYTES = 1 << 27, 1 << 10  # a chunk of rows is bounded in bytes, and in rows as if of 1 KiB each
_BINARY_CHUNK_BYTES = 1 << 23  # here the per-element results are larger than the logits


def score(
    logits: Any, target: Any = None, *, axis: int = -1, ignore_index: int = -100, logit_scale: float = 1.0,
    softcap: float | None = None, device: str = "auto",
) -> Scores:  # fmt: skip
    """Score each row of logits: what its softmax says, and what it says of the target.

    Parameters
    ----------
    logits : array_like, shape (..., C)
        As in `cross_entropy`.
    target : array_like, optional
        Classes, of any integer dtype and of the logits' shape without the class axis.
    axis, ignore_index, logit_scale, softcap, device
        As in `cross_entropy`.

    Returns
    -------
    Scores
        One array a quantity, in float32, or float64 for float64 logits; without a target no `nll`, `rank` and `brier`.

    Raises
    ------
    ShapeError, DTypeError, OptionError, DeviceError, TargetError
        As in `cross_entropy`.
    """
    fixed = options(ignore_index=ignore_index, logit_scale=logit_scale, softcap=softcap)
    problem = check.scores(logits, target, axis, None, device, fixed)
    absent = {} if "target" in problem.rows else dict.fromkeys(("nll", "rank", "brier"))
    dtypes = {name: dtype for name, dtype in _row_dtypes(problem).items() if name not in absent}
    results = {name: empty(problem.positions, dtype, problem.x) for name, dtype in dtypes.items()}
    rows = {name: flat(array) for name, array in results.items()}
    run(plan(problem, named("score"), {}, rows, absent))
    return Scores(**{name: give(array[()], logits) for name, array in results.items()})


def evaluate(
    logits: Any, target: Any, *, axis: int = -1, sample_weight: Any = None, ignore_index: int = -100,
    top_k: Any = (1, 5), bins: int = 15, device: str = "auto",
) -> Evaluation:  # fmt: skip
    """Evaluate logits against classes, in one pass over the logits and in memory that does not grow with them.

    Parameters
    ----------
    logits : array_like, shape (..., C)
        As in `cross_entropy`.
    target : array_like
        Classes, of any integer dtype and of the logits' shape without the class axis.
    axis, sample_weight, ignore_index, device
        As in `cross_entropy`. Every mean is weighted by the sample weight. Rows that are ignored, or of weight 0, count
        nowhere.
    top_k : int or sequence of int
        For which k the top-k accuracy is counted, each at least 1.
    bins : int
        Bins of equal width of the confidence, at least 1, for the calibration.

    Returns
    -------
    Evaluation
        Sums, whose properties are the means; evaluations of parts merge with ``+``.

    Raises
    ------
    ShapeError, DTypeError, OptionError, DeviceError, TargetError
        As in `cross_entropy`.
    """
    ks, bins = positive_integers("top_k", top_k), positive_integer("bins", bins)
    fixed = options(ignore_index=ignore_index, logit_scale=1.0, softcap=None)
    problem = check.scores(logits, _required(target), axis, sample_weight, device, fixed)
    fixed |= {"top_k": np.array(ks, np.int64), "bins": bins}
    x, hosted = problem.x, is_hosted(problem)
    rows = max(_CHUNK_BYTES // max(x.shape[problem.axis] * x.itemsize, _ROW_BYTES), 1)
    total = np.zeros(6 + len(ks) + 4 * bins)
    scratch: dict[str, Array] = {}
    for part, lo, hi in _chunks(problem, rows, hosted):
        scratch = scratch or _scratch(hi - lo, _row_dtypes(problem), hosted)
        results = {name: array[: hi - lo] for name, array in scratch.items()}
        status, sums = attempt(plan(part, score_then_tally, {}, results, fixed, total.shape, scratch=True))
        if status >= 0:
            raise check.offence(problem, lo + status)
        total += sums
    return Evaluation(ks, bins, tuple(total.tolist()))


def score_binary(logits: Any, target: Any = None, *, threshold: float = 0.5, device: str = "auto") -> BinaryScores:
    """Score each of binary or multi-label logits.

    Parameters
    ----------
    logits : array_like, shape (...)
        As in `binary_cross_entropy`.
    target : array_like, shape (...), optional
        bool, integers or floating, of the logits' shape.
    threshold : float
        The prediction is positive where the probability is above this; in [0, 1].
    device : str
        As in `cross_entropy`.

    Returns
    -------
    BinaryScores
        One array a quantity, of the logits' shape; without a target no `nll` and `brier`.

    Raises
    ------
    ShapeError, DTypeError, OptionError, DeviceError
        As in `cross_entropy`.
    """
    problem = check.binary_scores(logits, target, None, device, options(threshold=threshold))
    absent = {} if "target" in problem.reads else dict.fromkeys(("nll", "brier"))
    dtypes = {name: dtype for name, dtype in _element_dtypes(problem).items() if name not in absent}
    writes = {name: empty(problem.x.shape, dtype, problem.x) for name, dtype in dtypes.items()}
    run(plan(problem, named("score_binary"), writes, {}, absent))
    return BinaryScores(**{name: give(array[()], logits) for name, array in writes.items()})


def evaluate_binary(
    logits: Any, target: Any, *, sample_weight: Any = None, threshold: float = 0.5, bins: int = 15, device: str = "auto"
) -> BinaryEvaluation:
    """Evaluate binary or multi-label logits, in one pass over them and in memory that does not grow with them.

    Parameters
    ----------
    logits : array_like, shape (N,) or (..., L)
        As in `binary_cross_entropy`. With two axes or more, the last one holds the labels.
    target : array_like
        bool, integers or floating, of the logits' shape; positive above 0.5.
    sample_weight
        As in `binary_cross_entropy`. Elements of weight 0 count nowhere.
    threshold : float
        A prediction is positive where its probability is above this; in [0, 1].
    bins : int
        Bins of equal width of the probability, at least 1, for the calibration.
    device : str
        As in `cross_entropy`.

    Returns
    -------
    BinaryEvaluation
        Sums for each label; evaluations of parts merge with ``+``.

    Raises
    ------
    ShapeError, DTypeError, OptionError, DeviceError
        As in `cross_entropy`.
    """
    bins, fixed = positive_integer("bins", bins), options(threshold=threshold)
    elements = check.binary_scores(logits, _required(target), sample_weight, device, fixed)
    problem = with_labels(elements)
    x, hosted = problem.x, is_hosted(problem)
    rows = max(_BINARY_CHUNK_BYTES // max(x.shape[-1] * x.itemsize, 1), 1)
    total = np.zeros((x.shape[-1], 8 + 4 * bins))
    scratch: dict[str, Array] = {}
    for part, _, _ in _chunks(problem, rows, hosted):
        size, shape = part.x.size, part.x.shape
        scratch = scratch or _scratch(size, _element_dtypes(problem), hosted)
        writes = {name: array[:size].reshape(shape) for name, array in scratch.items()}
        total += run(plan(part, score_then_tally_binary, writes, {}, {"bins": bins}, total.shape, scratch=True))
    return BinaryEvaluation(fixed["threshold"], bins, tuple(map(tuple, total.tolist())))


def _required(target: Any) -> Any:
    if target is None:
        raise ShapeError("target is None, expected an array: an evaluation needs one")
    return target


def _row_dtypes(problem: Problem) -> dict[str, np.dtype[Any]]:
    """Name what ``score`` fills."""
    floating, integer = ("log_normalizer", "confidence", "entropy", "nll", "brier"), ("prediction", "rank")
    return dict.fromkeys(floating, problem.dtype) | dict.fromkeys(integer, np.dtype(np.int64))


def _element_dtypes(problem: Problem) -> dict[str, np.dtype[Any]]:
    """Name what ``score_binary`` fills."""
    return dict.fromkeys(("nll", "probability", "brier"), problem.dtype) | {"prediction": np.dtype(np.int8)}


def _scratch(size: int, dtypes: dict[str, np.dtype[Any]], hosted: bool) -> dict[str, Array]:
    """Allocate scratch memory; a card has its own, of which it is only told the dtypes."""
    if hosted:
        return {name: np.empty(size, dtype) for name, dtype in dtypes.items()}
    return {name: np.broadcast_to(np.empty((), dtype), size) for name, dtype in dtypes.items()}


def _chunks(problem: Problem, rows: int, hosted: bool) -> Iterator[tuple[Problem, int, int]]:
    """Cut a problem into chunks of rows, each a problem of its own, with the range of its rows; not so for a card."""
    if not hosted:
        yield problem, 0, prod(problem.positions)
        return
    cuts = slabs(problem.positions, rows)
    for number in range(cuts.count):
        index, lo, hi = cuts.slab(number)
        place = across(index, problem.form, problem.axis)
        reads = {name: array[place] for name, array in problem.reads.items()}
        here = {name: array[lo:hi] for name, array in problem.rows.items()}
        yield problem._replace(reads=reads, rows=here), lo, hi
