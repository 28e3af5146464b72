"""Keras on PyTorch: a function of its autograd."""

from typing import Any

import torch

from ..arrays import adopt, give
from ..vjp import Unreduced


def can_call() -> bool:
    """Tell that PyTorch may call out, also where it compiles: it breaks its graph there."""
    return True


@torch.compiler.disable
def unreduced(loss: Unreduced, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Compute an unreduced loss, differentiable by the output."""
    value: torch.Tensor = _Value.apply(loss, output, target)
    return value


class _Value(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Unreduced, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        ctx.loss = loss
        ctx.save_for_backward(output, target)
        value: torch.Tensor = give(loss.value(adopt(output, "y_pred"), adopt(target, "y_true")), output)
        return value

    @staticmethod
    @torch.compiler.disable
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[None, torch.Tensor, None]:
        if ctx.needs_input_grad[2]:
            raise NotImplementedError(f"{ctx.loss.name} has no derivative by y_true here: detach it")
        return None, _Gradient.apply(ctx.loss, *ctx.saved_tensors, cotangent), None


class _Gradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, loss: Unreduced, output: torch.Tensor, target: torch.Tensor, cotangent: torch.Tensor
    ) -> torch.Tensor:
        ctx.loss = loss
        arrays = adopt(output, "y_pred"), adopt(target, "y_true"), adopt(cotangent, "the cotangent")
        gradient: torch.Tensor = give(loss.vjp(*arrays), output)
        return gradient

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> None:
        raise ctx.loss.no_second_derivative()
