"""Print the polynomial coefficients of `kernels/numerics.py`: ``python bench/fit_polynomials.py`` (needs mpmath).

Each is an interpolation at Chebyshev nodes of the function's smooth part, near the minimax polynomial, in 60 digits.
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp

mp.mp.dps = 60


def fit(f: Callable[[mp.mpf], mp.mpf], low: mp.mpf, high: mp.mpf, degree: int) -> list[float]:
    """Coefficients, highest power first, of the polynomial through `f` at the Chebyshev nodes of [low, high]."""
    n = degree + 1
    nodes = [(low + high) / 2 + (high - low) / 2 * mp.cos(mp.pi * (2 * k + 1) / (2 * n)) for k in range(n)]
    powers = mp.matrix(n, n)
    for i, x in enumerate(nodes):
        for j in range(n):
            powers[i, j] = x ** (degree - j)
    return [float(c) for c in mp.lu_solve(powers, mp.matrix([f(x) for x in nodes]))]


def exp_remainder(r: mp.mpf) -> mp.mpf:
    """(e^r - 1 - r) / r², so that e^r = 1 + r + r²·q(r) is exact at 0."""
    return mp.nsum(lambda k: r**k / mp.factorial(k + 2), [0, 40])


def log1p_ratio(e: mp.mpf) -> mp.mpf:
    """log(1 + e) / e."""
    return mp.log1p(e) / e if e else mp.mpf(1)


if __name__ == "__main__":
    half = mp.log(2) / 2 * mp.mpf("1.0001")
    for name, f, low, high, degrees in (
        ("EXP", exp_remainder, -half, half, {"f4": 4, "f8": 10}),
        ("LOG1P", log1p_ratio, mp.mpf(0), mp.mpf(1), {"f4": 9, "f8": 21}),
    ):
        for real, degree in degrees.items():
            print(name, real, fit(f, low, high, degree))
