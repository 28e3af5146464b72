"""CPU kernels that add up, over blocks of rows, what `evaluate` keeps; plain scalar loops over per-row results."""

from __future__ import annotations

from typing import Any

from . import numerics
from .jit import inline, kernel
from .memory import peek
from .simd import Format, wide

bin_of = numerics.bin_finder(inline, int)


@kernel("tally")
def tally(target: Any, weights: Any, nll: Any, prediction: Any, confidence: Any, entropy: Any, rank: Any, brier: Any,
          ignore_index: Any, top_k: Any, bins: Any, sums: Any, lo: Any, hi: Any) -> Any:  # fmt: skip
    """Add rows lo … hi-1 to one row of sums, laid out as the kernel contract says."""
    rows = total = losses = entropies = squares = hits = 0.0  # in registers: a sum in memory waits for its last store
    first_bin = 6 + len(top_k)
    for i in range(lo, hi):
        w = float(weights[i]) if len(weights) > 0 else 1.0
        if target[i] == ignore_index or w == 0.0:
            continue
        correct = w if prediction[i] == target[i] else 0.0
        rows += 1.0
        total += w
        losses += w * nll[i]
        entropies += w * entropy[i]
        squares += w * brier[i]
        hits += correct
        for k in range(len(top_k)):
            sums[6 + k] += w if rank[i] < top_k[k] else 0.0  # half of these would be branches mispredicted
        b = bin_of(float(confidence[i]), bins)
        if b >= 0:
            at = first_bin + 4 * b
            sums[at] += 1.0
            sums[at + 1] += w
            sums[at + 2] += w * confidence[i]
            sums[at + 3] += correct
    for k, value in enumerate((rows, total, losses, entropies, squares, hits)):
        sums[k] += value
    return -1


def make_tally_binary(target_format: Format) -> Any:
    """The kernel over rows of binary scores, for a target that lies in memory as `target_format`."""
    Y = target_format

    @kernel(("tally_binary", target_format))
    def tally_binary(targets: Any, row_stride: Any, label_stride: Any, weights: Any, nll: Any, probability: Any,
                     prediction: Any, brier: Any, bins: Any, sums: Any, lo: Any, hi: Any) -> Any:  # fmt: skip
        for i in range(lo, hi):
            for label in range(nll.shape[1]):
                w = float(weights[i, label]) if weights.size > 0 else 1.0
                if w == 0.0:
                    continue
                positive = wide(peek(Y, targets + i * row_stride + label * label_stride)) > 0.5
                row = sums[label]
                row[0] += 1.0
                row[1] += w
                row[2] += w * nll[i, label]
                row[3] += w * brier[i, label]
                row[(4 if positive else 5) if prediction[i, label] != 0 else (7 if positive else 6)] += w
                b = bin_of(float(probability[i, label]), bins)
                if b >= 0:
                    row[8 + 4 * b] += 1.0
                    row[9 + 4 * b] += w
                    row[10 + 4 * b] += w * probability[i, label]
                    row[11 + 4 * b] += w if positive else 0.0
        return -1

    return tally_binary
