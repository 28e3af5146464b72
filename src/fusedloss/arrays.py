"""Adopting the caller's arrays without a copy, and giving back results of the caller's kind.

No framework is imported here: its module is looked up in ``sys.modules`` when one of its arrays arrives.
"""

import math
import sys
from contextlib import suppress
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from . import dlpack
from .errors import DeviceError, DTypeError, FusedLossError, ShapeError

Array = npt.NDArray[Any]

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
        If it is a ragged list, or has a shape that no array can have.
    """
    if type(value) is np.ndarray:
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise DTypeError(f"{name} is a masked array, expected a plain one: its data, and sample_weight for its mask")
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    try:
        return _view(value, name)
    except FusedLossError:
        raise
    except (ValueError, OverflowError) as error:
        raise ShapeError(f"{name} cannot be read as an array: {error}") from error
    except (TypeError, BufferError, RuntimeError) as error:
        raise DTypeError(f"{name} cannot be read as an array: {error}") from error


def is_array(value: object) -> bool:
    """Tell an array, which has a dtype of its own, from a list or a scalar to be converted."""
    return isinstance(value, np.ndarray) or any(hasattr(value, each) for each in _PROTOCOLS)


def give(result: Any, like: Any) -> Any:
    """Turn a NumPy result into the kind of array that ``like``, the caller's own, is; without a copy where that can."""
    if isinstance(like, np.ndarray | np.generic):
        return result
    if _is_kind(like, "tensorflow"):  # it may demand more alignment than an array has
        return sys.modules["tensorflow"].convert_to_tensor(result)
    if _is_kind(like, "torch"):
        library = sys.modules["torch"]
    elif hasattr(like, "__array_namespace__"):
        library = like.__array_namespace__()
    else:
        return result
    array = np.asarray(result)
    return library.from_dlpack(array if array.dtype.kind != "V" else dlpack.Bfloat16(array))


def _is_kind(value: object, library: str) -> bool:
    """Tell a tensor of a library, which nobody has if it is not imported."""
    return isinstance(value, getattr(sys.modules.get(library), "Tensor", ()))


def _view(value: Any, name: str) -> Array:
    if _is_kind(value, "torch"):
        value = value.detach()
        with suppress(TypeError):  # elsewhere, or of a dtype that NumPy has not
            return cast("Array", value.numpy())
    if hasattr(value, "__dlpack__") and not _is_kind(value, "tensorflow"):  # to export its text would end the process
        return _from_dlpack(value, name)
    _require_host(value, name)
    return np.asarray(value)


def _from_dlpack(value: Any, name: str) -> Array:
    try:
        tensor = dlpack.read(value)
    except (BufferError, RuntimeError, TypeError, ValueError):
        _require_host(value, name)
        if not hasattr(value, "__array__"):
            raise
        return np.asarray(value)
    _require_host_type(tensor.device[0], name)
    return dlpack.view(tensor, bfloat16(name) if tensor.dtype == "bfloat16" else np.dtype(tensor.dtype))


def _require_host(value: Any, name: str) -> None:
    if hasattr(value, "__dlpack_device__"):
        try:
            kind = int(value.__dlpack_device__()[0])
        except (BufferError, RuntimeError, ValueError) as error:
            raise DeviceError(f"{name} is not in host memory, nor anywhere that DLPack knows: {error}") from error
        _require_host_type(kind, name)
    elif hasattr(value, "__cuda_array_interface__"):
        _require_host_type(dlpack.CUDA, name)


def _require_host_type(kind: int, name: str) -> None:
    if kind not in dlpack.HOST:
        where = "a CUDA device" if kind == dlpack.CUDA else f"a device of DLPack type {kind}"
        raise DeviceError(f"{name} is on {where}, expected host memory: this version has no kernels for it")


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
