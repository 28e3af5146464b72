"""Makes ``torch.json``: every option of torch.nn.functional's losses that fusedloss has, in float64, with gradients.

Run with torch installed: ``python tests/golden/make_torch.py``.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from tables import case, write
from torch.nn import functional

RNG = np.random.default_rng(0)
ROWS, CLASSES = 6, 5
LOGITS = 3 * RNG.standard_normal((ROWS, CLASSES))
TARGET = np.array([0, 4, 2, 2, 1, 3])
SOFT = RNG.dirichlet(np.ones(CLASSES), ROWS)
WEIGHT = np.array([0.5, 2.0, 0.0, 1.0, 1.5])
SAMPLE_WEIGHT = np.array([1.0, 0.0, 2.5, 0.5, 1.0, 3.0])
IMAGES = 3 * RNG.standard_normal((2, CLASSES, 3, 4))
PIXELS = RNG.integers(0, CLASSES, (2, 3, 4))
LABELS = RNG.integers(0, 2, (ROWS, CLASSES)).astype(np.float64)
FRACTIONS = RNG.random((ROWS, CLASSES))
REDUCTIONS = ("none", "sum", "mean")

Loss = Callable[[torch.Tensor], torch.Tensor]


def tensor(array: np.ndarray) -> torch.Tensor:
    """A copy of `array`, as torch has it."""
    return torch.from_numpy(np.array(array))


def differentiated(
    name: str, peer: str, call: str, x: np.ndarray, target: np.ndarray, loss: Loss, **options: Any
) -> dict[str, Any]:
    """The case ``fusedloss.<call>(x, target, **options) == loss(x)``, with the gradient of the sum of `loss`."""
    leaf = tensor(x).requires_grad_()
    value = loss(leaf)
    value.sum().backward()
    value, grad = value.detach().numpy(), leaf.grad.numpy()
    return case(name, peer, call, [x, target], value if value.ndim else value.item(), grad, **options)


def cross_entropy(name: str, x: np.ndarray, target: np.ndarray, ours: dict[str, Any], **options: Any) -> dict[str, Any]:
    """A case of F.cross_entropy with `options`, which fusedloss spells `ours`."""
    tensors = {key: tensor(value) if isinstance(value, np.ndarray) else value for key, value in options.items()}
    spelt = {key: "w" if isinstance(value, np.ndarray) else repr(value) for key, value in options.items()}
    peer = f"F.cross_entropy({', '.join(['x', 'y', *(f'{key}={value}' for key, value in spelt.items())])})"
    loss = partial(functional.cross_entropy, target=tensor(target), **tensors)
    return differentiated(name, peer, "cross_entropy", x, target, loss, **ours)


def hard_targets() -> Iterator[dict[str, Any]]:
    """Every combination of class weights, an ignored row, label smoothing and reduction."""
    ignoring = np.where(np.arange(ROWS) == 1, -100, TARGET)
    for reduction in REDUCTIONS:
        for weight in (None, WEIGHT):
            for target in (TARGET, ignoring):
                for smoothing in (0.0, 0.1):
                    ours = {"reduction": reduction, "label_smoothing": smoothing, "class_weight": weight}
                    name = f"hard-{reduction}-{'ignore' if target is ignoring else 'all'}"
                    name += f"-{'plain' if weight is None else 'weight'}-{smoothing}"
                    options = {"reduction": reduction, "label_smoothing": smoothing, "weight": weight}
                    yield cross_entropy(name, LOGITS, target, ours, **options)
    for index in (2, -1, 255):
        target = np.where(TARGET == 2, index, TARGET)
        yield cross_entropy(f"ignore-index-{index}", LOGITS, target, {"ignore_index": index}, ignore_index=index)
    yield cross_entropy("smoothing-1", LOGITS, TARGET, {"label_smoothing": 1.0}, label_smoothing=1.0)
    yield cross_entropy("uint8-target", LOGITS, TARGET.astype(np.uint8), {})
    yield cross_entropy("one-row", LOGITS[0], np.array(3), {})
    smooth = {"label_smoothing": 0.1}
    yield cross_entropy("one-class", LOGITS[:, :1], np.zeros(ROWS, np.int64), smooth, **smooth)
    yield cross_entropy("offset-1e6", LOGITS + 1e6, TARGET, {"reduction": "none"}, reduction="none")
    for reduction in REDUCTIONS:
        nothing = np.full(ROWS, -100)
        yield cross_entropy(f"all-ignored-{reduction}", LOGITS, nothing, {"reduction": reduction}, reduction=reduction)


def soft_targets() -> Iterator[dict[str, Any]]:
    """Probabilities as targets, and one-hot ones; torch divides their mean by the number of rows, as fusedloss does."""
    for reduction in REDUCTIONS:
        for name, soft in (("soft", SOFT), ("one-hot", np.eye(CLASSES)[TARGET]), ("unnormalised", 3 * FRACTIONS)):
            for weight in (None, WEIGHT):
                for smoothing in (0.0, 0.1):
                    full = f"{name}-{reduction}-{'plain' if weight is None else 'weight'}-{smoothing}"
                    ours = {"reduction": reduction, "label_smoothing": smoothing, "class_weight": weight}
                    options = {"reduction": reduction, "label_smoothing": smoothing, "weight": weight}
                    yield cross_entropy(full, LOGITS, soft, ours, **options)


def images() -> Iterator[dict[str, Any]]:
    """The class axis in the middle, where torch has it."""
    ignoring = np.where(PIXELS == 3, -100, PIXELS)
    soft = np.moveaxis(RNG.dirichlet(np.ones(CLASSES), (2, 3, 4)), -1, 1)
    for reduction in REDUCTIONS:
        ours = {"axis": 1, "reduction": reduction}
        options = {"label_smoothing": 0.2, "weight": WEIGHT, "reduction": reduction}
        spelt = {"label_smoothing": 0.2, "class_weight": WEIGHT}
        yield cross_entropy(f"image-{reduction}", IMAGES, PIXELS, ours, reduction=reduction)
        yield cross_entropy(f"image-ignore-{reduction}", IMAGES, ignoring, ours | spelt, **options)
        yield cross_entropy(f"sequence-{reduction}", IMAGES[..., 0], PIXELS[..., 0], ours, reduction=reduction)
        # torch's mean of soft targets counts rows: so does ours
        yield cross_entropy(f"image-soft-{reduction}", IMAGES, soft, ours | spelt, **options)


def infinities() -> Iterator[dict[str, Any]]:
    """Masked classes and rows that are not numbers: each row for itself."""
    x = np.tile(LOGITS[0], (6, 1))
    x[0, :4] = x[1, 0] = x[2] = -np.inf
    x[3, 2], x[4, 1] = np.nan, np.inf
    target = np.array([4, 0, 1, 0, 0, 2])
    yield cross_entropy("not-finite", x, target, {"reduction": "none"}, reduction="none")
    masked = np.where(np.arange(CLASSES) < 2, -np.inf, LOGITS)
    options = {"reduction": "none", "label_smoothing": 0.1}
    yield cross_entropy("smoothing-over-masked-class", masked, np.full(ROWS, 4), options, **options)


def extensions() -> Iterator[dict[str, Any]]:
    """What torch has no name for, composed of its functions."""
    y, weight, rows = tensor(TARGET), tensor(SAMPLE_WEIGHT), torch.arange(ROWS)

    def nll(z: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(z, y, reduction="none")

    def z_loss(z: torch.Tensor) -> torch.Tensor:
        return z.logsumexp(-1).square()

    def capped(v: torch.Tensor, cap: float) -> torch.Tensor:
        return cap * torch.tanh(v / cap)

    def everything(v: torch.Tensor) -> torch.Tensor:
        z = capped(0.7 * v, 4.0)
        rest = functional.cross_entropy(z, y, weight=tensor(WEIGHT), label_smoothing=0.1, reduction="none")
        return (weight * (rest + 0.01 * z_loss(z))).sum() / (weight * tensor(WEIGHT)[y]).sum()

    composed: list[tuple[str, Loss, dict[str, Any]]] = [
        ("(w * l).sum() / w.sum()", lambda v: (weight * nll(v)).sum() / weight.sum(), {"sample_weight": SAMPLE_WEIGHT}),
        ("l.sum() / 7.5", lambda v: nll(v).sum() / 7.5, {"denominator": 7.5}),
        ("l.sum() / N", lambda v: nll(v).sum() / ROWS, {"reduction": "batchmean"}),
        ("l + 0.01 * logsumexp(x)**2", lambda v: nll(v) + 0.01 * z_loss(v), {"z_loss": 0.01, "reduction": "none"}),
        ("l(0.3 * x)", lambda v: nll(0.3 * v), {"logit_scale": 0.3, "reduction": "none"}),
        ("l(5 * tanh(x / 5))", lambda v: nll(capped(v, 5.0)), {"softcap": 5.0, "reduction": "none"}),
        (
            "everything at once",
            everything,
            {
                "class_weight": WEIGHT, "sample_weight": SAMPLE_WEIGHT, "label_smoothing": 0.1, "z_loss": 0.01,
                "logit_scale": 0.7, "softcap": 4.0,
            },
        ),
        ("l, l = logsumexp(x) - x[y]", lambda v: v.logsumexp(-1) - v[rows, y], {"reduction": "none"}),
    ]  # fmt: skip
    for peer, loss, options in composed:
        yield differentiated(f"composed-{peer}", peer, "cross_entropy", LOGITS, TARGET, loss, **options)


def weightings() -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """For every reduction, with weights and without: a name, torch's spelling of it, torch's options and ours."""
    for reduction in REDUCTIONS:
        options = {"reduction": reduction}
        yield f"{reduction}-plain", f"reduction={reduction!r}", options, options
        weight = SAMPLE_WEIGHT[:, None] * np.ones(CLASSES)
        ours = options | {"sample_weight": weight}
        yield f"{reduction}-weight", f"weight=w, reduction={reduction!r}", options | {"weight": tensor(weight)}, ours


def by_count(options: dict[str, Any]) -> dict[str, Any]:
    """Our `options`, with a weighted mean divided by the number of elements, as torch's binary losses do."""
    return options | {"denominator": float(LOGITS.size)} if options["reduction"] == "mean" else options


