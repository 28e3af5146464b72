"""What must be looked for in a row whose classes lie side by side: NaN, its prediction, its rank where it holds NaN."""

from __future__ import annotations

import math
from functools import cache
from types import SimpleNamespace
from typing import Any

from .cpu_parts import Options
from .jit import apart, inline, splice
from .memory import any_set, first, load_part, poke_index
from .reductions import count, lowest
from .simd import Format, full, ramp, wide

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


def row_report(options: Options, device: SimpleNamespace) -> Any:
    """Write a scored row's prediction and rank; the row's maximum, or NaN if a row that is asked for holds one."""
    find = class_finder(options.logits, device.transform, equals)
    find_nan = class_finder(options.logits, device.transform, is_nan)
    rank_in_nan = rank_finder(options.logits, device.transform)
    asked, scored = options.result in ("lse", "score"), options.result == "score"

    @splice
    def report(row: Any, number: Any, classes: Any, to: Any, state: Any, found: Any, curve: Any) -> Any:
        top, d, target, z_target = state
        nan = find_nan(row[0], 0, classes, top, curve) if asked and d != d else -1
        if scored:
            (prediction, _, _, rank, _), (before, top_at) = to, found
            poke_index(prediction + 8 * number, nan if nan >= 0 else find(row[0], top_at, classes, top, curve))
            if rank:
                if target < 0:
                    before = -1
                elif nan >= 0:
                    before = rank_in_nan(row[0], target, z_target, classes, curve)
                poke_index(rank + 8 * number, before)
        return wide(top) if nan < 0 else math.nan

    return report
