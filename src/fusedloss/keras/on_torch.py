"""Keras on PyTorch: a function of its autograd."""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from ..arrays import adopt, give
from ..vjp import Unreduced


def can_call() -> bool:
    """Tell that PyTorch may call out, also where it compiles: it breaks its graph there."""
    return True


@torch.compiler.disable
def unreduced(loss: Unreduced, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Compute an unreduced loss, differentiable by the output."""
    result: torch.Tensor = _Unreduced.apply(loss, output, target)
    return result


class _Unreduced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Unreduced, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        ctx.loss = loss
        ctx.save_for_backward(output, target)
        value: torch.Tensor = give(loss.value(adopt(output, "y_pred"), adopt(target, "y_true")), output)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[None, torch.Tensor, None]:
        if ctx.needs_input_grad[2]:
            raise NotImplementedError(f"{ctx.loss.name} has no derivative by y_true here: detach it")
        return None, _gradient(ctx.loss, *ctx.saved_tensors, cotangent), None


@torch.compiler.disable
def _gradient(loss: Unreduced, output: torch.Tensor, target: torch.Tensor, cotangent: torch.Tensor) -> torch.Tensor:
    arrays = adopt(output, "y_pred"), adopt(target, "y_true"), adopt(cotangent, "the cotangent")
    gradient: torch.Tensor = give(loss.vjp(*arrays), output)
    return gradient
