"""Evaluations as text."""

from collections.abc import Iterable

from ..scores import BinaryEvaluation, CalibrationBin, Evaluation

_BAR = 20


def amounts(rows: Iterable[tuple[str, object]]) -> str:
    """Lay out a name and a value a line, names flush left and values flush right."""
    texts = [(name, str(value)) for name, value in rows]
    left = max(len(name) for name, _ in texts)
    right = max(len(value) for _, value in texts)
    return "\n".join(f"{name:<{left}}  {value:>{right}}" for name, value in texts)


def listing(rows: Iterable[tuple[str, object]]) -> str:
    """Lay out a name and a text a line, both flush left."""
    texts = [(name, str(value)) for name, value in rows]
    left = max(len(name) for name, _ in texts)
    return "\n".join(f"{name:<{left}}  {value}" for name, value in texts)


def quantities(evaluation: Evaluation | BinaryEvaluation) -> list[tuple[str, object]]:
    """Name and format what an evaluation tells."""
    special = _binary(evaluation) if isinstance(evaluation, BinaryEvaluation) else _classes(evaluation)
    return [
        ("count", f"{evaluation.count:,}"),
        ("loss (nats)", f"{evaluation.nll:.6f}"),
        *special,
        ("Brier score", f"{evaluation.brier:.6f}"),
        ("calibration error", f"{evaluation.ece:.6f}"),
    ]


def speed(seconds: float, nbytes: int) -> list[tuple[str, object]]:
    """Name and format a time and the rate at which logits were read."""
    text = f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3f} ms"
    return [("time", text), ("throughput", f"{nbytes / seconds / 1e9:.2f} GB/s")]


def reliability(bins: Iterable[CalibrationBin]) -> str:
    """Draw how often predictions of a confidence are right, a line for each bin that is not empty."""
    head = f"{'confidence':<13} {'count':>9} {'mean':>7} {'correct':>8}"
    lines = [
        f"{each.lower:.3f}-{each.upper:.3f} {each.count:>11,} {each.confidence:>7.3f} {each.accuracy:>8.3f}"
        f"  {'#' * round(_BAR * each.accuracy):<{_BAR}}"
        for each in bins
        if each.count
    ]
    return "\n".join([head, *(line.rstrip() for line in lines)])


def _classes(evaluation: Evaluation) -> list[tuple[str, object]]:
    return [
        ("perplexity", f"{evaluation.perplexity:.6g}"),
        ("accuracy", f"{evaluation.accuracy:.6f}"),
        *((f"top-{k} accuracy", f"{value:.6f}") for k, value in evaluation.top_k.items() if k > 1),
        ("entropy (nats)", f"{evaluation.entropy:.6f}"),
    ]


def _binary(evaluation: BinaryEvaluation) -> list[tuple[str, object]]:
    counts = [(name, f"{getattr(evaluation, name):,.0f}") for name in ("tp", "fp", "tn", "fn")]
    rates = [(name, f"{getattr(evaluation, name):.6f}") for name in ("accuracy", "precision", "recall", "f1")]
    return [*counts, *rates]
