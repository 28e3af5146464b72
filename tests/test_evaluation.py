"""Scores and evaluations, against NumPy, SciPy and scikit-learn; evaluations are values that merge."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics
from evaluation_cases import assert_merged, case, positions, rows_of
from kernel_cases import HOST, assert_close, bits, fewer

import fusedloss as fl
from fusedloss import evaluation as module

NAN, INF = np.nan, np.inf
CLASSES_LAST = [(403, 10), (203, 331), (19, 5000)]  # sixteen rows at a time; a row at a time, short and long
SHAPES = [*((shape, -1) for shape in CLASSES_LAST), ((7, 23, 18), 1), ((5, 300, 3), 1), ((11, 37), 0)]


def gap(confidence, correct, weight, bins=15):
    """The expected calibration error, bin by bin."""
    total = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        total += abs(weight[inside] @ (correct[inside] - confidence[inside]))
    return total / weight.sum()


# ---- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_class_numbers_are_numpys_with_ties_infinities_and_nan(backend, rng, shape, axis):
    x = rng.integers(-3, 4, shape).astype(np.float32)
    for value, every in ((NAN, 0.02), (INF, 0.02), (-INF, 0.1), (-0.0, 0.1)):
        x[rng.random(shape) < every * min(1, 30 / shape[axis])] = value
    y = rng.integers(0, shape[axis], positions(shape, axis))
    y.flat[::17] = -100
    scores = fl.score(x, y, axis=axis, device=backend)
    rows, flat = rows_of(x, axis), y.ravel()
    key = np.where(np.isnan(rows), INF, np.minimum(rows, 1e300))  # NaN is the greatest, as to argmax
    order = np.argsort(-key, axis=1, kind="stable")
    rank = np.where(flat == -100, -1, (order == flat[:, None]).argmax(1))
    assert scores.prediction.dtype == scores.rank.dtype == np.int64
    np.testing.assert_array_equal(scores.prediction, np.argmax(x, axis))
    np.testing.assert_array_equal(scores.rank.ravel(), rank)
    np.testing.assert_array_equal(fl.score(x, axis=axis, device=backend).prediction, scores.prediction)
    poisoned = np.isnan(rows).any(1) | (rows == INF).any(1) | (rows == -INF).all(1)
    for name in ("confidence", "entropy"):
        np.testing.assert_array_equal(np.isnan(getattr(scores, name)).ravel(), poisoned)
    for name in ("nll", "brier"):
        np.testing.assert_array_equal(np.isnan(getattr(scores, name)).ravel(), poisoned & (flat != -100))


@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_scores_are_those_of_scipy(backend, rng, shape, axis):
    x, y = case(rng, shape, axis)
    scores = fl.score(x, y, axis=axis, device=backend)
    rows, flat = rows_of(x, axis), y.ravel()
    p, log_p = scipy.special.softmax(rows, 1), scipy.special.log_softmax(rows, 1)
    live, at = flat != -100, np.arange(flat.size)
    flat = np.where(live, flat, 0)
    assert {getattr(scores, each.name).shape for each in dataclasses.fields(scores)} == {y.shape}
    assert_close(scores.log_normalizer.ravel(), scipy.special.logsumexp(rows, 1), 4)
    assert_close(scores.confidence.ravel(), p.max(1), 6)
    assert_close(scores.entropy.ravel(), scipy.stats.entropy(p, axis=1), 8, scale=1)
    assert_close(scores.nll.ravel(), np.where(live, -log_p[at, flat], 0), 6, scale=1)
    p[at, flat] -= 1
    assert_close(scores.brier.ravel(), np.where(live, (p**2).sum(1), 0), 8, scale=0.1)


def test_scores_without_a_target_hold_what_the_logits_tell(backend, rng):
    x, y = case(rng, (203, 131))
    with_target, without = fl.score(x, y, device=backend), fl.score(x, device=backend)
    assert without.nll is without.rank is without.brier is None
    for name in ("log_normalizer", "prediction", "confidence", "entropy"):
        assert bits(getattr(without, name)) == bits(getattr(with_target, name))


def test_binary_scores_are_those_of_scipy(backend, rng):
    x, y = rng.standard_normal((203, 5), dtype=np.float32) * 4, rng.random((203, 5)) < 0.3
    scores = fl.score_binary(x, y, threshold=0.25, device=backend)
    p = scipy.special.expit(x.astype(np.float64))
    assert_close(scores.probability, p, 4)
    np.testing.assert_array_equal(scores.prediction, scores.probability > 0.25)
    assert_close(scores.nll, -np.where(y, np.log(p), np.log1p(-p)), 6)
    assert_close(scores.brier, (p - y) ** 2, 8)
    without = fl.score_binary(x, threshold=0.25, device=backend)
    assert without.nll is without.brier is None
    assert bits(without.probability) == bits(scores.probability)
    assert bits(without.prediction) == bits(scores.prediction)


# ---- evaluations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((2003, 10), -1), ((1003, 331), -1), ((41, 23, 18), 1)], ids=str)
def test_evaluation_is_that_of_scikit_learn(backend, rng, shape, axis, weighted):
    shape = fewer(backend, shape[0], min(shape[0], 203)), *shape[1:]
    x, y = case(rng, shape, axis)
    weight = np.where(rng.random(y.shape) < 0.1, 0, rng.random(y.shape)) if weighted else None
    got = fl.evaluate(x, y, axis=axis, sample_weight=weight, top_k=[1, 2, 7], device=backend)
    w = np.ones(y.size) if weight is None else weight.astype(np.float32).astype(np.float64).ravel()
    live = (y.ravel() != -100) & (w > 0)
    w, flat, p = w[live], y.ravel()[live], scipy.special.softmax(rows_of(x, axis)[live], 1)
    labels, correct = np.arange(shape[axis]), p.argmax(1) == flat
    near = lambda value: pytest.approx(value, rel=2e-6)  # noqa: E731
    assert got.count == live.sum()
    assert got.weight == pytest.approx(w.sum(), rel=1e-13)
    assert got.nll == near(sklearn.metrics.log_loss(flat, p, sample_weight=w, labels=labels))
    assert got.perplexity == math.exp(got.nll)
    assert got.accuracy == pytest.approx(sklearn.metrics.accuracy_score(flat, p.argmax(1), sample_weight=w), rel=1e-12)
    for k, value in got.top_k.items():
        want = sklearn.metrics.top_k_accuracy_score(flat, p, k=k, sample_weight=w, labels=labels)
        assert value == pytest.approx(want, rel=1e-12)
    assert list(got.top_k) == [1, 2, 7]
    assert got.entropy == near(np.average(scipy.stats.entropy(p, axis=1), weights=w))
    assert got.brier == near(np.average(((p - np.eye(shape[axis])[flat]) ** 2).sum(1), weights=w))
    assert got.ece == pytest.approx(gap(p.max(1), correct, w), abs=1e-7)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(2003,), (603, 3)], ids=str)
def test_binary_evaluation_is_that_of_scikit_learn(backend, rng, shape, weighted):
    y = rng.random(shape) < 0.3
    x = ((y - 0.5) * 2 + rng.standard_normal(shape) * 2).astype(np.float32)
    weight = np.where(rng.random(shape) < 0.1, 0, rng.random(shape)).astype(np.float32) if weighted else None
    got = fl.evaluate_binary(x, y, sample_weight=weight, threshold=0.4, bins=10, device=backend)
    labels = shape[1] if len(shape) > 1 else 1
    columns = [each.reshape(-1, labels) for each in (x, y, np.ones(shape) if weight is None else weight)]
    assert (got.labels, got.threshold) == (labels, 0.4)
    for label, each in enumerate(got.per_label):
        assert_binary(each, *(column[:, label] for column in columns))
    assert_binary(got, *(column.ravel() for column in columns))


def assert_binary(got, x, y, weight):
    w, live = weight.astype(np.float64), weight > 0
    x, y, w = x[live].astype(np.float64), y[live], w[live]
    p = scipy.special.expit(x)
    flagged = p > 0.4
    (tn, fp), (fn, tp) = sklearn.metrics.confusion_matrix(y, flagged, sample_weight=w)
    assert got.count == live.sum()
    assert (got.tp, got.fp, got.tn, got.fn) == pytest.approx((tp, fp, tn, fn), rel=1e-12)
    scores = sklearn.metrics.precision_recall_fscore_support(y, flagged, average="binary", sample_weight=w)
    assert (got.precision, got.recall, got.f1) == pytest.approx(scores[:3], rel=1e-12)
    assert got.accuracy == pytest.approx(sklearn.metrics.accuracy_score(y, flagged, sample_weight=w), rel=1e-12)
    assert got.nll == pytest.approx(sklearn.metrics.log_loss(y, p, sample_weight=w), rel=2e-6)
    assert got.brier == pytest.approx(sklearn.metrics.brier_score_loss(y, p, sample_weight=w), rel=2e-6)
    assert got.ece == pytest.approx(gap(p, y, w, bins=10), abs=1e-7)


def test_masked_rows_count_nowhere_whatever_they_hold(backend, rng):
    x, y = case(rng, (203, 131), ignored=0)
    weight = rng.random(203).astype(np.float32)
    weight[50:60], y[100:110] = 0, -100
    want = fl.evaluate(x, y, sample_weight=weight, device=backend)
    x[50:60], x[100:110] = NAN, INF
    assert fl.evaluate(x, y, sample_weight=weight, device=backend) == want
    kept = np.r_[:50, 60:100, 110:203]
    assert_merged(fl.evaluate(x[kept], y[kept], sample_weight=weight[kept], device=backend), want)
    assert want.count == 183
    other = np.where(y == -100, 255, y).astype(np.uint8)
    assert fl.evaluate(x, other, sample_weight=weight, ignore_index=255, device=backend) == want


def test_nan_is_not_hidden(backend, rng):
    x, y = case(rng, (203, 131), ignored=0)
    x[7, 3] = NAN
    got = fl.evaluate(x, y, device=backend)
    assert [math.isnan(value) for value in (got.nll, got.perplexity, got.entropy, got.brier, got.ece)] == [True] * 5
    assert got.count == 203
    assert got.accuracy == np.mean(x.argmax(1) == y)
    assert sum(each.count for each in got.calibration) == 202
    binary = fl.evaluate_binary(x[:, :2], y[:, None] % 2 == [0, 1], device=backend)
    assert not math.isnan(binary.nll)
    x[7, 1] = NAN
    first, second = fl.evaluate_binary(x[:, :2], y[:, None] % 2 == [0, 1], device=backend).per_label
    assert not math.isnan(first.nll)
    assert [math.isnan(value) for value in (second.nll, second.brier, second.ece)] == [True] * 3


def test_an_infinite_loss_is_infinite(backend):
    x = np.array([[0, -INF], [1, 2]], np.float32)
    got = fl.evaluate(x, [1, 1], device=backend)
    assert got.nll == got.perplexity == INF
    assert got.to_dict()["nll"] is None


@pytest.mark.parametrize("target", [np.zeros(0, np.int64), np.full(3, -100)], ids=["no rows", "all ignored"])
def test_the_mean_of_nothing_is_nan(backend, target):
    got = fl.evaluate(np.zeros((len(target), 131), np.float32), target, device=backend)
    assert got.count == got.weight == 0
    for value in (got.nll, got.perplexity, got.accuracy, got.entropy, got.brier, got.ece, *got.top_k.values()):
        assert math.isnan(value)
    assert got.to_dict()["nll"] is None
    assert got == fl.Evaluation.from_scores(fl.score(np.zeros((len(target), 131), np.float32), target), target)


def test_top_k_beyond_the_classes_is_always_right(backend):
    got = fl.evaluate(np.zeros((3, 4), np.float32), [0, 1, 3], top_k=[1, 2, 4, 9], device=backend)
    assert list(got.top_k.values()) == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert fl.evaluate(np.zeros((3, 4), np.float32), [0, 1, 3], top_k=2, device=backend).top_k == {2: 2 / 3}


@pytest.mark.parametrize("bins", [1, 4, 10])
def test_bins_are_closed_above(backend, bins):
    edges = np.arange(bins + 1) / bins
    confidence = np.concatenate([edges, np.nextafter(edges[1:-1], 1)])
    n = len(confidence)
    zeros, classes = np.zeros(n), np.zeros(n, int)
    scores = fl.Scores(zeros, classes, confidence, zeros, zeros, classes, zeros)
    got = fl.Evaluation.from_scores(scores, classes, bins=bins, device=backend)
    assert [each.count for each in got.calibration] == ([2] if bins == 1 else [2, *[2] * (bins - 1)])
    assert [each.lower for each in got.calibration] == list(edges[:-1])
    assert [each.upper for each in got.calibration] == list(edges[1:])


# ---- one pass, in parts, in threads ----------------------------------------------------------------------------------


@HOST
@pytest.mark.usefixtures("every_thread")
def test_any_number_of_threads_gives_the_same_bits(backend, rng):
    x, y = case(rng, (8003, 131))
    seen, scored = set(), set()
    for threads in (1, 2, 3, 8):
        fl.set_num_threads(threads)
        binary = fl.evaluate_binary(x[:, :9], x[:, 9:18] > 0, device=backend)
        scores = fl.score(x, y, device=backend)
        seen.add((fl.evaluate(x, y, device=backend), binary, fl.Evaluation.from_scores(scores, y, device=backend)))
        scored.add(tuple(bits(getattr(scores, each.name)) for each in dataclasses.fields(scores)))
    assert len(seen) == len(scored) == 1


@pytest.mark.parametrize(("shape", "axis"), [((2003, 10), -1), ((41, 23, 18), 1)], ids=str)
def test_chunks_change_nothing_but_rounding(backend, rng, monkeypatch, shape, axis):
    shape = fewer(backend, shape[0], shape[0] // 6), *shape[1:]
    x, y = case(rng, shape, axis)
    whole = fl.evaluate(x, y, axis=axis, device=backend)
    monkeypatch.setattr(module, "_CHUNK_BYTES", fewer(backend, 100 << 10, 16 << 10))
    assert_merged(fl.evaluate(x, y, axis=axis, device=backend), whole)
    y[-3] = shape[axis]
    first = ", ".join(map(str, np.argwhere(y == shape[axis])[0]))
    with pytest.raises(fl.TargetError, match=rf"target\[{first}\] is {shape[axis]}, expected a class in \[0, "):
        fl.evaluate(x, y, axis=axis, device=backend)


def test_an_evaluation_needs_a_target():
    for call in (fl.evaluate, fl.evaluate_binary):
        with pytest.raises(fl.ShapeError, match="target is None"):
            call(np.zeros((3, 4), np.float32), None)
