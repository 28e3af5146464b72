"""The shared memory of a simulated block: NaN at first, and watched for races.

What one thread writes, another may touch after the next barrier and no sooner; what one reads, another may write after
the next barrier. Shuffles are no barriers.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from . import cuda_schedule
from .cuda_schedule import Fault
from .cuda_twin_memory import DTYPE, SIZE, read_as, reader, refused, writer, written_as

__all__ = ["held", "held16", "hold", "hold16"]

ROOM = 227 * 1024
"""Bytes of shared memory that a block can have."""
SEVERAL = 2047
"""Stands for several threads."""

_room = np.zeros(ROOM // 16 + 1, "V16")
_bytes = _room.view("u1")
_size = 0
# For every two bytes, between which barriers they were touched last, times 2048, plus by which thread.
_written = [0] * (ROOM // 2 + 8)
_read = [0] * (ROOM // 2 + 8)


def begin_block(shared: int) -> None:
    """Shared memory of so many bytes, full of NaN."""
    global _size
    if not 0 <= shared <= ROOM:
        raise Fault(f"{shared} bytes of shared memory, of {ROOM}")
    _size = shared
    _bytes[: shared + 16] = 0xFF


def _refuse_others(does: str, begin: int, did: str, touched: list[int], me: int) -> None:
    """Refuse what another thread touched since the last barrier."""
    for k, last in enumerate(touched):
        if last >> 11 == me >> 11 and last != me:
            who = "several threads" if last & SEVERAL == SEVERAL else f"thread {last & SEVERAL}"
            raise Fault(f"{does} byte {2 * (begin + k)} of shared memory, which {who} {did} since the last barrier")


def _watched_read(begin: int, end: int) -> None:
    now = cuda_schedule._phase << 11
    me = now | cuda_schedule._thread
    written, read = _written[begin:end], _read[begin:end]
    if max(written) >= now and written.count(me) != end - begin:
        _refuse_others("reads", begin, "wrote", written, me)
    if max(read) < now or read.count(me) == end - begin:
        _read[begin:end] = [me] * (end - begin)
    else:
        _read[begin:end] = [me if last < now or last == me else now | SEVERAL for last in read]


def _watched_write(begin: int, end: int) -> None:
    now = cuda_schedule._phase << 11
    me = now | cuda_schedule._thread
    for did, before in (("wrote", _written[begin:end]), ("read", _read[begin:end])):
        if max(before) >= now and before.count(me) != end - begin:
            _refuse_others("writes", begin, did, before, me)
    _written[begin:end] = [me] * (end - begin)


def _finder(code: str, watch: Any) -> Any:
    """``f(offset) -> array, index``. Single bytes are not watched."""
    size, view = SIZE[code], _room.view(DTYPE[code])
    rest, shift = size - 1, size.bit_length() - 1

    def find(at: int) -> Any:
        if at & rest or not 0 <= at <= _size - size:
            raise refused("a shared access", at, size)
        if size > 1:
            watch(at >> 1, (at + size) >> 1)
        return view, at >> shift

    return find


@cache
def held(code: str) -> Any:
    """``f(offset)``: the element at a byte offset of shared memory."""
    return reader(code, _finder(read_as(code), _watched_read))


@cache
def hold(code: str) -> Any:
    """``f(offset, value)``: store an element at a byte offset of shared memory."""
    return writer(code, _finder(written_as(code), _watched_write))


_read16, _write16 = _finder("words", _watched_read), _finder("words", _watched_write)


def held16(offset: int) -> Any:
    """The 16 bytes at an offset of shared memory that is a multiple of 16."""
    view, k = _read16(offset)
    return view[k]


def hold16(offset: int, words: Any) -> None:
    """Store 16 bytes at an offset of shared memory that is a multiple of 16."""
    view, k = _write16(offset)
    view[k] = words
