"""The losses for Keras beside Keras's own, on the backend that KERAS_BACKEND names; run by ``test_keras.py``."""

import importlib
from functools import partial

import keras
import ml_dtypes
import numpy as np
import pytest
from sklearn.datasets import load_digits

import fusedloss as fl
import fusedloss.keras as fk

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's, with NumPy 2

BACKEND = keras.backend.backend()
REDUCTIONS = ["sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none", None]
N, C = 6, 4
RNG = np.random.default_rng(0)
LOGITS = 3 * RNG.standard_normal((N, C)).astype(np.float32)
PROBABILITIES = (np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)).astype(np.float32)
PROBABILITIES[0], PROBABILITIES[1] = [1, 0, 0, 0], 2 * PROBABILITIES[1]  # at both ends of the clip; not normalised
SIGMOIDS = (1 / (1 + np.exp(-LOGITS))).astype(np.float32)
SIGMOIDS[0, :2] = [1, 0]
CLASSES = np.array([1, 0, 3, 2, 2, 1])
SOFT = RNG.dirichlet(np.ones(C), N).astype(np.float32)
LABELS = RNG.integers(0, 2, (N, C))
LABELS[0, :2] = 1
WEIGHT = np.array([0.5, 2, 0, 1, 1.5, 0.25], np.float32)
IMAGES = RNG.standard_normal((2, 3, 2, 3)).astype(np.float32)
SEGMENTS = RNG.integers(0, 3, (2, 2, 3))
ERRORS = (ValueError, RuntimeError)  # of a class out of range: jax raises either
if BACKEND == "tensorflow":
    ERRORS += (importlib.import_module("tensorflow").errors.InvalidArgumentError,)


def gradient(loss, y_true, y_pred, sample_weight=None):
    """The gradient of a loss by ``y_pred``, by the backend's own means."""
    backend = importlib.import_module(BACKEND)

    def total(y_pred):
        return keras.ops.sum(loss(y_true, y_pred, sample_weight=sample_weight))

    if BACKEND == "jax":
        return np.asarray(backend.jit(backend.grad(total))(y_pred))
    if BACKEND == "torch":
        leaf = backend.tensor(y_pred, requires_grad=True)
        total(leaf).backward()
        return leaf.grad.numpy()
    variable = backend.Variable(y_pred)
    with backend.GradientTape() as tape:
        value = total(variable)
    return tape.gradient(value, variable).numpy()


def assert_close(got, wanted, rtol=2e-6):
    """Equal to a few roundings; what is small beside the largest number has that number's error."""
    wanted = np.asarray(wanted)
    np.testing.assert_allclose(got, wanted, rtol=rtol, atol=rtol / 10 * np.abs(wanted).max(initial=0), strict=True)


def both(name, **options):
    return getattr(fk, name)(**options), getattr(keras.losses, name)(**options)


CASES = [
    *(("BinaryCrossentropy", {"from_logits": True, "label_smoothing": eps, "axis": axis}, LABELS, LOGITS)
      for eps in (0.0, 0.1) for axis in (-1, 0)),
    ("BinaryCrossentropy", {"axis": 1}, LABELS, SIGMOIDS),
    ("BinaryCrossentropy", {"label_smoothing": 0.1}, LABELS[1:], SIGMOIDS[1:]),
    ("BinaryCrossentropy", {"from_logits": True}, LABELS[:, 0], LOGITS[:, :1]),
    *(("CategoricalCrossentropy", {"from_logits": True, "label_smoothing": eps, "axis": axis}, SOFT, LOGITS)
      for eps in (0.0, 0.1) for axis in (-1, 1)),
    ("CategoricalCrossentropy", {"from_logits": True, "axis": 0}, SOFT / SOFT.sum(0), LOGITS),
    *(("CategoricalCrossentropy", {"label_smoothing": eps}, np.eye(C)[CLASSES], PROBABILITIES) for eps in (0.0, 0.1)),
    *(("SparseCategoricalCrossentropy", {"from_logits": True, "ignore_class": out}, CLASSES, LOGITS)
      for out in (None, 2)),
    *(("SparseCategoricalCrossentropy", {"ignore_class": out}, CLASSES[:, None], PROBABILITIES)
      for out in (None, 1, -1)),
    ("SparseCategoricalCrossentropy", {"from_logits": True, "ignore_class": 1}, SEGMENTS, np.moveaxis(IMAGES, 1, -1)),
    ("MeanSquaredError", {}, SOFT, LOGITS),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}-{case[2].shape}")
