"""What a kernel found wrong, read before anything replaces it: the value of the element whose number was reported."""

from __future__ import annotations

from functools import cache
from typing import Any

from .cuda_bind_elements import code_of
from .cuda_compile import Kernel
from .cuda_machine import block, peek, poke, thread, wide

THREADS = 32


@cache
def make_witness(code: str) -> Kernel:
    """A kernel that stores, as float64, the element of a code that has the number at `status`, if there is one."""
    number, element, store = peek("i8"), peek(code), poke("f8")

    def witness(
        status: Any, at: Any, outer_step: Any, class_step: Any, inner_step: Any, classes: Any, inner: Any, size: Any,
        to: Any,
    ) -> None:  # fmt: skip
        if thread() == 0 and block() == 0:
            found = number(status)
            if found < size:
                row = found // inner
                outer = row // classes
                place = outer * outer_step + (row - outer * classes) * class_step + (found - row * inner) * inner_step
                store(to, wide(element(at + place)))

    return Kernel(witness, ("witness", code), 9, 0, THREADS)


class Witness:
    """Beside the kernels of the contract."""

    queue: Any

    def witness(self, x: Any, to: int) -> Any:
        """Bind reading the element of `x`, in normal form, that was found wrong on this queue; it goes to `to`."""
        steps = x.strides if x.ndim == 3 else (*x.strides, 0)
        _, classes, inner = x.shape if x.ndim == 3 else (*x.shape, 1)
        kernel, queue = make_witness(code_of(x.dtype)), self.queue
        call = kernel.call.pack(queue.status, x.address, *steps, classes, inner, x.size, to)

        def run(lo: int, hi: int, _kept: Any = x) -> int:
            if lo < hi:
                kernel.launch(queue.device, queue.stream, 1, 0, call)
            return -1

        return run
