"""The CPU backend: the functions of the kernel contract, on Numba.

Each picks a specialised kernel, packs its arguments once, and returns ``run(lo, hi)``. Rows whose classes lie side by
side go to `cpu_rows`; few classes, another class axis or any other strides go to `cpu_lanes`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from operator import attrgetter
from typing import Any

import numpy as np

from . import SEGMENT, cpu_elements, cpu_parts, cpu_probs, cpu_tally
from .calls import CALL, Array, Run, address, bound, pack
from .cpu_elements import ElementOptions, make_elements
from .cpu_lane_tiles import FEW_CLASSES, HELD_CLASSES
from .cpu_lanes import make_lanes
from .cpu_parts import Options
from .cpu_probs import make_probs
from .cpu_row_classes import most_kept
from .cpu_rows import make_rows
from .element_parts import settings_of
from .jit import registers
from .memory import LINE
from .row_parts import Flags
from .simd import Format

STREAMED_BYTES, STREAMED_ROW = 1 << 23, 1536
"""Bytes of an output, and of each of its rows, from which on it is written past the caches: whole lines only. Shorter
rows are written so if all their lines are whole."""
BINARY_CLASSES = 512
"""From as many on, a step less a class is worth what a reference of the summand's choice takes a row."""
BUNDLE, ELEMENT_BUNDLE = 4, 2
"""Vectors that go side by side through long formulas, and through those of single elements, where there are 32
registers of 512 bits: one alone waits for each of its steps. Two of 256 bits make one vector and go so anyway."""


