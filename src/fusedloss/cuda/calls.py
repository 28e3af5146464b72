"""A call on a card: its stream, its kernels, arrays as kernels take them, and what is to be said of what they find."""

from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..check import Problem, offence
from ..errors import FusedLossError
from ..weights import unfit
from .arrays import CardArray, Shape, packed
from .card import card, is_simulated, lend
from .kinds import empty, is_captured
from .pending import Slot

_FINDINGS = {"class_weight": 2, "sample_weight": 3, "pos_weight": 4}  # the first two: an offence, and the value there
_VALUE = 1
_PROBABILITIES = ("log_loss", "binary_log_loss")
_BYTE, _FLOAT64 = np.dtype(np.uint8), np.dtype(np.float64)
_PARTIALS, _FEW = 1024, 1 << 12


Finding = tuple[int, Callable[[int], FusedLossError]]


class Call:
    """One call beside ``like``. ``with`` makes its card current and raises what earlier calls found wrong.

    A call that PyTorch captures into a CUDA graph may ask for nothing, nor wait; its kernels run when the graph does.
    """

    def __init__(self, like: CardArray) -> None:
        self.card, self.stream, self._like = card(like.device), like.stream, like
        self.slot: Slot
        self.backend: Any
        self._explain: list[Finding] = []
        self._lent: list[Callable[[], None]] = []
        self._kept: list[Any] = []
        self._awaiting: set[int] = set()
        self._captured = is_captured(like)

    def __enter__(self) -> "Call":
        self.card.__enter__()
        try:
            if not self._captured:
                self.card.pending.poll()
            self.slot = self.card.pending.take()
            self.backend = self.card.backend(self.stream, self.slot.address)
        except BaseException as error:
            self.card.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            for stream in self._awaiting:
                self.card.follow(stream, self.stream)
            explain = partial(_explained, self._explain) if error is None else _silent
            if self._captured:
                self.card.pending.stand(self.slot, explain, self._kept)
            else:
                self.card.pending.add(self.slot, self.stream, explain, self._kept)
        except self.card.failures as failure:
            kind, error = (type(failure), failure) if error is None else (kind, error)
        for retract in self._lent:
            retract()
        self.card.__exit__(kind, error, trace)

    def use(self, arrays: Iterable[CardArray], writable: bool = False) -> None:
        """Let the kernels use memory of others, once it is ready, and keep it for them.

        An allocator that knows this stream, as PyTorch's and CuPy's do, gives it to nobody before they are done. The
        stream of what is written waits for them.
        """
        for array in arrays:
            if array.stream != self.stream:
                self.card.follow(self.stream, array.stream)
                self._awaiting |= {array.stream} if writable else set()
            if array.stream != self.stream or array.kind not in ("torch", "cupy"):
                self._kept.append(array.owner)
            self._lend(array, writable)

    def _lend(self, array: CardArray, writable: bool) -> None:
        if is_simulated():
            self._lent.append(lend(array, writable))

    def raise_findings(self) -> None:
        """Raise what this call's kernels found wrong, which must be done."""
        if (error := _explained(self._explain, self.slot)) is not None:
            raise error

    def empty(self, shape: Shape, dtype: Any) -> CardArray:
        """Allocate scratch memory, which is free again when the kernels enqueued so far are done."""
        scratch = empty(shape, dtype, self._like)
        self._lend(scratch, writable=True)
        return scratch

    def copied(self, array: CardArray, dtype: Any) -> CardArray:
        """Copy an array of any strides to a contiguous one, of a dtype."""
        target = self.empty(array.shape, array.dtype if not array.aligned else dtype)
        if array.size:
            self.copy(array, target)
        return target if target.dtype == dtype else self.copied(target, dtype)

    def copy(self, source: CardArray, target: CardArray) -> None:
        """Enqueue a copy of the elements; those that lie at odd addresses go byte by byte."""
        if not (source.aligned and target.aligned):
            source, target = _as_bytes(source), _as_bytes(target)
        self.backend.copy(source, target)(0, source.size)

    def contiguous(self, array: CardArray, dtype: Any = None) -> CardArray:
        """Give an array, or a copy that is contiguous and of a dtype."""
        dtype = dtype or array.dtype
        usual = array.contiguous and array.dtype == dtype and array.aligned
        return array if usual else self.copied(array, dtype)

    def ready(self, problem: Problem) -> Problem:
        """Give a problem whose arrays are as kernels take them, but for the normal form of those that are read."""
        given = *problem.reads.values(), *problem.rows.values(), problem.fixed.get("class_weight")
        self.use([array for array in given if array is not None])
        self._explain.append((0, self._offence(problem)))
        reads = {name: self._read(problem, name, array) for name, array in problem.reads.items()}
        rows = {name: self.contiguous(self._read(problem, name, array)).ravel() for name, array in problem.rows.items()}
        fixed = {name: self._option(problem, name, value) for name, value in problem.fixed.items()}
        return problem._replace(reads=reads, rows=rows, fixed=fixed)

    def _read(self, problem: Problem, name: str, array: CardArray) -> CardArray:
        if name in _FINDINGS:
            return self._weight(problem, name, array)
        return self.copied(array, array.dtype) if not array.aligned else array

    def _option(self, problem: Problem, name: str, value: Any) -> Any:
        if isinstance(value, CardArray):
            return self._weight(problem, name, value)
        return self.sent(value) if isinstance(value, np.ndarray) else value

    def _weight(self, problem: Problem, name: str, array: CardArray) -> CardArray:
        """Convert weights to the dtype of results, and have kernels check them; repetitions are neither."""
        weight = self.contiguous(array.distinct(), problem.dtype)
        if problem.unchecked and weight.size:
            finding = _FINDINGS[name]
            self.backend.check_weights(weight.ravel(), self.slot.at(finding))(0, weight.size)
            self._explain.append((finding, lambda number: unfit(name, read(weight, number * weight.itemsize))))
        return weight.broadcast_to(array.shape)

    def sent(self, values: npt.NDArray[Any]) -> CardArray:
        """Send a host array to the card."""
        target = self.empty(values.shape, values.dtype)
        self.card.write(np.ascontiguousarray(values), target)
        return target

    def partials(self, size: int) -> CardArray | None:
        """Allocate room for the sums of parts, if there are so many numbers that they are added up in parts."""
        return self.empty((_PARTIALS,), _FLOAT64) if size > _FEW else None

    def has_witness(self, problem: Problem) -> bool:
        """Tell whether the value of what offends may be gone when it is asked for: that of a probability."""
        return problem.kernel in _PROBABILITIES

    def witness(self, x: CardArray) -> None:
        """Keep the value of what offends, in normal form."""
        self.backend.witness(x, self.slot.at(_VALUE))(0, x.size)

    def _offence(self, problem: Problem) -> Callable[[int], FusedLossError]:
        """Remember of a problem what an error says of it, and not the logits, which may be large."""
        # nothing of this call is named below, which has the logits
        x, target, slot, device = problem.x, problem.rows.get("target"), self.slot, self.card.index
        shape, dtype, said = x.shape, x.dtype, (problem.kernel, problem.form, problem.axis)
        fixed, name = problem.fixed, problem.name

        def explain(number: int) -> FusedLossError:
            reads = {"x": CardArray(0, shape, packed(shape, dtype.itemsize), dtype, device)}
            rows = {} if target is None else {"target": target}
            about = Problem(*said, reads, rows, fixed, dtype, "", name, None, target)
            return offence(about, number, getattr(dtype, "type", float)(slot.real(_VALUE)))

        return explain


