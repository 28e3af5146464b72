"""What the tests of scores and of evaluations share."""

import dataclasses

import numpy as np


def rows_of(x, axis):
    """The rows of logits, in C order of their positions, in float64."""
    return np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]).astype(np.float64)


def positions(shape, axis):
    return tuple(np.delete(shape, axis))


def case(rng, shape=(2003, 331), axis=-1, ignored=0.1):
    """Logits whose targets they favour a little, and those targets, some ignored."""
    x = rng.standard_normal(shape, dtype=np.float32) * 2
    y = rng.integers(0, shape[axis], positions(shape, axis))
    np.put_along_axis(x, np.expand_dims(y, axis), 5, axis)
    x += rng.standard_normal(shape, dtype=np.float32)
    y[rng.random(y.shape) < ignored] = -100
    return x, y


def assert_merged(got, want):
    """The same, but for the rounding of float64 sums."""
    assert got.count == want.count
    np.testing.assert_allclose(got.sums, want.sums, rtol=1e-12, atol=1e-12)
    assert dataclasses.replace(got, sums=()) == dataclasses.replace(want, sums=())
