"""Writing results: a file is replaced when its successor is whole, and not before."""

import os
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from .arrays import Array
from .errors import FileError
from .layout import Shape

Dtypes = Mapping[str, np.dtype[Any]]
Append = Callable[[Mapping[str, Array]], None]

_SPILL_AFTER = 1 << 24  # bytes of a column that are kept in memory before they go to a temporary file


@contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """A new file, in the folder of ``path``, that takes the place of ``path`` when whole and vanishes when not.

    Raises
    ------
    FileError
        The file cannot be made or written (no such folder, no permission, disk full). An older file is untouched.
    """
    target = Path(path).resolve()
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink()


def write_columns(path: str, shape: Shape, dtypes: Dtypes) -> AbstractContextManager[Append]:
    """Write equally shaped arrays, in bounded memory, as their rows become known.

    Parameters
    ----------
    path : str
        ``*.npz``: one array a column. ``*.npy``: one structured array with a field a column.
    shape : tuple of int
        The shape of every array; rows are appended in C order.
    dtypes : mapping of str to dtype
        The columns.

    Returns
    -------
    context manager
        It gives the function that appends a block of rows to every column, and replaces ``path`` when it ends well.
    """
    return (_write_npz if path.endswith(".npz") else _write_npy)(path, shape, dtypes)


@contextmanager
def _write_npy(path: str, shape: Shape, dtypes: Dtypes) -> Iterator[Append]:
    record = np.dtype(list(dtypes.items()))
    with replacing(path) as file:
        _write_header(file, shape, record)

        def append(columns: Mapping[str, Array]) -> None:
            records = np.empty(columns[next(iter(dtypes))].size, record)
            for name in dtypes:
                records[name] = columns[name].ravel()
            file.write(records.view(np.uint8).data)

        yield append


@contextmanager
def _write_npz(path: str, shape: Shape, dtypes: Dtypes) -> Iterator[Append]:
    folder = str(Path(path).resolve().parent)
    with replacing(path) as file, ExitStack() as stack:
        # the members of an archive follow one another, so each column waits until it is whole
        spills = {name: stack.enter_context(tempfile.SpooledTemporaryFile(_SPILL_AFTER, dir=folder)) for name in dtypes}

        def append(columns: Mapping[str, Array]) -> None:
            for name, spill in spills.items():
                spill.write(np.ascontiguousarray(columns[name], dtypes[name]).reshape(-1).view(np.uint8).data)

        yield append
        with zipfile.ZipFile(file, "w") as archive:
            for name, spill in spills.items():
                spill.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    _write_header(member, shape, dtypes[name])
                    shutil.copyfileobj(spill, member)


def _write_header(stream: IO[bytes], shape: Shape, dtype: np.dtype[Any]) -> None:
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
