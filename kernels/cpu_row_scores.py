"""What a scored row whose classes lie side by side comes to: prediction, rank, confidence, entropy, Brier score."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

from .cpu_parts import Options
from .jit import inline, splice
from .memory import any_set, first, load_part, poke, poke_index
from .reductions import count, lowest
from .simd import Format, apart, full, ramp, wide

equals, is_nan = splice(lambda z, wanted: z == wanted), splice(lambda z, wanted: z != z)


@cache
def class_finder(X: Format, transform: Any, hit: Any) -> Any:
    """The first class from `start` on where `hit(z, wanted)`; -1 for none."""
    lanes = X.lanes

    @inline
    def hits(p: Any, k: Any, n: Any, wanted: Any, curve: Any) -> Any:
        mask = first(X, n)
        return mask & hit(transform(load_part(X, p, k, mask), curve), wanted)

    @inline
    def find(p: Any, start: Any, classes: Any, wanted: Any, curve: Any) -> Any:
        apart()
        k = start
        while k + 4 * lanes <= classes:
            near = hits(p, k, lanes, wanted, curve) | hits(p, k + lanes, lanes, wanted, curve)
            far = hits(p, k + 2 * lanes, lanes, wanted, curve) | hits(p, k + 3 * lanes, lanes, wanted, curve)
            if any_set(near | far):
                break
            k += 4 * lanes
        while k < classes:
            hit_here = hits(p, k, classes - k, wanted, curve)
            if any_set(hit_here):
                return k + lowest(hit_here)
            k += lanes
        return -1

    return find


@cache
def rank_finder(X: Format, transform: Any) -> Any:
    """The rank in a row that holds NaN, which is above everything: rank 0 is the prediction there, too."""
    lanes = X.lanes

    @inline
    def rank_in_nan(p: Any, target: Any, z_target: Any, classes: Any, curve: Any) -> Any:
        k = before = 0
        while k < classes:
            mask = first(X, classes - k)
            z = transform(load_part(X, p, k, mask), curve)
            nan, earlier = z != z, ramp(X) < full(X, target - k)
            above = nan | (z > z_target) | ((z == z_target) & earlier)
            before += count(mask & (nan & earlier if z_target != z_target else above))
            k += lanes
        return before

    return rank_in_nan


def row_results(options: Options, device: SimpleNamespace) -> Any:
    """Write what a scored row comes to."""
    R, size, brier_of, entropy_of = options.real, options.real.itemsize, device.brier, device.entropy
    find, rank_in_nan = (
        class_finder(options.logits, device.transform, equals), rank_finder(options.logits, device.transform),
    )  # fmt: skip

    @inline
    def results(row: Any, number: Any, classes: Any, to: Any, state: Any, scores: Any, curve: Any) -> Any:
        prediction, confidence, entropy, rank, brier = to
        top, d, logd, target, z_target, nan = state
        energy, rest, square, before, top_at = scores
        winner = nan if nan >= 0 else find(row[0], top_at, classes, top, curve)
        poke_index(prediction + 8 * number, winner)
        poke(R, confidence + size * number, (wide(top - top) + 1.0) / d)  # NaN in a row of -inf
        poke(R, entropy + size * number, entropy_of(logd, energy / d))
        if rank != 0 and target < 0:
            poke_index(rank + 8 * number, -1)
            poke(R, brier + size * number, 0.0)
        elif rank != 0:
            if nan >= 0:
                before = rank_in_nan(row[0], target, z_target, classes, curve)
            poke_index(rank + 8 * number, before)
            poke(R, brier + size * number, brier_of(rest / d, square / (d * d)))

    return results


def row_report(options: Options, device: SimpleNamespace) -> Any:
    """Write a row's log-normaliser, and its scores, if they are asked for."""
    R, size, normalizer_of = options.real, options.real.itemsize, device.log_normalizer
    results, find_nan = row_results(options, device), class_finder(options.logits, device.transform, is_nan)
    asked, scored = options.result in ("lse", "score"), options.result == "score"

    @splice
    def report(row: Any, number: Any, classes: Any, normalizer: Any, to: Any, state: Any, scores: Any,
               curve: Any) -> Any:  # fmt: skip
        if asked:
            top, d, logd, target, z_target = state
            nan = find_nan(row[0], 0, classes, top, curve) if d != d else -1
            if normalizer:
                poke(R, normalizer + size * number, d if nan >= 0 else normalizer_of(wide(top), logd))
            if scored:
                results(row, number, classes, to, (top, d, logd, target, z_target, nan), scores, curve)

    return report
