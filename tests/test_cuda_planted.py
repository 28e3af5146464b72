"""What the simulator's tests are worth: each bug that is planted into a copy of the kernels makes them fail.

A plant is a piece of source, which must be there once in all modules, and what takes its place.
"""

import importlib
import importlib.util
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import cuda_kernels
import fusedloss.kernels
import numpy as np
import pytest
from kernel_cases import LOSS_OPTIONS, assert_close, kernels_of, offence, row_loss

NAME = "kernels_planted"
SOURCES = Path(fusedloss.kernels.__file__).parent

pytestmark = pytest.mark.skipif(not cuda_kernels.SIMULATED, reason="bugs are planted into the simulator alone")


class Plant(NamedTuple):
    """A bug: what is there, what is put there, the check that must find it, and how the names of its modules begin."""

    right: str
    wrong: str
    check: str
    module: str = "cuda"


ROW_SYNC = "        sync()\n        return among"
OWNER = "return value(transform(x, curve), y, w, k == ahead,"
TAIL = "transform(one(at + k * size), curve) if k < left else minus"
AIMED = "z, mass = index, transform(one(at + step * index), curve), 1.0"
FACTOR = "mass, rest, square, base = factor * mass, factor * rest, factor * factor * square, raised"
RELATIVE = "return factor * total, factor * (energy + wide(fall) * total), factor * rest, factor * factor * square"
IN_USE = "        sync()  # what is there is still in use\n"
BROUGHT = "            byte += size * step\n        sync()\n"
LEAVES = "    def give(at: Any, size_of_tile: Any) -> Any:\n        sync()\n"
APART = "return total, energy, rest, square"
LEAST = "atomic_least(status, number)"
TIES = "select(k < ahead, z_target"
KEPT = "held16(room + 16 * k) if k < kept and k < safe else"
CUT = "load16_kept(at - shift + 16 * k + 16), shift)"
EVERY = "                if lanes > WARP:\n                    sync()  # before the next sum\n"

PLANTS = {
    "a missing barrier": Plant(ROW_SYNC, ROW_SYNC[15:], "blocks"),
    "a short reduction": Plant("    if lanes == 1:\n", "    if lanes <= 2:\n", "rows"),
    "a wrong owner of the label column": Plant(OWNER, OWNER.replace("ahead,", "ahead + 1,"), "rows"),
    "the logit of another class": Plant(AIMED, AIMED.replace("* index)", "* (index ^ 1))"), "rows"),
    "an unmasked tail": Plant(TAIL, TAIL.removesuffix(" if k < left else minus"), "rows"),
    "vectors left out": Plant("        while k < vectors:", "        while k + group < vectors:", "rows"),
    "rows forgotten": Plant("number += blocks() *", "number += (blocks() + 1) *", "rows"),
    "tiles forgotten": Plant("first += blocks() *", "first += (blocks() + 1) *", "tiles"),
    "a status that is the last": Plant(LEAST, LEAST.replace("atomic_least", 'poke("i8")'), "status", "cuda_row_sums"),
    "a status past the rows": Plant("index >= classes)", "index > classes)", "status", "cuda_row_sums"),
    "sums at a maximum that has risen": Plant(FACTOR, "base = raised", "rows"),
    "sums of threads at maxima of their own": Plant(RELATIVE, APART, "rows"),
    "a tile replaced while it is used": Plant(IN_USE, "", "tiles"),
    "a tile used before it is there": Plant(BROUGHT, BROUGHT[:-15], "tiles"),
    "a tile that leaves too early": Plant(LEAVES, LEAVES[:-15], "tiles"),
    "what was never kept": Plant(KEPT, KEPT.replace(" and k < safe", ""), "rows"),
    "a vector cut from the wrong places": Plant(CUT, CUT.replace(" + 16)", ")"), "rows"),
    "ties by the wrong class": Plant(TIES, TIES.replace("<", ">"), "scores"),
    "one thread's winner": Plant("found = first_of(found)\n", "first_of(found)\n", "scores"),
    "segments that share memory": Plant(EVERY, "", "elements"),
    "a ragged end left out": Plant("        if ragged:\n", "        if False:\n", "elements"),
}  # fmt: skip


