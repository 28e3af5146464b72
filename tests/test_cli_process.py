"""The command as a process: signals, pipes, terminals, limits."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cli_files import Files, child, contents

import fusedloss as fl


@pytest.fixture
def files(tmp_path: Path, rng: np.random.Generator) -> Files:
    return Files(tmp_path, rng)


def sparse(path: Path, shape: tuple[int, ...], dtype: str) -> Path:
    """A .npy file of zeros that takes no room on the disk."""
    np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape).flush()
    return path


def test_module_and_version(files: Files):
    run = [sys.executable, "-m", "fusedloss"]
    done = subprocess.run([*run, "--version"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"fusedloss {fl.__version__}\n", "")
    done = subprocess.run([*run, "score", files.logits, files.logits], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"fusedloss: error: {files.logits}: has dtype float32, expected integer classes\n"


def test_a_reader_that_leaves(files: Files):
    run = child("score", files.logits, files.targets, "-o", files.out)
    run.stdout.close()
    assert run.stderr.read() == ""
    assert run.wait() == 0
    assert files.out.exists()
    run.stderr.close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_an_interrupt_leaves_everything_as_it_was(tmp_path: Path, number, suffix):
    logits = sparse(tmp_path / "x.npy", (3_000_000, 300), "<f4")
    targets = sparse(tmp_path / "y.npy", (3_000_000,), "<i2")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / f"out.{suffix}").write_text("older")
    (folder / "m.json").write_text("older")
    outputs = ["-o", folder / f"out.{suffix}", "--metrics", folder / "m.json"]
    with child("score", logits, targets, *outputs, "--chunk-rows", 2000) as run:
        deadline = time.monotonic() + 60
        while len(list(folder.iterdir())) < 4 and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        run.send_signal(getattr(signal, number))
        out, err = run.communicate(timeout=60)
    assert (run.returncode, out, err) == (130, "", "")
    assert contents(folder) == {f"out.{suffix}": b"older", "m.json": b"older"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_a_file_that_cannot_grow(files: Files, suffix):
    out = files.folder / f"out.{suffix}"
    out.write_text("older")
    before = contents(files.folder)
    setup = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))"
    with child("score", files.logits, files.targets, "-o", out, "--device", "numpy", setup=setup) as run:
        _, err = run.communicate(timeout=60)
    assert (run.returncode, err) == (2, f"fusedloss: error: {out}: cannot be written: File too large\n")
    assert contents(files.folder) == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("quiet", [False, True])
def test_progress_on_a_terminal(files: Files, quiet):
    import fcntl
    import termios

    terminal, end = os.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    options = ["--quiet"] if quiet else []
    with child("score", files.logits, files.targets, "--chunk-rows", 50, *options, stderr=end) as run:
        out, _ = run.communicate(timeout=60)
    os.close(end)
    try:
        shown = os.read(terminal, 1 << 16).decode()
    except OSError:  # nothing was written, and the other end is closed
        shown = ""
    os.close(terminal)
    assert run.returncode == 0
    assert ("203/203" in shown, "count" in out) == (not quiet, not quiet)


def peak_memory(folder: Path, rows: int, classes: int) -> int:
    """Score a sparse file of so many rows, and tell how much memory it took at most, in bytes."""
    logits, targets = sparse(folder / "x.npy", (rows, classes), "<f4"), sparse(folder / "y.npy", (rows,), "<i4")
    metrics, out = folder / "m.json", folder / "out.npy"
    teardown = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    with child("score", logits, targets, "-o", out, "--metrics", metrics, "--quiet", teardown=teardown) as run:
        peak, err = run.communicate()
    assert (run.returncode, err) == (0, "")
    assert json.loads(metrics.read_text())["nll"] == pytest.approx(np.log(classes))
    assert np.load(out, mmap_mode="r").shape == (rows,)
    return int(peak) * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX resource usage")
def test_memory_does_not_grow_with_the_file(tmp_path: Path):
    """Beyond what a small file takes, a 3 GB one takes a few blocks of 64 MiB and the results of its rows."""
    peak_memory(tmp_path, 1000, 1000)  # compiling takes memory of its own
    small, large = peak_memory(tmp_path, 1000, 1000), peak_memory(tmp_path, 750_000, 1000)
    assert large < small + 250e6
