"""Makes ``mpmath.json``: the formulas in 50 digits, where floating point is at its worst.

Run with mpmath installed: ``python tests/golden/make_mpmath.py``.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from mpmath import mp, mpf
from tables import case, tiled, write

mp.dps = 50
RNG = np.random.default_rng(5)
ROWS, CLASSES = 6, 10
NORMAL = 3 * RNG.standard_normal((ROWS, CLASSES))
TARGET = RNG.integers(0, CLASSES, ROWS)
SOFT = RNG.dirichlet(np.ones(CLASSES), ROWS)
WEIGHT = np.arange(1.0, CLASSES + 1) / 4


def exact(value: float) -> mpf:
    """`value` with all its digits."""
    return mpf(float(value))


def normalizer(z: list[mpf]) -> mpf:
    """log Σ exp(z)."""
    return mp.log(mp.fsum(mp.exp(v) for v in z))


def row_loss(
    x: np.ndarray, coefficient: list[mpf], *, z_loss: float = 0, logit_scale: float = 1, softcap: float | None = None
) -> tuple[mpf, list[mpf]]:
    """Σ coefficient_c·(lse(z) − z_c) + z_loss·lse(z)² and its gradient in x."""
    z, slope = [exact(logit_scale) * exact(v) for v in x], [exact(logit_scale)] * len(x)
    if softcap is not None:
        tanh = [mp.tanh(v / exact(softcap)) if mp.isfinite(v) else mpf(-1) for v in z]
        slope = [s * (1 - t * t) for s, t in zip(slope, tanh, strict=True)]
        z = [exact(softcap) * t if mp.isfinite(v) else v for v, t in zip(z, tanh, strict=True)]
    lse, total = normalizer(z), mp.fsum(coefficient)
    loss = mp.fsum(c * (lse - v) for c, v in zip(coefficient, z, strict=True) if c) + exact(z_loss) * lse**2
    outer = total + 2 * exact(z_loss) * lse
    grad = [s * (mp.exp(v - lse) * outer - c) for v, s, c in zip(z, slope, coefficient, strict=True)]
    return loss, grad


def coefficients(target: np.ndarray, classes: int, weight: np.ndarray | None, smoothing: float) -> list[mpf]:
    """What multiplies lse − z_c in a row's loss, for a hard target or a soft one."""
    soft = [exact(y) for y in (target if np.ndim(target) else np.eye(classes)[target])]
    weights = [mpf(1)] * classes if weight is None else [exact(w) for w in weight]
    epsilon = exact(smoothing)
    if np.ndim(target):
        return [w * ((1 - epsilon) * y + epsilon / classes) for w, y in zip(weights, soft, strict=True)]
    chosen = weights[int(target)]
    return [(1 - epsilon) * chosen * y + epsilon / classes * w for w, y in zip(weights, soft, strict=True)]


def cross_entropy(
    name: str,
    x: np.ndarray,
    target: np.ndarray,
    *,
    class_weight: np.ndarray | None = None,
    label_smoothing: float = 0.0,
    **options: Any,
) -> dict[str, Any]:
    """The case of every row's loss and gradient."""
    rows = [
        row_loss(row, coefficients(y, x.shape[-1], class_weight, label_smoothing), **options)
        for row, y in zip(x, target, strict=True)
    ]
    value, grad = (np.array(part, np.float64) for part in zip(*rows, strict=True))
    ours = {"class_weight": class_weight, "label_smoothing": label_smoothing, "reduction": "none"} | options
    entry = case(f"{name}-{x.dtype}", "50 digits", "cross_entropy", [x, target], value, grad, **ours)
    # a capped logit is rounded, and the loss is a difference of two
    return entry | {"unit": max(1.0, options.get("softcap") or 0)}


