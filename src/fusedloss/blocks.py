"""Memory for large results, kept from one to the next.

The C library returns a large block to the system as soon as it is freed, and the system clears each of its pages before
it hands them out again: as much work as filling them. So the block of the last large result that was let go is kept for
the next of its size. It is kept as free, so the system may take its pages back at any time.
"""

import mmap
from collections import deque
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

LEAST = 32 << 20  # glibc keeps smaller blocks itself: the most that M_MMAP_THRESHOLD grows to by itself
_HUGE = 2 << 20  # a huge page, of which a block takes whole ones

_kept: deque[mmap.mmap] = deque(maxlen=1)  # whose methods are atomic: arrays are let go in any thread, at any time


def take(size: int) -> npt.NDArray[np.uint8]:
    """Return ``size`` bytes that nobody else has, of any value, starting on a page.

    Raises
    ------
    MemoryError
        If there is not as much memory.
    """
    if not hasattr(mmap, "MADV_FREE"):  # on Windows
        return np.empty(size, np.uint8)
    memory = _kept_for(size) or _new(size)
    return np.empty(size, np.uint8) if memory is None else np.asarray(_Lease(memory))[:size]


def drop() -> None:
    """Return the block that is kept to the system."""
    _kept.clear()


def _kept_for(size: int) -> mmap.mmap | None:
    """Take the block that is kept, where no more than a fifth of it would lie idle."""
    with suppress(IndexError):
        memory = _kept.pop()
        if size <= len(memory) <= size + size // 4 + _HUGE:
            return memory
        _kept.append(memory)
    return None


def _new(size: int) -> mmap.mmap | None:
    try:
        memory = mmap.mmap(-1, -(-size // _HUGE) * _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError):
        return None  # and NumPy says how much was asked for
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class _Lease:
    """What an array's memory belongs to, until no array views it."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory

    @property
    def __array_interface__(self) -> dict[str, Any]:
        address = np.frombuffer(self._memory, np.uint8).ctypes.data
        return {"shape": (len(self._memory),), "typestr": "|u1", "data": (address, False), "version": 3}

    def __del__(self) -> None:
        with suppress(OSError):  # of a process that locks its memory, whose pages are never free
            self._memory.madvise(mmap.MADV_FREE)
            _kept.append(self._memory)
