"""Evaluations and scores as pictures."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ..arrays import Array, adopt, on_host
from ..errors import OptionError
from ..options import positive_integer
from ..scores import BinaryEvaluation, BinaryScores, Evaluation, Scores
from .canvas import BLUE, GREY, VERMILION, axes

_ABOVE: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": "x-small"}


def reliability(evaluation: Evaluation | BinaryEvaluation, ax: Axes | None = None) -> Axes:
    """Draw how often predictions of a confidence are right, and beside it the confidence: a reliability diagram.

    After Guo et al., "On Calibration of Modern Neural Networks" (2017). A bar and a line a bin, with the number of its
    rows. The calibration error is the distance of bar and line, in the mean over rows.

    Parameters
    ----------
    evaluation : Evaluation or BinaryEvaluation
        Of the latter: how often the label is positive, over the probability that it is.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the axes of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    OptionError
        If `evaluation` is none.
    """
    if not isinstance(evaluation, Evaluation | BinaryEvaluation):
        raise OptionError(f"evaluation is of type {type(evaluation).__name__}, expected Evaluation or BinaryEvaluation")
    ax, bins = axes(ax), [each for each in evaluation.calibration if each.count]
    lower, upper, confidence, accuracy = (
        np.array([getattr(each, name) for each in bins]) for name in ("lower", "upper", "confidence", "accuracy")
    )
    right, sure = "accuracy", "confidence"
    if isinstance(evaluation, BinaryEvaluation):
        right, sure = "share of positives", "probability"
    middle, width = (lower + upper) / 2, upper - lower
    ax.bar(middle, accuracy, width, color=BLUE, edgecolor=ax.get_facecolor(), label=right)
    ax.hlines(confidence, lower, upper, color=VERMILION, linewidth=3, label=f"mean {sure}")
    ax.plot([0, 1], [0, 1], ":", color=GREY, label="calibrated")
    ground: dict[str, Any] = {"facecolor": ax.get_facecolor(), "edgecolor": "none", "pad": 0.5}
    for x, top, each in zip(middle, np.maximum(accuracy, confidence), bins, strict=True):
        ax.annotate(f"{each.count:,}", (x, top), (0, 4), bbox=ground, **_ABOVE)
    ax.set(title=f"Reliability: calibration error {evaluation.ece:.3f}", xlabel=sure, ylabel=right)
    ax.set(xlim=(0, 1), ylim=(0, 1.08), aspect="equal")
    ax.legend(loc="upper left")
    return ax


def loss_histogram(scores: Scores | BinaryScores, bins: int = 40, ax: Axes | None = None) -> Axes:
    """Draw how many rows have which loss, on a logarithmic scale, and the mean.

    An evaluation keeps the sum of the losses, not each one: so this takes the scores that it is made of. Rows that are
    ignored are left out; what is not finite is counted in the title.

    Parameters
    ----------
    scores : Scores or BinaryScores
        What `score` or `score_binary` gave with a target.
    bins : int
        Bins of equal width, at least 1.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the axes of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    OptionError
        If `scores` is none or was made without a target, or `bins` is no positive integer.
    """
    bins, losses = positive_integer("bins", bins), _losses(scores)
    ax = axes(ax)
    finite = losses[np.isfinite(losses)]
    if finite.size:
        ax.hist(finite, bins, color=BLUE, log=True)
        ax.set_ylim(bottom=0.5)
        ax.axvline(finite.mean(), linestyle="--", linewidth=2, color=VERMILION, label=f"mean {finite.mean():.3g} nats")
        ax.legend()
    rest = f", {losses.size - finite.size:,} not finite" if finite.size < losses.size else ""
    unit = "elements" if isinstance(scores, BinaryScores) else "rows"
    ax.set(title=f"Losses of {losses.size:,} {unit}{rest}", xlabel="loss (nats)", ylabel=unit)
    return ax


def _losses(scores: Scores | BinaryScores) -> Array:
    """Find the losses of the rows that count."""
    if not isinstance(scores, Scores | BinaryScores):
        raise OptionError(f"scores is of type {type(scores).__name__}, expected Scores or BinaryScores")
    if scores.nll is None:
        raise OptionError("scores have no nll, expected what is scored with a target")
    losses = on_host(adopt(scores.nll, "scores.nll")).astype(np.float64)
    return losses[on_host(adopt(scores.rank, "scores.rank")) >= 0] if isinstance(scores, Scores) else losses.ravel()
