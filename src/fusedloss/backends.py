"""From the name of a device to its kernels; what ``"auto"`` means; why a device cannot serve."""

import importlib
import os
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

from .arrays import on_card
from .errors import DeviceError

_MODULES = {"cpu": "fusedloss.kernels.cpu", "numpy": "fusedloss.kernels.reference"}
_NAMES = (*_MODULES, "cuda")
_EXPECTED = f"one of {', '.join(map(repr, ('auto', *_NAMES)))}"


class Device(NamedTuple):
    """Whether a device can serve, the reason if it cannot, and what it calls itself if it is one of several."""

    available: bool
    reason: str
    name: str = ""


def devices() -> dict[str, Device]:
    """Tell which devices can serve here.

    Returns
    -------
    dict of str to Device
        For each device name, ``available`` and, where that is False, the ``reason`` in one line. ``"cuda"`` stands for
        the first CUDA device; where there are several, each has an entry such as ``"cuda:1"`` besides.
    """
    loaded = {name: _load(name) for name in _NAMES}
    found = {name: Device(not isinstance(it, str), it if isinstance(it, str) else "") for name, it in loaded.items()}
    if found["cuda"].available:
        cards = {name: Device(True, "", loaded["cuda"].card(index).name) for index, name in loaded["cuda"].numbered()}
        found |= {"cuda": cards["cuda:0"]} | (cards if len(cards) > 1 else {})
    return found


def resolve(device: str, x: Any) -> Any:
    """Find what computes on a device: a module of kernels, or a card.

    ``"auto"`` is where ``x`` is. For host arrays that means ``$FUSEDLOSS_DEVICE``, as it was at the first use, where it
    is set, otherwise ``"cpu"``, or ``"numpy"`` where the former cannot serve. ``"cuda"`` is the card of ``x``, or
    ``"cuda:0"``.

    A card has to be asked for where arrays are on the host. It reads them no faster than its link to the host lets it,
    and there they are read once more, to be packed into pinned memory. Kernels of the CPU are bound by that same
    memory. So a card is faster where the threads of this process, together, are slower than the link: as a rule, with
    fewer than about 3 of them, of some 9 GB/s each, behind 16 lanes of PCIe 4 (25 GB/s), or 6 behind PCIe 5 (50 GB/s).
    ``fusedloss bench`` tells what the threads do.
    """
    if not isinstance(device, str):
        raise DeviceError(f"device is {device!r}, expected {_EXPECTED}")
    return _resolve(device, x.device) if on_card(x) else _resolve(device, None)


@lru_cache(maxsize=64)
def _resolve(device: str, place: int | None) -> Any:
    """Find what computes on a device, for arrays on the card of that number, or in host memory."""
    name, origin = device, "device"
    if device == "auto" and place is not None:
        name = f"cuda:{place}"
    elif device == "auto":
        name, origin = os.environ.get("FUSEDLOSS_DEVICE") or "auto", "FUSEDLOSS_DEVICE"
    if name == "auto":
        name = "cpu" if isinstance(_load("cpu"), ModuleType) else "numpy"
    kind, _, number = name.partition(":")
    if name not in _NAMES and not (kind == "cuda" and number.isdecimal()):
        raise DeviceError(f"{origin} is {name!r}, expected {_EXPECTED}")
    if place is not None and (kind != "cuda" or number not in ("", str(place))):
        raise DeviceError(f"{origin} is {name!r}, expected 'auto' or 'cuda:{place}', where the arrays are")
    backend = _load(kind)
    if isinstance(backend, str):
        raise DeviceError(f"{origin} is {name!r}, which cannot serve: {backend}")
    return backend.card(int(number or place or 0)) if kind == "cuda" else backend


@lru_cache(maxsize=64)
def _load(kind: str) -> Any:
    """Import the kernels of a kind of device, or say why there are none."""
    if kind == "cuda":
        from .cuda import card

        return card.why_not() or card
    try:
        return importlib.import_module(_MODULES[kind])
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed"
    except (ImportError, OSError) as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
