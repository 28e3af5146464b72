"""The measuring room: inputs, oracle, ceilings, turns, peers. Nothing here asserts a time."""

import sys
from functools import cache
from typing import Any

import numpy as np
import pytest
import scipy.special

import fusedloss as fl
from fusedloss.bench import peers, suite
from fusedloss.bench.cases import CASES, DTYPES, LOSSES, Task, tasks
from fusedloss.bench.ceilings import LEAST as LEAST_BYTES
from fusedloss.bench.ceilings import ceilings, copier, reader
from fusedloss.bench.inputs import Inputs
from fusedloss.bench.oracle import Truth, check, truth
from fusedloss.bench.turns import LEAST, Contender, calls_a_turn, ratio, take_turns, turn

SHAPE, DEEP = (24, 10), (3, 5, 4, 2)
HERE = [name for name in peers.available() if name != "torch.compile"]
TASKS = [
    *tasks(LOSSES, [SHAPE], ["float32"], CASES),
    *tasks(["hard"], [SHAPE], ["float64", "float16", "bfloat16"], ["loss", "gradient"]),
    *tasks(["hard", "smoothing"], [DEEP], ["float32"], ["loss", "gradient"]),
]
PAIRS = [(task, who) for task in TASKS for who in peers.contenders(task, HERE)]


@cache
def prepared(loss: str, shape: tuple[int, ...] = SHAPE, dtype: str = "float32") -> tuple[Inputs, Truth]:
    inputs = Inputs(loss, shape, dtype)
    return inputs, truth(loss, inputs)


def right_answer(task: Task) -> tuple[np.ndarray, ...]:
    """What a contender that makes no error answers, with a gradient where the oracle has one."""
    inputs, right = prepared(*task._replace(case="")[::2], task.dtype)
    if task.case == "evaluate":
        return tuple(map(np.float64, (right.loss, right.accuracy, right.entropy)))
    gradient = np.full(inputs.x.shape, np.nan)
    gradient[right.sample] = right.gradient
    return (np.float64(right.loss), gradient.astype(inputs.x.dtype))[: 2 if task.differentiates else 1]


class TestCases:
    def test_all_with_all_but_only_plain_losses_evaluated(self):
        made = tasks(LOSSES, [SHAPE, DEEP], DTYPES, CASES)
        assert len(made) == len(set(made)) == 2 * len(DTYPES) * (4 * len(LOSSES) + 2)
        assert {task.loss for task in made if task.case == "evaluate"} == {"hard", "binary"}
        assert str(made[0]) == "loss of hard, 24x10 float32"

    @pytest.mark.parametrize("loss", LOSSES)
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_inputs(self, loss, dtype):
        a, b = Inputs(loss, DEEP, dtype), Inputs(loss, DEEP, dtype)
        assert a.x.dtype.name == a.out.dtype.name == dtype
        np.testing.assert_array_equal(a.x, b.x)
        np.testing.assert_array_equal(a.y, b.y)
        kind = LOSSES[loss].target
        assert a.y.shape == (DEEP if kind != "hard" else (3, 4, 2))
        if kind == "soft":
            np.testing.assert_allclose(a.y.astype(np.float64).sum(1), 1, rtol=2e-2 if a.y.itemsize == 2 else 1e-6)
        assert a.out.ctypes.data % 64 == 0
        moved = {case: a.moved(Task(loss, case, DEEP, dtype)) for case in CASES}
        assert moved["loss"] == moved["evaluate"] == a.x.nbytes + a.y.nbytes
        assert moved["gradient"] == moved["buffer"] == moved["in-place"] == moved["loss"] + a.x.nbytes


