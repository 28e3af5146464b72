"""Checks and times the library on a card, with no network: ``python -m bench.gpu``, or ``make gpu``.

It needs a Python that has PyTorch with CUDA, numba-cuda and pytest, and installs nothing: the sources beside it are
used as they are. Every step is a process of its own, with a limit, so that one that fails takes no other with it.
Results are kept as they come.
"""

import argparse
import ast
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from .aims import MARK, line

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results" / "gpu.json"
BUDGET = 530.0  # seconds in all
TAIL = 4000  # characters of what a failed step said
SPEED = [
    "bfloat16-1024", "bfloat16-4096", "bfloat16-32000", "bfloat16-128256", "bfloat16-262144", "float32-1024",
    "float32-4096", "float32-32000", "float32-128256", "float32-262144", "few-bfloat16-10", "few-bfloat16-256",
    "few-float32-10", "few-float32-256", "torch", "call", "host",
]  # fmt: skip
SUITE = [
    "test_kernels.py", "test_kernels_probs.py", "test_kernels_elements.py", "test_kernels_scores.py", "test_losses.py",
    "test_scores.py", "test_activations.py", "test_evaluation.py", "test_edges.py", "test_golden.py",
]  # fmt: skip
PACKAGES = ("numpy", "numba", "numba-cuda", "cuda-bindings", "torch", "triton", "cupy-cuda13x", "cupy-cuda12x", "jax")


class Step(NamedTuple):
    """A part of the run: its name, its command, and how long it may take."""

    name: str
    command: list[str]
    seconds: float


def steps() -> Iterator[Step]:
    """All there is to do, the quickest answers first."""
    python = sys.executable
    yield Step("arrays on the card", tested(["test_gpu.py", "only_on_a_card.py"]), 150)
    for kind in ("bfloat16-", "float32-", "few-"):
        names = [name for name in SPEED if name.startswith(kind)]
        yield Step(f"speed {kind.strip('-')}", [python, "-m", "bench.gpu_speed", *names], 100)
    for name in ("torch", "call", "host", "compile"):
        yield Step(f"speed {name}", [python, "-m", "bench.gpu_speed", name], 90)
    yield Step("tests", tested(SUITE, "-k", "cuda"), 240)
    if checker := shutil.which("compute-sanitizer") or _beside_cuda("compute-sanitizer"):
        for tool in ("memcheck", "racecheck"):
            command = [checker, "--tool", tool, "--error-exitcode", "9", python, "-m", "bench.gpu_sanity", "--few"]
            yield Step(tool, command, 150)


def _beside_cuda(tool: str) -> str | None:
    found = Path("/usr/local/cuda/bin", tool)
    return str(found) if found.exists() else None


def tested(files: list[str], *options: str) -> list[str]:
    """Run test files, in several processes where that is possible; those whose imports are all there."""
    there = [str(ROOT / "tests" / file) for file in files if not missing(ROOT / "tests" / file)]
    several = ["-n", str(min(os.cpu_count() or 1, 12))] if importlib.util.find_spec("xdist") else []
    plain = ["-o", "filterwarnings=default", "-p", "no:cacheprovider", "-q", "--tb=short"]
    return [sys.executable, "-m", "pytest", *several, *plain, *options, *there]


def missing(file: Path) -> set[str]:
    """Name the packages that a file of Python imports and that are not here, and what its neighbours lack."""
    names, lacks = set(), set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    for top in {name.split(".")[0] for name in names} - {"fusedloss", "bench"}:
        beside = file.parent / f"{top}.py"
        if beside.exists():
            lacks |= missing(beside)
        elif not (file.parent / top).is_dir() and importlib.util.find_spec(top) is None:
            lacks.add(top)
    return lacks


def sources() -> Path:
    """Lay the package out, by links, as it is when it is installed; the folder that holds it."""
    folder = Path(tempfile.mkdtemp(prefix="fusedloss-"))
    package = folder / "fusedloss"
    package.mkdir()
    for path in (ROOT / "src" / "fusedloss").iterdir():
        (package / path.name).symlink_to(path)
    (package / "kernels").symlink_to(ROOT / "kernels")
    return folder


