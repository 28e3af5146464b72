"""Golden tables: calls of fusedloss with what another library, or mpmath, says they must give.

A table is ``<peer>.json``: the versions that made it and a list of cases, each ``{"name", "peer", "call", "args",
"options", "value"[, "grad"][, "unit"]}``: ``fusedloss.<call>(*args, **options)`` must give ``value``, and its gradient
``grad``, to a few ulp of them or of ``unit``; ``peer`` is the expression that gave them. Numbers have the fewest digits
that read back to the same bits. An array is ``{"dtype", "shape", "data"[, "tile"]}``, where ``tile`` repeats the whole
along the last axis.
"""

import json
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent


def case(
    name: str, peer: str, call: str, args: Iterable[Any], value: Any, grad: Any = None, **options: Any
) -> dict[str, Any]:
    """One entry of a table."""
    entry = {"name": name, "peer": peer, "call": call, "args": list(args), "options": options, "value": value}
    return entry if grad is None else entry | {"grad": grad}


def write(peer: str, packages: Iterable[str], cases: Iterable[Mapping[str, Any]]) -> None:
    """Write ``<peer>.json``, one case a line; `packages` are those whose versions it records."""
    made_with = {"python": platform.python_version()} | {package: version(package) for package in packages}
    lines = ",\n".join(json.dumps(_encode(entry)) for entry in cases)
    path = FOLDER / f"{peer}.json"
    path.write_text(f'{{"made_with": {json.dumps(made_with)},\n"cases": [\n{lines}\n]}}\n', encoding="utf-8")
    print(f"{path.name}: {path.stat().st_size} bytes")


def read(peer: str) -> list[dict[str, Any]]:
    """The cases of ``<peer>.json``."""
    table = json.loads((FOLDER / f"{peer}.json").read_text(encoding="utf-8"))
    return [_decode(entry) for entry in table["cases"]]


def tiled(array: np.ndarray, times: int) -> dict[str, Any]:
    """The encoding of `array` repeated along its last axis."""
    return _encode(array) | {"tile": times}


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        # str() of a float32 has fewer digits than the float64 of the same value
        data = [float(str(x)) for x in value.flat] if value.dtype.kind == "f" else value.ravel().tolist()
        return {"dtype": value.dtype.name, "shape": value.shape, "data": data}
    if isinstance(value, Mapping):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _decode(value: Any) -> Any:
    if isinstance(value, Mapping) and "dtype" in value:
        array = np.array(value["data"], value["dtype"]).reshape(value["shape"])
        return np.concatenate([array] * value["tile"], axis=-1) if "tile" in value else array
    if isinstance(value, Mapping):
        return {key: _decode(item) for key, item in value.items()}
    return [_decode(item) for item in value] if isinstance(value, list) else value
