"""The functions of the kernel contract that `cuda_elements`, `cuda_probs` and `cuda_sums` fulfil, bound to a queue.

Arrays lie on the card and have ``address shape strides dtype ndim size itemsize``; a `queue` has a ``device``, a
``stream``, and in ``status`` the address of the int64 that becomes the least number of what is wrong. Each function
returns ``run(lo, hi) -> -1``, which enqueues.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from . import SEGMENT
from .cuda_elements import THREADS, ElementOptions, make_elements
from .cuda_groups import alignment
from .cuda_machine import WARP
from .cuda_ops import SLOT
from .cuda_probs import THREADS as PROB_THREADS
from .cuda_probs import ProbOptions, make_probs
from .element_parts import SETTINGS, settings_of

Array = Any
Run = Callable[[int, int], int]
Form = tuple[np.dtype[Any], tuple[int, ...], int]

MOST_BLOCKS = 1 << 20
"""Of a launch; what is more, its blocks take in turn."""

_elements, _probs = (lru_cache(maxsize=None)(make) for make in (make_elements, make_probs))


@lru_cache(maxsize=64)
def code_of(dtype: np.dtype[Any]) -> str:
    """The element code of a dtype."""
    return "bf" if dtype.name == "bfloat16" else "b1" if dtype.kind == "b" else f"{dtype.kind}{dtype.itemsize}"


def address(array: Array | None) -> int:
    """Where an array begins; 0 for none."""
    return 0 if array is None else array.address


def scale_of(given: Any) -> tuple[float, int]:
    """A number that is given, and the address of one that lies on the card."""
    return (1.0, given.address) if hasattr(given, "address") else (float(given), 0)


def form(array: Array | None) -> Form | None:
    """All of an operand that a kernel is chosen by."""
    return None if array is None else (array.dtype, array.strides, array.address % 16)


def lanes_for(groups: int, threads: int) -> int:
    """How many threads share so many groups of columns: a power of 2 within a warp, or all of a block."""
    return threads if groups > WARP else 1 << max(groups - 1, 0).bit_length()


# ---- elements --------------------------------------------------------------------------------------------------------


def _lies(given: Form | None, shape: tuple[int, ...], width: int, absent: str) -> tuple[str, str]:
    """An operand's element code, and how its columns lie."""
    if given is None:
        return "", absent
    dtype, (across, along), offset = given
    code, (rows, columns) = code_of(dtype), shape
    if along == 0 and columns > 1:
        return code, "same"
    unit = alignment(code, width)
    if along != dtype.itemsize or not unit or offset % unit or (rows > 1 and across % unit):
        return code, "apart"
    return code, "again" if rows > 1 and across == 0 else "together"


