"""JAX, with the losses of optax, jitted."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...arrays import Array
from ..cases import LOSSES, Inputs, Task
from ..turns import Contender


def cross_entropy(
    x: Any, y: Any, label_smoothing: float = 0.0, z_loss: float = 0.0, softcap: float | None = None
) -> Any:
    """The mean loss."""
    if softcap is not None:
        x = softcap * jnp.tanh(x / softcap)
    if label_smoothing:
        y = optax.smooth_labels(jax.nn.one_hot(y, x.shape[1], dtype=x.dtype, axis=1), label_smoothing)
    if y.ndim == x.ndim:
        loss = optax.softmax_cross_entropy(x, y, axis=1).mean()
    else:
        loss = optax.softmax_cross_entropy_with_integer_labels(x, y, axis=1).mean()
    return loss + z_loss * jnp.square(jax.nn.logsumexp(x, 1)).mean() if z_loss else loss


def binary_cross_entropy(x: Any, y: Any) -> Any:
    """The mean loss."""
    return optax.sigmoid_binary_cross_entropy(x, y).mean()


def evaluate(x: Any, y: Any) -> Any:
    """Mean loss, accuracy, mean entropy."""
    log_p = jax.nn.log_softmax(x, 1)
    nll = -jnp.take_along_axis(log_p, y[:, None], 1).mean()
    return nll, (x.argmax(1) == y).mean(), -(jnp.exp(log_p) * log_p).sum(1).mean()


def contender(task: Task, inputs: Inputs, threads: int) -> Contender | None:
    """Give a call with JAX's own arrays that waits for its results."""
    if task.case in ("buffer", "in-place") or (task.case == "evaluate" and task.loss != "hard"):
        return None
    loss = LOSSES[task.loss]
    with _precision(task):
        x, y = jax.device_put(inputs.x), jax.device_put(inputs.y)
    if task.case == "evaluate":
        run = jax.jit(evaluate)
    else:
        function, options = globals()[loss.function], dict(loss.options)
        bound = lambda x, y: function(x, y, **options)  # noqa: E731
        run = jax.jit(jax.value_and_grad(bound) if task.case == "gradient" else lambda x, y: (bound(x, y),))

    def call() -> Any:
        with _precision(task):
            return jax.block_until_ready(run(x, y))

    return Contender(call)


def _precision(task: Task) -> Any:
    return jax.enable_x64(task.dtype == "float64")


def answer(result: tuple[Any, ...]) -> tuple[Array, ...]:
    """As NumPy arrays."""
    return tuple(map(np.asarray, result))
