"""The losses for JAX: Optax's values and derivatives, under JAX's transformations, in XLA's own buffers."""

import os
import re
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

import fusedloss as fl
import fusedloss.jax as fj
from fusedloss import xla

INTEGER = (fj.softmax_cross_entropy_with_integer_labels, optax.softmax_cross_entropy_with_integer_labels)
SOFT = (fj.softmax_cross_entropy, optax.softmax_cross_entropy)
BINARY = (fj.sigmoid_binary_cross_entropy, optax.sigmoid_binary_cross_entropy)
SQUARED = (fj.squared_error, optax.squared_error)
SHAPE = (4, 3, 5)


def logits_and_labels(rng, pair, shape=SHAPE, axis=-1, dtype=jnp.float32):
    x = jnp.asarray(rng.standard_normal(shape), dtype)
    if pair is INTEGER:
        return x, jnp.asarray(rng.integers(0, shape[axis], np.delete(shape, axis)))
    return x, jnp.asarray(rng.random(shape), dtype)


def assert_close(got, wanted, rtol=1e-5):
    """Equal to the rounding of a row: what is small beside the largest number has that number's error."""
    wanted = np.asarray(wanted)
    np.testing.assert_allclose(got, wanted, rtol=rtol, atol=rtol / 10 * np.abs(wanted).max(initial=0), strict=True)


def value_and_gradients(loss, x, labels, **options):
    """Losses, and the gradients of a sum of them, unlike weights and signs, by all that is floating."""

    def total(*arguments):
        losses = loss(*arguments, **options)
        return (losses * jnp.linspace(-1, 2, losses.size).reshape(losses.shape)).sum(), losses

    by = (0, 1) if jnp.issubdtype(labels.dtype, jnp.floating) else 0
    return jax.value_and_grad(total, by, has_aux=True)(x, labels)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("pair", [INTEGER, SOFT, BINARY, SQUARED], ids=lambda pair: pair[1].__name__)
def test_values_and_derivatives_are_optaxs(pair, jit, rng):
    x, labels = logits_and_labels(rng, pair)
    ours, theirs = (partial(value_and_gradients, loss) for loss in pair)
    got = (jax.jit(ours) if jit else ours)(x, labels)
    jax.tree.map(assert_close, got, jax.jit(theirs)(x, labels))


@pytest.mark.parametrize("axis", [0, 1, -2, (1, 2), (2, 0), None], ids=str)
@pytest.mark.parametrize("pair", [INTEGER, SOFT], ids=["integer", "soft"])
def test_axis(pair, axis, rng):
    if pair is INTEGER and axis is None:
        axis = (0, 1, 2)
    x, labels = logits_and_labels(rng, pair, axis=axis if isinstance(axis, int) else 0)
    if pair is INTEGER and isinstance(axis, tuple):
        rows = np.delete(SHAPE, axis)
        labels = jnp.asarray(rng.integers(0, x.size // rows.prod(dtype=int), rows))
    ours, theirs = (jax.jit(partial(value_and_gradients, loss, axis=axis)) for loss in pair)
    jax.tree.map(assert_close, ours(x, labels), theirs(x, labels))


@pytest.mark.parametrize("shape", [(4, 5), (4, 3, 5), (1, 3, 1)], ids=["rows", "classes", "class"])
@pytest.mark.parametrize("pair", [INTEGER, SOFT], ids=["integer", "soft"])
def test_where(pair, shape, rng):
    x, labels = logits_and_labels(rng, pair, axis=1)
    where = rng.random(shape) < 0.6
    if pair is INTEGER and len(shape) == 3:  # the label's own class is included
        where = where | (np.arange(3)[:, None] == np.expand_dims(labels, 1))
    ours, theirs = (jax.jit(partial(value_and_gradients, loss, axis=1, where=jnp.asarray(where))) for loss in pair)
    # The gradient of Optax's is NaN where a row includes no class.
    jax.tree.map(assert_close, ours(x, labels), jax.tree.map(jnp.nan_to_num, theirs(x, labels)))


def test_rows_left_out_may_hold_anything(rng):
    x, labels = logits_and_labels(rng, INTEGER)
    where = jnp.asarray(rng.random(labels.shape) < 0.5)
    broken, no_labels = jnp.where(where[..., None], x, jnp.nan), jnp.where(where, labels, 99)
    loss = jax.value_and_grad(lambda *a: INTEGER[0](*a, where=where).sum())
    jax.tree.map(np.testing.assert_array_equal, loss(broken, no_labels), loss(x, labels))


def test_label_whose_class_is_left_out():
    where = jnp.array([[True, True, False]])
    assert INTEGER[0](jnp.zeros((1, 3)), jnp.array([2]), where=where) == jnp.inf
    assert INTEGER[1](jnp.zeros((1, 3)), jnp.array([2]), where=where) == jnp.log(2.0)


def test_broadcast_and_integer_one_hot(rng):
    x, labels = logits_and_labels(rng, SOFT)
    assert_close(SOFT[0](x, labels[:1, :1]), SOFT[1](x, labels[:1, :1]))
    assert_close(SOFT[0](x[:1], labels), SOFT[1](x[:1], labels))
    one_hot = jnp.asarray(rng.integers(0, 2, SHAPE))
    assert_close(SOFT[0](x, one_hot), SOFT[1](x, one_hot))
    for binary in (one_hot, one_hot.astype(bool), one_hot[0]):
        assert_close(BINARY[0](x, binary), BINARY[1](x, binary))
    assert_close(SQUARED[0](x), SQUARED[1](x))
    assert_close(SQUARED[0](x.tolist()), SQUARED[1](x))


@pytest.mark.usefixtures("on_numpy")  # the kernels of 16 bits have tests of their own
@pytest.mark.parametrize("pair", [INTEGER, SOFT, BINARY, SQUARED], ids=lambda pair: pair[1].__name__)
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16], ids=["float16", "bfloat16"])
def test_16_bits(pair, dtype, rng):
    x, labels = logits_and_labels(rng, pair, dtype=dtype)
    (_, losses), gradients = jax.jit(partial(value_and_gradients, pair[0]))(x, labels)
    wide = (each.astype(jnp.float32) if jnp.issubdtype(each.dtype, jnp.floating) else each for each in (x, labels))
    (_, wide_losses), wide_gradients = jax.jit(partial(value_and_gradients, pair[1]))(*wide)
    assert_close(losses, wide_losses)  # float32, of the same logits
    rounded = jax.tree.map(lambda gradient: gradient.astype(dtype).astype(jnp.float32), wide_gradients)
    assert all(each.dtype == dtype for each in jax.tree.leaves(gradients))
    got = jax.tree.map(lambda gradient: gradient.astype(jnp.float32), gradients)
    jax.tree.map(partial(assert_close, rtol=float(jnp.finfo(dtype).eps)), got, rounded)


