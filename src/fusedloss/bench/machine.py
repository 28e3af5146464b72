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
    """Tell the date, the machine, how busy it is now, before anything is measured, and what is installed."""
    there = memory()
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "processor": processor(),
            "vectors": vectors(),
            "cpus": os.cpu_count(),
            "threads": get_num_threads(),
            "memory_gb": there and round(there / 1e9, 1),
            "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
            "architecture": platform.machine(),
            "system": platform.platform(),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version for name in _PACKAGES if (version := _version(name))},
        },
    }


def memory() -> int | None:
    """Tell how many bytes of memory the computer has, where it can be asked."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):
        return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
