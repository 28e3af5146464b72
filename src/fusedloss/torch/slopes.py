"""The gradients of losses by their targets, before reduction: what few ask for, in PyTorch's own operations.

Each takes ``input, target`` and the other arguments of its operator, tensors first.
"""

import torch
from torch import Tensor


def class_axis(input: Tensor) -> int:
    """Return PyTorch's class axis, which is the first of a single row."""
    return min(input.dim() - 1, 1)


def cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, label_smoothing: float
) -> Tensor:
    """Differentiate Σ w·y'·(−log softmax(x)), y' = (1−ε)·y + ε/C."""
    slope = (label_smoothing - 1) * _log_softmax(input)
    return slope if weight is None else slope * weight.view(-1, *(1,) * (input.dim() - 1 - class_axis(input)))


def kl_divergence(input: Tensor, target: Tensor) -> Tensor:
    """Differentiate Σ y·(log y − log softmax(x)); at y = 0 the gradient is 0, as PyTorch has it."""
    return (_wide(target).log() + 1 - _log_softmax(input)).masked_fill(target == 0, 0)


def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """Differentiate −y·max(log p, −100) − (1−y)·max(log(1−p), −100)."""
    p = _wide(input)
    return _weighted((-p).log1p().clamp(min=-100) - p.log().clamp(min=-100), weight)


def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None
) -> Tensor:
    """Differentiate (1−y)·x + (1 + (q−1)·y)·log(1 + exp(−x))."""
    x = _wide(input)
    if pos_weight is None:
        return _weighted(-x, weight)
    return _weighted((1 - _wide(pos_weight)) * torch.nn.functional.logsigmoid(x) - x, weight)


def _log_softmax(input: Tensor) -> Tensor:
    return _wide(input).log_softmax(class_axis(input))


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _weighted(slope: Tensor, weight: Tensor | None) -> Tensor:
    return slope if weight is None else slope * weight
