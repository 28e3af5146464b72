"""What the tests of CUDA's leaves share: both machines as namespaces, and kernels run on the simulated one."""

import contextlib
import importlib
import sys
from types import SimpleNamespace

import numpy as np
from fusedloss.kernels import cuda_twin_memory, cuda_twins

ON_LINUX = sys.platform == "linux"  # elsewhere there is no CUDA, nor what compiles for it


class Machine(SimpleNamespace):
    """The leaves of a machine, which formulas are kept by."""

    __hash__ = object.__hash__


def _machine(*modules):
    loaded = [importlib.import_module(f"fusedloss.kernels.{module}") for module in modules]
    return Machine(**{name: getattr(module, name) for module in loaded for name in module.__all__})


twins = _machine("cuda_schedule", "cuda_twin_memory", "cuda_twin_shared", "cuda_twins")


def card():
    """The leaves of the hardware, for kernels that are only compiled."""
    return _machine("cuda_memory", "cuda_prims", "cuda_tuples")


@contextlib.contextmanager
def lent(*arrays):
    """Arrays as the simulated card's memory."""
    for array in arrays:
        cuda_twin_memory.lend(array.ctypes.data, array.nbytes, writable=array.flags.writeable)
    try:
        yield
    finally:
        for array in arrays:
            cuda_twin_memory.retract(array.ctypes.data, array.nbytes, writable=array.flags.writeable)


def launch(kernel, *args, grid=1, threads=1, shared=0):
    """Run a kernel on arrays, whose addresses it gets, and on numbers."""
    arrays = [arg for arg in args if isinstance(arg, np.ndarray)]
    with lent(*arrays):
        values = [arg.ctypes.data if isinstance(arg, np.ndarray) else arg for arg in args]
        cuda_twins.launch(kernel, values, grid, threads, shared)


def calculated(function, *args):
    """A function of scalars on every element of arrays, by one simulated thread, NumPy's warnings being off there."""
    found = []
    launch(lambda: found.extend(function(*row) for row in zip(*(list(arg) for arg in args), strict=True)))
    return found


def aligned(nbytes):
    """Zeroed bytes at a multiple of 16."""
    room = np.zeros(nbytes + 16, "u1")
    skip = -room.ctypes.data % 16
    return room[skip : skip + nbytes]
