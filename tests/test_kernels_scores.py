"""The contract of the kernels that score rows of logits, and of those that tally the scores, on every backend."""

import importlib

import numpy as np
import pytest
import scipy.special
from kernel_cases import DTYPES, WIDE, assert_close, bits, is_simulated, result_dtype, spans

INF, NAN = np.inf, np.nan
PER_ROW = ("log_normalizer", "prediction", "confidence", "entropy", "nll", "rank", "brier")


def score(kernels, x, target=None, *, pieces=1, status=-1, ignore_index=-100, logit_scale=1.0, softcap=None):
    rows = x.shape[0] * x.shape[2]
    out = {name: np.full(rows, 7, np.int64 if name in {"prediction", "rank"} else result_dtype(x)) for name in PER_ROW}
    if target is None:
        out |= {"nll": None, "rank": None, "brier": None}
    run = kernels.score(x, target, ignore_index=ignore_index, logit_scale=logit_scale, softcap=softcap, **out)
    assert [run(lo, hi) for lo, hi in spans(rows, pieces)] == [status] * pieces
    return out


CURVED = {"logit_scale": 0.5, "softcap": 8.0}


@pytest.mark.parametrize(
    ("dtype", "options"), [*((dtype, {}) for dtype in DTYPES), *((dtype, CURVED) for dtype in WIDE)], ids=str
)
@pytest.mark.parametrize("shape", [(60, 29, 1), (60, 331, 1), (5, 29, 7), (1, 70_000, 2), (3, 5000, 1)], ids=str)
def test_scores_are_those_of_float64(kernels, rng, dtype, shape, options):
    shape = (shape[0], min(shape[1], 1003), shape[2]) if is_simulated(kernels) else shape
    x = (4 * rng.standard_normal(shape)).astype(dtype)
    x[0, 1:4] = -INF
    rows, classes = shape[0] * shape[2], shape[1]
    z = np.ascontiguousarray(np.moveaxis(x.astype(np.float64), 1, 2)).reshape(rows, classes)
    z *= options.get("logit_scale", 1.0)
    if options:
        z = np.where(np.isinf(z), z, options["softcap"] * np.tanh(z / options["softcap"]))
    index = rng.integers(5, classes, rows)
    got = score(kernels, x, index, **options)
    p, at = scipy.special.softmax(z, axis=1), np.arange(rows)
    lse = scipy.special.logsumexp(z, axis=1)
    assert_close(got["log_normalizer"], lse, 4)
    assert_close(got["confidence"], p.max(1), 6)
    assert_close(got["entropy"], scipy.special.entr(p).sum(1), 8, scale=0.5)
    assert_close(got["nll"], lse - z[at, index], 6, scale=1.0)
    p[at, index] -= 1
    assert_close(got["brier"], (p**2).sum(1), 8)
    if not options:
        own = z[at, index][:, None]
        above = (z > own) | ((z == own) & (np.arange(classes) < index[:, None]))
        np.testing.assert_array_equal(got["rank"], above.sum(1))
        np.testing.assert_array_equal(got["prediction"], z.argmax(1))
    without = score(kernels, x, pieces=3, **options)
    for name in ("log_normalizer", "prediction", "confidence", "entropy"):
        assert bits(without[name]) == bits(got[name])


@pytest.mark.parametrize("classes", [4, 300])
def test_ties_ignored_rows_and_infinite_rows(kernels, classes):
    rows = [[1, 2, 2, 0], [1, 2, 2, 0], [1, 2, 2, 0], [5, 5, 5, 5], [-INF] * 4, [0, INF, 0, 0], [NAN, 9, NAN, 0],
            [0, -INF, 0, -INF], [0, -INF, 0, 0]]  # fmt: skip
    x = np.full((len(rows), classes, 1), -INF, np.float32)
    x[:, :4, 0] = rows
    target = np.array([1, 2, -7, 3, 0, 1, 0, 0, 1])
    got = score(kernels, x, target, ignore_index=-7)
    np.testing.assert_array_equal(got["prediction"], [1, 1, 1, 0, 0, 1, 0, 0, 0])
    np.testing.assert_array_equal(got["rank"], [0, 1, -1, 3, 0, 0, 0, 0, 3])
    assert got["nll"][2] == got["brier"][2] == 0
    assert got["confidence"][2] == got["confidence"][1]
    np.testing.assert_array_equal(got["log_normalizer"][4:7], [-INF, INF, NAN])
    for name in ("confidence", "entropy", "nll", "brier"):
        assert np.isnan(got[name][4:7]).all()
    assert_close(got["entropy"][7:], np.log([2, 3]))
    np.testing.assert_array_equal(got["nll"][8:], [INF])
    assert_close(got["brier"][7:], [0.5, 1 + 3 / 9])


