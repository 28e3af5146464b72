"""Arrays of other libraries that lie on a card: seen where they are, without a copy and without waiting for anything.

Each says on which stream its elements are ready: PyTorch's and CuPy's are the caller's current ones, others are taken
by CUDA's array interface, or asked through DLPack to be ready on the default stream.
"""

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from .. import dlpack
from ..errors import DeviceError, DTypeError
from .arrays import Bfloat16, CardArray, packed
from .card import device_of, why_not

_LIBRARIES = ("numba", "numba_cuda", "cupy")  # theirs is the caller's stream, where DLPack would take the default one


def adopt_torch(tensor: Any, name: str) -> CardArray:
    """See a tensor of PyTorch, ready on its current stream.

    Raises
    ------
    DeviceError
        If no card can serve.
    DTypeError
        If it is not strided, is a negated view, or of a dtype that no kernel reads.
    """
    torch = sys.modules["torch"]
    _require_service(name)
    dtype = _of_torch().get(tensor.dtype)
    if dtype is None:
        raise DTypeError(f"{name} has dtype {tensor.dtype}, which cannot be read on a CUDA device")
    if tensor.layout is not torch.strided or tensor.is_neg():
        raise DTypeError(f"{name} is no plain strided tensor, expected one whose elements are in memory as they are")
    shape, step, index = tuple(tensor.shape), dtype.itemsize, tensor.get_device()
    strides = packed(shape, step) if tensor.is_contiguous() else tuple([step * each for each in tensor.stride()])
    stream = _stream_of_torch()(index)
    return CardArray(tensor.data_ptr(), shape, strides, dtype, index, False, tensor, stream, "torch")


def _stream_of_torch() -> Callable[[int], int]:
    """Find what gives the handle of PyTorch's current stream, without an object around it where that can be had."""
    torch = sys.modules["torch"]
    raw: Callable[[int], int] | None = getattr(torch._C, "_cuda_getCurrentRawStream", None)
    return raw or (lambda index: int(torch.cuda.current_stream(index).cuda_stream))


@lru_cache(maxsize=1)
def _of_torch() -> dict[Any, Any]:
    torch = sys.modules["torch"]
    names = [f"float{bits}" for bits in (16, 32, 64)] + [
        f"{kind}int{bits}" for kind in ("", "u") for bits in (8, 16, 32, 64)
    ]
    dtypes: dict[Any, Any] = {getattr(torch, name): np.dtype(name) for name in names if hasattr(torch, name)}
    return dtypes | {torch.bool: np.dtype(bool), torch.bfloat16: bfloat16()}


def adopt(value: Any, name: str) -> CardArray | None:
    """See an array of any library; None if it does not lie on a card, or does not say so.

    Raises
    ------
    DTypeError
        If what it exports is malformed, masked, or of a dtype that no kernel reads.
    DeviceError
        If no card can serve.
    """
    library = type(value).__module__.partition(".")[0]
    if hasattr(value, "__dlpack_device__") and library not in _LIBRARIES:
        if int(value.__dlpack_device__()[0]) != dlpack.CUDA:
            return None
        _require_service(name)
        tensor = dlpack.read(value, stream=1)
        dtype = bfloat16() if tensor.dtype == "bfloat16" else np.dtype(tensor.dtype)
        strides = packed(tensor.shape, dtype.itemsize)
        if tensor.strides is not None:
            strides = tuple([step * dtype.itemsize for step in tensor.strides])
        owner, device = (value, tensor.owner), tensor.device[1]
        return CardArray(tensor.address, tensor.shape, strides, dtype, device, tensor.readonly, owner)
    if hasattr(type(value), "__cuda_array_interface__") or hasattr(value, "__cuda_array_interface__"):
        return _by_interface(value, name, library)
    return None


def _by_interface(value: Any, name: str, library: str) -> CardArray:
    _require_service(name)
    described = value.__cuda_array_interface__
    try:
        shape, (address, readonly) = tuple(map(int, described["shape"])), described["data"]
        typestr, strides = described["typestr"], described.get("strides")
        dtype = _dtype(typestr, value)
        step = packed(shape, dtype.itemsize) if strides is None else tuple(map(int, strides))
        stream = described.get("stream") or 0
    except (KeyError, TypeError, ValueError) as error:
        said = f"{type(error).__name__}: {error}"
        raise DTypeError(
            f"{name} cannot be read as an array: its __cuda_array_interface__ is malformed: {said}"
        ) from error
    if len(step) != len(shape) or min(shape, default=0) < 0:
        raise DTypeError(f"{name} cannot be read as an array: it has shape {shape} and strides {step}")
    if described.get("mask") is not None:
        raise DTypeError(f"{name} is a masked array, expected a plain one: its data, and sample_weight for its mask")
    if not dtype.isnative:
        raise DTypeError(f"{name} is of foreign byte order, expected the native one on a CUDA device")
    address = int(address or 0)
    device = device_of(address) if address else _device_number(value)
    if device is None:
        raise DeviceError(f"{name} is in host memory, for all that it has a __cuda_array_interface__")
    kind = library if library == "cupy" else "numba" if library.startswith("numba") else ""
    return CardArray(address, shape, step, dtype, device, bool(readonly), value, 0 if stream == 1 else stream, kind)


def _dtype(typestr: str, value: Any) -> Any:
    """Read a dtype; what has two bytes and no kind is bfloat16 where the array says so."""
    dtype = np.dtype(typestr)
    given = getattr(value, "dtype", None)
    if dtype.kind == "V" and getattr(given, "name", str(given)) == "bfloat16":
        return bfloat16()
    return dtype


def _device_number(value: Any) -> int:
    """Find the device of an array that has no memory, where it says so."""
    number = getattr(getattr(value, "device", 0), "id", 0)
    return number if isinstance(number, int) else 0


def _require_service(name: str) -> None:
    if reason := why_not():
        raise DeviceError(f"{name} is on a CUDA device, which cannot serve: {reason}")


@lru_cache(maxsize=1)
def bfloat16() -> Any:
    """Find NumPy's bfloat16, or what stands for it."""
    try:
        import ml_dtypes
    except ModuleNotFoundError:
        return Bfloat16()
    return np.dtype(ml_dtypes.bfloat16)
