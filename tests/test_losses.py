"""The losses as they are called: reductions and denominators, weights, masks, dtypes and layouts, against plain float64
formulas; the numbers that must come out."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.special
from kernel_cases import BFLOAT16, DTYPES, assert_close, bits, fewer

import fusedloss as fl

N, C = 7, 5


class Case(NamedTuple):
    """A call; its losses, one a row or an element; the default denominator; the gradient of the sum."""

    loss: Callable[..., Any]
    x: np.ndarray
    target: np.ndarray
    options: dict[str, Any]
    losses: np.ndarray
    weight: float
    gradient: np.ndarray


def cross_entropy_of(x, y, s, smoothing=0.0, z_loss=0.0, w=1.0):
    """Row losses of logits, and their gradient: y of the shape of x, s a weight a row, w a weight a class."""
    lse = scipy.special.logsumexp(x, axis=-1)
    c = w * ((1 - smoothing) * y + smoothing / x.shape[-1])
    losses = s * ((c * (lse[:, None] - x)).sum(-1) + z_loss * lse**2)
    mass = c.sum(-1) + 2 * z_loss * lse
    return losses, s[:, None] * (mass[:, None] * np.exp(x - lse[:, None]) - c)


def hard(x, index, y, s, w, weighted=False, smoothing=0.0):
    live, w = s * (index >= 0), w if weighted else np.ones(C)
    losses, gradient = cross_entropy_of(x, np.eye(C)[index.clip(0)], live, smoothing, 0.1, w)
    options = {"class_weight": w if weighted else None, "label_smoothing": smoothing, "z_loss": 0.1}
    return fl.cross_entropy, index, options, losses, live @ w[index.clip(0)], gradient


def soft(x, index, y, s, w, weighted=False):
    losses, gradient = cross_entropy_of(x, y, s, w=w if weighted else 1.0)
    return fl.cross_entropy, y, {"class_weight": w if weighted else None}, losses, s.sum(), gradient


def divergence(x, index, y, s, w):
    losses, gradient = cross_entropy_of(x, y, s)
    return fl.kl_divergence, y, {}, losses - s * scipy.special.entr(y).sum(-1), s.sum(), gradient


def log_loss(p, index, y, s, w):
    live = s * (index >= 0)
    c = live[:, None] * w * np.eye(C)[index.clip(0)]
    return fl.log_loss, index, {"class_weight": w}, -(c * np.log(p)).sum(-1), live @ w[index.clip(0)], -c / p


def soft_log_loss(p, index, y, s, w):
    c = s[:, None] * w * y
    return fl.log_loss, y, {"class_weight": w}, -(c * np.log(p)).sum(-1), s.sum(), -c / p


def multi_label(x, index, y, s, w):
    yes, no = s[:, None] * y * w, s[:, None] * (1 - y)
    losses = yes * np.logaddexp(0, -x) + no * np.logaddexp(0, x)
    gradient = no * scipy.special.expit(x) - yes * scipy.special.expit(-x)
    return fl.binary_cross_entropy, y, {"pos_weight": w}, losses, C * s.sum(), gradient


def binary_log_loss(p, index, y, s, w):
    losses = s[:, None] * -(y * np.log(p) + (1 - y) * np.log1p(-p))
    return fl.binary_log_loss, y, {}, losses, C * s.sum(), s[:, None] * (p - y) / (p * (1 - p))


def squared_error(x, index, y, s, w):
    return fl.mse, y, {}, s[:, None] * (x - y) ** 2, C * s.sum(), 2 * s[:, None] * (x - y)


CASES: dict[str, Callable[..., Any]] = {
    "hard": hard,
    "hard, weighted": partial(hard, weighted=True),
    "hard, weighted, smoothed": partial(hard, weighted=True, smoothing=0.3),
    "soft": soft,
    "soft, weighted": partial(soft, weighted=True),
    "divergence": divergence,
    "log loss": log_loss,
    "log loss, soft": soft_log_loss,
    "multi-label": multi_label,
    "binary log loss": binary_log_loss,
    "squared error": squared_error,
}
FLOAT32 = ["hard", "soft", "multi-label"]


def case(name: str, dtype: Any, rng: np.random.Generator) -> Case:
    """A call of seven rows: one is ignored, where there are classes to ignore, and one has weight 0."""
    x, y = 3 * rng.standard_normal((N, C)), rng.dirichlet(np.ones(C), N)
    if "log loss" in name:
        x = scipy.special.softmax(x, axis=-1)
    w, s, index = rng.random(C) + 0.5, rng.random(N) + 0.5, rng.integers(0, C, N)
    index[4], s[2] = -100, 0
    x, y, s, w = (each.astype(dtype).astype(np.float64) for each in (x, y, s, w))  # what the call will see
    loss, target, options, *want = CASES[name](x, index, y, s, w)
    target = target if target is index else y.astype(dtype)
    return Case(loss, x.astype(dtype), target, options | {"sample_weight": s}, *want)


def both(case: Case, device: str, **options: Any) -> tuple[Any, Any]:
    return fl.value_and_grad(case.loss)(case.x, case.target, **case.options, **options, device=device)


class TestReductions:
    """A loss or gradient is a difference of numbers of the size of the largest; a few ulp of that round off."""

    @pytest.mark.parametrize(
        ("name", "dtype"), [*((name, np.float64) for name in CASES), *((name, np.float32) for name in FLOAT32)]
    )
    def test_none(self, backend, rng, name, dtype):
        call = case(name, dtype, rng)
        losses, gradient = both(call, backend, reduction="none")
        assert losses.dtype == gradient.dtype == dtype
        assert_close(losses, call.losses, 4, scale=1)
        assert_close(gradient, call.gradient, 4, scale=np.abs(call.gradient).max())
        assert (losses[call.losses == 0] == 0).all()

    @pytest.mark.parametrize("reduction", ["sum", "mean", "batchmean", "denominator"])
    @pytest.mark.parametrize("name", CASES)
    def test_of_float64(self, backend, rng, name, reduction):
        call = case(name, np.float64, rng)
        divisor = {"sum": 1, "mean": call.weight, "batchmean": N, "denominator": 3.7}[reduction]
        options = {"denominator": 3.7} if reduction == "denominator" else {"reduction": reduction}
        value, gradient = both(call, backend, **options)
        assert type(value) is np.float64
        assert_close(value, call.losses.sum() / divisor, 4, scale=np.abs(call.losses).sum() / divisor)
        assert_close(gradient, call.gradient / divisor, 4, scale=np.abs(call.gradient).max() / divisor)

    @pytest.mark.parametrize("name", FLOAT32)
    def test_of_float32_add_up_in_float64(self, backend, rng, name):
        """A sum is that of its float32 terms to half an ulp, however many."""
        call = case(name, np.float32, rng)
        times = fewer(backend, 5000, 40)
        x, target = np.tile(call.x, (times, 1)), np.concatenate([call.target] * times)
        call = call._replace(x=x, target=target, options=call.options | {"sample_weight": np.tile(np.arange(N), times)})
        losses, _ = both(call, backend, reduction="none")
        total, _ = both(call, backend, reduction="sum")
        assert type(total) is np.float32
        assert_close(total, losses.sum(dtype=np.float64), 0.5)

    @pytest.mark.parametrize("name", ["hard", "multi-label"])
    def test_the_loss_alone_is_that_with_its_gradient(self, backend, rng, name):
        call = case(name, np.float64, rng)
        value = call.loss(call.x, call.target, **call.options, device=backend)
        assert_close(value, both(call, backend)[0], 2)

    def test_more_than_float32_holds(self, backend):
        x, call = np.array([[3e38, 0], [3e38, 0]], np.float32), fl.value_and_grad(fl.cross_entropy)
        assert call(x, [1, 1], reduction="sum", device=backend)[0] == np.inf
        assert call(x, [1, 1], reduction="mean", device=backend)[0] == np.float32(3e38)


class TestDenominators:
    """Weights that were applied, to rows that are not masked."""

    X = np.zeros((4, 2))
    LOG2 = np.log(2)

    def mean(self, device, target, loss=fl.cross_entropy, **options):
        value, gradient = fl.value_and_grad(loss)(self.X, target, device=device, **options)
        assert np.isfinite(gradient).all()
        return value / self.LOG2

    def test_hard(self, backend):
        target = np.array([0, 1, -100, 1])
        assert self.mean(backend, target) == pytest.approx(1)
        assert self.mean(backend, target, class_weight=[1, 3], sample_weight=[1, 2, 9, 0]) == pytest.approx(1)
        assert self.mean(backend, target, denominator=6) == pytest.approx(0.5)
        assert self.mean(backend, target, reduction="batchmean") == pytest.approx(3 / 4)
        assert self.mean(backend, target, class_weight=[1, 3], reduction="sum") == pytest.approx(7)

    def test_soft_class_weights_do_not_divide(self, backend):
        target = np.array([[1, 0], [0.5, 0.5], [0, 1], [0, 2]])
        want = (1 + 2 + 3 + 6) / 4
        assert self.mean(backend, target, class_weight=[1, 3]) == pytest.approx(want)
        weighted = (1 * 1 + 0.5 * 2 + 0 + 2 * 6) / 3.5
        assert self.mean(backend, target, class_weight=[1, 3], sample_weight=[1, 0.5, 0, 2]) == pytest.approx(weighted)

    def test_smoothing_does_not_change_the_denominator(self, backend):
        """As PyTorch: what is smoothed is the loss, but it is divided by the target's class weight."""
        target, w, e = np.array([0, 1, 1, 1]), np.array([1.0, 3.0]), 0.2
        want = ((1 - e) * 10 + 4 * e / 2 * 4) / 10
        assert self.mean(backend, target, class_weight=w, label_smoothing=e) == pytest.approx(want)

    def test_elements(self, backend):
        target = np.ones((4, 2))
        assert self.mean(backend, target, fl.binary_cross_entropy) == pytest.approx(1)
        options = {"sample_weight": [1, 0, 0.5, 2], "pos_weight": [3, 3]}
        assert self.mean(backend, target, fl.binary_cross_entropy, **options) == pytest.approx(3)

    @pytest.mark.parametrize("shape", [(3,), (3, 1), (1, 4), (3, 4), ()])
    def test_sample_weights_of_leading_axes_or_broadcast(self, backend, rng, shape):
        x, y, s = rng.standard_normal((3, 4, 5)), rng.integers(0, 5, (3, 4)), rng.random(shape)
        whole = np.broadcast_to(s[:, None] if shape == (3,) else s, (3, 4))
        call = fl.value_and_grad(fl.cross_entropy)
        plain, _ = call(x, y, reduction="none", device=backend)
        value, _ = call(x, y, sample_weight=s, device=backend)
        assert_close(value, (whole * plain).sum() / whole.sum(), 2)