def offsets(dtype: type) -> Iterator[dict[str, Any]]:
    """Logits far from 0: what counts is the values that `dtype` can represent there."""
    for offset in (1e4, -1e4, 1e6, -1e6):
        x, soft = (NORMAL + offset).astype(dtype), SOFT.astype(dtype)
        both = {"label_smoothing": 0.1, "class_weight": WEIGHT}
        yield cross_entropy(f"offset{offset:+.0e}", x, TARGET)
        yield cross_entropy(f"smoothing{offset:+.0e}", x, TARGET, label_smoothing=0.1)
        yield cross_entropy(f"weighted-smoothing{offset:+.0e}", x, TARGET, **both)
        yield cross_entropy(f"soft{offset:+.0e}", x, soft)
        yield cross_entropy(f"weighted-soft{offset:+.0e}", x, soft, **both)
        yield cross_entropy(f"z-loss{offset:+.0e}", x, TARGET, z_loss=1e-4)


def extremes(dtype: type) -> Iterator[dict[str, Any]]:
    """Saturated rows, losses next to nothing, masked classes."""
    high, huge, tiny = [[1e3, -1e3, 0], [-1e3, 1e3, 999], [88.5, 0, -88.5]], [1e30, 0, -1e30], [1e-30, 0, -1e-30]
    x = np.array([*high, huge, huge[::-1], tiny], dtype)
    for y in range(3):
        yield cross_entropy(f"saturated-{y}", x, np.full(len(x), y))
    margins = np.array([[-np.log(tiny), 0, 0] for tiny in (1e-3, 1e-6, 1e-8, 1e-12, 1e-15, 1e-20, 1e-30)], dtype)
    yield cross_entropy("tiny", margins, np.zeros(len(margins), np.int64))
    yield cross_entropy("tiny-smoothing", margins, np.zeros(len(margins), np.int64), label_smoothing=1e-6)
    masked = np.where(np.arange(CLASSES) < 4, -np.inf, NORMAL).astype(dtype)
    y = np.arange(4, CLASSES)
    for options in ({}, {"softcap": 5.0}, {"z_loss": 0.01}, {"logit_scale": 0.25}, {"class_weight": WEIGHT}):
        yield cross_entropy(f"masked-{options and next(iter(options))}", masked, y, **options)
    yield cross_entropy("smoothing-over-masked", masked, y, label_smoothing=0.1)
    yield cross_entropy("masked-soft", masked, np.eye(CLASSES, dtype=dtype)[y] * 0.7)


def extensions(dtype: type) -> Iterator[dict[str, Any]]:
    """Softcap, z-loss and scale, from mild to saturated."""
    for scale in (1.0, 10.0, 100.0):
        x = (scale * NORMAL).astype(dtype)
        for options in (
            {"softcap": 30.0}, {"softcap": 0.5}, {"z_loss": 1e-4}, {"logit_scale": 0.01}, {"logit_scale": 3.0},
            {"softcap": 50.0, "z_loss": 1e-3, "logit_scale": 0.7, "label_smoothing": 0.1, "class_weight": WEIGHT},
        ):  # fmt: skip
            name = "-".join(f"{key}-{value}" for key, value in options.items() if np.ndim(value) == 0)
            yield cross_entropy(f"{name}-at-{scale}", x, TARGET, **options)


def binary(dtype: type) -> Iterator[dict[str, Any]]:
    """From logits, both tails of the sigmoid; from probabilities, both ends of the interval."""
    x = np.array([0, 1e-8, 1e-3, 1, 5, 12, 20, 50, 87, 100, 700, 1e4, 1e30], dtype)
    x, y = (a.ravel() for a in np.meshgrid(np.concatenate([-x, x]), np.array([0, 0.1, 0.5, 1], dtype)))
    for q in (1.0, 3.0, 0.25):
        value, grad = [], []
        for v, t in zip(map(exact, x), map(exact, y), strict=True):
            p, q_ = 1 / (1 + mp.exp(-v)), exact(q)
            value.append((1 - t) * (mp.log1p(mp.exp(v))) + q_ * t * mp.log1p(mp.exp(-v)))
            grad.append((1 - t) * p - q_ * t / (1 + mp.exp(v)))
        value, grad = np.array(value, np.float64), np.array(grad, np.float64)
        options = {"pos_weight": q, "reduction": "none"}
        name = f"pos-weight-{q}-{np.dtype(dtype).name}"
        yield case(name, "50 digits", "binary_cross_entropy", [x, y], value, grad, **options)
    p = np.array([1e-30, 1e-9, 1e-3, 0.25, 0.5, 0.75, 1 - 2**-10, 1 - 2**-23], dtype)
    p, y = (a.ravel() for a in np.meshgrid(p, np.array([0, 0.1, 0.5, 1], dtype)))
    value = [-t * mp.log(v) - (1 - t) * mp.log(1 - v) for v, t in zip(map(exact, p), map(exact, y), strict=True)]
    name, value = f"probabilities-{np.dtype(dtype).name}", np.array(value, np.float64)
    yield case(name, "50 digits", "binary_log_loss", [p, y], value, reduction="none")