def binary_from_logits() -> Iterator[dict[str, Any]]:
    """Binary cross-entropy from logits; batchmean is its multi-label use."""
    call, with_logits = "binary_cross_entropy", functional.binary_cross_entropy_with_logits
    per_label = np.array([0.5, 1.0, 2.0, 4.0, 0.0])
    for name, spelt, options, ours in weightings():
        peer = f"F.binary_cross_entropy_with_logits(x, y, {spelt}"
        for kind, target in (("soft", FRACTIONS), ("hard", LABELS)):
            loss = partial(with_logits, target=tensor(target), **options)
            yield differentiated(f"{call}-{kind}-{name}", f"{peer})", call, LOGITS, target, loss, **by_count(ours))
            loss = partial(loss, pos_weight=tensor(per_label))
            weighted = by_count(ours) | {"pos_weight": per_label}
            full = f"{call}-{kind}-pos-weight-{name}"
            yield differentiated(full, f"{peer}, pos_weight=q)", call, LOGITS, target, loss, **weighted)
    peer = "F.binary_cross_entropy_with_logits(x, y, reduction='sum') / len(x)"
    total = partial(with_logits, target=tensor(LABELS), reduction="sum")
    yield differentiated("multi-label", peer, call, LOGITS, LABELS, lambda v: total(v) / ROWS, reduction="batchmean")


