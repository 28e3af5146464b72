"""What every test can ask for: a backend, a random generator; and what a whole run must keep to."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import ModuleType

os.environ.setdefault("FUSEDLOSS_CUDA_SIMULATOR", "1")  # 0: on a card

import numpy as np
import pytest

import fusedloss as fl
from fusedloss import backends, layout, repeats

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker of pytest has a core: PyTorch's threads would spin for another
gc.set_threshold(50_000)  # compiling makes so many objects that a fifth of its time goes into looking for cycles

IN_CI = os.environ.get("CI") == "true"

with suppress(ImportError):  # a machine with a card may have little more than PyTorch
    import hypothesis

    hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
    hypothesis.settings.register_profile("dev", deadline=None)
    hypothesis.settings.load_profile("ci" if IN_CI else "dev")


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """A ``device=`` of the library."""
    return request.param


@pytest.fixture(params=["reference", "cpu", "cuda"])
def kernels(request: pytest.FixtureRequest) -> ModuleType:
    """The kernels of a backend."""
    from kernel_cases import kernels_of  # it needs more than a machine with a card may have

    return kernels_of(request.param)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for a ``backend``, a ``device=`` of the library, on each; or on those its module names."""
    named = {mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")}
    if "backend" in metafunc.fixturenames and "backend" not in named:
        metafunc.parametrize("backend", getattr(metafunc.module, "BACKENDS", ["numpy", "cpu", "cuda"]), indirect=True)


@pytest.fixture(autouse=True)
def _threads_as_they_were() -> Iterator[None]:
    """A test may set the number of threads, ours or PyTorch's, and need not put it back."""
    before = fl.get_num_threads()
    yield
    fl.set_num_threads(before)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture
def every_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let calls wake threads for however little there is to do."""

    def forget() -> None:
        layout.layout.cache_clear()
        repeats._decided.clear()

    monkeypatch.setattr(layout, "_THREAD_BYTES", 1)
    forget()
    yield
    forget()


@pytest.fixture
def small_blocks(every_thread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let blocks be of a few rows, so that small arrays are cut as large ones are."""
    monkeypatch.setattr(layout, "_BLOCK_BYTES", 256)


@pytest.fixture
def on_numpy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run what has no ``device=`` on NumPy: for tests that do not depend on kernels, and need none compiled."""
    monkeypatch.setenv("FUSEDLOSS_DEVICE", "numpy")
    backends._resolve.cache_clear()
    yield
    backends._resolve.cache_clear()


@pytest.fixture
def no_card(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Let there be no CUDA, for the reason that is given."""
    reason = "there is no CUDA device"

    def forget() -> None:
        for cached in (backends._resolve, backends._load):
            cached.cache_clear()

    for module in ("card", "adopting"):
        monkeypatch.setattr(f"fusedloss.cuda.{module}.why_not", lambda: reason)
    forget()
    yield reason
    forget()


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers in every run."""
    return np.random.default_rng(0)


def _skipped(config: pytest.Config) -> list[str]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return sorted({report.nodeid for report in reporter.stats.get("skipped", [])}) if reporter else []


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI everything must run: a skipped test fails the run."""
    if IN_CI and session.exitstatus == pytest.ExitCode.OK and _skipped(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that must not have been skipped."""
    if IN_CI and (skipped := _skipped(terminalreporter.config)):
        terminalreporter.write_line(f"CI runs every test, but skipped: {', '.join(skipped)}", red=True)
