"""What threads bring, the ceilings included: ``python -m bench.scaling``."""

from statistics import median
from typing import Any

import fusedloss as fl
from fusedloss.bench.cases import Shape, Task, shape_text
from fusedloss.bench.ceilings import ceilings
from fusedloss.bench.inputs import Inputs
from fusedloss.bench.machine import about
from fusedloss.bench.oracle import truth
from fusedloss.bench.peers import OURS
from fusedloss.bench.suite import enter
from fusedloss.bench.turns import Contender, ratio, take_turns

from .record import save

SHAPES = [(32768, 1000), (1024, 128256)]
CASES = ("loss", "buffer", "evaluate")
ROUNDS = 11


def counts(most: int) -> list[int]:
    """1, 2, 4, … and all."""
    return sorted({most, *(2**k for k in range(most.bit_length()) if 2**k <= most)})


def threaded(contender: Contender, threads: int) -> Contender:
    """The same with another number of threads, which are started before the clock is."""

    def prepare() -> None:
        fl.set_num_threads(threads)
        for step in (contender.setup, contender.call, contender.setup):
            if step:
                step()

    return Contender(contender.call, prepare)


def scaled(shape: Shape) -> list[dict[str, Any]]:
    """Time cases and ceilings with every number of threads, in turns."""
    inputs, many = Inputs("hard", shape, "float32"), fl.get_num_threads()
    right = truth("hard", inputs)
    who = {case: enter(OURS, Task("hard", case, shape, "float32"), inputs, right) for case in CASES} | ceilings(inputs)
    try:
        turns = {f"{case} {n}": threaded(one, n) for case, one in who.items() for n in counts(many)}
        seconds = take_turns(turns, ROUNDS)
    finally:
        fl.set_num_threads(many)
    return [
        {
            "shape": shape, "case": case, "threads": n, "seconds": median(seconds[f"{case} {n}"]),
            "times_one": ratio(seconds, f"{case} 1", f"{case} {n}"),
        }
        for case in who for n in counts(many)
    ]  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    here, results = about(), []
    print(f"{'shape':<14} {'case':<10} {'threads':>7} {'ms':>9} {'of one':>7}")
    for shape in SHAPES:
        for row in scaled(shape):
            results.append(row)
            print(
                f"{shape_text(shape):<14} {row['case']:<10} {row['threads']:>7} {row['seconds'] * 1e3:>9.2f} "
                f"{row['times_one']:>6.2f}x",
                flush=True,
            )
    save("scaling", {**here, "rounds": ROUNDS, "results": results})


if __name__ == "__main__":
    main()
