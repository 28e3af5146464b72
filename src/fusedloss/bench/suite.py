"""Running tasks: contenders enter when they answer right, and take turns with the ceilings."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from math import prod
from statistics import median, quantiles
from typing import TypedDict

from ..errors import AnswerError, FusedLossError, OptionError
from ..threads import get_num_threads
from .cases import CASES, Shape, Task, shape_text
from .ceilings import ceilings
from .inputs import Inputs
from .machine import memory
from .oracle import Truth, check, truth
from .peers import OURS, contenders, load
from .turns import Contender, Seconds, ratio, take_turns

BUDGET = 1.5  # seconds that a contender may take for a task beyond its first rounds


class Timing(TypedDict):
    """What came of a contender in a task.

    ``seconds`` is a call's median, ``quartiles`` its first and third. ``share_of_ceiling`` is None where arrays are too
    small for one. ``times_ours`` says how many times longer than the library the contender takes. Both are medians of
    the rounds' ratios.
    """

    seconds: float
    quartiles: list[float]
    rounds: int
    gigabytes_per_second: float
    share_of_ceiling: float | None
    times_ours: float


class Result(TypedDict):
    """A task, the bytes that it moves at the least, what memory allows, and what came of every contender."""

    loss: str
    case: str
    shape: list[int]
    dtype: str
    bytes_moved: int
    ceilings: dict[str, float]
    contenders: dict[str, Timing]


def run(
    tasks: Iterable[Task], peers: Sequence[str], rounds: int, tick: Callable[[], object] = lambda: None
) -> Iterator[Result]:
    """Time the library and peers on tasks, those of the same arrays together.

    Raises
    ------
    AnswerError
        If a contender is wrong.
    OptionError
        If there is not enough memory.
    """
    for (loss, shape, dtype), group in groupby(tasks, lambda task: (task.loss, task.shape, task.dtype)):
        _require_memory(shape, dtype)
        try:
            yield from _on_the_same_arrays(Inputs(loss, shape, dtype), list(group), peers, rounds, tick)
        except MemoryError as error:
            what = f"{shape_text(shape)} {dtype}"
            raise OptionError(f"not enough memory for {what}; --shapes takes smaller ones") from error


def _on_the_same_arrays(
    inputs: Inputs, tasks: Sequence[Task], peers: Sequence[str], rounds: int, tick: Callable[[], object]
) -> Iterator[Result]:
    right, bounds = truth(tasks[0].loss, inputs), ceilings(inputs)
    for task in tasks:
        entered = {who: enter(who, task, inputs, right) for who in contenders(task, peers)}
        yield result(task, inputs, take_turns({**bounds, **entered}, rounds, BUDGET, tick))


def enter(who: str, task: Task, inputs: Inputs, right: Truth) -> Contender:
    """Make a contender and have it answer.

    Raises
    ------
    AnswerError
        If it is wrong, or fails.
    """
    try:
        peer = load(who)
        contender: Contender = peer.contender(task, inputs, get_num_threads())
        if contender.setup:
            contender.setup()
        answer = peer.answer(contender.call())
    except (FusedLossError, MemoryError):
        raise
    except Exception as error:  # a framework raises what it likes
        reason = str(error).strip().partition("\n")[0]
        raise AnswerError(f"{who} fails at {task}: {type(error).__name__}: {reason}") from error
    check(task, right, answer, who)
    return contender


def result(task: Task, inputs: Inputs, seconds: Seconds) -> Result:
    """Sum up the turns of the ceilings and of contenders, the library among them."""
    moved, ceiling = inputs.moved(task), CASES[task.case].ceiling
    read = inputs.x.nbytes + inputs.y.nbytes
    bounds = {name: size for name, size in (("read", read), ("copy", read + inputs.x.nbytes)) if name in seconds}
    return Result(
        loss=task.loss, case=task.case, shape=list(task.shape), dtype=task.dtype, bytes_moved=moved,
        ceilings={name: size / median(seconds[name]) / 1e9 for name, size in bounds.items()},
        contenders={who: _timing(seconds, who, moved, ceiling) for who in seconds if who not in bounds},
    )  # fmt: skip


def _timing(seconds: Seconds, who: str, moved: int, ceiling: str) -> Timing:
    low, middle, high = _quartiles(seconds[who])
    return Timing(
        seconds=middle, quartiles=[low, high], rounds=len(seconds[who]), gigabytes_per_second=moved / middle / 1e9,
        share_of_ceiling=ratio(seconds, ceiling, who) if ceiling in seconds else None,
        times_ours=ratio(seconds, who, OURS),
    )  # fmt: skip


def _quartiles(values: Sequence[float]) -> list[float]:
    return quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3


def _require_memory(shape: Shape, dtype: str) -> None:
    """Refuse what cannot fit: logits and a gradient."""
    width = {"float64": 8, "float32": 4}.get(dtype, 2)
    needed, there = 2 * prod(shape) * width, memory()
    if there is not None and needed > there:
        raise OptionError(
            f"{shape_text(shape)} {dtype} takes {needed / 1e9:.3g} GB with its gradient, "
            f"but this computer has {there / 1e9:.3g} GB; --shapes takes smaller ones"
        )
