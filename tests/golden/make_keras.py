"""Makes ``keras.json``: the losses of Keras 3 on TensorFlow in float64, with its gradients (on JAX, means are float32).

Run with keras and tensorflow installed: ``python tests/golden/make_keras.py``.
"""

import os
from collections.abc import Iterator
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf
from tables import case, write

RNG = np.random.default_rng(1)
ROWS, CLASSES = 6, 5
EPSILON = keras.config.epsilon()
LOGITS = 3 * RNG.standard_normal((ROWS, CLASSES))
PROBS = RNG.dirichlet(np.ones(CLASSES), ROWS)
SCALED = PROBS * RNG.uniform(0.5, 1.0, (ROWS, 1))  # rows that do not sum to 1, which Keras normalises
SURE = np.array([[0.0, 1.0], [1.0, 0.0], [1e-9, 1 - 1e-9], [0.3, 0.7], [5e-8, 0.5], [0.999, 0.001]])
TARGET = np.array([0, 4, 2, 2, 1, 3])
ONE_HOT = np.eye(CLASSES)[TARGET]
SOFT = RNG.dirichlet(np.ones(CLASSES), ROWS)
LABELS = RNG.integers(0, 2, (ROWS, CLASSES)).astype(np.float64)
SAMPLE_WEIGHT = np.array([1.0, 0.0, 2.5, 0.5, 1.0, 3.0])
REDUCTIONS = ("none", "sum", "sum_over_batch_size", "mean_with_sample_weight")


def differentiated(
    call: str,
    x: np.ndarray,
    y: np.ndarray,
    loss: keras.losses.Loss,
    spelt: str,
    weight: np.ndarray | None = None,
    **ours: Any,
) -> dict[str, Any]:
    """The case ``fusedloss.<call>(x, y, **ours) == loss(y, x, weight)``."""
    leaf = tf.Variable(x)
    with tf.GradientTape() as tape:
        value = loss(y, leaf, weight)
    grad = tf.convert_to_tensor(tape.gradient(value, leaf)).numpy()
    value = value.numpy()
    name = f"{call}-{loss.__class__.__name__}({spelt}){'' if weight is None else '-weight'}"
    peer = f"keras.losses.{loss.__class__.__name__}({spelt})(y, x{'' if weight is None else ', w'})"
    return case(name, peer, call, [x, y], value if value.ndim else value.item(), grad, **ours)


def reduced(rows: int) -> Iterator[tuple[str, np.ndarray | None, dict[str, Any]]]:
    """For every reduction, with sample weights and without: Keras's name, the weights, and our options."""
    for reduction in REDUCTIONS:
        for weight in (None, SAMPLE_WEIGHT):
            ours: dict[str, Any] = {"reduction": "mean" if "_" in reduction else reduction}
            if weight is not None:
                ours |= {"sample_weight": weight}
                # a mean over the batch counts rows, whatever their weights
                ours |= {"denominator": float(rows)} if reduction == "sum_over_batch_size" else {}
            yield reduction, weight, ours


def categorical() -> Iterator[dict[str, Any]]:
    """From logits, and from probabilities, which Keras normalises and then clips."""
    options: dict[str, Any] = {"dtype": "float64"}
    for reduction, weight, ours in reduced(ROWS):
        options["reduction"] = reduction
        spelt = f"reduction={reduction!r}"
        for kind, x, call, extra in (
            (True, LOGITS, "cross_entropy", {}),
            (False, SCALED, "log_loss", {"eps": EPSILON, "normalize": True}),
        ):
            full = f"from_logits={kind}, {spelt}"
            sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=kind, **options)
            yield differentiated(call, x, TARGET, sparse, full, weight, **ours, **extra)
            for smoothing in (0.0, 0.1):
                dense = keras.losses.CategoricalCrossentropy(from_logits=kind, label_smoothing=smoothing, **options)
                spelt_too = f"{full}, label_smoothing={smoothing}"
                yield differentiated(
                    call, x, SOFT, dense, spelt_too, weight, label_smoothing=smoothing, **ours, **extra
                )


def ignored() -> Iterator[dict[str, Any]]:
    """``ignore_class``: Keras averages over the rows that are left."""
    for reduction in ("sum", "sum_over_batch_size", "none"):
        for kind, x, call, extra in (
            (True, LOGITS, "cross_entropy", {}),
            (False, SCALED, "log_loss", {"eps": EPSILON, "normalize": True}),
        ):
            loss = keras.losses.SparseCategoricalCrossentropy(
                from_logits=kind, ignore_class=2, reduction=reduction, dtype="float64"
            )
            ours = {"reduction": "mean" if "_" in reduction else reduction, "ignore_index": 2}
            spelt = f"from_logits={kind}, ignore_class=2, reduction={reduction!r}"
            yield differentiated(call, x, TARGET, loss, spelt, **ours, **extra)


def binary() -> Iterator[dict[str, Any]]:
    """Keras averages the last axis first: a weight for a row is a weight for its every element."""
    for kind, x, y, call, extra in (
        (True, LOGITS, LABELS, "binary_cross_entropy", {}),
        (False, SURE, LABELS[:, :2], "binary_log_loss", {"eps": EPSILON}),
    ):
        for smoothing in (0.0, 0.1):
            options = {"from_logits": kind, "label_smoothing": smoothing, "dtype": "float64"}
            for weight in (None, SAMPLE_WEIGHT):
                loss = keras.losses.BinaryCrossentropy(**options)
                ours = {"label_smoothing": smoothing} | extra
                if weight is not None:
                    ours |= {"sample_weight": weight[:, None] * np.ones_like(x), "denominator": float(x.size)}
                spelt = f"from_logits={kind}, label_smoothing={smoothing}"
                yield differentiated(call, x, y, loss, spelt, weight, **ours)


def squares() -> Iterator[dict[str, Any]]:
    """The squared error, averaged over everything."""
    yield differentiated("mse", LOGITS, SOFT, keras.losses.MeanSquaredError(dtype="float64"), "")


def documented() -> Iterator[dict[str, Any]]:
    """The numbers of the tutorial on log loss, which Keras 3 gives without a second epsilon inside the logarithm."""
    loss = keras.losses.BinaryCrossentropy(dtype="float64")
    for p, y in (([0.0, 0.0, 1.0], [1.0, 0.0, 1.0]), ([1.0, 1.0, 0.0], [1.0, 1.0, 1.0])):
        yield differentiated("binary_log_loss", np.array(p), np.array(y), loss, f"{p}, {y}", eps=EPSILON)


def main() -> None:
    """Write the table."""
    groups = (categorical, ignored, binary, squares, documented)
    write("keras", ["keras", "tensorflow-cpu"], [entry for group in groups for entry in group()])


if __name__ == "__main__":
    main()