def test_values_are_kerass(case):
    name, options, y_true, y_pred = case
    rows = both(name, reduction=None, **options)[1](y_true, y_pred).shape
    weights = [None, np.broadcast_to(WEIGHT[: rows[0]].reshape(-1, *[1] * (len(rows) - 1)), rows)]
    for reduction in REDUCTIONS:
        ours, theirs = both(name, reduction=reduction, **options)
        for weight in weights:
            arguments = y_true, y_pred, weight
            assert_close(*(keras.ops.convert_to_numpy(loss(*arguments)) for loss in (ours, theirs)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}-{case[2].shape}")
def test_gradients_are_kerass(case):
    name, options, y_true, y_pred = case
    ours, theirs = both(name, **options)
    weight = None if y_true.ndim > 2 or len(y_true) != N or options.get("axis") == 0 else WEIGHT
    wanted = np.nan_to_num(gradient(theirs, y_true, y_pred, weight))  # Keras 3.12 has NaN for rows ignored
    at_an_end = (y_pred == 0) | (y_pred == 1)  # where backends differ in what a clip's derivative is
    assert_close(np.where(at_an_end, 0, gradient(ours, y_true, y_pred, weight)), np.where(at_an_end, 0, wanted), 1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")  # JAX has float32 unless told otherwise
def test_dtypes(dtype):
    """Sixteen bits round the result, once, and not the arithmetic."""
    y_pred = np.round(4 * LOGITS) / 4  # the same in every dtype
    eps = max(float(ml_dtypes.finfo(dtype).eps), 2e-6)
    for name, y_true in (("SparseCategoricalCrossentropy", CLASSES), ("CategoricalCrossentropy", np.eye(C)[CLASSES])):
        ours, same = both(name, from_logits=True, dtype=dtype)
        exact = getattr(keras.losses, name)(from_logits=True)
        assert ours(y_true, y_pred).dtype == same(y_true, y_pred).dtype
        assert float(ours(y_true, y_pred)) == pytest.approx(float(exact(y_true, y_pred)), rel=3 * eps)
        got, wanted = (gradient(loss, y_true, y_pred) for loss in (ours, exact))
        np.testing.assert_allclose(got, wanted, rtol=2 * eps, atol=1e-7)


def test_legacy_epsilon():
    y_true, y_pred = np.ones(3, np.float32), np.array([1, 1, 0], np.float32)
    assert (
        float(fk.BinaryCrossentropy(legacy_epsilon=True)(y_true, y_pred)) == 5.1416497230529785
    )  # as Keras 2 printed it
    assert float(fk.BinaryCrossentropy()(y_true, y_pred)) == pytest.approx(5.3726988, rel=1e-7)
    with pytest.raises(fl.OptionError, match="legacy_epsilon is True, expected False with from_logits=True"):
        fk.BinaryCrossentropy(from_logits=True, legacy_epsilon=True)


def test_epsilon_is_kerass():
    try:
        keras.config.set_epsilon(1e-3)
        for name in ("BinaryCrossentropy", "CategoricalCrossentropy"):
            ours, theirs = both(name)
            arguments = np.array([[0, 1, 0]]), np.array([[0.9, 0, 0.1]], np.float32)
            assert_close(*(keras.ops.convert_to_numpy(loss(*arguments)) for loss in (ours, theirs)))
    finally:
        keras.config.set_epsilon(1e-7)


def test_any_class_axis():
    """Where Keras's sparse loss knows the last axis alone, or spreads smoothing over that."""
    last = np.moveaxis(IMAGES, 1, -1)
    for name, options, y_true, moved in (
        ("SparseCategoricalCrossentropy", {"ignore_class": 1}, SEGMENTS, SEGMENTS),
        (
            "CategoricalCrossentropy",
            {"label_smoothing": 0.1},
            np.eye(3)[SEGMENTS],
            np.moveaxis(np.eye(3)[SEGMENTS], -1, 1),
        ),
    ):
        ours, theirs = getattr(fk, name), getattr(keras.losses, name)
        wanted = gradient(theirs(from_logits=True, **options), y_true, last)
        assert_close(
            gradient(ours(from_logits=True, axis=1, **options), moved, IMAGES), np.moveaxis(wanted, -1, 1), 1e-5
        )


def test_ignored_rows_may_hold_anything():
    loss = fk.SparseCategoricalCrossentropy(from_logits=True, ignore_class=2)
    broken = np.where((CLASSES == 2)[:, None], np.nan, LOGITS)
    assert float(loss(CLASSES, broken)) == float(loss(CLASSES, LOGITS))
    slope = gradient(loss, CLASSES, broken)
    assert not slope[CLASSES == 2].any()
    assert np.isfinite(slope).all()


@pytest.mark.parametrize(
    "loss",
    [
        fk.BinaryCrossentropy(label_smoothing=0.1, axis=1, reduction="sum", legacy_epsilon=True),
        fk.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1, axis=1, name="other"),
        fk.SparseCategoricalCrossentropy(from_logits=True, ignore_class=3, axis=1, dtype="float16"),
        fk.MeanSquaredError(reduction=None),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_configuration(loss):
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
    assert (again.dtype, again.reduction, again.name) == (loss.dtype, loss.reduction, loss.name)
    assert isinstance(loss, getattr(keras.losses, type(loss).__name__))


@pytest.mark.parametrize(
    ("loss", "y_true", "y_pred", "message"),
    [
        (
            fk.SparseCategoricalCrossentropy(from_logits=True),
            CLASSES + 9,
            LOGITS,
            r"target\[0\] is 10, expected a class",
        ),
        (fk.SparseCategoricalCrossentropy(from_logits=True), -CLASSES, LOGITS, r"target\[0\] is -1, expected a class"),
        (fk.BinaryCrossentropy(), LABELS, LOGITS, r"probs\[0, .\] is .*, expected a probability in \[0, 1\]"),
        (fk.CategoricalCrossentropy(), SOFT, -SOFT, "expected a finite number of at least 0"),
        (fk.CategoricalCrossentropy(), SOFT[:3], SOFT, r"target has shape \(3, 4\), expected \(6, 4\)"),
        (fk.CategoricalCrossentropy(axis=2), SOFT, SOFT, r"axis is 2, expected one in \[-2, 2\)"),
        (fk.MeanSquaredError(), SOFT, SOFT[:, :3], r"target has shape \(6, 4\), expected \(6, 3\)"),
        (
            fk.SparseCategoricalCrossentropy(dtype="bfloat16"),
            CLASSES,
            np.ones((N, 300)),
            "dtype is bfloat16, .* to 256",
        ),
        (fk.CategoricalCrossentropy(label_smoothing=2), SOFT, SOFT, "label_smoothing is 2.0, expected a number in"),
    ],
)
def test_refusals(loss, y_true, y_pred, message):
    with pytest.raises(ERRORS, match=message):
        keras.ops.convert_to_numpy(loss(y_true, y_pred))


def test_no_second_derivative():
    loss = partial(fk.SparseCategoricalCrossentropy(from_logits=True), CLASSES)
    backend = importlib.import_module(BACKEND)
    with pytest.raises(NotImplementedError, match="cross_entropy of fusedloss has a first derivative"):
        if BACKEND == "jax":
            backend.grad(lambda x: backend.grad(loss)(x).sum())(LOGITS)
        elif BACKEND == "torch":
            x = backend.tensor(LOGITS, requires_grad=True)
            backend.autograd.grad(loss(x), x, create_graph=True)[0].sum().backward()
        else:
            x = backend.Variable(LOGITS)
            with backend.GradientTape() as outer:
                with backend.GradientTape() as inner:
                    value = loss(x)
                slope = inner.gradient(value, x)
            outer.gradient(slope, x)


def digits():
    data, classes = load_digits(return_X_y=True)
    return (data / 16).astype(np.float32), classes


def trained(loss, targets, activation, epochs=3, weights=None, **options):
    """A model that has learnt digits, and its history."""
    keras.utils.set_random_seed(0)
    # Smooth: a value that is rounded to the other side of a kink of relu takes another path from there.
    layers = [keras.layers.Dense(32, "tanh"), keras.layers.Dense(10, activation)]
    model = keras.Sequential([keras.Input((64,)), *layers])
    model.compile(keras.optimizers.Adam(1e-2), loss=loss, weighted_metrics=["accuracy"], **options)
    data, _ = digits()
    fit = model.fit(data, targets, 128, epochs, verbose=0, sample_weight=weights, shuffle=False)
    return model, fit.history


ONE_HOT = np.eye(10, dtype=np.float32)[digits()[1]]
PARITIES = np.stack([digits()[1] >> bit & 1 for bit in range(10)], 1)  # of bits: several labels a sample
TRAINING = {
    "classes": ("SparseCategoricalCrossentropy", {"from_logits": True}, digits()[1], None),
    "probabilities": ("CategoricalCrossentropy", {"label_smoothing": 0.1}, ONE_HOT, "softmax"),
    "labels": ("BinaryCrossentropy", {"from_logits": True}, PARITIES, None),
    "ignored": ("SparseCategoricalCrossentropy", {"from_logits": True, "ignore_class": 3}, digits()[1], None),
    "squares": ("MeanSquaredError", {}, ONE_HOT, "sigmoid"),
}


@pytest.mark.parametrize("kind", TRAINING)
def test_digits_are_learnt_as_with_keras(kind):
    name, options, targets, activation = TRAINING[kind]
    weights = np.linspace(0, 2, len(targets), dtype=np.float32) if kind in ("classes", "labels") else None
    ours, theirs = (trained(loss, targets, activation, weights=weights) for loss in both(name, **options))
    # Each of the 45 steps rounds in its own way: about ten times the difference that makes.
    np.testing.assert_allclose(ours[1]["loss"], theirs[1]["loss"], rtol=3e-6)
    for got, wanted in zip(ours[0].get_weights(), theirs[0].get_weights(), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5)
    assert ours[1]["loss"][-1] < 0.65 * ours[1]["loss"][0]
    if kind == "classes":
        assert ours[1]["accuracy"][-1] > 0.83


def test_saved_with_the_model(tmp_path):
    data, classes = digits()
    loss = fk.SparseCategoricalCrossentropy(from_logits=True, ignore_class=3, name="digits")
    model, _ = trained(loss, classes, None, epochs=1)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.loss) is fk.SparseCategoricalCrossentropy
    assert again.loss.get_config() == loss.get_config()
    assert again.evaluate(data, classes, verbose=0) == model.evaluate(data, classes, verbose=0)
    assert again.fit(data, classes, 128, verbose=0).history["loss"][0] < 1


def test_masks_of_layers():
    """The mask of a layer, and a class to ignore, leave steps out of the mean."""
    words = np.array([[1, 2, 3, 0], [4, 1, 0, 0], [2, 2, 2, 2]])
    tags = np.array([[0, 2, 1, 0], [1, 2, 0, 0], [2, 1, 0, 2]])
    losses = []
    for loss in both("SparseCategoricalCrossentropy", from_logits=True, ignore_class=2):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Embedding(5, 3, mask_zero=True), keras.layers.Dense(3)])
        model.compile("sgd", loss=loss)
        losses.append(
            [*model.fit(words, tags, verbose=0, epochs=2).history["loss"], model.evaluate(words, tags, verbose=0)]
        )
    np.testing.assert_allclose(*losses, rtol=1e-6)