def binary_from_probabilities() -> Iterator[dict[str, Any]]:
    """Binary cross-entropy of probabilities, 0 and 1 among them, where torch holds the logarithm at -100."""
    edges = np.where(LABELS == 1, [1.0, 0.0, 0.5, 1e-9, 1 - 1e-9], [0.25, 0.0, 1.0, 1e-9, 1 - 1e-9])
    inside, call = RNG.random((ROWS, CLASSES)), "binary_log_loss"
    for name, spelt, options, ours in weightings():
        peer = f"F.binary_cross_entropy(p, y, {spelt})"
        loss = partial(functional.binary_cross_entropy, target=tensor(FRACTIONS), **options)
        yield differentiated(f"{call}-{name}", peer, call, inside, FRACTIONS, loss, **by_count(ours))
        loss = partial(functional.binary_cross_entropy, target=tensor(LABELS), **options)
        entry = differentiated(f"{call}-edges-{name}", peer, call, edges, LABELS, loss, **by_count(ours))
        del entry["grad"]  # at 0 and 1 torch divides by 1e-12 in float32, whatever its dtype
        yield entry


def squares() -> Iterator[dict[str, Any]]:
    """The squared error, whose weighted mean torch too divides by the sum of the weights."""
    for name, spelt, options, ours in weightings():
        loss = partial(functional.mse_loss, target=tensor(FRACTIONS), **options)
        yield differentiated(f"mse-{name}", f"F.mse_loss(x, y, {spelt})", "mse", LOGITS, FRACTIONS, loss, **ours)


