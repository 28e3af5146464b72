"""Keras's losses, each a subclass of Keras's own: what is not about the formula is left to that."""

import warnings
from typing import Any

import keras
import ml_dtypes
from keras.src.backend import set_keras_mask
from keras.src.losses.loss import squeeze_or_expand_to_same_rank

from .. import losses
from ..check import NO_INDEX
from ..errors import OptionError
from ..vjp import Unreduced
from .backends import NAME, backend

_registered = keras.saving.register_keras_serializable(package="fusedloss")


class _Fused(keras.losses.Loss):
    """Calls fused kernels where its subclass of Keras's calls operations of the backend."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Compute the losses, which the caller weighs and reduces."""
        if not backend.can_call():
            warnings.warn(
                f"XLA compiles {type(self).__name__}, which cannot be fused there: use compile(..., jit_compile=False)",
                stacklevel=2,
            )
            return self._by_keras(y_true, y_pred)
        y_true, y_pred = map(keras.ops.convert_to_tensor, (y_true, y_pred))
        return self._fused(*squeeze_or_expand_to_same_rank(y_true, y_pred))

    def get_config(self) -> dict[str, Any]:
        """Give the arguments of the constructor; the dtype only if it is not Keras's default."""
        config: dict[str, Any] = super().get_config()
        return config if self.dtype == keras.config.floatx() else config | {"dtype": self.dtype}

    def _by_keras(self, y_true: Any, y_pred: Any) -> Any:
        return super().call(y_true, y_pred)

    def _fused(self, y_true: Any, y_pred: Any) -> Any:
        raise NotImplementedError


@_registered
class BinaryCrossentropy(_Fused, keras.losses.BinaryCrossentropy):
    """Binary cross-entropy between labels and the sigmoid of logits, or probabilities; the mean over an axis.

    Parameters
    ----------
    from_logits : bool
        Whether ``y_pred`` holds logits rather than probabilities, which are clipped to [ε, 1 − ε] with Keras's ε,
        ``keras.config.epsilon()``.
    label_smoothing : float
        In [0, 1].
    axis : int
        The axis of the mean, such as that of the labels.
    reduction : {"sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none", None}
    name : str
    dtype : str or keras.DTypePolicy, optional
        As in ``keras.losses.BinaryCrossentropy``.
    legacy_epsilon : bool
        Whether probabilities are treated as in Keras 2, which also adds ε inside the logarithm.

    Raises
    ------
    OptionError
        If `legacy_epsilon` is asked for from logits, where it means nothing.

    Notes
    -----
    When called it raises `ShapeError`, a ``ValueError``, if labels and predictions do not fit each other, and
    `ProbabilityError`, another, if a probability is outside [0, 1]; what is raised while a compiled model runs, the
    backend makes an error of its own kind that quotes it. So do the other losses.
    """

    def __init__(
        self, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1,
        reduction: str | None = "sum_over_batch_size", name: str = "binary_crossentropy", dtype: Any = None,
        legacy_epsilon: bool = False,
    ) -> None:  # fmt: skip
        if from_logits and legacy_epsilon:
            raise OptionError("legacy_epsilon is True, expected False with from_logits=True: it is for probabilities")
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)
        self.legacy_epsilon = legacy_epsilon

    def get_config(self) -> dict[str, Any]:
        """Give the arguments of the constructor."""
        return super().get_config() | {"legacy_epsilon": self.legacy_epsilon}

    def _fused(self, y_true: Any, y_pred: Any) -> Any:
        y_pred, from_logits = _logits(y_pred, self.from_logits)
        common = {"mean_axis": self.axis, "label_smoothing": float(self.label_smoothing)}
        if from_logits:
            loss = Unreduced.of(losses.binary_cross_entropy, **common)
        else:
            eps = keras.config.epsilon()
            loss = Unreduced.of(losses.binary_log_loss, **common, eps=eps, log_eps=eps * self.legacy_epsilon)
        return backend.unreduced(loss, y_pred, y_true)

    def _by_keras(self, y_true: Any, y_pred: Any) -> Any:
        if not self.legacy_epsilon:
            return super()._by_keras(y_true, y_pred)
        y_true, y_pred = squeeze_or_expand_to_same_rank(y_true, y_pred)
        eps = keras.config.epsilon()
        y = y_true * (1 - self.label_smoothing) + self.label_smoothing / 2
        p = keras.ops.clip(y_pred, eps, 1 - eps)
        loss = -y * keras.ops.log(p + eps) - (1 - y) * keras.ops.log(1 - p + eps)
        return keras.ops.mean(loss, axis=self.axis)