def test_the_oracle_resolves_sure_rows():
    kernels = importlib.import_module("fusedloss.kernels.reference")
    x = np.array([[0, 20, -3]], np.float32)[:, :, None]
    p = np.exp(np.array([-20.0, -23.0]))
    others = p / (1 + p.sum())
    got = score(kernels, x, np.array([1]))
    assert_close(got["brier"], [others.sum() ** 2 + (others**2).sum()], 8)
    assert_close(got["nll"], [np.log1p(p.sum())], 8)
    assert_close(got["entropy"], [np.log1p(p.sum()) + others @ [20, 23]], 8)


def test_the_rank_is_zero_where_the_prediction_is_right(kernels, rng):
    x = rng.integers(0, 4, (2000, 6, 1)).astype(np.float16)
    x[::50, 3], x[1::50, 2], x[25::50, 4] = NAN, INF, NAN
    target = rng.integers(0, 6, 2000)
    got = score(kernels, x, target)
    np.testing.assert_array_equal(got["rank"] == 0, got["prediction"] == target)


def test_score_reports_the_row_of_a_target_that_does_not_exist(kernels):
    score(kernels, np.zeros((4, 3, 1), np.float32), np.array([0, -7, 3, -1]), ignore_index=-7, status=2)


@pytest.mark.parametrize("weighted", [False, True])
def test_tally_sums_what_counts(kernels, rng, weighted):
    rows, block, bins, top_k = 1000, 64, 7, np.array([1, 3])
    target = rng.integers(-1, 5, rows)
    weight = np.where(rng.random(rows) < 0.1, 0, rng.random(rows)).astype(np.float32) if weighted else None
    values = {name: rng.random(rows).astype(np.float32) for name in ("nll", "confidence", "entropy", "brier")}
    values |= {"prediction": rng.integers(0, 5, rows), "rank": rng.integers(0, 5, rows)}
    masked = target == -1 if weight is None else (target == -1) | (weight == 0)
    for name in ("nll", "confidence", "entropy", "brier"):
        values[name][masked] = NAN
    values["confidence"][~masked & (rng.random(rows) < 0.05)] = NAN
    sums = np.full((-(-rows // block), 6 + 2 + 4 * bins), 7.0)
    run = kernels.tally(
        target, weight, **values, ignore_index=-1, top_k=top_k, bins=bins, block=block, sums=sums
    )  # fmt: skip
    for start in range(0, rows, block):
        assert run(start, min(start + block, rows)) == -1
    for k, got in enumerate(sums):
        live = np.flatnonzero(~masked[k * block : (k + 1) * block]) + k * block
        w = np.ones(len(live)) if weight is None else weight[live].astype(np.float64)
        v = {name: value[live].astype(np.float64) for name, value in values.items()}
        correct = v["prediction"] == target[live]
        want = [len(live), w.sum(), w @ v["nll"], w @ v["entropy"], w @ v["brier"], w @ correct]
        want += [w @ (v["rank"] < each) for each in top_k]
        for b in range(bins):
            inside = (v["confidence"] > b / bins) & (v["confidence"] <= (b + 1) / bins)
            want += [inside.sum(), w @ inside, w[inside] @ v["confidence"][inside], (w * correct) @ inside]
        assert_close(got, want, 40)


@pytest.mark.parametrize("bins", [1, 7, 10, 15])
def test_bins_are_closed_above(kernels, bins):
    edges = np.arange(bins + 1) / bins
    confidence = np.concatenate([edges, np.nextafter(edges[:-1], 1), np.nextafter(edges[1:], 0), [NAN]])
    want = np.concatenate([np.maximum(np.arange(bins + 1) - 1, 0), np.arange(bins), np.arange(bins)])
    rows = len(confidence)
    for dtype in (np.float64, np.float32):
        zeros = np.zeros(rows, dtype)
        if dtype == np.float32:
            confidence = confidence.astype(np.float32)
            want = [next(b for b in range(bins) if c <= (b + 1) / bins) for c in confidence[:-1].astype(np.float64)]
        sums = np.zeros((1, 6 + 4 * bins))
        kernels.tally(
            np.zeros(rows, int), None, nll=zeros, prediction=np.zeros(rows, int), confidence=confidence, entropy=zeros,
            rank=np.zeros(rows, int), brier=zeros, ignore_index=-1, top_k=np.zeros(0, int), bins=bins, block=rows,
            sums=sums,
        )(0, rows)  # fmt: skip
        np.testing.assert_array_equal(sums[0, 6::4], np.bincount(want, minlength=bins))
        assert sums[0, 0] == rows
