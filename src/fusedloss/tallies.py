"""Tallies: the sums that an evaluation is made of, of logits as they are scored or of scores that are there already."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusedloss.kernels import SEGMENT

from . import check
from .check import Problem
from .options import options
from .plan import Bind, plan, run
from .threads import Run


def tally(
    scores: Any, target: Any, sample_weight: Any, ignore_index: int, ks: Sequence[int], bins: int, device: str
) -> list[float]:
    """Sum up the scores of rows, as ``score_then_tally`` does those of logits."""
    problem = check.scored(scores, target, sample_weight, device, options(ignore_index=ignore_index))
    fixed = {"top_k": np.array(ks, np.int64), "bins": bins}

    def kernel(backend: Any) -> Bind:
        def bind(*, x: Any, **given: Any) -> Run:
            bound: Run = backend.tally(**given)
            return bound

        return bind

    total: list[float] = run(plan(problem, kernel, {}, {}, fixed, (6 + len(ks) + 4 * bins,))).tolist()
    return total


def tally_binary(scores: Any, target: Any, sample_weight: Any, bins: int, device: str) -> list[list[float]]:
    """Sum up the scores of elements, label by label."""
    problem = with_labels(check.binary_scored(scores, target, sample_weight, device))

    def kernel(backend: Any) -> Bind:
        def bind(*, x: Any, **given: Any) -> Run:
            bound: Run = backend.tally_binary(**given, probability=x, bins=bins)
            return bound

        return bind

    total: list[list[float]] = run(plan(problem, kernel, {}, {}, {}, (problem.x.shape[-1], 8 + 4 * bins))).tolist()
    return total


def with_labels(problem: Problem) -> Problem:
    """See elements as (..., labels): a single label where there is one axis or none."""
    reads = problem.reads
    if problem.x.ndim < 2:
        reads = {name: array.reshape(-1, 1) for name, array in reads.items()}
    return problem._replace(form="labels", reads=reads)


def score_then_tally(backend: Any) -> Bind:
    """Make one kernel of two: a block is scored, then tallied while its scores are in the cache."""

    def bind(
        *, x: Any, target: Any, sums: Any, block: int, ignore_index: int, logit_scale: float, softcap: float | None,
        top_k: Any, bins: int, sample_weight: Any = None, **results: Any,
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


def score_then_tally_binary(backend: Any) -> Bind:
    """Make one kernel of two, as ``score_then_tally``; the first counts segments, the second rows."""

    def bind(
        *, x: Any, target: Any, sums: Any, block: int, threshold: float, bins: int, sample_weight: Any = None,
        **results: Any,
    ) -> Run:  # fmt: skip
        score = backend.score_binary(x, target, threshold=threshold, **results)
        tally = backend.tally_binary(target, sample_weight, bins=bins, block=block, sums=sums, **results)
        segments = -(-x.shape[1] // SEGMENT)

        def run(lo: int, hi: int) -> int:
            status: int = score(lo * segments, hi * segments)
            return status if status >= 0 else tally(lo, hi)

        return run

    return bind
