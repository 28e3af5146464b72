"""The CUDA backend: the functions of the kernel contract, on a queue of work for a device.

Arrays are on the card: objects with an ``address``, and NumPy's ``shape``, ``strides``, ``dtype``, ``ndim``. Each
function picks a specialised kernel, packs its arguments once, and returns ``run(lo, hi)``, which launches it and comes
back at once with -1. An offence is reported where the queue says, when the kernel has run.

It differs from the contract in this: hard targets are of any integer dtype; ``grad_scale`` may be a float64 array on
the card.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from . import cuda_card, cuda_parts
from .cuda_bind_elements import ElementKernels, address, code_of
from .cuda_bind_sums import SumKernels
from .cuda_compile import Kernel
from .cuda_lanes import TILE_BYTES, make_lanes, spot
from .cuda_ops import SIZES
from .cuda_parts import CudaOptions
from .cuda_rows import ROOM, make_rows
from .cuda_witness import Witness
from .row_parts import Flags

Run = Callable[[int, int], int]


class Queue(NamedTuple):
    """Where work goes: a device, a stream of it, and where the least offence is kept (2^63 - 1 for none)."""

    device: int
    stream: int
    status: int


class Geometry(NamedTuple):
    """How a kernel over classes is spread over threads."""

    group: int  # threads of a row
    threads: int  # of a block
    tiled: bool = False


GROUPS = ((32, 4), (64, 8), (128, 16), (512, 32), (2048, 128), (8192, 256))
"""Up to how many times 16 bytes a row has so many threads; a longer one has `MOST`, which leaves each 128 registers."""
MOST = 512
THREADS = 128
"""Of a block that has several rows."""
RESIDENT = 512
"""Threads of a multiprocessor for which kernels over rows leave registers: 128 each. Else it spills."""
BLOCKS = 32
"""Blocks that a multiprocessor is given, one after the other or together."""


Form = tuple[np.dtype[Any], tuple[int, ...], tuple[int, ...]]


def form(array: Any) -> Form | None:
    """All of an array that a kernel is chosen by: dtype, shape, strides."""
    return None if array is None else (array.dtype, array.shape, array.strides)


def geometry(x: Form, out: Form | None, soft: Form | None) -> Geometry:
    """Spread rows of logits over threads."""
    dtype, (rows, classes, inner), (outer, step, _) = x
    row = classes * dtype.itemsize
    if classes > 1 and step != dtype.itemsize:
        return Geometry(1, THREADS)
    if row <= TILE_BYTES and inner == 1:
        following = rows == 1 or outer == row
        if following and (out is None or (_dense(out) and (rows == 1 or out[2][0] == row))):
            return Geometry(1, THREADS, tiled=True)
    if not all(each is None or classes == 1 or _dense(each) for each in (out, soft)):
        return Geometry(1, THREADS)
    for longest, group in GROUPS:
        if row <= 16 * longest:
            return Geometry(group, max(group, THREADS))
    return Geometry(MOST, MOST)


def _dense(given: Form) -> bool:
    """Whether classes lie side by side."""
    return given[2][1] == given[0].itemsize


@cache
def _kernel(options: CudaOptions) -> Kernel:
    make, resident = (make_lanes, 0) if options.group == 1 else (make_rows, RESIDENT)
    return Kernel(make(options), options, len(cuda_parts.INTEGERS), len(cuda_parts.REALS), options.threads, resident)


def _shared(options: CudaOptions, classes: int, device: int) -> tuple[int, int]:
    """The bytes of shared memory of a block, and how many times 16 bytes of a row are kept there."""
    size = SIZES[options.logits]
    if options.group == 1:
        return (spot(options.threads * classes * size) + 16 if options.tiled else 0), 0
    if not options.output:
        return ROOM, 0
    rows = options.threads // options.group
    room = (cuda_card.shared_limit(device) - ROOM) // 16 // rows
    kept = min((classes * size + 15) // 16 + 1, room)
    return ROOM + 16 * kept * rows, kept


class Fitted(NamedTuple):
    """A kernel over classes, how it is launched, and the arguments that the forms of its arrays decide."""

    kernel: Kernel
    together: int  # rows of a block
    most: int  # blocks
    shared: int
    layout: bytes
    kept: int


@lru_cache(maxsize=4096)
def _fitted(flags: Flags, x: Form, target: Form | None, out: Form | None, device: int) -> Fitted:
    """The kernel over classes that suits the arrays."""
    soft = target if target is not None and len(target[1]) == 3 else None
    shape, code = geometry(x, out, soft), "" if target is None else code_of(target[0])
    options = CudaOptions(
        code_of(x[0]), **flags._asdict(), target="soft" if soft else "hard" if code else "",
        target_code="" if soft else code, soft=code if soft else "", group=shape.group, threads=shape.threads,
        tiled=shape.tiled,
    )  # fmt: skip
    shared, kept = _shared(options, x[1][1], device)
    steps = *x[2], *(soft[2] if soft else (0, 0, 0)), *(out[2] if out else (0, 0, 0))
    layout = struct.pack(f"={len(cuda_parts.LAYOUT)}q", x[1][2], x[1][1], *steps)
    most = BLOCKS * cuda_card.multiprocessors(device)
    return Fitted(_kernel(options), options.threads // options.group, most, shared, layout, kept)


_PLACES = struct.Struct(f"={len(cuda_parts.PLACES) + 2}q{len(cuda_parts.REALS)}d")


def _number(value: Any) -> tuple[int, float]:
    """A number as an address, 0 for none, and a factor."""
    return (0, float(value)) if isinstance(value, int | float) else (value.address, 1.0)


def _curve(logit_scale: float, softcap: float | None) -> str:
    """The transform of the logits."""
    return "softcap" if softcap is not None else "scale" if logit_scale != 1.0 else ""


class Backend(ElementKernels, SumKernels, Witness):
    """The kernel contract on a queue."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def _over_classes(
        self, flags: Flags, x: Any, target: Any, out: Any, *, class_weight: Any = None, sample_weight: Any = None,
        ignore_index: int = 0, loss: Any = None, log_normalizer: Any = None, prediction: Any = None,
        confidence: Any = None, entropy: Any = None, rank: Any = None, brier: Any = None, label_smoothing: float = 0.0,
        z_loss: float = 0.0, logit_scale: float = 1.0, softcap: float | None = None, grad_scale: Any = 1.0,
        weight_total: Any = 0.0,
    ) -> Run:  # fmt: skip
        """Bind the kernel over classes that suits the arrays."""
        queue = self.queue
        kernel, together, most, shared, layout, kept = _fitted(flags, form(x), form(target), form(out), queue.device)
        scale_at, factor = _number(grad_scale)
        weights_at, weights = _number(weight_total)
        places = (
            address(x), address(target), address(out), address(class_weight), address(sample_weight), ignore_index,
            address(loss), address(log_normalizer), address(prediction), address(confidence), address(entropy),
            address(rank), address(brier), scale_at, weights_at, queue.status, kept,
        )  # fmt: skip
        reals = label_smoothing, z_loss, logit_scale, softcap or 1.0, factor * logit_scale, weights

        def run(lo: int, hi: int) -> int:
            grid = min(-(-(hi - lo) // together), most)
            if grid > 0:
                call = layout + _PLACES.pack(*places, lo, hi, *reals)
                kernel.launch(queue.device, queue.stream, grid, shared, call)
            return -1

        return run

    def cross_entropy(
        self, x: Any, target: Any, loss: Any, grad: Any, *, class_weight: Any, label_smoothing: float,
        logit_scale: float, softcap: float | None, weight_total: Any = None, **given: Any,
    ) -> Run:  # fmt: skip
        """Bind the cross-entropy of logits with hard or soft targets, and its gradient.

        ``weight_total`` is Σ class_weight where there are any, a number or a float64 array on the card.
        """
        flags = Flags(
            "loss", smoothed=label_smoothing != 0.0, transform=_curve(logit_scale, softcap),
            weighted=class_weight is not None and (label_smoothing != 0.0 or target.ndim == 3),
            output="" if grad is None else "gradient",
        )  # fmt: skip
        return self._over_classes(
            flags, x, target, grad, loss=loss, class_weight=class_weight, label_smoothing=label_smoothing,
            logit_scale=logit_scale, softcap=softcap,
            weight_total=x.shape[1] if weight_total is None else weight_total, **given,
        )  # fmt: skip

    def kl_divergence(self, x: Any, target: Any, loss: Any, grad: Any, *, logit_scale: float, **given: Any) -> Run:
        """Bind KL(target ‖ softmax(logits)) and its gradient."""
        output = "" if grad is None else "gradient"
        flags = Flags("loss", divergence=True, transform=_curve(logit_scale, None), output=output)
        return self._over_classes(flags, x, target, grad, loss=loss, logit_scale=logit_scale, **given)

    def softmax(self, x: Any, out: Any) -> Run:
        """Bind exp(x - lse)."""
        return self._over_classes(Flags("", output="softmax"), x, None, out)

    def log_softmax(self, x: Any, out: Any) -> Run:
        """Bind x - lse."""
        return self._over_classes(Flags("", output="log_softmax"), x, None, out)

    def logsumexp(self, x: Any, out: Any) -> Run:
        """Bind lse."""
        return self._over_classes(Flags("lse"), x, None, None, log_normalizer=out)

    def score(self, x: Any, target: Any, *, logit_scale: float, softcap: float | None, nll: Any, **given: Any) -> Run:
        """Bind everything that one read of each row tells."""
        flags = Flags("score", transform=_curve(logit_scale, softcap))
        return self._over_classes(flags, x, target, None, loss=nll, logit_scale=logit_scale, softcap=softcap, **given)
