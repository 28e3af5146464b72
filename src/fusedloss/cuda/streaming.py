"""Host arrays on a card: block after block of rows goes there through pinned memory, and its results come back.

Two lanes take turns, each with a stream and buffers of its own: while one copies and computes, the host fills the
other's. So logits may be larger than the card's memory, or a file that is mapped.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle

import numpy as np

from ..arrays import Array
from ..layout import across, row_slabs
from ..plan import Plan, whole_number
from .card import Card
from .lanes import Lane
from .slab import Slab

BLOCK_BYTES = 1 << 25  # of logits, in a block


def stream(plan: Plan) -> tuple[int, Array]:
    """Run a plan for host arrays, block by block; give its status, and the total of its partial sums."""
    problem = plan.problem
    form, axis, x = problem.form, problem.axis, problem.x
    cuts = row_slabs(form, axis, x.shape, x.itemsize, BLOCK_BYTES)
    sums: list[Array] = []
    status = -1
    with plan.backend as card, _lanes(card) as lanes:
        turns = cycle(lanes)
        for number in range(cuts.count):
            lane = next(turns)
            if (status := _finish(plan, lane, sums)) >= 0:
                break
            index, lo, hi = cuts.slab(number)
            lane.work = Slab(plan, lane, across(index, form, axis), lo, hi)
            lane.work.start()
        for _ in lanes:
            if status < 0:
                status = _finish(plan, next(turns), sums)
    shape = plan.partial or ()
    return status, np.add.reduce(sums) if sums else np.zeros(shape)


def _finish(plan: Plan, lane: Lane, sums: list[Array]) -> int:
    """Wait for the block that a lane works on, if any, and bring its results where they belong."""
    work, lane.work = lane.work, None
    if work is None:
        return -1
    status: int = work.finish()
    if status >= 0:
        return whole_number(plan.problem, status, work.place, work.shape, work.lo)
    if work.sums is not None:
        sums.append(np.add.reduce(work.sums))
    return -1


@contextmanager
def _lanes(card: Card) -> Iterator[list[Lane]]:
    """Two lanes that nobody else uses. However this ends, the card has let go of their memory, and of the caller's."""
    taken: list[Lane] = []
    try:
        for _ in range(2):
            taken.append(Lane.take(card))  # noqa: PERF401  # the first is released where there is no second
        yield taken
    finally:
        for lane in taken:
            lane.release()