@lru_cache(maxsize=4096)
def _fitted(
    formula: str, shape: tuple[int, int], inputs: tuple[Any, ...], outputs: tuple[Any, ...], summed: bool
) -> Any:  # fmt: skip
    """The elementwise kernel that suits the arrays, its threads a segment, and its shared memory.

    How the columns are shared out follows from their number and the dtype alone.
    """
    columns, dtype = shape[1], inputs[0][0]
    width = 16 // dtype.itemsize
    if columns % width and columns < SEGMENT:
        width = 1
    lanes = lanes_for(-(-min(columns, SEGMENT) // width), THREADS)
    options = ElementOptions(
        formula, code_of(dtype), width, lanes,
        tuple(_lies(each, shape, width, "absent") for each in inputs),
        tuple(_lies(each, shape, width, "nowhere") for each in outputs),
        summed, columns % width != 0,
    )  # fmt: skip
    return _elements(options), lanes, SLOT if summed and lanes > WARP else 0


def _over_elements(
    queue: Any, formula: str, inputs: tuple[Array | None, ...], outputs: tuple[Array | None, ...], sums: Array | None,
    settings: dict[str, Any], threshold: float = 0.5,
) -> Run:  # fmt: skip
    """Bind an elementwise kernel: inputs as in `INPUTS`, four outputs."""
    x = inputs[0]
    rows, columns = x.shape
    kernel, lanes, shared = _fitted(
        formula, (rows, columns), tuple(map(form, inputs)), tuple(map(form, outputs)), sums is not None
    )
    given = [(0, 0, 0) if array is None else (array.address, *array.strides) for array in (*inputs, *outputs)]
    places = [number for three in given for number in three]
    factor, scale = scale_of(settings["grad_scale"])
    reals = *(settings[name] for name in SETTINGS[:-1]), factor, threshold
    head = columns, max(-(-columns // SEGMENT), 1), *places, address(sums), scale, queue.status
    per = THREADS // lanes

    def run(lo: int, hi: int, _kept: Any = (inputs, outputs, sums, settings)) -> int:
        if lo < hi:
            grid = min(-(-(hi - lo) // per), MOST_BLOCKS)
            kernel.launch(queue.device, queue.stream, grid, shared, kernel.call.pack(*head, lo, hi, *reals))
        return -1

    return run


# ---- probabilities ---------------------------------------------------------------------------------------------------


def _placed(array: Array | None) -> tuple[int, ...]:
    """An (outer, C, inner) array's address and strides; a flat one's address."""
    return (address(array), *(array.strides if array is not None and array.ndim == 3 else (0, 0, 0)))


def _lanes_of_row(x: Array) -> int:
    """The threads of a row: by its length, or one where neighbouring threads should have neighbouring rows."""
    _, classes, inner = x.shape
    if inner > 1 and abs(x.strides[1]) > abs(x.strides[2]):
        return 1
    return lanes_for(classes, PROB_THREADS)


class ElementKernels:
    """The elementwise kernels of the contract."""

    queue: Any

    def binary_cross_entropy(
        self, x: Array, target: Array, loss: Array | None, sums: Array | None, grad: Array | None, *,
        pos_weight: Array | None, sample_weight: Array | None, label_smoothing: float, grad_scale: Any,
    ) -> Run:  # fmt: skip
        """Bind the binary cross-entropy of logits and its gradient."""
        settings = settings_of(x.dtype, label_smoothing=label_smoothing, grad_scale=grad_scale)
        inputs, outputs = (x, target, sample_weight, pos_weight), (loss, grad, None, None)
        return _over_elements(self.queue, "binary_cross_entropy", inputs, outputs, sums, settings)

    def binary_log_loss(
        self, x: Array, target: Array, loss: Array | None, sums: Array | None, grad: Array | None, *,
        sample_weight: Array | None, label_smoothing: float, eps: float, log_eps: float, grad_scale: Any,
    ) -> Run:  # fmt: skip
        """Bind the binary cross-entropy of probabilities and its gradient."""
        settings = settings_of(
            x.dtype, label_smoothing=label_smoothing, eps=eps, log_eps=log_eps, grad_scale=grad_scale
        )
        inputs, outputs = (x, target, sample_weight, None), (loss, grad, None, None)
        return _over_elements(self.queue, "binary_log_loss", inputs, outputs, sums, settings)

    def mse(
        self, x: Array, target: Array, loss: Array | None, sums: Array | None, grad: Array | None, *,
        sample_weight: Array | None, grad_scale: Any,
    ) -> Run:  # fmt: skip
        """Bind the squared error and its gradient."""
        inputs, outputs = (x, target, sample_weight, None), (loss, grad, None, None)
        settings = settings_of(x.dtype, grad_scale=grad_scale)
        return _over_elements(self.queue, "mse", inputs, outputs, sums, settings)

    def sigmoid(self, x: Array, out: Array) -> Run:
        """Bind 1/(1 + exp(-x))."""
        inputs, outputs = (x, None, None, None), (None, out, None, None)
        return _over_elements(self.queue, "sigmoid", inputs, outputs, None, settings_of(x.dtype))

    def score_binary(
        self, x: Array, target: Array | None, *, threshold: float, nll: Array | None, probability: Array,
        prediction: Array, brier: Array | None,
    ) -> Run:  # fmt: skip
        """Bind everything that one read of a binary logit tells."""
        inputs, outputs = (x, target, None, None), (nll, probability, brier, prediction)
        return _over_elements(self.queue, "score_binary", inputs, outputs, None, settings_of(x.dtype), threshold)

    def log_loss(
        self, x: Array, target: Array, loss: Array, grad: Array | None, *, class_weight: Array | None,
        sample_weight: Array | None, ignore_index: int, label_smoothing: float, eps: float, log_eps: float,
        normalize: bool, grad_scale: Any,
    ) -> Run:  # fmt: skip
        """Bind the cross-entropy of probabilities and its gradient."""
        queue, (_, classes, inner), lanes = self.queue, x.shape, _lanes_of_row(x)
        kernel = _probs(ProbOptions(
            code_of(x.dtype), code_of(target.dtype), target.ndim == 3, bool(normalize), label_smoothing != 0.0,
            grad is not None, lanes,
        ))  # fmt: skip
        factor, scale = scale_of(grad_scale)
        settings = settings_of(
            x.dtype, label_smoothing=label_smoothing, eps=eps, log_eps=log_eps, grad_scale=factor, classes=classes
        )
        head = (
            inner, classes, *_placed(x), *_placed(target), address(class_weight), address(sample_weight), ignore_index,
            *_placed(grad), address(loss), scale, queue.status,
        )  # fmt: skip
        shared, per = SLOT if lanes > WARP else 0, PROB_THREADS // lanes

        def run(lo: int, hi: int, _kept: Any = (x, target, loss, grad, class_weight, sample_weight, grad_scale)) -> int:
            if lo < hi:
                grid, call = min(-(-(hi - lo) // per), MOST_BLOCKS), kernel.call.pack(*head, lo, hi, *settings.values())
                kernel.launch(queue.device, queue.stream, grid, shared, call)
            return -1

        return run
