"""The losses, and their gradients from the same pass.

Each loss states what it takes, as a Problem; the decorator ``_loss`` makes it solve that, and ``value_and_grad`` solves
the same Problem with its gradient.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from . import check
from .check import Problem
from .errors import OptionError
from .options import options
from .repeats import solved

P = ParamSpec("P")

_problems: dict[Callable[..., Any], Callable[..., Problem]] = {}


def _loss(pose: Callable[P, Problem]) -> Callable[P, Any]:
    """Make a loss of the function that poses its problem."""

    @wraps(pose)
    def loss(*args: P.args, **kwargs: P.kwargs) -> Any:
        return solved(pose, args, kwargs)

    loss.__annotations__["return"] = Any
    _problems[loss] = pose
    return loss


def value_and_grad(loss: Callable[P, Any], *, out: Any = None) -> Callable[P, tuple[Any, Any]]:
    """Make a function that computes a loss and its gradient by the logits, in one fused pass.

    Parameters
    ----------
    loss : callable
        A loss of this library: ``cross_entropy``, ``binary_cross_entropy``, ``kl_divergence``, ``log_loss``,
        ``binary_log_loss`` or ``mse``.
    out : array, optional
        Where the gradient is written: a writable array of the logits' shape and dtype. It may be the logits themselves,
        which makes the gradient take their place, but must not overlap them, or any other input, in part.

    Returns
    -------
    callable
        Takes the arguments of the loss, returns ``(loss, gradient)``. The gradient is that of the reduced loss, or of
        the sum where ``reduction="none"``; it has the shape and dtype of the logits, rounded once.

    Raises
    ------
    OptionError
        If `loss` is no loss of this library; when called, if `out` is read-only or overlaps an input.
    ShapeError, DTypeError
        When called, if `out` has not the shape and dtype of the logits; and whatever the loss raises.

    Examples
    --------
    >>> loss, grad = value_and_grad(cross_entropy)(logits, target, label_smoothing=0.1)
    >>> loss, _ = value_and_grad(cross_entropy, out=logits)(logits, target)  # in place
    """
    pose = _problems.get(loss)
    if pose is None:
        expected = ", ".join(each.__name__ for each in _problems)
        raise OptionError(f"value_and_grad got {loss!r}, expected one of fusedloss's losses: {expected}")

    def loss_and_gradient(*args: P.args, **kwargs: P.kwargs) -> tuple[Any, Any]:
        both = solved(pose, args, kwargs, True, out)
        return both[0], both[1]

    # functools.wraps would cost more than the rest of a small call.
    loss_and_gradient.__doc__, loss_and_gradient.__wrapped__ = pose.__doc__, loss  # type: ignore[attr-defined]
    return loss_and_gradient


@_loss
def cross_entropy(
    logits: Any, target: Any, *, axis: int = -1, class_weight: Any = None, sample_weight: Any = None,
    ignore_index: int = -100, label_smoothing: float = 0.0, z_loss: float = 0.0, logit_scale: float = 1.0,
    softcap: float | None = None, reduction: str = "mean", denominator: float | None = None, device: str = "auto",
) -> Problem:  # fmt: skip
    r"""Compute the cross-entropy between targets and the softmax of logits, in nats.

    With z = softcap(logit_scale·x), lse(z) = log Σ exp z, ε = label_smoothing, w = class_weight, the loss of a row is

    - for a hard target y: (1−ε)·w_y·(lse(z) − z_y) + (ε/C)·Σ_c w_c·(lse(z) − z_c) + z_loss·lse(z)²
    - for a soft target, y' = (1−ε)·y + ε/C: Σ_c w_c·y'_c·(lse(z) − z_c) + z_loss·lse(z)²

    times its sample weight. A row that is ignored, or whose sample weight is 0, is masked: its loss and gradient are
    exactly 0, whatever its logits hold. A logit of −inf masks its class.

    Parameters
    ----------
    logits : array_like, shape (..., C)
        float16, bfloat16, float32 or float64, in any byte order and strides.
    target : array_like
        Hard: classes of any integer dtype, of the logits' shape without the class axis. Soft: probabilities, of any of
        the logits' dtypes and of their shape; rows need not sum to 1.
    axis : int
        The class axis.
    class_weight : array_like, shape (C,), optional
        Weights of the classes, finite and at least 0.
    sample_weight : array_like, optional
        Weights of the rows, finite and at least 0: of the logits' shape without the class axis, or broadcastable to it
        with as many axes, or of its leading axes alone.
    ignore_index : int
        The hard target that masks a row.
    label_smoothing : float
        ε, in [0, 1].
    z_loss : float
        The factor of the squared log-normaliser, at least 0.
    logit_scale : float
        A factor of the logits, such as an inverse temperature.
    softcap : float, optional
        The bound c of c·tanh(v/c), which is applied to scaled logits; −inf stays −inf.
    reduction : {"mean", "sum", "batchmean", "none"}
        ``"mean"`` divides the sum of the losses by `denominator`; ``"batchmean"`` by the length of the first axis of
        the losses; ``"none"`` gives each row's.
    denominator : float, optional
        With ``reduction="mean"``. By default the sum of the weights of rows not masked: Σ class_weight_y·sample_weight
        for hard targets, Σ sample_weight for soft ones. The mean of nothing is NaN, with a zero gradient.
    device : str
        ``"auto"`` (where the data is), ``"cpu"``, ``"numpy"``, ``"cuda"`` or one of several such as ``"cuda:1"``. Host
        arrays go to a card only if it is named, block by block.

    Returns
    -------
    scalar or array
        float32, or float64 for float64 logits, in the caller's kind of array. For NumPy input a reduced loss is a NumPy
        scalar; for arrays on a card it is an array without axes there, and no call waits for it.

    Raises
    ------
    ShapeError, DTypeError
        If arrays do not fit each other, or are of no supported dtype.
    OptionError, DeviceError
        If an option is out of range, or the device cannot serve.
    TargetError
        If a hard target is neither a class nor `ignore_index`. For arrays on a card it is raised by a later call, or by
        `synchronize`.
    """
    fixed = options(
        ignore_index=ignore_index, label_smoothing=label_smoothing, z_loss=z_loss, logit_scale=logit_scale,
        softcap=softcap,
    )  # fmt: skip
    return check.class_loss(
        "cross_entropy", logits, target, axis, sample_weight, reduction, denominator, device, fixed, class_weight
    )  # fmt: skip


@_loss
def binary_cross_entropy(
    logits: Any, target: Any, *, pos_weight: Any = None, sample_weight: Any = None, label_smoothing: float = 0.0,
    reduction: str = "mean", denominator: float | None = None, device: str = "auto",
) -> Problem:  # fmt: skip
    """Compute the binary cross-entropy between targets and the sigmoid of logits, in nats, element by element.

    With y smoothed to y(1−ε) + ε/2, q = pos_weight and s = sample_weight, the loss of an element is
    s·[(1−y)·x + (1 + (q−1)·y)·(log1p(exp(−|x|)) + max(−x, 0))]. At x = ±inf it is the limit, never NaN.

    Parameters
    ----------
    logits : array_like, shape (...)
        float16, bfloat16, float32 or float64; for several labels, (..., L).
    target : array_like, shape (...)
        bool, integers or floating, of the logits' shape.
    pos_weight : array_like, optional
        Weights of the positive class, finite and at least 0, broadcastable to the logits as NumPy does, such as (L,).
    sample_weight : array_like, optional
        Weights of the elements, finite and at least 0: of the logits' shape, or broadcastable to it with as many axes,
        or of its leading axes alone, such as one a sample. An element of weight 0 is masked.
    label_smoothing : float
        ε, in [0, 1].
    reduction, denominator, device
        As in `cross_entropy`; the default denominator is Σ sample_weight over the elements, or their number. With
        labels, ``"batchmean"`` is the mean over samples of the sum over labels.

    Returns
    -------
    scalar or array
        As in `cross_entropy`; with ``reduction="none"``, of the logits' shape.

    Raises
    ------
    ShapeError, DTypeError, OptionError, DeviceError
        As in `cross_entropy`.
    """
    return check.element_loss(
        "binary_cross_entropy", logits, target, sample_weight, reduction, denominator, device,
        options(label_smoothing=label_smoothing), pos_weight=pos_weight,
    )  # fmt: skip


@_loss
def kl_divergence(
    logits: Any, target: Any, *, axis: int = -1, sample_weight: Any = None, logit_scale: float = 1.0,
    reduction: str = "mean", denominator: float | None = None, device: str = "auto",
) -> Problem:  # fmt: skip
    """Compute the Kullback-Leibler divergence KL(target ‖ softmax(logit_scale·logits)), in nats.

    The loss of a row is Σ y·(log y − log softmax(z)), where 0·log 0 = 0, times its sample weight.

    Parameters
    ----------
    logits, target : array_like, shape (..., C)
        float16, bfloat16, float32 or float64, not necessarily the same. The target holds probabilities.
    axis, sample_weight, logit_scale, reduction, denominator, device
        As in `cross_entropy`; the default denominator is Σ sample_weight, or the number of rows.

    Returns
    -------
    scalar or array
        As in `cross_entropy`.

    Raises
    ------
    ShapeError, DTypeError, OptionError, DeviceError
        As in `cross_entropy`.
    """
    return check.class_loss(
        "kl_divergence", logits, target, axis, sample_weight, reduction, denominator, device,
        options(logit_scale=logit_scale), soft_only=True,
    )  # fmt: skip


@_loss
def log_loss(
    probs: Any, target: Any, *, axis: int = -1, class_weight: Any = None, sample_weight: Any = None,
    ignore_index: int = -100, label_smoothing: float = 0.0, eps: float = 0.0, log_eps: float = 0.0,
    normalize: bool = False, reduction: str = "mean", denominator: float | None = None, device: str = "auto",
) -> Problem:  # fmt: skip
    """Compute the cross-entropy between targets and probabilities, in nats.

    The loss of a row is −Σ w·y·max(log(p + log_eps), −100), times its sample weight, where p is divided by its sum if
    `normalize`, then clipped to [eps, 1 − eps] if `eps`, and y smoothed as in `cross_entropy`. The bound of −100 is
    PyTorch's, of ``BCELoss``. Outside the range of the clip the gradient is 0.

    Parameters
    ----------
    probs : array_like, shape (..., C)
        Probabilities in [0, 1], or finite and at least 0 if `normalize`; dtypes as in `cross_entropy`.
    target, axis, class_weight, sample_weight, ignore_index, label_smoothing
        As in `cross_entropy`.
    eps : float
        How far from 0 and 1 probabilities are clipped, in [0, 0.5); 1 − eps is rounded as the arithmetic rounds it.
    log_eps : float
        What is added inside the logarithm, at least 0.
    normalize : bool
        Whether rows are first divided by their sums.
    reduction, denominator, device
        As in `cross_entropy`.

    Returns
    -------
    scalar or array
        As in `cross_entropy`.

    Raises
    ------
    ProbabilityError
        If a probability is out of range; NaN is not, and gives NaN.
    ShapeError, DTypeError, OptionError, DeviceError, TargetError
        As in `cross_entropy`.
    """
    fixed = options(
        ignore_index=ignore_index, label_smoothing=label_smoothing, eps=eps, log_eps=log_eps, normalize=normalize
    )
    return check.class_loss(
        "log_loss", probs, target, axis, sample_weight, reduction, denominator, device, fixed, class_weight,
        name="probs",
    )  # fmt: skip


@_loss
def binary_log_loss(
    probs: Any, target: Any, *, sample_weight: Any = None, label_smoothing: float = 0.0, eps: float = 0.0,
    log_eps: float = 0.0, reduction: str = "mean", denominator: float | None = None, device: str = "auto",
) -> Problem:  # fmt: skip
    """Compute the binary cross-entropy between targets and probabilities, in nats, element by element.

    The loss of an element is −[y·max(log(p + log_eps), −100) + (1−y)·max(log(1−p + log_eps), −100)], times its sample
    weight, where p is clipped to [eps, 1 − eps] if `eps`, and y smoothed as in `binary_cross_entropy`. The gradient is
    (p−y) / max(p(1−p), 1e-12), as in PyTorch's ``BCELoss``, and 0 outside the range of the clip.

    Parameters
    ----------
    probs : array_like, shape (...)
        Probabilities in [0, 1]; dtypes as in `binary_cross_entropy`.
    target, sample_weight, label_smoothing
        As in `binary_cross_entropy`.
    eps, log_eps
        As in `log_loss`.
    reduction, denominator, device
        As in `binary_cross_entropy`.

    Returns
    -------
    scalar or array
        As in `binary_cross_entropy`.

    Raises
    ------
    ProbabilityError
        If a probability is out of [0, 1]; NaN is not, and gives NaN.
    ShapeError, DTypeError, OptionError, DeviceError
        As in `cross_entropy`.
    """
    return check.element_loss(
        "binary_log_loss", probs, target, sample_weight, reduction, denominator, device,
        options(label_smoothing=label_smoothing, eps=eps, log_eps=log_eps), name="probs",
    )  # fmt: skip


@_loss
def mse(
    pred: Any, target: Any, *, sample_weight: Any = None, reduction: str = "mean", denominator: float | None = None,
    device: str = "auto",
) -> Problem:  # fmt: skip
    """Compute the squared error (pred − target)², times its sample weight, element by element.

    Parameters
    ----------
    pred : array_like, shape (...)
        Predictions: float16, bfloat16, float32 or float64.
    target, sample_weight, reduction, denominator, device
        As in `binary_cross_entropy`.

    Returns
    -------
    scalar or array
        As in `binary_cross_entropy`.

    Raises
    ------
    ShapeError, DTypeError, OptionError, DeviceError
        As in `cross_entropy`.
    """
    return check.element_loss(
        "mse", pred, target, sample_weight, reduction, denominator, device, {}, name="pred"
    )  # fmt: skip