def divergences(dtype: type) -> Iterator[dict[str, Any]]:
    """KL(y ‖ softmax(x)), with targets that touch 0."""
    y = SOFT.astype(dtype)
    y[:, 0] = 0
    for name, x in (("plain", NORMAL), ("offset", NORMAL + 1e6), ("masked", np.where(y == 0, -np.inf, NORMAL))):
        x = x.astype(dtype)  # noqa: PLW2901
        rows = [row_loss(row, [exact(t) for t in target]) for row, target in zip(x, y, strict=True)]
        entropy = [mp.fsum(exact(t) * mp.log(exact(t)) for t in target if t) for target in y]
        value = np.array([loss + h for (loss, _), h in zip(rows, entropy, strict=True)], np.float64)
        grad = np.array([grad for _, grad in rows], np.float64)
        full = f"kl-{name}-{np.dtype(dtype).name}"
        yield case(full, "50 digits", "kl_divergence", [x, y], value, grad, reduction="none")


def activations(dtype: type) -> Iterator[dict[str, Any]]:
    """Every element of them, to the last digits."""
    name = np.dtype(dtype).name
    for offset in (0.0, 1e6):
        x = (10 * NORMAL + offset).astype(dtype)
        rows = [[exact(v) for v in row] for row in x]
        lse = [normalizer(row) for row in rows]
        logs = [[v - total for v in row] for row, total in zip(rows, lse, strict=True)]
        for call, value in (
            ("logsumexp", lse), ("log_softmax", logs), ("softmax", [[mp.exp(v) for v in row] for row in logs]),
        ):  # fmt: skip
            yield case(f"{call}{offset:+.0e}-{name}", "50 digits", call, [x], np.array(value, np.float64))
    x = np.array([0, 1e-8, 1e-3, 1, 5, 12, 20, 50, 80, -1e-8, -1e-3, -1, -5, -12, -20, -50, -80], dtype)
    value = np.array([1 / (1 + mp.exp(-exact(v))) for v in x], np.float64)
    yield case(f"sigmoid-{name}", "50 digits", "sigmoid", [x], value)


def long_row(dtype: type) -> Iterator[dict[str, Any]]:
    """One row of 262,144 classes: 64 values 4096 times over."""
    x = (np.round(RNG.standard_normal((1, 64)) * 64) / 16).astype(dtype)
    lse = normalizer([exact(v) for v in x[0]]) + mp.log(4096)
    name, target = f"long-{np.dtype(dtype).name}", 100_000
    loss = np.array([lse - exact(x[0, target % 64])], np.float64)
    args = [tiled(x, 4096), np.array([target])]
    yield case(name, "50 digits", "cross_entropy", args, loss, reduction="none")
    smooth = np.array([0.9 * loss[0] + 0.1 * float(lse - mp.fsum(exact(v) for v in x[0]) / 64)])
    yield case(f"{name}-smoothing", "50 digits", "cross_entropy", args, smooth, reduction="none", label_smoothing=0.1)


def main() -> None:
    """Write the table, in both precisions."""
    groups = (offsets, extremes, extensions, binary, divergences, activations, long_row)
    cases = [entry for dtype in (np.float32, np.float64) for group in groups for entry in group(dtype)]
    write("mpmath", ["mpmath"], cases)


if __name__ == "__main__":
    main()
