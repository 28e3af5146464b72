"""Compiling ahead: the kernels that calls with default options need."""

from collections.abc import Iterable

import numpy as np

from .activations import log_softmax, logsumexp, sigmoid, softmax
from .arrays import Array, bfloat16
from .evaluation import evaluate, evaluate_binary
from .losses import binary_cross_entropy, binary_log_loss, cross_entropy, kl_divergence, log_loss, mse, value_and_grad


def warmup(dtypes: Iterable[str] = ("float32",), *, device: str = "auto") -> None:
    """Compile the kernels of every function with its default options, so that no later call has to wait for them.

    Compiled code is kept on disk where that is possible, and serves later processes.

    Parameters
    ----------
    dtypes : iterable of str
        Of the logits: ``"float16"``, ``"bfloat16"``, ``"float32"``, ``"float64"``.
    device : str
        As in `cross_entropy`.

    Raises
    ------
    DTypeError, DeviceError
        If a dtype is not supported, or the device cannot serve.
    """
    for name in (dtypes,) if isinstance(dtypes, str) else dtypes:
        _warm(np.full((4, 8), 0.125).astype(bfloat16("dtypes") if name == "bfloat16" else name), device)


def _warm(x: Array, device: str) -> None:
    hard, multi = np.zeros(4, np.int64), np.zeros(x.shape, x.dtype)
    for loss, target in (
        (cross_entropy, hard), (cross_entropy, x), (log_loss, hard), (log_loss, x), (kl_divergence, x),
        (binary_cross_entropy, multi), (binary_log_loss, multi), (mse, multi),
    ):  # fmt: skip
        loss(x, target, device=device)
        value_and_grad(loss)(x, target, device=device)
    for activation in (softmax, log_softmax, logsumexp, sigmoid):
        activation(x, device=device)
    evaluate(x, hard, device=device)
    evaluate_binary(x, multi, device=device)
