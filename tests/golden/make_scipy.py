"""Makes ``scipy.json``: what scipy.special and scipy.stats give for the activations and the entropies.

Run with scipy installed: ``python tests/golden/make_scipy.py``.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import special, stats
from tables import case, write

RNG = np.random.default_rng(4)
LOGITS = np.concatenate([scale * RNG.standard_normal((3, 7)) for scale in (1, 10, 100)])
MASKED = np.where(np.arange(7) < 2, -np.inf, LOGITS)
SOFT = RNG.dirichlet(np.ones(7), len(LOGITS))


def cases() -> Iterator[dict[str, Any]]:
    """Activations along two axes, entropies, divergences and log-likelihoods."""
    for kind, x in (("plain", LOGITS), ("masked", MASKED)):
        for name in ("softmax", "log_softmax", "logsumexp"):
            for axis in (-1, 0):
                if kind == "plain" or axis == -1:
                    value = getattr(special, name)(x, axis=axis)
                    yield case(f"{name}-{kind}-{axis}", f"scipy.special.{name}(x, axis)", name, [x], value, axis=axis)
    yield case("sigmoid", "scipy.special.expit(x)", "sigmoid", [LOGITS], special.expit(LOGITS))
    target = RNG.integers(2, 7, len(LOGITS))
    rows, probs = np.arange(len(LOGITS)), special.softmax(MASKED, axis=-1)
    scores = {
        "nll": -special.log_softmax(MASKED, axis=-1)[rows, target],
        "log_normalizer": special.logsumexp(MASKED, axis=-1),
        "prediction": MASKED.argmax(-1),
        "confidence": probs.max(-1),
        "entropy": stats.entropy(probs, axis=-1),
        "rank": stats.rankdata(-MASKED, method="ordinal", axis=-1)[rows, target] - 1,
        "brier": np.square(probs - np.eye(7)[target]).sum(-1),
    }
    yield case("score", "scipy.special, scipy.stats.entropy, scipy.stats.rankdata", "score", [MASKED, target], scores)
    # the divergence of the softmax, so that no logarithm of a rounded probability is taken
    divergence = special.rel_entr(SOFT, special.softmax(LOGITS[:3], axis=-1)[:, None]).sum(-1)
    x = np.repeat(LOGITS[:3], len(SOFT), axis=0)
    peer = "scipy.special.rel_entr(y, softmax(x)).sum(-1)"
    options = {"reduction": "none"}
    yield case("kl", peer, "kl_divergence", [x, np.tile(SOFT, (3, 1))], divergence.ravel(), **options)
    y = RNG.random(LOGITS.shape)
    value = -y * special.log_expit(LOGITS) - (1 - y) * special.log_expit(-LOGITS)
    peer = "-y * log_expit(x) - (1 - y) * log_expit(-x)"
    yield case("binary", peer, "binary_cross_entropy", [LOGITS, y], value, **options)


if __name__ == "__main__":
    write("scipy", ["scipy"], list(cases()))