class TestMultiLabel:
    def test_batchmean_is_the_mean_over_samples_of_the_sum_over_labels(self, backend, rng):
        x, y = rng.standard_normal((6, 4)), rng.integers(0, 2, (6, 4)).astype(np.float64)
        value, gradient = fl.value_and_grad(fl.binary_cross_entropy)(x, y, reduction="batchmean", device=backend)
        losses = np.where(y == 1, np.logaddexp(0, -x), np.logaddexp(0, x))
        assert_close(value, losses.sum(axis=1).mean(), 2)
        assert_close(gradient, (scipy.special.expit(x) - y) / 6, 2, scale=1 / 6)

    @pytest.mark.parametrize("dtype", [bool, np.int64])
    def test_binary_targets_of_any_kind(self, backend, rng, dtype):
        call = case("multi-label", np.float32, rng)
        call = call._replace(target=np.float32(rng.random((N, C)) < 0.5))
        want = both(call, backend, reduction="none")
        got = both(call._replace(target=call.target.astype(dtype)), backend, reduction="none")
        assert [bits(each) for each in got] == [bits(each) for each in want]


class TestNothing:
    @pytest.mark.parametrize("name", CASES)
    def test_all_masked(self, backend, rng, name):
        """The mean of nothing is NaN, its gradient 0, its sum 0; whatever the logits hold."""
        call = case(name, np.float64, rng)
        call = call._replace(x=np.full_like(call.x, np.nan), options=call.options | {"sample_weight": np.zeros(N)})
        for reduction, want in {"mean": np.nan, "sum": 0, "batchmean": 0}.items():
            value, gradient = both(call, backend, reduction=reduction)
            np.testing.assert_equal(value, want)
            assert (gradient == 0).all()

    def test_all_ignored(self, backend):
        value, gradient = fl.value_and_grad(fl.cross_entropy)(np.ones((3, 4)), np.full(3, -100), device=backend)
        assert np.isnan(value)
        assert (gradient == 0).all()

    @pytest.mark.parametrize("name", CASES)
    def test_no_rows(self, backend, rng, name):
        call = case(name, np.float32, rng)
        options = call.options | {"sample_weight": np.zeros(0)}
        call = call._replace(x=call.x[:0], target=call.target[:0], options=options)
        for reduction, want in {"mean": np.nan, "sum": 0, "batchmean": np.nan}.items():
            value, gradient = both(call, backend, reduction=reduction)
            assert type(value) is np.float32
            np.testing.assert_equal(value, np.float32(want))
            assert gradient.shape == (0, C)
        losses, _ = both(call, backend, reduction="none")
        assert losses.shape == call.losses[:0].shape

    def test_one_class(self, backend, rng):
        """Its probability is 1, and −log 1 is 0 exactly."""
        x, call = 100 * rng.standard_normal((9, 1)), fl.value_and_grad(fl.cross_entropy)
        for target in (np.zeros(9, int), np.full((9, 1), 2.0)):
            losses, gradient = call(x, target, reduction="none", device=backend)
            assert (losses == 0).all()
            assert (gradient == 0).all()

    @pytest.mark.parametrize("reduction", ["mean", "sum", "batchmean", "none"])
    def test_a_single_row_gives_a_scalar(self, backend, rng, reduction):
        x = rng.standard_normal(C)
        value, gradient = fl.value_and_grad(fl.cross_entropy)(x, 2, reduction=reduction, device=backend)
        assert type(value) is np.float64
        assert_close(value, scipy.special.logsumexp(x) - x[2], 2)
        assert_close(gradient, scipy.special.softmax(x) - np.eye(C)[2], 2, scale=1)


