"""The contract of the row kernels, on every backend: against float64 autograd, SciPy and mpmath, and at every edge."""

import tracemalloc

import mpmath
import numpy as np
import pytest
import torch
from fusedloss.kernels import cpu
from kernel_cases import (
    BFLOAT16,
    DTYPES,
    NARROW,
    WIDE,
    assert_close,
    bits,
    column_of,
    in_rows,
    is_simulated,
    kernels_of,
    offence,
    result_dtype,
    row_loss,
)  # fmt: skip

from fusedloss.arrays import empty

INF, NAN = np.inf, np.nan


def one_hot(index, classes, dtype=np.float32):
    return np.eye(classes, dtype=dtype)[index][:, :, None]


def autograd_cross_entropy(x, target, *, class_weight=None, sample_weight=None, label_smoothing=0.0, z_loss=0.0,
                           logit_scale=1.0, softcap=None, grad_scale=1.0):  # fmt: skip
    """The formula of the specification in float64, and its gradient by autograd, in the shape of x."""
    rows = torch.tensor(in_rows(x), requires_grad=True)
    classes = rows.shape[1]
    z = rows * logit_scale
    z = z if softcap is None else softcap * torch.tanh(z / softcap)
    hard = target.ndim == 1
    y = torch.nn.functional.one_hot(torch.tensor(target), classes).double() if hard else torch.tensor(in_rows(target))
    y = (1 - label_smoothing) * y + label_smoothing / classes
    if class_weight is not None:
        y = y * torch.tensor(class_weight.astype(np.float64))
    lse = torch.logsumexp(z, 1)
    loss = torch.where(y == 0, 0, y * (lse[:, None] - z)).sum(1) + z_loss * lse**2
    if sample_weight is not None:
        loss = loss * torch.tensor(sample_weight.astype(np.float64))
    (gradient,) = torch.autograd.grad(loss.sum() * grad_scale, rows)
    shape = x.shape[0], x.shape[2], classes
    return loss.detach().numpy(), np.moveaxis(gradient.numpy().reshape(shape), 2, 1)


OPTIONS = [
    {},
    {"label_smoothing": 0.1},
    {"label_smoothing": 1.0},
    {"z_loss": 1e-2},
    {"logit_scale": -0.37, "grad_scale": 0.125},
    {"softcap": 5.0},
    {"softcap": 3.0, "logit_scale": 2.0, "z_loss": 0.1, "label_smoothing": 0.2, "grad_scale": 3.0},
]


ALONG, FEW, ACROSS = (15, 301, 1), (21, 37, 1), (5, 37, 3)
"""Many classes side by side, few of them, and classes apart: kernels of their own on the CPU."""
WIDE_CASES = [
    *((np.dtype(np.float32), ALONG, options) for options in OPTIONS),
    *((np.dtype(np.float32), shape, options) for shape in (FEW, ACROSS) for options in (OPTIONS[0], OPTIONS[-1])),
    *((np.dtype(np.float64), shape, OPTIONS[-1]) for shape in (ALONG, FEW, ACROSS)),
]
NEITHER_AND_BOTH = (False, False), (True, True)
CASES = [
    *((*case, soft, weighted) for case in WIDE_CASES for soft, weighted in NEITHER_AND_BOTH),
    *((*case, soft, not soft) for case in WIDE_CASES for soft in (False, True)
      if case[0] == np.float32 and case[2] in (OPTIONS[0], OPTIONS[-1])),
    # weights are of the result dtype whatever that of the logits
    *((dtype, shape, OPTIONS[-1], *both) for dtype in NARROW for shape in (ALONG, FEW) for both in NEITHER_AND_BOTH),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "shape", "options", "soft", "weighted"), CASES, ids=str)
def test_cross_entropy_and_its_gradient_are_those_of_float64(kernels, rng, dtype, shape, soft, weighted, options):
    outer, classes, inner = shape
    rows = outer * inner
    x = (3 * rng.standard_normal(shape)).astype(dtype)
    target = rng.random(shape).astype(dtype) if soft else rng.integers(0, classes, rows)
    if weighted:
        weights = {"class_weight": rng.random(classes), "sample_weight": rng.random(rows) + 0.5}
        options = options | {name: w.astype(result_dtype(x)) for name, w in weights.items()}
    loss, grad = row_loss(kernels, "cross_entropy", x, target, **options)
    want_loss, want_grad = autograd_cross_entropy(x, target, **options)
    assert_close(loss, want_loss, 4, scale=1.0)
    ulps = 4 + options.get("softcap", 0)  # a bent logit errs by an ulp of the cap, the gradient by as much of itself
    assert_close(grad, want_grad, ulps, scale=np.abs(want_grad).max() if dtype in WIDE else 0.01)


