"""A lane: a stream, and a pinned and a card's buffer that mirror each other, which grow to what is asked of them."""

from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from .arrays import CardArray, packed
from .card import Card, Memory, Pinned
from .pending import Slot

Shape = tuple[int, ...]

_ALIGNED = 256
_LEAST = 1 << 20
_DIRECT = 1 << 16  # bytes; to ask about less takes longer than to copy it


class Lane:
    """Streams and buffers for one block at a time. The card must be current."""

    def __init__(self, card: Card) -> None:
        self.card, self.stream = card, card.new_stream()
        self.slot: Slot = card.pending.take()
        self.backend = card.backend(self.stream, self.slot.address)
        self.work: Any = None
        self._host: Pinned = card.pinned(_LEAST)
        self._card: Memory = card.allocate(_LEAST, self.stream)
        self._at = 0

    @classmethod
    def take(cls, card: Card) -> "Lane":
        """Take a lane that nobody uses, or a new one."""
        try:
            lane: Lane = card.lanes.pop()
        except IndexError:
            return cls(card)
        return lane

    def release(self) -> None:
        """Give it back, when the card is done with it."""
        self.work = None
        with suppress(self.card.failures):  # what it was is on its way to the caller
            self.card.wait_for_stream(self.stream)
            self.slot.clean()
            self.card.lanes.append(self)

    def reset(self, nbytes: int) -> None:
        """Begin anew, with room for so many bytes; what the buffers hold may be lost."""
        self._at = 0
        if self._host.nbytes < nbytes:
            size = -(-nbytes // _LEAST) * _LEAST
            self._host, self._card = self.card.pinned(size), self.card.allocate(size, self.stream)

    def place(self, shape: Shape, dtype: Any) -> tuple[npt.NDArray[Any], CardArray]:
        """Give the next part of both buffers, as contiguous arrays."""
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        start, self._at = self._at, padded(self._at + size)
        address = self._card.address + start
        there = CardArray(address, shape, packed(shape, dtype.itemsize), dtype, self.card.index, stream=self.stream)
        return self._host.array(shape, dtype, start, size), there

    def is_direct(self, array: npt.NDArray[Any]) -> bool:
        """Tell an array that need not pass through this lane's own host buffer: pinned already, and in C order."""
        plain = array.flags.c_contiguous and array.dtype.isnative and array.nbytes >= _DIRECT
        return plain and self.card.is_pinned(array.ctypes.data)

    def send(self, there: CardArray, here: npt.NDArray[Any]) -> None:
        """Enqueue the copy of a contiguous array to the card."""
        self.card.copy(there.address, here.ctypes.data, here.nbytes, self.stream)

    def fetch(self, there: CardArray, here: npt.NDArray[Any]) -> None:
        """Enqueue the copy of a contiguous array from the card."""
        self.card.copy(here.ctypes.data, there.address, there.nbytes, self.stream)


def padded(nbytes: int) -> int:
    """Round up to where the next array begins."""
    return -(-nbytes // _ALIGNED) * _ALIGNED
