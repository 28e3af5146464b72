"""Print the coefficients of `kernels/coefficients.py`: ``python bench/fit_polynomials.py`` (needs mpmath)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import mpmath as mp

mp.mp.dps = 60


def interpolate(f: Callable[[mp.mpf], mp.mpf], low: mp.mpf, high: mp.mpf, degree: int) -> list[float]:
    """Coefficients, highest power first, of the polynomial through `f` at the Chebyshev nodes of [low, high]."""
    n = degree + 1
    nodes = [(low + high) / 2 + (high - low) / 2 * mp.cos(mp.pi * (2 * k + 1) / (2 * n)) for k in range(n)]
    powers = mp.matrix([[x ** (degree - j) for j in range(n)] for x in nodes])
    return [float(c) for c in mp.lu_solve(powers, mp.matrix([f(x) for x in nodes]))]


def exp_ratio(degree: int, base: mp.mpf, bound: mp.mpf) -> list[float]:
    """P(f), near (base^f - 1)/f, of the least relative error of 1 + f·P(f) on |f| <= bound: Remez's exchange.

    The error is 0 at 0, where the power must be exact, so it keeps its sign there: it alternates once f's sign is taken
    out.
    """
    n = degree + 2
    grid = [k * bound / 2000 for k in range(-2000, 2001) if k]
    points = [-bound * mp.cos(mp.pi * (2 * k + 1) / (2 * n)) for k in range(n)]
    if n % 2:
        points[n // 2] = bound / n  # not 0, where every polynomial is exact
    for _ in range(6):
        swing = [base**f * mp.sign(f) * (-1) ** i for i, f in enumerate(points)]
        rows = [[f ** (n - 1 - j) for j in range(n - 1)] + [last] for f, last in zip(points, swing, strict=True)]
        *c, _ = mp.lu_solve(mp.matrix(rows), mp.matrix([base**f - 1 for f in points]))
        errors = [((1 + f * mp.polyval(c, f)) / base**f - 1) * mp.sign(f) for f in grid]
        turns = [0, *(k + 1 for k, (a, b) in enumerate(pairwise(errors)) if a * b < 0), len(grid)]
        points = [grid[max(range(a, b), key=lambda k: abs(errors[k]))] for a, b in pairwise(turns)]
    return [float(x) for x in c]


def expm1_rest(r: mp.mpf) -> mp.mpf:
    """(e^r - 1 - r)/r², so that r + r²·q(r) is exact near 0."""
    return mp.nsum(lambda k: r**k / mp.factorial(k + 2), [0, 40])


def log1p_ratio(e: mp.mpf) -> mp.mpf:
    """log(1 + e) / e."""
    return mp.log1p(e) / e if e else mp.mpf(1)


if __name__ == "__main__":
    for real, degree in {"float32": 5, "float64": 10}.items():
        print("EXP2", real, exp_ratio(degree, mp.mpf(2), mp.mpf(1) / 2))
    for real, degree in {"float32": 4, "float64": 10}.items():
        print("EXP_SUMMED", real, exp_ratio(degree, mp.e, mp.log(2) / 2))
    for name, degrees in {"EXP_LOOKED_UP": (3, 2, 5), "EXP_LOOKED_UP_SUMMED": (2, 1, 5)}.items():
        for degree, parts in zip(degrees, (8, 32, 16), strict=True):
            print(name, parts, exp_ratio(degree, mp.e, mp.log(2) / 2 / parts))
    bound = mp.log(2) / 2 * mp.mpf("1.0001")
    for real, degree in {"float32": 4, "float64": 10}.items():
        print("EXPM1", real, interpolate(expm1_rest, -bound, bound, degree))
    for real, degree in {"float32": 9, "float64": 21}.items():
        print("LOG1P", real, interpolate(log1p_ratio, mp.mpf(0), mp.mpf(1), degree))
    print("LOG_RATIO", interpolate(log1p_ratio, mp.sqrt(0.5) - 1, mp.sqrt(2) - 1, 11))
