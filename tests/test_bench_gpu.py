"""What checks and measures on a card: on the simulated one, arrays of no size and steps of its own; its results."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gpu_place import tensors_on_card

from bench import gpu, gpu_sanity, gpu_speed

ROOT = Path(__file__).resolve().parents[1]
PLACE = gpu_speed.Place("cpu", 0, 1, gpu_speed.by_clock, gpu_speed.by_clock)
SMALL = ["bfloat16-1024", "float32-4096", "few-bfloat16-10", "few-float32-256", "call"]
ROW = {
    "target": "a / b", "what": "9 × 9", "least": 0.5, "aim": 0.9, "of": ["b"], "to": "a", "factor": 1.0, "reached": 0.7,
    "met": "least", "seconds": {"a": 2e-3, "b": 1e-3},
}  # fmt: skip
on_card = pytest.mark.usefixtures(tensors_on_card.__name__)


@on_card
@pytest.mark.parametrize("name", SMALL)
def test_a_section(name):
    told = list(gpu_speed.SECTIONS[name](PLACE))
    assert told
    for row in told:
        assert row == json.loads(json.dumps(row))
        assert row["reached"] > 0
        assert len(row["seconds"]) == 2
        assert gpu.line(row)


@on_card
def test_what_answers_wrong_is_not_timed(monkeypatch):
    x, y = gpu_speed.drawn(PLACE, 9, torch.float32)
    gpu_speed.check(x, y, torch.empty_like(x))
    loss = gpu_speed.functional.cross_entropy
    monkeypatch.setattr(gpu_speed.functional, "cross_entropy", lambda *args, **given: loss(*args, **given) + 1)
    with pytest.raises(AssertionError, match="^off by "):
        gpu_speed.check(x, y, torch.empty_like(x))
    with pytest.raises(AssertionError, match="^off by nan"):
        gpu_speed.agree(torch.tensor(float("nan")), torch.tensor(1.0), 1.0)


def test_a_ratio_is_the_median_of_the_rounds():
    aims = [gpu_speed.Aim("t", "w", 0.5, 0.9, ("copy",), "loss", 0.5)]
    (told,) = gpu_speed.results(aims, {"copy": [2.0, 2.0, 9.0], "loss": [1.0, 2.0, 1.0]}, 3_000_000_000)
    assert (told["reached"], told["met"]) == (1.0, "aim")
    assert told["copied_gb_per_second"] == pytest.approx(3.0)
    assert gpu_speed.turns({"a": lambda: None}, 3, lambda call: 1.0) == {"a": [1.0] * 3}


@on_card
def test_every_kernel_for_the_checkers():
    shapes = {"a tile": (7, 10), "a few threads": (3, 133)}
    assert gpu_sanity.run("cpu", shapes, [torch.bfloat16]) == 2 * 11 + 2 * 5


def test_sections_are_those_that_run():
    assert [*gpu.SPEED, "compile"] == sorted(gpu_speed.SECTIONS, key=[*gpu.SPEED, "compile"].index)
    assert all((ROOT / "tests" / name).exists() for name in (*gpu.SUITE, "only_on_a_card.py"))


def test_missing_packages(tmp_path):
    file = tmp_path / "test_it.py"
    file.write_text("import json, beside\nfrom nowhere.at import all\nimport fusedloss\n")
    (tmp_path / "beside.py").write_text("import nobody")
    assert gpu.missing(file) == {"nowhere", "nobody"}
    assert not any(gpu.missing(ROOT / "tests" / name) for name in gpu.SUITE)


def test_the_sources_as_they_are():
    """The package is found, kernels and all, from a fresh process elsewhere."""
    folder = gpu.sources()
    code = "import fusedloss.kernels.numerics as n, fusedloss.cli; print(n.__file__)"
    command = [sys.executable, "-c", code]
    env = gpu.environment(folder)
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, cwd=folder)
    assert done.stdout.strip() == str(folder / "fusedloss" / "kernels" / "numerics.py")
    gpu.shutil.rmtree(folder)
    assert (ROOT / "kernels" / "numerics.py").exists()


@pytest.fixture
def step(monkeypatch):
    """Make a step of a line of Python."""
    monkeypatch.setattr(gpu, "about", lambda: {"date": "today"})
    return lambda name, code, seconds=60: gpu.Step(name, [sys.executable, "-u", "-c", code], seconds)


def test_steps(step, tmp_path, capsys):
    path = tmp_path / "gpu.json"
    row = f"print({gpu.MARK!r} + {json.dumps(ROW)!r})"
    chosen = [
        step("good", row), step("bad", f"{row}; print('of mars'); raise SystemExit(3)"),
        step("slow", f"{row}; import time; time.sleep(99)", 2),
    ]  # fmt: skip
    assert not gpu.measured(chosen, path, 100)
    told = json.loads(path.read_text())
    assert told["results"] == [ROW] * 3
    assert [each["status"] for each in told["steps"]] == ["done", "failed (3)", "timed out"]
    assert told["steps"][1]["said"] == "of mars\n"
    assert told["steps"][2]["seconds"] < 30
    assert capsys.readouterr().out.count("a / b") == 3
    assert gpu.measured(chosen[:1], path, 100)
    assert not gpu.measured(chosen[:1], path, 1)
    assert json.loads(path.read_text())["steps"][0]["status"] == "no time left"


def test_names_of_steps(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu", "--list", "--only", "speed"])
    assert gpu.main() == 0
    assert capsys.readouterr().out.split("\n")[:2] == ["speed bfloat16", "speed float32"]
