"""The losses for Keras, on each of its backends.

Keras picks its backend when it is imported, so each runs ``keras_suite.py`` in a process of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = Path(__file__).with_name("keras_suite.py")
BACKENDS = ["torch", "jax"]
if sys.version_info < (3, 14):  # tensorflow has no wheels for later ones
    BACKENDS.append("tensorflow")


def environment(backend, home):
    """This process's environment, for Keras on a backend and not for a worker of this run.

    Kernels that are compiled have tests of their own, and take their time to compile: here they are NumPy's. XLA takes
    longer to optimise than its code runs here.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return kept | {
        "KERAS_BACKEND": backend,
        "KERAS_HOME": str(home),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_NUM_THREADS": "1",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "FUSEDLOSS_DEVICE": "numpy",
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_suite(backend, tmp_path):
    pytest.importorskip(backend)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-q", str(SUITE)]
    options = {"env": environment(backend, tmp_path), "capture_output": True, "text": True, "timeout": 1200}
    done = subprocess.run(command, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("missing", "module", "extra"),
    [("keras", "keras", "keras"), ("jax", "jax", "jax"), ("cffi", "jax", "jax"), ("cffi", "keras", "jax")],
)
def test_missing_package_names_its_extra(missing, module, extra, tmp_path):
    """Keras on JAX needs the extra of JAX."""
    code = f"import sys; sys.modules[{missing!r}] = None; import fusedloss.{module}"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment("jax", tmp_path), capture_output=True, text=True, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ModuleNotFoundError: {missing} is not installed, which fusedloss.{extra} needs")
    assert last.endswith(f"pip install 'fusedloss[{extra}]'")


def test_backend_without_kernels(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "import fusedloss.keras"],
        env=environment("numpy", tmp_path), capture_output=True, text=True, check=False,
    )  # fmt: skip
    last = done.stderr.strip().splitlines()[-1]
    assert last == "ImportError: Keras runs on its backend 'numpy', expected one of 'torch', 'jax', 'tensorflow'"
