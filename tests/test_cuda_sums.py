"""CUDA's kernels that add up, copy and tally, against NumPy's."""

import itertools

import numpy as np
import pytest
from fusedloss.kernels import reference
from fusedloss.kernels.cuda_bind_sums import PARTIALS
from kernel_cases import (
    DTYPES,
    WIDE,
    aligned,
    assert_close,
    bits,
    kernels_of,
)

INF, NAN = np.inf, np.nan
F4, F8 = np.dtype(np.float32), np.dtype(np.float64)

kernels = kernels_of("cuda")


@pytest.mark.parametrize("dtype", WIDE, ids=str)
@pytest.mark.parametrize("count", [0, 1, 9, 700, 9000])
def test_totals(rng, dtype, count):
    values, out, partials = rng.standard_normal(count).astype(dtype), np.zeros((), dtype), np.zeros(PARTIALS)
    want, found = values.sum(dtype=np.float64) / 3, []
    for divisor, room in itertools.product((3, np.array(3.0)), (None, partials)):
        kernels.total(values, out, divisor, partials=room)(0, 1)
        assert_close(out, want, 4, scale=1.0)
        found.append(bits(out))
    assert found[:2] == found[2:]
    for divisor in (0, np.zeros(())):
        kernels.total(values, out, divisor)(0, 1)
        assert np.isnan(out)


@pytest.mark.parametrize(("values", "want"), [([3e38, 3e38], INF), ([-3e38, -3e38], -INF), ([INF, 1], INF)])
def test_totals_that_overflow(values, want):
    out = np.zeros((), np.float32)
    kernels.total(np.array(values, np.float32), out, 1)(0, 1)
    assert out == want
    kernels.total(np.array([NAN, 1], np.float32), out, 1)(0, 1)
    assert np.isnan(out)


@pytest.mark.parametrize("rows", [1, 300, 5000])
@pytest.mark.parametrize("target", [None, "i8", "u1"])
def test_weights_of_what_counts(rng, rows, target):
    y = None if target is None else rng.integers(0, 9, rows).astype(target)
    of_class, of_sample = rng.random(8).astype(np.float32), rng.random(rows).astype(np.float32)
    for class_weight, sample_weight in itertools.product((None, of_class), (None, of_sample)):
        if y is None and class_weight is not None:
            continue
        out, partials, want = np.zeros(2), np.zeros(PARTIALS), np.ones(rows)
        if class_weight is not None:
            want = want * class_weight.take(y, mode="clip")
        if sample_weight is not None:
            want = want * sample_weight
        if y is not None:
            want = want[y != 3]
        kernels.weigh(y, class_weight, sample_weight, 3, rows, out, partials=partials)(0, 1)
        assert_close(out[0], want.sum(), 4)
        assert out[1] == (1 / out[0] if out[0] else 0)


def test_weights_of_nothing_and_of_elements(rng):
    out, weight = np.ones(2), rng.random((6, 7)).astype(np.float32)
    kernels.weigh(np.full(5, 3), None, None, 3, 5, out)(0, 1)
    assert out.tolist() == [0, 0]
    for given in (weight, weight.T, weight[::-1, ::2], weight[:1], weight[:, :1], weight[:1, :1]):
        whole = np.broadcast_to(given, (6, 7) if given.shape in ((1, 7), (6, 1), (1, 1)) else given.shape)
        kernels.weigh(None, None, whole, 0, whole.size, out)(0, 1)
        assert_close(out[0], whole.sum(dtype=np.float64), 4)


@pytest.mark.parametrize("dtype", [*DTYPES, np.int32], ids=str)
def test_weights_are_looked_at(dtype):
    weight = np.ones((3, 5)).astype(dtype)
    assert kernels.check_weights(weight)(0, 1) == -1
    weight[2, 1] = weight[1, 3] = -1
    assert kernels.check_weights(weight)(0, 1) == 8
    assert kernels.check_weights(weight.T[::-1])(0, 1) == 4
    for bad in (NAN, INF) if np.dtype(dtype).kind != "i" else ():
        weight[0, 2] = bad
        assert kernels.check_weights(weight[0])(0, 1) == 2


# ---- copies ----------------------------------------------------------------------------------------------------------

KINDS = [np.dtype(kind) for kind in (*DTYPES, bool, *"i1 i2 i4 i8 u1 u2 u4 u8".split())]


