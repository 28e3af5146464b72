"""The losses under the names, and with the arguments and meanings, of ``torch.nn.functional``."""

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import _reduction

from . import operators
from .errors import DTypeError, OptionError, ShapeError

_CLASSES = (torch.int64, torch.uint8)


def cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean", label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """Compute ``torch.nn.functional.cross_entropy`` and, where it is wanted, the gradient with it.

    Parameters
    ----------
    input : Tensor, shape (N, C, ...) or (C,)
        Logits: float16, bfloat16, float32 or float64.
    target : Tensor
        Classes, int64 or uint8, of the input's shape without the class axis; or probabilities, of the input's shape,
        which may require a gradient too.
    weight : Tensor, shape (C,), optional
        Weights of the classes, of any sign.
    size_average, reduce : bool, optional
        Deprecated by PyTorch; they override `reduction`.
    ignore_index : int
        The class that is left out; it must be negative where the target holds probabilities.
    reduction : {"mean", "sum", "none"}
        The mean of classes is by the sum of their weights, that of probabilities by the number of rows. It is NaN where
        all rows are left out.
    label_smoothing : float
        In [0, 1].

    Returns
    -------
    Tensor
        A scalar, or with ``reduction="none"`` one loss a row: float32, or float64 for float64 input.

    Raises
    ------
    IndexError
        If a class is neither in [0, C) nor `ignore_index`; it is a `fusedloss.TargetError`.
    RuntimeError
        If tensors do not fit each other, or an option is out of range; it is a typed error of `fusedloss`, and thereby
        a ValueError or TypeError too.
    """
    reduction = _reduced(size_average, reduce, reduction)
    _require_tensors(input=input, target=target, weight=weight)
    if target.is_floating_point():
        if target.shape == input.shape and ignore_index >= 0:
            raise OptionError(
                f"ignore_index is {ignore_index}, expected a negative one: the target holds probabilities"
            )
    elif target.dtype not in _CLASSES:
        raise DTypeError(f"target has dtype {target.dtype}, expected torch.int64 or torch.uint8, or probabilities")
    loss: Tensor
    loss, *_ = operators.cross_entropy(
        input, target, reduction, _wanted(input), weight, ignore_index, float(label_smoothing)
    )
    return loss


def kl_divergence(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", log_target: bool = False,
) -> Tensor:  # fmt: skip
    """Compute KL(target ‖ softmax(input)) along the class axis and, where it is wanted, the gradient with it.

    It takes logits, where ``torch.nn.functional.kl_div`` takes log-probabilities, and has one loss a row, Σ over the
    classes, where that has one an element. So for input of shape (N, C) both ``"mean"`` and ``"batchmean"`` are
    ``kl_div(input.log_softmax(1), target, reduction="batchmean")``.

    Parameters
    ----------
    input : Tensor, shape (N, C, ...) or (C,)
        Logits: float16, bfloat16, float32 or float64.
    target : Tensor, shape (N, C, ...) or (C,)
        Probabilities, or their logarithms if `log_target`; it may require a gradient too.
    size_average, reduce : bool, optional
        Deprecated by PyTorch; they override `reduction`.
    reduction : {"mean", "batchmean", "sum", "none"}
        ``"mean"`` is by the number of rows, ``"batchmean"`` by N.
    log_target : bool
        Whether the target holds logarithms.

    Returns
    -------
    Tensor
        As in `cross_entropy`.

    Raises
    ------
    RuntimeError
        As in `cross_entropy`.
    """
    reduction = _reduced(size_average, reduce, reduction, "batchmean")
    _require_tensors(input=input, target=target)
    target = target.exp() if log_target else target
    loss: Tensor
    loss, *_ = operators.kl_divergence(input, target, reduction, _wanted(input))
    return loss


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Compute ``torch.nn.functional.binary_cross_entropy`` and, where it is wanted, the gradient with it.

    Parameters
    ----------
    input : Tensor, shape (...)
        Probabilities in [0, 1]: float16, bfloat16, float32 or float64.
    target : Tensor, shape (...)
        Of the input's shape and dtype; it may require a gradient too.
    weight : Tensor, optional
        Weights of the elements, of any sign, that broadcast to the input.
    size_average, reduce : bool, optional
        Deprecated by PyTorch; they override `reduction`.
    reduction : {"mean", "sum", "none"}
        The mean is by the number of elements, whatever their weights.

    Returns
    -------
    Tensor
        A scalar, or with ``reduction="none"`` one loss an element: float32, or float64 for float64 input.

    Raises
    ------
    RuntimeError
        As in `cross_entropy`; and if a probability is out of [0, 1], which is a `fusedloss.ProbabilityError`.
    """
    reduction = _reduced(size_average, reduce, reduction)
    _require_tensors(input=input, target=target, weight=weight)
    if target.dtype != input.dtype:
        raise DTypeError(f"target has dtype {target.dtype}, expected {input.dtype}, as the input")
    loss: Tensor
    loss, *_ = operators.binary_cross_entropy(input, target, reduction, _wanted(input), weight)
    return loss


