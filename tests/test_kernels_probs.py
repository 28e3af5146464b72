"""The row kernels of and to probabilities, on every backend: KL divergence, log loss, softmax and its logarithm."""

from itertools import product

import numpy as np
import pytest
import scipy.special
from kernel_cases import (
    DTYPES,
    WIDE,
    assert_close,
    bits,
    column_of,
    in_rows,
    offence,
    result_dtype,
    row_loss,
)  # fmt: skip

INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("dtype", "scale"), [*((dtype, 1.0) for dtype in DTYPES), *((dtype, 0.3) for dtype in WIDE)], ids=str
)
def test_kl_divergence_is_that_of_float64(kernels, rng, dtype, scale):
    x = (2 * rng.standard_normal((9, 31, 4))).astype(dtype)
    target = scipy.special.softmax(rng.standard_normal((9, 31, 4)), axis=1).astype(dtype)
    target[:, :3], x[:, 1] = 0, -INF
    weight = (rng.random(36) + 0.5).astype(result_dtype(x))
    loss, grad = row_loss(kernels, "kl_divergence", x, target, sample_weight=weight, logit_scale=scale, grad_scale=0.5)
    z, y = in_rows(x) * scale, in_rows(target)
    p, w = scipy.special.softmax(z, axis=1), weight.astype(np.float64)
    log_p = np.where(y > 0, scipy.special.log_softmax(z, axis=1), 0)
    assert_close(loss, w * (scipy.special.xlogy(y, y) - y * log_p).sum(1), 4, scale=2.0)
    want = (0.5 * scale * w[:, None] * (p * y.sum(1, keepdims=True) - y)).reshape(9, 4, 31)
    assert_close(grad, np.moveaxis(want, 2, 1), 4, scale=0.1)


def test_kl_divergence_edges(kernels):
    x = column_of([[0, -INF], [0, -INF], [-INF, -INF], [2, 2]])
    target = column_of([[1, 0], [0.5, 0.5], [0, 0], [0.5, 0.5]])
    loss, _ = row_loss(kernels, "kl_divergence", x, target)
    np.testing.assert_array_equal(loss, [0, INF, NAN, 0])


def plain_log_loss(p, y, w, eps=0.0, log_eps=0.0, normalize=False):
    """The formula of the specification on float64 rows, and the gradient it states."""
    total = p.sum(1, keepdims=True)
    q = p / total if normalize else p
    clipped = np.clip(q, eps, 1 - eps) if eps else q
    with np.errstate(divide="ignore"):
        loss = -(w * y * np.maximum(np.log(clipped + log_eps), -100)).sum(1)
    inside = (q >= eps) & (q <= 1 - eps) if eps else np.ones_like(q, bool)
    gradient = np.where(inside, -w * y / np.maximum(q + log_eps, 1e-12), 0)
    return loss, (gradient - (gradient * q).sum(1, keepdims=True)) / total if normalize else gradient


@pytest.mark.parametrize(
    ("dtype", "smoothing"), [*((dtype, 0.0) for dtype in DTYPES), *((dtype, 0.1) for dtype in WIDE)], ids=str
)
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize(
    "options",
    [{}, {"eps": 0.03125}, {"log_eps": 0.01}, {"normalize": True}, {"normalize": True, "eps": 0.0625}],
    ids=str,
)
def test_log_loss_is_its_formula(kernels, rng, dtype, soft, smoothing, options):
    p = scipy.special.softmax(rng.standard_normal((8, 11, 3)), axis=1).astype(dtype)
    if options.get("normalize"):
        p *= np.asarray(3, dtype)
    index = rng.integers(0, 11, 24)
    target = rng.random((8, 11, 3)).astype(dtype) if soft else index
    y = in_rows(target) if soft else np.eye(11)[index]
    w = rng.random(11).astype(result_dtype(p))
    loss, grad = row_loss(kernels, "log_loss", p, target, class_weight=w, label_smoothing=smoothing, **options)
    y = (1 - smoothing) * y + smoothing / 11
    want, want_grad = plain_log_loss(in_rows(p), y, w.astype(np.float64), **options)
    assert_close(loss, want, 6)
    assert_close(grad, np.moveaxis(want_grad.reshape(8, 3, 11), 2, 1), 6, scale=1.0)