class TestDtypes:
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_results_and_gradients(self, backend, rng, dtype):
        """Losses are never of 16 bits and as exact as those of float32; gradients are rounded once, by half an ulp."""
        x, y = (3 * rng.standard_normal((20, 37, 3))).astype(dtype), rng.integers(0, 37, (20, 3))
        for given in (x, x.astype(dtype.newbyteorder())):
            value, gradient = fl.value_and_grad(fl.cross_entropy)(given, y, axis=1, reduction="sum", device=backend)
            assert type(value) is (np.float64 if dtype == np.float64 else np.float32)
            assert gradient.dtype == given.dtype
            rows = np.moveaxis(x, 1, 2).reshape(-1, 37).astype(np.float64)
            losses, slopes = cross_entropy_of(rows, np.eye(37)[y.ravel()], np.ones(60))
            assert_close(value, losses.sum(), 2)
            narrow = dtype.itemsize == 2
            got = np.moveaxis(gradient.astype(dtype), 1, 2).reshape(-1, 37)
            assert_close(got, slopes, 0.51 if narrow else 4, scale=0.05 if narrow else 1)

    @pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.uint8, np.uint16, np.uint32, np.uint64, ">i4"])
    def test_hard_targets(self, backend, rng, dtype):
        x, y = rng.standard_normal((8, 3)), rng.integers(0, 3, 8)
        call = fl.value_and_grad(fl.cross_entropy)
        assert bits(call(x, y.astype(dtype), device=backend)[0]) == bits(call(x, y, device=backend)[0])
        ignored = np.where(y == 1, 99, y).astype(dtype)
        want, _ = call(x[y != 1], y[y != 1], reduction="sum", device=backend)
        assert_close(call(x, ignored, ignore_index=99, reduction="sum", device=backend)[0], want, 1)

    @pytest.mark.parametrize("dtype", [BFLOAT16, np.float64], ids=str)
    def test_soft_targets_of_another_dtype(self, backend, rng, dtype):
        x, y = rng.standard_normal((6, 4)).astype(np.float32), rng.dirichlet(np.ones(4), 6).astype(dtype)
        losses, _ = fl.value_and_grad(fl.cross_entropy)(x, y, reduction="none", device=backend)
        want, _ = cross_entropy_of(x.astype(float), y.astype(float), np.ones(6))
        assert losses.dtype == np.float32
        assert_close(losses, want, 4, scale=1)


