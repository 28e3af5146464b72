"""``fusedloss score``: logits in files, read once, in bounded memory."""

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import fusedloss as fl

from ..arrays import Array
from ..errors import OptionError
from ..results import Append, replacing, write_columns
from .inputs import Inputs, open_inputs
from .table import amounts, quantities, speed

Step = Callable[[Array, Array], tuple[dict[str, Array], Any]]

_FIELDS = ("nll", "log_normalizer", "prediction", "confidence", "entropy", "rank", "brier")
_BINARY_FIELDS = ("nll", "probability", "prediction", "brier")


def run(options: Namespace) -> None:
    """Score the files, write what was asked for, print the summary."""
    if options.threads is not None:
        fl.set_num_threads(options.threads)
    bits16 = options.dtype == "bfloat16"
    inputs = open_inputs(options.logits, options.targets, options.axis, binary=options.binary, bits16=bits16)
    _keep_inputs(options)
    step = _binary_step(options) if options.binary else _class_step(options, inputs)
    example, _ = step(*inputs.example())  # rejects bad options, and compiles before the clock starts
    with ExitStack() as outputs:
        metrics = outputs.enter_context(replacing(options.metrics)) if options.metrics else None
        append = None
        if options.output:
            shape = inputs.logits.shape if options.binary else inputs.rows
            dtypes = {name: column.dtype for name, column in example.items()}
            append = outputs.enter_context(write_columns(options.output, shape, dtypes))
        if not options.binary:
            inputs.check_targets(options.ignore_index)
        started = time.perf_counter()
        evaluation = _stream(inputs, step, options, append)
        seconds = time.perf_counter() - started
        if metrics:
            metrics.write(_json(inputs, evaluation, seconds).encode())
    if not options.quiet:
        print(amounts([*quantities(evaluation), *speed(seconds, inputs.nbytes)]))


def _stream(inputs: Inputs, step: Step, options: Namespace, append: Append | None) -> Any:
    total = None
    with _progress(inputs, options.quiet) as update:
        for logits, target in inputs.blocks(options.chunk_rows):
            scores, evaluation = step(logits, target)
            total = evaluation if total is None else total + evaluation
            if append:
                append(scores)
            update(logits.size // inputs.classes)
    return total


def _class_step(options: Namespace, inputs: Inputs) -> Step:
    axis: Any = inputs.axis
    common = {"ignore_index": options.ignore_index, "device": options.device}
    wanted = {"top_k": options.top_k, "bins": options.bins, **common}

    def step(logits: Array, target: Array) -> tuple[dict[str, Array], Any]:
        if not options.output:
            return {}, fl.evaluate(logits, target, axis=axis, **wanted)
        scores = fl.score(logits, target, axis=axis, **common)
        columns = {name: np.asarray(getattr(scores, name)) for name in _FIELDS}
        return columns, fl.Evaluation.from_scores(scores, target, **wanted)

    return step


def _binary_step(options: Namespace) -> Step:
    common = {"threshold": options.threshold, "device": options.device}
    wanted = {"bins": options.bins, **common}

    def step(logits: Array, target: Array) -> tuple[dict[str, Array], Any]:
        if not options.output:
            return {}, fl.evaluate_binary(logits, target, **wanted)
        scores = fl.score_binary(logits, target, **common)
        columns = {name: np.asarray(getattr(scores, name)) for name in _BINARY_FIELDS}
        return columns, fl.BinaryEvaluation.from_scores(scores, target, **wanted)

    return step


def _keep_inputs(options: Namespace) -> None:
    """Refuse to replace a file that is read, or one output by the other."""
    taken = {"LOGITS": options.logits.partition("::")[0], "TARGETS": options.targets.partition("::")[0]}
    for option in ("output", "metrics"):
        path = getattr(options, option)
        if path:
            for role, other in taken.items():
                if _same(Path(path), Path(other)):
                    raise OptionError(f"--{option} {path}: is the same file as {role}")
            taken[f"--{option}"] = path


def _same(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve() or (a.exists() and b.exists() and a.samefile(b))


def _json(inputs: Inputs, evaluation: Any, seconds: float) -> str:
    about = {
        "logits": inputs.logits.name,
        "targets": inputs.targets.name,
        "shape": inputs.logits.shape,
        "version": fl.__version__,
        "seconds": seconds,
        "gigabytes_per_second": inputs.nbytes / seconds / 1e9,
    }
    return json.dumps({**evaluation.to_dict(), **about}, indent=2, allow_nan=False) + "\n"


@contextmanager
def _progress(inputs: Inputs, quiet: bool) -> Iterator[Callable[[int], object]]:
    if quiet or not sys.stderr.isatty():
        yield lambda rows: None
        return
    from tqdm import tqdm

    total = inputs.nbytes // inputs.logits.dtype.itemsize // inputs.classes
    with tqdm(total=total, unit=" rows", unit_scale=True, file=sys.stderr) as bar:
        yield bar.update
