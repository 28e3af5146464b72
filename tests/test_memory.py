"""Memory stays bounded, and nothing is too large: what calls allocate, and arrays of more than 2³¹ elements."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import scipy.special

import fusedloss as fl

BACKENDS = ["numpy", "cpu"]  # of arrays in host memory

ALLOWED = 48 << 20

MEASURE = """
import resource, sys
import numpy as np, fusedloss as fl

device = sys.argv[1]
unit = 1 if sys.platform == "darwin" else 1024

def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

def calls(x, y):
    fl.cross_entropy(x, y, device=device)
    fl.evaluate(x, y, device=device)
    fl.value_and_grad(fl.cross_entropy, out=x)(x, y, device=device)

calls(np.zeros((64, 1000), "f4"), np.zeros(64, int))  # compiles
x = np.random.default_rng(0).standard_normal((65536, 1000), dtype="f4")
y = np.arange(65536) % 1000
x4, y4 = x.reshape(64, 1024, 1000)[:, :1000], y.reshape(64, 1024)[:, :1000]
before = most()
calls(x, y)
print("plain", most() - before)
calls(x4, y4)
print("strides that do not merge", most() - before)
x.byteswap(inplace=True)
calls(x.view(x.dtype.newbyteorder()), y)
print("foreign byte order", most() - before)
"""


def test_calls_allocate_a_fraction_of_their_logits(backend):
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", MEASURE, backend], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    used = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert len(used) == 3
    assert {name: f"{int(more) >> 20} MB" for name, more in used.items() if int(more) >= ALLOWED} == {}


# ---- more than 2³¹ elements ------------------------------------------------------------------------------------------

SHAPE = (33000, 65600)
FIRST = 2**31 // SHAPE[1]  # the row that holds element 2³¹


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """A folder for sparse files, which take no room for what is never written. They are gone afterwards."""
    folder = tmp_path_factory.mktemp("sparse")
    if shutil.disk_usage(folder).free < 16 << 30:  # for file systems that do not know of sparse files
        pytest.skip("16 GB of disk are needed")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def large(sparse):
    """Logits of zeros, but for some rows on both sides of element 2³¹, and those rows; targets."""
    pytest.importorskip("numba")
    x = np.lib.format.open_memmap(sparse / "x.npy", "w+", np.float16, SHAPE)
    y, rows = np.arange(SHAPE[0]) % SHAPE[1], np.array([0, FIRST - 1, FIRST, FIRST + 1, SHAPE[0] - 1])
    y[-1] = SHAPE[1] - 1
    x[rows] = np.random.default_rng(0).standard_normal((len(rows), SHAPE[1])) * 4
    x.flush()
    return np.load(sparse / "x.npy", mmap_mode="r"), y, rows


@pytest.mark.slow
def test_rows_beyond_two_to_the_31_elements(large):
    x, y, rows = large
    z = x[rows].astype(np.float64)
    want = np.full(SHAPE[0], np.log(SHAPE[1]))
    want[rows] = -scipy.special.log_softmax(z, 1)[np.arange(len(rows)), y[rows]]
    loss = fl.cross_entropy(x, y, reduction="none", device="cpu")
    np.testing.assert_allclose(loss, want, rtol=2e-6)
    got = fl.evaluate(x, y, top_k=[1, 40_000], device="cpu")
    assert got.count == SHAPE[0]
    assert got.nll == pytest.approx(want.mean(), rel=1e-6)
    zeros = np.ones(SHAPE[0], bool)
    zeros[rows] = False  # there the rank is the class
    rank = (z > z[np.arange(len(rows)), y[rows], None]).sum(1)
    for k, accuracy in got.top_k.items():
        assert accuracy * SHAPE[0] == pytest.approx((y[zeros] < k).sum() + (rank < k).sum())
    bad = np.full_like(y, -100)  # rows that are ignored are not read
    bad[-1] = SHAPE[1]
    with pytest.raises(fl.TargetError, match=rf"target\[{SHAPE[0] - 1}\] is {SHAPE[1]}, expected a class"):
        fl.cross_entropy(x, bad, device="cpu")


@pytest.mark.slow
def test_elements_beyond_two_to_the_31(large):
    x, _, rows = large
    loss = fl.binary_cross_entropy(x, np.broadcast_to(np.True_, SHAPE), reduction="sum", device="cpu")
    want = (SHAPE[0] - len(rows)) * SHAPE[1] * np.log(2) + np.logaddexp(0, -x[rows].astype(np.float64)).sum()
    assert loss == pytest.approx(want, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("strides", "axis"), [((6 << 30, 4), 1), ((1 << 28, 4), 0)], ids=["rows", "classes"])
def test_strides_beyond_two_to_the_31_bytes(backend, rng, sparse, strides, axis):
    shape = (2, 40) if axis else (40, 2)
    spread = np.memmap(sparse / "far.bin", np.float32, "w+", shape=(12 << 30) // 4)
    x = np.lib.stride_tricks.as_strided(spread, shape, strides)
    near = rng.standard_normal(shape, dtype=np.float32)
    x[:] = near
    want = fl.value_and_grad(fl.cross_entropy)(near, [39, 3], axis=axis, device=backend)
    loss, grad = fl.value_and_grad(fl.cross_entropy, out=x)(x, [39, 3], axis=axis, device=backend)
    assert loss == want[0]
    assert grad is x
    np.testing.assert_array_equal(x, want[1])