class TestLayouts:
    @pytest.mark.parametrize("axis", [0, 1, -1, -3])
    def test_the_class_axis(self, backend, rng, axis):
        last, y, s = np.float32(rng.standard_normal((6, 4, 5))), rng.integers(0, 5, (6, 4)), rng.random((6, 4))
        x = np.ascontiguousarray(np.moveaxis(last, -1, axis))
        call = fl.value_and_grad(fl.cross_entropy)
        want, slopes = call(last, y, sample_weight=s, device=backend)
        value, gradient = call(x, y, axis=axis, sample_weight=s, device=backend)
        assert_close(value, want, 2)
        assert_close(np.moveaxis(gradient, axis, -1), slopes, 2, scale=np.abs(slopes).max())
        soft = np.float32(rng.dirichlet(np.ones(5), (6, 4)))
        losses, _ = call(x, np.moveaxis(soft, -1, axis), axis=axis, reduction="none", device=backend)
        assert_close(losses, call(last, soft, reduction="none", device=backend)[0], 2)

    def test_a_gradient_goes_where_it_is_told(self, backend, rng):
        x, y = rng.standard_normal((9, 5)), rng.integers(0, 5, 9)
        value, fresh = fl.value_and_grad(fl.cross_entropy)(x, y, device=backend)
        for given in (
            np.empty((9, 5)),
            np.empty((9, 5), order="F"),
            np.empty((18, 5))[::-2],
            np.empty((5, 9)).T,
            np.empty((9, 5), ">f8"),
            np.empty((9, 5, 2))[..., 1],
        ):
            again, out = fl.value_and_grad(fl.cross_entropy, out=given)(x, y, device=backend)
            assert out is given
            assert_close(again, value, 1)
            assert_close(given.astype(np.float64), fresh, 1, scale=1)

    @pytest.mark.parametrize("name", CASES)
    def test_in_place(self, backend, rng, name):
        call = case(name, np.float64, rng)
        value, gradient = both(call, backend, reduction="none")
        again, out = fl.value_and_grad(call.loss, out=call.x)(
            call.x, call.target, **call.options, reduction="none", device=backend
        )
        assert out is call.x
        assert bits(again) == bits(value)
        assert bits(out) == bits(gradient)

    @pytest.mark.parametrize("name", CASES)
    def test_inputs_are_not_written(self, backend, rng, name):
        call = case(name, np.float64, rng)
        given = [call.x, call.target, *call.options.values()]
        given = [each for each in given if isinstance(each, np.ndarray)]
        before = [bits(each) for each in given]
        for each in given:
            each.flags.writeable = False
        both(call, backend)
        assert [bits(each) for each in given] == before

    def test_memory_maps(self, backend, rng, tmp_path):
        x, y = rng.standard_normal((9, 5)), rng.integers(0, 5, 9)
        for name, array in (("x", x), ("y", y)):
            np.save(tmp_path / f"{name}.npy", array)
        mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy"]
        out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.float64, (9, 5))
        value, gradient = fl.value_and_grad(fl.cross_entropy, out=out)(*mapped, device=backend)
        want, slopes = fl.value_and_grad(fl.cross_entropy)(x, y, device=backend)
        assert gradient is out
        assert (bits(value), bits(out)) == (bits(want), bits(slopes))


