"""The pool: every block runs once, from any thread, after a fork, and nobody leaves while a block runs."""

import os
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest

import fusedloss as fl
from fusedloss import threads
from fusedloss.threads import run_blocks

BACKENDS = ["numpy", "cpu"]  # of arrays in host memory


@pytest.fixture(autouse=True)
def four_threads():
    fl.set_num_threads(4)


def recorder(n):
    counts = np.zeros(n, int)

    def run(lo, hi):
        counts[lo:hi] += 1
        return -1

    return counts, run


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize(("n", "block"), [(0, 4), (1, 4), (4, 4), (5, 4), (1000, 7)])
def test_every_block_runs_once(count, n, block):
    fl.set_num_threads(count)
    counts, run = recorder(n)
    assert run_blocks(run, n, block) == -1
    assert (counts == 1).all()


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize(("n", "block"), [(23, 5), (1000, 7), (100_000, 1)])
def test_ranges_are_whole_blocks_and_hold_everything_once(count, n, block):
    fl.set_num_threads(count)
    seen = []
    run_blocks(lambda lo, hi: seen.append((lo, hi)) or -1, n, block)
    seen.sort()
    assert all(lo % block == 0 and lo < hi <= lo + threads.MOST_BLOCKS * block for lo, hi in seen)
    assert [lo for lo, _ in seen] == [0, *(hi for _, hi in seen[:-1])]
    assert seen[-1][1] == n


def test_the_last_ranges_are_single_blocks():
    fl.set_num_threads(4)
    sizes = []
    run_blocks(lambda lo, hi: sizes.append((lo, hi - lo)) or -1, 256, 1)
    assert [size for _, size in sorted(sizes)][-8:] == [1] * 8


def test_a_single_block_stays_in_the_callers_thread():
    where = []
    run_blocks(lambda lo, hi: where.append(threading.get_ident()) or -1, 4, 4)
    assert where == [threading.get_ident()]


def test_no_more_threads_than_are_worth_it():
    fl.set_num_threads(4)
    where, barrier = set(), threading.Barrier(2, timeout=10)

    def run(lo, hi):
        where.add(threading.get_ident())
        if lo < 2:
            barrier.wait()  # both are here
        return -1

    run_blocks(run, 64, 1, 1, 2)
    assert len(where) == 2


def test_workers_take_part():
    barrier = threading.Barrier(4, timeout=10)  # passes only if four threads are in it at once

    def run(lo, hi):
        barrier.wait()
        return -1

    assert run_blocks(run, 4, 1) == -1


@pytest.mark.parametrize("count", [1, 4])
def test_the_least_offence_wins(count):
    fl.set_num_threads(count)

    def run(lo, hi):
        time.sleep(0.001 * (10 - lo) if lo < 10 else 0)
        return min({3, 5, 40} & set(range(lo, hi)), default=-1)

    for _ in range(10):
        assert run_blocks(run, 64, 1) == 3


@pytest.mark.skipif(threads._processor() < 0, reason="processors have no numbers, or there is one")
def test_a_worker_is_kept_off_the_callers_processor():
    fl.set_num_threads(2)
    barrier, allowed = threading.Barrier(2, timeout=10), {}

    def run(lo, hi):
        allowed[threading.get_native_id()] = os.sched_getaffinity(0)
        barrier.wait()
        return -1

    for _ in range(3):
        assert run_blocks(run, 2, 1) == -1
    everywhere = allowed.pop(threading.get_native_id())
    (elsewhere,) = allowed.values()
    assert everywhere == os.sched_getaffinity(0)
    assert len(everywhere - elsewhere) == 1
    assert elsewhere < everywhere


def test_an_error_of_a_worker_reaches_the_caller():
    caller = threading.get_ident()
    both = threading.Barrier(2, timeout=10)

    def run(lo, hi):
        both.wait()
        if threading.get_ident() != caller:
            raise ZeroDivisionError("in a worker")
        return -1

    with pytest.raises(ZeroDivisionError, match="in a worker"):
        run_blocks(run, 2, 1)
    counts, run = recorder(100)
    run_blocks(run, 100, 1)
    assert (counts == 1).all()


def test_an_interrupt_waits_for_the_blocks_that_run():
    caller = threading.get_ident()
    started, finished = threading.Event(), []

    def run(lo, hi):
        if threading.get_ident() == caller:
            started.wait(10)
            raise KeyboardInterrupt
        started.set()
        time.sleep(0.1)
        finished.append(lo)
        return -1

    with pytest.raises(KeyboardInterrupt):
        run_blocks(run, 50, 1)
    done = list(finished)
    assert done
    time.sleep(0.15)
    assert finished == done


def test_thirty_two_threads_at_once():
    failures = []

    def work(seed):
        for n in np.random.default_rng(seed).integers(1, 300, 30):
            counts, run = recorder(n)
            status = run_blocks(run, int(n), 3)
            if status != -1 or not (counts == 1).all():
                failures.append((seed, n))

    callers = [threading.Thread(target=work, args=(seed,)) for seed in range(32)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    assert not failures
    assert sum(each.name == "fusedloss" for each in threading.enumerate()) <= 3 + 32  # some may still be leaving


def test_the_number_may_change_under_way():
    stop = threading.Event()

    def change():
        while not stop.is_set():
            for n in (1, 2, 5):
                fl.set_num_threads(n)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        for _ in range(200):
            counts, run = recorder(64)
            run_blocks(run, 64, 2)
            assert (counts == 1).all()
    finally:
        stop.set()
        changer.join()


def test_jobs_are_forgotten():
    for _ in range(20):
        run_blocks(recorder(64)[1], 64, 2)
    assert not threads._pool._jobs


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fork_after_use(backend):
    x, target = np.ones((4000, 200), np.float32), np.zeros(4000, int)
    expected = fl.cross_entropy(x, target, device=backend)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, about forking with threads
        warnings.simplefilter("ignore", RuntimeWarning)  # of JAX, the same, where another test has imported it
        child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if fl.cross_entropy(x, target, device=backend) == expected and fl.get_num_threads() == 4 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("value", [0, -1, 1.5, "two", None])
def test_a_wrong_number_of_threads(value):
    with pytest.raises(fl.OptionError, match="positive integer"):
        fl.set_num_threads(value)


@pytest.mark.parametrize(
    ("setting", "expected"), [("3", "3"), ("", None), ("none", "OptionError"), ("0", "OptionError")]
)
def test_the_environment_sets_the_default(setting, expected):
    program = (
        "import fusedloss as fl\ntry: print(fl.get_num_threads())\nexcept fl.OptionError as e: print(type(e).__name__)"
    )
    environment = os.environ | {"FUSEDLOSS_NUM_THREADS": setting}
    shown = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == (expected or str(len(os.sched_getaffinity(0))))


def test_the_interpreter_exits_with_workers_about():
    program = (
        "import fusedloss.threads as t\nt.set_num_threads(4)\nt.run_blocks(lambda lo, hi: -1, 64, 1)\nprint('done')"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert (shown.stdout, shown.stderr) == ("done\n", "")
