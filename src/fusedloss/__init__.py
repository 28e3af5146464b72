"""Fused, numerically stable losses, gradients and evaluation of logits, from one pass over them."""

from .activations import log_softmax, logsumexp, sigmoid, softmax
from .ahead import warmup
from .backends import devices
from .cuda.waiting import synchronize
from .errors import (
    DeviceError,
    DTypeError,
    FileError,
    FusedLossError,
    OptionError,
    ProbabilityError,
    ShapeError,
    TargetError,
)
from .evaluation import evaluate, evaluate_binary, score, score_binary
from .losses import binary_cross_entropy, binary_log_loss, cross_entropy, kl_divergence, log_loss, mse, value_and_grad
from .scores import BinaryEvaluation, BinaryScores, Evaluation, Scores
from .threads import get_num_threads, set_num_threads

__version__ = "0.1.0"

__all__ = [
    "BinaryEvaluation",
    "BinaryScores",
    "DTypeError",
    "DeviceError",
    "Evaluation",
    "FileError",
    "FusedLossError",
    "OptionError",
    "ProbabilityError",
    "Scores",
    "ShapeError",
    "TargetError",
    "__version__",
    "binary_cross_entropy",
    "binary_log_loss",
    "cross_entropy",
    "devices",
    "evaluate",
    "evaluate_binary",
    "get_num_threads",
    "kl_divergence",
    "log_loss",
    "log_softmax",
    "logsumexp",
    "mse",
    "score",
    "score_binary",
    "set_num_threads",
    "sigmoid",
    "softmax",
    "synchronize",
    "value_and_grad",
    "warmup",
]
