"""The contract of the elementwise kernels, on every backend."""

from itertools import product

import numpy as np
import pytest
import scipy.special
import torch
from fusedloss.kernels import SEGMENT
from kernel_cases import (
    DTYPES,
    LOSS_OPTIONS,
    NARROW,
    WIDE,
    assert_close,
    bits,
    element_loss,
    is_simulated,
    result_dtype,
    row_loss,
    spans,
)  # fmt: skip

INF, NAN = np.inf, np.nan
SHAPES = [(40, 7), (3, SEGMENT), (2, 3 * SEGMENT + 5), (1, 20 * SEGMENT), (20_000, 1)]


def shape_for(kernels, shape):
    """A shape of the same kind, but small where plain Python runs the kernels."""
    return (min(shape[0], 70), min(shape[1], SEGMENT + 5)) if is_simulated(kernels) else shape


def wide(array):
    return torch.tensor(np.asarray(array).astype(np.float64))


def check(kernels, name, x, target, formula, *, ulps=4, scale=1.0, **options):
    """Loss, sums of segments and gradient against a formula of float64 tensors and autograd."""
    loss, sums, grad = element_loss(kernels, name, x, target, **options)
    inputs = wide(x).requires_grad_()
    want = formula(inputs, wide(target))
    if options.get("sample_weight") is not None:
        want = want * wide(options["sample_weight"])
    (gradient,) = torch.autograd.grad(want.sum() * options.get("grad_scale", 1.0), inputs)
    assert_close(loss, want.detach().numpy(), ulps, scale=scale)
    assert_close(grad, gradient.numpy(), ulps, scale=scale)
    segments = [row[k : k + SEGMENT].astype(np.float64).sum() for row in loss for k in range(0, len(row), SEGMENT)]
    assert_close(sums, segments, 8, scale=scale)


