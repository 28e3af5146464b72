"""Device names to backends, each imported on first use; what ``"auto"`` means; why a device cannot serve."""

import importlib
import os
from functools import lru_cache
from types import ModuleType
from typing import NamedTuple

from .errors import DeviceError

_MODULES = {"cpu": "fusedloss.kernels.cpu", "numpy": "fusedloss.kernels.reference"}
_ABSENT = {"cuda": "this version has no CUDA kernels"}
_EXPECTED = f"one of {', '.join(map(repr, ('auto', *_MODULES, *_ABSENT)))}"


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

    ``"auto"`` means ``$FUSEDLOSS_DEVICE``, as it was at the first use, where that is set. Otherwise host arrays go to
    ``"cpu"``, or to ``"numpy"`` where the former cannot serve.
    """
    if not isinstance(device, str):
        raise DeviceError(f"device is {device!r}, expected {_EXPECTED}")
    return _resolve(device)


@lru_cache(maxsize=64)
def _resolve(device: str) -> ModuleType:
    name, origin = device, "device"
    if device == "auto":
        name, origin = os.environ.get("FUSEDLOSS_DEVICE") or "auto", "FUSEDLOSS_DEVICE"
    if name == "auto":
        name = "cpu" if isinstance(_load("cpu"), ModuleType) else "numpy"
    if name not in _MODULES and name.partition(":")[0] not in _ABSENT:
        raise DeviceError(f"{origin} is {name!r}, expected {_EXPECTED}")
    backend = _load(name)
    if isinstance(backend, str):
        raise DeviceError(f"{origin} is {name!r}, which cannot serve: {backend}")
    return backend


@lru_cache(maxsize=64)
def _load(name: str) -> ModuleType | str:
    """Import the backend of a device, or say why there is none."""
    kind = name.partition(":")[0]
    if kind in _ABSENT:
        return _ABSENT[kind]
    try:
        return importlib.import_module(_MODULES[name])
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed"
    except (ImportError, OSError) as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
