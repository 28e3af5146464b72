"""The CUDA driver's twin for the simulator: one device whose memory is the host's, where all is done at once."""

from __future__ import annotations

import contextlib
import ctypes
import itertools

import numpy as np

from .cuda_errors import CudaError
from .cuda_twin_memory import lend, retract
from .cuda_twin_shared import ROOM

__all__ = [
    "CudaError", "allocate", "capability", "context", "copy", "count", "destroy_event", "destroy_stream", "device_of",
    "event", "finished", "free", "is_pinned", "memory", "multiprocessors", "name", "pin", "record", "shared_limit",
    "stream", "synchronize", "unpin", "wait_event", "wait_for", "why_not",
]  # fmt: skip

MEMORY = 1 << 36
ALIGNMENT = 256

_numbers = itertools.count(1)
_allocated: dict[int, np.ndarray] = {}


def why_not(device: int = 0) -> str | None:
    """Why a device cannot serve, in one line; None if it can."""
    return None if device == 0 else f"there is no CUDA device {device}, but 1"


def count() -> int:
    return 1


def name(_device: int) -> str:
    return "simulated CUDA device"


def capability(_device: int) -> tuple[int, int]:
    return 9, 0


def multiprocessors(_device: int) -> int:
    return 2


def shared_limit(_device: int) -> int:
    return ROOM


def memory(_device: int) -> tuple[int, int]:
    """The bytes of memory that are free, and all of them."""
    return MEMORY - sum(block.nbytes for block in _allocated.values()), MEMORY


def device_of(address: int) -> int | None:
    """The device whose memory an address is in; None for host memory."""
    return 0 if any(begin <= address < begin + len(block) for begin, block in _allocated.items()) else None


def is_pinned(_address: int) -> bool:
    """Whether an address is in host memory that copies need not pass by, of whoever."""
    return False


def context(_device: int) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def allocate(_device: int, nbytes: int, _stream: int) -> int:
    """The address of new memory, full of NaN."""
    if nbytes > memory(0)[0]:
        raise CudaError("CUDA_ERROR_OUT_OF_MEMORY", "out of memory")
    block = np.full(nbytes + ALIGNMENT, 0xFF, np.uint8)
    skipped = -block.ctypes.data % ALIGNMENT
    block = block[skipped : skipped + max(nbytes, 1)]
    address = block.ctypes.data
    _allocated[address] = block
    lend(address, nbytes)
    return address


def free(_device: int, address: int, _stream: int) -> None:
    """Give memory of `allocate` back."""
    block = _allocated.pop(address, None)
    if block is None:
        raise CudaError("CUDA_ERROR_INVALID_VALUE", "invalid argument")
    retract(address, len(block))


def pin(nbytes: int) -> tuple[int, int]:
    """Host memory that kernels can write to: its address for the host and for the card."""
    address = allocate(0, max(nbytes, 1), 0)
    return address, address


def unpin(host: int) -> None:
    free(0, host, 0)


def copy(target: int, source: int, nbytes: int, _stream: int) -> None:
    ctypes.memmove(target, source, nbytes)


def stream() -> int:
    return next(_numbers)


def event() -> int:
    return next(_numbers)


def destroy_stream(_stream: int) -> None:
    pass


def destroy_event(_event: int) -> None:
    pass


def synchronize(_stream: int) -> None:
    pass


def record(_event: int, _stream: int) -> None:
    pass


def finished(_event: int) -> bool:
    return True


def wait_event(_event: int) -> None:
    pass


def wait_for(_stream: int, _event: int) -> None:
    pass
