"""``fusedloss bench``: the library beside the frameworks that are installed, and beside what memory allows."""

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import groupby
from typing import Any

import fusedloss as fl

from ..bench.cases import Task, tasks
from ..bench.peers import available, chosen
from ..errors import DeviceError, OptionError
from ..results import replacing

Print = Callable[[str], None]


def run(options: Namespace) -> None:
    """Time what was asked for; print a table for every pair of arrays, and write all as JSON."""
    if options.threads is not None:
        fl.set_num_threads(options.threads)
    if not (cpu := fl.devices()["cpu"]).available:
        raise DeviceError(f"bench compares the device 'cpu', which cannot serve: {cpu.reason}")
    peers = available() if options.against is None else chosen(options.against)
    wanted = list(tasks(options.losses, options.shapes, options.dtype, options.cases))
    if not wanted:
        raise OptionError("nothing to time: evaluate goes with the losses hard and binary alone")
    with replacing(options.json) if options.json else nullcontext() as file:
        told = _measured(wanted, peers, options.rounds, quiet=options.quiet)
        if file:
            file.write((json.dumps(told, indent=2, allow_nan=False) + "\n").encode())


def _measured(wanted: list[Task], peers: list[str], rounds: int, *, quiet: bool) -> dict[str, Any]:
    from ..bench import machine, report, suite

    about = machine.about()
    results: list[suite.Result] = []
    with _progress(len(wanted) * rounds, quiet) as (tick, show):
        show(report.preamble(about, peers, rounds))
        timed = suite.run(wanted, peers, rounds, tick)
        for _, group in groupby(timed, lambda result: (result["loss"], result["shape"], result["dtype"])):
            results += (of_arrays := list(group))
            show("\n" + report.table(of_arrays))
    return {**about, "rounds": rounds, "results": results}


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