@_registered
class CategoricalCrossentropy(_Fused, keras.losses.CategoricalCrossentropy):
    """Cross-entropy between label probabilities, such as one-hot rows, and the softmax of logits, or probabilities.

    Parameters
    ----------
    from_logits : bool
        Whether ``y_pred`` holds logits rather than probabilities, which are divided by their sum, then clipped to
        [ε, 1 − ε] with Keras's ε, ``keras.config.epsilon()``.
    label_smoothing : float
        In [0, 1].
    axis : int
        The class axis.
    reduction, name, dtype
        As in ``keras.losses.CategoricalCrossentropy``.
    """

    def __init__(
        self, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1,
        reduction: str | None = "sum_over_batch_size", name: str = "categorical_crossentropy", dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)

    def _fused(self, y_true: Any, y_pred: Any) -> Any:
        options = {"axis": self.axis, "label_smoothing": float(self.label_smoothing)}
        return _softmax_loss(y_true, *_logits(y_pred, self.from_logits), options)


@_registered
class SparseCategoricalCrossentropy(_Fused, keras.losses.SparseCategoricalCrossentropy):
    """Cross-entropy between classes and the softmax of logits, or probabilities.

    Parameters
    ----------
    from_logits : bool
        As in `CategoricalCrossentropy`.
    ignore_class : int, optional
        The class whose rows are left out, of means too. Their gradient is 0, whatever ``y_pred`` holds there.
    reduction, name, dtype
        As in ``keras.losses.SparseCategoricalCrossentropy``.
    axis : int
        The class axis.

    Notes
    -----
    When called it raises `TargetError`, a ``ValueError``, if a class is out of range.
    """

    def __init__(
        self, from_logits: bool = False, ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size", axis: int = -1, name: str = "sparse_categorical_crossentropy",
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(from_logits, ignore_class, reduction, axis, name, dtype)
        self.axis = axis

    def get_config(self) -> dict[str, Any]:
        """Give the arguments of the constructor."""
        return super().get_config() | {"axis": self.axis}

    def _fused(self, y_true: Any, y_pred: Any) -> Any:
        self._require_distinct(y_pred.shape[self.axis])
        if len(y_true.shape) == len(y_pred.shape) and y_true.shape[self.axis] == 1:
            y_true = keras.ops.squeeze(y_true, self.axis)
        if self.ignore_class is None:
            return self._of_classes(y_true, y_pred)
        valid = keras.ops.not_equal(y_true, self.ignore_class)
        loss = self._of_classes(keras.ops.where(valid, y_true, 0), y_pred)
        loss = keras.ops.where(valid, loss, 0.0)
        set_keras_mask(loss, valid)
        return loss

    def _of_classes(self, y_true: Any, y_pred: Any) -> Any:
        y_pred, from_logits = _logits(y_pred, self.from_logits)
        if _on_tensorflow() and not from_logits:  # where Keras clips first, and normalises then
            eps = keras.config.epsilon()
            y_pred, from_logits = keras.ops.log(keras.ops.clip(y_pred, eps, 1 - eps)), True
        options = {"axis": self.axis, "ignore_index": NO_INDEX}
        return _softmax_loss(keras.ops.cast(y_true, "int32"), y_pred, from_logits, options)

    def _require_distinct(self, classes: int | None) -> None:
        """Refuse a dtype, in which Keras hands us the classes, that would round some of them to others."""
        exact = 2 ** (ml_dtypes.finfo(self.dtype).nmant + 1)
        if classes is not None and classes > exact + 1:
            raise OptionError(f"dtype is {self.dtype}, whose integers are exact to {exact}, expected one for {classes}")


@_registered
class MeanSquaredError(_Fused, keras.losses.MeanSquaredError):
    """The mean, over the last axis, of squared errors.

    Parameters
    ----------
    reduction, name, dtype
        As in ``keras.losses.MeanSquaredError``.
    """

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str = "mean_squared_error", dtype: Any = None
    ) -> None:
        super().__init__(reduction, name, dtype)

    def _fused(self, y_true: Any, y_pred: Any) -> Any:
        return backend.unreduced(Unreduced.of(losses.mse, mean_axis=-1), y_pred, y_true)


def _softmax_loss(y_true: Any, y_pred: Any, from_logits: bool, options: dict[str, Any]) -> Any:
    if from_logits:
        loss = Unreduced.of(losses.cross_entropy, **options)
    else:
        loss = Unreduced.of(losses.log_loss, **options, eps=keras.config.epsilon(), normalize=True)
    return backend.unreduced(loss, y_pred, y_true)


def _logits(y_pred: Any, from_logits: bool) -> tuple[Any, bool]:
    """On tensorflow, go back to the logits that a softmax or sigmoid of Keras's keeps, as Keras's losses do there."""
    kept = getattr(y_pred, "_keras_logits", None) if _on_tensorflow() else None
    return (y_pred, from_logits) if kept is None else (kept, True)


def _on_tensorflow() -> bool:
    return NAME == "tensorflow"