@pytest.fixture
def x64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("pair", [INTEGER, SOFT, BINARY, SQUARED], ids=lambda pair: pair[1].__name__)
def test_float64(pair, rng):
    x, labels = logits_and_labels(rng, pair, dtype=jnp.float64)
    got, wanted = (jax.jit(partial(value_and_gradients, loss))(x, labels) for loss in pair)
    assert got[0][1].dtype == jnp.float64
    jax.tree.map(partial(assert_close, rtol=1e-13), got, wanted)


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0), (2, 0)], ids=str)
def test_vmap(axes, rng):
    x, labels = jnp.asarray(rng.standard_normal((4, 4, 4), np.float32)), jnp.asarray(rng.integers(0, 4, (4, 4)))
    arguments = [each if axis is not None else each[0] for each, axis in zip((x, labels), axes, strict=True)]
    ours, theirs = (jax.jit(jax.vmap(partial(value_and_gradients, loss), axes)) for loss in INTEGER)
    jax.tree.map(assert_close, ours(*arguments), theirs(*arguments))


def test_vmap_calls_once(rng, monkeypatch):
    calls = count_calls(monkeypatch)
    x, labels = logits_and_labels(rng, INTEGER)
    jax.vmap(jax.vmap(INTEGER[0]))(x, labels)
    assert len(calls) == 1


def test_scan_and_remat(rng):
    x, labels = logits_and_labels(rng, INTEGER)

    def descend(loss, w, _):
        value, slope = jax.value_and_grad(jax.checkpoint(lambda w: loss(jnp.sin(x * w), labels).mean()))(w)
        return w - slope, value

    got, wanted = (jax.jit(lambda loss=loss: jax.lax.scan(partial(descend, loss), 1.0, length=5))() for loss in INTEGER)
    jax.tree.map(assert_close, got, wanted)


def count_calls(monkeypatch):
    """Record the addresses of what each call is given, and of what it fills."""
    calls = []
    compute, count = xla._CALLS["value"]

    def value(loss, *operands, out):
        calls.append([each.ctypes.data for each in (*operands, out)])
        return compute(loss, *operands, out=out)

    monkeypatch.setitem(xla._CALLS, "value", (value, count))
    return calls


def test_no_copy(rng, monkeypatch):
    calls = count_calls(monkeypatch)
    x, labels = logits_and_labels(rng, BINARY, (64, 1024))
    losses = jax.jit(BINARY[0])(x, labels).block_until_ready()
    assert calls == [[each.unsafe_buffer_pointer() for each in (x, labels, losses)]]