@pytest.fixture
def plant(tmp_path, monkeypatch):
    """Plant a bug into a copy of the kernels, small blocks and all, and let the harness use it."""

    def use(bug=None):
        folder = tmp_path / NAME
        shutil.copytree(SOURCES, folder, ignore=shutil.ignore_patterns("__pycache__"))
        if bug:
            sources = {file: file.read_text("utf-8") for file in folder.glob(f"{bug.module}*.py")}
            (place,) = [file for file, source in sources.items() for _ in range(source.count(bug.right))]
            place.write_text(sources[place].replace(bug.right, bug.wrong), "utf-8")
        spec = importlib.util.spec_from_file_location(
            NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        sys.modules[NAME] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[NAME])
        cuda, card, schedule = (importlib.import_module(f"{NAME}.cuda{name}") for name in ("", "_card", "_schedule"))
        monkeypatch.setattr(cuda, "GROUPS", ((40, 4), (300, 128)))
        monkeypatch.setattr(cuda, "BLOCKS", 1)
        monkeypatch.setattr(sys.modules[f"{NAME}.cuda_bind_elements"], "MOST_BLOCKS", 2)
        monkeypatch.setattr(cuda_kernels, "cuda", cuda)
        monkeypatch.setattr(cuda_kernels, "cuda_card", card)
        return schedule.Fault

    yield use
    for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
        del sys.modules[name]


def drawn(rows, classes):
    """Logits with ties, which rise along a row, and targets."""
    rng = np.random.default_rng(0)
    x = np.round(4 * rng.standard_normal((rows, classes, 1))) / 4 + np.linspace(0, 40, classes)[:, None].round()
    return x.astype(np.float32), rng.integers(0, classes, rows)


def losses(rows, classes):
    x, target = drawn(rows, classes)
    made, expected = (row_loss(kernels_of(name), "cross_entropy", x, target) for name in ("cuda", "reference"))
    for got, want in zip(made, expected, strict=True):
        assert_close(got, want, 4, scale=1.0)


def scored(rows, classes):
    x, target = drawn(rows, classes)
    real, whole = ("log_normalizer", "confidence", "entropy", "nll", "brier"), ("prediction", "rank")
    told = []
    for name in ("cuda", "reference"):
        out = {key: np.full(rows, 7, np.float32) for key in real} | {key: np.full(rows, 7) for key in whole}
        run = kernels_of(name).score(x, target, ignore_index=-100, logit_scale=1.0, softcap=None, **out)
        assert run(0, rows) == -1
        told.append(out)
    for key in real:
        assert_close(told[0][key], told[1][key], 16, scale=1.0)
    for key in whole:
        np.testing.assert_array_equal(told[0][key], told[1][key])


def rows():
    losses(70, 101)


def blocks():
    losses(5, 1030)


def tiles():
    losses(300, 7)
    scored(300, 7)


def status():
    x, target = drawn(70, 101)
    target[[5, 40, 66]] = 101, -3, 1000
    assert offence(kernels_of("cuda"), "cross_entropy", x, target) == 5


def scores():
    scored(40, 101)
    scored(3, 1030)


def elements():
    rng = np.random.default_rng(0)
    x, y = (rng.random((4, 4099), dtype=np.float32) for _ in range(2))
    sums = [np.full(8, 7.0) for _ in range(2)]
    for name, out in zip(("cuda", "reference"), sums, strict=True):
        assert kernels_of(name).mse(x, y, None, out, None, **LOSS_OPTIONS["mse"])(0, 8) == -1
    assert_close(*sums, 4, dtype=np.float32)


CHECKS = {check.__name__: check for check in (rows, blocks, tiles, status, scores, elements)}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_without_a_bug_the_checks_pass(plant, check):
    plant()
    check()


@pytest.mark.parametrize("bug", PLANTS.values(), ids=PLANTS)
def test_a_bug_is_found(plant, bug):
    fault = plant(bug)
    with pytest.raises((fault, AssertionError)):
        CHECKS[bug.check]()
