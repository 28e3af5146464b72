"""Makes ``tf_keras.json``: the losses of Keras 2 from probabilities, which adds its 1e-7 inside the logarithm as well.

Run with tf_keras installed: ``python tests/golden/make_tf_keras.py``.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from tables import case, write

EPSILON = tf_keras.backend.epsilon()
RNG = np.random.default_rng(3)
TUTORIAL = (([0.0, 0.0, 1.0], [1.0, 0.0, 1.0]), ([1.0, 1.0, 0.0], [1.0, 1.0, 1.0]))


def compared(
    name: str, call: str, loss: tf_keras.losses.Loss, x: np.ndarray, y: np.ndarray, **ours: Any
) -> dict[str, Any]:
    """The case ``fusedloss.<call>(x, y, **ours) == loss(y, x)``."""
    peer = f"tf_keras.losses.{loss.__class__.__name__}()"
    return case(name, f"{peer}(y, x)", call, [x, y], float(loss(y, tf.constant(x))), **ours)


def cases() -> Iterator[dict[str, Any]]:
    """The tutorial's numbers in both precisions, and random ones."""
    binary, both = tf_keras.losses.BinaryCrossentropy(), {"eps": EPSILON, "log_eps": EPSILON}
    for index, (p, y) in enumerate(TUTORIAL):
        for dtype in ("float64", "float32"):
            x, target = np.array(p, dtype), np.array(y, dtype)
            yield compared(f"tutorial-{index}-{dtype}", "binary_log_loss", binary, x, target, **both)
    p, y = RNG.random((6, 5)), RNG.integers(0, 2, (6, 5)).astype(np.float64)
    yield compared("binary", "binary_log_loss", binary, p, y, **both)
    smooth = tf_keras.losses.BinaryCrossentropy(label_smoothing=0.1)
    yield compared("binary-smoothing", "binary_log_loss", smooth, p, y, label_smoothing=0.1, **both)
    logits, soft = 3 * RNG.standard_normal((6, 5)), RNG.dirichlet(np.ones(5), 6)
    probs, categorical = RNG.dirichlet(np.ones(5), 6) * 0.9, tf_keras.losses.CategoricalCrossentropy
    yield compared("categorical", "log_loss", categorical(), probs, soft, eps=EPSILON, normalize=True)
    yield compared("categorical-logits", "cross_entropy", categorical(from_logits=True), logits, soft)


if __name__ == "__main__":
    write("tf_keras", ["tf_keras", "tensorflow-cpu"], list(cases()))
