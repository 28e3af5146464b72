"""The activations against SciPy in float64: along any axis, of every dtype, into any array, and at the edges."""

import numpy as np
import pytest
import scipy.special
from kernel_cases import BFLOAT16, assert_close, bits, fewer, result_dtype

import fusedloss as fl

INF, NAN = np.inf, np.nan
ALONG = {"softmax": fl.softmax, "log_softmax": fl.log_softmax, "logsumexp": fl.logsumexp}
SHAPES = [(20, 7), (4, 32, 3), (3, 40)]
"""Few classes, an axis in the middle, and classes that are taken row by row."""


def truth(name, x, axis=-1):
    """What SciPy says in float64, and what a result's error is measured by.

    p = exp(z) has the absolute error of z as its relative one, half an ulp of |z| ~ |log p|, so its unit is p·|log p|.
    A logarithm is a difference, or a sum, of the maximum and others.
    """
    wide = x.astype(np.float64)
    want = scipy.special.expit(wide) if name == "sigmoid" else getattr(scipy.special, name)(wide, axis=axis)
    if name == "softmax":
        return want, scipy.special.entr(want)
    largest = np.where(np.isfinite(wide), np.abs(wide), 0).max(initial=1)
    return want, {"sigmoid": 0, "log_softmax": 1, "logsumexp": largest}[name]


@pytest.mark.parametrize("name", ALONG)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_as_scipy(backend, rng, name, shape, dtype):
    if dtype == np.float64 and shape == (3, 40):
        shape = (3, 4)
    x = (5 * rng.standard_normal(shape)).astype(dtype)
    axis = 1 if len(shape) == 3 else -1
    got = ALONG[name](x, axis, device=backend)
    want, scale = truth(name, x, axis)
    assert got.shape == want.shape
    assert got.dtype == dtype
    assert_close(got, want, 3, scale=scale[np.isfinite(want)] if name == "softmax" else scale)


@pytest.mark.parametrize("name", ALONG)
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_along_any_axis(backend, rng, name, axis):
    x = rng.standard_normal((3, 4, 2))
    want, scale = truth(name, x, axis)
    for given in (x, np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0)):
        for got in (ALONG[name](given, axis, device=backend), ALONG[name](given, axis=axis, device=backend)):
            assert_close(got, want, 3, scale=np.max(scale))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("softmax", np.float16), ("log_softmax", BFLOAT16), ("logsumexp", np.float16), ("sigmoid", BFLOAT16)],
)
def test_16_bits(backend, rng, name, dtype):
    """Computed in float32 and rounded once; logsumexp is not rounded to 16 bits at all."""
    x = (5 * rng.standard_normal((20, 7))).astype(dtype)
    got = getattr(fl, name)(x, device=backend)
    want, scale = truth(name, x)
    if name == "logsumexp":
        assert got.dtype == result_dtype(x) == np.float32
        assert_close(got, want, 2, scale=scale)
        return
    assert got.dtype == dtype
    assert_close(got, want, 0.51, scale=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid(backend, rng, dtype):
    """Relative accuracy on either side, where the small values are."""
    x = (30 * rng.standard_normal((40, 7))).astype(dtype)
    x.flat[:6] = INF, -INF, NAN, 0, -80, 80
    got = fl.sigmoid(x, device=backend)
    assert_close(got, truth("sigmoid", x)[0], 3)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got.flat[:4], [1, 0, NAN, 0.5])


