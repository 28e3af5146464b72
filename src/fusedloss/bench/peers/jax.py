"""JAX, with the losses of optax, jitted."""

import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...arrays import Array
from ..cases import LOSSES, Task
from ..inputs import Inputs
from ..turns import Contender


def cross_entropy(
    x: Any, y: Any, label_smoothing: float = 0.0, z_loss: float = 0.0, softcap: float | None = None
) -> Any:
    """The mean loss; 16 bits lose too much, and XLA's fusions widen them at no cost."""
    if x.dtype.itemsize == 2:
        x = x.astype(jnp.float32)
    if softcap is not None:
        x = softcap * jnp.tanh(x / softcap)
    if label_smoothing:
        y = optax.smooth_labels(jax.nn.one_hot(y, x.shape[1], dtype=x.dtype), label_smoothing)
        x = jnp.moveaxis(x, 1, -1)
    axis = -1 if label_smoothing else 1
    of_rows = optax.softmax_cross_entropy if y.ndim == x.ndim else optax.softmax_cross_entropy_with_integer_labels
    loss = of_rows(x, y, axis=axis).mean()
    return loss + z_loss * jnp.square(jax.nn.logsumexp(x, axis)).mean() if z_loss else loss


def binary_cross_entropy(x: Any, y: Any) -> Any:
    """The mean loss."""
    return optax.sigmoid_binary_cross_entropy(x, y).mean()


def evaluate(x: Any, y: Any) -> Any:
    """The mean loss, the accuracy, the mean entropy."""
    log_p = jax.nn.log_softmax(x, 1)
    return cross_entropy(x, y), (x.argmax(1) == y).mean(), -(jnp.exp(log_p) * log_p).sum(1).mean()


def evaluate_binary(x: Any, y: Any) -> Any:
    """The mean loss, the accuracy."""
    return binary_cross_entropy(x, y), ((x > 0) == (y > 0)).mean()


def contender(task: Task, inputs: Inputs, threads: int) -> Contender:
    """Give a call with JAX's own arrays that waits for its results."""
    os.environ.setdefault("NPROC", str(threads))  # JAX reads it once, when it meets its first array
    jax.config.update("jax_enable_x64", task.dtype == "float64")
    x, y = jax.device_put(inputs.x), jax.device_put(inputs.y)
    loss = LOSSES[task.loss]
    if task.case == "evaluate":
        run = jax.jit(evaluate_binary if loss.target == "labels" else evaluate)
    else:
        function = partial(globals()[loss.function], **loss.options)
        run = jax.jit(jax.value_and_grad(function) if task.differentiates else function)
    return Contender(lambda: jax.block_until_ready(run(x, y)))


def answer(result: Any) -> tuple[Array, ...]:
    """As NumPy arrays."""
    return tuple(map(np.asarray, result if isinstance(result, tuple) else (result,)))
