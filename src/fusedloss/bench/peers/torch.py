"""PyTorch, as it comes."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from ...arrays import Array, adopt, give
from ..cases import LOSSES, Inputs, Task
from ..turns import Contender

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


def cross_entropy(
    x: Any, y: Any, label_smoothing: float = 0.0, z_loss: float = 0.0, softcap: float | None = None
) -> Any:
    """The mean loss."""
    if softcap is not None:
        x = softcap * torch.tanh(x / softcap)
    loss = functional.cross_entropy(x, y, label_smoothing=label_smoothing)
    return loss + z_loss * torch.logsumexp(x, 1).square().mean() if z_loss else loss


def binary_cross_entropy(x: Any, y: Any) -> Any:
    """The mean loss."""
    return functional.binary_cross_entropy_with_logits(x, y)


def evaluate(x: Any, y: Any) -> Any:
    """Mean loss, accuracy, mean entropy."""
    log_p = torch.log_softmax(x, 1)
    accuracy = (log_p.argmax(1) == y).float().mean()
    return functional.nll_loss(log_p, y), accuracy, -(log_p.exp() * log_p).sum(1).mean()


def contender(task: Task, inputs: Inputs, threads: int, wrap: Wrap = lambda function: function) -> Contender | None:
    """Give a call with tensors that share the arrays' memory; `wrap` compiles, where that is wanted."""
    if task.case in ("buffer", "in-place"):
        return None
    torch.set_num_threads(threads)
    like, loss = torch.empty(0), LOSSES[task.loss]
    x, y = give(inputs.x, like), give(inputs.y, like)
    if task.case == "evaluate":
        run = wrap(evaluate)
        return Contender(lambda: _without_graph(run, x, y)) if task.loss == "hard" else None
    run, options = wrap(globals()[loss.function]), dict(loss.options)
    if task.case == "loss":
        return Contender(lambda: (_without_graph(run, x, y, **options),))
    x.requires_grad_()

    def differentiate() -> Any:
        x.grad = None
        value = run(x, y, **options)
        value.backward()
        return value, x.grad

    return Contender(differentiate)


def _without_graph(run: Callable[..., Any], *args: Any, **options: Any) -> Any:
    with torch.no_grad():
        return run(*args, **options)


def answer(result: tuple[Any, ...]) -> tuple[Array, ...]:
    """As NumPy arrays."""
    return tuple(adopt(each, "an answer") for each in result)
