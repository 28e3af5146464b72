"""PyTorch's functions through ``torch.compile``, which needs a C++ compiler."""

import torch

from ..cases import Task
from ..inputs import Inputs
from ..turns import Contender
from . import torch as eager
from .torch import answer

__all__ = ["answer", "contender"]


def contender(task: Task, inputs: Inputs, threads: int) -> Contender:
    """Give the call of PyTorch, compiled for this task alone."""
    torch.compiler.reset()  # what was compiled for other tasks counts towards a limit, beyond which nothing is
    return eager.contender(task, inputs, threads, lambda function: torch.compile(function, dynamic=False))