@pytest.mark.parametrize("source", KINDS, ids=str)
def test_copies_between_dtypes(rng, source):
    values = rng.integers(0, 99, 45).astype(source)
    if source.kind not in "biu":
        values = values - (values / 3).astype(source)
    for target in KINDS:
        for offset in (0, 1):
            given, out = aligned(values, offset), aligned(np.zeros(45, target), offset)
            kernels.copy(given, out)(0, 1)
            assert bits(out) == bits(values.astype(target))


@pytest.mark.parametrize("dtype", [np.int8, np.float16, np.float64])
def test_copies_between_strides(rng, dtype):
    values = rng.integers(0, 99, (3, 4, 5)).astype(dtype)
    for axes in itertools.permutations(range(3)):
        given = values.transpose(axes)
        for out in (np.zeros(given.shape, dtype), np.zeros(tuple(2 * n for n in given.shape), dtype)[::2, ::-2, 1::2]):
            kernels.copy(given, out)(0, 1)
            np.testing.assert_array_equal(out, given)
            kernels.fill(out)(0, 1)
            assert not out.any()
    row, out = np.broadcast_to(values[0, 0], (4, 5)), np.zeros((4, 5), dtype)
    kernels.copy(row, out)(0, 1)
    np.testing.assert_array_equal(out, row)


def test_copies_of_no_axes_and_of_many(rng):
    given, out = np.array(3.5), np.zeros((), np.float32)
    kernels.copy(given, out)(0, 1)
    assert out == given
    given = rng.random((2,) * 10).transpose(0, 9, 1, 8, 2, 7, 3, 6, 4, 5)
    out = np.zeros(given.shape)
    kernels.copy(given, out)(0, 1)
    np.testing.assert_array_equal(out, given)
    kernels.copy(np.zeros((0, 3)), np.zeros((0, 3)))(0, 1)
    ones = np.ones((3, 43), np.float32)
    kernels.fill(ones[1])(0, 1)
    assert ones.sum(1).tolist() == [43, 0, 43]


# ---- tallies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bins", [1, 6, 7_500])
@pytest.mark.parametrize("dtype", WIDE, ids=str)
def test_tallies_are_the_references(rng, bins, dtype):
    rows, block = 150, 64
    target, top_k = rng.integers(0, 5, rows), np.array([1, 3])
    scores = {name: rng.random(rows).astype(dtype) for name in ("nll", "confidence", "entropy", "brier")}
    scores["confidence"][:4] = 0, 1, NAN, 1 / 6
    scores |= {"prediction": rng.integers(0, 5, rows), "rank": rng.integers(0, 5, rows)}
    weight = np.where(rng.random(rows) < 0.2, 0, rng.random(rows)).astype(dtype)
    for sample_weight, kind in ((None, "i8"), (weight, "u1")):
        found, wanted = np.full((2, 3, 8 + 4 * bins), 7.0)
        options = {**scores, "ignore_index": 2, "top_k": top_k, "bins": bins, "block": block}
        reference.tally(target, sample_weight, **options, sums=wanted)(0, rows)
        kernels.tally(target.astype(kind), sample_weight, **options, sums=found)(0, rows)
        assert_close(found, wanted, 8)
        again = np.full_like(found, 7)
        for lo in range(0, rows, block):
            kernels.tally(target.astype(kind), sample_weight, **options, sums=again)(lo, min(lo + block, rows))
        assert bits(again) == bits(found)


@pytest.mark.parametrize(("labels", "bins"), [(1, 6), (13, 6), (40, 6), (3, 7_500)])
def test_binary_tallies_are_the_references(rng, labels, bins):
    rows, block = (30, 16) if bins == 6 else (4, 3)
    shape = rows, labels
    target = rng.random(shape).astype(np.float32)
    weight = np.where(rng.random(shape) < 0.2, 0, rng.random(shape)).astype(np.float32)
    scores = {name: rng.random(shape).astype(np.float32) for name in ("nll", "probability", "brier")}
    scores["probability"][:3, 0] = 0, 1, NAN
    scores["prediction"] = (rng.random(shape) < 0.5).astype(np.int8)
    scores["nll"][weight == 0] = NAN
    for given, y in ((weight, np.asfortranarray(target)), (None, target > 0.3)):
        if given is None:
            scores["nll"][...] = 1
        found, wanted = np.full((2, -(-rows // block), labels, 8 + 4 * bins), 7.0)
        options = {**scores, "bins": bins, "block": block}
        reference.tally_binary(y, given, **options, sums=wanted)(0, rows)
        kernels.tally_binary(y, given, **options, sums=found)(0, rows)
        assert_close(found, wanted, 8)
