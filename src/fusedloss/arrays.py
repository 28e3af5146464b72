"""Adopting the caller's arrays without a copy, and giving back results of the caller's kind.

No framework is imported here: its module is looked up in ``sys.modules`` when one of its arrays arrives.
"""

import math
import sys
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .errors import DeviceError, DTypeError, ShapeError

Array = npt.NDArray[Any]

_HOST = (1, 3, 13)  # DLPack device types the CPU can read: kDLCPU, kDLCUDAHost, kDLCUDAManaged
_PROTOCOLS = ("__array_interface__", "__array__", "__dlpack__")


def adopt(value: Any, name: str) -> Array:
    """View the caller's array as a NumPy array; lists and scalars are converted as NumPy does.

    Parameters
    ----------
    value : array_like
        A NumPy array, a list, or anything with ``__dlpack__``, ``__array_interface__`` or ``__array__`` on the host.
    name : str
        What the caller knows it as.

    Raises
    ------
    DeviceError
        If the array is not in host memory.
    DTypeError
        If it is a masked array, or nothing that NumPy or DLPack can read.
    ShapeError
        If it is a ragged list.
    """
    if type(value) is np.ndarray:
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise DTypeError(f"{name} is a masked array, expected a plain one: its data, and sample_weight for its mask")
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    _require_host(value, name)
    if _is_torch(value):
        return _from_torch(value, name)
    try:
        if hasattr(value, "__dlpack__") and not any(hasattr(value, each) for each in _PROTOCOLS[:2]):
            return cast("Array", np.from_dlpack(value))
        return np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise ShapeError(f"{name} cannot be read as an array: {error}") from error
    except (TypeError, BufferError, RuntimeError) as error:
        raise DTypeError(f"{name} cannot be read as an array: {error}") from error


def is_array(value: object) -> bool:
    """Tell an array, which has a dtype of its own, from a list or a scalar to be converted."""
    return isinstance(value, np.ndarray) or any(hasattr(value, each) for each in _PROTOCOLS)


def give(result: Any, like: Any) -> Any:
    """Turn a NumPy result into the kind of array that ``like``, the caller's own, is."""
    if type(like) is np.ndarray or isinstance(like, np.ndarray | np.generic):
        return result
    if _is_torch(like):
        return _to_torch(np.asarray(result))
    if hasattr(like, "__array_namespace__"):
        return like.__array_namespace__().asarray(result)
    return result


def _require_host(value: Any, name: str) -> None:
    if hasattr(value, "__dlpack_device__"):
        kind = int(value.__dlpack_device__()[0])
        if kind in _HOST:
            return
        where = "a CUDA device" if kind == 2 else f"a device of DLPack type {kind}"
    elif hasattr(value, "__cuda_array_interface__"):
        where = "a CUDA device"
    else:
        return
    raise DeviceError(f"{name} is on {where}, expected host memory: this version has no kernels for it")


def _is_torch(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _from_torch(tensor: Any, name: str) -> Array:
    torch = sys.modules["torch"]
    try:
        tensor = tensor.detach()
        if tensor.dtype != torch.bfloat16:
            return cast("Array", tensor.numpy())
        return cast("Array", tensor.view(torch.int16).numpy()).view(bfloat16(name))
    except (TypeError, RuntimeError) as error:
        raise DTypeError(f"{name} cannot be read as an array: {error}") from error


def _to_torch(result: Array) -> Any:
    torch = sys.modules["torch"]
    if result.dtype.kind == "V":
        return torch.from_numpy(result.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(result)


def bfloat16(name: str) -> np.dtype[Any]:
    """Find NumPy's bfloat16, which ``name`` needs."""
    try:
        import ml_dtypes
    except ModuleNotFoundError as error:
        raise DTypeError(f"{name} is bfloat16, which needs the package ml_dtypes, not installed here") from error
    return cast("np.dtype[Any]", np.dtype(ml_dtypes.bfloat16))


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return a new C-contiguous array; a large one starts on a cache line, for kernels that write whole lines."""
    size = math.prod(shape) * dtype.itemsize
    if size < _LARGE:
        return np.empty(shape, dtype)
    block = np.empty(size + _LINE, np.uint8)
    start = -block.ctypes.data % _LINE
    return block[start : start + size].view(dtype).reshape(shape)


_LARGE, _LINE = 1 << 20, 64