class TestEdges:
    @pytest.mark.parametrize("classes", [7, 40])
    def test_infinite_rows(self, backend, rng, classes):
        """As SciPy: −inf masks a class; logsumexp of all −inf is −inf, with +inf it is +inf. Rows never meet."""
        x = rng.standard_normal((6, classes)).astype(np.float32)
        clean = {name: call(x, device=backend) for name, call in ALONG.items()}
        x[1], x[2, 3], x[3, 0], x[4, 1] = -INF, INF, NAN, -INF
        lse = fl.logsumexp(x, device=backend)
        np.testing.assert_array_equal(lse[1:4], [-INF, INF, NAN])
        for name in ("softmax", "log_softmax"):
            got = ALONG[name](x, device=backend)
            assert np.isnan(got[1:4]).all()
            want, scale = truth(name, x[4])
            assert_close(got[4], want, 3, scale=np.max(scale))
            assert bits(got[[0, 5]]) == bits(clean[name][[0, 5]])
        assert bits(lse[[0, 5]]) == bits(clean["logsumexp"][[0, 5]])

    def test_far_out(self, backend):
        x = np.array([[1e30, 1e30], [-1e30, -1e30], [1e6, 1e6 + 1], [3e38, -3e38]], np.float32)
        p = 1 / (1 + np.exp(1.0))
        assert_close(fl.softmax(x, device=backend), [[0.5, 0.5], [0.5, 0.5], [p, 1 - p], [1, 0]], 2)
        log_p = fl.log_softmax(x, device=backend)
        assert_close(log_p[:3], [[-np.log(2)] * 2, [-np.log(2)] * 2, [np.log(p), np.log(1 - p)]], 2)
        np.testing.assert_array_equal(log_p[3], [0, -INF])

    def test_one_class(self, backend):
        x = np.array([[3.5], [-1e30], [-INF], [NAN]], np.float32)
        np.testing.assert_array_equal(fl.softmax(x, device=backend), [[1], [1], [NAN], [NAN]])
        np.testing.assert_array_equal(fl.log_softmax(x, device=backend), [[0], [0], [NAN], [NAN]])
        np.testing.assert_array_equal(fl.logsumexp(x, device=backend), np.array([3.5, -1e30, -INF, NAN], np.float32))

    @pytest.mark.parametrize("name", ALONG)
    def test_no_rows_and_a_single_one(self, backend, rng, name):
        x = rng.standard_normal(7)
        got = ALONG[name](x, device=backend)
        want, scale = truth(name, x)
        assert got.shape == want.shape
        assert name != "logsumexp" or type(got) is np.float64
        assert_close(got, want, 2, scale=np.max(scale))
        empty = ALONG[name](np.zeros((0, 7)), device=backend)
        assert empty.shape == ((0,) if name == "logsumexp" else (0, 7))

    @pytest.mark.parametrize("number", [0.0, np.float64(0), np.array(0.0)], ids=["float", "scalar", "array"])
    def test_sigmoid_of_a_number(self, backend, number):
        got = fl.sigmoid(number, device=backend)
        assert type(got) is np.float64
        assert got == 0.5
        assert fl.sigmoid(np.zeros((0, 3)), device=backend).shape == (0, 3)


class TestOut:
    @pytest.mark.parametrize("name", ["softmax", "log_softmax", "sigmoid"])
    def test_of_any_layout_and_in_place(self, backend, rng, name):
        x = rng.standard_normal((9, 7)).astype(np.float32)
        call = getattr(fl, name)
        fresh = call(x, device=backend)
        for out in (
            np.empty((9, 7), np.float32),
            np.empty((7, 9), np.float32).T,
            np.empty((18, 7), np.float32)[::-2],
            np.empty((9, 7), ">f4"),
            x.copy(),
        ):
            assert call(x, out=out, device=backend) is out
            assert_close(out.astype(np.float32), fresh.astype(np.float64), 1)
        assert call(x, out=x, device=backend) is x
        assert bits(x) == bits(fresh)

    def test_of_logsumexp(self, backend, rng):
        x = rng.standard_normal((9, 7)).astype(np.float32)
        want = fl.logsumexp(x, device=backend)
        for out in (np.empty(9, np.float32), np.empty(18, np.float32)[::-2], np.empty(9, ">f4")):
            assert fl.logsumexp(x, out=out, device=backend) is out
            np.testing.assert_array_equal(out, want)

    def test_inputs_are_not_written(self, backend, rng):
        x = rng.standard_normal((9, 7)).astype(np.float32)
        before = bits(x)
        x.flags.writeable = False
        for call in (*ALONG.values(), fl.sigmoid):
            call(x, device=backend)
        assert bits(x) == before


@pytest.mark.usefixtures("every_thread")
@pytest.mark.parametrize("name", ALONG)
def test_threads_and_chunks_change_no_bit(backend, rng, name):
    x = rng.standard_normal((fewer(backend, 30_000, 300), 7)).astype(np.float32)
    results = set()
    for count in (1, 2, 5):
        fl.set_num_threads(count)
        results.add(bits(ALONG[name](x, device=backend)))
    parts = [ALONG[name](x[i], device=backend) for i in (slice(1), slice(1, 18), slice(18, None))]
    assert results == {bits(np.concatenate(parts))}