def test_gradient_takes_the_place_of_the_logits(rng):
    h, w = (jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in ((256, 8), (8, 512)))
    labels = jnp.asarray(rng.integers(0, 512, 256))
    ours, theirs = (
        jax.jit(jax.value_and_grad(lambda h, w, loss=loss: loss(h @ w, labels).mean(), (0, 1))) for loss in INTEGER
    )
    memory = [step.lower(h, w).compile().memory_analysis().temp_size_in_bytes for step in (ours, theirs)]
    one_array = 4 * 256 * 512
    assert one_array <= memory[0] < 1.25 * one_array < 2 * one_array <= memory[1]
    jax.tree.map(assert_close, ours(h, w), theirs(h, w))


def test_arguments_are_not_written(rng):
    x, labels = logits_and_labels(rng, INTEGER)
    before = np.array(x)
    gradient = jax.jit(jax.grad(lambda x: INTEGER[0](x, labels).sum()))(x)
    np.testing.assert_array_equal(x, before)
    assert gradient.unsafe_buffer_pointer() != x.unsafe_buffer_pointer()


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("wrong", [3, -1, -100, 2**31 - 1])
def test_label_out_of_range(wrong, jit):
    loss = jax.jit(INTEGER[0]) if jit else INTEGER[0]
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError)) as error:
        loss(jnp.zeros((2, 3)), jnp.array([0, wrong])).block_until_ready()
    assert f"TargetError: target[1] is {wrong}, expected a class in [0, 3)" in str(error.value)
    assert "ignore_index" not in str(error.value)
    assert loss(jnp.zeros((2, 3)), jnp.array([0, 2])).shape == (2,)  # nothing is left broken


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, y: INTEGER[0](x, y, axis=0), fl.ShapeError, r"target has shape \(4, 3\), expected \(3, 5\)"),
        (lambda x, y: INTEGER[0](x, y * 1.0), fl.DTypeError, "labels have dtype float32, expected integers"),
        (lambda x, y: INTEGER[0](x, y, axis=3), fl.OptionError, r"axis is 3, expected one in \[-3, 3\), or several"),
        (lambda x, y: SOFT[0](x, x, axis="last"), fl.OptionError, "axis is 'last', expected an integer, or several"),
        (lambda x, y: SOFT[0](x, x, axis=(0, 4)), fl.OptionError, r"axis is \(0, 4\)"),
        (lambda x, y: SOFT[0](x, x[:, :2]), fl.ShapeError, r"labels have shape \(4, 2, 5\), expected .* \(4, 3, 5\)"),
        (BINARY[0], fl.ShapeError, r"labels have shape \(4, 3\), expected .* \(4, 3, 5\)"),
        (lambda x, y: SQUARED[0](y), fl.DTypeError, "pred has dtype int32, expected float16, bfloat16, float32"),
        (lambda x, y: SQUARED[0](x, x[0]), fl.ShapeError, r"target has shape \(3, 5\), expected \(4, 3, 5\)"),
        (lambda x, y: SOFT[0](x.astype(jnp.float8_e5m2), x), fl.DTypeError, "logits have dtype float8_e5m2"),
        (lambda x, y: SOFT[0](jnp.float32(1), jnp.float32(1)), fl.OptionError, r"axis is -1, expected one in \[0, 0\)"),
    ],
)  # fmt: skip
def test_refused_while_tracing(call, error, message, rng):
    x, labels = logits_and_labels(rng, INTEGER)
    for function in (call, jax.jit(call)):
        with pytest.raises(error, match=message):
            function(x, labels)


def test_derivatives_there_are_none_of(rng):
    x, labels = logits_and_labels(rng, INTEGER)
    gradient = jax.grad(lambda x: INTEGER[0](x, labels).sum())
    with pytest.raises(NotImplementedError, match="cross_entropy of fusedloss has a first derivative"):
        jax.grad(lambda x: (gradient(x) ** 2).sum())(x)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(SQUARED[0], (x,), (x,))
    smoothed = partial(fj.unreduced, fj.Unreduced.of(fl.log_loss, axis=-1), jnp.full(SHAPE, 0.2))
    with pytest.raises(NotImplementedError, match="log_loss has no derivative by its target here"):
        jax.grad(lambda y: smoothed(y).sum())(jnp.full(SHAPE, 0.2))


