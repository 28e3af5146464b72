"""Calls with arrays of a card: as with NumPy's, for any strides, dtypes and streams; what is wrong is said later."""

import math
import re

import ml_dtypes
import numpy as np
import pytest
from cards import KINDS, ByInterface, bits, host

import fusedloss as fl
from fusedloss.cuda import running
from fusedloss.cuda.arrays import CardArray

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
SHAPE, CLASSES = (5, 7, 3), 7
ON_CARD = ByInterface


@pytest.fixture(autouse=True)
def _nothing_pending():
    yield
    fl.synchronize()


def close(actual, expected, dtype=np.float32):
    tol = 1e-2 if np.dtype(dtype).itemsize == 2 else 3e-6
    np.testing.assert_allclose(host(actual).astype(float), np.asarray(expected, float), rtol=tol, atol=tol)


def strided(values):
    """The same values where neither leading nor trailing axes merge."""
    whole = np.zeros([2 * n for n in values.shape], values.dtype)
    view = whole[tuple(slice(None, None, 2) for _ in values.shape)]
    view[...] = values
    return view


def unaligned(values):
    raw = np.zeros(values.nbytes + 1, np.uint8)[1:]
    view = raw.view(values.dtype).reshape(values.shape)
    view[...] = values
    return view


LAYOUTS = [np.ascontiguousarray, strided, unaligned, np.asfortranarray, lambda v: v[::-1].copy()[::-1]]
IDS = ["contiguous", "strided", "unaligned", "fortran", "reversed"]


@pytest.fixture
def x(rng):
    return rng.normal(size=SHAPE).astype(np.float32)


@pytest.fixture
def y(rng):
    target = rng.integers(0, CLASSES, (5, 3))
    target[1, 2] = -100
    return target


def options(rng, name):
    """Every option that has arrays, or changes what is divided by."""
    weights = {
        "class_weight": rng.random(CLASSES), "sample_weight": rng.integers(0, 3, (5, 3)),
        "leading": rng.random(5).astype(np.float16), "broadcast": rng.random((1, 3)),
    }  # fmt: skip
    given = {
        "mean": {}, "sum": {"reduction": "sum"}, "none": {"reduction": "none"}, "batchmean": {"reduction": "batchmean"},
        "denominator": {"denominator": 5.0}, "smoothed": {"label_smoothing": 0.1},
        "class": {"class_weight": weights["class_weight"]},
        "smoothed class": {"class_weight": weights["class_weight"], "label_smoothing": 0.1},
        "sample": {"sample_weight": weights["sample_weight"]}, "leading": {"sample_weight": weights["leading"]},
        "broadcast": {"sample_weight": weights["broadcast"]},
        "both": {name: weights[name] for name in ("class_weight", "sample_weight")},
        "scaled": {"logit_scale": 0.5, "softcap": 3.0, "z_loss": 0.1},
    }  # fmt: skip
    return given[name]


OPTIONS = "mean sum none batchmean denominator smoothed class/smoothed class/sample/leading/broadcast/both/scaled"
OPTIONS = [*OPTIONS.partition(" class")[0].split(), "class", *OPTIONS.partition("class/")[2].split("/")]


def carried(given, kind=ON_CARD):
    return {name: kind(value) if isinstance(value, np.ndarray) else value for name, value in given.items()}


