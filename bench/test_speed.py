"""The suite as benchmarks: ``pytest bench``, ``pytest bench --quick``, ``pytest bench -k "32768x1000 and torch"``.

Every contender is compared with float64 before it is timed. Before each of its rounds the ceilings and the library take
a turn, so that ratios are of the same moments.
"""

from typing import Any

import pytest

from fusedloss.bench.cases import Task
from fusedloss.bench.ceilings import ceilings
from fusedloss.bench.inputs import Inputs
from fusedloss.bench.oracle import Truth, truth
from fusedloss.bench.peers import OURS
from fusedloss.bench.suite import BUDGET, Result, enter, result
from fusedloss.bench.turns import LEAST, Contender, Seconds, calls_a_turn, prepare, take_turns, turn

pytestmark = pytest.mark.filterwarnings("ignore")  # the peers' own

Arrays = tuple[Inputs, Truth, dict[str, Contender]]
_held: dict[Any, Arrays] = {}


def arrays(task: Task) -> Arrays:
    """The arrays of a task, what is true of them and their ceilings, held until others are asked for."""
    key = task._replace(case="")
    if key not in _held:
        _held.clear()
        inputs = Inputs(task.loss, task.shape, task.dtype)
        _held[key] = inputs, truth(task.loss, inputs), ceilings(inputs)
    return _held[key]


def test_speed(benchmark: Any, task: Task, who: str, rounds: int, results: list[Result]):
    inputs, right, others = arrays(task)
    contender = enter(who, task, inputs, right)
    if who != OURS:
        others = {**others, OURS: enter(OURS, task, inputs, right)}
    calls, estimate = calls_a_turn(contender)
    rounds = min(rounds, max(LEAST, int(BUDGET / estimate)))
    benchmark.group = str(task)
    seconds = timed(benchmark, contender, calls, others, rounds)
    if benchmark.stats is not None:  # it is None with --benchmark-disable
        found = result(task, inputs, {**seconds, who: benchmark.stats.stats.data})
        results.append(found)
        benchmark.extra_info.update(
            found["contenders"][who], bytes_moved=found["bytes_moved"], ceilings=found["ceilings"]
        )


def timed(benchmark: Any, contender: Contender, calls: int, others: dict[str, Contender], rounds: int) -> Seconds:
    """Have pytest-benchmark time a contender; give the seconds of the others, who take their turns in between."""
    if calls > 1:  # for this it has no setup
        benchmark.pedantic(contender.call, rounds=rounds, iterations=calls, warmup_rounds=1)
        return take_turns(others, rounds)
    of_others = {name: calls_a_turn(other)[0] for name, other in others.items()}
    seconds: Seconds = {name: [] for name in others}

    def setup() -> None:
        for name, other in others.items():
            seconds[name].append(turn(other, of_others[name]))
        prepare(contender)

    benchmark.pedantic(contender.call, setup=setup, rounds=rounds)
    return seconds


@pytest.mark.parametrize("kind", ["read", "copy"])
def test_ceiling(benchmark: Any, kind: str):
    inputs, _, bounds = arrays(Task("hard", "loss", (32768, 1000), "float32"))
    benchmark.group = "ceilings of 32768x1000 float32"
    benchmark.pedantic(bounds[kind].call, rounds=15, warmup_rounds=1)
    if benchmark.stats is not None:
        moved = inputs.x.nbytes * (2 if kind == "copy" else 1) + inputs.y.nbytes
        benchmark.extra_info.update(bytes_moved=moved, gigabytes_per_second=moved / benchmark.stats.stats.median / 1e9)
