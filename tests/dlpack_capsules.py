"""Capsules made by hand, with ctypes: whatever a library might export, and a count of what is given back."""

import ctypes
from typing import Any

import numpy as np

FLOAT32 = (2, 32, 1)
CODES = {"b": 6, "i": 0, "u": 1, "f": 2, "c": 5, "V": 4}


class Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )  # fmt: skip


class Managed(ctypes.Structure):
    _fields_ = (("tensor", Tensor), ("manager", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p), ("flags", ctypes.c_uint64), ("tensor", Tensor),
    )  # fmt: skip


_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)
_name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)(("PyCapsule_GetName", ctypes.pythonapi))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_producers: dict[
    int, "Producer"
] = {}  # by the address of their struct; kept, since what they export may outlive all else


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _give_back(address: int) -> None:
    _producers[address].returned += 1


@ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
def _destroy(capsule: int) -> None:
    """As every producer's: what nobody took over is given back with its capsule."""
    name = _name(capsule)
    if not name.startswith(b"used_"):
        _give_back(_pointer(capsule, name))


class Producer:
    """An array that exports itself as told, and counts how often it gets its tensor back.

    `fields` replace those of the struct or of the tensor in it; `options` are what ``__dlpack__`` takes.
    """

    def __init__(self, array: Any, *, versioned: bool = True, name: bytes | None = None, **fields: Any) -> None:
        self.array, self.returned, self.capsule = array, 0, None
        self.name = name or (b"dltensor_versioned" if versioned else b"dltensor")
        self._axes = [(ctypes.c_int64 * max(array.ndim, 1))(*each) for each in (array.shape, _steps(array))]
        self.managed = Versioned(major=1, minor=1) if versioned else Managed()
        self.managed.deleter = ctypes.cast(_give_back, ctypes.c_void_p).value
        _producers[ctypes.addressof(self.managed)] = self
        tensor = self.managed.tensor
        tensor.data, tensor.device_type, tensor.ndim = array.ctypes.data, 1, array.ndim
        tensor.code, tensor.bits, tensor.lanes = CODES[array.dtype.kind], 8 * array.itemsize, 1
        tensor.shape, tensor.strides = self._axes
        for field, value in fields.items():
            setattr(self.managed if hasattr(self.managed, field) else tensor, field, value)

    def __dlpack__(self, *, max_version: tuple[int, int] | None = None) -> Any:
        self.asked = max_version
        self.capsule = self.capsule or _new(
            ctypes.addressof(self.managed), self.name, ctypes.cast(_destroy, ctypes.c_void_p)
        )
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.managed.tensor.device_type, 0


class OldProducer(Producer):
    """One that knows nothing of versions."""

    def __init__(self, array: Any, **fields: Any) -> None:
        super().__init__(array, versioned=False, **fields)

    def __dlpack__(self) -> Any:  # type: ignore[override]
        return super().__dlpack__()


def _steps(array: np.ndarray) -> list[int]:
    return [stride // array.itemsize for stride in array.strides]
