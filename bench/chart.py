"""The chart: an SVG that needs no library, on a card that is light or dark as the reader's system is."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from fusedloss.bench.peers import OURS

from .tables import plain, shape_of, written

CASES = {"loss": ("loss", "read"), "gradient": ("loss + gradient", "copy")}
CONTENDERS = (OURS, "into a buffer", "torch.compile", "jax", "torch", "tensorflow", "numpy")
WIDTH, PANEL, LEFT, NAMES, BAR, GAP, TOP, FULL = 880, 420, 24, 88, 13, 16, 92, 1.15
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
    """A contender's share of the ceiling, and what is written at its end."""

    who: str
    share: float
    text: str


def chart(results: Iterable[dict[str, Any]]) -> str:
    """Draw float32 cross-entropy of every shape that has ceilings: the share of the ceiling of each contender."""
    of_plain = [each for each in plain(results) if each["ceilings"]]
    shapes = list(dict.fromkeys(map(shape_of, of_plain)))
    body, bottom = [], TOP
    for column, (case, (title, ceiling)) in enumerate(CASES.items()):
        left, y = LEFT + column * PANEL, TOP
        body += [_text(left, TOP - 34, title, "title")]
        body += [_text(_at(left, 1), TOP - 14, f"{ceiling} ceiling", "small of", "middle")]
        for shape in shapes:
            bars = _bars([each for each in of_plain if shape_of(each) == shape], case)
            body += _group(left, y, written(shape), bars)
            y += GAP + BAR * (len(bars) + 1)
        body.append(f'<line class="line" x1="{_at(left, 1)}" x2="{_at(left, 1)}" y1="{TOP - 8}" y2="{y - GAP + 4}"/>')
        bottom = max(bottom, y)
    head = _text(LEFT, 30, "float32 cross-entropy: share of what memory allows, and GB/s", "title")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom}" width="{WIDTH}" height="{bottom}" '
        f'role="img" aria-label="Share of the memory ceilings that each contender reaches">\n<style>{STYLE}</style>\n'
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{bottom - 1}" rx="8"/>\n'
        + "\n".join([head, *body])
        + "\n</svg>\n"
    )


def _bars(of_shape: Sequence[dict[str, Any]], case: str) -> list[Bar]:
    """The contenders of a case; beside the gradient in a new array, the library's own in a buffer."""
    by_case = {each["case"]: each["contenders"] for each in of_shape}
    timings = dict(by_case.get(case, {}))
    if case == "gradient" and "buffer" in by_case:
        timings["into a buffer"] = by_case["buffer"][OURS]
    found = ((who, timings[who]) for who in CONTENDERS if who in timings)
    return [Bar(who, it["share_of_ceiling"], f"{it['gigabytes_per_second']:.1f}") for who, it in found]


def _group(left: float, y: float, title: str, bars: Sequence[Bar]) -> Iterator[str]:
    yield _text(left, y + 10, title)
    for number, bar in enumerate(bars, 1):
        top = y + number * BAR + 2
        kind = "ours" if bar.who in (OURS, "into a buffer") else "peer"
        end = _at(left, min(bar.share, FULL))
        yield _text(left + NAMES - 6, top + 9, bar.who, "small", "end")
        yield f'<rect class="{kind}" x="{left + NAMES}" y="{top}" width="{end - left - NAMES:.1f}" height="{BAR - 3}"/>'
        yield _text(end + 4, top + 9, bar.text, "small")


def _at(left: float, share: float) -> float:
    """Where a share of the ceiling ends."""
    return round(left + NAMES + share / FULL * (PANEL - NAMES - 60), 1)


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
