"""What holds for any numbers: shifts, sums and derivatives of every loss, and bits that nothing else may change."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from kernel_cases import HOST, assert_close, bits

import fusedloss as fl

# `backend` is a string: examples may share it.
# a backend is a case of its own, which Hypothesis knows of marks alone
some = settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
)
few = settings(some, max_examples=15)

STEP = 2.0**-16
"""h of a central difference: it errs by h²/6·f''' ~ 1e-10 and rounds by eps·f/h ~ 1e-10."""


@st.composite
def logits(draw, rows=4, classes=(1, 2, 3, 5, 8, 17, 32), bound=20.0):
    """A few rows of few classes."""
    shape = draw(st.integers(1, rows)), draw(st.sampled_from(classes))
    return draw(arrays(np.float64, shape, elements=st.floats(-bound, bound, width=32), fill=st.just(0.5)))


@st.composite
def soft_targets(draw, shape):
    """Distributions, with zeros."""
    y = draw(arrays(np.float64, shape, elements=st.floats(0, 1, width=16), fill=st.nothing()))
    y[:, 0] += 0.125
    return y / y.sum(axis=1, keepdims=True)


@st.composite
def hard_targets(draw, shape):
    return np.array(draw(st.lists(st.integers(0, shape[1] - 1), min_size=shape[0], max_size=shape[0])))


def rows_of(loss, x, target, device, **options):
    """Row losses and the gradient of their sum."""
    return fl.value_and_grad(loss)(x, target, reduction="none", device=device, **options)


def differentiated(loss, x, target, device, **options):
    """The gradient of a row's, or of an element's, loss by central differences, all of them in two calls."""
    row, size = x.shape[0], x.shape[1]
    up, down = (np.repeat(x, size, axis=0) + h * np.tile(np.eye(size), (row, 1)) for h in (STEP, -STEP))
    targets = np.repeat(target, size, axis=0)
    weight = {name: np.repeat(w, size, axis=0) for name, w in options.items() if name == "sample_weight"}
    above, below = (rows_of(loss, each, targets, device, **(options | weight))[0] for each in (up, down))
    change = (above - below) / ((up - down).max(axis=1)[:, None] if above.ndim == 2 else (up - down).max(axis=1))
    return (change.sum(axis=1) if change.ndim == 2 else change).reshape(x.shape)


def assert_derivative(loss, x, target, device, **options):
    _, gradient = rows_of(loss, x, target, device, **options)
    want = differentiated(loss, x, target, device, **options)
    np.testing.assert_allclose(gradient, want, rtol=1e-6, atol=2e-8)


@st.composite
def cross_entropy_options(draw, shape):
    """All of them, but for a plain half of the examples."""
    weight = {"sample_weight": draw(arrays(np.float64, shape[0], elements=st.floats(0, 2, width=16)))}
    if draw(st.booleans()):
        return weight
    return weight | {
        "class_weight": draw(arrays(np.float64, shape[1], elements=st.floats(0, 2, width=16))),
        "label_smoothing": draw(st.floats(0.125, 1)),
        "z_loss": draw(st.floats(0, 1)),
        "logit_scale": draw(st.floats(-2, 2)),
        "softcap": draw(st.floats(2, 10)),
    }


class TestDerivatives:
    """Gradients are those of finite differences in float64."""

    @some
    @given(st.data())
    @pytest.mark.parametrize("targets", [hard_targets, soft_targets])
    def test_cross_entropy(self, backend, targets, data):
        x = data.draw(logits(bound=4))
        options = data.draw(cross_entropy_options(x.shape))
        assert_derivative(fl.cross_entropy, x, data.draw(targets(x.shape)), backend, **options)

    @HOST  # a card is held against float64 autograd for as many classes: a difference a class would take it minutes
    @few
    @given(st.data())
    @pytest.mark.parametrize("targets", [hard_targets, soft_targets])
    def test_of_many_classes(self, backend, targets, data):
        x = data.draw(logits(rows=2, classes=(260,), bound=4))
        assert_derivative(fl.cross_entropy, x, data.draw(targets(x.shape)), backend, z_loss=0.5)

    @few
    @given(st.data())
    def test_kl_divergence(self, backend, data):
        x = data.draw(logits(bound=4))
        weight = data.draw(arrays(np.float64, len(x), elements=st.floats(0, 2, width=16)))
        assert_derivative(fl.kl_divergence, x, data.draw(soft_targets(x.shape)), backend, sample_weight=weight)

    @few
    @given(st.data())
    @pytest.mark.parametrize("targets", [hard_targets, soft_targets])
    @pytest.mark.parametrize("normalize", [False, True])
    def test_log_loss(self, backend, targets, normalize, data):
        x = data.draw(logits(bound=1))
        options = {"class_weight": np.linspace(0.5, 2, x.shape[1]), "normalize": normalize}
        options |= {"log_eps": data.draw(st.sampled_from([0.0, 0.01])), "eps": data.draw(st.sampled_from([0.0, 0.001]))}
        p = 0.05 + 0.45 * (x + 1)  # in [0.05, 0.95]; divided by the sum of 40 of them, still above eps
        assert_derivative(fl.log_loss, p, data.draw(targets(x.shape)), backend, **options)

    @few
    @given(st.data())
    def test_elements(self, backend, data):
        x = data.draw(logits(classes=(2, 5, 17), bound=4))
        y = data.draw(arrays(np.float64, x.shape, elements=st.floats(0, 1, width=16)))
        weights = {"sample_weight": data.draw(arrays(np.float64, len(x), elements=st.floats(0, 2, width=16)))}
        q, smoothing = np.linspace(0, 2, x.shape[1]), data.draw(st.floats(0, 1))
        assert_derivative(fl.mse, x, y, backend, **weights)
        weights["label_smoothing"] = smoothing
        assert_derivative(fl.binary_cross_entropy, x, y, backend, pos_weight=q, **weights)
        p = 0.5 + x / 10  # in [0.1, 0.9]
        log_eps = data.draw(st.sampled_from([0.0, 0.01]))
        assert_derivative(fl.binary_log_loss, p, y, backend, log_eps=log_eps, eps=0.01, **weights)


class TestShifts:
    @some
    @given(st.data())
    def test_a_constant_added_to_a_row_changes_nothing(self, backend, data):
        """Of logits that are sixteenths the shift rounds nothing, in float32 up to 2**19."""
        shape = data.draw(st.tuples(st.integers(1, 4), st.sampled_from([1, 3, 17, 40])))
        x = data.draw(arrays(np.int32, shape, elements=st.integers(-320, 320))) / np.float32(16)
        shift = np.float32(data.draw(st.integers(-(2**19), 2**19)))
        for target in (data.draw(hard_targets(shape)), np.full(shape, 1 / shape[1], np.float32)):
            losses, gradient = rows_of(fl.cross_entropy, x.astype(np.float32), target, backend)
            again, same = rows_of(fl.cross_entropy, (x + shift).astype(np.float32), target, backend)
            assert_close(again, losses, 2, scale=1)
            assert_close(same, gradient, 2, scale=1)

    @some
    @given(logits(), st.integers(-1000, 1000))
    def test_of_activations(self, backend, x, shift):
        """logsumexp shifts along; softmax does not. A float64 of up to 20 keeps 42 bits beside 1000."""
        moved = x + shift
        back = moved - shift
        assert_close(fl.logsumexp(moved, device=backend), fl.logsumexp(back, device=backend) + shift, 2, scale=1)
        assert_close(fl.softmax(moved, device=backend), fl.softmax(back, device=backend), 4)


class TestSums:
    @some
    @given(st.data())
    def test_a_gradient_row_adds_up_to_nothing(self, backend, data):
        """Σ (Σy·p − y) = 0: each of C terms has an ulp of rounding. z_loss and softcap aside, that is."""
        x = data.draw(logits())
        tolerance = 4 * np.finfo(np.float64).eps * np.sqrt(x.shape[1])
        for loss, target in (
            (fl.cross_entropy, data.draw(hard_targets(x.shape))),
            (fl.cross_entropy, data.draw(soft_targets(x.shape))),
            (fl.kl_divergence, data.draw(soft_targets(x.shape))),
        ):
            _, gradient = rows_of(loss, x, target, backend)
            assert np.abs(gradient.sum(axis=1)).max() <= tolerance

    @some
    @given(logits())
    def test_softmax_adds_up_to_one(self, backend, x):
        """Σ exp adds C terms one by one, and errs by half an ulp a term at most; p and its sum, by an ulp more each."""
        tolerance = np.finfo(np.float64).eps * (x.shape[1] / 2 + 2)
        assert all(abs(math.fsum(row) - 1) <= tolerance for row in fl.softmax(x, device=backend))

    @some
    @given(logits())
    def test_log_softmax_is_the_logarithm_of_softmax(self, backend, x):
        """p has an error of |log p| ulp, which is log p's own."""
        log_p = fl.log_softmax(x, device=backend)
        assert_close(np.log(fl.softmax(x, device=backend)), log_p, 2, scale=1)
        assert (log_p <= 0).all()
        assert_close(x - fl.logsumexp(x, device=backend)[:, None], log_p, 2, scale=np.abs(x).max() + 4)

    @some
    @given(logits())
    def test_a_distribution_does_not_diverge_from_itself(self, backend, x):
        """KL(p‖p) = 0 but for the rounding of p, whose logarithms are up to 40.

        The gradient is e·(Σp/d) - e/d: the quotients, the products and Σp each round alike in many equal classes.
        """
        divergence, gradient = rows_of(fl.kl_divergence, x, fl.softmax(x, device=backend), backend)
        np.testing.assert_allclose(divergence, 0, atol=1e-14)
        np.testing.assert_allclose(gradient, 0, atol=2e-15)

    @some
    @given(logits())
    def test_a_cross_entropy_is_no_less_than_the_entropy(self, backend, x):
        y = fl.softmax(-x, device=backend)
        losses, _ = rows_of(fl.cross_entropy, x, y, backend)
        entropies, _ = rows_of(fl.cross_entropy, -x, y, backend)
        divergences, _ = rows_of(fl.kl_divergence, x, y, backend)
        assert (losses >= entropies - 1e-14).all()
        assert_close(divergences, losses - entropies, 4, scale=40)


class TestBits:
    @some
    @given(st.data())
    def test_one_hot_is_hard(self, backend, data):
        x = data.draw(logits())
        index = data.draw(hard_targets(x.shape))
        soft = np.eye(x.shape[1])[index]
        options = data.draw(cross_entropy_options(x.shape))
        assert bits(rows_of(fl.cross_entropy, x, index, backend, **options)[0]) == bits(
            rows_of(fl.cross_entropy, x, soft, backend, **options)[0]
        )

    @some
    @given(st.data())
    def test_chunks_and_threads_change_none(self, backend, small_blocks, data):
        x = data.draw(logits(rows=20, classes=(1, 5, 17, 260)))
        cut, count = data.draw(st.integers(0, len(x))), data.draw(st.sampled_from([1, 2, 5]))
        for target in (data.draw(hard_targets(x.shape)), x / 32 + 1):
            fl.set_num_threads(3)
            whole = rows_of(fl.cross_entropy, x, target, backend)
            fl.set_num_threads(count)
            parts = [rows_of(fl.cross_entropy, x[i], target[i], backend) for i in (slice(cut), slice(cut, None))]
            assert [bits(np.concatenate(each)) for each in zip(*parts, strict=True)] == [bits(each) for each in whole]
