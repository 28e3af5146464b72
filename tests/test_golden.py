"""fusedloss against the tables of ``tests/golden``: what its peers, and 50 digits, say of the same calls."""

from typing import Any

import numpy as np
import pytest
from golden.tables import read

import fusedloss as fl

ULPS = 4
PEERS = ("torch", "keras", "tf_keras", "optax", "sklearn", "scipy", "mpmath")
ACTIVATIONS = ("softmax", "sigmoid")
CASES = [pytest.param(case, id=f"{peer}: {case['name']}") for peer in PEERS for case in read(peer)]


def assert_near(got: Any, want: Any, dtype: np.dtype, unit: float = 1.0) -> None:
    """Within a few ulp of `want`, or of `unit` where `want` is less.

    A loss is log d - (x_y - m), with d = Σ exp(x - m) ≥ 1, and a gradient p - y: differences of numbers about 1, whose
    own rounding is what is left where they cancel. So a tiny loss, or gradient, is good to an ulp of 1.
    """
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite])
    error = np.abs(got[finite] - want[finite])
    ulps = error / (np.finfo(dtype).eps * np.maximum(np.abs(want[finite]), unit))
    assert ulps.max(initial=0) <= ULPS


@pytest.mark.parametrize("case", CASES)
def test_as_the_peer_says(case: dict[str, Any], backend: str) -> None:
    call, args, options, value = getattr(fl, case["call"]), case["args"], case["options"], case["value"]
    dtype = args[0].dtype
    got = call(*args, **options, device=backend)
    if isinstance(value, dict):
        for name, want in value.items():
            have = getattr(got, name)
            assert_near(list(have.values()) if isinstance(have, dict) else have, want, dtype)
        return
    assert got.dtype == dtype
    assert_near(got, value, dtype, unit=0.0 if case["call"] in ACTIVATIONS else 1.0)
    if "grad" in case:
        loss, grad = fl.value_and_grad(call)(*args, **options, device=backend)
        assert_near(loss, value, dtype)
        assert_near(grad, case["grad"], dtype)
        assert grad.dtype == dtype