@pytest.mark.parametrize("dtype", WIDE, ids=str)
@pytest.mark.parametrize("offset", [0, 1e4, 1e6, -1e6])
def test_large_offsets_cost_no_accuracy(kernels, rng, dtype, offset):
    x = (rng.standard_normal((40, 50, 1)) + offset).astype(dtype)
    index = rng.integers(0, 50, 40)
    with mpmath.workdps(40):
        rows = [[mpmath.mpf(float(v)) for v in row] for row in x[:, :, 0]]
        totals = [mpmath.fsum(mpmath.exp(v - offset) for v in row) for row in rows]
        each = zip(rows, totals, index, strict=True)
        want = np.array([float(mpmath.log(d) + offset - row[t]) for row, d, t in each])
        p = np.array([[float(mpmath.exp(v - offset) / d) for v in row] for row, d in zip(rows, totals, strict=True)])
    for target in (index, one_hot(index, 50, dtype)):
        loss, grad = row_loss(kernels, "cross_entropy", x, target)
        assert_close(loss, want, 3)
        assert_close(grad[:, :, 0], p - np.eye(50)[index], 2, scale=0.5)


def edge_rows():
    x = np.arange(7 * 6, dtype=np.float32).reshape(7, 6) % 5
    x[1] = -INF
    x[2, 3] = INF
    x[3, 0] = NAN
    x[4, :2] = -INF
    x[5, 4] = -INF
    return column_of(x)


def test_bad_rows_are_nan_alone_and_masked_classes_are_finite(kernels):
    x, target = edge_rows(), np.array([4, 4, 4, 4, 4, 4, 4])
    want_loss, want_grad = autograd_cross_entropy(x, target)
    for target_ in (target, one_hot(target, 6)):
        loss, grad = row_loss(kernels, "cross_entropy", x, target_)
        assert np.isnan(loss[1:4]).all()
        assert np.isnan(grad[1:4]).all()
        assert loss[5] == INF
        good = [0, 4, 6]
        assert_close(loss[good], want_loss[good])
        assert_close(grad[good], want_grad[good], scale=0.1)
        assert (grad[4, :2] == 0).all()


@pytest.mark.parametrize("name", ["cross_entropy", "kl_divergence"])
def test_bad_rows_change_no_bit_of_their_neighbours(kernels, rng, name):
    x = rng.standard_normal((64, 100, 1)).astype(np.float32)
    target = rng.random((64, 100, 1)).astype(np.float32)
    loss, grad = row_loss(kernels, name, x, target)
    bad = x.copy()
    bad[::7, 50], bad[1::7], bad[2::7, 0] = NAN, -INF, INF
    bad_loss, bad_grad = row_loss(kernels, name, bad, target)
    good = np.arange(64) % 7 > 2
    assert np.isnan(bad_loss[~good]).all()
    assert np.isnan(bad_grad[~good]).all()
    assert bits(bad_loss[good]) == bits(loss[good])
    assert bits(bad_grad[good]) == bits(grad[good])


@pytest.mark.parametrize("masked", [100, 4096, 9000])
def test_leading_block_of_masked_classes_does_not_poison_the_row(kernels, rng, masked):
    x = rng.standard_normal((2, 10_000, 1)).astype(np.float32)
    x[:, :masked] = -INF
    index = np.array([9_500, 9_999])
    loss, grad = row_loss(kernels, "cross_entropy", x, index)
    want, want_grad = autograd_cross_entropy(x[:, masked:], index - masked)
    assert_close(loss, want)
    assert_close(grad[:, masked:], want_grad, scale=1.0)
    assert (grad[:, :masked] == 0).all()


def test_softcap_keeps_masked_classes_masked(kernels, rng):
    x = (20 * rng.standard_normal((30, 12, 1))).astype(np.float32)
    x[:, ::3] = -INF
    kept = np.arange(12) % 3 > 0
    index = rng.integers(0, 8, 30)
    loss, grad = row_loss(kernels, "cross_entropy", x, np.flatnonzero(kept)[index], softcap=10.0)
    want, want_grad = autograd_cross_entropy(x[:, kept], index, softcap=10.0)
    assert_close(loss, want, scale=10.0)
    assert_close(grad[:, kept], want_grad, 8, scale=1.0)
    assert (grad[:, ~kept] == 0).all()
    assert np.isnan(row_loss(kernels, "cross_entropy", edge_rows(), np.zeros(7, int), softcap=10.0)[0][1:4]).all()


