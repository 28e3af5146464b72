"""How time is taken: contenders take turns, round by round, so that whatever else the machine does meets them alike."""

import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple

_TURN = 2e-3  # seconds that a turn of short calls lasts at least
_SHORT = 50e-3  # seconds of a call that is estimated by more than one
_PAUSE = 2e-3  # seconds before a turn, for threads of another contender that still spin
LEAST = 3  # rounds that every contender takes, however slow

Seconds = dict[str, list[float]]


class Contender(NamedTuple):
    """What is timed: a call, and what is done untimed before it."""

    call: Callable[[], Any]
    setup: Callable[[], Any] | None = None


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
    calls = {name: calls_a_turn(contender)[0] for name, contender in contenders.items()}
    with _no_garbage_collection():
        for number in range(rounds):
            shuffled.shuffle(order)
            for name in order:
                if number < LEAST or sum(seconds[name]) * calls[name] < budget:
                    seconds[name].append(turn(contenders[name], calls[name]))
            tick()
    return seconds


def ratio(seconds: Seconds, of: str, to: str) -> float:
    """Compute how many times longer `of` takes than `to`: the median of the rounds that both took."""
    return median(a / b for a, b in zip(seconds[of], seconds[to], strict=False))


def calls_a_turn(contender: Contender) -> tuple[int, float]:
    """Decide how many calls make a turn; also give the seconds that one is estimated to take."""
    first = turn(contender)
    seconds = first if first > _SHORT else min(first, turn(contender), turn(contender))
    return max(1, int(_TURN / seconds)), seconds


def prepare(contender: Contender) -> None:
    """Do all that comes before the timed calls of a turn: a call, that they find caches and memory as in a loop.

    Above all, freed memory: a virtual machine's host takes back what lies free for a second, and a large gradient then
    waits for new pages longer than for its computation.
    """
    time.sleep(_PAUSE)
    contender.call()
    if contender.setup:
        contender.setup()


def turn(contender: Contender, calls: int = 1) -> float:
    """Take a turn, and give the seconds of a call."""
    prepare(contender)
    call = contender.call
    started = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - started) / calls


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
