"""A block of rows of host arrays on its way through a lane: there, through a kernel, and back."""

import numpy as np

from ..arrays import Array
from ..layout import contiguous_form, count_units, layout
from ..plan import Plan
from ..threads import run_blocks
from .arrays import CardArray, Shape, packed
from .lanes import Lane, padded
from .running import tally_block

_FLOAT64 = np.dtype(np.float64)
_PIECE = 1 << 20  # bytes that a thread copies at a time


class Slab:
    """Rows ``lo`` to ``hi`` of a plan, which are at ``place`` in the arrays of the logits' shape.

    Between ``start`` and ``finish`` nothing waits. ``sums`` are then the partial sums, if the plan asks for any.
    """

    def __init__(self, plan: Plan, lane: Lane, place: tuple[slice, ...], lo: int, hi: int) -> None:
        self.plan, self.place, self.lo, self.hi = plan, place, lo, hi
        self.sums: Array | None = None
        self._lane = lane
        self._reads = {name: array[(*place, ...)] for name, array in plan.problem.reads.items()}
        self.shape = self._reads["x"].shape
        self._parts: list[tuple[CardArray, Array]] = []  # what comes back, and where to
        self._results: list[tuple[Array, Array]] = []  # where they are put in the end, and where they came

    def start(self) -> None:
        """Fill the lane's buffer, and enqueue the copies and the kernel."""
        plan, lane, problem = self.plan, self._lane, self.plan.problem
        sources, normal = self._sources()
        flat = {name: array[self.lo : self.hi] for name, array in problem.rows.items()}
        fixed = {name: array for name, array in plan.fixed.items() if isinstance(array, np.ndarray)}
        writes = {name: array[(*self.place, ...)] for name, array in plan.writes.items()}
        rows = {name: array[self.lo : self.hi] for name, array in plan.rows.items() if name not in flat}
        units = count_units(problem.form, normal)
        block, count = self._partial_sums(units)
        partial = (count, *(plan.partial or ()))
        lane.reset(_bytes(sources | flat | fixed | writes | rows) + padded(8 * int(np.prod(partial))))
        given = {name: self._sent(array, self._reads[name].shape) for name, array in sources.items()}
        given |= {name: self._sent(array, array.shape) for name, array in (flat | fixed).items()}
        if plan.partial is not None:
            self.sums, given["sums"] = lane.place(partial, _FLOAT64)
            self._parts.append((given["sums"], self.sums))
        given |= {name: self._awaited(array) for name, array in (writes | rows).items()}
        views = {name: given[name].reshape(normal) for name in (*sources, *writes)}
        options = {**plan.fixed, **_whole_weight(plan)} | given | views | ({"block": block} if block else {})
        plan.kernel(lane.backend)(**options)(0, units)
        for there, here in self._parts:
            lane.fetch(there, here)

    def finish(self) -> int:
        """Wait for the card, give the kernel's status, and put the results where they belong if there is no offence."""
        lane = self._lane
        lane.card.wait_for_stream(lane.stream)
        status = lane.slot.found()
        lane.slot.clean()
        if status < 0:
            for target, source in self._results:
                move(target, source)
        return status

    def _sources(self) -> tuple[dict[str, Array], Shape]:
        """What is sent of the arrays that are read, without repetitions if a kernel can have it so; the normal form."""
        form, axis = self.plan.problem.form, self.plan.problem.axis
        distinct = {name: _distinct(array) for name, array in self._reads.items()}
        kinds = [(array.dtype, _spread(array, self.shape)) for array in distinct.values()]
        kinds += [(array.dtype, packed(self.shape, array.itemsize)) for array in self.plan.writes.values()]
        normal = layout(form, axis, self.shape, self._reads["x"].itemsize, tuple(kinds)).normal
        if normal is None:
            return self._reads, contiguous_form(form, axis, self.shape)
        return distinct, normal

    def _partial_sums(self, units: int) -> tuple[int, int]:
        """The rows of a partial sum, 0 where segments of elements are summed, and how many sums there are."""
        if self.plan.partial is None:
            return 0, 0
        if self.plan.problem.form == "elements":
            return 0, units
        block = tally_block(units, self.plan.partial)
        return block, -(-units // block)

    def _sent(self, array: Array, shape: Shape) -> CardArray:
        """Send an array, which is then seen in another shape."""
        here, there = self._lane.place(array.shape, array.dtype.newbyteorder("="))
        if self._lane.is_direct(array):
            here = array
        else:
            move(here, array)
        self._lane.send(there, here)
        return there if array.shape == shape else there.broadcast_to(shape)

    def _awaited(self, array: Array) -> CardArray:
        """Make room for an array that is written, and see to it that it comes back if it is wanted."""
        here, there = self._lane.place(array.shape, array.dtype.newbyteorder("="))
        if not self.plan.scratch:
            if self._lane.is_direct(array):
                here = array
            else:
                self._results.append((array, here))
            self._parts.append((there, here))
        return there


def _bytes(arrays: dict[str, Array]) -> int:
    return sum(padded(array.nbytes) for array in arrays.values())


def _distinct(array: Array) -> Array:
    """See an array without repetitions, as broadcasting makes them."""
    return array[tuple([slice(None, None if stride else 1) for stride in array.strides])]


def _spread(array: Array, shape: Shape) -> Shape:
    """Return the strides of a contiguous copy that is broadcast to a shape."""
    steps = packed(array.shape, array.itemsize)
    return tuple([0 if n == 1 else step for n, step in zip(array.shape, steps, strict=True)])


def _whole_weight(plan: Plan) -> dict[str, float]:
    """What a card's kernel is told in advance: the sum of the classes' weights."""
    weight = plan.fixed.get("class_weight")
    if plan.problem.kernel != "cross_entropy" or weight is None:
        return {}
    return {"weight_total": float(weight.sum(dtype=np.float64))}


def move(target: Array, source: Array) -> None:
    """Copy elements, on several threads if there are many."""
    if target.dtype == source.dtype:
        bits = np.dtype(f"u{target.itemsize}")  # dtypes that are not NumPy's own would hold the interpreter's lock
        target, source = target.view(bits), source.view(bits)
    if target.nbytes <= _PIECE:
        np.copyto(target, source)
        return
    axis = int(np.argmax(target.shape))
    into, of = np.moveaxis(target, axis, 0), np.moveaxis(source, axis, 0)
    if target.flags.c_contiguous and source.flags.c_contiguous:
        into, of = target.reshape(-1), source.reshape(-1)

    def run(lo: int, hi: int) -> int:
        np.copyto(into[lo:hi], of[lo:hi])
        return -1

    run_blocks(run, len(into), max(len(into) * _PIECE // target.nbytes, 1))
