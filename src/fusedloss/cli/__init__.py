"""The command ``fusedloss``: parse, call, print."""

import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from ..errors import FusedLossError
from .options import parse

_BAD_INPUT = 2
_INTERRUPTED = 128 + signal.SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Returns
    -------
    int
        0; 2 for a bad command line or bad input, which one line on stderr explains; 130 on an interrupt.
    """
    options = parse(argv)
    try:
        with _terminate_as_interrupt():
            importlib.import_module(f"fusedloss.cli.{options.command}").run(options)
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of stdout, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return _INTERRUPTED
    except MemoryError:
        return _fail("not enough memory; --chunk-rows makes the blocks smaller")
    except FusedLossError as error:
        return _fail(str(error))
    return 0


def _fail(message: str) -> int:
    print(f"fusedloss: error: {' '.join(message.split())}", file=sys.stderr)
    return _BAD_INPUT


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM, too, unwind the stack, so that a scheduler that ends the run leaves no partial output."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
