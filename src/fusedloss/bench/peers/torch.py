"""PyTorch, as it comes."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from ...arrays import Array, adopt, give
from ..cases import LOSSES, Task
from ..inputs import Inputs
from ..turns import Contender

Function = Callable[..., Any]


def cross_entropy(
    x: Any, y: Any, label_smoothing: float = 0.0, z_loss: float = 0.0, softcap: float | None = None
) -> Any:
    """The mean loss."""
    x = _wide(x, label_smoothing, softcap)
    if softcap is not None:
        x = softcap * torch.tanh(x / softcap)
    loss = functional.cross_entropy(x, y, label_smoothing=label_smoothing)
    return loss + z_loss * torch.logsumexp(x, 1).square().mean() if z_loss else loss


def binary_cross_entropy(x: Any, y: Any) -> Any:
    """The mean loss."""
    return functional.binary_cross_entropy_with_logits(x, y)


def evaluate(x: Any, y: Any) -> Any:
    """The mean loss, the accuracy, the mean entropy."""
    x = _wide(x)
    log_p = torch.log_softmax(x, 1)
    accuracy = (x.argmax(1) == y).float().mean()
    return functional.nll_loss(log_p, y), accuracy, -(log_p.exp() * log_p).sum(1).mean()


def evaluate_binary(x: Any, y: Any) -> Any:
    """The mean loss, the accuracy."""
    return binary_cross_entropy(x, y), ((x > 0) == (y > 0)).float().mean()


def _wide(x: Any, *options: Any) -> Any:
    """In float32 where 16 bits overflow, as float16 does in the sum of the losses, or lose too much."""
    return x.float() if x.dtype == torch.float16 or (x.itemsize == 2 and any(options)) else x


def contender(
    task: Task, inputs: Inputs, threads: int, wrap: Callable[[Function], Function] | None = None
) -> Contender:
    """Give a call with tensors that share the arrays' memory, of functions that `wrap` has compiled, say."""
    torch.set_num_threads(threads)
    loss, like = LOSSES[task.loss], torch.empty(0)
    x, y, options = give(inputs.x, like), give(inputs.y, like), dict(loss.options)
    if task.case == "evaluate":
        function = evaluate_binary if loss.target == "labels" else evaluate
    else:
        function = globals()[loss.function]
    run = wrap(function) if wrap else function
    if task.differentiates:
        x.requires_grad_()
        return Contender(lambda: _differentiated(run, x, y, options))
    return Contender(lambda: _plain(run, x, y, options))


def _plain(run: Function, x: Any, y: Any, options: dict[str, float]) -> Any:
    with torch.no_grad():
        return run(x, y, **options)


def _differentiated(run: Function, x: Any, y: Any, options: dict[str, float]) -> Any:
    value = run(x, y, **options)
    return value, *torch.autograd.grad(value, x)


def answer(result: Any) -> tuple[Array, ...]:
    """As NumPy arrays."""
    return tuple(adopt(each, "an answer") for each in (result if isinstance(result, tuple) else (result,)))
