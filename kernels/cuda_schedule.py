"""The threads of a simulated CUDA launch: greenlets that run one after another, each until it must wait for others.

Whoever comes last to a barrier or a shuffle goes on, then those who waited, latest first: so the order turns round each
time. Blocks start first thread first and last thread first by turns. A kernel that lacks a barrier then fails, and
fails again in the next run.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from greenlet import getcurrent, greenlet

__all__ = ["block", "blocks", "shuffle_xor", "sync", "sync_any", "thread", "threads", "vote_any"]

WARP = 32

_block = _blocks = _thread = _threads = 0
_phase = 0  # how many blocks began and barriers were passed, ever
_kernel: Any = None
_args: Any = ()
_failure: Exception | None = None
_hub: Any = None  # the greenlet that launches
_running: list[greenlet] = []  # by thread number
_ready: list[int] = []  # a stack: who can go on
_lock = threading.RLock()
_kept = threading.local()


class Fault(Exception):  # noqa: N818
    """What would hang a card, stop it, or give a result that depends on luck."""


class Meeting:
    """Where threads wait for each other: a block's barrier, or a warp's shuffles."""

    __slots__ = ("brought", "code", "members", "name", "outcome", "place", "size")

    def __init__(self, name: str, members: range) -> None:
        self.name, self.members, self.size = name, members, len(members)
        self.brought: dict[int, Any] = {}  # in the order of arrival
        self.outcome: dict[int, Any] = {}
        self.code: Any = None
        self.place = 0

    def missing(self) -> str:
        """Who has not come, and where the others wait."""
        absent = [str(k) for k in self.members if k not in self.brought]
        shown = ", ".join(absent[:8]) + (", …" if len(absent) > 8 else "")
        where = f"the {self.name} at {_line(self.code, self.place)}"
        return f"thread {shown} of block {_block}, which has {_threads}, never came to {where}"


_barrier = Meeting("barrier", range(0))
_warps: list[Meeting] = []


def _line(code: Any, place: int) -> str:
    line = next((line for begin, end, line in code.co_lines() if begin <= place < end), None)
    return f"{code.co_filename}:{line} ({code.co_name})"


def thread() -> int:
    return _thread


def threads() -> int:
    return _threads


def block() -> int:
    return _block


def blocks() -> int:
    return _blocks


def _meet(meeting: Meeting, value: Any) -> dict[int, Any]:
    """Wait until all members have come; what each of them brought."""
    global _thread, _phase
    me, frame, brought = _thread, sys._getframe(2), meeting.brought
    if not brought:
        meeting.code, meeting.place = frame.f_code, frame.f_lasti
    elif meeting.place != frame.f_lasti or meeting.code is not frame.f_code:
        here, there = _line(frame.f_code, frame.f_lasti), _line(meeting.code, meeting.place)
        raise Fault(f"came to the {meeting.name} at {here}, where others came to {there}")
    brought[me] = value
    if len(brought) == meeting.size:
        meeting.outcome, meeting.brought = brought, {}
        _ready.extend(brought)
        _ready.pop()  # who came last goes on at once
        _phase += meeting is _barrier
        return brought
    (_running[_ready.pop()] if _ready else _hub).switch()
    _thread = me
    return meeting.outcome


def sync() -> None:
    """Wait for all threads of the block, and see what they wrote."""
    _meet(_barrier, None)


def sync_any(flag: Any) -> bool:
    """Wait as `sync` does; whether any thread of the block brought a flag."""
    return any(_meet(_barrier, flag).values())


def vote_any(flag: Any) -> bool:
    """Whether any lane of the warp brought a flag; all 32 lanes call it."""
    return any(_meet(_warps[_thread >> 5], flag).values())


def shuffle_xor(value: Any, mask: int) -> Any:
    """The value of the lane whose number differs in the bits of `mask`; all 32 lanes call it."""
    return _meet(_warps[_thread >> 5], value)[_thread ^ mask]


# ---- launches --------------------------------------------------------------------------------------------------------


def _work(number: int) -> None:
    """Be a thread of one block after another: starting a greenlet takes 20 times as long as switching to one."""
    global _thread, _failure
    _hub.switch()
    while True:
        _thread = number
        try:
            _kernel(*_args)
        except Exception as error:
            _failure = error
        (_running[_ready.pop()] if _ready and not _failure else _hub).switch()


def _workers(count: int) -> list[greenlet]:
    """So many greenlets of this thread of Python, started and waiting."""
    if not hasattr(_kept, "workers"):
        _kept.workers = []
        _kept.context = contextvars.Context()  # NumPy keeps there which floating-point errors it reports
        _kept.context.run(np.seterr, all="ignore")
    for number in range(len(_kept.workers), count):
        worker = greenlet(_work)
        worker.gr_context = _kept.context
        worker.switch(number)
        _kept.workers.append(worker)
    return list(_kept.workers[:count])


def _run_block() -> None:
    global _barrier, _phase
    _phase += 1
    everyone = range(_threads)
    _barrier = Meeting("barrier", everyone)
    _warps[:] = [Meeting("shuffle", range(k, k + WARP)) for k in range(0, _threads, WARP)]
    _ready[:] = everyone if _block % 2 else reversed(everyone)
    _running[_ready.pop()].switch()
    if _failure:
        told = str(_failure) or type(_failure).__name__
        raise Fault(f"thread {_thread} of block {_block}: {told}") from _failure
    for meeting in (*_warps, _barrier):
        if meeting.brought:
            raise Fault(meeting.missing())


def run(kernel: Callable[..., None], args: Any, grid: int, count: int, begin: Callable[[], None]) -> None:
    """Run `count` threads in each of `grid` blocks, one after another, each after a call of `begin`."""
    global _kernel, _args, _failure, _block, _blocks, _threads, _hub
    with _lock, np.errstate(all="ignore"):
        _kernel, _args, _hub, _blocks, _threads = kernel, args, getcurrent(), grid, count
        try:
            _running[:] = _workers(count)
            for _block in range(grid):
                begin()
                _run_block()
        except BaseException:
            _kept.workers = []  # some wait in the midst of a kernel
            raise
        finally:
            _kernel, _args, _failure, _hub = None, (), None, None
            _running.clear()
            _ready.clear()