class TestLosses:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("name", OPTIONS)
    def test_cross_entropy(self, rng, x, y, name, kind):
        given = options(rng, name)
        expected = fl.value_and_grad(fl.cross_entropy)(x, y, axis=1, device="numpy", **given)
        loss, grad = fl.value_and_grad(fl.cross_entropy)(kind(x), kind(y), axis=1, **carried(given, kind))
        close(loss, expected[0])
        close(grad, expected[1])
        assert host(loss).shape == np.shape(expected[0])
        close(fl.cross_entropy(kind(x), kind(y), axis=1, **carried(given, kind)), expected[0])

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("lie", LAYOUTS, ids=IDS)
    def test_every_layout(self, x, y, lie, dtype):
        x = x.astype(dtype)
        expected = fl.value_and_grad(fl.cross_entropy)(x, y, axis=1, device="numpy")
        loss, grad = fl.value_and_grad(fl.cross_entropy)(ON_CARD(lie(x)), ON_CARD(lie(y)), axis=1)
        close(loss, expected[0])
        close(grad, expected[1], dtype)
        assert (loss.dtype, grad.dtype) == (expected[0].dtype, x.dtype)

    @pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.uint64])
    def test_integers(self, x, y, dtype):
        y = np.abs(y % CLASSES).astype(dtype)
        loss = fl.cross_entropy(ON_CARD(x), ON_CARD(strided(y)), axis=1)
        close(loss, fl.cross_entropy(x, y, axis=1, device="numpy"))

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("lie", LAYOUTS, ids=IDS)
    def test_soft_targets(self, rng, x, lie, dtype):
        soft = rng.dirichlet(np.ones(CLASSES), (5, 3)).transpose(0, 2, 1).astype(dtype)
        for loss in (fl.cross_entropy, fl.kl_divergence):
            expected = fl.value_and_grad(loss)(x, soft, axis=1, device="numpy")
            given = fl.value_and_grad(loss)(ON_CARD(x), ON_CARD(lie(soft)), axis=1)
            close(given[0], expected[0])
            close(given[1], expected[1])

    @pytest.mark.parametrize("reduction", ["mean", "sum", "none", "batchmean"])
    @pytest.mark.parametrize("weights", ["", "pos_weight", "sample_weight", "pos_weight sample_weight"])
    def test_elements(self, rng, x, weights, reduction):
        target = rng.integers(0, 2, SHAPE).astype(bool)
        given = {"pos_weight": rng.random(3), "sample_weight": rng.random(5).astype(np.float32)}
        given = {name: given[name] for name in weights.split()} | {"reduction": reduction}
        expected = fl.value_and_grad(fl.binary_cross_entropy)(x, target, device="numpy", **given)
        for lie in (np.asarray, strided):
            call = fl.value_and_grad(fl.binary_cross_entropy)
            loss, grad = call(ON_CARD(lie(x)), ON_CARD(lie(target)), **carried(given))
            close(loss, expected[0])
            close(grad, expected[1])

    def test_probabilities_and_predictions(self, rng, x):
        p, soft = rng.dirichlet(np.ones(CLASSES), (2, 20)).astype(np.float32)
        for loss in (fl.log_loss, fl.binary_log_loss, fl.mse):
            expected = fl.value_and_grad(loss)(p, soft, device="numpy")
            given = fl.value_and_grad(loss)(ON_CARD(p), ON_CARD(soft))
            close(given[0], expected[0])
            close(given[1], expected[1])

    @pytest.mark.parametrize("reduction", ["mean", "sum", "none", "batchmean"])
    def test_nothing(self, reduction):
        x, y = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
        for loss, target in ((fl.cross_entropy, y), (fl.mse, x)):
            expected = fl.value_and_grad(loss)(x, target, reduction=reduction, device="numpy")
            given = fl.value_and_grad(loss)(ON_CARD(x), ON_CARD(target), reduction=reduction)
            np.testing.assert_array_equal(host(given[0]), expected[0])
            assert host(given[1]).shape == (0, 4)

    def test_all_ignored(self):
        x, y = np.ones((3, 4), np.float32), np.full(3, -100)
        loss, grad = fl.value_and_grad(fl.cross_entropy)(ON_CARD(x), ON_CARD(y))
        assert math.isnan(host(loss))
        assert not host(grad).any()

    def test_lists_follow_the_logits(self, rng):
        x = rng.normal(size=(3, 4)).astype(np.float32)
        given = {"class_weight": [1.0, 2, 3, 4], "sample_weight": 2.0}
        loss = fl.cross_entropy(ON_CARD(x), [0, 3, 1], **given)
        assert isinstance(loss, CardArray)
        close(loss, fl.cross_entropy(x, [0, 3, 1], device="numpy", **given))
        close(fl.cross_entropy(ON_CARD(x[:0]), [], reduction="sum"), 0)
        assert isinstance(fl.mse([0.0, 1.0], [1.0, 2.0]), np.float64)


class TestOut:
    @pytest.mark.parametrize("lie", LAYOUTS, ids=IDS)
    def test_into_a_buffer(self, x, y, lie):
        out = lie(np.zeros_like(x))
        given = ON_CARD(out)
        _, grad = fl.value_and_grad(fl.cross_entropy, out=given)(ON_CARD(x), ON_CARD(y), axis=1)
        assert grad is given
        fl.synchronize()
        close(out, fl.value_and_grad(fl.cross_entropy)(x, y, axis=1, device="numpy")[1])

    @pytest.mark.parametrize("lie", LAYOUTS, ids=IDS)
    def test_in_place(self, x, y, lie):
        expected = fl.value_and_grad(fl.cross_entropy)(x, y, axis=1, device="numpy")
        given = ON_CARD(lie(x))
        loss, grad = fl.value_and_grad(fl.cross_entropy, out=given)(given, ON_CARD(y), axis=1)
        assert grad is given
        fl.synchronize()
        close(loss, expected[0])
        close(given.array, expected[1])

    @pytest.mark.parametrize("lie", LAYOUTS, ids=IDS)
    def test_of_activations(self, x, lie):
        for activation in (fl.softmax, fl.log_softmax, fl.sigmoid):
            given = ON_CARD(lie(x.copy()))
            assert activation(given, out=given) is given
            fl.synchronize()
            close(given.array, activation(x, device="numpy"))
        given = ON_CARD(lie(np.zeros(SHAPE[:-1], np.float32)))
        assert fl.logsumexp(ON_CARD(x), out=given) is given
        fl.synchronize()
        close(given.array, fl.logsumexp(x, device="numpy"))

    def test_that_is_unfit(self, x, y):
        call = (ON_CARD(x), ON_CARD(y))
        fixed = x.copy()
        fixed.flags.writeable = False
        memory = np.zeros(2 * x.size, np.float32)
        for out, error, message in (
            (ON_CARD(fixed), fl.OptionError, "out is read-only, expected a writable array"),
            (ON_CARD(x[:1]), fl.ShapeError, "out has shape (1, 7, 3), expected (5, 7, 3)"),
            (ON_CARD(x.astype(np.float64)), fl.DTypeError, "out has dtype float64, expected float32"),
            (ON_CARD(np.broadcast_to(x[:1], SHAPE)), fl.OptionError, "out is read-only"),
            (ON_CARD(x[:, ::-1]), fl.OptionError, "out overlaps logits in part"),
        ):
            with pytest.raises(error, match=re.escape(message)):
                fl.value_and_grad(fl.cross_entropy, out=out)(*call, axis=1)
        first, second = memory[: x.size].reshape(SHAPE), memory[1 : x.size + 1].reshape(SHAPE)
        with pytest.raises(fl.OptionError, match="out overlaps x in part, expected memory of its own, or out=x"):
            fl.softmax(ON_CARD(first), out=ON_CARD(second))


