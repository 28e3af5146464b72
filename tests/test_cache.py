"""Start-up: what an import brings along, and compiled code on disk: shared, raced for, damaged, not to be had."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.special

ROOT = Path(__file__).resolve().parents[1]
PATHS = ("NUMBA_CACHE_DIR", "HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "PYTHONPATH")

X = """
import numpy as np, fusedloss as fl
x, y = np.random.default_rng(0).standard_normal((64, 40)).astype("f4"), np.arange(64) % 40
"""
SIGMOID = X + "print(fl.sigmoid(x, device='cpu').tobytes().hex())"  # the kernel that compiles fastest
LOSS = X + "print(fl.cross_entropy(x, y, reduction='none', device='cpu').tobytes().hex())"
SCORE = X + "print(fl.score(x, y, device='cpu').entropy.tobytes().hex())"
WITHOUT_NUMBA = "import sys; sys.modules['numba'] = None\n"


def start(code, **env):
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | {name: str(value) for name, value in env.items()}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    return out.strip()


def run(code, **env):
    """What a process prints that runs this code, and says nothing else."""
    return finish(start(code, **env))


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.nb[ci]")}


def assert_right(told, of="loss"):
    x, y = np.random.default_rng(0).standard_normal((64, 40)).astype("f4").astype("f8"), np.arange(64) % 40
    log_p = scipy.special.log_softmax(x, 1)
    want = {
        "sigmoid": scipy.special.expit(x).ravel(),
        "loss": -log_p[np.arange(64), y],
        "entropy": scipy.special.entr(np.exp(log_p)).sum(1),
    }
    np.testing.assert_allclose(np.frombuffer(bytes.fromhex(told), "f4"), want[of], rtol=2e-6)


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A cache that another process has filled, and what that process found."""
    folder = tmp_path_factory.mktemp("cache")
    return folder, run(SIGMOID, NUMBA_CACHE_DIR=folder)


@pytest.fixture
def copied(warm, tmp_path):
    return shutil.copytree(warm[0], tmp_path / "cache"), warm[1]


def test_a_second_process_compiles_nothing(warm):
    folder, first = warm
    before = files(folder)
    assert before
    assert run(SIGMOID, NUMBA_CACHE_DIR=folder) == first
    assert files(folder) == before
    assert_right(first, "sigmoid")


def test_code_of_other_processes_is_not_taken_for_ones_own(tmp_path):
    env = {"NUMBA_CACHE_DIR": tmp_path}
    loss, entropy = run(LOSS, **env), run(SCORE, **env)
    assert_right(loss)
    assert_right(entropy, "entropy")
    before = files(tmp_path)
    assert run(f"{SCORE}\n{LOSS}", **env).split() == [entropy, loss]
    assert run(f"{LOSS}\n{SCORE}", **env).split() == [loss, entropy]
    assert files(tmp_path) == before


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b""], ids=["half", "empty"])
def test_a_truncated_file_is_survived(copied, suffix, damage):
    folder, first = copied
    for path in files(folder):
        if path.suffix == f".{suffix}":
            path.write_bytes(damage(path.read_bytes()))
    assert run(SIGMOID, NUMBA_CACHE_DIR=folder) == first


def test_processes_race_for_an_empty_directory(tmp_path, warm):
    racing = [start(SIGMOID, NUMBA_CACHE_DIR=tmp_path) for _ in range(2)]
    assert [finish(process) for process in racing] == [warm[1]] * 2
    assert run(SIGMOID, NUMBA_CACHE_DIR=tmp_path) == warm[1]


def test_no_directory_to_write_to_is_survived(tmp_path, warm):
    """Numba would look beside the sources too, and in the user's folders: there are files where it wants folders."""
    package = shutil.copytree(
        ROOT / "src" / "fusedloss", tmp_path / "fusedloss", ignore=shutil.ignore_patterns("__py*")
    )
    kernels = shutil.copytree(ROOT / "kernels", package / "kernels", ignore=shutil.ignore_patterns("__py*"))
    (kernels / "__pycache__").touch()
    (tmp_path / "file").touch()
    env = dict.fromkeys(PATHS, tmp_path / "file" / "below") | {"PYTHONPATH": tmp_path}
    code = f"{SIGMOID}\nfrom fusedloss.cli.info import cache_directory\nprint(fl.__file__, cache_directory())"
    values, found = run(code, **env).splitlines()
    assert values == warm[1]
    assert found.startswith(f"{package / '__init__.py'} none: no directory can be written")


# ---- what is imported ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", ["", "fl.evaluate(np.zeros((3, 4)), [0, 1, 2], device='numpy')"])
def test_numpy_is_all_that_is_imported(use):
    heavy = ("numba", "llvmlite", "torch", "scipy", "cffi", "pyarrow", "tqdm", "ml_dtypes")
    code = f"import sys, numpy as np, fusedloss as fl; {use}\nprint([name for name in {heavy} if name in sys.modules])"
    assert run(code) == "[]"


def test_without_numba_auto_means_numpy():
    use = "fl.warmup(['float32', 'bfloat16'])\nprint(fl.cross_entropy(x, y, reduction='none').tobytes().hex())"
    assert_right(run(WITHOUT_NUMBA + X + use))


def test_without_numba_the_cpu_says_why_it_cannot_serve():
    process = start(WITHOUT_NUMBA + X + "print(*fl.devices()['cpu'])\nfl.cross_entropy(x, y, device='cpu')")
    out, err = process.communicate(timeout=120)
    assert re.fullmatch(r"False numba(\.core)? is not installed", out.strip())
    assert re.search(r"DeviceError: device is 'cpu', which cannot serve: numba(\.core)? is not installed$", err.strip())
