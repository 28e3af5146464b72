"""Ratios of times that are aimed at, on the CPU and on a card, and how they are told; needs nothing but Python."""

from statistics import median
from typing import Any, NamedTuple

Seconds = dict[str, list[float]]
MARK = "result: "
"""Begins a line of a process's output that is a row, as JSON."""
HEADER = f"{'target':<32} {'of':<40} {'least':>6} {'aim':>6} {'reached':>8}  met"


class Aim(NamedTuple):
    """A ratio: how many times longer the fastest of `of` takes than `to`, times a factor."""

    target: str
    what: str
    least: float
    aim: float
    of: tuple[str, ...]
    to: str
    factor: float = 1.0

    def row(self, seconds: Seconds) -> dict[str, Any]:
        """Tell what was reached, the median over rounds, and the median times."""
        ratios = (median(a / b for a, b in zip(seconds[of], seconds[self.to], strict=False)) for of in self.of)
        reached = min(ratios) * self.factor
        met = "aim" if reached >= self.aim else "least" if reached >= self.least else "no"
        times = {name: median(seconds[name]) for name in (*self.of, self.to)}
        return {**self._asdict(), "of": [*self.of], "reached": reached, "met": met, "seconds": times}


def line(row: dict[str, Any]) -> str:
    """Write a row as a line of text under `HEADER`; one that says nothing of what was reached, too."""
    text = f"{row['target']:<32} {row['what']:<40} {row['least']:>6.2f} {row['aim']:>6.2f}"
    if "reached" not in row:
        return text
    times = ", ".join(f"{name} {seconds * 1e3:.4g} ms" for name, seconds in row["seconds"].items())
    return f"{text} {row['reached']:>8.3f}  {row['met']:<5}  {times}"
