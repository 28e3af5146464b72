"""A whole run: tasks timed one after another, told on the way, and kept with the machine and the versions."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import groupby
from typing import Any

from .cases import Task
from .machine import about
from .report import preamble, table
from .suite import Result, run

Print = Callable[[str], None]


def measured(tasks: Iterable[Task], peers: Sequence[str], rounds: int, *, quiet: bool = False) -> dict[str, Any]:
    """Time the library and peers on tasks, and print a table for each pair of arrays unless that is not wanted.

    Returns
    -------
    dict
        JSON-ready: the date, the machine, the versions, the rounds, and a `Result` a task.

    Raises
    ------
    AnswerError, OptionError
        As `suite.run`.
    """
    tasks, here, results = list(tasks), about(), list[Result]()
    with _progress(len(tasks) * rounds, quiet) as (tick, show):
        show(preamble(here, peers, rounds))
        timed = run(tasks, peers, rounds, tick)
        for _, group in groupby(timed, lambda each: (each["loss"], each["shape"], each["dtype"])):
            results += (of_arrays := list(group))
            show("\n" + table(of_arrays))
    return {**here, "rounds": rounds, "results": results}


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[tuple[Callable[[], object], Print]]:
    """A bar on a terminal's stderr, and a way to print past it."""
    if quiet:
        yield (lambda: None), (lambda text: None)
        return
    with ExitStack() as stack:
        tick: Callable[[], object] = lambda: None  # noqa: E731
        aside: Callable[[], AbstractContextManager[Any]] = nullcontext
        if sys.stderr.isatty():
            from tqdm import tqdm

            bar = stack.enter_context(tqdm(total=total, unit=" rounds", file=sys.stderr, leave=False))
            tick, aside = bar.update, lambda: tqdm.external_write_mode(file=sys.stderr)

        def show(text: str) -> None:
            with aside():
                print(text, flush=True)

        yield tick, show
