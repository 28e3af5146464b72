"""How far the library has come towards the speeds it aims at: ``python -m bench.targets``.

Every row is a ratio of two times of one run: medians over rounds in which all contenders took turns. Every contender is
compared with float64 before it is timed.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import fusedloss as fl
from fusedloss.bench.cases import LOSSES, Inputs, Task
from fusedloss.bench.ceilings import copier, reader
from fusedloss.bench.machine import about
from fusedloss.bench.oracle import check, truth
from fusedloss.bench.peers import OURS, load, missing
from fusedloss.bench.turns import Contender, ratio, take_turns

RESULTS = Path(__file__).parent / "results" / "targets.json"
LARGE = [(32768, 1000), (4096, 32000), (1024, 128256)]
SMALL = [(65536, 10), (65536, 128)]
ROUNDS = 15


class Row(NamedTuple):
    """A ratio: how many times longer `of` takes than the least of `to`, times a factor."""

    target: str
    what: str
    least: float
    aim: float
    of: tuple[str, ...]
    to: str
    factor: float = 1.0


class Group(NamedTuple):
    """Rows whose contenders take turns. What a contender needs is made when its group is run."""

    rows: list[Row]
    contenders: dict[str, Callable[[], Contender]]

    def only(self, pattern: str) -> "Group":
        """The rows that match, and their contenders."""
        rows = [row for row in self.rows if re.search(pattern, f"{row.target} {row.what}")]
        names = {name for row in rows for name in (*row.of, row.to)}
        return Group(rows, {name: make for name, make in self.contenders.items() if name in names})


class Arrays:
    """The arrays of a loss and what is true of them, made when first asked for."""

    def __init__(self, loss: str, shape: tuple[int, ...], dtype: str = "float32") -> None:
        self._key, self._made = (loss, shape, dtype), None

    def _get(self) -> tuple[Inputs, Any]:
        if self._made is None:
            loss, shape, dtype = self._key
            inputs = Inputs(LOSSES[loss].target, shape, dtype)
            self._made = inputs, truth(loss, inputs)
        return self._made

    def nbytes(self, case: str) -> int:
        """What a case moves."""
        return self._get()[0].moved(self.task(case))

    def task(self, case: str) -> Task:
        """A case of these arrays."""
        loss, shape, dtype = self._key
        return Task(loss, case, shape, dtype)

    def run(self, case: str, who: str = OURS) -> Callable[[], Contender]:
        """Who does a case, once it has been found right."""

        def make() -> Contender:
            inputs, right = self._get()
            peer, task = load(who), self.task(case)
            contender = peer.contender(task, inputs, fl.get_num_threads())
            for _ in range(2):  # some compile twice
                if contender.setup:
                    contender.setup()
                result = contender.call()
            check(task, right, peer.answer(result), who)
            return contender

        return make

    def read(self) -> Contender:
        """The streaming read of logits and targets."""
        inputs = self._get()[0]
        return _warm(Contender(reader(inputs.x, inputs.y)))

    def copy(self) -> Contender:
        """The streaming copy of the logits, and read of the targets."""
        inputs = self._get()[0]
        return _warm(Contender(copier(inputs.x, inputs.out, inputs.y)))


def _warm(contender: Contender) -> Contender:
    contender.call()
    return contender


def threaded(make: Callable[[], Contender], threads: int) -> Callable[[], Contender]:
    """The same with another number of threads, which are set and started before the clock is."""

    def build() -> Contender:
        call, setup = make()

        def prepare() -> None:
            fl.set_num_threads(threads)
            call()
            if setup:
                setup()

        return Contender(call, prepare)

    return build


def name(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def ceilings(shape: tuple[int, ...]) -> Group:
    a = Arrays("hard", shape)
    rows = [Row("cross_entropy / read", name(shape), 0.93, 1.0, ("read",), "loss")]
    for case, words in {"buffer": "into a buffer", "gradient": "into a new array", "in-place": "in place"}.items():
        rows.append(Row("value_and_grad / copy", f"{name(shape)} {words}", 0.80, 0.95, ("copy",), case))
    rows.append(Row("evaluate / cross_entropy", name(shape), 0.75, 0.90, ("loss",), "evaluate"))
    cases = {case: a.run(case) for case in ("loss", "buffer", "gradient", "in-place", "evaluate")}
    return Group(rows, {"read": a.read, "copy": a.copy, **cases})


def halves(shape: tuple[int, ...]) -> Group:
    rows, made, wide = [], {}, Arrays("hard", shape)
    for case in ("loss", "buffer"):
        made[case] = wide.run(case)
        for dtype in ("bfloat16", "float16"):
            made[f"{case} {dtype}"] = Arrays("hard", shape, dtype).run(case)
            what = f"{name(shape)} {dtype} {case}"
            rows.append(Row("16 bits / half of float32", what, 0.85, 1.0, (case,), f"{case} {dtype}", 0.5))
    return Group(rows, made)


def peers(shape: tuple[int, ...], case: str) -> Group:
    a, rows, gradient = Arrays("hard", shape), [], case == "gradient"
    here = [peer for peer in ("torch", "torch.compile", "jax") if not missing(peer)]
    for peer in here:
        least, aim = (14.0, 20.0) if gradient else (8.0, 10.0)
        if peer != "torch":
            least, aim = (7.0, 10.0) if gradient else (3.0, 3.5)
        if peer == "torch" or shape != (65536, 10):
            rows.append(Row(f"{peer} / ours", f"{name(shape)} {case}", least, aim, (peer,), OURS))
    compilers = tuple(peer for peer in here if peer != "torch")
    if shape == (65536, 10) and compilers:
        rows.append(Row("fastest compiler / ours", f"{name(shape)} {case}", 1.5, 3.0, compilers, OURS))
    return Group(rows, {peer: a.run(case, peer) for peer in (OURS, *here)})


def one_call() -> Group:
    a = Arrays("hard", (32, 10))
    rows = [Row("torch / ours, one call", f"32x10 {case}", 1.0, 3.0, (f"torch {case}",), case) for case in CALLS]
    made = {case: a.run(case) for case in CALLS}
    return Group(rows, made | {f"torch {case}": a.run(case, "torch") for case in CALLS})


CALLS = ("loss", "gradient")


def shares(target: str, loss: str, shape: tuple[int, ...], least: float, aim: float) -> Group:
    a = Arrays(loss, shape)
    row = Row(target, name(shape), least, aim, ("read",), "loss")
    return Group([row], {"read": a.read, "loss": a.run("loss")})


def threads(shape: tuple[int, ...]) -> Group:
    a, rows, made, many = Arrays("hard", shape), [], {}, fl.get_num_threads()
    for what, make in {"loss": a.run("loss"), "buffer": a.run("buffer"), "read": a.read, "copy": a.copy}.items():
        made[f"{what} 1"], made[f"{what} {many}"] = threaded(make, 1), threaded(make, many)
        row = Row(f"{many} threads / 1", f"{name(shape)} {what}", 1.85, 1.95, (f"{what} 1",), f"{what} {many}")
        rows.append(row)
    return Group(rows, made)


def options(shape: tuple[int, ...]) -> Group:
    hard, rows, made = Arrays("hard", shape), [], {}
    for case in ("loss", "buffer"):
        made[f"hard {case}"] = hard.run(case)
        for loss in ("soft", "smoothing", "z-loss", "softcap"):
            a = Arrays(loss, shape)
            made[f"{loss} {case}"] = a.run(case)
            what, of, to = f"{name(shape)} {loss} {case}", (f"hard {case}",), f"{loss} {case}"
            moved = (2 if loss == "soft" else 1) if case == "loss" else (1.5 if loss == "soft" else 1)
            rows.append(Row("variant / hard, a byte", what, 0.80, 0.95, of, to, moved))
    return Group(rows, made)


def groups() -> Iterator[Group]:
    yield from map(ceilings, LARGE)
    yield halves(LARGE[0])
    yield halves(LARGE[1])
    for shape in (*SMALL, *LARGE):
        for case in ("loss", "gradient"):
            yield peers(shape, case)
    if not missing("torch"):
        yield one_call()
    yield shares("binary_cross_entropy / read", "binary", (8192, 4096), 0.60, 0.95)
    yield shares("class axis 1 / read", "hard", (16, 21, 256, 256), 0.60, 0.90)
    yield threads(LARGE[0])
    yield threads(LARGE[2])
    yield options(LARGE[0])
    yield options(LARGE[1])


def measured(group: Group, rounds: int) -> list[dict[str, Any]]:
    """Run a group, and tell what each of its rows reached."""
    many = fl.get_num_threads()
    try:
        seconds = take_turns({name: make() for name, make in group.contenders.items()}, rounds, budget=5.0)
    finally:
        fl.set_num_threads(many)
    told = []
    for row in group.rows:
        reached = min(ratio(seconds, of, row.to) for of in row.of) * row.factor
        met = "aim" if reached >= row.aim else "least" if reached >= row.least else "no"
        times = {name: median(seconds[name]) for name in (*row.of, row.to)}
        told.append({**row._asdict(), "reached": reached, "met": met, "seconds": times})
    return told


def line(told: dict[str, Any]) -> str:
    times = ", ".join(f"{name} {seconds * 1e3:.4g} ms" for name, seconds in told["seconds"].items())
    return (
        f"{told['target']:<28} {told['what']:<32} {told['least']:>6.2f} {told['aim']:>6.2f} "
        f"{told['reached']:>8.2f}  {told['met']:<5}  {times}"
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.targets", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="REGEX", help="of a row's text: 'torch', '1024x128256', ...")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument("--list", action="store_true", help="name the rows and leave")
    parser.add_argument("--output", type=Path, default=RESULTS, help="default: bench/results/targets.json")
    given = parser.parse_args()
    results = []
    print(f"{'target':<28} {'of':<32} {'least':>6} {'aim':>6} {'reached':>8}  met")
    for group in groups():
        chosen = group.only(given.only)
        if given.list:
            print(*(f"{row.target:<28} {row.what}" for row in chosen.rows), sep="\n", end="\n" * bool(chosen.rows))
        elif chosen.rows:
            for told in measured(chosen, given.rounds):
                results.append(told)
                print(line(told), flush=True)
    if results and not given.only:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps({**about(), "rounds": given.rounds, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
