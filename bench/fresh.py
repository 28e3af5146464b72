"""Measurements that need a process of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any


def told(*arguments: str, settings: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run Python with arguments and more environment, and read the JSON of its last line."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(settings or {})}, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:3])} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])
