"""How near the library comes to what memory allows: ``python -m bench.speeds``.

The ceilings and the library's calls take turns, so that whatever else the machine does meets them alike. Of every round
the ratio to its own ceiling is taken, and of the rounds the median. Prints a Markdown table, and writes JSON.
"""

import argparse
import json
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

from .cases import CONTENDERS, SHAPES, about, bytes_moved, check, inputs
from .ceilings import aligned, copier, reader

RESULTS = Path(__file__).parent / "results" / "cpu.json"
README = Path(__file__).parents[1] / "README.md"
MARKS = "<!-- speed, written by `python -m bench.speeds --readme` -->", "<!-- /speed -->"
CEILINGS = {
    "loss": "read",
    "loss + gradient into a buffer": "copy",
    "loss + gradient in place": "copy",
    "evaluate": "read",
}


def measure(rows: int, classes: int, rounds: int) -> list[dict[str, Any]]:
    """Time the ceilings and the cases on one shape, in turns."""
    x, y = inputs(rows, classes)
    out = aligned(x.shape)
    calls: dict[str, Callable[[], Any]] = {"read": reader(x), "copy": copier(x, out)}
    moved = {"read": x.nbytes, "copy": 2 * x.nbytes}
    for case in CEILINGS:
        run = CONTENDERS[case]["fusedloss"]
        check(case, run, x, y, out)
        calls[case], moved[case] = (lambda run=run: run(x, y, out)), bytes_moved(case, x)
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            if "in place" in name:
                out[...] = x
            seconds[name].append(_timed(call))
    return [_result(rows, classes, name, moved[name], seconds) for name in calls]


def _timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _result(rows: int, classes: int, case: str, moved: int, seconds: dict[str, list[float]]) -> dict[str, Any]:
    took, ceiling = median(seconds[case]), CEILINGS.get(case)
    told = {"rows": rows, "classes": classes, "case": case, "seconds": took, "gigabytes_per_second": moved / took / 1e9}
    if ceiling:
        ratios = [best / mine for best, mine in zip(seconds[ceiling], seconds[case], strict=True)]
        told |= {"ceiling": ceiling, "share_of_ceiling": median(ratios)}
    return told


def table(results: list[dict[str, Any]]) -> str:
    """A row a shape, a column a case: GB/s, and the share of its ceiling."""
    cases = list(dict.fromkeys(each["case"] for each in results))
    heads = [f"{case} ceiling" if case not in CEILINGS else case for case in cases]
    lines = [["N × C", *heads], ["---"] + ["---:"] * len(cases)]
    for shape in dict.fromkeys((each["rows"], each["classes"]) for each in results):
        here = {each["case"]: each for each in results if (each["rows"], each["classes"]) == shape}
        lines.append([f"{shape[0]} × {shape[1]}", *(_cell(here[case]) for case in cases)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(result: dict[str, Any]) -> str:
    speed = f"{result['gigabytes_per_second']:.1f} GB/s"
    return f"{speed} ({result['share_of_ceiling']:.0%})" if "ceiling" in result else speed


def publish(told: dict[str, Any]) -> None:
    """Write the README's table from what a run, or a run's file, tells."""
    head, _, rest = README.read_text(encoding="utf-8").partition(MARKS[0])
    tail = rest.partition(MARKS[1])[2]
    machine = told["machine"]
    words = (
        "Of a read of the float32 logits, or of a copy of them past the caches, both measured in the same run: "
        f"{machine['processor']}, {machine['threads']} threads, {told['date'][:10]}, `bench/results/cpu.json`. "
        "GB/s count what must be read and written; `evaluate` is likelihood, perplexity, accuracy, top-k, entropy, "
        "Brier score and calibration in one."
    )
    body = f"\n## Speed\n\n{words}\n\n{table(told['results'])}\n\n"
    README.write_text(f"{head}{MARKS[0]}{body}{MARKS[1]}{tail}", encoding="utf-8")


def _shape(text: str) -> tuple[int, int]:
    rows, classes = map(int, text.split("x"))
    return rows, classes


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.speeds", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11, help="default: 11")
    parser.add_argument("--shape", type=_shape, action="append", metavar="NxC", help="default: the three of the suite")
    parser.add_argument("--output", type=Path, default=RESULTS, help="default: bench/results/cpu.json")
    parser.add_argument("--readme", action="store_true", help="write the README's table, too")
    options = parser.parse_args()
    results = [each for shape in options.shape or SHAPES for each in measure(*shape, options.rounds)]
    print(table(results))
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    told = {"date": now, **about(), "dtype": "float32", "rounds": options.rounds, "results": results}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(told, indent=2) + "\n")
    if options.readme:
        publish(told)


if __name__ == "__main__":
    main()
