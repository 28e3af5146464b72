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
_hub: Any = None
_running: list[greenlet] = []
_ready: list[int] = []  # a stack
_lock = threading.RLock()


class Fault(Exception):  # noqa: N818
    """What would hang a card, stop it, or give a result that depends on luck."""


class Meeting:
    """Where threads wait for each other: a block's barrier, or a warp's shuffles."""

    __slots__ = ("arrived", "brought", "members", "name", "outcome", "site", "size")

    def __init__(self, name: str, members: range) -> None:
        self.name, self.members, self.size = name, members, len(members)
        self.arrived: list[int] = []
        self.brought: dict[int, Any] = {}
        self.outcome: dict[int, Any] = {}
        self.site: Any = None

    def missing(self) -> str:
        """Who has not come, and where the others wait."""
        absent = [str(k) for k in self.members if k not in self.brought]
        shown = ", ".join(absent[:8]) + (", …" if len(absent) > 8 else "")
        return f"thread {shown} of block {_block} never came to the {self.name} at {_place(self.site)}"


_barrier = Meeting("barrier", range(0))
_warps: list[Meeting] = []


def _place(site: Any) -> str:
    code, line = site
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
    global _thread
    me, frame, arrived = _thread, sys._getframe(2), meeting.arrived
    site = (frame.f_code, frame.f_lineno)
    if not arrived:
        meeting.site = site
    elif meeting.site != site:
        raise Fault(f"came to the {meeting.name} at {_place(site)}, where others came to {_place(meeting.site)}")
    meeting.brought[me] = value
    arrived.append(me)
    if len(arrived) == meeting.size:
        meeting.outcome, meeting.brought, meeting.arrived = meeting.brought, {}, []
        arrived.pop()
        _ready.extend(arrived)
        return meeting.outcome
    (_running[_ready.pop()] if _ready else _hub).switch()
    _thread = me
    return meeting.outcome


def _warp() -> Meeting:
    if _threads % WARP and _thread >= _threads - _threads % WARP:
        raise Fault(f"a shuffle or vote in a warp of {_threads % WARP} threads")
    return _warps[_thread // WARP]


def sync() -> None:
    """Wait for all threads of the block, and see what they wrote."""
    _meet(_barrier, None)


def sync_any(flag: Any) -> bool:
    """Wait as `sync` does; whether any thread of the block brought a flag."""
    return any(_meet(_barrier, flag).values())


def vote_any(flag: Any) -> bool:
    """Whether any lane of the warp brought a flag; all 32 lanes call it."""
    return any(_meet(_warp(), flag).values())


def shuffle_xor(value: Any, mask: int) -> Any:
    """The value of the lane whose number differs in the bits of `mask`; all 32 lanes call it."""
    return _meet(_warp(), value)[_thread ^ mask]


def _thread_of(function: Callable[..., None], args: Any, number: int, context: Any) -> greenlet:
    def body() -> None:
        global _thread
        _thread = number
        function(*args)

    born = greenlet(body, _hub)
    born.gr_context = context  # NumPy keeps there which floating-point errors it reports
    return born


def _run_block(function: Callable[..., None], args: Any, context: Any) -> None:
    global _barrier
    everyone = range(_threads)
    _barrier = Meeting("barrier", everyone)
    _warps[:] = [Meeting("shuffle", everyone[k : k + WARP]) for k in range(0, _threads, WARP)]
    _running[:] = [_thread_of(function, args, number, context) for number in everyone]
    _ready[:] = everyone if _block % 2 else reversed(everyone)
    try:
        while _ready:
            _running[_ready.pop()].switch()
    except Exception as error:
        raise Fault(f"thread {_thread} of block {_block}: {error or type(error).__name__}") from error
    for meeting in (*_warps, _barrier):
        if meeting.arrived:
            raise Fault(meeting.missing())


def run(function: Callable[..., None], args: Any, grid: int, count: int, begin: Callable[[], None]) -> None:
    """Run `count` threads in each of `grid` blocks, one after another, each after a call of `begin`."""
    global _block, _blocks, _threads, _hub
    with _lock, np.errstate(all="ignore"):
        _hub, _blocks, _threads = getcurrent(), grid, count
        context = contextvars.copy_context()
        try:
            for _block in range(grid):
                begin()
                _run_block(function, args, context)
        finally:
            _running.clear()
            _ready.clear()
