"""How time is taken: contenders take turns, round by round, so that whatever else the machine does meets them alike."""

import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple

_TURN = 2e-3  # seconds that a turn of short calls lasts at least
_SHORT = 10e-3  # seconds of a call up to which it matters what the caches held before
_PAUSE = 2e-3  # seconds before a turn, for threads of another contender that still spin
LEAST = 3  # rounds that every contender takes, however slow

Seconds = dict[str, list[float]]


class Pace(NamedTuple):
    """How a turn is taken: how many calls are timed, and whether one comes before, so that they run warm."""

    calls: int
    warm: bool


class Contender(NamedTuple):
    """What is timed: a call, and what is done untimed before it."""

    call: Callable[[], Any]
    setup: Callable[[], Any] | None = None


_ONE = Pace(1, warm=False)


def take_turns(
    contenders: Mapping[str, Contender], rounds: int, budget: float = float("inf"),
    tick: Callable[[], object] = lambda: None,
) -> Seconds:  # fmt: skip
    """Time contenders that have been called before, in an order that changes from round to round.

    Parameters
    ----------
    contenders : mapping of str to Contender
        By name.
    rounds : int
        Turns of each.
    budget : float
        Seconds after which a contender leaves, once it has taken three turns.
    tick : callable
        Called once a round.

    Returns
    -------
    dict of str to list of float
        Seconds of a call, one a round that the contender took part in.
    """
    shuffled, order = random.Random(0), list(contenders)  # noqa: S311 (an order, not a secret)
    seconds: Seconds = {name: [] for name in contenders}
    paces = {name: pace(once(contender)) for name, contender in contenders.items()}
    with _no_garbage_collection():
        for number in range(rounds):
            shuffled.shuffle(order)
            for name in order:
                if number < LEAST or sum(seconds[name]) * paces[name].calls < budget:
                    seconds[name].append(turn(contenders[name], paces[name]))
            tick()
    return seconds


def ratio(seconds: Seconds, of: str, to: str) -> float:
    """Compute how many times longer `of` takes than `to`: the median of the rounds that both took."""
    return median(a / b for a, b in zip(seconds[of], seconds[to], strict=False))


def pace(seconds: float) -> Pace:
    """Decide on the turns of a call that takes so many seconds."""
    return Pace(max(1, int(_TURN / seconds)), seconds < _SHORT)


def once(contender: Contender) -> float:
    """Estimate the seconds of a call: the least of three, where it is short."""
    first = turn(contender)
    return first if first > 5 * _SHORT else min(first, turn(contender), turn(contender))


def prepare(contender: Contender, pace: Pace) -> None:
    """Do all that comes before the timed calls of a turn."""
    time.sleep(_PAUSE)
    if pace.warm:
        contender.call()
    if contender.setup:
        contender.setup()


def turn(contender: Contender, pace: Pace = _ONE) -> float:
    """Take a turn, and give the seconds of a call."""
    prepare(contender, pace)
    call = contender.call
    started = time.perf_counter()
    for _ in range(pace.calls):
        call()
    return (time.perf_counter() - started) / pace.calls


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
