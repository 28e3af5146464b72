"""Cross-entropy of large logits, against the ceilings of memory and against peers: ``pytest bench``.

Every contender is compared with float64 before it is timed. GB/s counts what must be moved at the least.
"""

import numpy as np
import pytest

from .cases import CONTENDERS, bytes_moved, check
from .ceilings import copier, reader

ROUNDS = 5
ENTRIES = [(case, peer) for case, peers in CONTENDERS.items() for peer in peers]


def measure(benchmark, moved, run, *args, setup=None):
    benchmark.extra_info["bytes"] = moved
    benchmark.pedantic(run, args, setup=setup, rounds=ROUNDS, warmup_rounds=1)
    if benchmark.stats is not None:  # it is None with --benchmark-disable
        benchmark.extra_info["GB/s"] = round(moved / benchmark.stats.stats.median / 1e9, 2)


@pytest.mark.parametrize(("case", "peer"), ENTRIES, ids=[f"{case}-{peer}".replace(" ", "_") for case, peer in ENTRIES])
def test_cross_entropy(benchmark, request, arrays, case, peer):
    if peer == "torch":
        request.getfixturevalue("torch")
    x, y, out = arrays
    run = CONTENDERS[case][peer]
    check(case, run, x, y, out)

    def prepare():
        if "in place" in case:
            out[...] = x

    measure(benchmark, bytes_moved(case, x), run, x, y, out, setup=prepare)


def test_read_ceiling(benchmark, arrays):
    x = arrays[0]
    read = reader(x)
    assert read() == pytest.approx(x.sum(dtype=np.float64), abs=1e-6 * x.size)
    measure(benchmark, x.nbytes, read)


def test_copy_ceiling(benchmark, arrays):
    x, _, out = arrays
    out[...] = 0
    copy = copier(x, out)
    np.testing.assert_array_equal(copy(), x)
    measure(benchmark, 2 * x.nbytes, copy)
