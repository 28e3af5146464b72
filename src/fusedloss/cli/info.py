"""``fusedloss info``: what the library sees of this computer."""

import importlib.metadata
import platform
from argparse import Namespace
from pathlib import Path
from typing import Any

import fusedloss as fl

from .table import listing


def run(options: Namespace) -> None:
    """Print an item a line."""
    items = [
        ("fusedloss", fl.__version__),
        ("Python", f"{platform.python_version()} ({platform.system()} {platform.machine()})"),
        *((name, _version(name)) for name in ("numpy", "numba", "llvmlite", "ml_dtypes")),
        ("processor", processor()),
        ("vectors", vectors()),
        ("threads", fl.get_num_threads()),
        *((f"device {name}", device.reason or device.name or "available") for name, device in fl.devices().items()),
        ("cache", cache_directory()),
    ]
    print(listing(items))


def cache_directory() -> str:
    """Find where compiled kernels are kept, or say why they are not."""
    try:
        from numba.core.caching import FunctionCache

        from fusedloss.kernels import jit
    except ImportError as error:
        return f"none: {error.name} is not installed"
    try:
        cache: Any = FunctionCache
        return str(cache(jit.kernel).cache_path)
    except RuntimeError:
        return "none: no directory can be written, so that every process compiles anew"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """Name the processor, as the system does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def vectors() -> str:
    """The widest registers that compiled kernels may use."""
    try:
        from llvmlite import binding
    except ImportError:
        return "NumPy's own"
    features = binding.get_host_cpu_features()
    widths = {"avx512f": 512, "avx": 256, "sse2": 128, "neon": 128}
    bits = next((bits for feature, bits in widths.items() if features.get(feature)), 0)
    return f"{bits} bits ({binding.get_host_cpu_name()})" if bits else str(binding.get_host_cpu_name())
