"""Who takes part: a module a framework, imported when it is asked for.

Each module has ``contender(task, inputs, threads)``, which converts the inputs and gives what is timed, or None where
the framework has nothing for the task; and ``answer(result)``, which makes a tuple of NumPy arrays of a result. Each
peer is called as its users call it, in the fastest way that answers right.
"""

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

from ...errors import OptionError


class Peer(NamedTuple):
    """The module of a peer, the packages it needs, and what else keeps it from running here: "" for nothing."""

    module: str
    packages: tuple[str, ...]
    obstacle: Callable[[], str] = lambda: ""


def _no_compiler() -> str:
    """Look for the C++ compiler that torch.compile would call."""
    compiler = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    return "" if shutil.which(compiler) else f"finds no C++ compiler {compiler}"


OURS = "fusedloss"
PEERS = {
    "torch": Peer("torch", ("torch",)),
    "torch.compile": Peer("torch_compile", ("torch",), _no_compiler),
    "jax": Peer("jax", ("jax", "optax")),
    "tensorflow": Peer("tensorflow", ("tensorflow",)),
    "numpy": Peer("numpy", ("numpy",)),
    "scipy": Peer("scipy", ("scipy",)),
    "sklearn": Peer("sklearn", ("sklearn", "scipy")),
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


def load(name: str) -> ModuleType:
    """Import the functions of a peer, or the library's own."""
    return importlib.import_module(f"{__name__}.{PEERS[name].module if name in PEERS else 'ours'}")