def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean", pos_weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Compute ``torch.nn.functional.binary_cross_entropy_with_logits`` and, where it is wanted, the gradient with it.

    Parameters
    ----------
    input : Tensor, shape (...)
        Logits: float16, bfloat16, float32 or float64.
    target : Tensor, shape (...)
        Of the input's shape: bool, integers or floating; it may require a gradient too.
    weight, pos_weight : Tensor, optional
        Weights of the elements, and of the positive class, of any sign, that broadcast to the input.
    size_average, reduce, reduction
        As in `binary_cross_entropy`.

    Returns
    -------
    Tensor
        As in `binary_cross_entropy`.

    Raises
    ------
    RuntimeError
        As in `cross_entropy`.
    """
    reduction = _reduced(size_average, reduce, reduction)
    _require_tensors(input=input, target=target, weight=weight, pos_weight=pos_weight)
    loss: Tensor
    loss, *_ = operators.binary_cross_entropy_with_logits(input, target, reduction, _wanted(input), weight, pos_weight)
    return loss


def mse_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Compute ``torch.nn.functional.mse_loss`` and, where it is wanted, the gradient with it.

    Parameters
    ----------
    input, target : Tensor
        Predictions, float16, bfloat16, float32 or float64, and what they should have been, of shapes that broadcast;
        PyTorch's warning is given where they differ. The target may require a gradient too.
    size_average, reduce : bool, optional
        Deprecated by PyTorch; they override `reduction`.
    reduction : {"mean", "sum", "none"}
        The mean is by the sum of the weights.
    weight : Tensor, optional
        Weights of the elements, of any sign and of the input's shape.

    Returns
    -------
    Tensor
        As in `binary_cross_entropy`.

    Raises
    ------
    RuntimeError
        As in `cross_entropy`.
    """
    reduction = _reduced(size_average, reduce, reduction)
    _require_tensors(input=input, target=target, weight=weight)
    if weight is not None and weight.shape != input.shape:
        raise ShapeError(f"weight has shape {tuple(weight.shape)}, expected {tuple(input.shape)}, the input's shape")
    if target.shape != input.shape:
        warnings.warn(
            f"Using a target size ({target.shape}) that is different to the input size ({input.shape}). "
            "This will likely lead to incorrect results due to broadcasting. Please ensure they have the same size.",
            stacklevel=2,
        )
        input, target = torch.broadcast_tensors(input, target)  # type: ignore[no-untyped-call]
    loss: Tensor
    loss, *_ = operators.mse_loss(input, target, reduction, _wanted(input, target), weight)
    return loss


def _reduced(size_average: bool | None, reduce: bool | None, reduction: str, *more: str) -> str:
    if size_average is not None or reduce is not None:
        return _reduction.legacy_get_string(size_average, reduce)
    expected = ("mean", "sum", "none", *more)
    if reduction not in expected:
        raise OptionError(f"reduction is {reduction!r}, expected one of {', '.join(map(repr, expected))}")
    return reduction


def _require_tensors(**given: Any) -> None:
    for name, value in given.items():
        if not isinstance(value, Tensor) and (value is not None or name in ("input", "target")):
            raise DTypeError(f"{name} is a {type(value).__name__}, expected a tensor")


def _wanted(*tensors: Tensor) -> bool:
    """Tell whether the gradient by the input, or what follows from it, will be wanted."""
    if any(forward_ad.unpack_dual(each).tangent is not None for each in tensors):  # type: ignore[no-untyped-call]
        raise NotImplementedError("fusedloss has no derivatives in forward mode: take the loss of torch.nn.functional")
    return torch.is_grad_enabled() and any(each.requires_grad for each in tensors)
