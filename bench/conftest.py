"""What the benchmarks share: which of the suite's tasks are run, and where their results are kept."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from fusedloss.bench.machine import about
from fusedloss.bench.peers import available, chosen
from fusedloss.bench.suite import Result

from .record import save
from .selection import SUITE, compared, small

RESULTS, HERE = pytest.StashKey[list[Result]](), pytest.StashKey[dict[str, Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what narrows a run, and where it is kept."""
    group = parser.getgroup("fusedloss")
    group.addoption("--quick", action="store_true", help="only the tasks that take no time")
    group.addoption("--against", metavar="A,B", help="the peers, such as torch,jax (default: those installed)")
    group.addoption("--rounds", type=int, default=5, help="turns of each; slow ones take less (default: 5)")
    group.addoption("--results", type=Path, metavar="F", help="keep results in F, as `fusedloss bench --json` does")


def pytest_configure(config: pytest.Config) -> None:
    """Begin with no result, and see where this is before anything runs."""
    config.stash[RESULTS], config.stash[HERE] = [], about()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One benchmark a task and contender."""
    if {"task", "who"} <= set(metafunc.fixturenames):
        option = metafunc.config.getoption
        peers = available() if option("against") is None else chosen(option("against").split(","))
        wanted = [task for task in SUITE if small(task) or not option("quick")]
        pairs = [(task, who) for task in wanted for who in compared(task, peers)]
        metafunc.parametrize(("task", "who"), pairs, ids=[f"{task}, {who}" for task, who in pairs])


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How many turns each takes."""
    return request.config.getoption("rounds")


@pytest.fixture
def results(request: pytest.FixtureRequest) -> list[Result]:
    """Where a benchmark leaves what it found."""
    return request.config.stash[RESULTS]


def merged(results: Iterable[Result]) -> list[Result]:
    """A result a task: the library's own, and of those of its peers what is theirs."""
    tasks: dict[str, Any] = {}
    for result in results:
        key = str([result[name] for name in ("loss", "case", "shape", "dtype")])
        task = tasks.setdefault(key, {**result, "contenders": {}})
        task["contenders"] |= {who: it for who, it in result["contenders"].items() if who not in task["contenders"]}
    return list(tasks.values())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Keep what was found, also where some contenders were wrong, and are missing from it."""
    path, results = session.config.getoption("results"), session.config.stash[RESULTS]
    if path and results and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        told = {"rounds": session.config.getoption("rounds"), "results": merged(results)}
        save(path, session.config.stash[HERE] | told)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Add the machine and the versions to what pytest-benchmark keeps."""
    machine_info["fusedloss"] = config.stash[HERE]
