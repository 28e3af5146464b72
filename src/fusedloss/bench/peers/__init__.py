"""Who takes part: a module a framework, imported when it is asked for.

Each module has ``contender(task, inputs, threads)``, which converts the inputs and gives what is timed, or None where
the framework has nothing for the task; and ``answer(result)``, which makes a tuple of NumPy arrays of a result.
"""

import importlib
import importlib.util
from types import ModuleType
from typing import NamedTuple


class Peer(NamedTuple):
    """Where a peer's functions are, and what must be installed for them."""

    module: str
    needs: tuple[str, ...]


OURS = "fusedloss"
PEERS = {
    "torch": Peer("torch", ("torch",)),
    "torch.compile": Peer("torch_compile", ("torch",)),
    "jax": Peer("jax", ("jax", "optax")),
}


def missing(name: str) -> list[str]:
    """Tell what must yet be installed for a peer."""
    return [each for each in PEERS[name].needs if importlib.util.find_spec(each) is None]


def load(name: str) -> ModuleType:
    """Import the functions of a peer, or the library's own."""
    return importlib.import_module(f"{__name__}.{PEERS[name].module if name in PEERS else 'ours'}")
