"""What is shipped: the wheel, the sdist, the README."""

import inspect
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import fusedloss as fl

ROOT = Path(__file__).resolve().parents[1]
PYTHON = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
HEAVY = (
    "numba", "llvmlite", "torch", "jax", "keras", "cffi", "scipy", "ml_dtypes", "tqdm", "zipfile", "argparse",
    "matplotlib", "wandb",
)  # fmt: skip


def run(*command: object, **options: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert 6 < names["loss"] < 9
    assert names["report"].count == 4096


def test_readme_names_what_there_is():
    text = (ROOT / "README.md").read_text("utf-8")
    for name in re.findall(r"\bfl\.(\w+)", text) + re.findall(
        r"^\| (?:logits|probabilities|predictions) \| (.*?) \|", text, re.M
    ):
        for each in name.replace("`", "").split():
            assert inspect.isfunction(getattr(fl, each)), each


def test_public_names_are_documented():
    for name in fl.__all__:
        if name != "__version__":
            assert getattr(fl, name).__doc__, name


def test_import_is_light():
    code = f"import sys, fusedloss; print([name for name in {HEAVY} if name in sys.modules])"
    assert run(sys.executable, "-c", f"import numpy, sys; had = set(sys.modules); {code}").strip() == "[]"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is built from the sdist alone."""
    folder = tmp_path_factory.mktemp("built")
    litter = (".[!c]*", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*litter))
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, folder / "source")
    shutil.rmtree(folder / "source")
    return folder


@pytest.fixture(scope="module")
def installed(built: Path) -> Path:
    """A fresh environment that has the wheel, and whose dependencies are those of this one."""
    (wheel,) = built.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", built / "venv")
    python = built / "venv" / PYTHON
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", wheel)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python


@pytest.mark.slow
class TestDistributions:
    def test_wheel(self, built: Path):
        (wheel,) = built.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
        source = {f"fusedloss/{path.relative_to(ROOT / 'src/fusedloss')}" for path in (ROOT / "src").rglob("*.py")}
        kernels = {f"fusedloss/kernels/{path.name}" for path in (ROOT / "kernels").glob("*.py")}
        files = {name for name in names if ".dist-info/" not in name}
        assert files == source | kernels | {"fusedloss/py.typed", "fusedloss/data/digits.npz"}
        assert any(name.endswith("licenses/LICENSE") for name in names)

    def test_sdist(self, built: Path):
        (sdist,) = built.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "setup.cfg"} <= names
        assert {"tests/conftest.py", "tests/test_package.py", "kernels/reference.py", ".ci/run"} <= names
        assert not [name for name in names if "__pycache__" in name or name.endswith((".nbi", ".nbc"))]

    def test_the_wheel_works_without_the_source(self, installed: Path, tmp_path: Path):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        options = {"cwd": tmp_path, "env": environment}
        code = "import fusedloss, fusedloss.kernels; print(fusedloss.__file__, fusedloss.kernels.__file__, sep='\\n')"
        for place in run(installed, "-c", code, **options).split():
            assert Path(place).is_relative_to(installed.parents[1])
        assert "1797 held-out images" in run(installed.parent / "fusedloss", "demo", **options)
        assert run(installed, "-m", "fusedloss", "--version", **options) == f"fusedloss {fl.__version__}\n"


def test_version():
    assert version("fusedloss") == fl.__version__
