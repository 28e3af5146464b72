"""Results as text for a terminal."""

from collections.abc import Iterable, Iterator
from typing import Any

from .cases import CASES, LOSSES, shape_text
from .peers import OURS
from .suite import Result, Timing

_HEAD = ("case", "contender", "ms", "GB/s", "of ceiling", "fusedloss is")
_LEFT = 2  # columns that are flush left


def preamble(about: dict[str, Any], peers: Iterable[str], rounds: int) -> str:
    """Tell what is compared, where, and how."""
    machine, versions = about["machine"], about["versions"]
    names = [name for name in dict.fromkeys(_package(peer) for peer in (OURS, *peers)) if name in versions]
    load = machine["load"] or 0
    busy = f"\nothers keep this computer busy (load {load}): expect noise" if load > machine["cpus"] / 2 else ""
    return (
        f"{machine['processor']}, vectors of {machine['vectors']}, {machine['threads']} of {machine['cpus']} threads\n"
        f"{', '.join(f'{name} {versions[name]}' for name in names)}; medians of up to {rounds} rounds, taken in turns"
        f"{busy}"
    )


def _package(peer: str) -> str:
    return {"torch.compile": "torch", "sklearn": "scikit-learn"}.get(peer, peer)


def table(results: Iterable[Result]) -> str:
    """Lay out results on the same arrays: a line a contender of a case."""
    results = list(results)
    first = results[0]
    ceilings = ", ".join(f"{name} {speed:.1f} GB/s" for name, speed in first["ceilings"].items())
    title = f"{LOSSES[first['loss']].title}, {shape_text(first['shape'])} {first['dtype']}"
    lines = [_HEAD, *(line for result in results for line in _lines(result))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    laid = ("  ".join(_aligned(line, widths)).rstrip() for line in lines)
    return "\n".join([title + (f"; ceilings: {ceilings}" if ceilings else ""), *laid])


def _lines(result: Result) -> Iterator[tuple[str, ...]]:
    case = CASES[result["case"]].title
    for who, timing in result["contenders"].items():
        share = timing["share_of_ceiling"]
        yield (
            case, who, f"{timing['seconds'] * 1e3:.4g}", f"{timing['gigabytes_per_second']:.2f}",
            "" if share is None else f"{share:.0%}", "" if who == OURS else compared(timing),
        )  # fmt: skip
        case = ""


def compared(timing: Timing) -> str:
    """Say how the library compares with a contender."""
    times = timing["times_ours"]
    return f"{times:.1f}x faster" if times >= 1 else f"{1 / times:.1f}x slower"


def _aligned(line: tuple[str, ...], widths: list[int]) -> Iterator[str]:
    for column, (text, width) in enumerate(zip(line, widths, strict=True)):
        yield f"{text:<{width}}" if column < _LEFT else f"{text:>{width}}"
