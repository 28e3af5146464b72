"""Where results are kept."""

import json
from pathlib import Path
from typing import Any

from fusedloss.results import replacing

FOLDER = Path(__file__).parent / "results"


def save(name: str | Path, told: dict[str, Any]) -> None:
    """Keep a run's JSON in a file, or under a name in ``bench/results``."""
    path = name if isinstance(name, Path) else FOLDER / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(str(path)) as file:
        file.write((json.dumps(told, indent=2, allow_nan=False) + "\n").encode())


def load(name: str, folder: Path = FOLDER) -> dict[str, Any] | None:
    """What was last kept under a name, if anything was."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