@pytest.mark.parametrize("dtype", [*WIDE, BFLOAT16], ids=str)
@pytest.mark.parametrize("classes", [32_768, 32_769, 41_003])
def test_softcap_of_rows_too_long_to_keep(kernels, rng, dtype, classes):
    x = (3 * rng.standard_normal((4, classes, 1))).astype(dtype)
    index = np.array([0, 32_767, classes - 1, 20_000])
    loss, grad = row_loss(kernels, "cross_entropy", x, index, softcap=5.0)
    want, want_grad = autograd_cross_entropy(x, index, softcap=5.0)
    assert_close(loss, want, scale=5.0)
    assert_close(grad, want_grad, scale=1.0)
    grad[range(4), index] = want_grad[range(4), index] = 0  # what is left is small
    # of so many bent logits the worst errs by 2 ulps of the cap
    assert_close(grad, want_grad, 14, scale=want_grad.max() if dtype in WIDE else 0.01)


def test_target_at_minus_infinity_is_infinite_whatever_the_smoothing(kernels):
    x = column_of([[0.0, -INF]])
    for smoothing in (0.0, 0.3, 1.0):
        loss, _ = row_loss(kernels, "cross_entropy", x, np.array([1]), label_smoothing=smoothing)
        assert loss[0] == INF
    weight = np.array([1, 0], np.float32)
    loss, _ = row_loss(kernels, "cross_entropy", x, np.array([1]), class_weight=weight, label_smoothing=0.5)
    assert loss[0] == 0


@pytest.mark.parametrize("name", ["cross_entropy", "log_loss"])
def test_masked_rows_are_exactly_zero_whatever_they_hold(kernels, rng, name):
    x = rng.random((6, 5, 4)).astype(np.float32)
    target = rng.integers(0, 5, 24)
    weight = np.ones(24, np.float32)
    target[[0, 9]], weight[[3, 23]] = -100, 0
    target[3] = 99
    x[0, :, 0], x[2, :, 1], x[0, :, 3], x[5, :, 3] = NAN, INF, -5, [NAN, INF, -INF, -1, 9]
    loss, grad = row_loss(kernels, name, x, target, sample_weight=weight)
    masked = np.isin(np.arange(24), [0, 3, 9, 23])
    gradient = np.moveaxis(grad, 1, 2).reshape(24, 5)
    assert (loss[masked] == 0).all()
    assert (gradient[masked] == 0).all()
    assert np.isfinite(loss).all()
    assert (loss[~masked] > 0).all()
    assert gradient[~masked].any(axis=1).all()


@pytest.mark.parametrize("name", ["cross_entropy", "log_loss"])
def test_a_target_that_does_not_exist_is_the_offence_of_its_row(kernels, name):
    x = np.full((4, 3, 2), 0.25, np.float32)
    target = np.array([0, 1, 2, 3, -1, -100, 2**40, 0])
    assert offence(kernels, name, x, target) == 3
    assert offence(kernels, name, x, target, lo=4) == 4
    assert offence(kernels, name, x, target, lo=5) == 6
    assert offence(kernels, name, x, target, lo=7) == -1
    assert offence(kernels, name, x, target, ignore_index=3) == 4


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("shape", "small"),
    [((500, 300, 1), (20, 301, 1)), ((7, 300, 70), (3, 30, 9)), ((3, 20_000, 5), (2, 1100, 2)), ((1, 1, 9),) * 2],
    ids=str,
)
def test_pieces_strides_and_in_place_change_no_bit(kernels, rng, dtype, shape, small):
    shape = small if is_simulated(kernels) else shape
    x = rng.standard_normal(shape).astype(dtype)
    target = rng.integers(0, shape[1], shape[0] * shape[2])
    target[::5] = -100
    options = {"softcap": 4.0, "label_smoothing": 0.1} if dtype == np.float32 else {"z_loss": 0.1}
    loss, grad = row_loss(kernels, "cross_entropy", x, target, **options)
    for pieces in (3, 8):
        again, gradient = row_loss(kernels, "cross_entropy", x, target, pieces=pieces, **options)
        assert bits(again) == bits(loss)
        assert bits(gradient) == bits(grad)
    strided = np.zeros((shape[2], 2 * shape[0], shape[1]), dtype)[::-1, ::2].transpose(1, 2, 0)
    strided[...] = x
    again, gradient = row_loss(kernels, "cross_entropy", strided, target, grad=strided, **options)
    assert gradient is strided
    assert_close(again, loss.astype(np.float64), 2)
    assert_close(gradient, grad.astype(np.float64), 2, scale=1.0)


