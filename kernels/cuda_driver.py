"""The CUDA driver: the only module that imports ``cuda.bindings``, and only when a function of it is called.

It works in the primary context of a device, as PyTorch, CuPy and JAX do, and leaves the current context as it was.
Streams are plain integers, as other libraries hand them out: 0 is the default one. Addresses are integers too. What
works in a context (all of memory, streams, events and launches) is called inside ``with context(device):``. Every
failure is a `CudaError`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import threading
from functools import cache
from typing import Any, NamedTuple

from .cuda_errors import CudaError

__all__ = [
    "Arguments", "CudaError", "allocate", "capability", "context", "copy", "count", "destroy_event", "destroy_stream",
    "device_of", "event", "finished", "free", "is_pinned", "kernel_of", "launch", "memory", "multiprocessors", "name",
    "pin", "record", "shared_limit", "stream", "synchronize", "unpin", "wait_event", "wait_for", "why_not",
]  # fmt: skip

LEAST_CAPABILITY = (8, 0)  # the first to round to bfloat16
NOT_READY = 600
LOG = 8192
OLD_DRIVER = "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"
HINTS = {OLD_DRIVER: "; the driver is older than numba-cuda's toolkit: update it, or install fusedloss[cuda12]"}


@cache
def _api() -> Any:
    """The driver's functions, initialised."""
    from cuda.bindings import driver

    _check(driver, driver.cuInit(0))
    return driver


def _check(driver: Any, result: Any, more: str = "") -> Any:
    """What a driver function returned beside its status."""
    status, *values = result
    if status != 0:
        _, name = driver.cuGetErrorName(status)
        _, text = driver.cuGetErrorString(status)
        said = [part.decode() if isinstance(part, bytes) else f"error {int(status)}" for part in (name, text)]
        raise CudaError(said[0], said[1] + HINTS.get(said[0], "") + more)
    return values[0] if values else None


def _call(function: str, *args: Any) -> Any:
    driver = _api()
    return _check(driver, getattr(driver, function)(*args))


# ---- devices ---------------------------------------------------------------------------------------------------------


@cache
def _unusable() -> str | None:
    """Why there is no CUDA at all."""
    for module, distribution in (("cuda.bindings", "cuda-bindings"), ("numba_cuda", "numba-cuda")):
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            return f"{distribution} is not installed"
    try:
        return None if _call("cuDeviceGetCount") else "there is no CUDA device"
    except Exception as error:  # the bindings raise errors of many types where there is no driver
        return (str(error) or type(error).__name__).splitlines()[0]


def why_not(device: int = 0) -> str | None:
    """Why a device cannot serve, in one line; None if it can."""
    if (reason := _unusable()) is not None:
        return reason
    if not 0 <= device < count():
        return f"there is no CUDA device {device}, but {count()}"
    major, minor = capability(device)
    if (major, minor) < LEAST_CAPABILITY:
        return f"{name(device)} has compute capability {major}.{minor}, and 8.0 is needed"
    return None


def count() -> int:
    """The number of devices: 0 where there is no CUDA."""
    return 0 if _unusable() else _call("cuDeviceGetCount")


@cache
def _device(ordinal: int) -> Any:
    return _call("cuDeviceGet", ordinal)