if BACKEND == "tensorflow":

    def test_compiled_by_xla():
        """XLA cannot call out: a warning, and the values of Keras's operations."""
        with pytest.warns(UserWarning, match="XLA compiles CategoricalCrossentropy, .* jit_compile=False"):
            _, got = trained(fk.CategoricalCrossentropy(), ONE_HOT, "softmax", epochs=1, jit_compile=True)
        _, wanted = trained(keras.losses.CategoricalCrossentropy(), ONE_HOT, "softmax", epochs=1)
        np.testing.assert_allclose(got["loss"], wanted["loss"], rtol=1e-6)

    def test_legacy_epsilon_compiled_by_xla():
        tf = importlib.import_module("tensorflow")
        for options in ({}, {"label_smoothing": 0.1, "axis": 0}):
            loss = fk.BinaryCrossentropy(legacy_epsilon=True, **options)
            with pytest.warns(UserWarning, match="XLA compiles BinaryCrossentropy"):
                got = tf.function(loss, jit_compile=True)(LABELS[1:], SIGMOIDS[1:])
            assert float(got) == pytest.approx(float(loss(LABELS[1:], SIGMOIDS[1:])), rel=1e-6)

    def test_logits_behind_an_activation():
        """Keras goes back to them here: a loss that probabilities cannot tell."""
        x = np.array([[200.0, 0, 0]], np.float32)
        for name, y_true, activation in (
            ("SparseCategoricalCrossentropy", np.array([1]), keras.activations.softmax),
            ("CategoricalCrossentropy", np.array([[0.0, 1, 0]]), keras.activations.softmax),
            ("BinaryCrossentropy", np.array([[0.0, 1, 0]]), keras.activations.sigmoid),
        ):
            ours, theirs = both(name, reduction="sum")
            p = activation(keras.ops.convert_to_tensor(x))
            assert float(ours(y_true, p)) == pytest.approx(float(theirs(y_true, p)), rel=1e-6)
            assert float(ours(y_true, p)) > 60
