"""What kernels find wrong is known when they are done, and no call waits for that: the next one raises it.

Each call has a slot of pinned memory. Kernels leave the least number that offends there, and the address that they are
given for one finding is never that of another.
"""

import ctypes
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import FusedLossError

if TYPE_CHECKING:
    from .card import Card, Pinned

CLEAN = (1 << 63) - 1
FINDINGS = 8  # numbers in a slot
_UNTOUCHED = CLEAN.to_bytes(8, sys.byteorder) * FINDINGS
_SLOTS = 64  # allocated at once

Explain = Callable[["Slot"], FusedLossError | None]


class Slot:
    """Where the kernels of one call report: the host sees ``numbers``, and kernels what is at ``address``."""

    __slots__ = ("address", "event", "numbers")

    def __init__(self, here: int, address: int, event: int) -> None:
        self.address, self.event = address, event
        self.numbers = (ctypes.c_int64 * FINDINGS).from_address(here)
        self.clean()

    @property
    def is_clean(self) -> bool:
        """Tell whether nothing was found."""
        return bytes(self.numbers) == _UNTOUCHED

    def clean(self) -> None:
        """Make it as if nothing had been found."""
        self.numbers[:] = [CLEAN] * FINDINGS

    def at(self, finding: int) -> int:
        """Give the address of a finding."""
        return self.address + 8 * finding

    def found(self, finding: int = 0) -> int:
        """Give the number that offends, or -1."""
        number: int = self.numbers[finding]
        return -1 if number == CLEAN else number

    def real(self, finding: int) -> float:
        """Read a float64."""
        value: float = ctypes.c_double.from_buffer(self.numbers, 8 * finding).value
        return value


class _InFlight(NamedTuple):
    slot: Slot
    explain: Explain
    kept: Any


class Pending:
    """The calls of a card whose kernels may not be done yet, oldest first. The card must be current."""

    def __init__(self, card: "Card") -> None:
        self._card = card
        self._lock = threading.Lock()
        self._memory: list[Pinned] = []
        self._free: list[Slot] = []
        self._in_flight: deque[_InFlight] = deque()
        self._standing: list[_InFlight] = []

    def take(self) -> Slot:
        """Take a slot."""
        try:
            return self._free.pop()
        except IndexError:
            memory = self._card.pinned(8 * FINDINGS * _SLOTS)
            self._memory.append(memory)
            starts = range(0, memory.nbytes, 8 * FINDINGS)
            slots = [Slot(memory.address + at, memory.on_card + at, self._card.new_event()) for at in starts]
            self._free += slots[1:]
            return slots[0]

    def give_back(self, slot: Slot) -> None:
        """Give back a slot that no kernel writes to any more."""
        if not slot.is_clean:
            slot.clean()
        self._free.append(slot)

    def add(self, slot: Slot, stream: int, explain: Explain, kept: Any = None) -> None:
        """Hand over the slot of a call that is enqueued; ``explain`` turns what is found there into an error.

        What is ``kept`` lives until the kernels are known to be done.
        """
        self._card.record(slot.event, stream)
        self._in_flight.append(_InFlight(slot, explain, kept))

    def stand(self, slot: Slot, explain: Explain, kept: Any) -> None:
        """Hand over the slot of a call in a CUDA graph, which may run at any time: it is looked at for good."""
        self._standing.append(_InFlight(slot, explain, kept))

    def poll(self) -> None:
        """Raise the error of the oldest call that is done and found something wrong."""
        self._look()
        while self._in_flight:
            with self._lock:
                if not self._in_flight or not self._card.is_done(self._in_flight[0].slot.event):
                    return
                done = self._in_flight.popleft()
            self.settle(done.slot, done.explain)

    def wait(self) -> None:
        """Wait for every call, and raise the first error."""
        while self._in_flight:
            with self._lock:
                if not self._in_flight:
                    return
                oldest = self._in_flight.popleft()
            self._card.wait_for(oldest.slot.event)
            self.settle(oldest.slot, oldest.explain)
        self._look()

    def _look(self) -> None:
        for each in self._standing:
            if not each.slot.is_clean:
                error = each.explain(each.slot)
                each.slot.clean()
                if error is not None:
                    raise error

    def settle(self, slot: Slot, explain: Explain) -> None:
        """Give back the slot of a call that is done, and raise what it found."""
        error = None if slot.is_clean else explain(slot)
        self.give_back(slot)
        if error is not None:
            raise error
