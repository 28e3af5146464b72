"""fusedloss beside the libraries it stands in for, on the same float32 numbers: no less exact than they are.

Truth is the same float32 inputs computed in float64. An error may exceed PyTorch's own float32 error on the same
element by 4 ulp and no more, in losses and in gradients.
"""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import scipy.special
import sklearn.metrics
import torch
from mpmath import mp, mpf
from torch.nn import functional

import fusedloss as fl

BACKENDS = ["numpy", "cpu"]  # of arrays in host memory

ULPS = 4
TINY = 4 * float(np.finfo(np.float32).tiny)  # a subnormal may become 0, and a weight may multiply it
CLASSES = (1, 2, 3, 10, 17, 128, 1000, 32000)
KINDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "normal": lambda z: z,
    "flat": lambda z: 0.01 * z,
    "wide": lambda z: 30 * z,
    "offset 1e4": lambda z: 3 * z + 1e4,
    "offset 1e6": lambda z: 3 * z + 1e6,
    "offset -1e6": lambda z: 3 * z - 1e6,
    # a language model: most of the mass on one token, the rest in a heavy tail
    "confident": lambda z: 2 * z + 20 * (np.arange(z.shape[1]) == z.shape[1] // 2),
    "leading block masked": lambda z: np.where(np.arange(z.shape[1]) < z.shape[1] // 2, -np.inf, 3 * z),
    "inner blocks masked": lambda z: np.where(np.arange(z.shape[1]) // 5 % 2 == 1, -np.inf, 3 * z),
}
Loss = Callable[..., Any]


def logits_of(kind: str, classes: int, rng: np.random.Generator) -> np.ndarray:
    """A few rows of float32 logits."""
    rows = min(64, max(4, 2**16 // classes))
    return KINDS[kind](rng.standard_normal((rows, classes))).astype(np.float32)


def hard_target(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Classes that are not masked, the middle one in every fourth row."""
    target = np.where(np.isfinite(x), rng.random(x.shape), -1).argmax(-1)
    middle = x.shape[1] // 2
    return np.where((np.arange(len(x)) % 4 == 0) & np.isfinite(x[:, middle]), middle, target)


def soft_target(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Probabilities, 0 for masked classes."""
    weights = np.where(np.isfinite(x), rng.exponential(size=x.shape), 0)
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def cross_entropy(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None, smoothing: float = 0.0
) -> torch.Tensor:
    """Torch's, with its 0 · -inf = NaN of soft targets circumvented."""
    x, y = (x.clamp(min=-1e30), y.to(x)) if y.is_floating_point() else (x, y)
    weight = None if weight is None else weight.to(x)
    return functional.cross_entropy(x, y, weight, reduction="none", label_smoothing=smoothing)


def kl_divergence(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Torch's, summed over a row; 0 · -inf as above."""
    return functional.kl_div(x.clamp(min=-1e30).log_softmax(-1), y.to(x), reduction="none").sum(-1)


def binary_cross_entropy(x: torch.Tensor, y: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Torch's, from logits, with a weight for the positives of every label."""
    return functional.binary_cross_entropy_with_logits(x, y.to(x), pos_weight=q.to(x), reduction="none")


def log_sigmoids(x: torch.Tensor, y: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """The same, by a gradient that does not cancel."""
    return -q.to(x) * y.to(x) * functional.logsigmoid(x) - (1 - y.to(x)) * functional.logsigmoid(-x)


def squared_error(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Torch's."""
    return functional.mse_loss(x, y.to(x), reduction="none")


def differentiated(x: np.ndarray, loss: Loss, *args: Any, dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Torch's loss and gradient, computed in `dtype`."""
    leaf = torch.from_numpy(x).to(dtype).requires_grad_()
    value = loss(leaf, *(torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in args))
    value.sum().backward()
    return value.detach().double().numpy(), leaf.grad.double().numpy()


def coefficients(y: np.ndarray, classes: int, weight: np.ndarray | None = None, smoothing: float = 0.0) -> np.ndarray:
    """What multiplies -log p in a row's loss, and is subtracted from p in its gradient."""
    soft = y if y.ndim == 2 else (y[:, None] == np.arange(classes)).astype(np.float32)
    return (1 if weight is None else weight) * ((1 - smoothing) * soft + smoothing / classes)


def spacing(x: np.ndarray, dtype: Any) -> np.ndarray:
    """An ulp of every element of `x`, in `dtype`."""
    return np.spacing(np.abs(x).astype(dtype)).astype(np.float64)


def assert_no_worse(ours: np.ndarray, theirs: np.ndarray, truth: np.ndarray, unit: Any = 0.0) -> None:
    """Error within that of `theirs`, and ULPS ulp of the truth or of `unit`, element by element.

    `unit` is what the truth is a difference of, where that is more. A result of 16 bits may be half an ulp further off.
    """
    finite, unit = np.isfinite(truth), np.broadcast_to(unit, truth.shape)
    np.testing.assert_array_equal(ours[~finite].astype(np.float64), truth[~finite])
    ours, theirs, truth, unit = ours[finite], theirs[finite], truth[finite], unit[finite]
    due = TINY + (spacing(truth, ours.dtype) / 2 if ours.dtype.itemsize == 2 else 0)
    excess = np.abs(ours.astype(np.float64) - truth) - np.abs(theirs - truth) - due
    assert (excess / spacing(np.maximum(np.abs(truth), unit), np.float32)).max(initial=0) <= ULPS


def compare(
    ours: Loss,
    theirs: Loss,
    x: np.ndarray,
    y: np.ndarray,
    *args: Any,
    units: tuple[Any, Any],
    exact: Loss | None = None,
    **options: Any,
) -> None:
    """Both libraries on the same numbers; torch never meets 16 bits, in which it would round intermediate results."""
    value, grad = fl.value_and_grad(ours)(x, y, reduction="none", **options)
    assert (value.dtype, grad.dtype) == (np.float32, x.dtype)
    x = x.astype(np.float32)
    true_value, true_grad = differentiated(x, exact or theirs, y, *args, dtype=torch.float64)
    value_32, grad_32 = differentiated(x, theirs, y, *args, dtype=torch.float32)
    assert_no_worse(value, value_32, true_value, units[0])
    assert_no_worse(grad, grad_32, true_grad, units[1])


def gradient_unit(x: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Of p Σc - c: c, and p |log p| Σc, for exp(z) has the relative error of z, which is half an ulp of |z|."""
    p = scipy.special.softmax(x.astype(np.float64), axis=-1)
    return np.maximum(c, scipy.special.entr(p) * c.sum(-1, keepdims=True))


def compare_cross_entropy(
    x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None, smoothing: float = 0.0, *, device: str
) -> None:
    """A loss is Σ c (log d - (x - m)) with d ≥ 1, a gradient p Σc - c."""
    c = coefficients(y, x.shape[1], weight, smoothing)
    options = {"class_weight": weight, "label_smoothing": smoothing, "device": device}
    compare(fl.cross_entropy, cross_entropy, x, y, weight, smoothing, units=(c.sum(-1), gradient_unit(x, c)), **options)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("kind", KINDS)
class TestNoWorseThanTorch:
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_hard(self, backend, rng, kind, classes, weighted, smoothing):
        x = logits_of(kind, classes, rng)
        weight = rng.random(classes).astype(np.float32) if weighted else None
        compare_cross_entropy(x, hard_target(x, rng), weight, smoothing, device=backend)

    @pytest.mark.parametrize("weighted", [False, True])
    def test_soft(self, backend, rng, kind, classes, weighted):
        x = logits_of(kind, classes, rng)
        weight = rng.random(classes).astype(np.float32) if weighted else None
        compare_cross_entropy(x, soft_target(x, rng), weight, device=backend)

    @pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
    def test_16_bits(self, backend, rng, kind, classes, dtype):
        x = logits_of(kind, classes, rng)
        x = np.where(np.isfinite(x), x.clip(-6e4, 6e4), x).astype(dtype)
        compare_cross_entropy(x, hard_target(x.astype(np.float32), rng), device=backend)

    def test_kl_divergence(self, backend, rng, kind, classes):
        x = logits_of(kind, classes, rng)
        y = soft_target(x, rng)
        units = scipy.special.entr(y).sum(-1) + y.sum(-1), gradient_unit(x, y)
        compare(fl.kl_divergence, kl_divergence, x, y, units=units, device=backend)


@pytest.mark.parametrize("classes", [1, 3, 17, 5000])
@pytest.mark.parametrize("kind", ["normal", "flat", "wide", "offset 1e4", "offset -1e6", "confident"])
class TestNoWorseThanTorchByElement:
    @pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
    def test_binary_cross_entropy(self, backend, rng, kind, classes, dtype):
        x = logits_of(kind, classes, rng).clip(-6e4, 6e4).astype(dtype)
        y, q = rng.random(x.shape).astype(np.float32), (3 * rng.random(classes)).astype(np.float32)
        for target in (y, y.round()):
            z = x.astype(np.float64)
            terms = (1 - target) * scipy.special.expit(z), q * target * scipy.special.expit(-z)
            options = {"units": (0.0, np.maximum(*terms)), "exact": log_sigmoids, "pos_weight": q, "device": backend}
            compare(fl.binary_cross_entropy, binary_cross_entropy, x, target, q, **options)

    def test_mse(self, backend, rng, kind, classes):
        x = logits_of(kind, classes, rng)
        compare(fl.mse, squared_error, x, logits_of(kind, classes, rng), units=(0.0, 0.0), device=backend)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("kind", KINDS)
class TestNoWorseThanScipy:
    @pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
    def test_activations(self, backend, rng, kind, classes, name):
        x, theirs = logits_of(kind, classes, rng), getattr(scipy.special, name)
        ours = getattr(fl, name)(x, axis=-1, device=backend)
        truth, largest = theirs(x.astype(np.float64), axis=-1), np.abs(x.max(-1))
        # (x - m) - log d, and m + log d
        unit = scipy.special.entr(truth) if name == "softmax" else 1.0 if name == "log_softmax" else largest.clip(1)
        assert_no_worse(ours, theirs(x, axis=-1).astype(np.float64), truth, unit)

    def test_sigmoid(self, backend, rng, kind, classes):
        x = logits_of(kind, classes, rng)
        truth = scipy.special.expit(x.astype(np.float64))
        assert_no_worse(fl.sigmoid(x, device=backend), scipy.special.expit(x).astype(np.float64), truth)


class TestScikitLearn:
    def test_log_loss(self, backend, rng):
        p, y, weight = rng.dirichlet(np.ones(7), 500), rng.integers(0, 7, 500), rng.random(500)
        want = sklearn.metrics.log_loss(y, p, sample_weight=weight)
        eps = float(np.finfo(p.dtype).eps)
        np.testing.assert_allclose(fl.log_loss(p, y, sample_weight=weight, eps=eps, device=backend), want, rtol=1e-13)

    def test_evaluate(self, backend, rng):
        x, y = 3 * rng.standard_normal((500, 7)), np.arange(500) % 7
        probs, result = scipy.special.softmax(x, axis=-1), fl.evaluate(x, y, top_k=(1, 3), device=backend)
        np.testing.assert_allclose(result.nll, sklearn.metrics.log_loss(y, probs), rtol=1e-13)
        assert result.accuracy == sklearn.metrics.accuracy_score(y, x.argmax(-1))
        assert result.top_k[3] == sklearn.metrics.top_k_accuracy_score(y, x, k=3)

    def test_evaluate_binary(self, backend, rng):
        x, y = rng.standard_normal((300, 4)), rng.integers(0, 2, (300, 4))
        result, positive = fl.evaluate_binary(x, y, device=backend), (x > 0).ravel()
        metrics = sklearn.metrics.precision_recall_fscore_support
        precision, recall, f1, _ = metrics(y.ravel(), positive, average="binary")
        np.testing.assert_allclose([result.precision, result.recall, result.f1], [precision, recall, f1], rtol=1e-15)
        want = sklearn.metrics.log_loss(y.ravel(), scipy.special.expit(x).ravel())
        np.testing.assert_allclose(result.nll, want, rtol=1e-13)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0, 100.0])
def test_50_digits(backend, rng, scale):
    x, y = scale * rng.standard_normal((20, 13)) + 1e3, rng.integers(0, 13, 20)
    with mp.workdps(50):
        want = [mp.log(mp.fsum(mp.exp(mpf(v)) for v in row)) - mpf(row[t]) for row, t in zip(x, y, strict=True)]
    ours = fl.cross_entropy(x, y, reduction="none", device=backend)
    np.testing.assert_allclose(ours, np.array(want, np.float64), rtol=1e-15, atol=1e-15)
