"""A custom call of XLA's, on the host: operands are NumPy views of its buffers, and results go where it wants them.

``jax.pure_callback`` copies operands and results, some of them twice, and needs a thread of the pool that waits for it.
A custom call is handed the buffers themselves. XLA's foreign function interface for it is C; cffi reads its structures,
so that no compiler is needed.
"""

from collections.abc import Callable
from typing import Any

import cffi
import jax
import ml_dtypes
import numpy as np

from .arrays import Array
from .errors import FusedLossError
from .layout import Shape
from .vjp import Unreduced

# From xla/ffi/api/c_api.h, which jaxlib ships; fields after those used here are left out. XLA appends to them only.
STRUCTURES = """
typedef int XLA_FFI_ArgType;
typedef int XLA_FFI_AttrType;
typedef int XLA_FFI_DataType;
typedef int XLA_FFI_Error_Code;
typedef int XLA_FFI_ExecutionStage;
typedef int XLA_FFI_Extension_Type;
typedef int XLA_FFI_RetType;
typedef uint32_t XLA_FFI_Handler_Traits;
typedef struct XLA_FFI_Error XLA_FFI_Error;
typedef struct XLA_FFI_ExecutionContext XLA_FFI_ExecutionContext;
typedef struct XLA_FFI_InternalApi XLA_FFI_InternalApi;

typedef struct XLA_FFI_Extension_Base {
  size_t struct_size;
  XLA_FFI_Extension_Type type;
  struct XLA_FFI_Extension_Base* next;
} XLA_FFI_Extension_Base;

typedef struct XLA_FFI_Api_Version {
  size_t struct_size;
  XLA_FFI_Extension_Base* extension_start;
  int major_version;
  int minor_version;
} XLA_FFI_Api_Version;

typedef struct XLA_FFI_Metadata {
  size_t struct_size;
  XLA_FFI_Api_Version api_version;
  XLA_FFI_Handler_Traits traits;
} XLA_FFI_Metadata;

typedef struct XLA_FFI_Metadata_Extension {
  XLA_FFI_Extension_Base extension_base;
  XLA_FFI_Metadata* metadata;
} XLA_FFI_Metadata_Extension;

typedef struct XLA_FFI_Error_Create_Args {
  size_t struct_size;
  XLA_FFI_Extension_Base* extension_start;
  const char* message;
  XLA_FFI_Error_Code errc;
} XLA_FFI_Error_Create_Args;

typedef XLA_FFI_Error* XLA_FFI_Error_Create(XLA_FFI_Error_Create_Args* args);

typedef struct XLA_FFI_Api {
  size_t struct_size;
  XLA_FFI_Extension_Base* extension_start;
  XLA_FFI_Api_Version api_version;
  const XLA_FFI_InternalApi* internal_api;
  XLA_FFI_Error_Create* XLA_FFI_Error_Create;
} XLA_FFI_Api;

typedef struct XLA_FFI_Buffer {
  size_t struct_size;
  XLA_FFI_Extension_Base* extension_start;
  XLA_FFI_DataType dtype;
  void* data;
  int64_t rank;
  int64_t* dims;
} XLA_FFI_Buffer;

typedef struct XLA_FFI_ByteSpan {
  const char* ptr;
  size_t len;
} XLA_FFI_ByteSpan;

typedef struct XLA_FFI_Args {
  size_t struct_size;
  XLA_FFI_Extension_Base* extension_start;
  int64_t size;
  XLA_FFI_ArgType* types;
  void** args;
} XLA_FFI_Args;

typedef struct XLA_FFI_Rets {
  size_t struct_size;
  XLA_FFI_Extension_Base* extension_start;
  int64_t size;
  XLA_FFI_RetType* types;
  void** rets;
} XLA_FFI_Rets;

typedef struct XLA_FFI_Attrs {
  size_t struct_size;
  XLA_FFI_Extension_Base* extension_start;
  int64_t size;
  XLA_FFI_AttrType* types;
  XLA_FFI_ByteSpan** names;
  void** attrs;
} XLA_FFI_Attrs;

typedef struct XLA_FFI_CallFrame {
  size_t struct_size;
  XLA_FFI_Extension_Base* extension_start;
  const XLA_FFI_Api* api;
  XLA_FFI_ExecutionContext* ctx;
  XLA_FFI_ExecutionStage stage;
  XLA_FFI_Args args;
  XLA_FFI_Rets rets;
  XLA_FFI_Attrs attrs;
} XLA_FFI_CallFrame;

typedef XLA_FFI_Error* XLA_FFI_Handler(XLA_FFI_CallFrame* call_frame);
"""

