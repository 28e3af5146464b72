"""CUDA's kernels on elements and probabilities against NumPy's, however their arrays lie."""

import itertools

import numpy as np
import pytest
from fusedloss.kernels import SEGMENT, reference
from kernel_cases import (
    BFLOAT16,
    DTYPES,
    LOSS_OPTIONS,
    WIDE,
    aligned,
    assert_close,
    bits,
    element_loss,
    kernels_of,
    result_dtype,
    row_loss,
)

INF, NAN = np.inf, np.nan
F4, F8 = np.dtype(np.float32), np.dtype(np.float64)
LOSSES = ["binary_cross_entropy", "binary_log_loss", "mse"]
SHAPES = [(5, 7), (3, 64), (40, 4), (2, 300)]


kernels = kernels_of("cuda")


def example(rng, name, shape, dtype, target=np.float32):
    """Inputs of a loss, among them certainties."""
    x = rng.random(shape) if name == "binary_log_loss" else 6 * rng.standard_normal(shape)
    x.flat[:2] = 0, 1
    return x.astype(dtype), rng.random(shape).round(2).astype(target)


def agree(name, x, target, ulps=8, **options):
    """Compare a loss, its segments' sums and its gradient with the reference's."""
    wanted = element_loss(reference, name, x, target, **options)
    found = element_loss(kernels, name, x, target, **options)
    scale = 100.0 if name == "binary_log_loss" else 1.0
    for got, want in zip(found, wanted, strict=True):
        assert_close(
            got, want.astype(np.float64), ulps, scale=scale, dtype=result_dtype(x) if got.dtype == F8 else None
        )
    return found


# ---- elements --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_the_references(rng, name, shape, dtype):
    x, target = example(rng, name, shape, dtype)
    real = result_dtype(x)
    weight = np.broadcast_to((rng.random((shape[0], 1)) + 0.5).astype(real), shape)
    agree(name, x, target)
    options = {"sample_weight": weight, "grad_scale": 0.5}
    if name != "mse":
        options["label_smoothing"] = 0.1
    if name == "binary_cross_entropy":
        options["pos_weight"] = np.broadcast_to(rng.random(shape[1]).astype(real), shape)
    if name == "binary_log_loss":
        options |= {"eps": 0.25, "log_eps": 0.01}
    agree(name, x, target, **options)


@pytest.mark.parametrize("dtype", [BFLOAT16, F8], ids=str)
def test_segments_add_up_apart(rng, dtype):
    x, target = example(rng, "mse", (2, 2 * SEGMENT + 5), dtype)
    _, sums, _ = agree("mse", x, target)
    assert len(sums) == 6


@pytest.mark.parametrize("target", [bool, *"i1 i2 i4 i8 u1 u2 u4 u8".split(), *DTYPES], ids=str)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_targets_of_any_kind(rng, dtype, target):
    x, _ = example(rng, "mse", (3, 40), dtype)
    low = -3 if np.dtype(target).kind == "i" else 0
    agree("mse", x, aligned(rng.integers(low, 4, x.shape).astype(target)))
    agree("mse", x, aligned(rng.integers(low, 4, x.shape).astype(target), 1))


def layouts(array):
    """The same values laid out in other ways: elsewhere, backwards, in columns, with gaps."""
    yield aligned(array, 1)
    yield aligned(array[::-1, ::-1])[::-1, ::-1]
    yield array.copy("F")
    gaps = np.zeros((array.shape[0], 3 * array.shape[1]), array.dtype)[:, 1::3]
    gaps[...] = array
    yield gaps


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 20), (2, 7), (1, 300)], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_how_arrays_lie_changes_no_bit(rng, name, shape, dtype):
    x, target = (aligned(each) for each in example(rng, name, shape, dtype, dtype))
    wanted = [bits(each) for each in element_loss(kernels, name, x, target, grad=aligned(x))]
    for x_, target_ in zip(layouts(x), layouts(target), strict=True):
        assert [bits(each) for each in element_loss(kernels, name, x_, target, grad=aligned(x, 1))] == wanted
        found = element_loss(kernels, name, x_, target_, grad=x_, pieces=2)  # the gradient is in place
        assert [bits(each) for each in found] == wanted


@pytest.mark.parametrize("name", LOSSES)
def test_operands_that_are_the_same_all_along_a_row_or_a_column(rng, name):
    x, target = example(rng, name, (4, 24), np.float32)
    for target_ in (target[:, :1], target[:1], target[:1, :1]):
        agree(name, x, np.broadcast_to(target_, x.shape), sample_weight=np.broadcast_to(np.abs(x[:1]), x.shape))


