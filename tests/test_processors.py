"""Kernels compiled for a processor with narrower registers and no rounding to bfloat16: as right as on this one."""

import os
import platform
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

PROGRAM = """
import sys
import ml_dtypes, numpy as np, fusedloss as fl
from fusedloss.kernels.jit import processor_has

sys.stderr.write(str(processor_has("avx512f") or processor_has("avx512bf16")))
rng, results = np.random.default_rng(0), []
for dtype in (np.float32, ml_dtypes.bfloat16):
    for shape, axis in (((200, 300), 1), ((200, 20), 1), ((3, 20, 70), 1)):
        x = (3 * rng.standard_normal(shape)).astype(dtype)
        target = rng.integers(0, shape[axis], np.delete(shape, axis))
        for options in ({}, {"softcap": 5.0})[: 2 if dtype == np.float32 and shape == (200, 300) else 1]:
            loss = fl.value_and_grad(fl.cross_entropy)
            results += loss(x, target, axis=axis, reduction="none", device=sys.argv[1], **options)
        y = rng.random(shape).astype(dtype)
        results += fl.value_and_grad(fl.binary_cross_entropy)(x, y, reduction="none", device=sys.argv[1])
sys.stdout.buffer.write(b"".join(np.asarray(each, "f4").tobytes() for each in results))
"""


def results(device, **env):
    """What a process computes, and whether its kernels are for a processor of this generation."""
    env = os.environ | {"NUMBA_DISABLE_PERFORMANCE_WARNINGS": "1"} | env
    done = subprocess.run([sys.executable, "-c", PROGRAM, device], capture_output=True, check=True, env=env)
    return np.frombuffer(done.stdout, "f4"), done.stderr == b"True"


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="names an x86-64 processor")
def test_kernels_for_an_older_processor_are_as_right(tmp_path):
    got, recent = results("cpu", NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES="", NUMBA_CACHE_DIR=str(tmp_path))
    want, _ = results("numpy")
    assert not recent
    np.testing.assert_allclose(got, want, rtol=float(ml_dtypes.finfo(ml_dtypes.bfloat16).eps), atol=1e-6)