_MAJOR_VERSION = 0
_METADATA = 1  # XLA_FFI_Extension_Metadata
_INVALID_ARGUMENT, _INTERNAL = 3, 13  # of XLA_FFI_Error_Code
_DTYPES = {  # XLA_FFI_DataType
    number: np.dtype(dtype)
    for number, dtype in {
        1: np.bool_, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 6: np.uint8, 7: np.uint16, 8: np.uint32,
        9: np.uint64, 10: np.float16, 11: np.float32, 12: np.float64, 16: ml_dtypes.bfloat16,
    }.items()
}  # fmt: skip
_CALLS: dict[str, tuple[Callable[..., Array], int]] = {  # and how many operands they take
    "value": (Unreduced.value, 2),
    "vjp": (Unreduced.vjp, 3),
}

_ffi = cffi.FFI()
_ffi.cdef(STRUCTURES)


def call(kind: str, loss: Unreduced, shape: Shape, dtype: Any, *operands: jax.Array, in_place: bool = False) -> Any:
    """Put the method ``kind`` of a loss into the program: of the first operands it needs, into a new buffer.

    Operands after those only order the program. ``in_place`` lets the result take the place of the first operand, where
    that is not used any more; XLA copies it first otherwise.
    """
    custom_call = jax.ffi.ffi_call(
        "fusedloss", jax.ShapeDtypeStruct(shape, dtype), vmap_method="broadcast_all",
        input_output_aliases={0: 0} if in_place else None,
    )  # fmt: skip
    return custom_call(*operands, kind=kind, loss=loss.to_json())


@_ffi.callback("XLA_FFI_Handler")
def _handler(frame: Any) -> Any:
    try:
        extension = frame.extension_start
        if extension and extension.type == _METADATA:
            _describe(frame.api, _ffi.cast("XLA_FFI_Metadata_Extension*", extension).metadata.api_version)
        else:
            _run(frame)
    except BaseException as error:  # nothing may be raised into XLA
        code = _INVALID_ARGUMENT if isinstance(error, FusedLossError) else _INTERNAL
        return _error(frame.api, f"{type(error).__name__}: {error}", code)
    return _ffi.NULL


def _describe(api: Any, version: Any) -> None:
    """Tell the version of the interface that is spoken here: any minor one, since structures are only appended to."""
    version.major_version = _MAJOR_VERSION
    version.minor_version = api.api_version.minor_version if api else 1


def _run(frame: Any) -> None:
    attributes = frame.attrs
    kind, loss = (_text(attributes.attrs[n]) for n in range(2))  # sorted by name
    compute, count = _CALLS[kind]
    operands = [_view(frame.args.args[n]) for n in range(count)]
    compute(Unreduced.from_json(loss), *operands, out=_view(frame.rets.rets[0]))


def _text(attribute: Any) -> str:
    span = _ffi.cast("XLA_FFI_ByteSpan*", attribute)
    return bytes(_ffi.buffer(span.ptr, span.len)).decode()


def _view(pointer: Any) -> Array:
    buffer = _ffi.cast("XLA_FFI_Buffer*", pointer)
    dtype, shape = _DTYPES[buffer.dtype], tuple(buffer.dims[0 : buffer.rank])
    memory = _ffi.buffer(buffer.data, dtype.itemsize * int(np.prod(shape, dtype=np.int64)))
    return np.ndarray(shape, dtype, memory)


def _error(api: Any, message: str, code: int) -> Any:
    text = _ffi.new("char[]", message.encode())
    arguments = _ffi.new("XLA_FFI_Error_Create_Args*", {"message": text, "errc": code})
    arguments.struct_size = _ffi.sizeof("XLA_FFI_Error_Create_Args")
    return api.XLA_FFI_Error_Create(arguments)


jax.ffi.register_ffi_target("fusedloss", jax.ffi.pycapsule(int(_ffi.cast("uintptr_t", _handler))), platform="cpu")
