"""Losses for JAX, under the names and signatures of Optax: one value a row, or an element; nothing is reduced.

They work under ``jit``, ``grad``, ``value_and_grad`` and ``vmap``, on the CPU, without a copy: the kernels read XLA's
buffers and write into them. Inside a compiled step the gradient takes the place of the logits, so that no second array
of their size is needed. Logits are float16, bfloat16, float32, or float64 where JAX has it enabled; the losses of
16-bit logits are float32.

What shapes, dtypes and options tell is raised while tracing, as this library's errors. What only data can tell, such as
a label out of range, is raised by the program when it runs, with the name and the words of this library's error, such
as ``TargetError``; JAX makes it a ``jax.errors.JaxRuntimeError``, raised when a result is waited for, or a
``ValueError`` where the program ran in the caller's thread.

Second derivatives raise ``NotImplementedError``; derivatives in forward mode JAX's own ``TypeError``. Under
``jax.shard_map`` pass ``check_vma=False``; ``jit`` alone gathers logits that are sharded over devices.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from . import losses
from .check import NO_INDEX
from .errors import DTypeError, OptionError, ShapeError
from .extras import extra
from .options import integer
from .vjp import Unreduced

with extra("jax"):
    import jax
    import jax.numpy as jnp

    from . import xla

__all__ = [
    "sigmoid_binary_cross_entropy",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "squared_error",
]


def softmax_cross_entropy(logits: Any, labels: Any, axis: int | tuple[int, ...] | None = -1, where: Any = None) -> Any:
    """Compute the cross-entropy between label probabilities and the softmax of logits, in nats.

    Parameters
    ----------
    logits : array_like, shape (..., C)
        Floating.
    labels : array_like, shape (..., C)
        Probabilities, such as one-hot rows, which need not sum to 1; they broadcast with the logits. The loss can be
        differentiated by them too.
    axis : int, tuple of int, or None
        The class axis; several count as one, and None means all.
    where : array_like of bool, optional
        Rows to include, of the logits' shape without `axis`; or classes to include, of as many axes as the logits.
        A row left out has loss and gradient 0, whatever its logits hold.

    Returns
    -------
    jax.Array
        The losses, of the logits' shape without `axis`: float32, or float64 for float64 logits.

    Raises
    ------
    ShapeError, DTypeError, OptionError
        While tracing, if arrays do not fit each other, are of no supported dtype, or `axis` is out of range.
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.floating):
        labels = labels.astype(logits.dtype)
    if labels.shape != logits.shape:
        logits, labels = _broadcast(logits, labels)
    axes = _class_axes(axis, logits.ndim)
    rows, classes = _included(where, axes, logits)
    if classes is not None:
        logits, labels = jnp.where(classes, logits, -jnp.inf), jnp.where(classes, labels, 0)
    if len(axes) > 1:
        logits, labels, axes = _joined(logits, axes), _joined(labels, axes), (-1,)
    loss = unreduced(Unreduced.of(losses.cross_entropy, axis=axes[0]), logits, labels)
    return loss if rows is None else jnp.where(rows, loss, 0)


def softmax_cross_entropy_with_integer_labels(
    logits: Any, labels: Any, axis: int | tuple[int, ...] = -1, where: Any = None
) -> Any:
    """Compute the cross-entropy between integer labels and the softmax of logits, in nats.

    Parameters
    ----------
    logits : array_like, shape (..., C)
        Floating.
    labels : array_like of integers, shape (...)
        Classes in [0, C). One out of range raises an error when the program runs, where Optax gives NaN, or counts from
        the end. Where several axes hold the classes, a label is the flat index of its class.
    axis : int or tuple of int
        The class axis; several count as one.
    where : array_like of bool, optional
        As in `softmax_cross_entropy`. The labels of rows left out may hold anything. A label whose class is left out
        has probability 0, hence an infinite loss, where Optax has a finite one.

    Returns
    -------
    jax.Array
        As in `softmax_cross_entropy`.

    Raises
    ------
    ShapeError, DTypeError, OptionError
        As in `softmax_cross_entropy`.
    jax.errors.JaxRuntimeError, ValueError
        When the program runs, if a label is no class; see above.
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise DTypeError(f"labels have dtype {labels.dtype}, expected integers")
    axes = _class_axes(axis, logits.ndim)
    rows, classes = _included(where, axes, logits)
    if classes is not None:
        logits = jnp.where(classes, logits, -jnp.inf)
    if len(axes) > 1:
        logits, axes = _joined(logits, axes), (-1,)
    if rows is not None:
        labels = jnp.where(rows, labels, 0)
    loss = unreduced(Unreduced.of(losses.cross_entropy, axis=axes[0], ignore_index=NO_INDEX), logits, labels)
    return loss if rows is None else jnp.where(rows, loss, 0)


def sigmoid_binary_cross_entropy(logits: Any, labels: Any) -> Any:
    """Compute the binary cross-entropy between labels and the sigmoid of logits, in nats, element by element.

    Parameters
    ----------
    logits : array_like, shape (...)
        Floating.
    labels : array_like, shape (...)
        bool, integers, or probabilities; they broadcast with the logits. The loss can be differentiated by
        probabilities too.

    Returns
    -------
    jax.Array
        The losses, of the logits' shape: float32, or float64 for float64 logits.

    Raises
    ------
    ShapeError, DTypeError
        While tracing, if arrays do not fit each other, or are of no supported dtype.
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    if labels.shape != logits.shape:
        logits, labels = _broadcast(logits, labels)
    return unreduced(Unreduced.of(losses.binary_cross_entropy), logits, labels)


