"""The formulas of the CPU's vectors, against float64 or more."""

import numpy as np
import pytest
from fusedloss.kernels import numerics, simd
from fusedloss.kernels.calls import address
from fusedloss.kernels.jit import POLICY, inline, processor_has
from fusedloss.kernels.memory import load, store
from fusedloss.kernels.roots import table_pow2
from fusedloss.kernels.simd import Format
from numba import njit

TABLES = [None, table_pow2] if processor_has("avx512f") else [None]


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("registers", [1, 4])
class TestSummand:
    """e^t as a product of two."""

    def product(self, real, table, registers, t):
        """The products at so many t, and their factors' sum at the first ones, which tells a product from its parts."""
        lanes, factors = registers * 64 // np.dtype(real).itemsize, numerics.summand(inline, simd, real, table)
        code = "f4" if real is np.float32 else "f8"
        fmt = Format(code, lanes, code)

        @njit(**POLICY)
        def fill(t, out, n):
            for k in range(0, n, lanes):
                a, b = factors(load(fmt, t, k))
                store(fmt, out, k, a * b)

        padded = np.zeros(-(-t.size // lanes) * lanes, real)
        padded[: t.size] = t
        out = np.empty_like(padded)
        fill(address(padded), address(out), padded.size)
        return out[: t.size]

    def test_within_three_ulp(self, real, table, registers, rng):
        t = -rng.exponential(12.0, 100_000).astype(real)
        t = np.concatenate([t[t > numerics.LEAST[real] + 1], -np.geomspace(1e-30, 1, 1000, dtype=real)])
        want = np.exp(t.astype(np.longdouble))
        ulp = np.spacing(want.astype(real)).astype(np.longdouble)
        error = np.abs(self.product(real, table, registers, t) - want) / ulp
        assert np.all(error <= 3 - t / 16)

    def test_one_at_zero_and_nothing_at_the_least(self, real, table, registers):
        least = real(numerics.LEAST[real])
        got = self.product(real, table, registers, np.array([0.0, -0.0, least, np.nan], real))
        np.testing.assert_array_equal(got, [1, 1, 0, np.nan])

    def test_nearly_nothing_near_the_least(self, real, table, registers):
        t = np.linspace(numerics.LEAST[real], numerics.LEAST[real] + 0.7, 1000, dtype=real)
        got = self.product(real, table, registers, t)
        assert np.all((got >= 0) & (got <= 2 * np.finfo(real).tiny))
