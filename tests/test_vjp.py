"""Unreduced losses and their vector-Jacobian products: cotangents of any sign, in place, without data."""

from typing import NamedTuple

import numpy as np
import pytest

import fusedloss as fl
from fusedloss.check import NO_INDEX
from fusedloss.vjp import Unreduced

BACKENDS = ["numpy", "cpu"]  # of arrays in host memory

N, C = 8, 10
COTANGENT = np.array([1, -2, 0, np.nan, 3, -0.125, 0.5, -0.25], np.float32)


def a_case(loss, rng):
    """What a loss takes, and its options."""
    x = rng.standard_normal((N, C)).astype(np.float32)
    p = rng.uniform(0.01, 0.99, (N, C)).astype(np.float32)
    return {
        fl.cross_entropy: (x, rng.integers(0, C, N), {"axis": -1}),
        fl.kl_divergence: (x, p, {"axis": -1}),
        fl.log_loss: (p, rng.integers(0, C, N), {"axis": -1, "eps": 1e-7, "normalize": True}),
        fl.binary_cross_entropy: (x, p, {}),
        fl.binary_log_loss: (p, p[::-1].copy(), {"eps": 1e-7}),
        fl.mse: (x, p, {}),
    }[loss]


ROWS = (fl.cross_entropy, fl.kl_divergence, fl.log_loss)
ELEMENTS = (fl.binary_cross_entropy, fl.binary_log_loss, fl.mse)


@pytest.mark.parametrize("loss", ROWS + ELEMENTS)
def test_value_and_vjp(loss, rng, backend):
    x, target, options = a_case(loss, rng)
    losses, gradient = fl.value_and_grad(loss)(x, target, reduction="none", device=backend, **options)
    cotangent = COTANGENT if loss in ROWS else np.broadcast_to(COTANGENT[:, None], x.shape)
    unreduced = Unreduced.of(loss, device=backend, **options)
    np.testing.assert_array_equal(unreduced.value(x, target), losses, strict=True)
    wanted = np.where(COTANGENT[:, None] == 0, 0, gradient * COTANGENT[:, None])
    got = unreduced.vjp(x, target, cotangent)
    # Scaled in the kernel, before a difference such as softmax − y is rounded, hence not the same last bits.
    np.testing.assert_allclose(got, wanted, rtol=2e-6, atol=2e-7, strict=True)
    out = x.copy()
    assert unreduced.vjp(out, target, cotangent, out) is out
    np.testing.assert_array_equal(out, got)


@pytest.mark.parametrize("loss", ELEMENTS)
@pytest.mark.parametrize("axis", [-1, 0])
def test_mean_axis(loss, axis, rng, backend):
    x, target, options = a_case(loss, rng)
    losses, gradient = fl.value_and_grad(loss)(x, target, reduction="none", device=backend, **options)
    unreduced = Unreduced.of(loss, mean_axis=axis, device=backend, **options)
    np.testing.assert_allclose(unreduced.value(x, target), losses.mean(axis), rtol=1e-6, strict=True)
    assert unreduced.result(x, target) == (losses.mean(axis).shape, np.float32)
    cotangent = rng.standard_normal(losses.mean(axis).shape).astype(np.float32)
    wanted = gradient * np.expand_dims(cotangent, axis) / x.shape[axis]
    np.testing.assert_allclose(unreduced.vjp(x, target, cotangent), wanted, rtol=2e-6, atol=2e-8, strict=True)


def test_zero_cotangent_hides_the_row(rng, backend):
    x, target, options = a_case(fl.cross_entropy, rng)
    x[2], x[5] = np.nan, np.inf
    cotangent = np.ones(N, np.float32)
    cotangent[[2, 5]] = 0
    gradient = Unreduced.of(fl.cross_entropy, device=backend, **options).vjp(x, target, cotangent)
    assert not gradient[[2, 5]].any()
    assert np.isfinite(gradient).all()


class Traced(NamedTuple):
    """What stands for an array while a framework traces."""

    shape: tuple[int, ...]
    dtype: type


def test_result_needs_no_data():
    logits, labels = Traced((2**20, 2**20), np.float16), Traced((2**20,), np.uint8)
    unreduced = Unreduced.of(fl.cross_entropy, axis=-1)
    assert unreduced.result(logits, labels) == ((2**20,), np.float32)
    with pytest.raises(fl.ShapeError, match=r"target has shape \(2,\), expected \(1048576,\)"):
        unreduced.result(logits, Traced((2,), np.uint8))
    with pytest.raises(fl.OptionError, match="label_smoothing is 2"):
        Unreduced.of(fl.cross_entropy, label_smoothing=2).result(logits, labels)


def test_json_keeps_everything():
    unreduced = Unreduced.of(fl.log_loss, axis=-2, eps=1e-7, normalize=True, ignore_index=NO_INDEX)
    assert Unreduced.from_json(unreduced.to_json()) == unreduced
    averaged = Unreduced.of(fl.binary_log_loss, mean_axis=np.int64(-1), label_smoothing=np.float32(0.1))
    assert Unreduced.from_json(averaged.to_json()) == averaged
    assert hash(averaged) == hash(Unreduced.from_json(averaged.to_json()))


def test_axes_from_the_end():
    assert Unreduced.of(fl.cross_entropy, axis=1).from_end(3) == Unreduced.of(fl.cross_entropy, axis=-2)
    assert Unreduced.of(fl.mse, mean_axis=0).from_end(2) == Unreduced.of(fl.mse, mean_axis=-2)
    outside = Unreduced.of(fl.cross_entropy, axis=7)
    assert outside.from_end(3) == outside


def test_no_index_is_not_named(rng, backend):
    x, target, options = a_case(fl.cross_entropy, rng)
    target[3] = -100
    unreduced = Unreduced.of(fl.cross_entropy, ignore_index=NO_INDEX, device=backend, **options)
    with pytest.raises(fl.TargetError, match=r"^target\[3\] is -100, expected a class in \[0, 10\)$"):
        unreduced.value(x, target)
