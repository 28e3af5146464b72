"""What the elementwise kernels of every device share: the loss and gradient of single elements, from `numerics`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import numerics

SETTINGS = ("kept", "spread", "lowest", "highest", "log_eps", "grad_scale")
"""A call's options as the formulas take them: y·kept + spread is smoothed, probabilities are clipped to a range."""


class Device(NamedTuple):
    """What the formulas are made for: how helpers are compiled, and the operations on that device's values."""

    jit: numerics.Jit  # for what is short
    inline: numerics.Jit  # for what is called more than once
    ops: Any
    real: Any  # the arithmetic type, numpy.float32 or numpy.float64
    narrow: Any  # a float64 value in that type
    nowhere: Any  # gives the mask of no element


def settings_of(
    dtype: np.dtype[Any], *, label_smoothing: float = 0.0, eps: float = 0.0, log_eps: float = 0.0,
    grad_scale: float = 1.0, classes: int = 2,
) -> dict[str, float]:  # fmt: skip
    """The settings of a call on inputs of a dtype, by name."""
    kept, spread = 1.0 - float(label_smoothing), float(label_smoothing) / classes
    lowest, highest = numerics.clip_range(eps, np.float64 if dtype.itemsize == 8 else np.float32)
    return dict(zip(SETTINGS, (kept, spread, lowest, highest, log_eps, grad_scale), strict=True))


def pointwise(formula: str, device: Device) -> Any:
    """The formula of single elements: (loss, gradient), or for an activation (input, output)."""
    jit, inline, ops, real, narrow, _ = device
    exp, log = numerics.exponential(inline, ops, real, gradual=True), numerics.logarithm(inline, ops)
    logit = numerics.binary_formulas(inline, ops, real, exp)
    probability = numerics.probability_formulas(inline, ops, log)
    logit_loss, probability_loss, sigmoid_of = logit.loss_and_gradient, probability.loss_and_gradient, logit.sigmoid
    wide, fma, one = ops.wide, ops.fma, real(1)

    @jit
    def smoothed(y: Any, settings: Any) -> Any:
        """y and 1 - y, each smoothed: 1 - y' would lose what a small share holds."""
        return fma(y, settings[0], settings[1]), fma(one - y, settings[0], settings[1])

    @jit
    def binary_cross_entropy(x: Any, y: Any, q: Any, settings: Any) -> Any:
        yes, no = smoothed(y, settings)
        return logit_loss(x, yes * q, no)

    @jit
    def binary_log_loss(p: Any, y: Any, q: Any, settings: Any) -> Any:
        yes, no = smoothed(wide(y), settings)
        loss, gradient = probability_loss(wide(p), yes, no, settings[2], settings[3], settings[4])
        return narrow(loss), narrow(gradient)

    @jit
    def mse(x: Any, y: Any, q: Any, settings: Any) -> Any:
        error = x - y
        return error * error, error + error

    @jit
    def sigmoid(x: Any, y: Any, q: Any, settings: Any) -> Any:
        return x, sigmoid_of(x)

    return {
        "binary_cross_entropy": binary_cross_entropy, "binary_log_loss": binary_log_loss, "mse": mse,
        "sigmoid": sigmoid, "score_binary": binary_cross_entropy,
    }[formula]  # fmt: skip


def element_values(formula: str, device: Device, *, weighted: bool) -> Any:
    """The weighted loss and gradient of single elements, and the mask of those whose probability is none."""
    of, checked, scaled = pointwise(formula, device), formula == "binary_log_loss", formula != "sigmoid"
    select, nowhere, zero, one = device.ops.select, device.nowhere, device.real(0), device.real(1)

    @device.jit
    def values(operands: Any, mask: Any, settings: Any) -> Any:
        x, y, w, q = operands
        value, gradient = of(x, y, q, settings)
        wrong = mask & ((x < zero) | (x > one)) if checked else nowhere()
        if scaled:
            gradient = gradient * settings[5]
        if weighted:
            used = w != zero
            value, gradient = select(used, value * w, zero), select(used, gradient * w, zero)
            wrong = wrong & used
        return value, gradient, wrong

    return values
