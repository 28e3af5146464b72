"""A row's classes as its kernel reads them: logits, scaled or bent, and what lies beside them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

from .cpu_parts import Options
from .jit import apart, inline, splice
from .memory import first, load, load_part, store
from .pairs import load_two
from .prefetch import prefetch_vector
from .simd import Format

BLOCK = 4096
"""How many classes are worked on at a time, so that they fit the first cache."""
KEPT = BLOCK + 64
"""Room for what is made of a block's classes, to the end of a vector."""
BENT = 32768
"""How many bent logits of a row are kept for its output; the second cache has room for them."""
ABREAST = 8
"""So many vectors of 512 bits are bent side by side: the steps of one would wait for each other."""


def _bent_room(options: Options) -> int:
    return BENT if options.output and not options.kept else 0


def kept_columns(options: Options) -> int:
    """How many vectors a row's last place needs: for exponentials, if they are kept, and then for bent logits."""
    bent = _bent_room(options) + KEPT if options.bent else 0
    return (KEPT * options.kept + bent) // options.logits.lanes or 1


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
    bent, abreast = options.bent, ABREAST if options.looked_up else 1
    bend = _bend(options.logits, options.real, device.transform, abreast)
    size, real_size = options.logits.itemsize, options.real.itemsize
    place, room = KEPT * real_size if options.kept else 0, BLOCK if options.kept else _bent_room(options)

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
