"""fusedloss against the tables of ``tests/golden``: what its peers, and 50 digits, say of the same calls."""

from typing import Any

import numpy as np
import pytest
from golden.tables import read

import fusedloss as fl

PEERS = ("torch", "keras", "tf_keras", "optax", "sklearn", "scipy", "mpmath")
CASES = [
    pytest.param(case, 4 if peer == "mpmath" else 8, id=f"{peer}: {case['name']}")  # the others round too
    for peer in PEERS
    for case in read(peer)
]


def assert_near(got: Any, want: Any, dtype: np.dtype, ulps: int, unit: Any = 1.0) -> None:
    """Within some ulp of `want`, or of `unit` where `want` is less.

    A loss is log d - (x_y - m), with d = Σ exp(x - m) ≥ 1, and a gradient p - y: differences of numbers about 1, whose
    own rounding is what is left where they cancel. So a tiny loss, or gradient, is good to an ulp of 1.
    """
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite])
    ulp = np.spacing(np.maximum(np.abs(want), unit)[finite].astype(dtype)).astype(np.float64)
    error = np.abs(got[finite] - want[finite]) - np.finfo(dtype).tiny  # what is subnormal may be 0
    assert (error / ulp).max(initial=0) <= ulps


def assert_exponential(got: np.ndarray, want: np.ndarray, ulps: int) -> None:
    """Within some ulp of every element: exp(z) has the relative error of z, half an ulp of |z| = |log want|."""
    assert_near(got, want, got.dtype, ulps, unit=np.abs(want * np.log(np.where(want > 0, want, 1))))


@pytest.mark.parametrize(("case", "ulps"), CASES)
def test_as_the_peer_says(case: dict[str, Any], ulps: int, backend: str) -> None:
    call, args, options, value = getattr(fl, case["call"]), case["args"], case["options"], case["value"]
    dtype, unit = args[0].dtype, case.get("unit", 1.0)
    if "grad" in case:
        got, grad = fl.value_and_grad(call)(*args, **options, device=backend)
        assert grad.dtype == dtype
        assert_near(grad, case["grad"], dtype, ulps, unit)
    else:
        got = call(*args, **options, device=backend)
    if isinstance(value, dict):
        for name, want in value.items():
            have = getattr(got, name)
            assert_near(list(have.values()) if isinstance(have, dict) else have, want, dtype, ulps)
        return
    assert got.dtype == dtype
    if case["call"] in ("softmax", "sigmoid"):
        assert_exponential(got, value, ulps)
    else:
        assert_near(got, value, dtype, ulps, unit)
