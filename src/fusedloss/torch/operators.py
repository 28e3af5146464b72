"""The losses as operators of ``torch.library``: what they compute, their shapes, gradients and batching.

Each takes ``input, target, reduction, gradient`` and its own options, and returns the loss; its gradient by the input,
empty unless ``gradient`` asks for it; and what that has yet to be multiplied by, empty if nothing. The gradient belongs
to the backward pass, which hands it on as it is where it can.

A float16 gradient of a mean would be lost: divided by the number of rows it falls below the least float16, and the
factor of a scaler of losses comes too late. So it is kept as that of the sum, and divided along with that factor.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fusedloss import check
from fusedloss.check import Problem
from fusedloss.errors import FusedLossError
from fusedloss.options import options
from fusedloss.reduction import quotients, solve

from . import slopes
from .autograd import Rules, is_undivided
from .errors import as_torch
from .slopes import class_axis

Results = tuple[Tensor, Tensor, Tensor]


@torch.library.custom_op("fusedloss::cross_entropy", mutates_args=())
def cross_entropy(
    input: Tensor, target: Tensor, reduction: str, gradient: bool,
    weight: Tensor | None, ignore_index: int, label_smoothing: float,
) -> Results:  # fmt: skip
    """Solve ``fusedloss.cross_entropy`` along PyTorch's class axis."""
    return _solve(gradient, lambda: check.class_loss(
        "cross_entropy", input, target, class_axis(input), None, reduction, None, "auto",
        options(
            ignore_index=ignore_index, label_smoothing=label_smoothing, z_loss=0.0, logit_scale=1.0, softcap=None
        ),
        class_weight=weight, name="input", signed=True,
    ))  # fmt: skip


@torch.library.custom_op("fusedloss::kl_divergence", mutates_args=())
def kl_divergence(input: Tensor, target: Tensor, reduction: str, gradient: bool) -> Results:
    """Solve ``fusedloss.kl_divergence`` along PyTorch's class axis."""
    return _solve(gradient, lambda: check.class_loss(
        "kl_divergence", input, target, class_axis(input), None, reduction, None, "auto", options(logit_scale=1.0),
        name="input", soft_only=True,
    ))  # fmt: skip


@torch.library.custom_op("fusedloss::binary_cross_entropy", mutates_args=())
def binary_cross_entropy(
    input: Tensor, target: Tensor, reduction: str, gradient: bool, weight: Tensor | None
) -> Results:
    """Solve ``fusedloss.binary_log_loss``; the mean is by the number of elements, whatever their weights."""
    return _solve(gradient, lambda: check.element_loss(
        "binary_log_loss", input, target, _by_element(weight, input), reduction, _elements(input, reduction), "auto",
        options(label_smoothing=0.0, eps=0.0, log_eps=0.0), name="input", signed=True,
    ))  # fmt: skip


@torch.library.custom_op("fusedloss::binary_cross_entropy_with_logits", mutates_args=())
def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, reduction: str, gradient: bool, weight: Tensor | None, pos_weight: Tensor | None
) -> Results:
    """Solve ``fusedloss.binary_cross_entropy``; the mean is by the number of elements, whatever their weights."""
    return _solve(gradient, lambda: check.element_loss(
        "binary_cross_entropy", input, target, _by_element(weight, input), reduction, _elements(input, reduction),
        "auto", options(label_smoothing=0.0), name="input", signed=True, pos_weight=pos_weight,
    ))  # fmt: skip


@torch.library.custom_op("fusedloss::mse_loss", mutates_args=())
def mse_loss(input: Tensor, target: Tensor, reduction: str, gradient: bool, weight: Tensor | None) -> Results:
    """Solve ``fusedloss.mse``; the mean is by the sum of the weights."""
    return _solve(gradient, lambda: check.element_loss(
        "mse", input, target, weight, reduction, None, "auto", {}, name="input", signed=True,
    ))  # fmt: skip


def _by_element(weight: Tensor | None, input: Tensor) -> Tensor | None:
    """Give weights that broadcast from the last axes on as many axes as the input has."""
    return None if weight is None else weight[(None,) * max(input.dim() - weight.dim(), 0)]


def _elements(input: Tensor, reduction: str) -> int | None:
    return input.numel() or None if reduction == "mean" else None


def _solve(wanted: bool, pose: Callable[[], Problem]) -> Results:
    try:
        problem = pose()
        if not wanted:
            loss = solve(problem)
            return loss, problem.caller.new_empty(0), loss.new_empty(0)
        if not is_undivided(problem.caller, problem.reduction):
            loss, gradient = solve(problem, gradient=True)
            return loss, gradient, loss.new_empty(0)
        divisor, reciprocal = quotients(problem)
        total, gradient = solve(problem._replace(reduction="sum", denominator=None), gradient=True)
    except FusedLossError as error:
        raise as_torch(error) from None
    scale = torch.as_tensor(reciprocal, dtype=total.dtype, device=total.device)
    return (total / divisor).to(total.dtype), gradient, scale


for rules in (
    Rules(cross_entropy, slopes.cross_entropy, by_class=True),
    Rules(kl_divergence, slopes.kl_divergence, by_class=True),
    Rules(binary_cross_entropy, slopes.binary_cross_entropy),
    Rules(binary_cross_entropy_with_logits, slopes.binary_cross_entropy_with_logits),
    Rules(mse_loss),
):
    rules.register()
