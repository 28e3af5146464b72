"""The cards of this machine: memory, streams and events, on behalf of the room. Only here is the driver spoken to."""

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from importlib import import_module
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DeviceError
from .arrays import CardArray, packed
from .pending import Pending

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

_LOST = "the process was forked after CUDA was first used, which CUDA does not survive; start workers by spawn"


@lru_cache(maxsize=1)
def _driver() -> ModuleType:
    return import_module("fusedloss.kernels.cuda_card")


@lru_cache(maxsize=1)
def _kernels() -> ModuleType:
    return import_module("fusedloss.kernels.cuda")


@lru_cache(maxsize=1)
def why_not() -> str:
    """Say in one line why no card can serve; empty if one can."""
    try:
        reason: str | None = _driver().why_not()
        if reason is None:
            _kernels()
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed; the extras cuda12 and cuda13 of fusedloss bring it"
    except (ImportError, OSError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return reason or ""


def count() -> int:
    """Count the cards that can serve."""
    number: int = 0 if why_not() else _driver().count()
    return number


@lru_cache(maxsize=64)
def card(index: int) -> "Card":
    """Return the card of a number.

    Raises
    ------
    DeviceError
        If there is none.
    """
    if reason := why_not():
        raise DeviceError(f"cuda:{index} cannot serve: {reason}")
    if not 0 <= index < count():
        raise DeviceError(f"there is no cuda:{index}, expected one of {', '.join(name for _, name in numbered())}")
    return Card(index)


def is_simulated() -> bool:
    """Tell a card that is simulated: its memory is the host's, and has to be lent to its kernels."""
    simulated: bool = _driver().SIMULATED
    return simulated


def numbered() -> list[tuple[int, str]]:
    """Number and name the cards that can serve."""
    return [(index, f"cuda:{index}") for index in range(count())]


def named(device: object) -> list["Card"]:
    """List the cards of this process that a name means: all that were used, or one.

    Raises
    ------
    DeviceError
        If it is no such name, or no card can serve.
    """
    kind, _, number = device.partition(":") if isinstance(device, str) else ("", "", "")
    if kind != "cuda" or not (device == "cuda" or number.isdecimal()):
        raise DeviceError(f"device is {device!r}, expected 'cuda', or one device such as 'cuda:0'")
    if reason := why_not():
        raise DeviceError(f"device is {device!r}, which cannot serve: {reason}")
    return [card(int(number))] if number else list(_used)


_used: list["Card"] = []


class Card:
    """One card. ``with card:`` makes it the thread's current one, and gives its failures the library's types."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.pending = Pending(self)
        self.lanes: list[Any] = []
        self._context = _driver().context(index)
        self._is_current: Callable[[], bool] = getattr(self._context, "is_current", lambda: False)
        self._entered = threading.local()
        self.failures: Any = _driver().CudaError
        self._process = os.getpid()
        self._garbage: deque[Callable[[], None]] = deque()
        _used.append(self)

    def __enter__(self) -> "Card":
        """Make it current where it is not: most threads that have such arrays are there already."""
        depth = getattr(self._entered, "depth", 0)
        if not depth:
            if self._process != os.getpid():
                raise DeviceError(f"cuda:{self.index} cannot serve: {_LOST}")
            try:
                self._entered.pushed = not self._is_current()
                if self._entered.pushed:
                    self._context.__enter__()
            except self.failures as error:
                raise self._named(error) from None
        self._entered.depth = depth + 1
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._entered.depth -= 1
        if not self._entered.depth and self._entered.pushed:
            self._context.__exit__(kind, error, trace)
        if isinstance(error, self.failures):
            raise self._named(error) from error

    def _named(self, error: Any) -> Exception:
        if error.name == "CUDA_ERROR_OUT_OF_MEMORY":
            return MemoryError(f"cuda:{self.index} is out of memory")
        return DeviceError(f"cuda:{self.index} failed: {error.name}: {error.text}")

    @property
    def name(self) -> str:
        """What the card calls itself."""
        name: str = _driver().name(self.index)
        return name

    # Everything below is for a card that is current.

    def backend(self, stream: int, status: int) -> Any:
        """Make the kernels of the contract, that enqueue on a stream and report to an address."""
        kernels = _kernels()
        return kernels.Backend(kernels.Queue(self.index, stream, status))

    def allocate(self, nbytes: int, stream: int) -> "Memory":
        """Allocate memory of the card in the order of a stream."""
        size = max(nbytes, 1)
        self._sweep()
        return Memory(self, _driver().allocate(self.index, size, stream), size, stream)

    def pinned(self, nbytes: int) -> "Pinned":
        """Allocate host memory that the card reads and writes by itself."""
        self._sweep()
        return Pinned(self, nbytes, *_driver().pin(nbytes))

    def discard(self, free: Callable[[], None]) -> None:
        """Give memory back, from wherever its last reference was dropped.

        That may be a garbage collection amid a simulated kernel, which must find its memory as it was: the simulated
        card does so when it is next asked for memory.
        """
        if is_simulated():
            self._garbage.append(free)
        else:
            with suppress(Exception), self._context:  # it may be gone, at the end of the process
                free()

    def _sweep(self) -> None:
        while self._garbage:
            self._garbage.popleft()()

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Enqueue a copy of bytes; to or from pinned memory it does not hold up the caller."""
        _driver().copy(target, source, nbytes, stream)

    def read(self, address: int, dtype: Any) -> Any:
        """Fetch one element, and wait for it."""
        value = np.empty(1, f"u{dtype.itemsize}" if dtype.kind == "V" else dtype)
        self.copy(value.ctypes.data, address, dtype.itemsize, 0)
        self.wait_for_stream(0)
        if dtype.kind == "V":
            return (value.astype(np.uint32) << 16).view(np.float32)[0]
        return value[0]

    def write(self, values: Array, target: CardArray) -> None:
        """Send the values of a contiguous host array to a contiguous one on the card."""
        self.copy(target.address, values.ctypes.data, values.nbytes, target.stream)

    def fetch(self, source: CardArray) -> Array:
        """Copy a contiguous array to the host, and wait for it."""
        values = np.empty(source.shape, source.dtype)
        self.copy(values.ctypes.data, source.address, source.nbytes, source.stream)
        self.wait_for_stream(source.stream)
        return values

    def is_pinned(self, address: int) -> bool:
        """Tell host memory that the card reads and writes by itself, whoever allocated it."""
        pinned: bool = _driver().is_pinned(address)
        return pinned

    def new_stream(self) -> int:
        """Make a stream that waits for no other."""
        stream: int = _driver().stream()
        return stream

    def wait_for_stream(self, stream: int) -> None:
        """Hold up the caller until all that was enqueued on a stream is done."""
        _driver().synchronize(stream)

    def follow(self, stream: int, first: int) -> None:
        """Let what is enqueued on a stream from now on wait for what is enqueued on another so far."""
        if (stream or 1) != (first or 1):
            event = self.new_event()
            self.record(event, first)
            _driver().wait_for(stream, event)
            _driver().destroy_event(event)

    def new_event(self) -> int:
        """Make an event."""
        event: int = _driver().event()
        return event

    def record(self, event: int, stream: int) -> None:
        """Let an event stand for all that is enqueued on a stream so far."""
        _driver().record(event, stream)

    def is_done(self, event: int) -> bool:
        """Tell whether what an event stands for is done."""
        done: bool = _driver().finished(event)
        return done

    def wait_for(self, event: int) -> None:
        """Hold up the caller until what an event stands for is done."""
        _driver().wait_event(event)


class Memory:
    """Memory of a card, given back in the order of its stream when nothing refers to it any more."""

    __slots__ = ("_card", "_free", "address", "nbytes", "stream")

    def __init__(self, card: Card, address: int, nbytes: int, stream: int) -> None:
        self.address, self.nbytes, self.stream = address, nbytes, stream
        self._card = card
        self._free: Callable[[int, int, int], None] = _driver().free

    def array(self, shape: Shape, dtype: Any, kind: str = "", offset: int = 0) -> CardArray:
        """See it, from an offset on, as a contiguous array."""
        address, strides = self.address + offset, packed(shape, dtype.itemsize)
        return CardArray(address, shape, strides, dtype, self._card.index, False, self, self.stream, kind)

    def __del__(self) -> None:
        self._card.discard(partial(self._free, self._card.index, self.address, self.stream))


class Pinned:
    """Host memory that a card reads and writes by itself, given back when nothing refers to this object any more."""

    __slots__ = ("_card", "_free", "address", "bytes", "nbytes", "on_card")

    def __init__(self, card: Card, nbytes: int, address: int, on_card: int) -> None:
        self.address, self.nbytes, self.on_card = address, nbytes, on_card
        self._card = card
        self._free: Callable[[int], None] = _driver().unpin
        self.bytes = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))

    def array(self, shape: Shape, dtype: np.dtype[Any], offset: int, nbytes: int) -> Array:
        """See a part of it as an array."""
        part: Array = self.bytes[offset : offset + nbytes].view(dtype)
        return part.reshape(shape)

    def __del__(self) -> None:
        self._card.discard(partial(self._free, self.address))


def device_of(address: int) -> int | None:
    """Tell on which card an address lies; None for none. A simulated card has all there is."""
    number: int | None = 0 if is_simulated() else _driver().device_of(address)
    return number


def lend(array: CardArray, writable: bool) -> Callable[[], None]:
    """Let simulated kernels use an array, up to a call of what is returned."""
    from fusedloss.kernels import cuda_twin_memory

    reach = [(length - 1) * stride for length, stride in zip(array.shape, array.strides, strict=True)]
    first = array.address + sum(min(step, 0) for step in reach)
    size = array.address + sum(max(step, 0) for step in reach) + array.itemsize - first if array.size else 0
    cuda_twin_memory.lend(first, size, writable=writable)
    return lambda: cuda_twin_memory.retract(first, size, writable=writable)
