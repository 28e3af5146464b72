"""An array on a card: where it lies and how. Views are made here; nothing touches an element."""

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Bfloat16:
    """What a dtype of NumPy tells of itself, for bfloat16 where ml_dtypes is missing: on a card it is not needed."""

    name: str = "bfloat16"
    kind: str = "V"
    char: str = "E"
    str: str = "<V2"
    itemsize: int = 2
    isnative: bool = True

    def newbyteorder(self, _order: Any = "S") -> "Bfloat16":
        """Return itself: there is one byte order on a card."""
        return self

    def __str__(self) -> Any:
        return self.name


class CardArray:
    """An array on a CUDA device, which nobody changes.

    ``strides`` are in bytes, ``device`` is the number of the card, and ``stream`` the one on which its elements are
    ready. ``owner`` keeps the memory, or is what the caller gave. ``kind`` is the library whose allocator gives results
    beside it: "torch", "cupy", "numba", or none of them.
    """

    # A frozen dataclass would take several times as long to make, and a small call makes a dozen.
    __slots__ = ("address", "device", "dtype", "kind", "owner", "readonly", "shape", "stream", "strides")

    def __init__(
        self, address: int, shape: Shape, strides: Shape, dtype: Any, device: int, readonly: bool = False,
        owner: Any = None, stream: int = 0, kind: str = "",
    ) -> None:  # fmt: skip
        self.address, self.shape, self.strides, self.dtype = address, shape, strides, dtype
        self.device, self.readonly, self.owner, self.stream, self.kind = device, readonly, owner, stream, kind

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        """The bytes of an element."""
        size: int = self.dtype.itemsize
        return size

    @property
    def nbytes(self) -> int:
        """The bytes of all elements."""
        return self.size * self.itemsize

    @property
    def contiguous(self) -> bool:
        """Tell whether its elements lie side by side, in C order."""
        return self.strides == packed(self.shape, self.dtype.itemsize) or _merges(
            self.shape, self.strides, self.itemsize
        )

    @property
    def aligned(self) -> bool:
        """Tell whether every element lies at a multiple of its size, as kernels take them."""
        size = self.dtype.itemsize
        return not (self.address % size or any(stride % size for stride in self.strides))

    def seen(self, address: int, shape: Shape, strides: Shape, dtype: Any = None) -> "CardArray":
        """View other elements of the same memory."""
        dtype = dtype or self.dtype
        return CardArray(
            address, shape, strides, dtype, self.device, self.readonly, self.owner, self.stream, self.kind
        )  # fmt: skip

    def astype(self, dtype: Any) -> "CardArray":
        """View what has no elements in another dtype."""
        return self.seen(self.address, self.shape, packed(self.shape, dtype.itemsize), dtype)

    def reshape(self, *shape: Any) -> "CardArray":
        """View it in another shape, which may have one length of -1.

        Raises
        ------
        ValueError
            If there is no such view.
        """
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        if wanted == self.shape:
            return self
        wanted, strides = _view(self.shape, self.strides, wanted, self.dtype.itemsize)
        if strides is None:
            raise ValueError(f"an array of shape {self.shape} and strides {self.strides} has no view of shape {wanted}")
        return self.seen(self.address, wanted, strides)

    def ravel(self) -> "CardArray":
        """View it flat, if there is such a view."""
        return self.reshape((-1,))

    def broadcast_to(self, shape: Shape) -> "CardArray":
        """View it repeated along axes of length 1, and new ones in front; ValueError as NumPy's."""
        missing = len(shape) - self.ndim
        lengths = (1,) * missing + self.shape
        if missing < 0 or any(have not in (1, want) for have, want in zip(lengths, shape, strict=True)):
            raise ValueError(f"an array of shape {self.shape} does not broadcast to {shape}")
        steps = (0,) * missing + self.strides
        strides = tuple([0 if have == 1 else step for have, step in zip(lengths, steps, strict=True)])
        return self.seen(self.address, tuple(shape), strides)

    def distinct(self) -> "CardArray":
        """View it without repetitions: axes of stride 0 have length 1."""
        if 0 not in self.strides:
            return self
        return self[tuple([slice(None, None if stride else 1) for stride in self.strides])]

    def __getitem__(self, index: Any) -> "CardArray":
        """View a part, by slices in steps of 1."""
        address, shape, strides = self.address, [], []
        whole = (*index, *(slice(None),) * (self.ndim - len(index))) if isinstance(index, tuple) else (index,)
        whole = whole + (slice(None),) * (self.ndim - len(whole))
        for cut, length, stride in zip(whole, self.shape, self.strides, strict=True):
            start, stop, _ = cut.indices(length)
            address += start * stride
            shape.append(max(stop - start, 0))
            strides.append(stride)
        return self.seen(address, tuple(shape), tuple(strides))

    def extent(self) -> npt.NDArray[Any]:
        """An array of NumPy's of the same addresses, for arithmetic on them: its elements must not be touched."""
        interface = {
            "version": 3,
            "typestr": self.dtype.str,
            "shape": self.shape,
            "strides": self.strides,
            "data": (self.address, self.readonly),
        }
        return np.asarray(type("Extent", (), {"__array_interface__": interface, "owner": self.owner})())

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """For libraries that read CUDA's array interface."""
        return {
            "version": 3,
            "typestr": self.dtype.str,
            "shape": self.shape,
            "strides": None if self.contiguous else self.strides,
            "data": (self.address if self.size else 0, self.readonly),
            "stream": self.stream or 1,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """Tell where it is."""
        return 2, self.device

    def __dlpack__(self, *, stream: int | None = None, **options: Any) -> Any:
        """Export it to the stream of whoever asks: what is enqueued there from now on finds it ready."""
        from ..dlpack import exported
        from .card import card

        if stream != -1:
            with card(self.device) as place:
                place.follow(1 if stream is None else stream, self.stream)
        return exported(self.extent(), self.__dlpack_device__(), self.dtype.name, **options)


@lru_cache(maxsize=1024)
def packed(shape: Shape, itemsize: int) -> Shape:
    """Return the strides of a C-contiguous array."""
    strides, step = [], itemsize
    for length in reversed(shape):
        strides.append(step)
        step *= length
    return tuple(reversed(strides))


def view_strides(shape: Shape, strides: Shape, wanted: Shape, itemsize: int) -> Shape | None:
    """Find the strides of a view of another shape with as many elements; None where there is no such view."""
    if not prod(shape):
        return packed(wanted, itemsize)
    old = [(length, stride) for length, stride in zip(shape, strides, strict=True) if length != 1]
    found: list[int] = []
    at, new = 0, 0
    while new < len(wanted):
        if wanted[new] == 1:
            found.append(old[at - 1][1] if at else itemsize)
            new += 1
            continue
        # the shortest run of old axes, and of new ones, with equally many elements
        first_old, first_new = at, new
        have, want = old[at][0], wanted[new]
        at, new = at + 1, new + 1
        while have != want:
            if have < want:
                have, at = have * old[at][0], at + 1
            else:
                want, new = want * wanted[new], new + 1
        if any(old[k][1] != old[k + 1][1] * old[k + 1][0] for k in range(first_old, at - 1)):
            return None
        found.extend(packed(wanted[first_new:new], old[at - 1][1]))
    return tuple(found)


@lru_cache(maxsize=1024)
def _view(shape: Shape, strides: Shape, wanted: Shape, itemsize: int) -> tuple[Shape, Shape | None]:
    """Resolve a length of -1, and find the strides of a view."""
    size = prod(shape)
    if -1 in wanted:
        known = -prod(wanted)
        wanted = tuple([(size // known if known else 0) if length == -1 else length for length in wanted])
    if prod(wanted) != size:
        raise ValueError(f"an array of {size} elements has no view of shape {wanted}")
    return wanted, view_strides(shape, strides, wanted, itemsize)


@lru_cache(maxsize=1024)
def _merges(shape: Shape, strides: Shape, itemsize: int) -> bool:
    """Tell whether strides are those of C order but for axes that do not count."""
    steps = zip(shape, strides, packed(shape, itemsize), strict=True)
    return not prod(shape) or all(n == 1 or s == t for n, s, t in steps)
