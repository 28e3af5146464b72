"""Makes ``sklearn.json``: what scikit-learn's metrics say of probabilities, of logits, and of the digits of the demo.

Run with scikit-learn and scipy installed: ``python tests/golden/make_sklearn.py``.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn import metrics
from tables import case, write

RNG = np.random.default_rng(6)
ROWS, CLASSES = 40, 6
PROBS = RNG.dirichlet(np.ones(CLASSES), ROWS)
TARGET = np.concatenate([np.arange(CLASSES), RNG.integers(0, CLASSES, ROWS - CLASSES)])
SAMPLE_WEIGHT = RNG.random(ROWS)
LOGITS = 3 * RNG.standard_normal((ROWS, CLASSES)) + 2 * np.eye(CLASSES)[TARGET]


def log_losses() -> Iterator[dict[str, Any]]:
    """``log_loss``, which clips to the machine epsilon of the probabilities' dtype."""
    certain = np.eye(CLASSES)[RNG.integers(0, CLASSES, ROWS)]
    binary, labels = RNG.random(ROWS), RNG.integers(0, 2, ROWS)
    for kind, p in (("plain", PROBS), ("certain", certain)):
        for weight in (None, SAMPLE_WEIGHT):
            for normalize in (True, False):
                ours = {"eps": float(np.finfo(p.dtype).eps), "reduction": "mean" if normalize else "sum"}
                ours |= {} if weight is None else {"sample_weight": weight}
                spelt = f"{'' if weight is None else 'sample_weight=w, '}normalize={normalize}"
                value = metrics.log_loss(TARGET, p, sample_weight=weight, normalize=normalize)
                name = f"log-loss-{kind}-{'plain' if weight is None else 'weight'}-{ours['reduction']}"
                yield case(name, f"log_loss(y, p, {spelt})", "log_loss", [p, TARGET], value, **ours)
    eps = float(np.finfo(np.float64).eps)
    for name, weight, ours in (("plain", None, {}), ("weight", SAMPLE_WEIGHT, {"sample_weight": SAMPLE_WEIGHT})):
        value = metrics.log_loss(labels, binary, sample_weight=weight)
        yield case(f"binary-{name}", "log_loss(y, p)", "binary_log_loss", [binary, labels], value, eps=eps, **ours)


def evaluations() -> Iterator[dict[str, Any]]:
    """One call of ``evaluate`` against five metrics."""
    classes = np.arange(CLASSES)
    for name, weight, ours in (("plain", None, {}), ("weight", SAMPLE_WEIGHT, {"sample_weight": SAMPLE_WEIGHT})):
        probs = softmax(LOGITS, axis=-1)
        value = {
            "count": ROWS,
            "nll": metrics.log_loss(TARGET, probs, sample_weight=weight),
            "perplexity": np.exp(metrics.log_loss(TARGET, probs, sample_weight=weight)),
            "accuracy": metrics.accuracy_score(TARGET, LOGITS.argmax(-1), sample_weight=weight),
            "brier": np.average(np.square(probs - np.eye(CLASSES)[TARGET]).sum(-1), weights=weight),
            "top_k": [
                metrics.top_k_accuracy_score(TARGET, LOGITS, k=k, sample_weight=weight, labels=classes)
                for k in (1, 2, 5)
            ],
        }
        peer = "log_loss, accuracy_score, top_k_accuracy_score of softmax(x)"
        yield case(f"evaluate-{name}", peer, "evaluate", [LOGITS, TARGET], value, top_k=[1, 2, 5], **ours)


if __name__ == "__main__":
    write("sklearn", ["scikit-learn", "scipy"], [*log_losses(), *evaluations()])
