"""``fusedloss demo``: the evaluation of real logits that come with the package."""

import time
from argparse import Namespace
from importlib.resources import as_file, files

import numpy as np

import fusedloss as fl

from .table import amounts, quantities, reliability, speed

_REPEATS = 200


def run(options: Namespace) -> None:
    """Evaluate the bundled logits and print what one pass over them tells."""
    if options.threads is not None:
        fl.set_num_threads(options.threads)
    with as_file(files("fusedloss") / "data" / "digits.npz") as path, np.load(path, allow_pickle=False) as archive:
        logits, target = archive["logits"], archive["target"]
    evaluation = fl.evaluate(logits, target, bins=10, device=options.device)
    seconds = min(_seconds(logits, target, options.device) for _ in range(_REPEATS))
    rows, classes = logits.shape
    print(f"Handwritten digits: logits of {rows} held-out images over {classes} classes, {logits.dtype}\n")
    print(amounts([*quantities(evaluation), *speed(seconds, logits.nbytes)]), end="\n\n")
    print(reliability(evaluation.calibration))


def _seconds(logits: object, target: object, device: str) -> float:
    started = time.perf_counter()
    fl.evaluate(logits, target, bins=10, device=device)
    return time.perf_counter() - started