def divergences() -> Iterator[dict[str, Any]]:
    """Kullback-Leibler divergence, and the log loss of probabilities."""
    target = SOFT.copy()
    target[0] = np.eye(CLASSES)[2]
    y, hard, weight = tensor(target), tensor(TARGET), tensor(WEIGHT)

    def rows(v: torch.Tensor) -> torch.Tensor:
        return functional.kl_div(v.log_softmax(-1), y, reduction="none").sum(-1)

    reductions: list[tuple[str, str, Loss]] = [
        ("none", "F.kl_div(log_softmax(x, -1), y, reduction='none').sum(-1)", rows),
        ("mean", "F.kl_div(log_softmax(x, -1), y, reduction='none').sum(-1).mean()", lambda v: rows(v).mean()),
        *(
            (reduction, f"F.kl_div(log_softmax(x, -1), y, reduction={reduction!r})",
             lambda v, reduction=reduction: functional.kl_div(v.log_softmax(-1), y, reduction=reduction))
            for reduction in ("sum", "batchmean")
        ),
    ]  # fmt: skip
    for reduction, peer, loss in reductions:
        yield differentiated(f"kl-{reduction}", peer, "kl_divergence", LOGITS, target, loss, reduction=reduction)
    for reduction in REDUCTIONS:
        nll = partial(functional.nll_loss, target=hard, weight=weight, reduction=reduction)
        peer = f"F.nll_loss(log(p), y, weight=w, reduction={reduction!r})"
        options = {"class_weight": WEIGHT, "reduction": reduction}
        yield differentiated(f"nll-{reduction}", peer, "log_loss", SOFT, TARGET, lambda v, f=nll: f(v.log()), **options)


def activations() -> Iterator[dict[str, Any]]:
    """The activations, on the last axis and in the middle."""
    for name in ("softmax", "log_softmax", "logsumexp"):
        for axis, x in ((-1, LOGITS), (0, LOGITS), (1, IMAGES)):
            value = getattr(torch, name)(tensor(x), axis).numpy()
            yield case(f"{name}-{axis}-{x.ndim}d", f"torch.{name}(x, {axis})", name, [x], value, axis=axis)
    x = np.append(LOGITS[0], [0.0, -0.0, 800.0, -800.0, np.inf, -np.inf])
    yield case("sigmoid", "torch.sigmoid(x)", "sigmoid", [x], torch.sigmoid(tensor(x)).numpy())


def main() -> None:
    """Write the table."""
    groups = (
        hard_targets, soft_targets, images, infinities, extensions, binary_from_logits, binary_from_probabilities,
        squares, divergences, activations,
    )  # fmt: skip
    write("torch", ["torch"], [entry for group in groups for entry in group()])


if __name__ == "__main__":
    main()
