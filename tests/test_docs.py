"""The documentation: every block of Python runs and prints what its page shows; the pictures; the site."""

import os
import runpy
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from pages import rerun

import fusedloss as fl

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [path.relative_to(DOCS).as_posix() for path in sorted(DOCS.rglob("*.md"))]

os.environ.setdefault("KERAS_BACKEND", "torch")


# of Keras 3.15 on PyTorch, where it hands tensors to NumPy 2
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize("page", PAGES)
def test_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name, value in (("WANDB_MODE", "offline"), ("WANDB_SILENT", "true"), ("MPLBACKEND", "agg")):
        monkeypatch.setenv(name, value)
    assert rerun(DOCS / page) == (DOCS / page).read_text("utf-8"), "python tests/pages.py writes what blocks print"
    plt.close("all")


def test_gallery(tmp_path: Path):
    runpy.run_path(str(DOCS / "make_gallery.py"))["make"](tmp_path)
    made, kept = ({path.name for path in folder.iterdir()} for folder in (tmp_path, DOCS / "images"))
    assert len(made) == 18
    assert made == kept
    for name in made:
        assert (tmp_path / name).read_bytes().startswith(b"<?xml")
        assert name.removesuffix(".svg") + ".svg#only-" in (DOCS / "gallery.md").read_text("utf-8")


@pytest.mark.slow
def test_site(tmp_path: Path):
    """It builds without a warning, its reference has every public name, and it has the measured results."""
    site, environment = tmp_path / "site", {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = (sys.executable, "-m", "mkdocs", "build", "--strict", "-f", ROOT / "mkdocs.yml", "-d", site)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reference = (site / "reference" / "index.html").read_text("utf-8")
    for module in (fl, *map(import_module, ("fusedloss.torch", "fusedloss.keras", "fusedloss.jax", "fusedloss.plot"))):
        for name in set(module.__all__) - {"__version__"}:
            assert f'id="{module.__name__}.{name}"' in reference, name
    for path in (ROOT / "bench" / "results").glob("*.json"):
        assert (site / "results" / path.name).read_bytes() == path.read_bytes()
    assert "128256" in (site / "performance" / "index.html").read_text("utf-8")
