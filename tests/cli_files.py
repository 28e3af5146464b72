"""What the command's tests share: a folder with logits and targets, the command as a process, and what it refuses."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fusedloss.cli import main

ROWS, CLASSES = 203, 7
CHILD = """\
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job passes its deafness on
{setup}
from fusedloss.cli import main
code = main(sys.argv[1:])
{teardown}
sys.exit(code)
"""


class Files:
    """A folder with logits and targets, and what the library says of them."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        self.folder = folder
        self.x = rng.standard_normal((ROWS, CLASSES)).astype(np.float32) * 3
        self.y = rng.integers(0, CLASSES, ROWS)
        self.y[::10] = -100
        self.logits, self.targets = self.save("x.npy", self.x), self.save("y.npy", self.y)
        self.out = folder / "out.npz"

    def save(self, name: str, array: np.ndarray) -> Path:
        np.save(self.folder / name, array, allow_pickle=array.dtype.hasobject)
        return self.folder / name


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def child(*arguments: object, setup: str = "", teardown: str = "", **options: object) -> subprocess.Popen:
    code = CHILD.format(setup=setup, teardown=teardown)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options})


def error_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must be refused, and return its one line."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as leaving:
        code = leaving.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.startswith("fusedloss: error: ")
    assert err.count("\n") == 1
    return err.removeprefix("fusedloss: error: ").rstrip("\n")
