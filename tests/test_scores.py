"""Evaluations are values that merge; and what was scored can be evaluated later."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
from evaluation_cases import assert_merged, case
from kernel_cases import fewer

import fusedloss as fl

# ---- from scores -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "axis"), [((2003, 331), -1), ((41, 23, 18), 1), ((131,), 0)], ids=str)
def test_from_scores_is_evaluate(backend, rng, shape, axis):
    shape = fewer(backend, shape[0], min(shape[0], 203)), *shape[1:]
    x, y = case(rng, shape, axis)
    options = {"sample_weight": rng.random(y.shape), "top_k": (1, 3), "bins": 7, "device": backend}
    scores = fl.score(x, y, axis=axis, device=backend)
    assert_merged(fl.Evaluation.from_scores(scores, y, **options), fl.evaluate(x, y, axis=axis, **options))


@pytest.mark.parametrize("shape", [(2003,), (603, 3), (41, 7, 3), ()], ids=str)
def test_binary_from_scores_is_evaluate_binary(backend, rng, shape):
    x, y = rng.standard_normal(shape, np.float32), np.asarray(rng.random(shape) < 0.5)
    options = {"sample_weight": rng.random(shape), "threshold": 0.3, "bins": 7, "device": backend}
    scores = fl.score_binary(x, y, threshold=0.3, device=backend)
    assert_merged(fl.BinaryEvaluation.from_scores(scores, y, **options), fl.evaluate_binary(x, y, **options))


def test_from_scores_of_a_tensor(rng):
    torch = pytest.importorskip("torch")
    x, y = case(rng, (203, 131))
    scores = fl.score(torch.from_numpy(x), torch.from_numpy(y))
    assert isinstance(scores.nll, torch.Tensor)
    assert_merged(fl.Evaluation.from_scores(scores, torch.from_numpy(y)), fl.evaluate(x, y))


def test_from_scores_rejects_what_does_not_fit(rng):
    x, y = case(rng, (203, 131))
    scores, binary = fl.score(x, y), fl.score_binary(x[:, 0], y > 3)
    of_one = fl.Evaluation.from_scores, fl.BinaryEvaluation.from_scores
    for make, without in zip(of_one, (fl.score(x), fl.score_binary(x[:, 0])), strict=True):
        with pytest.raises(fl.OptionError, match="scores have no nll, expected what is scored with a target"):
            make(without, y)
        with pytest.raises(fl.OptionError, match="scores have no"):
            make({}, y)
    for make, given in zip(of_one, (scores, binary), strict=True):
        with pytest.raises(fl.ShapeError, match=r"target has shape \(202,\), expected \(203,\)"):
            make(given, y[1:])
        with pytest.raises(fl.ShapeError, match=r"sample_weight has shape \(202,\)"):
            make(given, y, sample_weight=np.ones(202))
        with pytest.raises(fl.ShapeError, match=r"scores.nll has shape \(202,\), expected \(203,\)"):
            make(dataclasses.replace(given, nll=given.nll[1:]), y)
        with pytest.raises(fl.OptionError, match="bins is 0"):
            make(given, y, bins=0)
        with pytest.raises(fl.DeviceError, match="device is 'tpu'"):
            make(given, y, device="tpu")
    with pytest.raises(fl.DTypeError, match="target has dtype float64, expected integers"):
        fl.Evaluation.from_scores(scores, y.astype(float))
    first = int((y == -100).argmax())
    with pytest.raises(
        fl.TargetError, match=rf"target\[{first}\] is -100, expected ignore_index=-1: the row was ignored"
    ):
        fl.Evaluation.from_scores(scores, y, ignore_index=-1)


# ---- values that merge ----------------------------------------------------------------------------------------------


def test_parts_merge_in_any_order(backend, rng):
    x, y = case(rng, (1003, 10))
    cuts = np.split(np.arange(1003), [0, 100, 101, 640])
    parts = [fl.evaluate(x[cut], y[cut], device=backend) for cut in cuts]
    whole = fl.evaluate(x, y, device=backend)
    assert_merged(sum(parts), whole)
    assert_merged(sum(reversed(parts)), whole)
    assert_merged((parts[3] + parts[0]) + (parts[4] + (parts[2] + parts[1])), whole)
    hits = y[:, None] == [0, 1, 2]
    parts = [fl.evaluate_binary(x[cut, :3], hits[cut], device=backend) for cut in cuts]
    assert_merged(sum(parts), fl.evaluate_binary(x[:, :3], hits, device=backend))


@pytest.fixture
def values(rng):
    x, y = case(rng, (203, 10))
    several = fl.evaluate_binary(x[:, :3], y[:, None] == [0, 1, 2], device="numpy")
    return [fl.evaluate(x, y, device="numpy"), several, several.per_label[0]]


def test_evaluations_are_frozen_and_hashable_and_pickle(values):
    for value in values:
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.bins = 3
        copy = pickle.loads(pickle.dumps(value))
        assert copy == value
        assert hash(copy) == hash(value)
        assert copy.to_dict() == value.to_dict()


def test_evaluations_of_other_options_do_not_merge(rng):
    x, y = case(rng, (203, 10))
    one = fl.evaluate(x, y, device="numpy")
    for name, value, said in (("top_k", (1, 3), r"top_k \(1, 5\) and \(1, 3\)"), ("bins", 7, "bins 15 and 7")):
        with pytest.raises(fl.OptionError, match=f"evaluations of {said} cannot be merged"):
            one + fl.evaluate(x, y, device="numpy", **{name: value})
    two = fl.evaluate_binary(x, x > 0, device="numpy")
    for other, said in (
        (fl.evaluate_binary(x, x > 0, bins=7, device="numpy"), "bins 15 and 7"),
        (fl.evaluate_binary(x, x > 0, threshold=0.1, device="numpy"), "threshold 0.5 and 0.1"),
        (fl.evaluate_binary(x[:, 1:], x[:, 1:] > 0, device="numpy"), "labels 10 and 9"),
    ):
        with pytest.raises(fl.OptionError, match=f"evaluations of {said} cannot be merged"):
            two + other
    for left, right in ((one, two), (two, one), (one, 1), (two, None), ("a", one)):
        with pytest.raises(TypeError, match="unsupported operand|can only concatenate"):
            left + right


def test_to_dict_is_ready_for_json(values):
    for value in (*values, sum(values[:1]), fl.evaluate(np.zeros((0, 3), np.float32), [], device="numpy")):
        told = value.to_dict()
        assert json.loads(json.dumps(told, allow_nan=False)) == told
        assert len(told["calibration"]) == value.bins
    assert values[0].to_dict()["top_k"] == {"1": values[0].top_k[1], "5": values[0].top_k[5]}
    assert values[1].to_dict()["per_label"] == [each.to_dict() for each in values[1].per_label]
    assert "per_label" not in values[2].to_dict()
