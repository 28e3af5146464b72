"""The chart: an SVG that needs no library, on a card that is light or dark as the reader's system is."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from fusedloss.bench.peers import OURS

from .tables import plain, shape_of, written

BUFFER = "into a buffer"
CASES = {"loss": "read", "gradient": "copy"}
TITLES = {"loss": "loss", "gradient": "loss + gradient"}
CONTENDERS = (OURS, BUFFER, "torch.compile", "jax", "torch", "tensorflow")
WIDTH, LEFT, PANEL, GUTTER = 880, 24, 400, 32  # a panel's name, bars and numbers; pixels all
NAMES, NUMBERS = 88, 44
TOP, BAR, THICK, GAP = 96, 13, 10, 18
FULL = 1.1  # the share of the ceiling at which bars are cut
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 }
.small { font-size: 10.5px; fill: #59636e }
.card { fill: #ffffff; stroke: #d1d9e0 }
.ours { fill: #0969da } .peer { fill: #b1bac4 } .line { stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 4 3 }
.of { fill: #cf222e }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .small { fill: #9198a1 } .card { fill: #0d1117; stroke: #3d444d }
  .ours { fill: #4493f8 } .peer { fill: #656c76 } .line { stroke: #ff7b72 } .of { fill: #ff7b72 }
}
"""


class Bar(NamedTuple):
    """A contender's share of the ceiling, and its GB/s."""

    who: str
    share: float
    speed: float


def chart(results: Iterable[dict[str, Any]]) -> str:
    """Draw float32 cross-entropy of every shape that has ceilings: what share of its ceiling each contender reaches."""
    of_plain = [each for each in plain(results) if each["ceilings"]]
    y, body = TOP, [_text(LEFT, 32, "float32 cross-entropy: share of what memory allows", "title")]
    for shape in dict.fromkeys(map(shape_of, of_plain)):
        panels = [_bars([each for each in of_plain if shape_of(each) == shape], case) for case in CASES]
        for left, bars in zip(_lefts(), panels, strict=True):
            body += _group(left, y, written(shape), bars)
        y += BAR * (1 + max(map(len, panels))) + GAP
    for left, (case, ceiling) in zip(_lefts(), CASES.items(), strict=True):
        body += _frame(left, y - GAP, TITLES[case], ceiling)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img" '
        f'aria-label="Share of the memory ceilings that each contender reaches">\n<style>{STYLE}</style>\n'
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{y - 1}" rx="8"/>\n'
    ) + "\n".join([*body, "</svg>\n"])


def _lefts() -> Iterator[int]:
    """Where each panel begins."""
    return (LEFT + number * (PANEL + GUTTER) for number in range(len(CASES)))


def _bars(of_shape: Sequence[dict[str, Any]], case: str) -> list[Bar]:
    """The contenders of a case; beside the gradient in a new array, the library's own into a buffer."""
    by_case = {each["case"]: each["contenders"] for each in of_shape}
    timings = dict(by_case.get(case, {}))
    if case == "gradient" and "buffer" in by_case:
        timings[BUFFER] = by_case["buffer"][OURS]
    found = ((who, timings[who]) for who in CONTENDERS if who in timings)
    return [Bar(who, it["share_of_ceiling"], it["gigabytes_per_second"]) for who, it in found]


def _frame(left: float, bottom: float, title: str, ceiling: str) -> Iterator[str]:
    """A panel's title, and the line of its ceiling."""
    x = _at(left, 1)
    yield _text(left, TOP - 34, title, "title")
    yield _text(x, TOP - 14, f"{ceiling} ceiling", "small of", "middle")
    yield _text(left + PANEL, TOP - 14, "GB/s", "small", "end")
    yield f'<line class="line" x1="{x}" x2="{x}" y1="{TOP - 8}" y2="{bottom}"/>'


def _group(left: float, y: float, title: str, bars: Sequence[Bar]) -> Iterator[str]:
    """A shape and its bars."""
    yield _text(left, y + 10, title)
    for number, bar in enumerate(bars, 1):
        top, start = y + number * BAR + 2, left + NAMES
        kind = "ours" if bar.who in (OURS, BUFFER) else "peer"
        width = _at(left, min(bar.share, FULL)) - start
        yield _text(start - 6, top + 9, bar.who, "small", "end")
        yield f'<rect class="{kind}" x="{start}" y="{top}" width="{width:.1f}" height="{THICK}"/>'
        yield _text(left + PANEL, top + 9, f"{bar.speed:.1f}", "small", "end")


def _at(left: float, share: float) -> float:
    """Where a share of the ceiling ends."""
    return round(left + NAMES + share / FULL * (PANEL - NAMES - NUMBERS), 1)


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