@pytest.mark.parametrize("dtype", WIDE, ids=str)
def test_elements_at_their_limits(dtype):
    x = np.array([[INF, -INF, INF, -INF, NAN, INF, 0, 1e4, -1e4]], dtype)
    y = np.array([[1, 0, 0, 1, 1, 0.5, 1, 0, 1]], dtype)
    loss, sums, grad = element_loss(kernels, "binary_cross_entropy", x, y)
    np.testing.assert_array_equal(loss[0, :6], [0, 0, INF, INF, NAN, INF])
    np.testing.assert_array_equal(loss[0, 7:], [1e4, 1e4])
    np.testing.assert_array_equal(grad[0], [0, 0, 1, -1, NAN, 0.5, -0.5, 1, -1])
    assert np.isnan(sums).all()
    p, y = np.array([[0, 1, 0, 1, NAN]], dtype), np.array([[1, 0, 0, 1, 1]])
    loss, _, grad = element_loss(kernels, "binary_log_loss", p, y)
    np.testing.assert_array_equal(loss, [[100, 100, 0, 0, NAN]])
    assert not np.signbit(loss[0, :4]).any()
    assert_close(grad, [[-1e12, 1e12, 0, 0, NAN]], 1)
    loss, _, grad = element_loss(kernels, "binary_log_loss", p[:, 1:2], y[:, 1:2], eps=1e-7)
    assert_close(loss, [[15.942385 if dtype == F4 else -np.log1p(-(1 - 1e-7))]], 2)
    assert (grad == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_masked_elements_are_zero(rng, name):
    x, target = example(rng, name, (6, 9), np.float32)
    weight = np.ones(x.shape, np.float32)
    weight[1, 4], weight[2] = 0, 0
    x[1, 4], x[2] = NAN, 7
    loss, _, grad = element_loss(kernels, name, x, target, sample_weight=weight)
    assert (bits(loss[weight == 0]), bits(grad[weight == 0])) == (bytes(40), bytes(40))


@pytest.mark.parametrize("dtype", [BFLOAT16, F8], ids=str)
def test_the_least_value_that_is_no_probability_is_reported(dtype):
    p = np.full((4, SEGMENT + 9), 0.5, dtype)
    p[1, SEGMENT + 7], p[1, SEGMENT + 3], p[3, 2], p[2, 2] = 1.5, -INF, 1.5, NAN
    options, columns = LOSS_OPTIONS["binary_log_loss"], SEGMENT + 9
    run = kernels.binary_log_loss(p, p, None, np.zeros(8), None, **options)
    assert (run(0, 8), run(0, 3), run(4, 8)) == (columns + SEGMENT + 3, -1, 3 * columns + 2)
    weight = np.broadcast_to(np.array([[1], [0], [1], [1]], result_dtype(p)), p.shape)
    assert (
        kernels.binary_log_loss(p, p, None, np.zeros(8), None, **options | {"sample_weight": weight})(2, 8)
        == 3 * columns + 2
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scores_and_sigmoid_are_the_references(rng, shape, dtype):
    x, target = (4 * rng.standard_normal(shape)).astype(dtype), rng.random(shape) < 0.5
    x.flat[:4] = INF, -INF, NAN, 0
    found, wanted = [], []
    for of, results in ((kernels, found), (reference, wanted)):
        out = {name: aligned(np.zeros(shape, result_dtype(x))) for name in ("nll", "probability", "brier")}
        prediction, only = aligned(np.zeros(shape, np.int8)), {"nll": None, "brier": None}
        options = {"threshold": 0.3, "prediction": prediction}
        assert of.score_binary(x, target, **options, **out)(0, shape[0]) == -1
        results += [prediction.copy(), *out.values()]
        again, prediction[...] = np.zeros_like(out["probability"]), 7
        assert of.score_binary(x, None, **options, **only | {"probability": again})(0, shape[0]) == -1
        share = np.zeros_like(x)
        assert of.sigmoid(x, share)(0, shape[0]) == -1
        results += [again, prediction, share]
    for got, want in zip(found, wanted, strict=True):
        if got.dtype == np.int8:
            np.testing.assert_array_equal(got, want)
        else:
            assert_close(got, want.astype(np.float64), 8)


def test_the_scale_of_a_gradient_may_lie_on_the_card(rng):
    scale = np.array([0.25])
    x, target = example(rng, "mse", (2, 9), np.float32)
    grad = element_loss(kernels, "mse", x, target, grad_scale=0.25)[2]
    assert bits(element_loss(kernels, "mse", x, target, grad_scale=scale)[2]) == bits(grad)
    p, y = rng.random((4, 6, 1)), np.arange(4)
    grad = row_loss(kernels, "log_loss", p, y, grad_scale=0.25)[1]
    assert bits(row_loss(kernels, "log_loss", p, y, grad_scale=scale)[1]) == bits(grad)


# ---- probabilities ---------------------------------------------------------------------------------------------------


def probabilities(rng, shape, dtype, soft):
    """Rows of probabilities, and classes or shares of them."""
    rows = shape[0] * shape[2]
    p = rng.random(shape).astype(dtype)
    return p, rng.random(shape).astype(np.float32) if soft else rng.integers(0, shape[1], rows).astype(np.int32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 5, 1), (2, 7, 5), (2, 40, 1), (5, 1, 1)], ids=str)
