"""Tallies: the sums that an evaluation is made of, of logits as they are scored or of scores that are there already."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from fusedloss.kernels import SEGMENT

from . import check
from .arrays import Array
from .backends import resolve
from .check import Problem
from .options import options
from .plan import Bind, plan, run
from .threads import Run


def tally(
    scores: Any, target: Any, sample_weight: Any, ignore_index: int, ks: Sequence[int], bins: int, device: str
) -> list[float]:
    """Sum up the scores of rows, as ``score_then_tally`` does those of logits."""
    problem = check.scored(scores, target, sample_weight, device, options(ignore_index=ignore_index))
    kernel, top_k = resolve(device).tally, np.array(ks, np.int64)

    def bind(*, x: Array, **given: Any) -> Run:
        bound: Run = kernel(**given, top_k=top_k, bins=bins)
        return bound

    total: list[float] = run(plan(problem, bind, {}, {}, {}, (6 + len(ks) + 4 * bins,))).tolist()
    return total


def tally_binary(scores: Any, target: Any, sample_weight: Any, bins: int, device: str) -> list[list[float]]:
    """Sum up the scores of elements, label by label."""
    problem = with_labels(check.binary_scored(scores, target, sample_weight, device))
    kernel = resolve(device).tally_binary

    def bind(*, x: Array, **given: Any) -> Run:
        bound: Run = kernel(**given, probability=x, bins=bins)
        return bound

    total: list[list[float]] = run(plan(problem, bind, {}, {}, {}, (problem.x.shape[-1], 8 + 4 * bins))).tolist()
    return total


def with_labels(problem: Problem) -> Problem:
    """See elements as (..., labels): a single label where there is one axis or none."""
    reads = problem.reads
    if problem.x.ndim < 2:
        reads = {name: array.reshape(-1, 1) for name, array in reads.items()}
    return problem._replace(form="labels", reads=reads)


def score_then_tally(backend: ModuleType, ks: Sequence[int], bins: int) -> Bind:
    """Make one kernel of two: a block is scored, then tallied while its scores are in the cache."""
    top_k = np.array(ks, np.int64)

    def bind(
        *, x: Array, target: Array, sums: Array, block: int, ignore_index: int, logit_scale: float,
        softcap: float | None, sample_weight: Array | None = None, **results: Array,
    ) -> Run:  # fmt: skip
        score = backend.score(x, target, ignore_index=ignore_index, logit_scale=logit_scale, softcap=softcap, **results)
        del results["log_normalizer"]
        tally = backend.tally(
            target, sample_weight, ignore_index=ignore_index, top_k=top_k, bins=bins, block=block, sums=sums, **results
        )

        def run(lo: int, hi: int) -> int:
            status: int = score(lo, hi)
            return status if status >= 0 else tally(lo, hi)

        return run

    return bind


def score_then_tally_binary(backend: ModuleType, bins: int) -> Bind:
    """Make one kernel of two, as ``score_then_tally``; the first counts segments, the second rows."""

    def bind(
        *, x: Array, target: Array, sums: Array, block: int, threshold: float, sample_weight: Array | None = None,
        **results: Array,
    ) -> Run:  # fmt: skip
        score = backend.score_binary(x, target, threshold=threshold, **results)
        tally = backend.tally_binary(target, sample_weight, bins=bins, block=block, sums=sums, **results)
        segments = -(-x.shape[1] // SEGMENT)

        def run(lo: int, hi: int) -> int:
            status: int = score(lo * segments, hi * segments)
            return status if status >= 0 else tally(lo, hi)

        return run

    return bind
