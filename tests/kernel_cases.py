"""What the tests of the kernels share: the kernels of a backend, called plainly, and how close is close."""

import importlib
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from fusedloss.kernels import SEGMENT, cuda_card

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(np.float16), BFLOAT16, np.dtype(np.float32), np.dtype(np.float64)]
NARROW, WIDE = DTYPES[:2], DTYPES[2:]
"""Those of 16 bits, widened as they are loaded and rounded as they are stored; and those of the arithmetic itself."""


def kernels_of(backend: str) -> ModuleType:
    """The kernels of a backend, as functions of NumPy arrays."""
    return importlib.import_module("cuda_kernels" if backend == "cuda" else f"fusedloss.kernels.{backend}")


def is_simulated(kernels: ModuleType) -> bool:
    """Tell kernels that plain Python runs, a microsecond or two for each thing they do."""
    return getattr(kernels, "SIMULATED", False)


def fewer(backend: str, number: int, small: int) -> int:
    """So many rows; or a small number of them where plain Python runs the kernels."""
    return small if backend == "cuda" and cuda_card.SIMULATED else number


HOST = pytest.mark.parametrize("backend", ["numpy", "cpu"], indirect=True)
"""For tests of what a card has not: threads, and arrays of gigabytes that nobody copies."""

LOSS_OPTIONS: dict[str, dict[str, Any]] = {
    "cross_entropy": {
        "class_weight": None, "sample_weight": None, "ignore_index": -100, "label_smoothing": 0.0, "z_loss": 0.0,
        "logit_scale": 1.0, "softcap": None, "grad_scale": 1.0,
    },
    "kl_divergence": {"sample_weight": None, "logit_scale": 1.0, "grad_scale": 1.0},
    "log_loss": {
        "class_weight": None, "sample_weight": None, "ignore_index": -100, "label_smoothing": 0.0, "eps": 0.0,
        "log_eps": 0.0, "normalize": False, "grad_scale": 1.0,
    },
    "binary_cross_entropy": {"pos_weight": None, "sample_weight": None, "label_smoothing": 0.0, "grad_scale": 1.0},
    "binary_log_loss": {"sample_weight": None, "label_smoothing": 0.0, "eps": 0.0, "log_eps": 0.0, "grad_scale": 1.0},
    "mse": {"sample_weight": None, "grad_scale": 1.0},
}  # fmt: skip


def result_dtype(x: np.ndarray) -> np.dtype:
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


def column_of(values, dtype=np.float32):
    """Rows of logits, in normal form."""
    return np.asarray(values, dtype)[:, :, None]


def in_rows(x):
    """An (outer, C, inner) array as float64 rows."""
    return np.moveaxis(x.astype(np.float64), 1, 2).reshape(-1, x.shape[1])


def row_loss(kernels: ModuleType, name: str, x, target, *, grad=None, pieces=1, **options):
    """Losses and gradient of a row kernel over all rows, in so many calls; the outputs start as garbage."""
    rows = x.shape[0] * x.shape[2]
    loss = np.full(rows, 7, result_dtype(x))
    grad = np.full(x.shape, 7, x.dtype) if grad is None else grad
    run = getattr(kernels, name)(x, target, loss, grad, **{**LOSS_OPTIONS[name], **options})
    for lo, hi in spans(rows, pieces):
        assert run(lo, hi) == -1
    return loss, grad


def element_loss(kernels: ModuleType, name: str, x, target, *, grad=None, pieces=1, **options):
    """Losses, sums of segments and gradient of an elementwise kernel."""
    loss = np.full(x.shape, 7, result_dtype(x))
    segments = x.shape[0] * -(-x.shape[1] // SEGMENT)
    sums = np.full(segments, 7.0)
    grad = np.full(x.shape, 7, x.dtype) if grad is None else grad
    bind, options = getattr(kernels, name), {**LOSS_OPTIONS[name], **options}
    summed = bind(x, target, None, sums, None, **options)
    for lo, hi in spans(segments, pieces):
        assert summed(lo, hi) == -1
    run = bind(x, target, loss, None, grad, **options)
    for lo, hi in spans(segments, pieces):
        assert run(lo, hi) == -1
    return loss, sums, grad


def spans(rows: int, pieces: int):
    edges = np.linspace(0, rows, pieces + 1).astype(int)
    return list(zip(edges.tolist(), edges[1:].tolist(), strict=False))


def offence(kernels: ModuleType, name: str, x, target, lo=0, hi=None, **options) -> int:
    rows = x.shape[0] * x.shape[2]
    loss = np.zeros(rows, result_dtype(x))
    run = getattr(kernels, name)(x, target, loss, None, **{**LOSS_OPTIONS[name], **options})
    return run(lo, rows if hi is None else hi)


def assert_close(got, want, ulps=4, scale=0.0, dtype=None):
    """Within so many units in the last place of the expected value, or of ``scale`` where that is larger.

    Expected values are float64, and err themselves when that is what is tested: four times as much is allowed there.
    """
    dtype = np.dtype(got.dtype if dtype is None else dtype)
    ulps = 4 * ulps if dtype == np.float64 else ulps
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite])
    unit = float(ml_dtypes.finfo(dtype).eps)
    smallest = float(ml_dtypes.finfo(dtype).tiny)
    size = np.maximum(np.maximum(np.abs(want[finite]), smallest), scale)
    worst = np.max(np.abs(got[finite] - want[finite]) / (unit * size), initial=0)
    assert worst <= ulps, f"off by {worst:.1f} units in the last place"


def aligned(array, offset=0):
    """The same values, from so many elements after a multiple of 16 bytes on, with something before and after."""
    size = array.itemsize
    room = np.full(array.size + 96, 99).astype(array.dtype)
    start = (-room.ctypes.data % 64) // size + 16 // min(size, 16) + offset
    view = room[start : start + array.size].reshape(array.shape)
    view[...] = array
    return view


def bits(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()
