"""What every loss operator has in common: the shapes of its results, its backward pass, and its batching."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from .errors import OptionError
from .slopes import class_axis


@dataclass(frozen=True)
class Rules:
    """The rules of an operator that takes ``input, target, reduction, gradient``, then tensors or None, then numbers.

    ``slope`` differentiates the unreduced losses by the target, from the same tensors and numbers; without it that is
    the opposite of the gradient by the input. ``by_class`` tells losses of rows from losses of elements.
    """

    operator: Any
    slope: Callable[..., Tensor] | None = None
    by_class: bool = False

    def register(self) -> None:
        """Give the operator its rules."""
        self.operator.register_fake(self.shapes)
        self.operator.register_autograd(self.backward, setup_context=self.setup_context)
        self.operator.register_vmap(self.batched)

    def shapes(
        self, input: Tensor, target: Tensor, reduction: str, gradient: bool, *_: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Make results of the right shapes, with nothing in them."""
        wide = torch.promote_types(input.dtype, torch.float32)
        shape = list(input.shape) if reduction == "none" else []
        if self.by_class and shape:
            del shape[class_axis(input)]
        undivided = gradient and is_undivided(input, reduction)
        return (
            input.new_empty(shape, dtype=wide),
            input.new_empty(input.shape if gradient else 0),
            input.new_empty(() if undivided else 0, dtype=wide),
        )

    def setup_context(self, ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep what the backward pass needs: the gradient, and the operands only where the target needs one too."""
        input, target, reduction, gradient, *rest = inputs
        tensors = [each for each in rest if each is None or isinstance(each, Tensor)]
        if any(each is not None and each.requires_grad for each in tensors):
            raise OptionError("a weight requires a gradient, expected one that does not: none is computed")
        if not gradient and (ctx.needs_input_grad[0] or self.slope is None):
            raise OptionError("gradient is False, expected True where the input requires a gradient")
        ctx.row_axis = class_axis(input) if self.by_class and reduction == "none" else None
        ctx.count = _count(input, reduction, self.by_class)
        ctx.numbers = rest[len(tensors) :]
        operands = (input, target, *tensors) if ctx.needs_input_grad[1] and self.slope else ()
        loss, kept, scale = output
        ctx.save_for_backward(loss, kept.detach(), scale, *operands)
        ctx.returned = ref(kept)  # dead, unless the caller of the operator keeps it
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)

    def backward(self, ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        """Multiply the gradient that came with the loss, and compute that by the target where it is needed."""
        by_input, by_target = None, None
        if grad is not None:
            loss, gradient, scale, *operands = ctx.saved_tensors
            grad = grad if ctx.row_axis is None else grad.unsqueeze(ctx.row_axis)
            if ctx.needs_input_grad[1] and self.slope is not None:
                by_target = _final(self.slope(*operands, *ctx.numbers) * (grad / ctx.count), loss)
            if ctx.needs_input_grad[0] or self.slope is None:
                by = grad * scale if scale.numel() else grad
                by_input = _final(_product(gradient, by, ctx.returned() is None and _is_last_use(by)), loss)
                by_target = -by_input if self.slope is None and ctx.needs_input_grad[1] else by_target
        return by_input, by_target, *(None,) * (len(ctx.needs_input_grad) - 2)

    def batched(
        self, info: Any, in_dims: tuple[int | None, ...], *args: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Solve a batch of problems, one after the other."""
        input, target, reduction, gradient, *rest = args
        # That the input needs a gradient does not show inside of vmap.
        gradient = gradient or (torch.is_grad_enabled() and (input.requires_grad or target.requires_grad))
        args = input, target, reduction, gradient, *rest
        each = [
            self.operator(*(arg if dim is None else arg.select(dim, i) for arg, dim in zip(args, in_dims, strict=True)))
            for i in range(info.batch_size)
        ]
        return tuple(torch.stack(results) for results in zip(*each, strict=True)), (0, 0, 0)


def is_undivided(input: Tensor, reduction: str) -> bool:
    """Tell a gradient that is kept as that of the sum, and divided in the backward pass; see ``operators``."""
    return input.dtype == torch.float16 and reduction in ("mean", "batchmean")


def _count(input: Tensor, reduction: str, by_class: bool) -> int:
    """Count what losses are divided by, where their weights do not count."""
    if reduction == "mean":
        return input.numel() // max(input.shape[class_axis(input)], 1) if by_class else input.numel()
    return input.shape[0] if reduction == "batchmean" and input.dim() > 1 else 1


def _product(gradient: Tensor, by: Tensor, is_free: bool) -> Tensor:
    """Multiply a stored gradient, in its own memory if that is free."""
    if not is_free:
        return (gradient * by).to(gradient.dtype)
    if by.is_cpu and by.numel() == 1 and by.item() == 1:
        return gradient
    return gradient.mul_(by)


def _is_last_use(by: Tensor) -> bool:
    """Tell a backward pass that frees its graph, and is neither recorded, nor traced, nor batched."""
    if torch.is_grad_enabled() or type(by) is not Tensor or not torch._C._has_storage(by):
        return False
    return not torch._C._autograd._get_current_graph_task_keep_graph()


def _final(gradient: Tensor, loss: Tensor) -> Tensor:
    """Let nobody differentiate a gradient that is recorded: it would be taken for a constant."""
    if not torch.is_grad_enabled():
        return gradient
    final: Tensor = _Final.apply(gradient, loss)  # type: ignore[no-untyped-call]
    return final


class _Final(torch.autograd.Function):
    """A gradient that follows from what its loss follows from, by a derivative that nobody has."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, loss: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, Tensor]:
        raise RuntimeError(
            "fusedloss computes a loss's gradient with the loss, so it cannot be differentiated again: "
            "take the loss of torch.nn.functional where you need second derivatives"
        )
