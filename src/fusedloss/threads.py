"""A pool of threads that runs a kernel over blocks of rows.

Handing work to ``concurrent.futures`` costs about 100 µs, more than many whole calls. Here the caller posts a job,
wakes idle workers by a lock each, and draws blocks along with them. Kernels release the GIL, so blocks run in parallel.
Any number of threads may post jobs at once; a worker that has finished one helps with the next that has blocks left.
Whoever draws takes a share of what is left, since each comes back to Python, where one may have to wait for another.
A caller leaves only when no worker runs a block of its job any more, since the blocks write to the caller's arrays.

Linux may wake a worker on the very processor its caller keeps busy, and leave it waiting there while another one idles.
So a worker is kept off the processor of the caller that wakes it.
"""

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable

from .options import positive_integer

Run = Callable[[int, int], int]
MOST_BLOCKS = 64
"""That are drawn at once: an interrupt waits until they are done."""


class _Job:
    """One call of ``run_blocks``: blocks to draw, and what came of them."""

    __slots__ = (
        "_block", "_helpers", "_left", "_lock", "_most", "_next", "_run", "_share", "_stop", "_waiting", "error",
        "status",
    )  # fmt: skip

    def __init__(self, run: Run, stop: int, block: int, most: int, threads: int) -> None:
        self.status = -1
        self.error: BaseException | None = None
        self._run, self._next, self._stop, self._block = run, 0, stop, block
        self._helpers, self._waiting = 0, False
        self._most, self._share = most, 2 * threads * block
        self._lock, self._left = threading.Lock(), threading.Lock()
        self._left.acquire()

    def work(self) -> None:
        """Run blocks until none is left to draw. They are drawn in order, so the least offence is among those drawn."""
        while True:
            with self._lock:
                lo = self._next
                if lo >= self._stop:
                    return
                blocks = min(max((self._stop - lo) // self._share, 1), self._most)
                self._next = hi = min(lo + blocks * self._block, self._stop)
            status = self._run(lo, hi)
            if status >= 0:
                with self._lock:
                    self._next = self._stop
                    self.status = status if self.status < 0 else min(self.status, status)

    def help(self) -> None:
        """Take part as a worker, if there is anything left to do."""
        with self._lock:
            if self._next >= self._stop:
                return
            self._helpers += 1
        error = None
        try:
            self.work()
        except BaseException as raised:  # it belongs to the caller, who raises it
            error = raised
        with self._lock:
            if error is not None:
                self.error, self._next = error, self._stop
            self._helpers -= 1
            if self._waiting and self._helpers == 0:
                self._left.release()

    def finish(self) -> None:
        """Close the job and wait for its workers, also through interrupts: they write to the caller's memory."""
        interrupt = None
        while True:
            try:
                with self._lock:
                    self._next = self._stop
                    if self._helpers == 0:
                        break
                    self._waiting = True
                self._left.acquire()
            except KeyboardInterrupt as raised:
                interrupt = raised
        if interrupt is not None:
            raise interrupt


class _Worker:
    """A thread that waits to be woken, and the processor it is kept off."""

    __slots__ = ("_off", "_thread", "wake")

    def __init__(self) -> None:
        """Stand for the calling thread."""
        self.wake = threading.Lock()
        self.wake.acquire()
        self._thread, self._off = threading.get_native_id(), -1

    def keep_off(self, processor: int) -> None:
        """Let the thread run anywhere its caller may, but there; where processors have no numbers, -1, do nothing."""
        if processor in (self._off, -1):
            return
        if others := os.sched_getaffinity(0) - {processor}:
            with contextlib.suppress(OSError):  # where it may not be said, the system decides
                os.sched_setaffinity(self._thread, others)
        self._off = processor


class _Pool:
    """Up to ``threads - 1`` daemon workers, started when first needed."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._lock = threading.Lock()
        self._jobs: list[_Job] = []
        self._idle: list[_Worker] = []
        self._workers = 0
        self._retired = False
        self._caller_at = -1

    def post(self, job: _Job, helpers: int) -> None:
        """Offer a job to the workers, waking or starting ``helpers`` of them at most."""
        self._caller_at = _processor()
        with self._lock:
            self._jobs.append(job)
            woken = self._idle[-helpers:]
            del self._idle[-helpers:]
            started = min(helpers - len(woken), self.threads - 1 - self._workers)
            self._workers += started
        for worker in woken:
            worker.keep_off(self._caller_at)
            worker.wake.release()
        for _ in range(started):
            self._start()

    def withdraw(self, job: _Job) -> None:
        """Take a job back, if no worker has done so already."""
        with self._lock:
            if job in self._jobs:
                self._jobs.remove(job)

    def retire(self) -> None:
        """Send the workers home. Callers that still use the pool finish by themselves."""
        with self._lock:
            self._retired = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.wake.release()

    def _start(self) -> None:
        try:
            threading.Thread(target=self._serve, name="fusedloss", daemon=True).start()
        except RuntimeError:  # no thread to be had, as at interpreter shutdown: the caller works alone
            with self._lock:
                self._workers -= 1

    def _serve(self) -> None:
        worker = _Worker()
        worker.keep_off(self._caller_at)
        while True:
            with self._lock:
                if self._retired:
                    return
                job = self._jobs[0] if self._jobs else None
                if job is None:
                    self._idle.append(worker)
            if job is None:
                worker.wake.acquire()
            else:
                job.help()
                self.withdraw(job)
                del job  # it holds the caller's arrays


def _processor_number() -> Callable[[], int]:
    """Find the function that tells the processor it runs on; -1 where there is none, or only one processor."""
    if sys.platform == "linux" and hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1:
        number: Callable[[], int] | None = getattr(ctypes.PyDLL(None), "sched_getcpu", None)
        if number is not None:
            return number
    return lambda: -1


_processor = _processor_number()
_pool: _Pool | None = None
_guard = threading.Lock()


def run_blocks(run: Run, n: int, block: int, most: int = MOST_BLOCKS, threads: int = sys.maxsize) -> int:
    """Call ``run(lo, hi)`` for the blocks of ``range(n)``, on `threads` threads if there are as many, and blocks.

    A range holds whole blocks, `most` of them, but for the last of all. Returns the least status that is not negative,
    or -1. A single block runs in the caller's thread.
    """
    if n <= block:
        return run(0, n) if n else -1
    pool = _pool or _replace(None)
    helpers = min(pool.threads, threads, -(-n // block)) - 1
    job = _Job(run, n, block, most, helpers + 1)
    try:
        if helpers:
            pool.post(job, helpers)
        job.work()
    finally:
        job.finish()
        if helpers:
            pool.withdraw(job)
    if job.error is not None:
        raise job.error
    return job.status


def get_num_threads() -> int:
    """Return the number of threads a call may use, the caller's own included.

    The default is ``$FUSEDLOSS_NUM_THREADS``, or the number of CPUs this process may use.
    """
    return (_pool or _replace(None)).threads


def set_num_threads(n: int) -> None:
    """Set the number of threads a call may use, the caller's own included. Results do not depend on it.

    Parameters
    ----------
    n : int
        At least 1, which keeps every call in its caller's thread.

    Raises
    ------
    OptionError
        If `n` is not a positive integer.
    """
    _replace(positive_integer("n", n))


def _replace(threads: int | None) -> _Pool:
    """Put a new pool in place; None keeps one that another thread has put there meanwhile."""
    global _pool
    with _guard:
        old = _pool
        if old is not None and threads in (None, old.threads):
            return old
        new = _pool = _Pool(_default_threads() if threads is None else threads)
    if old is not None:
        old.retire()
    return new


def _default_threads() -> int:
    setting = os.environ.get("FUSEDLOSS_NUM_THREADS")
    if setting:
        return positive_integer("FUSEDLOSS_NUM_THREADS", int(setting) if setting.isdecimal() else setting)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _reset_after_fork() -> None:
    """Forget the pool: its threads, and whoever held its locks, stayed in the parent."""
    global _pool, _guard
    threads = _pool.threads if _pool is not None else None
    _guard = threading.Lock()
    _pool = _Pool(threads) if threads is not None else None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
