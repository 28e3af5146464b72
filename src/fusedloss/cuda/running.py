"""A Plan on a card: arrays in normal form, or copies that are, and kernels enqueued for all of it."""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from ..arrays import on_card
from ..check import Problem
from ..layout import across, contiguous_form, count_units, kind_of, layout, positions, slabs
from ..plan import Kernel, Plan
from . import module
from .arrays import CardArray, Shape
from .calls import Call

_FLOAT64 = np.dtype(np.float64)
_TALLY_ROWS, _TALLIES = 128, 2048  # rows of a partial sum at least, and partial sums of a chunk at most
_CHUNK = 1 << 20  # rows, or elements, whose scores are kept at once by an evaluation
_TALLY_BYTES = 1 << 24


def attempt(plan: Plan) -> tuple[int, Any]:
    """Run a plan: at once for host arrays and where only sums are wanted, else in the order of the logits' stream."""
    if not on_card(plan.problem.x):
        streamed: tuple[int, Any] = module("streaming").stream(plan)
        return streamed
    if plan.scratch:
        return -1, _evaluate(plan)
    with Call(plan.problem.x) as call:
        enqueue(call, call.ready(plan.problem), plan.kernel, plan.writes, _outputs(plan), _options(plan))
    return -1, None


def _outputs(plan: Plan) -> dict[str, Any]:
    return {name: array for name, array in plan.rows.items() if name not in plan.problem.rows}


def _options(plan: Plan) -> dict[str, Any]:
    return {name: value for name, value in plan.fixed.items() if name not in plan.problem.fixed}


def enqueue(
    call: Call, problem: Problem, kernel: Kernel, writes: Mapping[str, CardArray], outputs: Mapping[str, CardArray],
    options: Mapping[str, Any], sums: CardArray | None = None, block: int = 0,
) -> None:  # fmt: skip
    """Enqueue a kernel for all of a problem that is ``ready``.

    Parameters
    ----------
    kernel
        As in ``Plan``.
    writes, outputs, options
        What is written of the logits' shape; what is written a row; what the kernel takes besides.
    sums, block
        Partial sums: one a segment for elements, else one a ``block`` of rows, if that is given.
    """
    x = problem.x
    if not x.size:
        return
    call.use((*writes.values(), *outputs.values()), writable=True)
    reads, kept = dict(problem.reads), dict(writes)
    if call.has_witness(problem):
        # what is wrong is read from the logits afterwards, which a gradient must not have replaced by then
        kept = {name: _apart(call, array, x) for name, array in kept.items()}
    kinds = *map(kind_of, reads.values()), *map(kind_of, kept.values())
    normal = layout(problem.form, problem.axis, x.shape, x.itemsize, kinds).normal
    if normal is None or not all(array.aligned for array in kept.values()):
        normal = contiguous_form(problem.form, problem.axis, x.shape)
        reads = {name: call.contiguous(array) for name, array in reads.items()}
        kept = {name: _place(call, array) for name, array in kept.items()}
    rows = {name: _place(call, array) for name, array in outputs.items()}
    views = {name: array.reshape(normal) for name, array in (reads | kept).items()}
    given = {
        **views,
        **problem.rows,
        **{name: array.ravel() for name, array in rows.items()},
        **problem.fixed,
        **options,
    }
    if sums is not None:
        given["sums"] = sums
    if block:
        given["block"] = block
    kernel(call.backend)(**given)(0, count_units(problem.form, normal))
    if call.has_witness(problem):
        call.witness(views["x"])
    for name, target in (*writes.items(), *outputs.items()):
        made = kept.get(name) or rows[name]
        if made is not target:
            call.copy(made, target)


def _place(call: Call, array: CardArray) -> CardArray:
    """Give an array that is contiguous: itself, or one whose elements go there afterwards."""
    return array if array.contiguous and array.aligned else call.empty(array.shape, array.dtype)


def _apart(call: Call, array: CardArray, x: CardArray) -> CardArray:
    """Give an array, or one like it where it is the logits' own memory."""
    return call.empty(array.shape, array.dtype) if array.address == x.address else array


def segments(problem: Problem) -> int:
    """Count the partial sums of a problem of elements that is ``ready``."""
    x = problem.x
    return layout(problem.form, problem.axis, x.shape, x.itemsize, tuple(map(kind_of, problem.reads.values()))).units


def tally_block(units: int, partial: Shape) -> int:
    """Choose the rows of a partial sum, from shapes alone: neither too few for a kernel nor too many sums."""
    most = max(min(_TALLIES, _TALLY_BYTES // (8 * prod(partial))), 1)
    return max(_TALLY_ROWS, -(-units // most))


def _evaluate(plan: Plan) -> Any:
    """Enqueue the scores and sums of chunk after chunk, then wait for the sums alone."""
    problem, partial = plan.problem, plan.partial or ()
    form, axis = problem.form, problem.axis
    shape = positions(form, axis, problem.x.shape)
    if not problem.x.size:
        return np.zeros(partial)
    width = problem.x.shape[-1] if form == "labels" else 1
    cuts = slabs(shape, max(_CHUNK // width, 1))
    pieces = [cuts.slab(number) for number in range(cuts.count)]
    rows = max(hi - lo for _, lo, hi in pieces)
    block = tally_block(rows, partial)
    with Call(problem.x) as call:
        ready = call.ready(problem._replace(fixed=dict(plan.fixed)))
        scratch = {
            name: call.empty((rows * width,), array.dtype) for name, array in {**plan.writes, **_outputs(plan)}.items()
        }
        counts = [-(-(hi - lo) // block) for _, lo, hi in pieces]
        sums = call.empty((sum(counts), *partial), _FLOAT64)
        for number, (index, lo, hi) in enumerate(pieces):
            part = _part(ready, across(index, form, axis), lo, hi)
            here = {name: array[: (hi - lo) * width] for name, array in scratch.items()}
            writes = {name: here[name].reshape(part.x.shape) for name in plan.writes}
            outputs = {name: here[name] for name in here if name not in writes}
            start = sum(counts[:number])
            enqueue(call, part, plan.kernel, writes, outputs, {}, sums[start : start + counts[number]], block)
        total = np.add.reduce(call.card.fetch(sums))
        call.raise_findings()
    return total


def _part(problem: Problem, place: tuple[slice, ...], lo: int, hi: int) -> Problem:
    reads = {name: array[place] for name, array in problem.reads.items()}
    rows = {name: array[lo:hi] for name, array in problem.rows.items()}
    return problem._replace(reads=reads, rows=rows)