def test_log_loss_edges(kernels):
    p = column_of([[0, 1], [0, 1], [NAN, 0.5], [NAN, 0.5]], np.float64)
    loss, grad = row_loss(kernels, "log_loss", p, np.array([0, 1, 0, 1]))
    assert bits(loss[:2]) == bits(np.array([100.0, 0.0]))
    assert_close(loss[2:], [NAN, np.log(2)])
    np.testing.assert_array_equal(grad[:, :, 0], [[-1e12, 0], [0, -1], [NAN, 0], [0, -2]])
    loss, _ = row_loss(kernels, "log_loss", p[:1], np.array([0]), eps=1e-7, log_eps=1e-7)
    assert_close(loss, [-np.log(2e-7)])
    _, grad = row_loss(kernels, "log_loss", p[:1], np.array([0]), eps=1e-7)
    assert (grad == 0).all()
    assert np.isnan(row_loss(kernels, "log_loss", p[2:], np.array([0, 1]), normalize=True)[0]).all()


def test_the_first_value_that_is_no_probability_is_the_offence(kernels):
    p = np.full((3, 4, 5), 0.25, np.float32)
    target = np.zeros(15, int)
    assert offence(kernels, "log_loss", p, target) == -1
    p[2, 1, 0], p[1, 3, 1], p[1, 2, 4] = -0.1, INF, 1.5
    assert offence(kernels, "log_loss", p, target) == (1 * 4 + 2) * 5 + 4
    assert offence(kernels, "log_loss", p, target, hi=9) == (1 * 4 + 3) * 5 + 1
    assert offence(kernels, "log_loss", p, target, lo=10) == (2 * 4 + 1) * 5
    assert offence(kernels, "log_loss", p, target, normalize=True) == (1 * 4 + 3) * 5 + 1
    p[1, 3, 1] = 9.0
    assert offence(kernels, "log_loss", p, target, normalize=True) == (2 * 4 + 1) * 5
    weight = np.ones(15, np.float32)
    weight[10] = 0
    assert offence(kernels, "log_loss", p, target, normalize=True, sample_weight=weight) == -1
    wide = np.full((1, 9_000, 40), 1e-4, np.float32)
    wide[0, 8_000, 0], wide[0, 3, 39] = 2, 2
    assert offence(kernels, "log_loss", wide, np.zeros(40, int)) == 3 * 40 + 39


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [*product(DTYPES, [(50, 33, 1)]), *product(WIDE, [(4, 33, 6), (1, 9_001, 2)])],
    ids=str,
)
def test_activations_are_those_of_scipy(kernels, rng, dtype, shape):
    x = (5 * rng.standard_normal(shape)).astype(dtype)
    x[0, :7] = -INF
    rows, wide = shape[0] * shape[2], x.astype(np.float64)
    for name in ("softmax", "log_softmax"):
        out = np.full(shape, 7, dtype)
        assert getattr(kernels, name)(x, out)(0, rows) == -1
        assert_close(out, getattr(scipy.special, name)(wide, axis=1), 4, scale=0.01 if name == "softmax" else 1.0)
    out = np.full(rows, 7, result_dtype(x))
    assert kernels.logsumexp(x, out)(0, rows) == -1
    assert_close(out, scipy.special.logsumexp(wide, axis=1).reshape(rows), 2)


def test_activations_of_infinite_rows(kernels):
    x = column_of([[-INF, -INF], [0, INF], [NAN, INF], [NAN, 0], [INF, INF], [-INF, 0]])
    lse = np.zeros(6, np.float32)
    kernels.logsumexp(x, lse)(0, 6)
    np.testing.assert_array_equal(lse, [-INF, INF, NAN, NAN, INF, 0])
    for name, last in (("softmax", [0, 1]), ("log_softmax", [-INF, 0])):
        out = np.zeros_like(x)
        getattr(kernels, name)(x, out)(0, 6)
        assert np.isnan(out[:5]).all()
        np.testing.assert_array_equal(out[5, :, 0], last)
