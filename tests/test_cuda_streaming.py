"""Host arrays on a card, block by block: the same bits as in one piece, in bounded memory, whatever ends it."""

import math
import re
import threading

import ml_dtypes
import numpy as np
import pytest
from cards import bits

import fusedloss as fl
from fusedloss import cli
from fusedloss.cuda import lanes, slab, streaming
from fusedloss.cuda.card import card

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
BLOCKS = [256, 1 << 10, 3000, 1 << 25]
CLASSES = 9


@pytest.fixture(params=BLOCKS)
def block(request, monkeypatch):
    """The bytes of a block, and small pieces of it for threads."""
    monkeypatch.setattr(streaming, "BLOCK_BYTES", request.param)
    monkeypatch.setattr(slab, "_PIECE", 128)
    return request.param


def small(monkeypatch, nbytes=300):
    monkeypatch.setattr(streaming, "BLOCK_BYTES", nbytes)


def close(actual, expected, tol=3e-6):
    np.testing.assert_allclose(np.asarray(actual, float), np.asarray(expected, float), rtol=tol, atol=tol)


SHAPES = [((101, CLASSES), -1), ((7, CLASSES, 13), 1), ((CLASSES, 31), 0), ((5, 3, 4, CLASSES), -1), ((CLASSES,), 0)]


def positions(shape, axis):
    rest = list(shape)
    del rest[axis]
    return rest


@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_losses(rng, block, shape, axis, dtype):
    x = rng.normal(size=shape).astype(dtype)
    y = np.asarray(rng.integers(0, CLASSES, positions(shape, axis)))
    given = {"class_weight": rng.random(CLASSES), "sample_weight": rng.random(y.shape), "axis": axis}
    for options in ({"axis": axis}, given | {"label_smoothing": 0.1}, given | {"reduction": "none"}):
        call = fl.value_and_grad(fl.cross_entropy)
        loss, grad = call(x, y, device="cuda", **options)
        expected = call(x, y, device="numpy", **options)
        close(loss, expected[0])
        close(grad, expected[1], 1e-2 if x.itemsize == 2 else 3e-6)
        assert (type(loss), grad.dtype, grad.shape) == (type(expected[0]), x.dtype, x.shape)


