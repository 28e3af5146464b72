"""Device names to backends, each imported on first use; what ``"auto"`` means; why a device cannot serve."""

import importlib
import os
from functools import lru_cache
from types import ModuleType
from typing import NamedTuple

from .errors import DeviceError

_MODULES = {"cpu": "fusedloss.kernels.cpu", "numpy": "fusedloss.kernels.reference"}
_ABSENT = {"cuda": "this version has no CUDA kernels"}


class Device(NamedTuple):
    """Whether a device can serve, and the reason if it cannot."""

    available: bool
    reason: str


def devices() -> dict[str, Device]:
    """Tell which devices can serve here.

    Returns
    -------
    dict of str to Device
        For each device name, ``available`` and, where that is False, the ``reason`` in one line.
    """
    loaded = {name: _load(name) for name in (*_MODULES, *_ABSENT)}
    return {name: Device(not isinstance(it, str), it if isinstance(it, str) else "") for name, it in loaded.items()}


def resolve(device: str) -> ModuleType:
    """Find the backend of a device name.

    ``"auto"`` means ``$FUSEDLOSS_DEVICE`` where that is set. Otherwise host arrays go to ``"cpu"``, or to ``"numpy"``
    where the former cannot serve.
    """
    name = device
    if device == "auto":
        name = os.environ.get("FUSEDLOSS_DEVICE") or "auto"
    if name == "auto":
        backend = _load("cpu")
        name = "cpu" if isinstance(backend, ModuleType) else "numpy"
    backend = _load(name) if isinstance(name, str) else "expected a string"
    if isinstance(backend, str):
        origin = "FUSEDLOSS_DEVICE" if device == "auto" else "device"
        raise DeviceError(f"{origin} is {name!r}, which cannot serve: {backend}")
    return backend


@lru_cache(maxsize=64)
def _load(name: str) -> ModuleType | str:
    """Import the backend of a device, or say why there is none."""
    if name.partition(":")[0] in _ABSENT:
        return _ABSENT[name.partition(":")[0]]
    if name not in _MODULES:
        return f"expected one of 'auto', {', '.join(map(repr, (*_MODULES, *_ABSENT)))}"
    try:
        return importlib.import_module(_MODULES[name])
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed"
    except (ImportError, OSError) as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
