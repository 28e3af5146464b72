"""Calls on a card wait for nothing: what is wrong is said later, once. Streams wait for others; faults end a call."""

import math
import re
import weakref

import ml_dtypes
import numpy as np
import pytest
from cards import KINDS, ByCapsule, ByInterface, host, settle
from fusedloss.kernels import cuda_card

import fusedloss as fl
from fusedloss.cuda.card import card

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
ON_CARD = ByInterface


@pytest.fixture(autouse=True)
def _nothing_pending():
    yield
    fl.synchronize()


def close(actual, expected):
    np.testing.assert_allclose(host(actual).astype(float), np.asarray(expected, float), rtol=3e-6, atol=3e-6)


def strided(values):
    """The same values where no axes merge."""
    whole = np.zeros([2 * n for n in values.shape], values.dtype)
    view = whole[tuple(slice(None, None, 2) for _ in values.shape)]
    view[...] = values
    return view


class TestWhatIsWrong:
    """A call returns before its kernels have run; another one says what they found."""

    X, Y = np.zeros((4, 3), np.float32), np.array([0, 1, 2, 1])

    def wrong(self, error, message, call, *args, **options):
        """It is raised by the next call, by `synchronize`, and once."""
        for other in (lambda: fl.softmax(ON_CARD(self.X)), fl.synchronize, lambda: fl.synchronize("cuda:0")):
            card(0).pending.wait()
            call(*args, **options)
            settle()
            with pytest.raises(error, match=f"^{re.escape(message)}$"):
                other()
            fl.synchronize()
            close(fl.softmax(ON_CARD(self.X)), np.full((4, 3), 1 / 3))

    @pytest.mark.parametrize("kind", KINDS)
    def test_targets(self, kind):
        expected = "expected a class in [0, 3) or ignore_index=-100"
        for dtype, value in ((np.int64, 3), (np.int8, -1), (np.uint64, 2**64 - 1)):
            y = self.Y.astype(dtype)
            y[2:] = value
            self.wrong(fl.TargetError, f"target[2] is {y[2]}, {expected}", fl.cross_entropy, kind(self.X), kind(y))
            given = kind(self.X.copy()), kind(y)
            self.wrong(fl.TargetError, f"target[2] is {y[2]}, {expected}", fl.value_and_grad(fl.cross_entropy), *given)
            self.wrong(fl.TargetError, f"target[2] is {y[2]}, {expected}", fl.score, kind(self.X), kind(y))

    def test_targets_of_several_axes(self):
        y = np.zeros((4, 2), np.int32)
        y[3, 1] = 7
        message = "target[3, 1] is 7, expected a class in [0, 3) or ignore_index=-100"
        x = np.zeros((4, 2, 3), np.float32)
        self.wrong(fl.TargetError, message, fl.cross_entropy, ON_CARD(strided(x)), ON_CARD(strided(y)))

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_probabilities(self, dtype):
        p = np.full((4, 3), 0.25, dtype)
        p[2, 1] = 1.5
        message = "probs[2, 1] is 1.5, expected a probability in [0, 1]"
        for loss, target in ((fl.log_loss, self.Y), (fl.binary_log_loss, p * 0)):
            self.wrong(fl.ProbabilityError, message, loss, ON_CARD(p), ON_CARD(target))
            self.wrong(fl.ProbabilityError, message, loss, ON_CARD(strided(p)), ON_CARD(target))

    def test_a_probability_that_the_gradient_replaces(self):
        p = np.full((4, 3), 0.25, np.float32)
        p[2, 1] = 1.5

        def call(p):
            given = ON_CARD(p.copy())
            fl.value_and_grad(fl.log_loss, out=given)(given, ON_CARD(self.Y))

        self.wrong(fl.ProbabilityError, "probs[2, 1] is 1.5, expected a probability in [0, 1]", call, p)

    @pytest.mark.parametrize("value", [-1.0, math.inf, math.nan])
    def test_weights(self, value):
        call = fl.cross_entropy, ON_CARD(self.X), ON_CARD(self.Y)
        for name, length in (("class_weight", 3), ("sample_weight", 4)):
            weight = np.ones(length)
            weight[1] = value
            message = f"{name} holds {value}, expected finite weights of at least 0"
            self.wrong(fl.OptionError, message, *call, **{name: ON_CARD(weight)})
        weight = np.array([1, value, 1], np.float32)
        message = f"pos_weight holds {value}, expected finite weights of at least 0"
        call = fl.binary_cross_entropy, ON_CARD(self.X), ON_CARD(self.X)
        self.wrong(fl.OptionError, message, *call, pos_weight=ON_CARD(weight))

    def test_each_is_raised_in_turn(self, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(card(0).pending, "poll", lambda: None)
            for wrong in (5, 6):
                fl.cross_entropy(ON_CARD(self.X), ON_CARD(self.Y + wrong))
        for wrong in (5, 6):
            settle()
            with pytest.raises(fl.TargetError, match=f"^target\\[0\\] is {wrong}, "):
                fl.synchronize()
        fl.synchronize()

    def test_at_once_where_the_call_waits_anyway(self):
        wrong = ON_CARD(self.Y + 1)
        with pytest.raises(fl.TargetError, match=r"^target\[2\] is 3, "):
            fl.evaluate(ON_CARD(self.X), wrong)
        with pytest.raises(fl.TargetError, match=r"^target\[2\] is 3, "):
            fl.cross_entropy(self.X, self.Y + 1, device="cuda")
        fl.synchronize()

    def test_slots_are_used_again(self):
        taken = {card(0).pending.take() for _ in range(3)}
        for slot in taken:
            card(0).pending.give_back(slot)
        for _ in range(200):
            fl.softmax(ON_CARD(self.X))
            fl.synchronize()
        assert len(card(0).pending._free) <= 64 + 2

    def test_a_target_may_die_before_it_is_named(self):
        y = self.Y + 4
        fl.cross_entropy(ON_CARD(self.X), ON_CARD(y))
        del y
        with pytest.raises(fl.TargetError, match=r"^target\[0\] is 4, "):
            fl.synchronize()

    def test_nothing_is_kept_longer_than_needed(self):
        given = ON_CARD(self.X.copy())
        dead = weakref.ref(given)
        fl.cross_entropy(given, ON_CARD(self.Y))
        del given
        fl.synchronize()
        assert dead() is None


class TestStreams:
    def test_other_streams_are_waited_for(self, monkeypatch):
        followed = []
        monkeypatch.setattr(type(card(0)), "follow", lambda self, *streams: followed.append(streams))
        x, y = np.zeros((4, 3), np.float32), np.array([0, 1, 2, 1])
        fl.cross_entropy(ByInterface(x, 5), ByInterface(y, 5))
        assert followed == []
        fl.cross_entropy(ByInterface(x, 5), ByInterface(y, 6))
        fl.cross_entropy(ByInterface(x), ByCapsule(y), sample_weight=ByInterface(np.ones(4), 5))
        assert followed == [(5, 6), (0, 5)]
        followed.clear()
        fl.softmax(ByInterface(x, 5), out=ByInterface(x.copy(), 6))
        assert followed == [(5, 6), (6, 5)]

    def test_results_are_ready_on_the_stream_of_the_logits(self):
        result = fl.softmax(ByInterface(np.zeros((4, 3), np.float32), 5))
        assert result.stream == 5
        assert result.__cuda_array_interface__["stream"] == 5

    def test_nothing_waits(self, monkeypatch):
        def wait(*_):
            raise AssertionError("it waits")

        x, y = ON_CARD(np.zeros((4, 3), np.float32)), ON_CARD(np.array([0, 1, 2, 1]))
        for name in ("wait_for", "wait_for_stream"):
            monkeypatch.setattr(type(card(0)), name, wait)
        fl.value_and_grad(fl.cross_entropy)(x, y, class_weight=ON_CARD(np.ones(3)), label_smoothing=0.1)
        fl.score(x, y)
        fl.logsumexp(x)
        monkeypatch.undo()


class TestFaults:
    """A card that fails fails one call: in the library's words, and the next one finds all in order."""

    X = np.zeros((4, 3), np.float32)

    def fails(self, monkeypatch, name, error, kind, message, call):
        def fail(*_):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(cuda_card, name, fail)
            with pytest.raises(kind, match=f"^{re.escape(message)}$"):
                call()
        fl.synchronize()
        close(fl.softmax(ON_CARD(self.X)), np.full((4, 3), 1 / 3))
        close(fl.softmax(self.X, device="cuda"), np.full((4, 3), 1 / 3))

    def test_out_of_memory(self, monkeypatch):
        error, message = cuda_card.CudaError("CUDA_ERROR_OUT_OF_MEMORY", "out of memory"), "cuda:0 is out of memory"
        self.fails(monkeypatch, "allocate", error, MemoryError, message, lambda: fl.softmax(ON_CARD(self.X)))
        for name in ("allocate", "pin"):
            card(0).lanes.clear()
            self.fails(monkeypatch, name, error, MemoryError, message, lambda: fl.softmax(self.X, device="cuda"))

    @pytest.mark.parametrize("call", [lambda x: fl.softmax(ON_CARD(x)), lambda x: fl.softmax(x, device="cuda")])
    def test_a_launch(self, monkeypatch, call):
        error = cuda_card.CudaError("CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure")
        message = "cuda:0 failed: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure"

        def fail(*_):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("fusedloss.kernels.cuda_compile.Kernel.launch", fail)
            with pytest.raises(fl.DeviceError, match=f"^{re.escape(message)}$"):
                call(self.X)
        fl.synchronize()
        close(call(self.X), np.full((4, 3), 1 / 3))

    def test_an_event(self, monkeypatch):
        error = cuda_card.CudaError("CUDA_ERROR_UNKNOWN", "unknown")
        message = "cuda:0 failed: CUDA_ERROR_UNKNOWN: unknown"
        self.fails(monkeypatch, "record", error, fl.DeviceError, message, lambda: fl.softmax(ON_CARD(self.X)))

    def test_after_a_fork(self, monkeypatch):
        monkeypatch.setattr(card(0), "_process", -1)
        with pytest.raises(fl.DeviceError, match=r"^cuda:0 cannot serve: the process was forked after CUDA was first"):
            fl.softmax(self.X, device="cuda")