def _compiled(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The entry point of the kernel that `make` makes for some options, for a `CALL`: Numba's dispatcher is slower."""
    return cache(lambda options: make(options).compile(CALL))


_rows, _lanes, _probs, _elements = map(_compiled, (make_rows, make_lanes, make_probs, make_elements))
_tally_binary = cache(cpu_tally.make_tally_binary)


@cache
def memory_format(dtype: np.dtype[Any], real: str, lies: str = "dense") -> Format:
    """How arrays of a dtype are loaded for arithmetic in float32 ("f4") or float64 ("f8")."""
    code = "bf" if dtype.name == "bfloat16" else "b1" if dtype.kind == "b" else f"{dtype.kind}{dtype.itemsize}"
    return Format(code, 16 if real == "f4" else 8, real, lies)


def logits_format(dtype: np.dtype[Any]) -> Format:
    """How logits of a dtype are loaded."""
    return memory_format(dtype, "f8" if dtype.itemsize == 8 else "f4")


def _abreast(fmt: Format, vectors: int) -> Format:
    """So many vectors of a format side by side, where there are registers for them."""
    return replace(fmt, lanes=fmt.lanes * vectors) if registers() == 512 else fmt


def row_format(fmt: Format) -> Format:
    """How logits of a row are loaded: a register of 256 bits at a time where none is wider; there are only sixteen."""
    return replace(fmt, lanes=fmt.lanes // 2) if registers() == 256 and fmt.code == "f4" else fmt


# ---- rows ------------------------------------------------------------------------------------------------------------


Form = tuple[np.dtype[Any], tuple[int, ...], tuple[int, ...]]
_PLACES = struct.Struct(f"{len(cpu_parts.PLACES)}q{len(cpu_parts.REALS)}d")
_NO_SCORES = (0,) * (len(cpu_parts.PLACES) - cpu_parts.PLACES.index("log_normalizer"))
_PLAIN = 0.0, 0.0, 1.0, 1.0, 1.0, 0.0


_form_of: Callable[[Array], Form] = attrgetter("dtype", "shape", "strides")


def _form(array: Array | None) -> Form | None:
    """All of an array that a kernel is chosen by."""
    return None if array is None else _form_of(array)


def _dense(axis: int, *forms: Form | None) -> bool:
    return all(f is None or len(f[1]) != 3 or f[1][axis] == 1 or f[2][axis] == f[0].itemsize for f in forms)


def _streamed(x: Array, out: Array | None) -> bool:
    if out is None or out.nbytes < STREAMED_BYTES:
        return False
    return (
        address(out) != address(x)
        and address(out) % out.itemsize == 0
        and not any(s % out.itemsize for s in out.strides)
    )


def _streamed_rows(x: Array, out: Array | None) -> bool:
    """Whether rows of classes that lie side by side are written past the caches."""
    if out is None or not _streamed(x, out):
        return False
    row, inner = out.shape[1] * out.itemsize, out.strides[2] if out.shape[2] > 1 else 0
    return row >= STREAMED_ROW or (address(out) | out.strides[0] | inner | row) % LINE == 0


_flags = lru_cache(maxsize=256)(Flags)


@lru_cache(maxsize=4096)
def _fitted(flags: Flags, x: Form, target: Form | None, out: Form | None, streamed: bool) -> tuple[Any, bytes]:
    """The kernel over classes that suits the arrays, and the part of its call that their forms decide."""
    (dtype, (outer, classes, inner), strides), soft = x, target is not None and len(target[1]) == 3
    fmt, side_by_side = replace(logits_format(dtype), flushed=True), _dense(1, x, target, out)
    in_rows, turned = side_by_side and classes > FEW_CLASSES, side_by_side and inner == 1
    gathered = not (in_rows or turned) and (not _dense(2, x, target, out) or inner < fmt.lanes)
    bundle, tile = _abreast(fmt, BUNDLE), outer if turned else inner
    if in_rows:
        fmt = row_format(fmt)
    elif not (gathered or tile < bundle.lanes):
        fmt = bundle
    aimed = target or flags.result == "score"  # scores without a target are those of masked rows
    options = Options(
        fmt, **flags._asdict(), target="soft" if soft else "hard" if aimed else "",
        soft=replace(memory_format(target[0], fmt.real), lanes=fmt.lanes) if target and soft else None,
        registers=registers(),
    )  # fmt: skip
    if in_rows:
        kept = classes <= most_kept(options) and flags.output == "gradient"
        binary = classes >= BINARY_CLASSES and not (kept or flags.smoothed or flags.result == "score")
        kernel = _rows(replace(options, streamed=streamed, kept=kept, binary=binary))
    else:
        kernel = _lanes(replace(options, held=turned or classes <= HELD_CLASSES, turned=turned, gathered=gathered))
    steps = *strides, *(target[2] if target and soft else (0, 0, 0)), *(out[2] if out else (0, 0, 0))
    return kernel, struct.pack(f"{len(cpu_parts.LAYOUT)}q", inner, classes, *steps)


def _over_classes(
    flags: Flags, x: Array, target: Array | None, out: Array | None, loss: Array | None = None,
    scores: Sequence[Array | None] = (), class_weight: Array | None = None, sample_weight: Array | None = None,
    ignore_index: int = 0, block: int = 0, sums: Array | None = None, reals: tuple[float, ...] = _PLAIN,
) -> Run:  # fmt: skip
    """Bind the kernel over classes that suits the arrays: its scores from the log-normaliser on, its REALS."""
    kernel, layout = _fitted(flags, _form(x), _form(target), _form(out), _streamed_rows(x, out))
    scores_at = tuple(map(address, scores)) if scores else _NO_SCORES

    def packed(
        x: Array, target: Array | None, out: Array | None, loss: Array | None, sums: Array | None,
        reals: tuple[float, ...],
    ) -> bytes:  # fmt: skip
        return layout + _PLACES.pack(
            address(x), address(target), address(out), address(class_weight), address(sample_weight), ignore_index,
            block, address(sums), address(loss), *scores_at, *reals,
        )  # fmt: skip

    call = packed(x, target, out, loss, sums, reals)
    run = bound(kernel, call, x, target, out, class_weight, sample_weight, sums, loss, scores)
    if sums is not None and class_weight is None and sample_weight is None:
        smoothing, z_loss, scale, cap, _, total = reals

        def again(x: Array, target: Array, loss: Array, grad: Array | None, sums: Array, grad_scale: float) -> Run:
            of_these = smoothing, z_loss, scale, cap, grad_scale * scale, total
            return bound(kernel, packed(x, target, grad, loss, sums, of_these), x, target, grad, loss, sums)

        run.again = again  # type: ignore[attr-defined]
    return run


def _curve(logit_scale: float, softcap: float | None) -> str:
    """The transform of the logits."""
    return "softcap" if softcap is not None else "scale" if logit_scale != 1.0 else ""


def cross_entropy(x: Array, target: Array, loss: Array, grad: Array | None, *, class_weight: Array | None,
                  sample_weight: Array | None, ignore_index: int, label_smoothing: float, z_loss: float,
                  logit_scale: float, softcap: float | None, grad_scale: float, block: int = 0,
                  sums: Array | None = None) -> Run:  # fmt: skip
    """Bind the cross-entropy of logits with hard or soft targets, and its gradient."""
    smoothed, output = label_smoothing != 0.0, "" if grad is None else "gradient"
    weighted = class_weight is not None and (smoothed or target.ndim == 3)
    flags = _flags("loss", weighted, smoothed, False, _curve(logit_scale, softcap), output)
    total = x.shape[1] if class_weight is None else class_weight.sum(dtype=np.float64)
    reals = label_smoothing, z_loss, logit_scale, softcap or 1.0, grad_scale * logit_scale, total
    return _over_classes(
        flags, x, target, grad, loss, (), class_weight, sample_weight, ignore_index, block, sums, reals
    )


def kl_divergence(x: Array, target: Array, loss: Array, grad: Array | None, *, sample_weight: Array | None,
                  logit_scale: float, grad_scale: float, block: int = 0,
                  sums: Array | None = None) -> Run:  # fmt: skip
    """Bind KL(target ‖ softmax(logits)) and its gradient."""
    output = "" if grad is None else "gradient"
    flags = Flags("loss", divergence=True, transform=_curve(logit_scale, None), output=output)
    reals = 0.0, 0.0, logit_scale, 1.0, grad_scale * logit_scale, 0.0
    return _over_classes(flags, x, target, grad, loss, sample_weight=sample_weight, block=block, sums=sums, reals=reals)


def softmax(x: Array, out: Array) -> Run:
    """Bind exp(x - lse)."""
    return _over_classes(Flags("", output="softmax"), x, None, out)


def log_softmax(x: Array, out: Array) -> Run:
    """Bind x - lse."""
    return _over_classes(Flags("", output="log_softmax"), x, None, out)


def logsumexp(x: Array, out: Array) -> Run:
    """Bind lse."""
    return _over_classes(Flags("lse"), x, None, None, scores=(out, None, None, None, None, None))


def score(x: Array, target: Array | None, *, ignore_index: int, logit_scale: float, softcap: float | None,
          nll: Array | None, log_normalizer: Array, prediction: Array, confidence: Array, entropy: Array,
          rank: Array | None, brier: Array | None) -> Run:  # fmt: skip
    """Bind everything that one read of each row tells."""
    flags = Flags("score", transform=_curve(logit_scale, softcap))
    scores = log_normalizer, prediction, confidence, entropy, rank, brier
    reals = 0.0, 0.0, logit_scale, softcap or 1.0, logit_scale, 0.0
    return _over_classes(flags, x, target, None, nll, scores, ignore_index=ignore_index, reals=reals)


def _placed(name: str, array: Array | None, prefix: str | None = None) -> dict[str, int]:
    """An (outer, C, inner) array's address and strides, or a flat one's address."""
    if array is None or array.ndim != 3:
        return {name: address(array)}
    outer, classes, inner = array.strides
    prefix = prefix or name
    return {name: address(array), f"{prefix}_outer": outer, f"{prefix}_class": classes, f"{prefix}_inner": inner}


def log_loss(x: Array, target: Array, loss: Array, grad: Array | None, *, class_weight: Array | None,
             sample_weight: Array | None, ignore_index: int, label_smoothing: float, eps: float, log_eps: float,
             normalize: bool, grad_scale: float, block: int = 0, sums: Array | None = None) -> Run:  # fmt: skip
    """Bind the cross-entropy of probabilities and its gradient."""
    fmt, soft = logits_format(x.dtype), target.ndim == 3
    gathered = not _dense(2, _form(x), _form(target), _form(grad)) or x.shape[2] < fmt.lanes
    kernel = _probs(Options(
        fmt, "loss", "soft" if soft else "hard", memory_format(target.dtype, fmt.real) if soft else None,
        smoothed=label_smoothing != 0.0, output="" if grad is None else "gradient", gathered=gathered,
    ))  # fmt: skip
    values = {
        "inner": x.shape[2], "classes": x.shape[1], "class_weight": address(class_weight),
        "sample_weight": address(sample_weight), "ignore_index": ignore_index, "loss": address(loss), "block": block,
        "sums": address(sums), "normalize": int(normalize), **_placed("x", x), **_placed("target", target, "y"),
        **_placed("out", grad),
    } | settings_of(
        x.dtype, label_smoothing=label_smoothing, eps=eps, log_eps=log_eps, grad_scale=grad_scale, classes=x.shape[1]
    )  # fmt: skip
    call = pack(cpu_probs.INTEGERS, cpu_probs.REALS, values)
    return bound(kernel, call, x, target, loss, sums, grad, class_weight, sample_weight)


# ---- elements --------------------------------------------------------------------------------------------------------


def _lies(array: Array) -> str:
    if array.shape[1] == 1 or array.strides[1] == array.itemsize:
        return "dense"
    return "apart" if array.strides[1] else "same"


def _over_elements(formula: str, arrays: dict[str, Array | None], values: dict[str, float], sums: Array | None) -> Run:
    """Bind an elementwise kernel for how each array's columns lie."""
    given = {name: array for name, array in arrays.items() if array is not None}
    x = given["x"]
    fmt = _abreast(logits_format(x.dtype), ELEMENT_BUNDLE)
    operands = tuple(
        (name, replace(memory_format(array.dtype, fmt.real, _lies(array)), lanes=fmt.lanes))
        for name, array in given.items()
    )
    out = given.get("out")
    lines = out is not None and _lies(out) == "dense"
    lines = lines and (address(out) | (out.strides[0] if len(out) > 1 else 0)) % LINE == 0
    kernel = _elements(ElementOptions(formula, fmt, operands, lines and _streamed(x, out)))
    call: dict[str, Any] = {
        "columns": x.shape[1],
        "segments": -(-x.shape[1] // SEGMENT),
        "sums": address(sums),
        **values,
    }
    for name, array in given.items():
        call |= {name: address(array), f"{name}_row": array.strides[0], f"{name}_col": array.strides[1]}
    return bound(kernel, pack(cpu_elements.INTEGERS, cpu_elements.REALS, call), arrays, sums)


def binary_cross_entropy(x: Array, target: Array, loss: Array | None, sums: Array | None, grad: Array | None, *,
                         pos_weight: Array | None, sample_weight: Array | None, label_smoothing: float,
                         grad_scale: float) -> Run:  # fmt: skip
    """Bind the binary cross-entropy of logits and its gradient."""
    arrays = {"x": x, "target": target, "weight": sample_weight, "pos_weight": pos_weight, "out": grad, "loss": loss}
    settings = settings_of(x.dtype, label_smoothing=label_smoothing, grad_scale=grad_scale)
    return _over_elements("binary_cross_entropy", arrays, settings, sums)


def binary_log_loss(x: Array, target: Array, loss: Array | None, sums: Array | None, grad: Array | None, *,
                    sample_weight: Array | None, label_smoothing: float, eps: float, log_eps: float,
                    grad_scale: float) -> Run:  # fmt: skip
    """Bind the binary cross-entropy of probabilities and its gradient."""
    arrays = {"x": x, "target": target, "weight": sample_weight, "out": grad, "loss": loss}
    settings = settings_of(x.dtype, label_smoothing=label_smoothing, eps=eps, log_eps=log_eps, grad_scale=grad_scale)
    return _over_elements("binary_log_loss", arrays, settings, sums)


def mse(x: Array, target: Array, loss: Array | None, sums: Array | None, grad: Array | None, *,
        sample_weight: Array | None, grad_scale: float) -> Run:  # fmt: skip
    """Bind the squared error and its gradient."""
    arrays = {"x": x, "target": target, "weight": sample_weight, "out": grad, "loss": loss}
    return _over_elements("mse", arrays, settings_of(x.dtype, grad_scale=grad_scale), sums)


def sigmoid(x: Array, out: Array) -> Run:
    """Bind 1/(1 + exp(-x))."""
    return _over_elements("sigmoid", {"x": x, "out": out}, {}, None)


def score_binary(x: Array, target: Array | None, *, threshold: float, **outputs: Array | None) -> Run:
    """Bind everything that one read of a binary logit tells."""
    settings = settings_of(x.dtype) | {"threshold": threshold}
    return _over_elements("score_binary", {"x": x, "target": target, **outputs}, settings, None)


# ---- tallies ---------------------------------------------------------------------------------------------------------


def _by_block(fill: Callable[[Array, int, int], Any], block: int, sums: Array) -> Run:
    def run(lo: int, hi: int) -> int:
        for start in range(lo, hi, block):
            row = sums[start // block]
            row[...] = 0.0
            fill(row, start, min(start + block, hi))
        return -1

    return run


def tally(target: Array, sample_weight: Array | None, *, nll: Array, prediction: Array, confidence: Array,
          entropy: Array, rank: Array, brier: Array, ignore_index: int, top_k: Array, bins: int, block: int,
          sums: Array) -> Run:  # fmt: skip
    """Bind the sums over blocks of rows that `evaluate` keeps."""
    weights = np.empty(0, nll.dtype) if sample_weight is None else sample_weight
    rows = target, weights, nll, prediction, confidence, entropy, rank, brier, ignore_index, top_k, bins
    return _by_block(lambda row, lo, hi: cpu_tally.tally(*rows, row, lo, hi), block, sums)


def tally_binary(target: Array, sample_weight: Array | None, *, nll: Array, probability: Array, prediction: Array,
                 brier: Array, bins: int, block: int, sums: Array) -> Run:  # fmt: skip
    """Bind the sums over blocks of binary scores that `evaluate_binary` keeps, a label each."""
    kernel = _tally_binary(memory_format(target.dtype, "f8"))
    weights = np.empty((0, 0), nll.dtype) if sample_weight is None else sample_weight
    rows = address(target), *target.strides, weights, nll, probability, prediction, brier, bins

    def fill(row: Array, lo: int, hi: int, _kept: Any = target) -> Any:
        return kernel(*rows, row, lo, hi)

    return _by_block(fill, block, sums)
