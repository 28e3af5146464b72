"""Sending an evaluation to a logger: numbers to any, and charts to Weights & Biases.

No logger is imported here: wandb is looked up in ``sys.modules``, where the caller's run has put it.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from .errors import OptionError

if TYPE_CHECKING:
    from .scores import CalibrationBin


class Evaluated(Protocol):
    """What an evaluation tells of itself."""

    @property
    def calibration(self) -> tuple["CalibrationBin", ...]: ...

    def _metrics(self) -> dict[str, float]: ...


class Loggable:
    """An evaluation that can be logged."""

    def log(self: Evaluated, sink: Any, step: int | None = None, prefix: str = "") -> None:
        """Log every number, and charts of the calibration where the sink is a Weights & Biases run.

        One dict of floats goes to ``sink.log``, in one call: each property by its name, and a top-k accuracy by a name
        such as ``top_5_accuracy``. What is not finite stays so. A W&B run also gets ``calibration``, the accuracy over
        the confidence of each bin that is not empty, with its table, and ``confidence``, the histogram of the bins.

        Parameters
        ----------
        sink : object
            Anything with ``log(dict)``: a W&B run, the module ``wandb``, or your own.
        step : int, optional
            Passed on as ``step=``, and only if given.
        prefix : str
            What every name starts with, such as ``"val/"``.

        Raises
        ------
        OptionError
            If `sink` has no method ``log``, or `prefix` is no text.
        """
        if not callable(getattr(sink, "log", None)):
            raise OptionError(f"sink is {sink!r}, expected an object with a method log(dict)")
        if not isinstance(prefix, str):
            raise OptionError(f"prefix is {prefix!r}, expected a str")
        values: dict[str, Any] = self._metrics()
        if _is_wandb(sink):
            values |= _charts(self.calibration)
        named = {prefix + name: value for name, value in values.items()}
        _ = sink.log(named) if step is None else sink.log(named, step=step)


def _is_wandb(sink: object) -> bool:
    wandb = sys.modules.get("wandb")
    run = getattr(wandb, "Run", None)  # a folder of runs is also called wandb, and has none
    return run is not None and (sink is wandb or isinstance(sink, run))


def _charts(bins: Sequence["CalibrationBin"]) -> dict[str, Any]:
    """Make W&B's chart of accuracy over confidence, and its histogram of confidence, which has a limit of bins."""
    wandb = sys.modules["wandb"]
    rows = [list(asdict(each).values()) for each in bins if each.count]
    table = wandb.Table(columns=["lower", "upper", "count", "confidence", "accuracy"], data=rows)
    charts = {"calibration": wandb.plot.line(table, "confidence", "accuracy", title="Calibration")}
    if len(bins) <= wandb.Histogram.MAX_LENGTH:
        edges = [0.0, *(each.upper for each in bins)]
        charts["confidence"] = wandb.Histogram(np_histogram=([each.count for each in bins], edges))
    return charts
