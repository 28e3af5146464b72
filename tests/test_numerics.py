"""The formulas of the CPU's vectors, against float64 or more."""

import numpy as np
import pytest
from fusedloss.kernels import jit, numerics, simd
from fusedloss.kernels.calls import address
from fusedloss.kernels.jit import POLICY, inline
from fusedloss.kernels.memory import load, store
from fusedloss.kernels.roots import table
from fusedloss.kernels.simd import Format
from numba import njit

TABLES = [
    pytest.param(real, table(real, bits), id=f"{real.__name__}-{bits}")
    for real in (np.float32, np.float64)
    for bits in (128, 256, 512)
    if bits == 128 or (bits <= jit.registers() and table(real, bits))
]


def each(function, real, registers, t):
    """The values of a function at so many t, vectors of so many registers at a time."""
    lanes, code = registers * 64 // np.dtype(real).itemsize, "f4" if real is np.float32 else "f8"
    fmt = Format(code, lanes, code)

    @njit(**POLICY)
    def fill(t, out, n):
        for k in range(0, n, lanes):
            store(fmt, out, k, function(load(fmt, t, k)))

    padded = np.zeros(-(-t.size // lanes) * lanes, real)
    padded[: t.size] = t
    out = np.empty_like(padded)
    fill(address(padded), address(out), padded.size)
    return out[: t.size]


def arguments(real, rng):
    """Of results that are normal: many of some size, and small ones."""
    t = -rng.exponential(12.0, 100_000).astype(real)
    return np.concatenate([t[t > numerics.LEAST[real] + 1], -np.geomspace(1e-30, 1, 1000, dtype=real)])


def ulps(got, t, real=None):
    """How far off e^t."""
    want = np.exp(t.astype(np.longdouble))
    return np.abs(got - want) / np.spacing(want.astype(real or t.dtype)).astype(np.longdouble)


@pytest.mark.parametrize(("real", "table"), TABLES)
class TestExponential:
    """e^t as one value."""

    def exponential(self, real, table, t):
        if table is None:
            return each(numerics.exponential(inline, simd, real), real, 1, t)
        return each(numerics.table_exponential(inline, simd, real, table), real, 1, t)

    def test_within_one_ulp_and_a_tenth(self, real, table, rng):
        t = arguments(real, rng)
        assert ulps(self.exponential(real, table, t), t).max() <= 1.1

    def test_ends(self, real, table):
        t = np.array([0.0, -0.0, numerics.LEAST[real], -np.inf, np.nan], real)
        np.testing.assert_array_equal(self.exponential(real, table, t), [1, 1, 0, 0, np.nan])


@pytest.mark.parametrize(("real", "table"), TABLES)
@pytest.mark.parametrize("registers", [1, 4])
class TestSummand:
    """e^(z - ref) as a product of two."""

    def product(self, real, table, registers, z, *, binary=False, ref=0.0):
        factors = numerics.summand(inline, simd, real, table, binary=binary)
        origin = numerics.origin(inline, simd, real, table, binary=binary)
        base = real(ref)

        @inline
        def product(z):
            away, least, raised = origin(base)
            a, b = factors(simd.maximum(least, z - away), raised)
            return a * b

        return each(product, real, registers, z)

    def test_within_three_ulp(self, real, table, registers, rng):
        t = arguments(real, rng)
        assert np.all(ulps(self.product(real, table, registers, t), t) <= 3 - t / 16)

    def test_one_at_zero_and_nothing_at_the_least(self, real, table, registers):
        least = real(numerics.LEAST[real])
        got = self.product(real, table, registers, np.array([0.0, -0.0, least, -np.inf, np.nan], real))
        np.testing.assert_array_equal(got, [1, 1, 0, 0, np.nan])

    def test_nearly_nothing_near_the_least(self, real, table, registers):
        t = np.linspace(numerics.LEAST[real], numerics.LEAST[real] + 0.7, 1000, dtype=real)
        got = self.product(real, table, registers, t)
        assert np.all((got >= 0) & (got <= 2 * np.finfo(real).tiny))

    @pytest.mark.parametrize("ref", [0.7, -4.9e4, 1e30])
    def test_binary_ones_divided_by_that_of_the_reference(self, real, table, registers, rng, ref):
        ref = real(ref)
        z = np.concatenate([[ref], ref + arguments(real, rng)])
        t = z.astype(np.longdouble) - ref
        got = self.product(real, table, registers, z, binary=True, ref=ref)
        assert 0.7 < got[0] < 1.42
        assert np.all(ulps(got.astype(np.longdouble) / got[0], t, real) <= 5 - t / 4)

    @pytest.mark.parametrize("ref", [-11.3, 4.9e4, 1e6])
    def test_binary_ones_of_nothing(self, real, table, registers, ref):
        z = np.array([-np.inf, np.float64(ref) - 2000, np.nan], real)
        got = self.product(real, table, registers, z, binary=True, ref=ref)
        np.testing.assert_array_equal(got, [0, 0, np.nan])


@pytest.mark.parametrize(("real", "bound"), [(np.float32, 1.25e-10), (np.float64, 2.0**-52)])
@pytest.mark.parametrize("registers", [1, 8])
class TestLogarithm:
    """log x in float64, for results in float32 or float64."""

    def test_relative_to_itself(self, real, bound, registers, rng):
        near = np.concatenate([1 - np.geomspace(1e-15, 0.5, 3000), 1 + np.geomspace(1e-15, 1, 3000)])
        x = np.concatenate([near, np.linspace(0.7001, 1.42, 5000), 10.0 ** rng.uniform(-307, 307, 20_000)])
        got = each(numerics.logarithm(inline, simd, real), np.float64, registers, x)
        assert np.abs(got / np.log(x.astype(np.longdouble)) - 1).max() <= bound

    def test_ends(self, real, bound, registers):
        x = np.array([0, 1, np.inf, np.nan, 3e-320])
        got = each(numerics.logarithm(inline, simd, real), np.float64, registers, x)
        np.testing.assert_array_equal(got, [-np.inf, 0, np.inf, np.nan, -np.inf])
