"""Adopting the caller's arrays without a copy, and giving back results of the caller's kind.

Arrays are NumPy's in host memory, and ``CardArray`` on a CUDA device; whoever need not know which has functions here
for what the two do apart. No framework is imported here: its module is looked up in ``sys.modules`` when one of its
arrays arrives.
"""

import math
import sys
from contextlib import suppress
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from . import blocks, cuda, dlpack
from .cuda.arrays import CardArray
from .errors import DeviceError, DTypeError, FusedLossError, ShapeError

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

_PROTOCOLS = ("__array_interface__", "__array__", "__dlpack__", "__cuda_array_interface__")


def adopt(value: Any, name: str) -> Any:
    """View the caller's array as one of NumPy's, or of a card; lists and scalars are converted as NumPy does.

    Parameters
    ----------
    value : array_like
        A NumPy array, a list, anything with ``__dlpack__``, ``__array_interface__`` or ``__array__`` on the host, or
        with ``__dlpack__`` or ``__cuda_array_interface__`` on a CUDA device.
    name : str
        What the caller knows it as.

    Raises
    ------
    DeviceError
        If the array is neither in host memory nor on a CUDA device.
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


def beside(array: Any, given: Any, name: str, x: Any, of: str) -> Any:
    """Require an array on the device of ``x``, which is ``of`` the caller; what was a list or a scalar goes there.

    Raises
    ------
    DeviceError
        If it is on another device.
    """
    if type(array) is type(x) and (type(x) is not CardArray or array.device == x.device):
        return array
    if type(x) is CardArray and (isinstance(given, np.generic) or not is_array(given)):
        return cuda.module("calls").send(array, x)
    raise DeviceError(f"{name} is {_whereabouts(array)}, expected {_whereabouts(x)}, where {of} {_are(of)}")


def _whereabouts(array: Any) -> str:
    return f"on cuda:{array.device}" if isinstance(array, CardArray) else "in host memory"


def _are(name: str) -> str:
    return "are" if name.endswith("s") else "is"


def on_card(array: Any) -> bool:
    """Tell an array of a card from one in host memory."""
    return type(array) is CardArray


def on_host(array: Any) -> Array:
    """Fetch an array from its card, where it is on one."""
    if not on_card(array):
        return cast("Array", array)
    return cast("Array", cuda.module("calls").fetch(array))


def flat(array: Any) -> Any:
    """Ravel an array; one of a card stays as it is: what takes it sees to its form."""
    return array if on_card(array) else array.ravel()


def spread(array: Any, shape: Shape) -> Any:
    """Broadcast an array, without a copy; ValueError if it does not."""
    return array.broadcast_to(shape) if on_card(array) else np.broadcast_to(array, shape)


def element(array: Any, number: int) -> Any:
    """Read an element by its number in C order."""
    index = np.unravel_index(number, array.shape)
    if not on_card(array):
        return array[index]
    return cuda.module("calls").read(array, sum(int(at) * step for at, step in zip(index, array.strides, strict=True)))


def is_readonly(array: Any) -> bool:
    """Tell whether an array must not be written to."""
    return bool(array.readonly) if on_card(array) else not array.flags.writeable


def addresses(array: Any) -> Array:
    """Give an array of NumPy's with the same addresses: for arithmetic on them alone."""
    return cast("Array", array.extent() if on_card(array) else array)


_NUMPYS = np.ndarray, np.generic  # a union would be looked into at every call


def give(result: Any, like: Any) -> Any:
    """Turn a result into the kind of array that ``like``, the caller's own, is; without a copy where that can."""
    if on_card(result):
        return cuda.module("kinds").give(result, like)
    if isinstance(like, _NUMPYS):
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


def _view(value: Any, name: str) -> Any:
    if _is_kind(value, "torch"):
        if value.is_cuda:
            return cuda.module("adopting").adopt_torch(value, name)
        value = value.detach()
        with suppress(TypeError):  # elsewhere, or of a dtype that NumPy has not
            return cast("Array", value.numpy())
    if (card_array := _on_card(value, name)) is not None:
        return card_array
    if hasattr(value, "__dlpack__") and not _is_kind(value, "tensorflow"):  # to export its text would end the process
        return _from_dlpack(value, name)
    _require_host(value, name)
    return np.asarray(value)


def _on_card(value: Any, name: str) -> CardArray | None:
    """Adopt what lies on a CUDA device; None for all else."""
    if not hasattr(value, "__cuda_array_interface__"):
        try:
            if int(value.__dlpack_device__()[0]) != dlpack.CUDA:
                return None
        except (AttributeError, BufferError, RuntimeError, TypeError, ValueError):
            return None
    return cast("CardArray | None", cuda.module("adopting").adopt(value, name))


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


def _require_host_type(kind: int, name: str) -> None:
    if kind not in dlpack.HOST:
        where = f"a device of DLPack type {kind}, expected host memory or a CUDA device"
        raise DeviceError(f"{name} is on {where}: this version has no kernels for it")


def bfloat16(name: str) -> np.dtype[Any]:
    """Find NumPy's bfloat16, which ``name`` needs."""
    try:
        import ml_dtypes
    except ModuleNotFoundError as error:
        raise DTypeError(f"{name} is bfloat16, which needs the package ml_dtypes, not installed here") from error
    return cast("np.dtype[Any]", np.dtype(ml_dtypes.bfloat16))


def empty(shape: Shape, dtype: np.dtype[Any], like: Any = None) -> Any:
    """Return a new C-contiguous array on the device of ``like``.

    A large one in host memory starts on a cache line, for kernels that write whole lines.
    """
    if on_card(like):
        return cuda.module("kinds").empty(shape, dtype, like)
    size = math.prod(shape) * dtype.itemsize
    if size < _LARGE:
        return np.empty(shape, dtype)
    if size >= blocks.LEAST:
        return blocks.take(size).view(dtype).reshape(shape)
    block = np.empty(size + _LINE, np.uint8)
    start = -block.ctypes.data % _LINE
    return block[start : start + size].view(dtype).reshape(shape)


_LARGE, _LINE = 1 << 20, 64
