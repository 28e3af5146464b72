"""Evaluations as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..evaluation import BinaryEvaluation, Evaluation

_BAR = 24


def columns(rows: Iterable[tuple[str, object]]) -> str:
    """Lay out a name and a value a line, the names flush left and the values flush right."""
    texts = [(name, str(value)) for name, value in rows]
    left = max(len(name) for name, _ in texts)
    right = max(len(value) for _, value in texts)
    return "\n".join(f"{name:<{left}}  {value:>{right}}" for name, value in texts)


def quantities(evaluation: Evaluation | BinaryEvaluation) -> list[tuple[str, object]]:
    """Name and format what an evaluation tells."""
    if isinstance(evaluation, BinaryEvaluation):
        return [(name, _text(getattr(evaluation, name))) for name in ("count", *_BINARY)]
    return [
        ("rows that count", evaluation.count),
        ("loss (nats)", f"{evaluation.nll:.6f}"),
        ("perplexity", f"{evaluation.perplexity:.6g}"),
        ("accuracy", f"{evaluation.accuracy:.4%}"),
        *((f"top-{k} accuracy", f"{value:.4%}") for k, value in evaluation.top_k.items() if k > 1),
        ("entropy (nats)", f"{evaluation.entropy:.6f}"),
        ("Brier score", f"{evaluation.brier:.6f}"),
        ("calibration error", f"{evaluation.ece:.4%}"),
    ]


_BINARY = ()