class TestOracle:
    @pytest.mark.parametrize("shape", [SHAPE, DEEP])
    def test_hard(self, shape):
        inputs, right = prepared("hard", shape)
        log_p = scipy.special.log_softmax(inputs.x.astype(np.float64), 1)
        nll = -np.take_along_axis(log_p, inputs.y[:, None], 1)
        assert right.loss == pytest.approx(nll.mean(), rel=1e-14)
        assert right.entropy == pytest.approx(scipy.special.entr(np.exp(log_p)).sum(1).mean(), rel=1e-13)
        assert right.accuracy == pytest.approx((log_p.argmax(1) == inputs.y).mean(), rel=1e-15)
        assert 0 < right.accuracy < 1

    @pytest.mark.parametrize("loss", LOSSES)
    def test_gradients_are_differences(self, loss):
        inputs = Inputs(loss, DEEP, "float64")
        right, step = truth(loss, inputs), 1e-6
        for at in [(0, 0, 0, 0), (2, 4, 3, 1), (1, 2, 0, 1)]:
            values = []
            for sign in (1, -1):
                inputs.x[at] += sign * step
                values.append(truth(loss, inputs).loss)
                inputs.x[at] -= sign * step
            assert right.gradient[at] == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-6, abs=1e-9)

    def test_blocks_are_the_whole(self, monkeypatch):
        whole = prepared("softcap")[1]
        monkeypatch.setattr("fusedloss.bench.oracle._BLOCK", 30)
        parts = truth("softcap", prepared("softcap")[0])
        assert (parts.loss, parts.entropy) == pytest.approx((whole.loss, whole.entropy), rel=1e-14)

    @pytest.mark.parametrize("task", tasks(LOSSES, [SHAPE], ["float32"], ["loss", "gradient", "evaluate"]), ids=str)
    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_a_wrong_answer_is_an_error(self, task, place):
        answer = right_answer(task)
        check(task, prepared(task.loss)[1], answer[:2] if task.loss == "binary" else answer, "somebody")
        if place >= len(answer) or (task.loss, place) == ("binary", 2):
            return
        wrong = [np.array(each) for each in answer]
        wrong[place].flat[-1] *= 1 + 1e-4
        with pytest.raises(fl.FusedLossError, match=r"^somebody answers .* = .* to .*, 24x10 float32; expected "):
            check(task, prepared(task.loss)[1], tuple(wrong), "somebody")

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_what_is_not_finite_is_wrong(self, bad):
        for case, place in (("loss", 0), ("gradient", 1), ("evaluate", 2)):
            task = Task("hard", case, SHAPE, "float32")
            wrong = [np.array(each) for each in right_answer(task)]
            wrong[place].flat[0] = bad
            with pytest.raises(fl.FusedLossError, match=str(bad)):
                check(task, prepared("hard")[1], tuple(wrong), "somebody")


class TestPeers:
    @pytest.mark.parametrize(("task", "who"), PAIRS, ids=[f"{task}, {who}" for task, who in PAIRS])
    def test_right(self, task, who):
        suite.enter(who, task, *prepared(task.loss, task.shape, task.dtype))

    @pytest.mark.skipif("torch.compile" not in peers.available(), reason="needs a C++ compiler")
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's, of its own past
    def test_torch_compile(self):
        task = Task("hard", "loss", SHAPE, "float32")
        suite.enter("torch.compile", task, *prepared("hard"))

    def test_calls_leave_inputs_alone(self):
        for task in tasks(["hard"], [SHAPE], ["float32"], CASES):
            inputs = Inputs("hard", SHAPE, "float32")
            for who in peers.contenders(task, HERE):
                contender = suite.enter(who, task, inputs, prepared("hard")[1])
                contender.call()
            np.testing.assert_array_equal(inputs.x, prepared("hard")[0].x)

    def test_the_extra_brings_them(self):
        newer = {"jax"} if sys.version_info >= (3, 11) else set()
        assert {"torch", "numpy", "scipy", "sklearn"} | newer <= set(peers.available())

    def test_what_a_peer_serves(self):
        every = tasks(LOSSES, [SHAPE, DEEP, (9, 1)], DTYPES, CASES)
        served = {who: [task for task in every if peers.PEERS[who].serves(task)] for who in peers.PEERS}
        assert not [task for task in served["torch"] if task.case in ("buffer", "in-place")]
        assert {task.dtype for task in served["scipy"]} == {"float32", "float64"}
        assert {(task.loss, task.case, task.shape) for task in served["sklearn"]} == {("hard", "loss", SHAPE)}
        assert {len(task.shape) for task in served["tensorflow"]} == {2}
        assert not peers.PEERS["sklearn"].serves(Task("hard", "loss", (1 << 20, 128), "float32"))

    def test_what_is_missing(self, monkeypatch):
        monkeypatch.setitem(peers.PEERS, "jax", peers.PEERS["jax"]._replace(packages=("jax_of_mars", "numpy")))
        with pytest.raises(fl.OptionError, match=r"^jax needs jax_of_mars, not installed here; these can be compared:"):
            peers.chosen(["numpy", "jax"])
        monkeypatch.setenv("CXX", "c++-of-mars")
        with pytest.raises(fl.OptionError, match=r"^torch\.compile finds no C\+\+ compiler c\+\+-of-mars; these can"):
            peers.chosen(["torch.compile"])
        assert not {"jax", "torch.compile"} & set(peers.available())