@pytest.mark.parametrize("soft", [False, True])
def test_log_loss_is_the_references(rng, shape, dtype, soft):
    p, target = probabilities(rng, shape, dtype, soft)
    rows, real = shape[0] * shape[2], result_dtype(p)
    if not soft:
        target[1] = -100
    weights = {"class_weight": rng.random(shape[1]).astype(real), "sample_weight": rng.random(rows).astype(real)}
    weights["sample_weight"][0] = 0
    for smoothing, eps, normalize, given in itertools.product((0, 0.1), (0, 0.2), (0, 1), (0, 1)):
        options = {"label_smoothing": smoothing, "eps": eps, "log_eps": given * 0.01, "normalize": bool(normalize)}
        options |= {"grad_scale": 0.5, **(weights if given else {})}
        hard = target if soft else target.astype(np.int64)
        wanted = row_loss(reference, "log_loss", p, hard, **options)
        for got, want in zip(row_loss(kernels, "log_loss", p, target, **options), wanted, strict=True):
            assert_close(got, want.astype(np.float64), 16, scale=1.0)


@pytest.mark.parametrize("target", "i1 i2 i4 i8 u1 u2 u4 u8".split())
def test_classes_of_any_integers(rng, target):
    p, y = rng.random((9, 4, 1)), rng.integers(0, 4, 9)
    loss, grad = row_loss(kernels, "log_loss", p, y.astype(target))
    wanted = row_loss(kernels, "log_loss", p, y)
    assert (bits(loss), bits(grad)) == (bits(wanted[0]), bits(wanted[1]))


@pytest.mark.parametrize("normalize", [False, True])
def test_log_loss_in_place_and_in_pieces(rng, normalize):
    p, y = probabilities(rng, (3, 50, 2), np.float32, True)
    wanted = row_loss(kernels, "log_loss", p, y, normalize=normalize)
    strided = np.zeros((50, 3, 4), np.float32).transpose(1, 0, 2)[:, :, ::2]
    strided[...] = p
    loss, grad = row_loss(kernels, "log_loss", strided, y, normalize=normalize, grad=strided, pieces=3)
    assert (bits(loss), bits(grad)) == (bits(wanted[0]), bits(wanted[1]))


def test_log_loss_reports_what_is_wrong(rng):
    p, y = rng.random((6, 5, 2)), rng.integers(0, 5, 12)
    p[4, 3, 1], p[4, 4, 0] = 1.5, -1
    loss, options = np.zeros(12), LOSS_OPTIONS["log_loss"]
    assert kernels.log_loss(p, y, loss, None, **options)(0, 12) == (4 * 5 + 3) * 2 + 1
    assert kernels.log_loss(p, y, loss, None, **options | {"normalize": True})(0, 12) == (4 * 5 + 4) * 2
    assert kernels.log_loss(p, y, loss, p, **options)(0, 12) == (4 * 5 + 3) * 2 + 1  # though it is written over
    p, y = rng.random((6, 5, 2)), rng.integers(0, 5, 12)
    p[4, 4, 0], y[3], y[7] = INF, 5, -1
    assert kernels.log_loss(p, y, loss, None, **options | {"normalize": True})(0, 12) == 3
    assert kernels.log_loss(p, y, loss, None, **options)(4, 8) == 7
    assert kernels.log_loss(p, y, loss, None, **options | {"ignore_index": -1})(4, 8) == -1
    x = np.array([[0.5, 1.5, -1, 0.5]])
    assert kernels.binary_log_loss(x, x, None, np.zeros(1), x, **LOSS_OPTIONS["binary_log_loss"])(0, 1) == 1
