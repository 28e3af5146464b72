"""Logging an evaluation: to anything with ``log``, and to an offline run of Weights & Biases."""

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import wandb
from evaluation_cases import case
from wandb_history import charts, finish, history, table

import fusedloss as fl

COLUMNS = ["lower", "upper", "count", "confidence", "accuracy"]


class Sink:
    """A logger of numbers alone, which knows no steps."""

    def __init__(self):
        self.logged: list[dict[str, Any]] = []

    def log(self, values: dict[str, Any]):
        self.logged.append(values)


class SteppedSink(Sink):
    """A logger that knows steps, too."""

    def log(self, values: dict[str, Any], step: int | None = None):
        self.logged.append({"step": step, **values})


@pytest.fixture
def evaluation(rng) -> fl.Evaluation:
    return fl.evaluate(*case(rng, (203, 10)), top_k=(1, 3), device="numpy")


@pytest.fixture
def binary(rng) -> fl.BinaryEvaluation:
    return fl.evaluate_binary(rng.standard_normal((203, 3)), rng.random((203, 3)) < 0.4, bins=4, device="numpy")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A run that needs no account and no network."""
    monkeypatch.setenv("WANDB_SILENT", "true")
    with wandb.init(mode="offline", dir=tmp_path, project="fusedloss") as run:
        yield run


def test_every_number_is_logged(evaluation):
    sink = Sink()
    evaluation.log(sink)
    told = evaluation.to_dict()
    del told["calibration"]
    told |= {f"top_{k}_accuracy": value for k, value in told.pop("top_k").items()}
    assert sink.logged == [told]
    assert all(isinstance(value, float | int) for value in told.values())


def test_every_number_of_a_binary_evaluation_is_logged(binary):
    sink = Sink()
    binary.log(sink)
    told = binary.to_dict()
    for name in ("calibration", "threshold", "per_label"):
        del told[name]
    assert sink.logged == [told]


def test_step_and_prefix(evaluation):
    sink, plain = SteppedSink(), Sink()
    evaluation.log(sink, step=7, prefix="val/")
    evaluation.log(sink)
    evaluation.log(plain, prefix="val/")
    assert sink.logged == [{"step": 7, **plain.logged[0]}, {"step": None, **evaluation._metrics()}]
    assert plain.logged == [{f"val/{name}": value for name, value in evaluation._metrics().items()}]


def test_what_is_not_finite_stays_so():
    sink = Sink()
    fl.evaluate(np.zeros((0, 3), np.float32), [], device="numpy").log(sink)
    fl.evaluate(np.float32([[-np.inf, 0]]), [0], device="numpy").log(sink)
    empty, impossible = sink.logged
    assert (empty["count"], math.isnan(empty["nll"])) == (0, True)
    assert (impossible["nll"], impossible["perplexity"]) == (math.inf, math.inf)


def test_what_cannot_be_logged_to(evaluation, binary):
    for each in (evaluation, binary):
        with pytest.raises(fl.OptionError, match=r"sink is None, expected an object with a method log\(dict\)"):
            each.log(None)
        with pytest.raises(fl.OptionError, match="sink is <built-in function print>, expected an object"):
            each.log(print)
        with pytest.raises(fl.OptionError, match="prefix is 3, expected a str"):
            each.log(Sink(), prefix=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'step'"):
        evaluation.log(Sink(), step=1)


def test_wandb(evaluation, binary, run, tmp_path):
    evaluation.log(run, step=3, prefix="val/")
    binary.log(wandb, step=5)  # the module stands for the run that was started last
    finish(run)
    first, second = history(tmp_path)
    assert (first["_step"], second["_step"]) == (3, 5)
    for logged, prefix, of in ((first, "val/", evaluation), (second, "", binary)):
        sink = Sink()
        of.log(sink, prefix=prefix)
        assert {name: logged[name] for name in sink.logged[0]} == sink.logged[0]
        counts, uppers = [each.count for each in of.calibration], [each.upper for each in of.calibration]
        assert logged[f"{prefix}confidence"] == {"_type": "histogram", "values": counts, "bins": [0, *uppers]}


def test_wandb_draws_the_calibration(evaluation, binary, run, tmp_path):
    evaluation.log(run, prefix="val/")
    binary.log(run)
    finish(run)
    drawn = charts(tmp_path)
    for logged, prefix, of in zip(history(tmp_path), ("val/", ""), (evaluation, binary), strict=True):
        shown = table(tmp_path, logged[f"{prefix}calibration_table"]["path"])
        filled = [each for each in of.calibration if each.count]
        assert 0 < len(filled) <= of.bins
        assert shown["columns"] == COLUMNS
        assert shown["data"] == [[getattr(each, name) for name in COLUMNS] for each in filled]
        config = drawn[f"{prefix}calibration"]["panel_config"]
        assert config["panelDefId"] == "wandb/line/v0"
        assert {axis: config["fieldSettings"][axis] for axis in "xy"} == {"x": "confidence", "y": "accuracy"}


def test_wandb_without_rows_and_with_many_bins(run, tmp_path):
    fl.evaluate(np.zeros((0, 3), np.float32), [], bins=600, device="numpy").log(run)
    finish(run)
    (logged,) = history(tmp_path)
    assert logged["count"] == 0
    assert math.isnan(float(logged["nll"]))
    assert "confidence" not in logged
    assert table(tmp_path, logged["calibration_table"]["path"])["data"] == []


def test_a_folder_of_runs_is_not_wandb(evaluation, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))
    sink = Sink()
    evaluation.log(sink)
    assert sink.logged == [evaluation._metrics()]


def test_logging_imports_no_logger():
    code = (
        "import sys, numpy as np, fusedloss as fl\n"
        "class Sink:\n"
        "    log = staticmethod(print)\n"
        "fl.evaluate(np.eye(3), [0, 1, 2], device='numpy').log(Sink)\n"
        "assert 'wandb' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'accuracy': 1.0" in done.stdout
