"""Arrays that say they lie on a card: of the simulated one, whose memory is the host's."""

from typing import Any

import numpy as np

from fusedloss import dlpack
from fusedloss.cuda.arrays import CardArray
from fusedloss.cuda.calls import fetch
from fusedloss.cuda.card import card


class ByInterface:
    """A NumPy array by CUDA's array interface."""

    def __init__(self, array: np.ndarray, stream: int | None = None, **changed: Any) -> None:
        self.array, self.dtype = array, array.dtype
        shown = array.__array_interface__
        self.described = {name: shown[name] for name in ("shape", "typestr", "strides", "data")}
        self.described |= {"version": 3, "stream": stream, **changed}

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {name: value for name, value in self.described.items() if value is not ...}


class ByCapsule:
    """A NumPy array by DLPack, as one of a card."""

    def __init__(self, array: np.ndarray, device: int = 0) -> None:
        self.array, self.device, self.streams = array, device, []

    def __dlpack__(self, *, stream: int | None = None, **options: Any) -> Any:
        self.streams.append(stream)
        bits = self.array.view(np.uint16) if self.array.dtype.kind == "V" else self.array
        return dlpack.exported(bits, self.__dlpack_device__(), self.array.dtype.name, **options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self.device


class Namespaced(ByCapsule):
    """An array of a library that follows the array API standard."""

    def __array_namespace__(self) -> Any:
        return Namespace


class Namespace:
    @staticmethod
    def from_dlpack(array: Any) -> Any:
        tensor = dlpack.read(array, stream=7)
        assert tensor.device == (dlpack.CUDA, 0)
        taken = Namespaced(fetch(array))
        taken.tensor = tensor
        return taken


KINDS = [ByInterface, ByCapsule]


def host(result: Any) -> Any:
    """The values of a result, wherever it is."""
    return fetch(result) if isinstance(result, CardArray) else np.asarray(result)


def settle() -> None:
    """Let the kernels run, and raise nothing."""
    with card(0) as place:
        for flying in place.pending._in_flight:
            place.wait_for(flying.slot.event)


def bits(result: Any) -> bytes:
    """All of a result, to the bit."""
    return host(result).tobytes()
