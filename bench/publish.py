"""``python -m bench.publish``: ``bench/results/*.json`` to the README's table, a page of all results, and a chart."""

from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

from fusedloss.bench.peers import OURS

from . import tables
from .chart import chart
from .record import FOLDER, load
from .tables import Row, shape_of, written

README = Path(__file__).parents[1] / "README.md"
MARKS = "<!-- speed, written by `python -m bench.publish` -->", "<!-- /speed -->"
CARD_MARKS = "<!-- gpu, written by `python -m bench.publish` -->", "<!-- /gpu -->"


class Part(NamedTuple):
    """A part of the page of all results: its title, its words, and its table."""

    title: str
    words: str
    table: Callable[[Any], str]


TARGETS = (
    "Ratios of times of one run. ✓ reaches the least, ✓✓ the aim; `docs/performance.md` says more of what holds back "
    "the others."
)
PARTS = {
    "targets": Part("Targets", TARGETS, tables.explained),
    "memory": Part("Peak memory", "Above the inputs, in units of the logits, {shape} {dtype}.", tables.memory),
    "scaling": Part("Threads", "A call's time, and how many times faster than with one thread.", tables.scaling),
    "cold": Part("Cold starts", "In a fresh process: importing, the first call on 128 × 1000, the next.", tables.cold),
}


def beside(told: Row, others: Row | None) -> list[Row]:
    """The results of a run, with the peers of another run, and its ratios, put beside them."""
    results = [{**each, "contenders": dict(each["contenders"])} for each in told["results"]]
    for result in results:
        for other in others["results"] if others else ():
            if _key(other) == _key(result):
                result["contenders"] |= {who: it for who, it in other["contenders"].items() if who != OURS}
    return results


def _key(result: Row) -> tuple[Any, ...]:
    return result["loss"], result["case"], shape_of(result), result["dtype"]


def where(told: Row) -> str:
    """The machine and the day."""
    machine = told["machine"]
    return f"{machine['processor']}, {machine['threads']} threads, vectors of {machine['vectors']}, {told['date'][:10]}"


def section(told: Row, results: Sequence[Row]) -> str:
    """What the README says of speed."""
    versions = told["versions"]
    names = ", ".join(f"{name} {versions[name]}" for name in ("torch", "jax", "tensorflow") if name in versions)
    words = (
        "float32 `cross_entropy` beside what memory allows: its share of a read of the logits for the loss, and of a "
        "copy past the caches for loss + gradient into a buffer; and how many times faster it is than others, loss / "
        f"loss + gradient. ▼ marks what it loses. {where(told)}; {names}; all in turns in one run."
    )
    return f"""## Speed

{fill(words, 120)}

{tables.overview(results)}

![Share of what memory allows](bench/results/speed.svg)

[All results](bench/results/README.md): other losses and dtypes, memory, threads, cold starts. `fusedloss bench`
measures yours.
"""


def of_card(told: Row | None) -> str:
    """What the README says of speed on a card."""
    if told is None:
        words = (
            "Not yet measured: there was no machine with a CUDA device, and no figure is given that was not measured. "
            "On one that has PyTorch, numba-cuda and pytest, `make gpu` checks and measures: the tests on the device, "
            "CUDA's own checkers, the benchmark. It needs no network, and installs nothing."
        )
        return f"### On a card\n\n{fill(words, 120)}\n"
    words = (
        "PyTorch tensors on the card: shares of a copy there, for the loss of half of it, since it writes nothing; "
        f"and of the loss's speed. ✓ reaches the least that is aimed at, ✓✓ the aim. {where_card(told)}; medians of "
        "turns of one run, by `make gpu`."
    )
    parts = ["### On a card", fill(words, 120), tables.card(told["results"]), tables.beside_card(told["results"])]
    return "\n\n".join(filter(None, parts)) + "\n"


def where_card(told: Row) -> str:
    """The card and the day."""
    device, versions = told["device"], told["versions"]
    names = ", ".join(f"{name} {versions[name]}" for name in ("torch", "numba-cuda") if name in versions)
    return f"{device['name']}, driver {device['driver']}; {names}; {told['date'][:10]}"


def page(told: Row, results: Sequence[Row], folder: Path) -> str:
    """The page of all results."""
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    parts = [
        "# Results\n\nWritten by `python -m bench.publish` from the JSON files beside this one; `make bench` measures.",
        f"{where(told)}; {told['machine']['system']}; {versions}.",
        "![Share of what memory allows](speed.svg)",
    ]
    for name, part in PARTS.items():
        if kept := load(name, folder):
            words = part.words.format(shape=written(kept.get("shape", ())), dtype=kept.get("dtype"))
            parts.append(f"## {part.title}\n\n{words} {where(kept)}.\n\n{part.table(kept['results'])}")
    if card := load("gpu", folder):
        parts.append(
            f"## On a card\n\n{where_card(card)}. ✓ reaches the least, ✓✓ the aim.\n\n{tables.targets(card['results'])}"
        )
    words = "GB/s count the least that must be read and written; ▼ marks what the library loses."
    return "\n\n".join([*parts, f"## Speed\n\n{words}\n\n{tables.speed(results)}"]) + "\n"


def replaced(text: str, section: str, marks: tuple[str, str] = MARKS) -> str:
    """A text whose part between the marks is another."""
    head, begin, rest = text.partition(marks[0])
    _, end, tail = rest.partition(marks[1])
    if not begin or not end:
        raise SystemExit(f"the README has no part between {marks[0]} and {marks[1]}")
    return f"{head}{begin}\n{section}\n{end}{tail}"


def publish(readme: Path = README, folder: Path = FOLDER) -> None:
    """Write the README's part, the page of all results, and the chart."""
    told = load("speed", folder)
    if told is None:
        raise SystemExit(f"{folder / 'speed.json'} is missing; `make bench` measures it")
    others = load("tensorflow", folder)
    results = beside(told, others)
    told["versions"] = {**(others or told)["versions"], **told["versions"]}
    (folder / "speed.svg").write_text(chart(results), encoding="utf-8")
    (folder / "README.md").write_text(page(told, results, folder), encoding="utf-8")
    text = replaced(readme.read_text(encoding="utf-8"), section(told, results))
    readme.write_text(replaced(text, of_card(load("gpu", folder)), CARD_MARKS), encoding="utf-8")


if __name__ == "__main__":
    publish()