class TestCeilings:
    @pytest.mark.parametrize("nbytes", [0, 252, 256, 3 << 19, (1 << 20) + 3 * 256 + 28])
    def test_reads_and_copies(self, rng, nbytes):
        x = rng.integers(-5, 6, nbytes // 4, dtype=np.int32)
        y, out = np.ones(64, np.int32), Inputs("hard", (max(nbytes // 4, 1), 1), "float32").out.view(np.int32)
        whole = nbytes // 256 * 64
        assert reader(x, y)() == x[:whole].sum() + 64
        out[:] = 9
        copier(x, out, y)()
        np.testing.assert_array_equal(out.ravel()[:whole], x[:whole])
        assert (out.ravel()[whole:] == 9).all()

    def test_threads_read_and_copy_the_same(self, rng):
        inputs, sums = Inputs("hard", (4096, 128), "float32"), []
        for number in (1, 3):
            fl.set_num_threads(number)
            sums.append(reader(inputs.x)())
            inputs.out.fill(0)
            copier(inputs.x, inputs.out)()
            np.testing.assert_array_equal(inputs.out, inputs.x)
        assert sums[0] == sums[1] != 0

    def test_refusals(self):
        inputs = Inputs("hard", SHAPE, "float32")
        with pytest.raises(ValueError, match="expected a contiguous one"):
            reader(inputs.x[:, ::2])
        with pytest.raises(ValueError, match="expected a multiple of 64"):
            copier(inputs.x, inputs.out[:, 1:])

    def test_small_arrays_have_none(self):
        assert ceilings(Inputs("hard", SHAPE, "float32")) == {}
        assert set(ceilings(Inputs("hard", (LEAST_BYTES // 4, 1), "float32"))) == {"read", "copy"}


class TestTurns:
    def test_every_contender_takes_every_round(self):
        log: list[str] = []
        ticks: list[int] = []
        contenders = {name: Contender(lambda name=name: log.append(name)) for name in "ab"}
        seconds = take_turns(contenders, 7, tick=lambda: ticks.append(1))
        assert {name: len(each) for name, each in seconds.items()} == {"a": 7, "b": 7}
        assert all(second > 0 for each in seconds.values() for second in each)
        assert len(ticks) == 7
        assert set(log) == {"a", "b"}

    @pytest.mark.parametrize("calls", [1, 3])
    def test_a_turn_begins_with_a_call_and_the_setup(self, calls):
        log: list[str] = []
        turn(Contender(lambda: log.append("call"), lambda: log.append("setup")), calls)
        assert log == ["call", "setup", *["call"] * calls]

    def test_what_is_short_is_called_often(self, monkeypatch):
        for seconds, calls in ((1e-5, 200), (0.2, 1)):
            monkeypatch.setattr("fusedloss.bench.turns.turn", lambda _, seconds=seconds: seconds)
            assert calls_a_turn(Contender(lambda: None)) == (calls, seconds)

    def test_a_slow_contender_leaves(self):
        seconds = take_turns({"a": Contender(lambda: None)}, 20, budget=0)
        assert len(seconds["a"]) == LEAST

    def test_the_order_changes(self):
        log: list[str] = []
        take_turns({name: Contender(lambda name=name: log.append(name)) for name in "ab"}, 8)
        turns = [name for name, before in zip(log, ["", *log], strict=False) if name != before]
        assert "".join(turns) not in ("ab" * (len(turns) // 2), "ba" * (len(turns) // 2))

    def test_ratio(self):
        assert ratio({"a": [2.0, 9.0, 8.0], "b": [1.0, 3.0]}, "a", "b") == 2.5


class TestSuite:
    def test_what_a_result_says(self):
        task = Task("hard", "buffer", (8, 4), "float32")
        inputs = Inputs("hard", (8, 4), "float32")
        seconds = {"read": [1.0, 3.0], "copy": [2.0, 4.0], peers.OURS: [4.0, 8.0], "torch": [8.0, 8.0, 2.0]}
        told = suite.result(task, inputs, seconds)
        assert told["bytes_moved"] == 8 * 4 * 8 + 8 * 8
        assert told["ceilings"] == pytest.approx({"read": (128 + 64) / 2e9, "copy": (256 + 64) / 3e9})
        ours, torch = told["contenders"][peers.OURS], told["contenders"]["torch"]
        assert ours == {
            "seconds": 6.0, "quartiles": [5.0, 7.0], "rounds": 2, "gigabytes_per_second": pytest.approx(320 / 6e9),
            "share_of_ceiling": 0.5, "times_ours": 1.0,
        }  # fmt: skip
        assert (torch["seconds"], torch["rounds"]) == (8.0, 3)
        assert (torch["times_ours"], torch["share_of_ceiling"]) == (1.5, 0.375)

    def test_one_round_and_no_ceiling(self):
        told = suite.result(Task("hard", "loss", (8, 4), "float32"), prepared("hard")[0], {peers.OURS: [4.0]})
        timing: Any = told["contenders"][peers.OURS]
        assert (told["ceilings"], timing["share_of_ceiling"], timing["quartiles"]) == ({}, None, [4.0, 4.0])

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_what_cannot_fit(self, dtype):
        with pytest.raises(fl.OptionError, match=r"1000000x1000000 \w+ takes \d+\S* GB with its gradient, but this"):
            next(suite.run(tasks(["hard"], [(10**6, 10**6)], [dtype], CASES), [], 1))

    def test_memory_that_runs_out(self, monkeypatch):
        def fail(*_: object) -> None:
            raise MemoryError

        monkeypatch.setattr(suite, "truth", fail)
        with pytest.raises(fl.OptionError, match="not enough memory for 24x10 float32; --shapes takes smaller ones"):
            next(suite.run(tasks(["hard"], [SHAPE], ["float32"], CASES), [], 1))