def environment(folder: Path) -> dict[str, str]:
    """What the steps' processes see: these sources, and the card."""
    path = os.pathsep.join([str(folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "FUSEDLOSS_CUDA_SIMULATOR": "0", "PYTHONUNBUFFERED": "1"}


def carried_out(
    step: Step, limit: float, env: dict[str, str], take: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Run a step, hand on each result that it prints, and tell how it ended."""
    started, said = time.monotonic(), []
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    with (
        subprocess.Popen(step.command, cwd=ROOT, env=env, start_new_session=True, **pipes) as process,
        ThreadPoolExecutor(1) as watch,
    ):
        watching = watch.submit(_ended, process, limit)
        for text in process.stdout or ():
            if text.startswith(MARK):
                take(json.loads(text.removeprefix(MARK)))
            else:
                said.append(text)
        in_time = watching.result()
    status = "timed out" if not in_time else "done" if process.returncode == 0 else f"failed ({process.returncode})"
    told = {"step": step.name, "status": status, "seconds": round(time.monotonic() - started, 1)}
    return told | {"said": "".join(said)[-(TAIL if status != "done" else 300) :]}


def _ended(process: subprocess.Popen[str], limit: float) -> bool:
    """Wait for a process, and end it and what it started if it takes too long."""
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False
    return True


def prepared(env: dict[str, str], names: list[str]) -> None:
    """Have the kernels of the timed sections compiled and kept, all at once, before anything is timed."""

    def small(name: str) -> dict[str, Any]:
        step = Step(f"compile {name}", [sys.executable, "-m", "bench.gpu_speed", "--tiny", name], 100)
        return carried_out(step, step.seconds, env, lambda told: None)

    with ThreadPoolExecutor(min(os.cpu_count() or 1, len(names) or 1)) as pool:
        for told in pool.map(small, names):
            if told["status"] != "done":
                print(f"{told['step']}: {told['status']}\n{told['said']}", flush=True)


def about() -> dict[str, Any]:
    """The card, its driver, and what is installed."""
    import torch

    card = torch.cuda.get_device_properties(0)
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    asked = shutil.which(command[0]) and subprocess.run(command, capture_output=True, text=True, check=False).stdout
    there = {dist.metadata["Name"]: dist.version for dist in importlib.metadata.distributions()}
    versions = {"python": sys.version.split()[0], **{name: there[name] for name in PACKAGES if name in there}}
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        "device": {
            "name": card.name, "memory_gb": round(card.total_memory / 1e9, 1),
            "multiprocessors": card.multi_processor_count, "capability": f"{card.major}.{card.minor}",
            "driver": asked.split()[0] if asked else None, "cuda": torch.version.cuda,
        },
        "versions": versions,
    }  # fmt: skip


def keep(path: Path, told: dict[str, Any]) -> None:
    """Write what there is so far, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    part.replace(path)


def main() -> int:
    """Run the steps, print what comes, keep it, and tell whether all of them were done."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="REGEX", help="of a step's name: 'speed', 'tests|arrays', ...")
    parser.add_argument("--json", type=Path, default=RESULTS, help=f"default: {RESULTS.relative_to(ROOT)}")
    parser.add_argument(
        "--budget", type=float, default=BUDGET, metavar="S", help=f"seconds in all, default: {BUDGET:g}"
    )
    parser.add_argument("--list", action="store_true", help="name the steps and leave")
    given = parser.parse_args()
    chosen = [step for step in steps() if re.search(given.only, step.name)]
    if given.list:
        print("\n".join(step.name for step in chosen))
        return 0
    return 0 if measured(chosen, given.json, given.budget) else 1


def measured(chosen: list[Step], path: Path, budget: float) -> bool:
    """Run steps until the time is up."""
    until, folder = time.monotonic() + budget, sources()
    told: dict[str, Any] = {**about(), "steps": [], "results": []}
    env = environment(folder)

    def take(row: dict[str, Any]) -> None:
        told["results"].append(row)
        print(line(row), flush=True)
        keep(path, told)

    try:
        timed = [name for step in chosen if step.name.startswith("speed") for name in step.command[3:]]
        prepared(env, [name for name in timed if name in SPEED])
        for step in chosen:
            left = until - time.monotonic()
            if left > 5:
                told["steps"].append(carried_out(step, min(step.seconds, left), env, take))
            else:
                told["steps"].append({"step": step.name, "status": "no time left", "seconds": 0.0, "said": ""})
            ended = told["steps"][-1]
            print(f"{step.name}: {ended['status']}, {ended['seconds']} s\n{ended['said']}", flush=True)
            keep(path, told)
    finally:
        shutil.rmtree(folder)
    return all(step["status"] == "done" for step in told["steps"])


if __name__ == "__main__":
    sys.exit(main())