def _explained(findings: list[Finding], slot: Slot) -> FusedLossError | None:
    found = ((slot.found(finding), explain) for finding, explain in findings)
    return next((explain(number) for number, explain in found if number >= 0), None)


def _silent(_slot: Slot) -> None:
    return None


def _as_bytes(array: CardArray) -> CardArray:
    return array.seen(array.address, (*array.shape, array.itemsize), (*array.strides, 1), _BYTE)


def send(values: npt.NDArray[Any], like: CardArray) -> CardArray:
    """Send the values of a list to the card of ``like``."""
    values = np.ascontiguousarray(values)
    with card(like.device) as place:
        target = empty(values.shape, values.dtype, like)
        place.write(values, target)
    return target


def fetch(array: CardArray) -> npt.NDArray[Any]:
    """Copy an array of any strides to the host, and wait for it."""
    if array.contiguous:
        with card(array.device) as place:
            return place.fetch(array)
    with Call(array) as call:
        call.use((array,))
        return call.card.fetch(call.copied(array, array.dtype))


def read(array: CardArray, offset: int) -> Any:
    """Fetch the element at an offset in bytes, once what is enqueued is done."""
    with card(array.device) as place:
        place.wait_for_stream(array.stream)
        return place.read(array.address + offset, array.dtype)
