"""DLPack: reading the tensor that any library describes in a capsule, and describing one to it. Nothing is copied.

The structs are those of DLPack 1.1's ``dlpack.h``, read by cffi in ABI mode, so that no compiler is needed and no
framework imported. A tensor whose library writes no version into its capsule cannot say whether it may be written to;
it is taken as read-only, as NumPy does.
"""

import ctypes
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

CUDA, HOST = 2, (1, 3, 11, 13)  # kDLCUDA; what the CPU can read: kDLCPU, kDLCUDAHost, kDLROCMHost, kDLCUDAManaged

_VERSION = 1, 1
_CAPSULES = {b"dltensor_versioned": "DLManagedTensorVersioned *", b"dltensor": "DLManagedTensor *"}
_USED = {name: b"used_" + name for name in _CAPSULES}  # a capsule does not keep its name alive
_READ_ONLY = 1
_MAX_AXES = 64
_BFLOAT, _BOOL = 4, 6
_KINDS = {
    0: ("int", (8, 16, 32, 64)),
    1: ("uint", (8, 16, 32, 64)),
    2: ("float", (16, 32, 64)),
    5: ("complex", (64, 128)),
}
_DTYPES = {(code, bits): f"{kind}{bits}" for code, (kind, sizes) in _KINDS.items() for bits in sizes}
_DTYPES |= {(_BFLOAT, 16): "bfloat16", (_BOOL, 8): "bool"}

_HEADER = """
typedef struct { uint32_t major, minor; } DLPackVersion;
typedef struct { int32_t device_type, device_id; } DLDevice;
typedef struct { uint8_t code, bits; uint16_t lanes; } DLDataType;
typedef struct {
    void *data;
    DLDevice device;
    int32_t ndim;
    DLDataType dtype;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} DLTensor;
typedef struct DLManagedTensor {
    DLTensor dl_tensor;
    void *manager_ctx;
    void (*deleter)(struct DLManagedTensor *);
} DLManagedTensor;
typedef struct DLManagedTensorVersioned {
    DLPackVersion version;
    void *manager_ctx;
    void (*deleter)(struct DLManagedTensorVersioned *);
    uint64_t flags;
    DLTensor dl_tensor;
} DLManagedTensorVersioned;
"""

# The interpreter's own functions must hold its lock, which cffi's calls release.
_capsule_name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_rename_capsule = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_SetName", ctypes.pythonapi)
)


class Tensor(NamedTuple):
    """What a capsule describes, on any device.

    ``address`` is that of the first element; ``strides`` are in elements, None where the order is C's; ``dtype`` is
    NumPy's name of it; ``device`` the type and the number of DLPack. When ``owner`` dies the tensor is given back.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    dtype: str
    device: tuple[int, int]
    readonly: bool
    owner: Any


def read(value: Any, **options: Any) -> Tensor:
    """Take over the tensor that an object with ``__dlpack__`` exports, which takes ``options``.

    Raises
    ------
    BufferError
        If what it exports is malformed, or of a dtype that NumPy has not; and what ``__dlpack__`` raises.
    """
    try:
        capsule = value.__dlpack__(max_version=_VERSION, **options)
    except TypeError:  # older than DLPack 1.0
        capsule = value.__dlpack__(**options)
    name, managed = _open(capsule)
    described = _describe(managed.dl_tensor)
    readonly = name == b"dltensor" or bool(managed.flags & _READ_ONLY)
    # From here on the tensor is ours to give back, once; before, it is the capsule's.
    _rename_capsule(capsule, _USED[name])
    owner = _ffi().gc(managed, managed.deleter) if managed.deleter else managed
    return Tensor(*described, readonly, owner)


def view(tensor: Tensor, dtype: np.dtype[Any]) -> Array:
    """View a tensor in host memory as an array, which keeps it.

    Raises
    ------
    ValueError, OverflowError
        If its shape or strides are not those of an array.
    """
    array = np.asarray(_Host(tensor, dtype))
    return array if array.dtype == dtype else array.view(dtype)


def exported(addresses: Array, device: tuple[int, int], dtype: str, **options: Any) -> Any:
    """Export what lies on a device: an array of NumPy's of the same addresses, and what is said of it.

    ``options`` are those of ``__dlpack__``.
    """
    capsule = (addresses.view(np.uint16) if dtype == "bfloat16" else addresses).__dlpack__(**options)
    tensor = _open(capsule)[1].dl_tensor
    tensor.device.device_type, tensor.device.device_id = device
    if dtype == "bfloat16":
        tensor.dtype.code = _BFLOAT
    return capsule


class Bfloat16:
    """A bfloat16 array as DLPack sees it; NumPy exports only dtypes of its own."""

    def __init__(self, array: Array) -> None:
        self._bits = array.view(np.uint16)

    def __dlpack__(self, **options: Any) -> Any:
        """Export the bits, and rename their dtype."""
        return exported(self._bits, self.__dlpack_device__(), "bfloat16", **options)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Tell where it is."""
        return self._bits.__dlpack_device__()


class _Host:
    """What NumPy takes a view of, and keeps."""

    def __init__(self, tensor: Tensor, dtype: np.dtype[Any]) -> None:
        strides = tensor.strides and tuple([step * dtype.itemsize for step in tensor.strides])
        self.owner = tensor.owner
        self.__array_interface__ = {
            "version": 3,
            "typestr": dtype.str,
            "shape": tensor.shape,
            "strides": strides,
            "data": (tensor.address, tensor.readonly),
        }


@lru_cache(maxsize=1)
def _ffi() -> Any:
    import cffi

    ffi = cffi.FFI()
    ffi.cdef(_HEADER)
    return ffi


def _open(capsule: Any) -> tuple[bytes, Any]:
    """Return the name of a capsule, and the struct in it."""
    try:
        name = _capsule_name(capsule)
    except ValueError:
        raise BufferError(f"__dlpack__ returned a {type(capsule).__name__}, expected a capsule") from None
    if name not in _CAPSULES:
        raise BufferError(f"its capsule is named {name!r}, expected one of {', '.join(map(repr, _CAPSULES))}")
    managed = _ffi().cast(_CAPSULES[name], _capsule_pointer(capsule, name))
    if name != b"dltensor" and managed.version.major != _VERSION[0]:
        # Nothing after the version may be read then.
        raise BufferError(f"it is of DLPack version {managed.version.major}, expected {_VERSION[0]}")
    return name, managed


def _describe(tensor: Any) -> tuple[int, tuple[int, ...], tuple[int, ...] | None, str, tuple[int, int]]:
    ffi, axes, kind = _ffi(), tensor.ndim, tensor.dtype
    if not 0 <= axes <= _MAX_AXES or (axes and not tensor.shape):
        raise BufferError(f"it has {axes} axes{'' if tensor.shape else ' and no shape'}, expected 0 to {_MAX_AXES}")
    dtype = _DTYPES.get((kind.code, kind.bits))
    if dtype is None or kind.lanes != 1:
        given = f"DLPack code {kind.code}, {kind.bits} bits and {kind.lanes} lanes"
        raise BufferError(f"its dtype is of {given}, expected one that NumPy has, or bfloat16")
    shape = tuple(ffi.unpack(tensor.shape, axes)) if axes else ()
    strides = tuple(ffi.unpack(tensor.strides, axes)) if axes and tensor.strides else None
    if not tensor.data and 0 not in shape:
        raise BufferError(f"its data is NULL, expected memory for shape {shape}")
    address = int(ffi.cast("uintptr_t", tensor.data)) + tensor.byte_offset
    return address, shape, strides, dtype, (tensor.device.device_type, tensor.device.device_id)
