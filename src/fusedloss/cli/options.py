"""The command line of ``fusedloss``."""

import argparse
from collections.abc import Callable, Collection, Sequence
from math import prod
from typing import NoReturn

from .. import __version__
from ..bench.cases import CASES, DTYPES, LOSSES
from ..bench.peers import PEERS

_SCORE = """\
Score LOGITS against TARGETS, block by block, in memory that does not grow with the files.

Files are .npy, or .npz with one array or with arrays named 'logits' and 'target' ('targets', 'labels');
ARCHIVE.npz::NAME picks any other. TARGETS holds class numbers in the shape of the logits without the class axis, or
with --binary labels in the shape of the logits."""

_OUTPUTS = """\
OUT.npz holds one array a quantity, OUT.npy one structured array with a field a quantity: nll, log_normalizer,
prediction, confidence, entropy, rank, brier (with --binary: nll, probability, prediction, brier). A file that is there
is replaced when its successor is whole. Exit codes: 0; 2 bad usage or input; 130 interrupted."""


_MOST = 1 << 40
_BENCH = """\
Time the library beside frameworks, and beside what memory allows: a streaming read, and a copy past the caches.

All take turns in one run, with as many threads each; a ratio is the median of the rounds' ratios. Every contender is
first compared with float64. GB/s count the least that must be read and written."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"fusedloss: error: {message}; see {self.prog} --help\n")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; a bad one leaves by ``SystemExit(2)`` with one line on stderr."""
    parser = _Parser(
        prog="fusedloss",
        description="Fused losses and evaluation of logits.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fusedloss {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_score(commands)
    _add_bench(commands)
    demo = commands.add_parser("demo", help="evaluate bundled logits of a classifier of handwritten digits")
    warmup = commands.add_parser("warmup", help="compile ahead of the first call, and keep the code on disk")
    commands.add_parser("info", help="versions, processor, threads, devices, cache directory")
    for command in (demo, warmup):
        _add_device(command)
    options = parser.parse_args(argv)
    if options.command == "score":
        _check_score(parser, options)
    return options


def _add_score(commands: "argparse._SubParsersAction[_Parser]") -> None:
    score = commands.add_parser(
        "score",
        help="score and evaluate logits in files",
        description=_SCORE,
        epilog=_OUTPUTS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = score.add_argument
    add("logits", metavar="LOGITS", help="float16, float32 or float64 array, or bfloat16 bits with --dtype")
    add("targets", metavar="TARGETS", help="integer array; with --binary also bool or floating")
    add("-o", "--output", metavar="OUT", help="write the results of every row to OUT.npz or OUT.npy")
    add("--metrics", metavar="METRICS.json", help="write the summary as JSON")
    add("--dtype", choices=["bfloat16"], help="how to read logits stored as uint16")
    add("--axis", type=int, metavar="N", help="the class axis of the logits (default: -1)")
    add("--ignore-index", type=int, metavar="N", help="the target of rows that do not count (default: -100)")
    add("--top-k", type=_top_k, metavar="K,K", help="top-k accuracies to report (default: 1,5)")
    add("--bins", type=_positive, default=15, metavar="N", help="bins of the calibration error (default: 15)")
    add("--binary", action="store_true", help="every logit is a yes or no of its own (binary, multi-label)")
    add("--threshold", type=float, metavar="P", help="with --binary: predict 1 from this probability (default: 0.5)")
    add("--chunk-rows", type=_positive, metavar="N", help="rows read at a time (default: as many as fill 64 MiB)")
    add("--quiet", action="store_true", help="no progress bar and no table")
    _add_device(score)


def _add_bench(commands: "argparse._SubParsersAction[_Parser]") -> None:
    bench = commands.add_parser(
        "bench",
        help="time the library beside the frameworks that are installed",
        description=_BENCH,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = bench.add_argument
    peers = [*PEERS, "none"]
    add("--against", type=_some_of(peers), metavar="A,B", help=f"of {', '.join(peers)} (default: those installed)")
    default = "65536x10,32768x1000,4096x32000"
    shapes = "rows x classes; images x classes x height x width"
    add("--shapes", type=_shapes, default=default, metavar="NxC,NxC", help=f"{shapes} (default: {default})")
    _add_choices(bench, "--dtype", DTYPES, "float32")
    _add_choices(bench, "--losses", LOSSES, "hard")
    _add_choices(bench, "--cases", CASES, ",".join(CASES))
    add("--threads", type=_positive, metavar="N", help="threads of each (default: the CPUs of this process)")
    add("--rounds", type=_positive, default=11, metavar="N", help="turns of each; slow ones take less (default: 11)")
    add("--json", metavar="F", help="write all figures, with the machine and all versions, as JSON")
    add("--quiet", action="store_true", help="no progress bar and no table")


def _add_choices(parser: argparse.ArgumentParser, option: str, choices: Collection[str], default: str) -> None:
    text = f"of {', '.join(choices)} (default: {'all' if default == ','.join(choices) else default})"
    parser.add_argument(option, type=_some_of(choices), default=default, metavar="A,B", help=text)


def _add_device(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--device", default="auto", metavar="auto|cpu|numpy|cuda", help="where to compute (default: auto)")
    add("--threads", type=_positive, metavar="N", help="threads (default: the CPUs of this process)")


def _check_score(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    foreign = ("axis", "ignore_index", "top_k") if options.binary else ("threshold",)
    given = [f"--{name.replace('_', '-')}" for name in foreign if getattr(options, name) is not None]
    if given:
        parser.error(f"{given[0]} does not go {'with' if options.binary else 'without'} --binary")
    defaults = {"axis": -1, "ignore_index": -100, "top_k": (1, 5), "threshold": 0.5}
    for name, default in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, default)
    if options.output and not options.output.endswith((".npz", ".npy")):
        parser.error(f"--output {options.output}: expected a name that ends in .npz or .npy")


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} given, expected an integer of at least 1")
    return value


def _some_of(choices: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    """Make a parser of names, each of which is one of the choices; "none" stands for no name, alone."""

    def parse_names(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(text.split(",")))
        if names == ("none",) and "none" in choices:
            return ()
        for name in names:
            if name not in choices or name == "none":
                raise argparse.ArgumentTypeError(f"{name!r} given, expected some of {','.join(choices)}")
        return names

    return parse_names


def _shapes(text: str) -> tuple[tuple[int, ...], ...]:
    return tuple(dict.fromkeys(_shape(part) for part in text.split(",")))


def _shape(text: str) -> tuple[int, ...]:
    lengths = [int(part) if part.isdecimal() else 0 for part in text.split("x")]
    if len(lengths) < 2 or min(lengths) < 1 or prod(lengths) > _MOST:
        expected = "two or more lengths such as 32768x1000, of at most 2^40 elements in all"
        raise argparse.ArgumentTypeError(f"{text!r} given, expected {expected}")
    return tuple(lengths)


def _top_k(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split(","))
