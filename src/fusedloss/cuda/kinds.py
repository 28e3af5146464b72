"""Memory on the card for results, of the kind and from the allocator of the library whose arrays came in."""

import sys
from functools import lru_cache
from typing import Any

import numpy as np

from .adopting import bfloat16
from .arrays import CardArray, Shape, packed
from .card import card


def empty(shape: Shape, dtype: Any, like: CardArray) -> CardArray:
    """Allocate a contiguous array beside ``like``, in the order of its stream."""
    if like.kind == "torch":
        torch = sys.modules["torch"]
        tensor = torch.empty(shape, dtype=_to_torch()[dtype], device=like.owner.device)
        address = tensor.data_ptr()
        return CardArray(
            address, shape, packed(shape, dtype.itemsize), dtype, like.device, False, tensor, like.stream, "torch"
        )
    if like.kind == "cupy":
        cupy = sys.modules["cupy"]
        with cupy.cuda.Device(like.device):
            array = cupy.empty(shape, dtype)
        address = array.data.ptr
        return CardArray(
            address, shape, packed(shape, dtype.itemsize), dtype, like.device, False, array, like.stream, "cupy"
        )
    with card(like.device) as place:
        return place.allocate(np.prod(shape, dtype=np.int64) * dtype.itemsize, like.stream).array(
            shape, dtype, like.kind
        )


def give(result: CardArray, like: Any) -> Any:
    """Turn a result into the caller's kind of array, as ``like`` is; into itself where that is of no known library."""
    if result.kind in ("torch", "cupy"):
        return result.owner
    if result.kind == "numba":
        from numba import cuda

        view: Any = cuda.as_cuda_array
        return view(result, sync=False)
    if hasattr(like, "__array_namespace__"):
        return like.__array_namespace__().from_dlpack(result)
    return result


def is_captured(like: CardArray) -> bool:
    """Tell whether what is enqueued on PyTorch's current stream is captured into a CUDA graph."""
    return like.kind == "torch" and bool(sys.modules["torch"].cuda.is_current_stream_capturing())


@lru_cache(maxsize=1)
def _to_torch() -> dict[Any, Any]:
    torch = sys.modules["torch"]
    names = ("float16", "float32", "float64", "int8", "int64", "uint8")
    dtypes: dict[Any, Any] = {np.dtype(name): getattr(torch, name) for name in names}
    return dtypes | {bfloat16(): torch.bfloat16}
