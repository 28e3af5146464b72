"""What a fresh process waits for: ``python -m bench.cold``.

Importing, the first call, and the next one; with nothing compiled before, and with what an earlier process compiled.
"""

import tempfile
from statistics import median
from typing import Any, NamedTuple

from fusedloss.bench.machine import about
from fusedloss.bench.peers import OURS, PEERS, obstacle

from .fresh import told
from .record import save

REPEATS = 3
CODE = """\
import json, time
import numpy as np
x, y = np.random.default_rng(0).standard_normal((128, 1000), dtype=np.float32), np.arange(128)
times = [time.perf_counter()]
{load}
times.append(time.perf_counter())
{prepare}
for _ in range(2):
    value = {call}
    times.append(time.perf_counter())
assert 7 < float(value) < 8
print(json.dumps([b - a for a, b in zip(times, times[1:])]))
"""


class First(NamedTuple):
    """What a newcomer would type: the import, what comes before the first call, the call."""

    load: str
    prepare: str
    call: str
    cache: str = ""


_TENSORS = "x, y = torch.from_numpy(x), torch.from_numpy(y)"
CALLS = {
    OURS: First("import fusedloss as fl", "", "fl.cross_entropy(x, y)", "NUMBA_CACHE_DIR"),
    "torch": First("import torch", _TENSORS, "torch.nn.functional.cross_entropy(x, y)"),
    "torch.compile": First(
        "import torch", f"{_TENSORS}; run = torch.compile(torch.nn.functional.cross_entropy)", "run(x, y)",
        "TORCHINDUCTOR_CACHE_DIR",
    ),
    "jax": First(
        "import jax, optax",
        "run = jax.jit(lambda x, y: optax.softmax_cross_entropy_with_integer_labels(x, y).mean())",
        "run(x, y).block_until_ready()",
    ),
    "tensorflow": First(
        "import tensorflow as tf",
        "run = tf.function(lambda x, y: tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, x)))\n"
        "x, y = tf.constant(x), tf.constant(y)",
        "run(x, y)",
    ),
}  # fmt: skip
assert set(CALLS) <= {OURS, *PEERS}


def first_call(who: str) -> list[dict[str, Any]]:
    """Time fresh processes: first without what was compiled before, then with it, where it is kept."""
    first, rows = CALLS[who], []
    with tempfile.TemporaryDirectory() as folder:
        for state in ("uncached", "cached") if first.cache else ("",):
            runs = []
            for number in range(REPEATS):
                place = f"{folder}/{number if state == 'uncached' else 0}"
                runs.append(told("-c", CODE.format(**first._asdict()), settings={first.cache: place} if state else {}))
            load, call, following = map(median, zip(*runs, strict=True))
            rows.append({"contender": who, "state": state, "import": load, "first_call": call, "next_call": following})
    return rows


def main() -> None:
    """Measure, print, write."""
    here, results = about(), []
    print(f"{'':<24} {'import':>9} {'first call':>11} {'next call':>12}")
    for who in CALLS:
        if who == OURS or not obstacle(who):
            for row in first_call(who):
                results.append(row)
                name = f"{who}, {row['state']}".rstrip(", ")
                times = f"{row['import']:>7.2f} s {row['first_call']:>9.2f} s {row['next_call'] * 1e6:>9.0f} µs"
                print(f"{name:<24} {times}", flush=True)
    save("cold", {**here, "repeats": REPEATS, "results": results})


if __name__ == "__main__":
    main()
