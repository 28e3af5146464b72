"""Reading ``.npy`` and ``.npz`` arrays block by block.

Nothing here holds a whole array. A ``.npy`` file, or a stored (uncompressed) member of an ``.npz`` archive, is
memory-mapped anew for every block, so that the pages of the last block are given back; a compressed member is
decompressed as a stream.
"""

import lzma
import math
import mmap
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from .arrays import Array
from .errors import FileError

Index = tuple[slice, ...]

_PIECE = 1 << 20
_LOCAL_HEADER = 30  # bytes of a zip member's own header before its name and extra field (PKWARE APPNOTE, 4.3.7)
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class ArrayFile:
    """An array on disk: what its header says, and where its elements start.

    Attributes
    ----------
    name : str
        The file as the caller named it, for messages.
    path : Path
        The ``.npy`` file or the ``.npz`` archive.
    member : str or None
        The member of the archive when it is compressed; ``None`` when the elements lie in ``path`` as they are.
    offset : int
        Bytes before the first element, in ``path`` or in the decompressed member.
    shape, dtype, fortran
        As in the array's header.
    """

    name: str
    path: Path
    member: str | None
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    def blocks(self, indices: Iterable[Index]) -> Iterator[Array]:
        """Yield the array at each index in turn, read-only or a copy, and aligned.

        Raises
        ------
        FileError
            A compressed member is damaged, or the file cannot be read any more.
        """
        try:
            with self.path.open("rb") as file:
                if self.member is None:
                    yield from self._mapped(file, self.offset, indices)
                else:
                    yield from self._decompressed(file, self.member, iter(indices))
        except OSError as error:
            raise FileError(f"{self.name}: cannot be read: {error.strerror or error}") from error
        except _DAMAGED as error:
            raise FileError(f"{self.name}: is damaged: {error}") from error

    def _mapped(self, file: IO[bytes], offset: int, indices: Iterable[Index]) -> Iterator[Array]:
        for index in indices:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if len(pages) < offset + math.prod(self.shape) * self.dtype.itemsize:
                raise EOFError("it has been truncated since it was opened")
            whole: Array = np.ndarray(self.shape, self.dtype, pages, offset, order="F" if self.fortran else "C")
            yield np.require(whole[index], requirements="A")
            del whole, pages

    def _decompressed(self, file: IO[bytes], member: str, indices: Iterator[Index]) -> Iterator[Array]:
        with zipfile.ZipFile(file) as archive, archive.open(member) as stream:
            first = list(islice(indices, 1))  # the blocks follow one another in the file if the first one is one run
            if not self.fortran and all(_contiguous(index, self.shape) for index in first):
                stream.read(self.offset)
                for index in chain(first, indices):
                    yield _read_block(stream, [s.stop - s.start for s in index], self.dtype)
                stream.read(1)  # the checksum is compared at the end of the member
            else:
                with tempfile.TemporaryFile() as spill:
                    shutil.copyfileobj(stream, spill, _PIECE)
                    spill.flush()
                    yield from self._mapped(spill, self.offset, chain(first, indices))


def open_array(spec: str, keys: Sequence[str]) -> ArrayFile:
    """Read the header of an array file and check it against the file's size.

    Parameters
    ----------
    spec : str
        A ``.npy`` file, an ``.npz`` archive, or ``ARCHIVE::NAME`` for one array of an archive.
    keys : sequence of str
        The names to look for, in this order, in an archive of several arrays.

    Raises
    ------
    FileError
        The file is missing, is neither ``.npy`` nor ``.npz``, is truncated or damaged, holds Python objects, or does
        not hold the named array.
    """
    filename, _, key = spec.partition("::")
    path = Path(filename)
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            file.seek(0)
            if magic.startswith(b"PK"):
                return _open_member(spec, path, file, [key] if key else keys, named=bool(key))
            if key:
                raise FileError(f"{spec}: {filename} is not an .npz archive, so it has no array {key!r}")
            shape, dtype, fortran = _read_header(spec, file)
            offset = file.tell()
            _check_size(spec, shape, dtype, os.fstat(file.fileno()).st_size - offset)
            return ArrayFile(spec, path, None, offset, shape, dtype, fortran)
    except OSError as error:
        raise FileError(f"{spec}: cannot be read: {error.strerror or error}") from error
    except _DAMAGED as error:
        raise FileError(f"{spec}: is damaged: {error}") from error


def _open_member(spec: str, path: Path, file: IO[bytes], keys: Sequence[str], *, named: bool) -> ArrayFile:
    with zipfile.ZipFile(file) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        key = names[0] if len(names) == 1 and not named else next((key for key in keys if key in names), None)
        if key is None:
            held, wanted = ", ".join(map(repr, names)) or "no array", " or ".join(map(repr, keys))
            raise FileError(f"{spec}: holds {held}, expected {wanted}; name an array with ARCHIVE::NAME")
        info = archive.infolist()[names.index(key)]
        with archive.open(info) as stream:
            shape, dtype, fortran = _read_header(spec, stream)
            offset = stream.tell()
    _check_size(spec, shape, dtype, info.file_size - offset)
    if info.compress_type != zipfile.ZIP_STORED:
        return ArrayFile(spec, path, info.filename, offset, shape, dtype, fortran)
    start = _member_start(file, info)
    _check_size(spec, shape, dtype, os.fstat(file.fileno()).st_size - start - offset)
    return ArrayFile(spec, path, None, start + offset, shape, dtype, fortran)


def _member_start(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER)
    name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    return info.header_offset + _LOCAL_HEADER + name + extra


def _read_header(name: str, stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        shape, fortran, dtype = readers[np.lib.format.read_magic(stream)](stream)
    except OSError:
        raise
    except Exception as error:  # a damaged header fails NumPy's parser in any way
        raise FileError(f"{name}: is not a .npy array, or its header is damaged: {error}") from error
    if dtype.hasobject:
        raise FileError(f"{name}: holds pickled Python objects, expected numbers")
    if min(shape, default=0) < 0:
        raise FileError(f"{name}: its header is damaged: shape {shape}")
    return shape, dtype, fortran and len(shape) > 1


def _check_size(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], size: int) -> None:
    expected = math.prod(shape) * dtype.itemsize
    if size < expected:
        raise FileError(f"{name}: is truncated: {size} bytes of elements, expected {expected} for {dtype} {shape}")


def _contiguous(index: Index, shape: tuple[int, ...]) -> bool:
    lengths = [s.stop - s.start for s in index]
    first = next((axis for axis, length in enumerate(lengths) if length > 1), len(shape))
    return lengths[first + 1 :] == list(shape[first + 1 :])


def _read_block(stream: IO[bytes], shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    block: Array = np.empty(math.prod(shape) * dtype.itemsize, np.uint8)
    filled = 0
    while filled < block.size:
        piece = stream.read(min(_PIECE, block.size - filled))
        if not piece:
            raise EOFError("it ends before its last element")
        block[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
        filled += len(piece)
    return block.view(dtype).reshape(shape)
