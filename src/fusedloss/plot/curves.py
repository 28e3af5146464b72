"""The losses and activations as curves."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from ..activations import sigmoid, softmax
from ..arrays import Array, adopt
from ..errors import OptionError, ShapeError
from ..losses import binary_cross_entropy, binary_log_loss, mse, value_and_grad
from ..options import positive_integer
from .canvas import BLUE, VERMILION, axes

Over = Literal["probability", "logit"]

_STEPS = 401
# where a binary loss is drawn, and which: from 0.002, where it is 6.2 nats
_DOMAINS: dict[str, tuple[Array, Callable[..., Any], str]] = {
    "probability": (np.linspace(0.002, 0.998, _STEPS), binary_log_loss, "probability $p$ of class 1"),
    "logit": (np.linspace(-6.2, 6.2, _STEPS), binary_cross_entropy, "logit $x$ of class 1"),
}


def binary_loss(ax: Axes | None = None, *, over: Over = "probability") -> Axes:
    """Draw the two branches of the binary cross-entropy: the loss where the target is 1, and where it is 0.

    Parameters
    ----------
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the axes of a new figure.
    over : {"probability", "logit"}
        What it is a function of: −log p and −log(1−p), or those of p = sigmoid(x).

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    OptionError
        If `over` is neither.
    """
    ax = _branches(ax, over, ("$-\\log p$", "$-\\log(1-p)$"), lambda loss, x, y: loss(x, y, reduction="none"))
    ax.set(title="Binary cross-entropy", ylabel="loss (nats)")
    return ax


def binary_gradient(ax: Axes | None = None, *, over: Over = "probability") -> Axes:
    """Draw the gradient of the two branches: steep in p where the prediction is wrong, never more than 1 in the logit.

    Parameters, result and errors are those of `binary_loss`: the gradients are −1/p and 1/(1−p), or p − 1 and p.
    """
    labels = ("$-1/p$", "$1/(1-p)$") if over == "probability" else ("$p-1$", "$p$")
    ax = _branches(ax, over, labels, lambda loss, x, y: value_and_grad(loss)(x, y, reduction="sum")[1])
    unit = "nats per unit of $p$" if over == "probability" else "nats per unit of $x$"
    ax.set(title="Gradient of the binary cross-entropy", ylabel=f"gradient ({unit})")
    if over == "probability":
        ax.set_ylim(-20, 20)
    return ax


def saturation(ax: Axes | None = None) -> Axes:
    """Draw by how much each loss of a sigmoid moves its logit where the target is 1.

    The gradient of the squared error has the factor p(1−p), that of the sigmoid, and vanishes where the prediction is
    surely wrong; the cross-entropy's logarithm cancels it.

    Parameters
    ----------
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the axes of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax, x = axes(ax), np.linspace(-8, 8, _STEPS)
    ax.plot(x, np.abs(_cross_entropy_gradient(x)), color=BLUE, label="cross-entropy: $1-p$")
    squared = "squared error: $2(1-p)\\cdot p(1-p)$"
    ax.plot(x, np.abs(_squared_error_gradient(x)), "--", color=VERMILION, label=squared)
    title = "Squared error saturates, cross-entropy does not (target 1)"
    ax.set(title=title, xlabel="logit $x$, where $p=\\sigma(x)$", ylabel="|gradient by $x$|")
    ax.legend()
    return ax


def descent(ax: Axes | None = None, *, start: float = -6.0, rate: float = 0.5, steps: int = 100) -> Axes:
    """Draw a logit learning the target 1 by gradient descent: at once by cross-entropy, hardly by the squared error.

    Parameters
    ----------
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the axes of a new figure.
    start : float
        The logit before the first step.
    rate : float
        The learning rate.
    steps : int
        How many steps are taken, at least 1.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    OptionError
        If `steps` is no positive integer.
    """
    ax, steps = axes(ax), positive_integer("steps", steps)
    for label, gradient, colour, line in (
        ("cross-entropy", _cross_entropy_gradient, BLUE, "-"),
        ("squared error", _squared_error_gradient, VERMILION, "--"),
    ):
        path = np.empty(steps + 1)
        path[0] = start
        for step in range(steps):
            path[step + 1] = path[step] - rate * gradient(path[step])
        ax.plot(sigmoid(path), line, color=colour, label=label)
    title = f"Gradient descent from $x={start:g}$, rate {rate:g} (target 1)"
    ax.set(title=title, xlabel="step", ylabel="probability $p=\\sigma(x)$", ylim=(-0.05, 1.05))
    ax.legend(loc="center right")
    return ax


def temperature(
    logits: Any = (3.0, 2.0, 1.0, 0.0), temperatures: Any = (0.5, 1.0, 2.0, 5.0), ax: Axes | None = None
) -> Axes:
    """Draw softmax(logits / T): sharp for a low temperature T, flat for a high one.

    Parameters
    ----------
    logits : array_like, shape (C,)
        One logit a class.
    temperatures : float or sequence of float
        Each above 0.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the axes of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    OptionError
        If a temperature is not above 0, or there is none.
    ShapeError, DTypeError
        If the logits are not one row; as in `softmax`.
    """
    x, divisors = adopt(logits, "logits"), np.atleast_1d(adopt(temperatures, "temperatures"))
    if not divisors.size or not divisors.min() > 0:
        raise OptionError(f"temperatures is {temperatures!r}, expected numbers above 0")
    if x.ndim != 1:
        raise ShapeError(f"logits has shape {x.shape}, expected (C,)")
    ax = axes(ax)
    width, colours = 0.8 / divisors.size, colormaps["cividis"](np.linspace(0.3, 1.0, divisors.size))
    edge = ax.spines["left"].get_edgecolor()
    for number, (t, colour) in enumerate(zip(divisors, colours, strict=True)):
        left = np.arange(x.shape[-1]) - 0.4 + number * width
        ax.bar(left, softmax(x / t), width, align="edge", color=colour, edgecolor=edge, label=f"$T={t:g}$")
    names = [f"class {c}\n$x={value:g}$" for c, value in enumerate(x)]
    ax.set_xticks(range(len(names)), names)
    ax.set(title="Softmax of the same logits at temperature $T$", ylabel="probability")
    ax.legend()
    return ax


def _branches(ax: Axes | None, over: str, labels: tuple[str, str], value: Callable[..., Any]) -> Axes:
    """Draw what is computed of a loss where the target is 1, and where it is 0."""
    if over not in _DOMAINS:
        raise OptionError(f"over is {over!r}, expected one of {', '.join(map(repr, _DOMAINS))}")
    ax, (x, loss, name) = axes(ax), _DOMAINS[over]
    ax.plot(x, value(loss, x, np.ones(_STEPS)), color=BLUE, label=f"target 1: {labels[0]}")
    ax.plot(x, value(loss, x, np.zeros(_STEPS)), "--", color=VERMILION, label=f"target 0: {labels[1]}")
    ax.set_xlabel(name)
    ax.legend()
    return ax


def _cross_entropy_gradient(x: Array) -> Array:
    """Differentiate the loss of logits whose targets are 1."""
    gradient: Array = value_and_grad(binary_cross_entropy)(x, np.ones_like(x), reduction="sum")[1]
    return gradient


def _squared_error_gradient(x: Array) -> Array:
    """Differentiate (sigmoid(x) − 1)² by the logit: by the probability, times the sigmoid's own derivative."""
    p = sigmoid(x)
    gradient: Array = value_and_grad(mse)(p, np.ones_like(x), reduction="sum")[1] * p * (1 - p)
    return gradient
