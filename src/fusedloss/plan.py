"""A Problem to a frozen Plan, and running it: in place where the arrays have a normal form, else staged.

Staging is for arrays that kernels cannot view in normal form: foreign byte order, or axes whose strides do not merge.
Slabs of rows are then copied to contiguous memory, one a thread at a time, and results are copied back.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from operator import attrgetter
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from . import cuda
from .arrays import Array
from .backends import resolve
from .check import Problem, is_target_offence, offence
from .layout import Layout, Shape, across, contiguous_form, count_units, kind_of, layout, row_slabs
from .threads import MOST_BLOCKS, Run, run_blocks

Bind = Callable[..., Run]
Kernel = Callable[[Any], Bind]
Keep = Callable[[Run, Layout], None]


@lru_cache(maxsize=64)
def named(name: str) -> Kernel:
    """Find the kernel of that name in a backend."""
    return attrgetter(name)


def is_hosted(problem: Problem) -> bool:
    """Tell whether host memory is where a problem is computed."""
    return isinstance(resolve(problem.device, problem.x), ModuleType)


class Plan(NamedTuple):
    """A call that is decided.

    ``kernel`` finds in a backend, or makes of it, what takes the problem's arrays, ``writes`` (of the logits' shape),
    ``rows`` (flat, one entry a row) and ``fixed`` by name, and gives what runs. ``partial`` is the shape of a partial
    sum, where the kernel makes any: one a segment for elements; else one a block, whose size the kernel is told. Where
    only these sums are wanted, the writes and rows are ``scratch``. A bound kernel is given to ``keep``, once it ran.
    """

    problem: Problem
    backend: Any
    kernel: Kernel
    layout: Layout
    writes: Mapping[str, Any]
    rows: Mapping[str, Any]
    fixed: Mapping[str, Any]
    partial: Shape | None
    scratch: bool
    keep: Keep | None = None

    @property
    def is_hosted(self) -> bool:
        """Tell whether the kernels are a module's, for arrays in host memory, and not a card's."""
        return isinstance(self.backend, ModuleType)


def plan(
    problem: Problem, kernel: Kernel, writes: Mapping[str, Any], rows: Mapping[str, Any], fixed: Mapping[str, Any],
    partial: Shape | None = None, *, scratch: bool = False, keep: Keep | None = None,
) -> Plan:  # fmt: skip
    """Decide how a problem is run that writes to ``writes``, ``rows`` and sums of shape ``partial``."""
    x = problem.x
    backend = resolve(problem.device, x)
    kinds = *map(kind_of, problem.reads.values()), *map(kind_of, writes.values())
    form = layout(problem.form, problem.axis, x.shape, x.itemsize, kinds)
    rows, fixed = {**problem.rows, **rows}, {**problem.fixed, **fixed}
    return Plan(problem, backend, kernel, form, writes, rows, fixed, partial, scratch, keep)


def run(plan: Plan) -> Any:
    """Run a plan and return the total of its partial sums, added up in a fixed order.

    Arrays of a card get their values later, in the order of their stream; what is wrong with them is raised by another
    call.

    Raises
    ------
    TargetError, ProbabilityError
        If a kernel finds what it reads wrong.
    """
    status, total = attempt(plan)
    if status >= 0:
        raise offence(plan.problem, status)
    return total


def attempt(plan: Plan) -> tuple[int, Any]:
    """Run a plan and return the status of its kernel, and the total of the partial sums."""
    if not plan.is_hosted:
        attempted: tuple[int, Any] = cuda.module("running").attempt(plan)
        return attempted
    normal, units, _, _ = plan.layout
    if not units:
        return -1, np.zeros(plan.partial or ())
    if normal is None:
        sums = np.empty((units, *(plan.partial or ())))
        status = spread(_staged(plan, sums), plan.layout)
    else:
        kernel, sums = _bind(plan, plan.problem.reads, plan.writes, plan.rows, plan.layout)
        status = spread(kernel, plan.layout)
        if plan.keep is not None:
            plan.keep(kernel, plan.layout)
    return status, sums if plan.partial is None else add_up(sums)


def spread(run: Run, form: Layout) -> int:
    """Run a kernel over all its units, on as many threads as are worth it, and return its status."""
    # rows whose elements lie among each other's are best worked on side by side
    among = form.normal is not None and len(form.normal) == 3 and form.normal[2] > 1
    return run_blocks(run, form.units, form.block, 1 if among else MOST_BLOCKS, form.threads)


def add_up(sums: Array) -> Any:
    """Add partial sums up, in a fixed order."""
    return sums[0] if len(sums) == 1 else np.add.reduce(sums)


def _bind(
    plan: Plan, reads: Mapping[str, Array], writes: Mapping[str, Array], rows: Mapping[str, Array], form: Layout
) -> tuple[Run, Array]:
    """Bind the kernel to arrays that have a normal form, and to the partial sums that it fills."""
    normal, units, block, _ = form
    given, sums = {**rows, **plan.fixed}, _NOTHING
    for name, array in (*reads.items(), *writes.items()):
        given[name] = array.reshape(normal)
    if plan.partial is not None:
        elements = plan.problem.form == "elements"
        sums = given["sums"] = np.empty((units if elements else -(-units // block), *plan.partial))
        if not elements:
            given["block"] = block
    return plan.kernel(plan.backend)(**given), sums


_NOTHING = np.empty(0)


def _staged(plan: Plan, sums: Array) -> Run:
    """Make a function of slabs, numbered in C order: copy in, bind, run, copy out."""
    problem = plan.problem
    form, axis, x = problem.form, problem.axis, problem.x
    cuts = row_slabs(form, axis, x.shape, x.itemsize)

    def fill(number: int) -> int:
        index, lo, hi = cuts.slab(number)
        place = across(index, form, axis)
        reads = {name: _native(array[place]) for name, array in problem.reads.items()}
        shape = reads["x"].shape
        writes = {name: np.empty(shape, array.dtype.newbyteorder("=")) for name, array in plan.writes.items()}
        rows = {name: array[lo:hi] for name, array in plan.rows.items()}
        normal = contiguous_form(form, axis, shape)
        units = count_units(form, normal)
        kernel, partial = _bind(plan, reads, writes, rows, Layout(normal, units, units, 1))
        status = kernel(0, units)
        if status >= 0:
            return whole_number(problem, status, place, shape, lo)
        for name, array in plan.writes.items():
            array[place] = writes[name]
        if plan.partial is not None:
            sums[number] = np.add.reduce(partial)
        return -1

    return lambda lo, hi: next((status for status in map(fill, range(lo, hi)) if status >= 0), -1)


def _native(array: Array) -> Array:
    return np.asarray(array, array.dtype.newbyteorder("="), order="C")


def whole_number(problem: Problem, number: int, place: tuple[slice, ...], shape: Shape, lo: int) -> int:
    """Turn the number of a row or element of a slab into its number in the whole."""
    if is_target_offence(problem, lo + number):
        return lo + number
    starts = [cut.start or 0 for cut in place] + [0] * (len(shape) - len(place))
    index = [start + here for start, here in zip(starts, np.unravel_index(number, shape), strict=True)]
    return int(np.ravel_multi_index(index, problem.x.shape)) if shape else number
