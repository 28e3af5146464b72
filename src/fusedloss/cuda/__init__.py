"""Arrays on CUDA devices, and host arrays sent there. Nothing of CUDA is imported before the first such call."""

from functools import lru_cache
from importlib import import_module
from typing import Any


@lru_cache(maxsize=16)
def module(name: str) -> Any:
    """Import a module of this room, at a fraction of what a statement costs that finds it imported."""
    return import_module(f"{__name__}.{name}")