@pytest.mark.parametrize(
    ("dtype", "classes"), [*((WIDE[0], classes) for classes in (128, 900, 5003)), (BFLOAT16, 900)], ids=str
)
def test_outputs_past_the_caches_are_the_same(rng, dtype, classes):
    """Short rows of whole lines; long ones, that begin and end within a line; such as are not kept between passes."""
    kernels, rows = kernels_of("cpu"), cpu.STREAMED_BYTES // (classes * dtype.itemsize) + 3
    x, target = rng.standard_normal((rows, classes, 1)).astype(dtype), rng.integers(0, classes, rows)
    grad = empty(x.shape, dtype)
    assert cpu._streamed_rows(x, grad)
    row_loss(kernels, "cross_entropy", x, target, grad=grad)
    for part in (slice(rows // 2), slice(rows // 2, None)):
        assert not cpu._streamed_rows(x[part], grad[part])
        assert bits(row_loss(kernels, "cross_entropy", x[part], target[part])[1]) == bits(grad[part])


def test_one_row_of_a_vocabulary_and_one_class(kernels, rng):
    x = rng.standard_normal((1, 262_144, 1)).astype(np.float32)
    loss, grad = row_loss(kernels, "cross_entropy", x, np.array([262_143]))
    want, want_grad = autograd_cross_entropy(x, np.array([262_143]))
    assert_close(loss, want)
    assert_close(grad, want_grad, scale=1.0)
    loss, grad = row_loss(kernels, "cross_entropy", column_of([[3.0], [-1e30]]), np.array([0, 0]))
    assert (loss == 0).all()
    assert (grad == 0).all()


@pytest.mark.parametrize("kernels", ["reference", "cpu"], indirect=True)
@pytest.mark.parametrize("inner", [1, 64])
def test_memory_does_not_grow_with_the_logits(kernels, inner):
    x = np.zeros((6400 // inner, 1000, inner), np.float32)
    loss, target = np.zeros(6400, np.float32), np.zeros(6400, int)
    run = kernels.cross_entropy(
        x, target, loss, x, class_weight=None, sample_weight=None, ignore_index=-100, label_smoothing=0.1,
        z_loss=0.1, logit_scale=1.0, softcap=5.0, grad_scale=1.0,
    )  # fmt: skip
    run(0, 64)
    tracemalloc.start()
    try:
        run(64, 6400)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kernels", ["reference", "cpu"], indirect=True)
@pytest.mark.parametrize("name", ["cross_entropy", "kl_divergence", "log_loss"])
@pytest.mark.parametrize(
    ("dtype", "shape"), [(np.float32, (5_003, 2, 1)), (np.float32, (37, 70, 1)), (np.float64, (3, 5, 211))], ids=str
)
def test_sums_of_blocks_are_those_of_their_rows(kernels, rng, name, dtype, shape):
    rows = shape[0] * shape[2]
    x, index = rng.random(shape).astype(dtype), rng.integers(0, shape[1], rows)
    index[rng.random(rows) < 0.3] = 1  # ignored
    soft = rng.random(shape).astype(dtype)
    cases = [(soft, {}), (index, {"ignore_index": 1})][: 1 if name == "kl_divergence" else 2]
    for target, options in cases:
        loss, _ = row_loss(kernels, name, x, target, **options)
        for block in (1, 64, 2_050, 10_000):
            starts = range(0, rows, block)
            sums = np.full((len(starts), 2), 7.0)
            row_loss(kernels, name, x, target, block=block, sums=sums, **options)
            want = [loss[lo : lo + block].sum(dtype=np.float64) for lo in starts]
            np.testing.assert_allclose(sums[:, 0], want, rtol=1e-13)
            counted = index != 1 if target is index else np.ones(rows, bool)
            np.testing.assert_array_equal(sums[:, 1], [counted[lo : lo + block].sum() for lo in starts])
