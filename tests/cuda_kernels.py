"""The CUDA backend as a module of kernels on NumPy arrays: their memory is copied to the card and back around a run."""

from types import SimpleNamespace

import numpy as np
from fusedloss.kernels import cuda, cuda_card
from fusedloss.kernels.cuda_card import SIMULATED

__all__ = ["SIMULATED"]

NONE = 2**63 - 1
ALIGNMENT = 256


def root_of(array):
    """The array that owns the memory, so that arrays which share it share it on the card."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


class Copies:
    """Copies on the card of all the memory that some arrays lie in, at the same distance from a multiple of 256."""

    def __init__(self, arrays):
        self.roots = {id(root): root for root in map(root_of, arrays)}
        self.blocks = {key: cuda_card.allocate(0, root.nbytes + ALIGNMENT, 0) for key, root in self.roots.items()}
        self.places = {key: block + self.roots[key].ctypes.data % ALIGNMENT for key, block in self.blocks.items()}

    def card(self, array):
        root = root_of(array)
        address = self.places[id(root)] + array.ctypes.data - root.ctypes.data
        about = {name: getattr(array, name) for name in "shape strides dtype ndim size itemsize nbytes".split()}
        return SimpleNamespace(address=address, **about)

    def send(self):
        for key, root in self.roots.items():
            cuda_card.copy(self.places[key], root.ctypes.data, root.nbytes, 0)

    def fetch(self):
        for key, root in self.roots.items():
            if root.flags.writeable:
                cuda_card.copy(root.ctypes.data, self.places[key], root.nbytes, 0)

    def __del__(self):
        with cuda_card.context(0):
            for block in self.blocks.values():
                cuda_card.free(0, block, 0)


def _bound(name):
    def bind(*args, **kwargs):
        status = np.full(1, NONE)
        given = [each for each in (*args, *kwargs.values()) if isinstance(each, np.ndarray)]
        with cuda_card.context(0):
            copies = Copies([status, *given])
        backend = cuda.Backend(cuda.Queue(0, 0, copies.card(status).address))
        to_card = lambda each: copies.card(each) if isinstance(each, np.ndarray) else each  # noqa: E731
        if name == "cross_entropy" and kwargs.get("class_weight") is not None:
            kwargs["weight_total"] = float(kwargs["class_weight"].sum(dtype=np.float64))
        launch = getattr(backend, name)(*map(to_card, args), **{key: to_card(each) for key, each in kwargs.items()})

        def run(lo, hi):
            status[0] = NONE
            with cuda_card.context(0):
                copies.send()
                assert launch(lo, hi) == -1
                cuda_card.synchronize(0)
                copies.fetch()
            return -1 if status[0] == NONE else int(status[0])

        return run

    return bind


def __getattr__(name):
    return _bound(name)
