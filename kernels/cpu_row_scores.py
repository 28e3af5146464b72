"""What a scored row whose classes lie side by side comes to: prediction, rank, confidence, entropy, Brier score."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from .cpu_parts import Options
from .jit import inline, splice
from .memory import any_set, first, load_part, poke, poke_index
from .reductions import count, lowest
from .simd import apart, full, ramp, wide


def class_finder(options: Options, transform: Any, hit: Any) -> Any:
    """The first class from `start` on where `hit(z, wanted)`; -1 for none."""
    X, lanes = options.logits, options.logits.lanes

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


def row_results(options: Options, device: SimpleNamespace) -> Any:
    """Write what a scored row comes to."""
    X, R, lanes, size = options.logits, options.real, options.logits.lanes, options.real.itemsize
    transform, brier_of, entropy_of = device.transform, device.brier, device.entropy
    find = class_finder(options, transform, splice(lambda z, wanted: z == wanted))

    @inline
    def rank_in_nan(p: Any, target: Any, z_target: Any, classes: Any, curve: Any) -> Any:
        """The rank in a row that holds NaN, which is above everything: rank 0 is the prediction there, too."""
        k = before = 0
        while k < classes:
            mask = first(X, classes - k)
            z = transform(load_part(X, p, k, mask), curve)
            nan, earlier = z != z, ramp(X) < full(X, target - k)
            above = nan | (z > z_target) | ((z == z_target) & earlier)
            before += count(mask & (nan & earlier if z_target != z_target else above))
            k += lanes
        return before

    @inline
    def results(row: Any, number: Any, classes: Any, at: Any, state: Any, scores: Any, curve: Any) -> Any:
        prediction, confidence, entropy, rank, brier = at
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
