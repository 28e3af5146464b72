"""A row's classes as its kernel reads them: logits, scaled or bent, and what lies beside them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

from .cpu_parts import Options
from .jit import apart, inline, splice
from .memory import first, load, load_part, peek, poke, store
from .pairs import load_two
from .prefetch import prefetch_vector
from .simd import Format

BLOCK = 4096
"""How many classes are worked on at a time, so that they fit the first cache."""
BLOCKS = 8
"""How many blocks of a row are kept for its output, bent logits or exponentials: the second cache has room for them."""
ROOM = 64
"""Room after what is made of classes: to the end of a vector."""
ABREAST = {512: 8, 256: 4, 128: 4}
"""So many registers of these bits are bent side by side: the steps of one would wait for each other."""


def most_kept(options: Options) -> int:
    """Up to how many classes' exponentials are kept for the output: a block's, or more where making them takes long."""
    return BLOCK if options.wide or options.bent else BLOCKS * BLOCK


def most_bent(options: Options) -> int:
    """Up to how many bent logits are kept for the output."""
    return 0 if not options.output else BLOCK if options.kept else BLOCKS * BLOCK


def _rooms(options: Options) -> tuple[int, int]:
    """For how many exponentials there is room in a row's last place, and for how many bent logits after them."""
    kept, bent = most_kept(options) + ROOM, most_bent(options) + BLOCK + ROOM
    return kept * options.kept, bent * options.bent


def kept_columns(options: Options) -> int:
    """How many vectors a row's last place needs: last come the references of the blocks that are kept."""
    return (sum(_rooms(options)) + ROOM) // options.logits.lanes


def references(options: Options, device: SimpleNamespace) -> Any:
    """Keep the reference of the exponentials of the block that begins with class j; what takes them to the row's."""
    R, many, size = options.real, options.kept and most_kept(options) > BLOCK, options.real.itemsize
    at, one, exp = sum(_rooms(options)) * size, options.real_type(1), device.exp

    @splice
    def keep(row: Any, j: Any, span: Any, ref: Any) -> Any:
        if many:
            poke(R, row[3] + at + j // span * size, ref)

    @splice
    def fall(row: Any, j: Any, span: Any, top: Any) -> Any:
        if not many:
            return one
        ref = peek(R, row[3] + at + j // span * size)
        return one if ref == top else exp(ref - top)

    return keep, fall


@cache
def _bend(X: Format, R: Format, transform: Any, abreast: int) -> Any:
    lanes, many, size = X.lanes, abreast * X.lanes, X.itemsize
    Many, ManyReal = replace(X, lanes=many), replace(R, lanes=many)

    @inline
    def bend(p: Any, onward: Any, to: Any, classes: Any, curve: Any) -> Any:
        apart()
        k = 0
        while k + many <= classes:
            prefetch_vector(Many, onward + k * size)
            store(ManyReal, to, k, transform(load(Many, p, k), curve))
            k += many
        while k < classes:
            store(R, to, k, transform(load_part(X, p, k, first(X, classes - k)), curve))
            k += lanes

    return bend


def row_bender(options: Options, device: SimpleNamespace) -> Any:
    """The row from which classes [j, end), at most a block, are read: their logits are bent before.

    `again` where a pass before has bent them, and they are kept. They go to the row's last place, by a loop of their
    own: of one class's bending and summing most operations wait for each other, and a processor looks ahead at so many
    only. Meanwhile as much is asked for from `onward` on.
    """
    bent, bits = options.bent, options.registers
    abreast = ABREAST[bits] * bits // 8 // (options.real.itemsize * options.real.lanes) or 1
    bend = _bend(options.logits, options.real, device.transform, abreast)
    size, real_size = options.logits.itemsize, options.real.itemsize
    place, room = _rooms(options)[0] * real_size, most_bent(options)

    @splice
    def of_block(row: Any, onward: Any, j: Any, end: Any, again: Any, curve: Any) -> Any:
        if not bent:
            return row
        start = row[3] + place
        if end > room:  # in the place of the last block
            start += (room - j) * real_size
        if not again or end > room:
            bend(row[0] + j * size, onward + j * size, start + j * real_size, end - j, curve)
        return start, row[1], row[2], row[3]

    return of_block


def class_loaders(options: Options, device: SimpleNamespace, order: Format) -> Any:
    """Classes of a row as `row_bender` gives it: z, their soft target and their class weight, where there are any.

    Two vectors of them in the order that suits a format, or one in part.
    """
    R, bent = options.real, options.bent
    X, Y, transform = R if bent else options.logits, options.soft or options.logits, device.transform
    soft, weighted = options.target == "soft", options.weighted

    @splice
    def two(row: Any, k: Any, curve: Any) -> Any:
        p, q, v, _ = row
        z = load_two(order, X, p, k)
        if not bent:
            z = transform(z[0], curve), transform(z[1], curve)
        return z, load_two(order, Y, q, k) if soft else z, load_two(order, R, v, k) if weighted else z

    @splice
    def part(row: Any, k: Any, mask: Any, curve: Any) -> Any:
        p, q, v, _ = row
        z = load_part(X, p, k, mask)
        if not bent:
            z = transform(z, curve)
        return z, load_part(Y, q, k, mask) if soft else z, load_part(R, v, k, mask) if weighted else z

    return two, part
