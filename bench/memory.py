"""Peak memory of each case above its inputs, in a process of its own: ``python -m bench.memory`` (Linux)."""

import argparse
import ctypes
import gc
import json
from pathlib import Path
from typing import Any

from fusedloss import blocks
from fusedloss.bench.cases import CASES, Task, shape_text
from fusedloss.bench.inputs import Inputs
from fusedloss.bench.machine import about
from fusedloss.bench.oracle import truth
from fusedloss.bench.peers import available, contenders
from fusedloss.bench.suite import enter

from .fresh import told
from .record import save

SHAPE = (4096, 8192)
# TensorFlow keeps what its first call took, so that the second shows nothing.
PEERS = ("torch", "torch.compile", "jax", "numpy")
STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measured(task: Task, who: str) -> dict[str, Any]:
    """Measure a call after one that compiled what it needs; the inputs, and a buffer that is given, do not count."""
    inputs = Inputs(task.loss, task.shape, task.dtype)
    contender = enter(who, task, inputs, truth(task.loss, inputs))
    if contender.setup:
        contender.setup()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # or memory that the first call freed would serve the second unseen
    blocks.drop()
    REFERENCES.write_text("5")  # the peak begins anew: man 5 proc
    before = _status("VmRSS")
    result = contender.call()
    peak = _status("VmHWM") - before
    del result
    return {"contender": who, "case": task.case, "bytes": peak, "of_logits": peak / inputs.x.nbytes}


def _status(name: str) -> int:
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Measure each contender in a process of its own, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("--one", nargs=2, metavar=("CASE", "WHO"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        case, who = given.one
        print(json.dumps(measured(Task("hard", case, SHAPE, "float32"), who)))
        return
    here, results = about(), []
    print(f"logits of {shape_text(SHAPE)} float32\n{'case':<12} {'contender':<14} {'MB':>8} {'of logits':>10}")
    for case in CASES:
        for who in contenders(Task("hard", case, SHAPE, "float32"), [peer for peer in PEERS if peer in available()]):
            row = told("-m", "bench.memory", "--one", case, who)
            results.append(row)
            print(f"{case:<12} {who:<14} {row['bytes'] / 1e6:>8.0f} {row['of_logits']:>10.2f}", flush=True)
    save("memory", {**here, "shape": SHAPE, "dtype": "float32", "results": results})


if __name__ == "__main__":
    main()
