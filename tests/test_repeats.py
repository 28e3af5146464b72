"""Calls that repeat one before: what was decided for a call serves the next one, and nothing else of it does."""

import weakref

import numpy as np
import pytest

import fusedloss as fl
from fusedloss import repeats

BOTH = fl.value_and_grad(fl.cross_entropy)


@pytest.fixture(autouse=True)
def _none_before():
    repeats._decided.clear()


@pytest.fixture
def arrays(rng):
    """Make logits and targets of the same forms, but other values."""

    def some(dtype=np.float32):
        return rng.standard_normal((32, 10)).astype(dtype), rng.integers(0, 10, 32)

    return some


def first(loss, x, target, **options):
    """The same calls where none was before."""
    kept = dict(repeats._decided)
    repeats._decided.clear()
    result = loss(x, target, **options)
    repeats._decided.clear()
    repeats._decided.update(kept)
    return result


@pytest.mark.parametrize("reduction", ["mean", "sum", "batchmean"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_other_arrays(arrays, dtype, reduction):
    for _ in range(3):
        x, target = arrays(dtype)
        target[:3] = -100
        got, (value, grad) = fl.cross_entropy(x, target, reduction=reduction), BOTH(x, target, reduction=reduction)
        same, gradient = first(BOTH, x, target, reduction=reduction)
        assert got == first(fl.cross_entropy, x, target, reduction=reduction) == value == same
        assert got.dtype == value.dtype == (np.float64 if dtype == np.float64 else np.float32)
        np.testing.assert_array_equal(grad, gradient)
        assert grad.dtype == dtype
    assert len(repeats._decided) == 2


def test_other_options_and_forms(arrays, rng):
    x, target = arrays()
    soft = rng.random((32, 10)).astype(np.float32)
    calls = [
        (x, target, {}), (x, target, {"ignore_index": 3}), (x, target, {"label_smoothing": 0.1}), (x, soft, {}),
        (x[::-1], target, {}), (x[:, ::-1], target, {}), (x, target[::-1], {}), (x, target.astype(np.int32), {}),
        (x, target.reshape(8, 4).T.ravel(), {}), (x.T, target, {"axis": 0}), (x, target, {"denominator": 7.0}),
        (x[:16], target[:16], {}), (x.reshape(4, 8, 10), target.reshape(8, 4).T, {}),
        (x, target, {"sample_weight": np.arange(32.0)}), (x, target, {"class_weight": tuple(range(10))}),
        (x, target, {"reduction": "none"}), (x, target, {"device": "numpy"}),
    ]  # fmt: skip
    losses = [first(fl.cross_entropy, x, y, **options) for x, y, options in calls]
    pairs = [first(BOTH, x, y, **options) for x, y, options in calls]
    for _ in range(2):
        for (x, y, options), loss, (value, gradient) in zip(calls, losses, pairs, strict=True):
            np.testing.assert_array_equal(fl.cross_entropy(x, y, **options), loss, strict=True)
            again = BOTH(x, y, **options)
            np.testing.assert_array_equal(again[0], value, strict=True)
            np.testing.assert_array_equal(again[1], gradient, strict=True)


def test_soft_targets_of_a_divergence(rng):
    loss = fl.value_and_grad(fl.kl_divergence)
    for _ in range(2):
        x, target = rng.standard_normal((5, 10)).astype(np.float32), rng.dirichlet(np.ones(10), 5).astype(np.float32)
        (value, grad), (same, gradient) = loss(x, target), first(loss, x, target)
        assert value == same
        np.testing.assert_array_equal(grad, gradient)
    assert len(repeats._decided) == 1


def test_into_a_buffer_and_in_place(arrays):
    x, target = arrays()
    want = first(BOTH, x, target)
    for _ in range(2):
        for buffer in (np.empty((32, 10), np.float32), np.empty((32, 20), np.float32)[:, ::2], x.copy()):
            logits = buffer if np.array_equal(buffer, x) else x
            loss, grad = fl.value_and_grad(fl.cross_entropy, out=buffer)(logits, target)
            assert grad is buffer
            assert loss == want[0]
            np.testing.assert_array_equal(grad, want[1])
    assert len(repeats._decided) == 3


@pytest.mark.parametrize("classes", [10, 900])
def test_into_a_buffer_that_lies_elsewhere(rng, classes):
    """What is written past the caches must lie at a multiple of its size, whatever the buffer before."""
    rows = 3_000_000 // classes
    x, target = rng.standard_normal((rows, classes)).astype(np.float32), rng.integers(0, classes, rows)
    memory = np.empty(x.nbytes + 64, np.uint8)
    want = first(BOTH, x, target)[1]
    for start in (0, 4, 1, 60, 0):
        buffer = memory[start : start + x.nbytes].view(np.float32).reshape(x.shape)
        buffer[...] = 7
        fl.value_and_grad(fl.cross_entropy, out=buffer)(x, target)
        np.testing.assert_array_equal(buffer, want)


def test_a_buffer_that_is_refused(arrays):
    memory = np.zeros((33, 10), np.float32)
    x, target = memory[:32], arrays()[1]
    wrong = [
        (memory[1:], "overlaps logits in part"),
        (np.zeros((32, 11), np.float32), "out has shape"),
        (np.zeros((32, 10)), "out has dtype"),
        (read_only := np.zeros((32, 10), np.float32), "read-only"),
        (target.view(np.float32)[:20].reshape(2, 10), "out has shape"),
    ]
    read_only.flags.writeable = False
    fl.value_and_grad(fl.cross_entropy, out=np.zeros((32, 10), np.float32))(x, target)
    for out, message in wrong:
        with pytest.raises(fl.FusedLossError, match=message):
            fl.value_and_grad(fl.cross_entropy, out=out)(x, target)


def test_gradients_are_new_arrays(arrays):
    x, target = arrays()
    BOTH(x, target)
    grads = [BOTH(x, target)[1] for _ in range(2)]
    assert not np.shares_memory(*grads)
    assert all(grad.base is None for grad in grads)


def test_a_target_that_is_wrong(arrays):
    x, target = arrays()
    for loss in (fl.cross_entropy, BOTH):
        loss(x, target)
    target[7] = 10
    for loss in (fl.cross_entropy, BOTH):
        with pytest.raises(fl.TargetError, match=r"target\[7\] is 10"):
            loss(x, target)


def test_an_option_that_is_wrong_but_equal_to_one_that_is_not(arrays):
    x, target = arrays()
    fl.cross_entropy(x, target, axis=1)
    with pytest.raises(fl.OptionError, match="axis is 1.0"):
        fl.cross_entropy(x, target, axis=1.0)


def test_an_option_that_changes(arrays):
    """An object may say something else when it is seen again."""

    class Option:
        smoothing = 0.0

        def __float__(self):
            return self.smoothing

    x, target = arrays()
    option = Option()
    for option.smoothing in (0.0, 0.5):
        want = fl.cross_entropy(x, target, label_smoothing=option.smoothing)
        assert fl.cross_entropy(x, target, label_smoothing=option) == want


def test_nothing_to_average(arrays):
    x, target = arrays()
    fl.cross_entropy(x, target)
    BOTH(x, target)
    target[:] = -100
    loss, grad = BOTH(x, target)
    assert np.isnan(loss)
    assert np.isnan(fl.cross_entropy(x, target))
    assert not grad.any()


@pytest.mark.usefixtures("every_thread")
@pytest.mark.parametrize("shape", [(2003, 300), (40_000, 10), (50, 60, 70)])
def test_many_blocks_on_any_number_of_threads(rng, shape):
    shared = {"axis": 1}
    want = None
    for threads in (1, 2, 5):
        fl.set_num_threads(threads)
        for _ in range(2):
            x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
            target = np.random.default_rng(1).integers(0, shape[1], shape[:1] + shape[2:])
            want = want or first(BOTH, x, target, **shared)
            loss, (value, grad) = fl.cross_entropy(x, target, **shared), BOTH(x, target, **shared)
            assert loss == value == want[0]
            np.testing.assert_array_equal(grad, want[1])
    assert len(repeats._decided) == 2
    target[-1] = shape[1]
    with pytest.raises(fl.TargetError, match=f" is {shape[1]}"):
        BOTH(x, target, **shared)


def test_they_are_few_and_keep_no_array(arrays):
    x, target = arrays()
    BOTH(x, target)
    kept = [weakref.ref(each) for each in (x, target, BOTH(x, target)[1])]
    del x, target
    assert not any(each() is not None for each in kept)
    for rows in range(1, 2 * repeats._MOST):
        fl.cross_entropy(np.zeros((rows, 3), np.float32), np.zeros(rows, int))
    assert 0 < len(repeats._decided) <= repeats._MOST
