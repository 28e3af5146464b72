"""The values of an evaluation: per-row scores, and sums that merge."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .errors import OptionError
from .options import options, positive_integer, positive_integers
from .sinks import Loggable
from .tallies import tally, tally_binary

_HEAD, _BINARY_HEAD, _BIN = 6, 8, 4  # the columns of a tally before its bins, and of a bin: see the kernel contract
_TP, _FP, _TN, _FN = 4, 5, 6, 7
_METRICS = ("count", "weight", "nll", "perplexity", "accuracy", "entropy", "brier", "ece")
_BINARY_METRICS = (
    "count", "weight", "tp", "fp", "tn", "fn", "accuracy", "precision", "recall", "f1", "nll", "brier", "ece",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Scores:
    """What a row's logits tell, one entry a row; arrays of the caller's kind.

    They have the logits' shape without the class axis.

    Attributes
    ----------
    log_normalizer : array
        log Σ exp(z), of the scaled and capped logits z.
    prediction : array of int64
        The class of the largest logit, the first of equals.
    confidence : array
        Its probability.
    entropy : array
        Of the softmax, in nats.
    nll : array or None
        −log softmax(z) of the target, in nats; 0 where it is ignored.
    rank : array of int64 or None
        How many classes come before the target: 0 where it is the prediction, −1 where it is ignored.
    brier : array or None
        Σ (softmax(z) − one-hot)²; 0 where the target is ignored.
    """

    log_normalizer: Any
    prediction: Any
    confidence: Any
    entropy: Any
    nll: Any = None
    rank: Any = None
    brier: Any = None


@dataclass(frozen=True, eq=False)
class BinaryScores:
    """What binary or multi-label logits tell, one entry an element; arrays of the caller's kind and the logits' shape.

    Attributes
    ----------
    probability : array
        sigmoid(x).
    prediction : array of int8
        1 where the probability is above the threshold, else 0.
    nll : array or None
        The binary cross-entropy, in nats.
    brier : array or None
        (sigmoid(x) − y)².
    """

    probability: Any
    prediction: Any
    nll: Any = None
    brier: Any = None


@dataclass(frozen=True)
class CalibrationBin:
    """The rows whose confidence lies in (lower, upper], and in the first bin also 0; NaN where there are none."""

    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Evaluation(Loggable):
    """The evaluation of any number of rows: sums, which merge with ``+`` and with ``sum``.

    ``sums`` are those of the kernel contract's ``tally``, over rows that are not masked; every mean below is weighted
    by the sample weight. The mean of nothing is NaN.
    """

    ks: tuple[int, ...]
    bins: int
    sums: tuple[float, ...]

    @classmethod
    def from_scores(
        cls, scores: Scores, target: Any, *, sample_weight: Any = None, ignore_index: int = -100, top_k: Any = (1, 5),
        bins: int = 15, device: str = "auto",
    ) -> "Evaluation":  # fmt: skip
        """Evaluate what `score` gave for the same target: as `evaluate` does, without reading the logits again.

        Parameters
        ----------
        scores : Scores
            Of logits and their target.
        target, sample_weight, ignore_index, top_k, bins, device
            As in `evaluate`. Rows that were ignored when they were scored must be ignored here.

        Raises
        ------
        ShapeError, DTypeError, OptionError, DeviceError
            As in `evaluate`; and if the scores were made without a target.
        TargetError
            If a row that was ignored when it was scored is not.
        """
        ks, bins = positive_integers("top_k", top_k), positive_integer("bins", bins)
        return cls(ks, bins, tuple(tally(scores, target, sample_weight, ignore_index, ks, bins, device)))

    def __add__(self, other: object) -> "Evaluation":
        if not isinstance(other, Evaluation):
            return NotImplemented
        _require_same("top_k", self.ks, other.ks)
        _require_same("bins", self.bins, other.bins)
        return Evaluation(self.ks, self.bins, _added(self.sums, other.sums))

    def __radd__(self, other: object) -> "Evaluation":
        return self if other == 0 else NotImplemented

    @property
    def count(self) -> int:
        """The number of rows that count: neither ignored nor of weight 0."""
        return int(self.sums[0])

    @property
    def weight(self) -> float:
        """The sum of their sample weights."""
        return self.sums[1]

    @property
    def nll(self) -> float:
        """The mean negative log-likelihood of the target, in nats; NaN if that of any row is."""
        return _ratio(self.sums[2], self.weight)

    @property
    def perplexity(self) -> float:
        """The exponential of the mean negative log-likelihood."""
        return math.exp(self.nll) if not self.nll > 709 else math.inf

    @property
    def entropy(self) -> float:
        """The mean entropy of the predicted distribution, in nats."""
        return _ratio(self.sums[3], self.weight)

    @property
    def brier(self) -> float:
        """The mean Brier score, Σ (p − one-hot)², from 0 to 2."""
        return _ratio(self.sums[4], self.weight)

    @property
    def accuracy(self) -> float:
        """How often the prediction is the target."""
        return _ratio(self.sums[5], self.weight)

    @property
    def top_k(self) -> dict[int, float]:
        """How often the target is among the first k classes, for each k."""
        return {k: _ratio(hits, self.weight) for k, hits in zip(self.ks, self.sums[_HEAD:], strict=False)}

    @property
    def ece(self) -> float:
        """The expected calibration error: the mean over bins of |accuracy − confidence|; NaN if a confidence is."""
        return _calibration_error(self._cells, self.count, self.weight)

    @property
    def calibration(self) -> tuple[CalibrationBin, ...]:
        """How confidence compares with accuracy, in bins of equal width."""
        return _calibration(self._cells)

    def to_dict(self) -> dict[str, Any]:
        """Give every property as a value that JSON can hold; what is not finite is None."""
        return {
            **{name: _finite(getattr(self, name)) for name in _METRICS},
            "top_k": {str(k): _finite(value) for k, value in self.top_k.items()},
            "calibration": _as_dicts(self.calibration),
        }

    def _metrics(self) -> dict[str, float]:
        top_k = {f"top_{k}_accuracy": value for k, value in self.top_k.items()}
        return {name: getattr(self, name) for name in _METRICS} | top_k

    @property
    def _cells(self) -> list[tuple[float, ...]]:
        return _cells(self.sums[_HEAD + len(self.ks) :])


@dataclass(frozen=True)
class BinaryEvaluation(Loggable):
    """The binary evaluation of one label or several: sums, which merge with ``+`` and with ``sum``.

    ``sums`` holds, for each label, those of the kernel contract's ``tally_binary``. Every property is over the elements
    of all labels; ``per_label`` gives one such value a label. Counts and means are weighted by the sample weight.
    The mean of nothing is NaN.
    """

    threshold: float
    bins: int
    sums: tuple[tuple[float, ...], ...]

    @classmethod
    def from_scores(
        cls, scores: BinaryScores, target: Any, *, sample_weight: Any = None, threshold: float = 0.5, bins: int = 15,
        device: str = "auto",
    ) -> "BinaryEvaluation":  # fmt: skip
        """Evaluate what `score_binary` gave for the same target: as `evaluate_binary` does.

        Parameters
        ----------
        scores : BinaryScores
            Of logits and their target.
        target, sample_weight, bins, device
            As in `evaluate_binary`.
        threshold : float
            That of the scores' predictions, which are not made anew.

        Raises
        ------
        ShapeError, DTypeError, OptionError, DeviceError
            As in `evaluate_binary`; and if the scores were made without a target.
        """
        bins, level = positive_integer("bins", bins), options(threshold=threshold)["threshold"]
        return cls(level, bins, tuple(map(tuple, tally_binary(scores, target, sample_weight, bins, device))))

    def __add__(self, other: object) -> "BinaryEvaluation":
        if not isinstance(other, BinaryEvaluation):
            return NotImplemented
        _require_same("threshold", self.threshold, other.threshold)
        _require_same("bins", self.bins, other.bins)
        _require_same("labels", self.labels, other.labels)
        merged = tuple(_added(mine, theirs) for mine, theirs in zip(self.sums, other.sums, strict=True))
        return BinaryEvaluation(self.threshold, self.bins, merged)

    def __radd__(self, other: object) -> "BinaryEvaluation":
        return self if other == 0 else NotImplemented

    @property
    def labels(self) -> int:
        """The number of labels."""
        return len(self.sums)

    @property
    def per_label(self) -> tuple["BinaryEvaluation", ...]:
        """The evaluation of each label."""
        return tuple(BinaryEvaluation(self.threshold, self.bins, (each,)) for each in self.sums)

    @property
    def count(self) -> int:
        """The number of elements that count: those of weight other than 0."""
        return int(self._sum(0))

    @property
    def weight(self) -> float:
        """The sum of their sample weights."""
        return self._sum(1)

    @property
    def nll(self) -> float:
        """The mean binary cross-entropy, in nats; NaN if that of any element is."""
        return _ratio(self._sum(2), self.weight)

    @property
    def brier(self) -> float:
        """The mean Brier score, (p − y)²."""
        return _ratio(self._sum(3), self.weight)

    @property
    def tp(self) -> float:
        """True positives."""
        return self._sum(_TP)

    @property
    def fp(self) -> float:
        """False positives."""
        return self._sum(_FP)

    @property
    def tn(self) -> float:
        """True negatives."""
        return self._sum(_TN)

    @property
    def fn(self) -> float:
        """False negatives."""
        return self._sum(_FN)

    @property
    def accuracy(self) -> float:
        """How often the prediction is the target."""
        return _ratio(self.tp + self.tn, self.weight)

    @property
    def precision(self) -> float:
        """How many of the predicted positives are positive."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """How many of the positives are predicted."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def ece(self) -> float:
        """The expected calibration error of the positive class's probability; NaN if a probability is."""
        return _calibration_error(self._cells, self.count, self.weight)

    @property
    def calibration(self) -> tuple[CalibrationBin, ...]:
        """How the probability (``confidence``) compares with the share of positives (``accuracy``), in bins."""
        return _calibration(self._cells)

    def to_dict(self) -> dict[str, Any]:
        """Give every property as a value that JSON can hold; what is not finite is None."""
        values = {
            **{name: _finite(value) for name, value in self._metrics().items()},
            "threshold": self.threshold,
            "calibration": _as_dicts(self.calibration),
        }
        return values if self.labels == 1 else values | {"per_label": [each.to_dict() for each in self.per_label]}

    def _metrics(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in _BINARY_METRICS}

    @property
    def _cells(self) -> list[tuple[float, ...]]:
        return _cells([sum(column) for column in zip(*(each[_BINARY_HEAD:] for each in self.sums), strict=True)])

    def _sum(self, column: int) -> float:
        return sum(each[column] for each in self.sums)