def squared_error(predictions: Any, targets: Any = None) -> Any:
    """Compute the squared error (predictions − targets)², element by element.

    Parameters
    ----------
    predictions : array_like, shape (...)
        Floating.
    targets : array_like, shape (...), optional
        Of the predictions' shape; zeros by default. The loss can be differentiated by them too.

    Returns
    -------
    jax.Array
        The squared errors, of the predictions' shape: float32, or float64 for float64 predictions.

    Raises
    ------
    ShapeError, DTypeError
        As in `sigmoid_binary_cross_entropy`.
    """
    predictions = jnp.asarray(predictions)
    targets = jnp.zeros_like(predictions) if targets is None else jnp.asarray(targets)
    return unreduced(Unreduced.of(losses.mse), predictions, targets)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def unreduced(loss: Unreduced, x: jax.Array, target: jax.Array) -> jax.Array:
    """Compute any unreduced loss of this library, differentiable by ``x``; by the target where Optax's losses are."""
    shape, dtype = loss.result(x, target)
    return xla.call("value", loss, shape, dtype, x, target)


def _forward(loss: Unreduced, x: Any, target: Any) -> tuple[jax.Array, Any]:
    if target.perturbed and (loss.mean_axis is not None or loss.name not in _TARGET_VJPS):
        raise NotImplementedError(f"{loss.name} has no derivative by its target here: use jax.lax.stop_gradient")
    value = unreduced(loss, x.value, target.value)
    # An empty tuple stands for True and None for False: what is no array must be part of the structure.
    wanted = tuple(() if each.perturbed else None for each in (x, target))
    return value, (x.value, target.value, value, wanted)


def _backward(loss: Unreduced, residuals: Any, cotangent: jax.Array) -> tuple[jax.Array | None, jax.Array | None]:
    x, target, value, (by_x, by_target) = residuals
    return (
        None if by_x is None else _vjp(loss, x, target, cotangent, value),
        None if by_target is None else _target_vjp(loss, x, target, cotangent),
    )


unreduced.defvjp(_forward, _backward, symbolic_zeros=True)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _vjp(loss: Unreduced, x: jax.Array, target: jax.Array, cotangent: jax.Array, value: jax.Array) -> jax.Array:
    # The value, which is not read, makes XLA compute it before the gradient overwrites the logits.
    return xla.call("vjp", loss, x.shape, x.dtype, x, target, cotangent, value, in_place=True)


@_vjp.defjvp
def _no_second_derivative(loss: Unreduced, *_: Any) -> Any:
    raise loss.no_second_derivative()


def _target_vjp(loss: Unreduced, x: jax.Array, target: jax.Array, cotangent: jax.Array) -> jax.Array:
    x, y = x.astype(cotangent.dtype), target.astype(cotangent.dtype)
    return _TARGET_VJPS[loss.name](x, y, cotangent, **dict(loss.options)).astype(target.dtype)


def _of_probabilities(x: jax.Array, _: Any, cotangent: jax.Array, axis: int, label_smoothing: float = 0.0) -> jax.Array:
    return (label_smoothing - 1) * jax.nn.log_softmax(x, axis) * jnp.expand_dims(cotangent, axis)


_TARGET_VJPS: dict[str, Callable[..., jax.Array]] = {
    "cross_entropy": _of_probabilities,
    "binary_cross_entropy": lambda x, _, cotangent: -x * cotangent,
    "mse": lambda x, y, cotangent: 2 * (y - x) * cotangent,
}


def _broadcast(logits: jax.Array, labels: jax.Array) -> list[jax.Array]:
    try:
        return jnp.broadcast_arrays(logits, labels)
    except ValueError:
        raise ShapeError(f"labels have shape {labels.shape}, expected the logits' shape {logits.shape}") from None


def _class_axes(axis: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    """Count the class axes from the end, so that ``vmap`` may put more in front."""
    given = range(ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    axes = [integer("axis", each, "an integer, or several") for each in given]
    if not all(-ndim <= each < ndim for each in axes):
        raise OptionError(f"axis is {axis}, expected one in [{-ndim}, {ndim}), or several")
    return tuple(each % ndim - ndim for each in axes)


def _joined(array: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Make one axis of several, and put it last."""
    moved = jnp.moveaxis(array, axes, range(-len(axes), 0))
    return moved.reshape(*moved.shape[: -len(axes)], -1)


def _included(where: Any, axes: tuple[int, ...], logits: jax.Array) -> tuple[jax.Array | None, jax.Array | None]:
    """Tell the rows to include, and the classes where some row does not include all of them."""
    if where is None:
        return None, None
    mask = jnp.asarray(where, bool)
    if mask.ndim != logits.ndim:
        mask = jnp.expand_dims(mask, axes)
    return mask.any(axes), None if all(mask.shape[axis] == 1 for axis in axes) else mask