@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_the_size_of_a_block_changes_no_bit(rng, monkeypatch, shape, axis):
    x = rng.normal(size=shape).astype(np.float32)
    y = np.asarray(rng.integers(0, CLASSES, positions(shape, axis)))
    results = []
    for nbytes in BLOCKS:
        monkeypatch.setattr(streaming, "BLOCK_BYTES", nbytes)
        loss, grad = fl.value_and_grad(fl.cross_entropy)(x, y, axis=axis, device="cuda")
        scores = fl.score(x, y, axis=axis, device="cuda")
        each = loss, grad, fl.softmax(x, axis, device="cuda"), fl.sigmoid(x, device="cuda"), *vars(scores).values()
        results.append([bits(array) for array in each])
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("shape", [(101,), (40, 7), (5, 6, 7), (), (0, 7)], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_elements(rng, block, shape, reduction):
    x, y = rng.normal(size=shape).astype(np.float32), rng.integers(0, 2, shape).astype(bool)
    weights = {"pos_weight": rng.random(shape[-1:]), "sample_weight": rng.random(shape[:1])}
    for names in ((), ("pos_weight",), ("sample_weight",), ("pos_weight", "sample_weight")):
        options = {name: weights[name] for name in names} | {"reduction": reduction}
        loss, grad = fl.value_and_grad(fl.binary_cross_entropy)(x, y, device="cuda", **options)
        expected = fl.value_and_grad(fl.binary_cross_entropy)(x, y, device="numpy", **options)
        close(loss, expected[0])
        close(grad, expected[1])


@pytest.mark.parametrize("lie", [lambda v: v[::2], lambda v: v[:, ::-1], np.asfortranarray, lambda v: v.astype(">f4")])
def test_any_strides_and_byte_order(rng, block, lie):
    x = lie(rng.normal(size=(60, CLASSES)).astype(np.float32))
    y = rng.integers(0, CLASSES, len(x)).astype(">i2")
    out = np.zeros((2 * len(x), CLASSES), x.dtype)[::2]
    loss, grad = fl.value_and_grad(fl.cross_entropy, out=out)(x, y, device="cuda")
    expected = fl.value_and_grad(fl.cross_entropy)(x, y, device="numpy")
    assert grad is out
    close(loss, expected[0])
    close(out, expected[1])


def test_in_place(rng, block):
    x, y = rng.normal(size=(60, CLASSES)), rng.integers(0, CLASSES, 60)
    loss, expected = fl.value_and_grad(fl.cross_entropy)(x, y, device="numpy")
    given, _ = fl.value_and_grad(fl.cross_entropy, out=x)(x, y, device="cuda")
    close(given, loss)
    close(x, expected)


@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_evaluations(rng, block, monkeypatch, shape, axis):
    monkeypatch.setattr("fusedloss.cuda.running._TALLY_ROWS", 3)
    x = rng.normal(size=shape).astype(np.float32)
    y = np.asarray(rng.integers(0, CLASSES, positions(shape, axis)))
    options = {"sample_weight": rng.random(y.shape)} if block < 1 << 20 else {}
    given = fl.evaluate(x, y, axis=axis, device="cuda", **options)
    np.testing.assert_allclose(given.sums, fl.evaluate(x, y, axis=axis, device="numpy", **options).sums, rtol=1e-6)
    given = fl.evaluate_binary(x, x > 0, device="cuda")
    np.testing.assert_allclose(given.sums, fl.evaluate_binary(x, x > 0, device="numpy").sums, rtol=1e-6)


def test_evaluations_of_scores(rng, block):
    x, y = rng.normal(size=(60, CLASSES)).astype(np.float32), rng.integers(0, CLASSES, 60)
    given = fl.Evaluation.from_scores(fl.score(x, y, device="cuda"), y, device="cuda")
    np.testing.assert_allclose(given.sums, fl.evaluate(x, y, device="numpy").sums, rtol=1e-6)
    given = fl.BinaryEvaluation.from_scores(fl.score_binary(x, x > 0, device="cuda"), x > 0, device="cuda")
    np.testing.assert_allclose(given.sums, fl.evaluate_binary(x, x > 0, device="numpy").sums, rtol=1e-6)


def test_nothing():
    x, y = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    loss, grad = fl.value_and_grad(fl.cross_entropy)(x, y, device="cuda")
    assert math.isnan(loss)
    assert grad.shape == (0, 4)
    assert fl.evaluate(x, y, device="cuda").count == 0


class TestWhatIsWrong:
    """It is raised at once, in the words of other devices, and spoils nothing."""

    X, Y = np.zeros((50, CLASSES), np.float32), np.zeros(50, np.int64)

    @pytest.mark.parametrize("at", [0, 13, 49])
    def test_targets(self, block, at):
        wrong = self.Y.copy()
        wrong[at:] = 77
        message = f"target[{at}] is 77, expected a class in [0, {CLASSES}) or ignore_index=-100"
        for call in (fl.cross_entropy, fl.value_and_grad(fl.cross_entropy), fl.score, fl.evaluate):
            with pytest.raises(fl.TargetError, match=f"^{re.escape(message)}$"):
                call(self.X, wrong, device="cuda")
            call(self.X, self.Y, device="cuda")

    def test_targets_of_several_axes(self, block):
        x, y = np.zeros((4, CLASSES, 11), np.float32), np.zeros((4, 11), np.int8)
        y[2, 7] = -3
        with pytest.raises(fl.TargetError, match=r"^target\[2, 7\] is -3, "):
            fl.cross_entropy(x, y, axis=1, device="cuda")

    def test_probabilities(self, block):
        p = np.full((50, CLASSES), 0.1)
        p[31, 4] = 1.5
        for call, target in ((fl.log_loss, self.Y), (fl.binary_log_loss, p * 0)):
            with pytest.raises(fl.ProbabilityError, match=r"^probs\[31, 4\] is 1.5, expected a probability"):
                call(p, target, device="cuda")

    def test_weights(self):
        with pytest.raises(fl.OptionError, match=r"^class_weight holds -1.0, expected finite"):
            fl.cross_entropy(self.X, self.Y, class_weight=-np.ones(CLASSES), device="cuda")


class TestMemory:
    def test_what_is_pinned_goes_by_itself(self, rng, monkeypatch, block):
        x, y = rng.normal(size=(60, CLASSES)).astype(np.float32), rng.integers(0, CLASSES, 60)
        expected = fl.value_and_grad(fl.cross_entropy)(x, y, device="numpy")
        monkeypatch.setattr(lanes, "_DIRECT", 0)
        monkeypatch.setattr(type(card(0)), "is_pinned", lambda *_: True)
        monkeypatch.setattr(slab, "move", lambda *_: pytest.fail("it is copied by the host"))
        for out in (np.zeros_like(x), x):
            loss, grad = fl.value_and_grad(fl.cross_entropy, out=out)(x, y, device="cuda")
            close(loss, expected[0])
            close(grad, expected[1])

    def test_it_is_bounded(self, rng, monkeypatch):
        """The buffers are those of two blocks, however many there are, and they are used again."""
        small(monkeypatch, 1 << 13)
        monkeypatch.setattr(lanes, "_LEAST", 256)
        card(0).lanes.clear()
        x, y = rng.normal(size=(1000, CLASSES)).astype(np.float32), rng.integers(0, CLASSES, 1000)
        for _ in range(3):
            fl.value_and_grad(fl.cross_entropy)(x, y, device="cuda")
        assert len(card(0).lanes) == 2
        assert all(lane._host.nbytes < 4 << 13 for lane in card(0).lanes)

    def test_a_row_longer_than_a_block(self, rng, monkeypatch):
        small(monkeypatch)
        x = rng.normal(size=(3, 1000)).astype(np.float32)
        close(fl.softmax(x, device="cuda"), fl.softmax(x, device="numpy"))

    def test_a_memory_map(self, rng, monkeypatch, tmp_path):
        small(monkeypatch, 1 << 12)
        x, y = rng.normal(size=(200, CLASSES)).astype(np.float32), rng.integers(0, CLASSES, 200)
        np.save(tmp_path / "x.npy", x)
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        np.testing.assert_allclose(fl.evaluate(mapped, y, device="cuda").nll, fl.evaluate(x, y).nll, rtol=1e-6)

    def test_the_command(self, rng, tmp_path, capsys):
        x, y = rng.normal(size=(500, CLASSES)).astype(np.float32), rng.integers(0, CLASSES, 500)
        for name, array in (("x", x), ("y", y)):
            np.save(tmp_path / f"{name}.npy", array)
        paths = [str(tmp_path / name) for name in ("x.npy", "y.npy")]
        shown = []
        for device in ("cuda", "numpy"):
            out = str(tmp_path / f"{device}.npz")
            assert cli.main(["score", *paths, "--device", device, "--quiet"]) == 0
            assert cli.main(["score", *paths, "--device", device, "--output", out]) == 0
            lines = capsys.readouterr().out.splitlines()
            shown.append([line.split() for line in lines if not re.search("time|/s", line)])
        assert shown[0] == shown[1]
        cuda, numpy = (np.load(tmp_path / f"{device}.npz") for device in ("cuda", "numpy"))
        for name in numpy:
            close(cuda[name], numpy[name])


class TestWhateverEndsIt:
    def test_an_interrupt(self, rng, monkeypatch):
        """The card has let go of the caller's memory, and the next call finds all in order."""
        small(monkeypatch)
        started, waited = [], []
        start = slab.Slab.start

        def interrupted(self):
            if len(started) == 3:
                raise KeyboardInterrupt
            started.append(self)
            start(self)

        monkeypatch.setattr(slab.Slab, "start", interrupted)
        release = lanes.Lane.release
        monkeypatch.setattr(lanes.Lane, "release", lambda self: (waited.append(self), release(self)))
        x, y = rng.normal(size=(60, CLASSES)).astype(np.float32), rng.integers(0, CLASSES, 60)
        with pytest.raises(KeyboardInterrupt):
            fl.cross_entropy(x, y, device="cuda")
        assert len(waited) == 2
        monkeypatch.undo()
        close(fl.cross_entropy(x, y, device="cuda"), fl.cross_entropy(x, y, device="numpy"))

    def test_several_threads_at_once(self, rng, monkeypatch):
        small(monkeypatch)
        x = rng.normal(size=(60, CLASSES)).astype(np.float32)
        expected, found = fl.softmax(x, device="numpy"), []

        def work():
            found.append(fl.softmax(x, device="cuda"))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        for each in found:
            np.testing.assert_allclose(each, expected, rtol=3e-6)
