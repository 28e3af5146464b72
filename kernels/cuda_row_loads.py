"""How CUDA kernels load a row whose classes lie side by side, and what belongs to its classes, 16 bytes at a time."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from .cuda_machine import each, funnel, hold16, jit, load16, load16_kept, peek, real, select, table, unpack
from .cuda_ops import SIZES, elements
from .cuda_parts import CudaOptions


def row_loader(options: CudaOptions, device: SimpleNamespace, shifted: bool, careful: bool) -> Any:
    """Load the 16 bytes number k of a row as logits, and leave them in shared memory as they lie in memory.

    A careful one never loads past the row's end, where it is cut from two loads.
    """
    code, lanes, size, staged = options.logits, options.lanes, SIZES[options.logits], options.output != ""
    spread, one, transform = unpack(code), peek(code), device.transform

    @jit
    def bend(items: Any, k: Any, curve: Any) -> Any:
        return transform(items[0], curve)

    @jit
    def element(k: Any, a: Any) -> Any:
        return transform(one(a[0] + k * size), a[1])

    bent, apart = each(bend), table(element, lanes)

    @jit
    def load(row: Any, k: Any, curve: Any) -> Any:
        at, shift, safe, kept, room = row
        if shifted and careful and k >= safe:
            return apart((at + 16 * k, curve))
        words = load16_kept(at - shift + 16 * k) if shifted else load16(at + 16 * k)
        if staged and k < kept:
            hold16(room + 16 * k, words)
        if shifted:
            words = funnel(words, load16_kept(at - shift + 16 * k + 16), shift)
        return bent((spread(words),), curve)

    return load


def rest_loader(options: CudaOptions, device: SimpleNamespace) -> Any:
    """Load what is left of a row, less than 16 bytes; what is missing is -inf."""
    size, lanes, one, transform = SIZES[options.logits], options.lanes, peek(options.logits), device.transform
    minus = options.real_type(-math.inf)

    @jit
    def element(k: Any, a: Any) -> Any:
        at, left, curve = a
        return transform(one(at + k * size), curve) if k < left else minus

    return table(element, lanes)


def operand_loader(options: CudaOptions, lanes: int) -> Any:
    """Load the targets and class weights of a vector from class c on; where there are none, what comes is not used."""
    soft, weighted, matched, smoothed = options.target == "soft", options.weighted, options.matched, options.smoothed
    real_size, size, convert = SIZES[options.real], SIZES.get(options.soft, 0), real(options.real)
    targets = elements(options.soft or options.real, lanes, convert)
    weights, hits, ones = elements(options.real, lanes, convert), hit_table(options, lanes), share_table(options, lanes)

    @jit
    def load(z: Any, at: Any, c: Any, target: Any) -> Any:
        y = w = z
        if soft:
            y = targets(at[0] + size * c)
        if matched:
            y = hits(target - c)
        if weighted:
            w = weights(at[1] + real_size * c)
        elif smoothed:
            w = ones(lanes)
        return y, w

    return load


def rest_operand_loader(options: CudaOptions, lanes: int) -> Any:
    """Load the targets and class weights of a vector that has only `left` classes; the others have no weight."""
    soft, weighted, matched, smoothed = options.target == "soft", options.weighted, options.matched, options.smoothed
    real_size, size, convert = SIZES[options.real], SIZES.get(options.soft, 0), real(options.real)
    target_of, weight_of, zero = peek(options.soft or options.real), peek(options.real), options.real_type(0)

    @jit
    def target_at(k: Any, a: Any) -> Any:
        return convert(target_of(a[0] + k * size)) if k < a[1] else zero

    @jit
    def weight_at(k: Any, a: Any) -> Any:
        return convert(weight_of(a[0] + k * real_size)) if k < a[1] else zero

    targets, weights = table(target_at, lanes), table(weight_at, lanes)
    hits, ones = hit_table(options, lanes), share_table(options, lanes)

    @jit
    def load(z: Any, at: Any, c: Any, target: Any, left: Any) -> Any:
        y = w = z
        if soft:
            y = targets((at[0] + size * c, left))
        if matched:
            y = hits(target - c)
        if weighted:
            w = weights((at[1] + real_size * c, left))
        elif smoothed:
            w = ones(left)
        return y, w

    return load


def hit_table(options: CudaOptions, lanes: int) -> Any:
    """The one-hot target of a vector whose class of the target is so many ahead."""
    one, zero = options.real_type(1), options.real_type(0)

    @jit
    def hit(k: Any, ahead: Any) -> Any:
        return select(k == ahead, one, zero)

    return table(hit, lanes)


def share_table(options: CudaOptions, lanes: int) -> Any:
    """1 for the first so many classes of a vector, 0 for the rest."""
    one, zero = options.real_type(1), options.real_type(0)

    @jit
    def share(k: Any, left: Any) -> Any:
        return select(k < left, one, zero)

    return table(share, lanes)
