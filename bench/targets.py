"""How far the library has come towards the speeds it aims at: ``python -m bench.targets``.

Every row is a ratio of two times of one run, the median over rounds in which all contenders took turns. Every contender
is compared with float64 before it is timed.
"""

import argparse
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import fusedloss as fl
from fusedloss.bench.cases import LOSSES, Shape, Task, shape_text
from fusedloss.bench.ceilings import ceilings
from fusedloss.bench.inputs import Inputs
from fusedloss.bench.machine import about
from fusedloss.bench.oracle import Truth, check, truth
from fusedloss.bench.peers import OURS, obstacle
from fusedloss.bench.suite import enter
from fusedloss.bench.turns import Contender, take_turns

from .aims import HEADER, Aim, line
from .record import save
from .scaling import threaded

LARGE = [(32768, 1000), (4096, 32000), (1024, 128256)]
SMALL = [(65536, 10), (65536, 128)]
COMPILERS = ("torch.compile", "jax")
ROUNDS = 11
BUDGET = 4.0  # seconds of a slow contender in a group


class Group(NamedTuple):
    """Rows whose contenders take turns. What a contender needs is made when its group is run."""

    aims: list[Aim]
    contenders: dict[str, Callable[[], Contender]]

    def only(self, pattern: str) -> "Group":
        """The rows that match, and their contenders."""
        rows = [row for row in self.aims if re.search(pattern, f"{row.target} {row.what}")]
        names = {name for row in rows for name in (*row.of, row.to)}
        return Group(rows, {name: make for name, make in self.contenders.items() if name in names})


class Arrays:
    """The arrays of a loss, made when they are first asked for, and those who work on them."""

    def __init__(self, loss: str, shape: Shape, dtype: str = "float32") -> None:
        self.loss, self.shape, self.dtype = loss, shape, dtype

    @cached_property
    def inputs(self) -> Inputs:
        return Inputs(self.loss, self.shape, self.dtype)

    @cached_property
    def right(self) -> Truth:
        return truth(self.loss, self.inputs)

    def run(self, case: str, who: str = OURS) -> Callable[[], Contender]:
        return lambda: enter(who, Task(self.loss, case, self.shape, self.dtype), self.inputs, self.right)

    def ceiling(self, name: str) -> Callable[[], Contender]:
        return lambda: ceilings(self.inputs)[name]


def of_memory(shape: Shape) -> Group:
    """Each case of cross-entropy beside its ceiling, and `evaluate` beside the loss."""
    a, text = Arrays("hard", shape), shape_text(shape)
    places = {"buffer": "into a buffer", "gradient": "into a new array", "in-place": "in place"}
    rows = [
        Aim("cross_entropy / read", text, 0.93, 1.0, ("read",), "loss"),
        *(
            Aim("value_and_grad / copy", f"{text} {words}", 0.80, 0.95, ("copy",), case)
            for case, words in places.items()
        ),
        Aim("evaluate / cross_entropy", text, 0.75, 0.90, ("loss",), "evaluate"),
    ]
    made = {case: a.run(case) for case in ("loss", *places, "evaluate")}
    return Group(rows, {name: a.ceiling(name) for name in ("read", "copy")} | made)


def of_16_bits(shape: Shape) -> Group:
    """16-bit logits beside float32, which has twice the bytes."""
    group, wide = Group([], {}), Arrays("hard", shape)
    narrow = {dtype: Arrays("hard", shape, dtype) for dtype in ("bfloat16", "float16")}
    for case in ("loss", "buffer"):
        group.contenders[case] = wide.run(case)
        for dtype, arrays in narrow.items():
            group.contenders[f"{case} {dtype}"] = arrays.run(case)
            what = f"{shape_text(shape)} {dtype} {case}"
            group.aims.append(Aim("16 bits / half of float32", what, 0.85, 1.0, (case,), f"{case} {dtype}", 0.5))
    return group


def of_peers(shape: Shape, case: str) -> Group:
    """The frameworks beside the library; beside their gradients, its own in a new array and into a buffer."""
    a, group = Arrays("hard", shape), Group([], {})
    eager, compiled = ((14.0, 20.0), (7.0, 10.0)) if case == "gradient" else ((8.0, 10.0), (3.0, 3.5))
    here = {peer: a.run(case, peer) for peer in ("torch", *COMPILERS) if not obstacle(peer)}
    compilers = tuple(peer for peer in COMPILERS if peer in here)
    for ours in (case, "buffer") if case == "gradient" else (case,):
        what = f"{shape_text(shape)} {ours}"
        for peer in here:
            aims = eager if peer == "torch" else compiled
            if peer == "torch" or shape != (65536, 10):
                group.aims.append(Aim(f"{peer} / ours", what, *aims, (peer,), ours))
        if shape == (65536, 10) and compilers:
            group.aims.append(Aim("fastest compiler / ours", what, 1.5, 3.0, compilers, ours))
        group.contenders[ours] = a.run(ours)
    group.contenders.update(here)
    return group