def test_structures_are_xlas():
    """What cffi is told about XLA's structures is what the header says that comes with it."""
    header = (Path(jaxlib.__file__).parent / "include/xla/ffi/api/c_api.h").read_text()
    header = re.sub(r"//.*|\bconst\b", "", header)
    header = re.sub(r"_XLA_FFI_API_STRUCT_FIELD\((\w+)\)", r"\1* \1", header)
    pattern = re.compile(r"struct (XLA_FFI_\w+) \{(.*?)\}", re.DOTALL)
    theirs = {name: body.split() for name, body in pattern.findall(header)}
    ours = {name: body.split() for name, body in pattern.findall(xla.STRUCTURES.replace("const ", ""))}
    assert len(ours) == 12
    for name, body in ours.items():
        assert theirs[name][: len(body)] == body, name
    numbers = dict(re.findall(r"XLA_FFI_DataType_(\w+) = (\d+)", header))
    names = {"PRED": "bool", "BF16": "bfloat16", "S": "int", "U": "uint", "F": "float"}
    for number, dtype in xla._DTYPES.items():
        (name,) = (name for name, value in numbers.items() if int(value) == number)
        assert re.sub("^(PRED|BF16|[SUF](?=[0-9]))", lambda prefix: names[prefix[0]], name) == dtype.name
    assert f"XLA_FFI_API_MAJOR {xla._MAJOR_VERSION}" in header
    assert f"XLA_FFI_Extension_Metadata = {xla._METADATA}," in header
    assert f"XLA_FFI_Error_Code_INVALID_ARGUMENT = {xla._INVALID_ARGUMENT}," in header
    assert f"XLA_FFI_Error_Code_INTERNAL = {xla._INTERNAL}," in header


def test_an_unexpected_error_reaches_the_caller(rng, monkeypatch):
    def fail(*_, out):
        raise KeyboardInterrupt("now")

    monkeypatch.setitem(xla._CALLS, "value", (fail, 2))
    x, labels = logits_and_labels(rng, INTEGER)
    with pytest.raises((jax.errors.JaxRuntimeError, RuntimeError, ValueError), match="KeyboardInterrupt: now"):
        INTEGER[0](x, labels).block_until_ready()


def crowd() -> None:
    """Arrays of many blocks, from many threads at once, and many programs under way."""
    rng = np.random.default_rng(0)
    x, labels = logits_and_labels(rng, INTEGER, (1024, 1024))
    step = jax.jit(jax.value_and_grad(lambda x: INTEGER[0](2 * x + 1, labels).mean()))
    loss, gradient = step(x)
    wrong = []

    def work() -> None:
        for _ in range(6):
            value, again = step(x)
            if value != loss or not (again == gradient).all():
                wrong.append(value)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    under_way = [step(x)[0] for _ in range(16)]
    for thread in threads:
        thread.join()
    assert not wrong
    assert all(value == loss for value in under_way)


@pytest.mark.parametrize("threads", ["true", "false"])
def test_no_deadlock_in_a_crowd(threads):
    """``jax.pure_callback`` may deadlock where its pool is small: so not here, even with XLA on a single thread."""
    flags = os.environ | {"XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={threads}"}
    command = [sys.executable, "-c", "import test_jax; test_jax.crowd()"]
    subprocess.run(command, cwd=Path(__file__).parent, env=flags, check=True, timeout=120)


def test_digits_are_learnt_as_with_optax():
    data, labels = load_digits(return_X_y=True)
    x, labels = jnp.asarray(data / 16, jnp.float32), jnp.asarray(labels)
    first, second = jax.random.split(jax.random.key(0))
    weights = [jax.random.normal(first, (64, 32)) / 8, jax.random.normal(second, (32, 10)) / 6]
    optimizer = optax.adam(1e-2)

    def logits(weights, x):
        return jnp.tanh(x @ weights[0]) @ weights[1]  # smooth: no rounding falls on the other side of a kink

    def train(loss):
        def step(state, batch):
            weights, moments = state
            value, slopes = jax.value_and_grad(lambda w: loss(logits(w, batch[0]), batch[1]).mean())(weights)
            updates, moments = optimizer.update(slopes, moments)
            return (optax.apply_updates(weights, updates), moments), value

        batches = x[:1792].reshape(14, 128, 64), labels[:1792].reshape(14, 128)
        epoch = jax.jit(lambda state: jax.lax.scan(step, state, batches))
        state, curve = (weights, optimizer.init(weights)), []
        for _ in range(5):
            state, values = epoch(state)
            curve += values.tolist()
        return state[0], curve

    (ours, curve), (theirs, wanted) = train(INTEGER[0]), train(INTEGER[1])
    # Each of the 70 steps rounds in its own way: about ten times the difference that makes.
    np.testing.assert_allclose(curve, wanted, rtol=2e-6)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=2e-6), ours, theirs)
    assert (logits(ours, x).argmax(1) == labels).mean() > 0.93
    assert curve[-1] < 0.3 < 2 < curve[0]