@cache
def _attribute(device: int, attribute: str) -> int:
    kind = getattr(_api().CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{attribute}")
    return int(_call("cuDeviceGetAttribute", kind, _device(device)))


@cache
def name(device: int) -> str:
    """What the device's maker calls it."""
    text = _call("cuDeviceGetName", 256, _device(device))
    return bytes(text).split(b"\0")[0].decode()


def capability(device: int) -> tuple[int, int]:
    """The compute capability, such as (9, 0)."""
    return _attribute(device, "COMPUTE_CAPABILITY_MAJOR"), _attribute(device, "COMPUTE_CAPABILITY_MINOR")


def multiprocessors(device: int) -> int:
    return _attribute(device, "MULTIPROCESSOR_COUNT")


def shared_limit(device: int) -> int:
    """The most bytes of dynamic shared memory that a block can have."""
    return _attribute(device, "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN")


def memory(device: int) -> tuple[int, int]:
    """The bytes of memory that are free, and all of them."""
    driver = _api()
    with context(device):
        status, *sizes = driver.cuMemGetInfo()
        _check(driver, (status,))
    return int(sizes[0]), int(sizes[1])


def device_of(address: int) -> int | None:
    """The device whose memory an address is in; None for host memory."""
    driver = _api()
    kinds = driver.CUpointer_attribute
    status, kind = driver.cuPointerGetAttribute(kinds.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address)
    if status != 0 or int(kind) != int(driver.CUmemorytype.CU_MEMORYTYPE_DEVICE):
        return None
    return int(_call("cuPointerGetAttribute", kinds.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address))


def is_pinned(address: int) -> bool:
    """Whether an address is in host memory that copies need not pass by, of whoever."""
    driver = _api()
    kind = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE
    status, found = driver.cuPointerGetAttribute(kind, address)
    return status == 0 and int(found) == int(driver.CUmemorytype.CU_MEMORYTYPE_HOST)


class Context:
    """A device's primary context, made the current one: ``with context(device):``."""

    def __init__(self, device: int) -> None:
        self._context = _call("cuDevicePrimaryCtxRetain", _device(device))  # for good
        self._address = int(self._context)

    def is_current(self) -> bool:
        return int(_call("cuCtxGetCurrent")) == self._address

    def __enter__(self) -> None:
        _call("cuCtxPushCurrent", self._context)

    def __exit__(self, *_: object) -> None:
        _call("cuCtxPopCurrent")


@cache
def context(device: int) -> Context:
    """The context of a device, by its ordinal."""
    return Context(device)


# ---- kernels ---------------------------------------------------------------------------------------------------------


class Loaded(NamedTuple):
    """A kernel on one device, and the library that must live as long as it."""

    function: Any
    library: Any


def kernel_of(ptx: str, entry: str, device: int) -> Loaded:
    """Have the driver assemble PTX, and find a kernel of it, which may then use all the shared memory there is."""
    driver, log = _api(), bytearray(LOG)
    options = driver.CUjit_option
    names = [options.CU_JIT_ERROR_LOG_BUFFER, options.CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES]
    with context(device):
        result = driver.cuLibraryLoadData(ptx.encode() + b"\0", names, [log, LOG], len(names), [], [], 0)
        said = bytes(log).split(b"\0")[0].decode(errors="replace").strip()
        library = _check(driver, result, f"\n{said}" if said else "")
        kernel = _call("cuLibraryGetKernel", library, entry.encode())
        wanted = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _call("cuKernelSetAttribute", wanted, shared_limit(device), kernel, _device(device))
    return Loaded(driver.CUfunction(int(kernel)), library)


class Arguments(threading.local):
    """Where one kernel's arguments lie while a thread launches it: one packed buffer, and what tells the driver so."""

    def __init__(self, size: int) -> None:
        self._buffer, self._count = (ctypes.c_char * size)(), ctypes.c_size_t(size)
        buffer, count = ctypes.addressof(self._buffer), ctypes.addressof(self._count)
        self._extra = (ctypes.c_void_p * 5)(1, buffer, 2, count, 0)  # CU_LAUNCH_PARAM_BUFFER_POINTER, …
        self._address = ctypes.addressof(self._extra)
        self._bytes = memoryview(self._buffer).cast("B")

    def hold(self, call: bytes) -> int:
        """Copy packed arguments there; the address for ``cuLaunchKernel``'s ``extra``."""
        self._bytes[:] = call
        return self._address


def launch(
    loaded: Loaded, grid: int, threads: int, shared: int, stream: int, arguments: Arguments, call: bytes
) -> None:
    """Enqueue `grid` blocks of `threads` threads, which get `call` as their arguments."""
    driver, extra = _api(), arguments.hold(call)
    _check(driver, driver.cuLaunchKernel(loaded.function, grid, 1, 1, threads, 1, 1, shared, stream, 0, extra))


# ---- memory ----------------------------------------------------------------------------------------------------------


@cache
def _pools(device: int) -> bool:
    return bool(_attribute(device, "MEMORY_POOLS_SUPPORTED"))


def allocate(device: int, nbytes: int, stream: int) -> int:
    """The address of new memory, to be used on a stream; of the pool of the device, where it has one."""
    if _pools(device):
        return int(_call("cuMemAllocAsync", max(nbytes, 1), stream))
    return int(_call("cuMemAlloc", max(nbytes, 1)))


def free(device: int, address: int, stream: int) -> None:
    """Give memory of `allocate` back, once the stream has done with it."""
    if _pools(device):
        _call("cuMemFreeAsync", address, stream)
    else:
        _call("cuMemFree", address)


def pin(nbytes: int) -> tuple[int, int]:
    """Host memory that copies need not pass by and kernels can write to: its address for the host and for the card."""
    flags = 1 | 2  # CU_MEMHOSTALLOC_PORTABLE, CU_MEMHOSTALLOC_DEVICEMAP
    host = int(_call("cuMemHostAlloc", max(nbytes, 1), flags))
    return host, int(_call("cuMemHostGetDevicePointer", host, 0))


def unpin(host: int) -> None:
    """Give memory of `pin` back."""
    _call("cuMemFreeHost", host)


def copy(target: int, source: int, nbytes: int, stream: int) -> None:
    """Copy between any two addresses, of the host or of a card, on a stream."""
    if nbytes:
        _call("cuMemcpyAsync", target, source, nbytes, stream)


# ---- streams and events ----------------------------------------------------------------------------------------------


def stream() -> int:
    """A new stream, which does not wait for the default one."""
    return int(_call("cuStreamCreate", 1))  # CU_STREAM_NON_BLOCKING


def destroy_stream(stream: int) -> None:
    _call("cuStreamDestroy", stream)


def synchronize(stream: int) -> None:
    """Wait until all that was enqueued on a stream is done."""
    _call("cuStreamSynchronize", stream)


def event() -> int:
    """A new event, which takes no time."""
    return int(_call("cuEventCreate", 2))  # CU_EVENT_DISABLE_TIMING


def destroy_event(event: int) -> None:
    _call("cuEventDestroy", event)


def record(event: int, stream: int) -> None:
    """Let an event happen when all that was enqueued on a stream is done."""
    _call("cuEventRecord", event, stream)


def finished(event: int) -> bool:
    """Whether an event has happened, or was never recorded."""
    driver = _api()
    (status,) = driver.cuEventQuery(event)
    if int(status) == NOT_READY:
        return False
    _check(driver, (status,))
    return True


def wait_event(event: int) -> None:
    """Wait until an event has happened."""
    _call("cuEventSynchronize", event)


def wait_for(stream: int, event: int) -> None:
    """Let what is enqueued on a stream from now on wait for an event."""
    _call("cuStreamWaitEvent", stream, event, 0)