@pytest.mark.parametrize(("dtype", "shape"), [*product(WIDE, SHAPES), *product(NARROW, SHAPES[:2])], ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary_cross_entropy_is_that_of_float64(kernels, rng, dtype, shape, smoothing):
    shape = shape_for(kernels, shape)
    x = (6 * rng.standard_normal(shape)).astype(dtype)
    target = rng.random(shape).astype(np.float32)
    q = np.broadcast_to((2 * rng.random(shape[1])).astype(result_dtype(x)), shape)
    w = np.broadcast_to(rng.random((shape[0], 1)).astype(result_dtype(x)) + np.float32(0.5), shape)

    def formula(x, y):
        positive, negative = (each * (1 - smoothing) + smoothing / 2 for each in (y, 1 - y))
        zero = torch.zeros_like(x)
        return negative * torch.logaddexp(zero, x) + wide(q) * positive * torch.logaddexp(zero, -x)

    options = {"pos_weight": q, "sample_weight": w, "label_smoothing": smoothing, "grad_scale": 0.5}
    check(kernels, "binary_cross_entropy", x, target, formula, **options)


@pytest.mark.parametrize("target_dtype", [bool, np.uint8, np.int64, *DTYPES], ids=str)
def test_binary_targets_of_any_kind(kernels, rng, target_dtype):
    x = rng.standard_normal((30, 11)).astype(np.float32)
    target = (rng.random((30, 11)) < 0.5).astype(target_dtype)
    loss, grad = np.empty_like(x), np.empty_like(x)
    options = LOSS_OPTIONS["binary_cross_entropy"] | {"pos_weight": np.broadcast_to(np.float32(2.5), x.shape)}
    assert kernels.binary_cross_entropy(x, target, loss, None, grad, **options)(0, 30) == -1
    inputs, pos_weight = wide(x).requires_grad_(), torch.tensor(2.5, dtype=torch.float64)
    want = torch.nn.functional.binary_cross_entropy_with_logits(
        inputs, wide(target), pos_weight=pos_weight, reduction="none"
    )
    (gradient,) = torch.autograd.grad(want.sum(), inputs)
    assert_close(loss, want.detach().numpy(), 4, scale=1.0)
    assert_close(grad, gradient.numpy(), 4, scale=1.0)


@pytest.mark.parametrize("dtype", WIDE, ids=str)
def test_binary_cross_entropy_is_exact_far_out(kernels, dtype):
    x = np.array([[30, -30, 60, -60, 1e4, -1e4, 88, -88]], dtype)
    for y in (0, 1):
        loss, _, grad = element_loss(kernels, "binary_cross_entropy", x, np.full_like(x, y))
        towards = x if y == 0 else -x
        assert_close(loss, np.logaddexp(0, towards.astype(np.float64)), 3)
        assert_close(grad, (1 - 2 * y) * scipy.special.expit(towards.astype(np.float64)), 3)


def test_binary_cross_entropy_at_infinity_is_its_limit(kernels):
    x = np.array([[INF, -INF, INF, -INF, NAN, INF, 0]], np.float32)
    y = np.array([[1, 0, 0, 1, 1, 0.5, 1]], np.float32)
    loss, sums, grad = element_loss(kernels, "binary_cross_entropy", x, y)
    np.testing.assert_array_equal(loss[0, :6], [0, 0, INF, INF, NAN, INF])
    np.testing.assert_array_equal(grad[0], [0, 0, 1, -1, NAN, 0.5, -0.5])
    assert np.isnan(sums).all()
    loss, _, grad = element_loss(kernels, "binary_cross_entropy", x[:, :2], y[:, :2], label_smoothing=0.5)
    np.testing.assert_array_equal(loss, [[INF, INF]])
    np.testing.assert_array_equal(grad, [[0.25, -0.25]])
    loss, _, grad = element_loss(
        kernels, "binary_cross_entropy", x, y, pos_weight=np.zeros_like(x), sample_weight=np.ones_like(x)
    )
    np.testing.assert_array_equal(loss[0, :6], [0, 0, INF, 0, NAN, INF])
    np.testing.assert_array_equal(grad[0], [0, 0, 1, 0, NAN, 0.5, 0])


@pytest.mark.parametrize("name", ["binary_cross_entropy", "binary_log_loss", "mse"])
def test_masked_elements_are_exactly_zero(kernels, rng, name):
    x, target = rng.random((50, 9)).astype(np.float32), rng.integers(0, 2, (50, 9)).astype(np.float32)
    weight = np.ones((50, 9), np.float32)
    weight[3, 4], weight[7], weight[:, 0] = 0, 0, 0
    x[3, 4], x[7], x[:, 0] = NAN, INF, -3
    loss, sums, grad = element_loss(kernels, name, x, target, sample_weight=weight)
    assert (loss[weight == 0] == 0).all()
    assert (grad[weight == 0] == 0).all()
    assert (loss[weight == 1] > 0).all()
    assert_close(sums, loss.sum(1, dtype=np.float64), 8)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*product(["mse"], DTYPES), *product(["binary_cross_entropy", "binary_log_loss"], WIDE[:1])],
    ids=str,
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pieces_strides_and_in_place_change_no_bit(kernels, rng, dtype, shape, name):
    shape = shape_for(kernels, shape)
    x, target = rng.random(shape).astype(dtype), rng.random(shape).astype(dtype)
    loss, sums, grad = element_loss(kernels, name, x, target)
    for pieces in (3, 7):
        again = element_loss(kernels, name, x, target, pieces=pieces)
        assert [bits(each) for each in again] == [bits(loss), bits(sums), bits(grad)]
    strided = np.zeros((shape[1], 2 * shape[0]), dtype)[:, ::2].T[::-1]
    strided[...] = x
    loss_, sums_, grad_ = element_loss(kernels, name, strided, target, grad=strided)
    assert grad_ is strided
    assert_close(loss_, loss.astype(np.float64), 2, scale=0.1)
    assert_close(sums_, sums, 4, dtype=result_dtype(x))
    assert_close(grad_, grad.astype(np.float64), 2, scale=0.1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("log_eps", [0.0, 0.01])
def test_binary_log_loss_is_its_formula(kernels, rng, dtype, smoothing, log_eps):
    p = (0.01 + 0.98 * rng.random((30, 50))).astype(dtype)
    target = rng.random((30, 50)).astype(np.float32)

    def formula(p, y):
        y = y * (1 - smoothing) + smoothing / 2
        return -(y * torch.log(p + log_eps) + (1 - y) * torch.log(1 - p + log_eps))

    check(kernels, "binary_log_loss", p, target, formula, scale=4.0, label_smoothing=smoothing, log_eps=log_eps)
    inside = (p >= dtype.type(0.25)) & (p <= dtype.type(0.75))
    options = {"label_smoothing": smoothing, "log_eps": log_eps}
    _, _, whole = element_loss(kernels, "binary_log_loss", p, target, **options)
    loss, _, grad = element_loss(kernels, "binary_log_loss", p, target, eps=0.25, **options)
    want = formula(wide(p).clip(0.25, 0.75), wide(target)).numpy()
    assert_close(loss, want, scale=1.0)
    assert bits(grad) == bits(np.where(inside, whole, np.zeros_like(whole)))


def test_binary_log_loss_table_and_edges(kernels):
    p, y = np.array([[0, 0, 1.0]]), np.array([[1, 0, 1.0]])
    loss, _, _ = element_loss(kernels, "binary_log_loss", p, y, eps=1e-7, log_eps=1e-7)
    assert loss.mean() == pytest.approx(5.14164949, abs=5e-9)
    p, y = np.array([[1, 1, 0]], np.float32), np.ones((1, 3), np.float32)
    loss, _, _ = element_loss(kernels, "binary_log_loss", p, y, eps=1e-7, log_eps=1e-7)
    assert_close(loss.mean(), 5.1416497230529785, 1)
    loss, _, grad = element_loss(kernels, "binary_log_loss", p, y, eps=1e-7)
    assert_close(loss.mean(), 16.118096 / 3, 2)
    assert (grad == 0).all()
    p, y = np.array([[0, 1, 0, 1, NAN]]), np.array([[1, 0, 0, 1, 1.0]])
    loss, _, grad = element_loss(kernels, "binary_log_loss", p, y)
    np.testing.assert_array_equal(loss, [[100, 100, 0, 0, NAN]])
    np.testing.assert_array_equal(grad, [[-1e12, 1e12, 0, 0, NAN]])
    tiny = np.array([[1e-30, 1e-9]], np.float32)
    loss, _, _ = element_loss(kernels, "binary_log_loss", tiny, np.zeros_like(tiny))
    assert_close(loss, tiny.astype(np.float64), 2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_probabilities_are_clipped_as_the_arithmetic_has_them(kernels, dtype):
    p, y = np.array([[1, 0, 1, 0]], dtype), np.array([[0, 1, 1, 0]], np.float32)
    loss, _, grad = element_loss(kernels, "binary_log_loss", p, y, eps=1e-7)
    real = result_dtype(p).type
    high = real(1) - real(1e-7)  # in float32 it is 1 - 1.19e-7, as it is to Keras
    surely_wrong, right = -np.log1p(-float(high)), -np.log(float(high))
    assert_close(loss, [[surely_wrong, -np.log(1e-7), right, -np.log1p(-1e-7)]], 2)
    assert (grad == 0).all()
    loss, _ = row_loss(kernels, "log_loss", p.reshape(1, 4, 1), np.eye(4)[2].astype(dtype).reshape(1, 4, 1), eps=1e-7)
    assert_close(loss, [right], 2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_surely_right_loses_a_positive_zero(kernels, dtype):
    p, y = np.array([[0, 1]], dtype), np.array([[0, 1]], np.float32)
    for loss in (
        element_loss(kernels, "binary_log_loss", p, y)[0],
        element_loss(kernels, "mse", p, p)[0],
        row_loss(kernels, "log_loss", p.reshape(1, 2, 1), np.array([1]))[0],
    ):
        assert (loss == 0).all()
        assert not np.signbit(loss).any()


def test_the_first_value_that_is_no_probability_is_the_offence(kernels):
    p, target = np.full((5, 2 * SEGMENT + 9), 0.5, np.float32), np.zeros((5, 2 * SEGMENT + 9), bool)
    cols = p.shape[1]
    p[1, SEGMENT + 7], p[1, SEGMENT + 3], p[4, 2] = 1.5, -INF, -1e-9

    def run(lo, hi, **options):
        options = LOSS_OPTIONS["binary_log_loss"] | options
        return kernels.binary_log_loss(p, target, np.zeros_like(p), None, None, **options)(lo, hi)

    assert run(0, 15) == cols + SEGMENT + 3
    assert run(0, 4) == -1
    assert run(4, 5) == cols + SEGMENT + 3
    assert run(5, 15) == 4 * cols + 2
    weight = np.broadcast_to(np.array([[1], [0], [1], [1], [1]], np.float32), p.shape)
    assert run(0, 15, sample_weight=weight) == 4 * cols + 2
    p = np.full((100, 3), 0.5, np.float32)
    target = np.zeros((100, 3), bool)
    p[70, 1] = NAN
    p[80, 2] = 2
    assert run(0, 100) == 242


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_mse_is_that_of_float64(kernels, rng, dtype, shape):
    shape = shape_for(kernels, shape)
    x, target = rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype)
    w = rng.random(shape).astype(result_dtype(x))
    check(kernels, "mse", x, target, lambda x, y: (x - y) ** 2, sample_weight=w, grad_scale=2.0)
    if dtype in WIDE:
        check(kernels, "mse", x, rng.integers(-9, 9, shape), lambda x, y: (x - y) ** 2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sigmoid_is_that_of_scipy(kernels, rng, dtype, shape):
    shape = shape_for(kernels, shape)
    x = (20 * rng.standard_normal(shape)).astype(dtype)
    x.flat[:4] = INF, -INF, NAN, 0
    out = np.full_like(x, 7)
    run = kernels.sigmoid(x, out)
    for lo, hi in spans(shape[0] * -(-shape[1] // SEGMENT), 2):
        assert run(lo, hi) == -1
    assert_close(out, scipy.special.expit(x.astype(np.float64)), 3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_score_binary_is_that_of_float64(kernels, rng, dtype, shape):
    shape = shape_for(kernels, shape)
    x, target = (4 * rng.standard_normal(shape)).astype(dtype), rng.random(shape) < 0.5
    out = {name: np.full(shape, 7, result_dtype(x)) for name in ("nll", "probability", "brier")}
    prediction = np.full(shape, 7, np.int8)
    segments = shape[0] * -(-shape[1] // SEGMENT)
    assert kernels.score_binary(x, target, threshold=0.3, prediction=prediction, **out)(0, segments) == -1
    towards = np.where(target, -1, 1) * x.astype(np.float64)
    assert_close(out["probability"], scipy.special.expit(x.astype(np.float64)), 3)
    assert_close(out["nll"], np.logaddexp(0, towards), 4)
    assert_close(out["brier"], scipy.special.expit(towards) ** 2, 6)
    np.testing.assert_array_equal(prediction, out["probability"] > out["probability"].dtype.type(0.3))
    only = {"nll": None, "probability": np.full_like(out["probability"], 7), "brier": None}
    kernels.score_binary(x, None, threshold=0.3, prediction=prediction, **only)(0, segments)
    assert bits(only["probability"]) == bits(out["probability"])


def test_score_binary_edges(kernels):
    x, y = np.array([[INF, -INF, NAN, 0, INF]], np.float32), np.array([[1, 0, 1, 0, 0]])
    nll, probability, brier = (np.zeros(x.shape, np.float32) for _ in range(3))
    prediction = np.full(x.shape, 7, np.int8)
    run = kernels.score_binary(
        x, y, threshold=0.5, nll=nll, probability=probability, prediction=prediction, brier=brier
    )  # fmt: skip
    assert run(0, 1) == -1
    np.testing.assert_array_equal(probability, [[1, 0, NAN, 0.5, 1]])
    np.testing.assert_array_equal(prediction, [[1, 0, 0, 0, 1]])
    np.testing.assert_array_equal(brier, [[0, 0, NAN, 0.25, 1]])
    assert_close(nll, [[0, 0, NAN, np.log(2), INF]])


@pytest.mark.parametrize("labels", [1, 13])
@pytest.mark.parametrize("weighted", [False, True])
def test_tally_binary_sums_what_counts(kernels, rng, labels, weighted):
    rows, block, bins = 500, 64, 6
    shape = rows, labels
    target = np.asfortranarray(rng.random(shape).astype(np.float32))
    weight = np.where(rng.random(shape) < 0.2, 0, rng.random(shape)).astype(np.float32) if weighted else None
    values = {name: rng.random(shape).astype(np.float32) for name in ("nll", "probability", "brier")}
    live = np.ones(shape, bool) if weight is None else weight > 0
    for value in values.values():
        value[~live] = NAN
    values["probability"][5], values["probability"][6] = 0, 1
    prediction = (rng.random(shape) < 0.5).astype(np.int8)
    sums = np.full((-(-rows // block), labels, 8 + 4 * bins), 7.0)
    run = kernels.tally_binary(target, weight, **values, prediction=prediction, bins=bins, block=block, sums=sums)
    for start in range(0, rows, block):
        assert run(start, min(start + block, rows)) == -1
    for block_, label in np.ndindex(sums.shape[:2]):
        at = slice(block_ * block, (block_ + 1) * block), label
        keep = live[at]
        w = np.ones(keep.sum()) if weight is None else weight[at][keep].astype(np.float64)
        v = {name: value[at][keep].astype(np.float64) for name, value in values.items()}
        positive, flagged, p = target[at][keep] > 0.5, prediction[at][keep] == 1, v["probability"]
        want = [keep.sum(), w.sum(), w @ v["nll"], w @ v["brier"], w @ (positive & flagged), w @ (~positive & flagged),
                w @ (~positive & ~flagged), w @ (positive & ~flagged)]  # fmt: skip
        for b in range(bins):
            inside = (p > b / bins) & (p <= (b + 1) / bins) | ((p == 0) & (b == 0))
            want += [inside.sum(), w @ inside, (w * p) @ inside, (w * positive) @ inside]
        assert_close(sums[block_, label], want, 20)
