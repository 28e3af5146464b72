"""What must be looked for in a row whose classes lie side by side: NaN, its prediction, its rank where it holds NaN."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

from .cpu_parts import Options
from .jit import apart, inline, splice
from .memory import any_set, first, load, load_part, poke_index
from .reductions import count, lowest
from .simd import Format, full, maximum, ramp, wide

FOUR_REGISTERS = 256  # bytes


@cache
def nan_finder(X: Format, transform: Any) -> Any:
    """The first class that is NaN; -1 for none."""
    lanes = X.lanes

    @inline
    def find_nan(p: Any, classes: Any, curve: Any) -> Any:
        k = 0
        while k < classes:
            mask = first(X, classes - k)
            z = transform(load_part(X, p, k, mask), curve)
            if any_set(mask & (z != z)):
                return k + lowest(mask & (z != z))
            k += lanes
        return -1

    return find_nan


@cache
def peak_finder(X: Format, transform: Any) -> Any:
    """The first class from `start` on whose logit is `wanted`, the maximum of a row without NaN; -1 for none.

    Four vectors have one maximum to compare; where it is the wanted one, they are looked at together.
    """
    real = Format(X.real, X.lanes, X.real).itemsize
    lanes, Four = X.lanes, replace(X, lanes=max(X.lanes, FOUR_REGISTERS // real))
    step = Four.lanes

    @inline
    def peak(p: Any, k: Any, curve: Any) -> Any:
        near = maximum(transform(load(X, p, k), curve), transform(load(X, p, k + lanes), curve))
        far = maximum(transform(load(X, p, k + 2 * lanes), curve), transform(load(X, p, k + 3 * lanes), curve))
        return maximum(near, far)

    @inline
    def find(p: Any, start: Any, classes: Any, wanted: Any, curve: Any) -> Any:
        apart()
        k = start
        while k + 4 * lanes <= classes and not any_set(peak(p, k, curve) == wanted):
            k += 4 * lanes
        while k < classes:
            mask = first(Four, classes - k)
            hit = mask & (transform(load_part(Four, p, k, mask), curve) == wanted)
            if any_set(hit):
                return k + lowest(hit)
            k += step
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
    find, find_nan = peak_finder(options.logits, device.transform), nan_finder(options.logits, device.transform)
    rank_in_nan = rank_finder(options.logits, device.transform)
    asked, scored = options.result in ("lse", "score"), options.result == "score"

    @splice
    def report(row: Any, number: Any, classes: Any, to: Any, state: Any, found: Any, curve: Any) -> Any:
        top, d, target, z_target = state
        nan = find_nan(row[0], classes, curve) if asked and d != d else -1
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