def _require_same(name: str, mine: object, theirs: object) -> None:
    if mine != theirs:
        raise OptionError(f"evaluations of {name} {mine} and {theirs} cannot be merged, expected the same")


def _added(mine: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    return tuple(a + b for a, b in zip(mine, theirs, strict=True))


def _ratio(total: float, weight: float) -> float:
    return total / weight if weight else math.nan


def _cells(sums: Sequence[float]) -> list[tuple[float, ...]]:
    """Cut sums into those of each bin: rows, weight, weighted confidence, weighted accuracy."""
    return [tuple(sums[start : start + _BIN]) for start in range(0, len(sums), _BIN)]


def _calibration_error(cells: Iterable[Sequence[float]], count: int, weight: float) -> float:
    cells = list(cells)
    if sum(rows for rows, *_ in cells) != count:
        return math.nan
    return _ratio(math.fsum(abs(confidence - correct) for _, _, confidence, correct in cells), weight)


def _calibration(cells: Sequence[Sequence[float]]) -> tuple[CalibrationBin, ...]:
    bins = len(cells)
    return tuple(
        CalibrationBin(number / bins, (number + 1) / bins, int(rows), _ratio(confidence, weight), _ratio(hits, weight))
        for number, (rows, weight, confidence, hits) in enumerate(cells)
    )


def _as_dicts(bins: Iterable[CalibrationBin]) -> list[dict[str, Any]]:
    return [{name: _finite(value) for name, value in asdict(each).items()} for each in bins]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