def of_door(shape: Shape) -> Group:
    """The loss and its backward pass by ``fusedloss.torch``, beside the library's own call and PyTorch's."""
    a, text, door = Arrays("hard", shape), shape_text(shape), "fusedloss.torch"
    if obstacle("torch"):
        return Group([], {})
    rows = [
        Aim("value_and_grad / fusedloss.torch", text, 1 / 1.15, 1.0, (OURS,), door),
        Aim("torch / fusedloss.torch", text, 8.0, 14.0, ("torch",), door),
    ]

    def through() -> Contender:
        from fusedloss.bench.peers import torch as peer
        from fusedloss.torch import cross_entropy

        task = Task("hard", "gradient", shape, "float32")
        made = peer.contender(task, a.inputs, fl.get_num_threads(), lambda _: cross_entropy)
        check(task, a.right, peer.answer(made.call()), door)
        return made

    return Group(rows, {OURS: a.run("gradient"), "torch": a.run("gradient", "torch"), door: through})


def of_one_call(case: str) -> Group:
    """A call on arrays so small that only the call counts."""
    a = Arrays("hard", (32, 10))
    rows = [] if obstacle("torch") else [Aim("torch / ours, one call", f"32x10 {case}", 1.0, 3.0, ("torch",), OURS)]
    return Group(rows, {peer: a.run(case, peer) for peer in (OURS, "torch")})


def of_read(target: str, loss: str, shape: Shape, aim: float) -> Group:
    """A loss beside reading its arrays."""
    a = Arrays(loss, shape)
    row = Aim(target, shape_text(shape), 0.60, aim, ("read",), "loss")
    return Group([row], {"read": a.ceiling("read"), "loss": a.run("loss")})


def of_threads(shape: Shape) -> Group:
    """All threads beside one; for the ceilings too, which say what there is to gain."""
    group, a, many = Group([], {}), Arrays("hard", shape), fl.get_num_threads()
    cases = {case: a.run(case) for case in ("loss", "buffer")} | {name: a.ceiling(name) for name in ("read", "copy")}
    for case, make in cases.items():
        one, all_ = f"{case}, 1 thread", f"{case}, {many} threads"
        group.contenders[one] = lambda make=make: threaded(make(), 1)
        group.contenders[all_] = lambda make=make: threaded(make(), many)
        group.aims.append(Aim(f"{many} threads / 1", f"{shape_text(shape)} {case}", 1.85, 1.95, (one,), all_))
    return group


def of_options(shape: Shape, case: str) -> Group:
    """Other targets and options beside the plain loss, a byte."""
    moved = {"loss": (1.0, 2.0), "buffer": (2.0, 3.0)}[case]  # of the logits' bytes: with hard targets, with soft
    rows, made = [], {"hard": Arrays("hard", shape).run(case)}
    for loss in ("soft", "smoothing", "z-loss", "softcap"):
        made[loss] = Arrays(loss, shape).run(case)
        factor = moved[LOSSES[loss].target == "soft"] / moved[0]
        what = f"{shape_text(shape)} {loss} {case}"
        rows.append(Aim("variant / hard, a byte", what, 0.80, 0.95, ("hard",), loss, factor))
    return Group(rows, made)


def groups() -> Iterator[Group]:
    """All there is to reach."""
    yield from map(of_memory, LARGE)
    yield from map(of_16_bits, LARGE[:2])
    yield from (of_peers(shape, case) for shape in (*SMALL, *LARGE) for case in ("loss", "gradient"))
    yield from map(of_door, (LARGE[0], LARGE[2]))
    yield from map(of_one_call, ("loss", "gradient"))
    yield of_read("binary_cross_entropy / read", "binary", (8192, 4096), 0.95)
    yield of_read("class axis 1 / read", "hard", (16, 21, 256, 256), 0.90)
    yield from map(of_threads, (LARGE[0], LARGE[2]))
    yield from (of_options(shape, case) for shape in LARGE[:2] for case in ("loss", "buffer"))


def measured(group: Group, rounds: int) -> Iterator[dict[str, Any]]:
    """Run a group, and tell what each of its rows reached."""
    many = fl.get_num_threads()
    try:
        seconds = take_turns({name: make() for name, make in group.contenders.items()}, rounds, BUDGET)
    finally:
        fl.set_num_threads(many)
    for aim in group.aims:
        yield aim.row(seconds)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.targets", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="REGEX", help="of a row's text: 'torch', '1024x128256', ...")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument("--list", action="store_true", help="name the rows and leave")
    parser.add_argument("--json", type=Path, help="default: bench/results/targets.json, unless --only is given")
    given = parser.parse_args()
    here, results = about(), []
    print(HEADER)
    for group in groups():
        chosen = group.only(given.only)  # the arrays of the last group go when this one takes its name
        if given.list:
            for aim in chosen.aims:
                print(line(aim._asdict()))
        elif chosen.aims:
            for told in measured(chosen, given.rounds):
                results.append(told)
                print(line(told), flush=True)
    if results and (given.json or not given.only):
        save(given.json or "targets", {**here, "rounds": given.rounds, "results": results})


if __name__ == "__main__":
    main()
