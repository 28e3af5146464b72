"""The backend Keras runs on, which it chooses when it is imported: to each its module, with the same two functions.

``unreduced(loss, output, target)`` computes an unreduced loss, differentiable by the output in the backend's own way;
``can_call()`` tells whether the program being traced may call out to it.
"""

import importlib
from types import ModuleType

import keras

NAME: str = keras.backend.backend()

_MODULES = {name: f"fusedloss.keras.on_{name}" for name in ("torch", "jax", "tensorflow")}


def _load() -> ModuleType:
    if NAME not in _MODULES:
        raise ImportError(f"Keras runs on its backend {NAME!r}, expected one of {', '.join(map(repr, _MODULES))}")
    return importlib.import_module(_MODULES[NAME])


backend = _load()