class TestOthers:
    @pytest.mark.parametrize("lie", LAYOUTS, ids=IDS)
    def test_activations(self, x, lie):
        for activation in (fl.softmax, fl.log_softmax, fl.logsumexp):
            close(activation(ON_CARD(lie(x)), axis=1), activation(x, axis=1, device="numpy"))
        close(fl.sigmoid(ON_CARD(lie(x))), fl.sigmoid(x, device="numpy"))

    @pytest.mark.parametrize("lie", LAYOUTS, ids=IDS)
    def test_scores(self, x, y, lie):
        given, expected = fl.score(ON_CARD(lie(x)), ON_CARD(lie(y)), axis=1), fl.score(x, y, axis=1, device="numpy")
        for name in ("nll", "log_normalizer", "prediction", "confidence", "entropy", "rank", "brier"):
            close(getattr(given, name), getattr(expected, name))
            assert getattr(given, name).dtype == getattr(expected, name).dtype
        assert fl.score(ON_CARD(x), axis=1).nll is None
        given, expected = (
            fl.score_binary(ON_CARD(lie(x)), ON_CARD(lie(x > 0))),
            fl.score_binary(x, x > 0, device="numpy"),
        )
        for name in ("nll", "probability", "prediction", "brier"):
            close(getattr(given, name), getattr(expected, name))

    def test_a_single_row(self):
        x = np.zeros(4, np.float32)
        assert host(fl.score(ON_CARD(x), ON_CARD(np.array(2))).prediction).shape == ()
        assert host(fl.softmax(ON_CARD(x))).shape == (4,)
        assert host(fl.mse(ON_CARD(x[0:1].reshape(())), ON_CARD(x[1:2].reshape(())))) == 0

    @pytest.mark.parametrize("lie", LAYOUTS, ids=IDS)
    @pytest.mark.parametrize("chunk", [1, 4, 1 << 20])
    def test_evaluations(self, rng, x, y, lie, chunk, monkeypatch):
        monkeypatch.setattr(running, "_CHUNK", chunk)
        monkeypatch.setattr(running, "_TALLY_ROWS", 2)
        weight = rng.random((5, 3))
        for options in ({}, {"sample_weight": weight}):
            given = fl.evaluate(ON_CARD(lie(x)), ON_CARD(lie(y)), axis=1, **carried(options))
            assert isinstance(given.sums[0], float)
            np.testing.assert_allclose(given.sums, fl.evaluate(x, y, axis=1, device="numpy", **options).sums, rtol=1e-6)
            leading = {name: value[..., None] for name, value in options.items()}
            x3 = np.ascontiguousarray(x.transpose(0, 2, 1))
            given = fl.evaluate_binary(ON_CARD(lie(x3)), ON_CARD(lie(x3 > 0)), **carried(leading))
            expected = fl.evaluate_binary(x3, x3 > 0, device="numpy", **leading)
            np.testing.assert_allclose(given.sums, expected.sums, rtol=1e-6)

    def test_evaluations_of_nothing(self):
        x, y = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
        assert fl.evaluate(ON_CARD(x), ON_CARD(y)).count == 0
        assert fl.evaluate_binary(ON_CARD(x), ON_CARD(x)).count == 0

    def test_evaluations_of_scores(self, x, y):
        scores = fl.score(ON_CARD(x), ON_CARD(y), axis=1)
        for target in (y, ON_CARD(y)):
            given = fl.Evaluation.from_scores(scores, target)
            np.testing.assert_allclose(given.sums, fl.evaluate(x, y, axis=1, device="numpy").sums, rtol=1e-6)
        scores = fl.score_binary(ON_CARD(x), ON_CARD(x > 0))
        given = fl.BinaryEvaluation.from_scores(scores, ON_CARD(x > 0))
        np.testing.assert_allclose(given.sums, fl.evaluate_binary(x, x > 0, device="numpy").sums, rtol=1e-6)


def test_any_repeat_gives_the_same_bits(x, y):
    call = fl.value_and_grad(fl.cross_entropy)
    first, second = (call(ON_CARD(x), ON_CARD(y), axis=1) for _ in range(2))
    assert [bits(each) for each in first] == [bits(each) for each in second]
