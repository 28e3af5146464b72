"""Results as tables of Markdown. What the library loses is marked, and shown like what it wins."""

from collections.abc import Iterable, Sequence
from typing import Any

from fusedloss.bench.cases import CASES, LOSSES
from fusedloss.bench.peers import OURS

from .limits import limit

COMPARED = ("torch", "torch.compile", "jax", "tensorflow", "numpy")
Row = dict[str, Any]
MET = {"aim": "✓✓", "least": "✓", "no": "▼"}
OF_COPY = ("loss / half a copy", "loss + gradient / copy", "score / loss", "evaluate / loss")


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table, its first columns flush left."""
    rule = ["---" if column < left else "---:" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def shape_of(result: Row) -> tuple[int, ...]:
    """The shape, as a key."""
    return tuple(result["shape"])


def written(shape: Iterable[int]) -> str:
    """A shape for a reader."""
    return " × ".join(map(str, shape))


def times(timing: Row | None) -> str:
    """How many times faster the library is than a contender; what it loses is marked."""
    if timing is None:
        return "–"
    ratio = timing["times_ours"]
    return f"{ratio:.1f}×" if ratio >= 1 else f"▼ {ratio:.2f}×"


def share(timing: Row | None) -> str:
    """The share of its ceiling."""
    of = timing and timing["share_of_ceiling"]
    return "–" if of is None else f"{of:.0%}"


def plain(results: Iterable[Row]) -> list[Row]:
    """Those of float32 cross-entropy without options."""
    return [each for each in results if (each["loss"], each["dtype"]) == ("hard", "float32")]


def overview(results: Iterable[Row]) -> str:
    """Plain cross-entropy of every shape: what the library reaches, and how much faster than its peers it is."""
    of_plain = plain(results)
    peers = [who for who in COMPARED if any(who in each["contenders"] for each in of_plain)]
    lines = []
    for shape in dict.fromkeys(map(shape_of, of_plain)):
        case = {each["case"]: each["contenders"] for each in of_plain if shape_of(each) == shape}
        found = {name: case.get(name, {}) for name in ("loss", "gradient", "buffer")}
        pairs = (f"{times(found['loss'].get(who))} / {times(found['gradient'].get(who))}" for who in peers)
        lines.append([written(shape), share(found["loss"].get(OURS)), share(found["buffer"].get(OURS)), *pairs])
    return markdown(["N × C", "of a read", "of a copy", *peers], lines)


def speed(results: Sequence[Row]) -> str:
    """A table for each pair of arrays: each case and contender."""
    parts = []
    for loss, shape, dtype in dict.fromkeys((each["loss"], shape_of(each), each["dtype"]) for each in results):
        here = [each for each in results if (each["loss"], shape_of(each), each["dtype"]) == (loss, shape, dtype)]
        ceilings = ", ".join(f"{name} {gigabytes:.1f} GB/s" for name, gigabytes in here[0]["ceilings"].items())
        title = f"### {LOSSES[loss].title}, {written(shape)} {dtype}"
        parts += [title, f"Ceilings: {ceilings}."] if ceilings else [title]
        lines = [_line(CASES[each["case"]].title, who, it) for each in here for who, it in each["contenders"].items()]
        parts.append(markdown(["case", "contender", "ms", "GB/s", "of ceiling", "fusedloss is faster"], lines, 2))
    return "\n\n".join(parts)


def _line(case: str, who: str, it: Row) -> list[str]:
    milliseconds, gigabytes = f"{it['seconds'] * 1e3:.4g}", f"{it['gigabytes_per_second']:.2f}"
    return [case, who, milliseconds, gigabytes, share(it), "" if who == OURS else times(it)]


def reached(it: Row) -> str:
    """How far a target was reached."""
    return f"{it['reached']:.2f} {MET[it['met']]}"


def targets(results: Iterable[Row]) -> str:
    """What was aimed at, and what was reached."""
    lines = [[it["target"], it["what"], f"{round(it['least'], 2):g}", f"{it['aim']:g}", reached(it)] for it in results]
    return markdown(["ratio", "of", "at least", "aim", "reached"], lines, 2)


def explained(results: Iterable[Row]) -> str:
    """What was aimed at on the CPU, what was reached, and what holds back what was not."""
    results = list(results)
    head, rule, *lines = targets(results).splitlines()
    told = (f"{line} {limit(it)} |" for line, it in zip(lines, results, strict=True))
    return "\n".join((f"{head} held back by |", f"{rule} --- |", *told))


def card(results: Iterable[Row]) -> str:
    """What gigabytes of logits on a card reach, a line an array."""
    found = {(it["what"], it["target"]): reached(it) for it in results if it["target"] in OF_COPY}
    arrays = dict.fromkeys(what for what, _ in found)
    lines = [[what, *(found.get((what, target), "–") for target in OF_COPY)] for what in arrays]
    return (
        markdown(["N × C", "loss", "loss + gradient", "`score`, of loss", "`evaluate`, of loss"], lines)
        if lines
        else ""
    )


def beside_card(results: Iterable[Row]) -> str:
    """What else was measured on a card: other libraries, small calls, the link."""
    others = [it for it in results if it["target"] not in OF_COPY]
    return targets(others) if others else ""


def cold(results: Iterable[Row]) -> str:
    """Fresh processes."""
    lines = [
        [
            f"{it['contender']}, {it['state']}".rstrip(", "), f"{it['import']:.2f}", f"{it['first_call']:.2f}",
            f"{it['next_call'] * 1e3:.3f}",
        ]
        for it in results
    ]  # fmt: skip
    return markdown(["", "import, s", "first call, s", "next call, ms"], lines)


def memory(results: Sequence[Row]) -> str:
    """Peaks, a column a contender."""
    whos = list(dict.fromkeys(it["contender"] for it in results))
    peaks = {(it["case"], it["contender"]): f"{it['of_logits']:.2f}" for it in results}
    cases = dict.fromkeys(it["case"] for it in results)
    lines = [[CASES[case].title, *(peaks.get((case, who), "–") for who in whos)] for case in cases]
    return markdown(["", *whos], lines)


def scaling(results: Sequence[Row]) -> str:
    """Times, a column a number of threads."""
    counts = sorted({it["threads"] for it in results})
    cells = {
        (shape_of(it), it["case"], it["threads"]): f"{it['seconds'] * 1e3:.2f} ms ({it['times_one']:.2f}×)"
        for it in results
    }
    rows = dict.fromkeys((shape, case) for shape, case, _ in cells)
    lines = [[written(shape), case, *(cells[shape, case, n] for n in counts)] for shape, case in rows]
    return markdown(["N × C", "case", *(f"{n} thread{'s' * (n > 1)}" for n in counts)], lines, 2)
