"""Keras on TensorFlow: a NumPy function with a gradient of its own, eagerly or in a graph."""

from typing import Any

import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from ..vjp import Unreduced


def can_call() -> bool:
    """Tell whether the program being traced may call out: not one that XLA compiles."""
    return not GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def unreduced(loss: Unreduced, output: Any, target: Any) -> Any:
    """Compute an unreduced loss, differentiable by the output."""
    return _unreduced(loss)(output, target)


def _unreduced(loss: Unreduced) -> Any:
    axis = loss.mean_axis if loss.mean_axis is not None else dict(loss.options)["axis"]

    @tf.custom_gradient
    def value(output: Any, target: Any) -> Any:
        dtype = tf.float64 if output.dtype == tf.float64 else tf.float32
        result = tf.numpy_function(loss.value, (output, target), dtype, stateful=False)
        if output.shape.rank is not None:
            result.set_shape(output.shape[:axis].concatenate(output.shape[axis:][1:]))
        return result, lambda cotangent: (vjp(output, target, cotangent), None)

    @tf.custom_gradient
    def vjp(output: Any, target: Any, cotangent: Any) -> Any:
        result = tf.numpy_function(loss.vjp, (output, target, cotangent), output.dtype, stateful=False)
        result.set_shape(output.shape)
        return result, no_second_derivative

    def no_second_derivative(*_: Any) -> Any:
        raise loss.no_second_derivative()

    return value