class TestNumbersThatMustComeOut:
    """Each as printed where it was published, to all its digits."""

    def test_the_tutorial_formula(self, backend):
        value = fl.binary_log_loss([0.0, 0, 1], [1, 0, 1], eps=1e-7, log_eps=1e-7, device=backend)
        assert value == pytest.approx(5.14164949, abs=5e-9)

    def test_keras_2(self, backend):
        p, y = np.array([1, 1, 0], np.float32), np.ones(3, np.float32)
        value = fl.binary_log_loss(p, y, eps=1e-7, log_eps=1e-7, device=backend)
        assert_close(value, 5.1416497230529785, 1)

    def test_keras_3(self, backend):
        p, y = np.array([1, 1, 0], np.float32), np.ones(3, np.float32)
        value = fl.binary_log_loss(p, y, eps=1e-7, device=backend)
        assert_close(value, 16.118096 / 3, 1)
        assert value == pytest.approx(5.3726988, rel=1e-7)

    def test_the_textbook(self, backend, rng):
        p, y = rng.random(100), rng.integers(0, 2, 100)
        want = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
        assert_close(fl.binary_log_loss(p, y, device=backend), want, 4)

    def test_log_p_is_bounded(self, backend):
        """By −100, as in PyTorch's BCELoss."""
        losses, _ = fl.value_and_grad(fl.log_loss)(np.eye(2), [0, 0], reduction="none", device=backend)
        np.testing.assert_array_equal(losses, [0, 100])
