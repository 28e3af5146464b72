"""TensorFlow, in graphs made by ``tf.function``; its classes are on the last axis."""

import os
from functools import partial
from typing import Any

import numpy as np

from ...arrays import Array
from ..cases import LOSSES, Task
from ..inputs import Inputs
from ..turns import Contender

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # or it tells of every GPU that it does not find
import tensorflow as tf


def cross_entropy(
    x: Any, y: Any, label_smoothing: float = 0.0, z_loss: float = 0.0, softcap: float | None = None
) -> Any:
    """The mean loss."""
    x = _wide(x, label_smoothing, softcap)
    if softcap is not None:
        x = softcap * tf.tanh(x / softcap)
    if label_smoothing:
        low = label_smoothing / x.shape[1]
        y = tf.one_hot(y, x.shape[1], 1 - label_smoothing + low, low, dtype=x.dtype)
    hard = y.shape.rank < x.shape.rank
    of_rows = tf.nn.sparse_softmax_cross_entropy_with_logits if hard else tf.nn.softmax_cross_entropy_with_logits
    loss = tf.reduce_mean(of_rows(labels=y, logits=x))
    return loss + z_loss * tf.reduce_mean(tf.square(tf.reduce_logsumexp(x, 1))) if z_loss else loss


def binary_cross_entropy(x: Any, y: Any) -> Any:
    """The mean loss."""
    x = _wide(x)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.cast(y, x.dtype), logits=x))


def evaluate(x: Any, y: Any) -> Any:
    """The mean loss, the accuracy, the mean entropy."""
    x = _wide(x)
    log_p = tf.nn.log_softmax(x, 1)
    accuracy = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(x, 1), y), tf.float32))
    return cross_entropy(x, y), accuracy, -tf.reduce_mean(tf.reduce_sum(tf.exp(log_p) * log_p, 1))


def evaluate_binary(x: Any, y: Any) -> Any:
    """The mean loss, the accuracy."""
    return binary_cross_entropy(x, y), tf.reduce_mean(tf.cast(tf.equal(x > 0, y > 0), tf.float32))


def _wide(x: Any, *options: Any) -> Any:
    """In float32 where 16 bits overflow, as float16 does in the sum of the losses, or lose too much."""
    return tf.cast(x, tf.float32) if x.dtype == tf.float16 or (x.dtype.size == 2 and any(options)) else x


def value_and_grad(function: Any) -> Any:
    """The function with its gradient by the logits."""

    def both(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x, y)
        return value, tape.gradient(value, x)

    return both


def contender(task: Task, inputs: Inputs, threads: int) -> Contender:
    """Give a call with TensorFlow's own tensors."""
    tf.get_logger().setLevel("ERROR")  # or it warns of functions made in a loop, which is what is wanted here
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    x, y, loss = tf.constant(inputs.x), tf.constant(inputs.y), LOSSES[task.loss]
    if task.case == "evaluate":
        run = tf.function(evaluate_binary if loss.target == "labels" else evaluate)
    else:
        function = partial(globals()[loss.function], **loss.options)
        run = tf.function(value_and_grad(function) if task.differentiates else function)
    return Contender(lambda: run(x, y))


def answer(result: Any) -> tuple[Array, ...]:
    """As NumPy arrays."""
    return tuple(np.asarray(each.numpy()) for each in (result if isinstance(result, tuple) else (result,)))
