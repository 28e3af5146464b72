"""What a result belongs to: the machine, the versions, the day."""

import importlib.metadata
import os
import platform
from datetime import datetime, timezone
from typing import Any

from ..cli.info import processor, vectors
from ..threads import get_num_threads

_PACKAGES = (
    "fusedloss", "numpy", "numba", "llvmlite", "ml_dtypes", "torch", "jax", "jaxlib", "optax", "tensorflow", "scipy",
    "scikit-learn",
)  # fmt: skip


def about() -> dict[str, Any]:
    """Tell the machine, the versions of what is installed, and the date."""
    versions = {name: version for name in _PACKAGES if (version := _version(name))}
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "processor": processor(),
            "vectors": vectors(),
            "cpus": os.cpu_count(),
            "threads": get_num_threads(),
            "memory_gb": _memory(),
            "architecture": platform.machine(),
            "system": platform.platform(),
        },
        "versions": {"python": platform.python_version(), **versions},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError):  # not a POSIX system
        return None
