"""Reading back what an offline run of Weights & Biases has written."""

import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import wandb
from wandb.proto.wandb_internal_pb2 import Record

_FILE_HEADER, _BLOCK, _HEAD = 7, 1 << 15, struct.Struct("<IHB")  # of a record: checksum, length, kind
_FULL, _LAST = 1, 4


def finish(run: Any) -> None:
    """End a run, and the process that writes its log: only then is the log known to be whole."""
    run.finish()
    wandb.teardown()


def history(folder: Path) -> list[dict[str, Any]]:
    """What each step of the one run in the folder has logged."""
    return [_nested(step.item) for step in _records(folder, "history")]


def charts(folder: Path) -> dict[str, Any]:
    """How the run's charts are to be drawn."""
    configs = [_nested(config.update) for config in _records(folder, "config")]
    return {name: chart for each in configs for name, chart in each["_wandb"].get("visualize", {}).items()}


def table(folder: Path, name: str) -> dict[str, Any]:
    """The table that is kept in a file."""
    (path,) = folder.glob(f"wandb/offline-run-*/files/{name}")
    return json.loads(path.read_text("utf-8"))


def _nested(items: Iterable[Any]) -> dict[str, Any]:
    """The values of items, each of which has a key or the path of one."""
    values: dict[str, Any] = {}
    for item in items:
        *path, name = item.nested_key or [item.key]
        place = values
        for each in path:
            place = place.setdefault(each, {})
        place[name] = json.loads(item.value_json)
    return values


def _records(folder: Path, kind: str) -> Iterator[Any]:
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    for record in map(Record.FromString, _logged(path.read_bytes())):
        if record.WhichOneof("record_type") == kind:
            yield getattr(record, kind)


def _logged(log: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format: blocks of 32 KiB, which no head of a part of a record crosses."""
    place, record = _FILE_HEADER, b""
    while place + _HEAD.size <= len(log):
        _, length, kind = _HEAD.unpack_from(log, place)
        place += _HEAD.size
        record += log[place : place + length]
        place += length
        if _BLOCK - place % _BLOCK < _HEAD.size:
            place += _BLOCK - place % _BLOCK
        if kind in (_FULL, _LAST):
            yield record
            record = b""
