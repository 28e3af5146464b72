"""Who takes part: a module a framework, imported when it is asked for.

Each module has ``contender(task, inputs, threads)``, which converts the inputs and gives what is timed, for every task
that the peer serves; and ``answer(result)``, which makes a tuple of NumPy arrays of a result. Each peer is called as
its users call it, in the fastest way that answers right.
"""

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from math import prod
from types import ModuleType
from typing import NamedTuple

from ...errors import OptionError
from ..cases import Task

_MOST = 1 << 26  # elements for scikit-learn, which makes several arrays of eight bytes an element


class Peer(NamedTuple):
    """The module of a peer, the packages it needs, the tasks it serves, and what else keeps it from running, if any."""

    module: str
    packages: tuple[str, ...]
    serves: Callable[[Task], bool]
    obstacle: Callable[[], str] = lambda: ""


def _any(task: Task) -> bool:
    """What frameworks have: gradients in new arrays."""
    return task.case not in ("buffer", "in-place")


def _last_axis(task: Task) -> bool:
    """What has its classes on the last axis."""
    return _any(task) and len(task.shape) == 2


def _plain(task: Task) -> bool:
    """Losses without options, of 32 bits or more."""
    return _any(task) and task.loss == "hard" and task.dtype in ("float32", "float64")


def _plain_loss(task: Task) -> bool:
    """The loss alone, of rows of two classes or more."""
    return _plain(task) and _last_axis(task) and task.case == "loss" and task.shape[1] > 1 and prod(task.shape) <= _MOST


def _no_compiler() -> str:
    """Look for the C++ compiler that torch.compile would call."""
    compiler = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    return "" if shutil.which(compiler) else f"finds no C++ compiler {compiler}"


OURS = "fusedloss"
PEERS = {
    "torch": Peer("torch", ("torch",), _any),
    "torch.compile": Peer("torch_compile", ("torch",), _any, _no_compiler),
    "jax": Peer("jax", ("jax", "optax"), _any),
    "tensorflow": Peer("tensorflow", ("tensorflow",), _last_axis),
    "numpy": Peer("numpy", ("numpy",), _any),
    "scipy": Peer("scipy", ("scipy",), _plain),
    "sklearn": Peer("sklearn", ("sklearn", "scipy"), _plain_loss),
}


def obstacle(name: str) -> str:
    """Tell why a peer cannot run here; "" if it can."""
    absent = [package for package in PEERS[name].packages if find_spec(package) is None]
    return f"needs {' and '.join(absent)}, not installed here" if absent else PEERS[name].obstacle()


def available() -> list[str]:
    """Name the peers that can run here."""
    return [name for name in PEERS if not obstacle(name)]


def chosen(names: Iterable[str]) -> list[str]:
    """Check that named peers can run here.

    Raises
    ------
    OptionError
        If one cannot.
    """
    names = list(names)
    for name in names:
        if reason := obstacle(name):
            raise OptionError(f"{name} {reason}; these can be compared: {', '.join(available())}")
    return names


def contenders(task: Task, peers: Iterable[str]) -> list[str]:
    """Name the library and those of the peers that serve a task."""
    return [OURS, *(name for name in peers if PEERS[name].serves(task))]


def load(name: str) -> ModuleType:
    """Import the functions of a peer, or the library's own."""
    return importlib.import_module(f"{__name__}.{PEERS[name].module if name in PEERS else 'ours'}")
