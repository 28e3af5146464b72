"""Makes ``optax.json``: the losses of optax, in float64 with JAX's gradients.

Run with optax installed: ``python tests/golden/make_optax.py``.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from tables import case, write

jax.config.update("jax_enable_x64", True)

RNG = np.random.default_rng(2)
ROWS, CLASSES = 6, 5
LOGITS = 3 * RNG.standard_normal((ROWS, CLASSES))
BATCH = 3 * RNG.standard_normal((2, CLASSES, 3))
TARGET = RNG.integers(0, CLASSES, ROWS)
SOFT = RNG.dirichlet(np.ones(CLASSES), ROWS)
FRACTIONS = RNG.random((ROWS, CLASSES))

Loss = Callable[[jax.Array], jax.Array]


def differentiated(peer: str, call: str, x: np.ndarray, y: np.ndarray, loss: Loss, **options: Any) -> dict[str, Any]:
    """The case ``fusedloss.<call>(x, y, **options) == loss(x)``; optax reduces nothing."""
    grad = np.asarray(jax.grad(lambda v: loss(v).sum())(x))
    return case(peer, peer, call, [x, y], np.asarray(loss(x)), grad, reduction="none", **options)


def cases() -> Iterator[dict[str, Any]]:
    """Every loss of optax that fusedloss has."""
    integer = optax.softmax_cross_entropy_with_integer_labels
    peer = "optax.softmax_cross_entropy_with_integer_labels"
    yield differentiated(f"{peer}(x, y)", "cross_entropy", LOGITS, TARGET, partial(integer, labels=TARGET))
    pixels = RNG.integers(0, CLASSES, (2, 3))
    axis = partial(integer, labels=pixels, axis=1)
    yield differentiated(f"{peer}(x, y, axis=1)", "cross_entropy", BATCH, pixels, axis, axis=1)
    for name in ("softmax_cross_entropy", "safe_softmax_cross_entropy"):
        soft = partial(getattr(optax, name), labels=SOFT)
        yield differentiated(f"optax.{name}(x, y)", "cross_entropy", LOGITS, SOFT, soft)
    smooth = partial(optax.softmax_cross_entropy, labels=optax.smooth_labels(np.eye(CLASSES)[TARGET], 0.1))
    peer = "optax.softmax_cross_entropy(x, optax.smooth_labels(one_hot(y), 0.1))"
    yield differentiated(peer, "cross_entropy", LOGITS, TARGET, smooth, label_smoothing=0.1)
    binary = partial(optax.sigmoid_binary_cross_entropy, labels=FRACTIONS)
    yield differentiated("optax.sigmoid_binary_cross_entropy(x, y)", "binary_cross_entropy", LOGITS, FRACTIONS, binary)
    peer = "optax.kl_divergence(log_softmax(x), y)"

    def divergence(x: jax.Array) -> jax.Array:
        return optax.kl_divergence(jax.nn.log_softmax(x), SOFT)

    yield differentiated(peer, "kl_divergence", LOGITS, SOFT, divergence)
    squared = partial(optax.squared_error, targets=FRACTIONS)
    yield differentiated("optax.squared_error(x, y)", "mse", LOGITS, FRACTIONS, squared)
    masked = np.where(np.arange(CLASSES) == 0, -np.inf, LOGITS)
    one_hot = np.eye(CLASSES)[np.full(ROWS, 3)]
    peer = "optax.safe_softmax_cross_entropy(x, y), class 0 at -inf"
    safe = partial(optax.safe_softmax_cross_entropy, labels=one_hot)
    # its gradient is not finite at -inf: only the value is taken
    yield case(peer, peer, "cross_entropy", [masked, one_hot], np.asarray(safe(masked)), reduction="none")


if __name__ == "__main__":
    write("optax", ["optax", "jax"], list(cases()))
