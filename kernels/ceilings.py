"""What memory allows: reading and copying by the vectors that the other kernels are made of, and nothing else."""

from __future__ import annotations

from typing import Any

from .jit import kernel
from .memory import fence, load, stream
from .prefetch import prefetch
from .reductions import hsum
from .simd import Format, full

READ = Format("i4", 16, "f4")  # integers, since floats made of any bytes may be subnormal, and slow
COPY = Format("f4", 16, "f4")
LINE = READ.itemsize * READ.lanes
TURN = 4 * LINE  # bytes read in a turn of the loop, one vector a sum
AHEAD = 8192  # how far, in bytes, a line is asked for ahead of its use


@kernel("read")
def read(x: Any, sums: Any, block: Any, lo: Any, hi: Any) -> Any:
    """Read bytes ``lo … hi-1`` from the address `x`, whole turns of them; write the sum of each block to `sums`."""
    for start in range(lo, hi, block):
        a = full(COPY, 0.0)
        b, c, d = a, a, a
        for at in range(x + start, x + min(start + block, hi), TURN):
            for line in range(4):
                prefetch(at + AHEAD + LINE * line)
            a = a + load(READ, at, 0)
            b = b + load(READ, at, 16)
            c = c + load(READ, at, 32)
            d = d + load(READ, at, 48)
        sums[start // block] = hsum((a + b) + (c + d))
    return -1


@kernel("copy")
def copy(x: Any, out: Any, lo: Any, hi: Any) -> Any:
    """Copy bytes ``lo … hi-1``, whole turns of them, past the caches to `out`, an address that begins a cache line."""
    for at in range(lo, hi, TURN):
        for line in range(0, TURN, LINE):
            stream(COPY, out + at + line, 0, load(COPY, x + at + line, 0))
    fence()
    return -1
