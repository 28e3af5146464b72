"""The pictures: what is drawn, read back from the axes."""

import re
import subprocess
import sys
from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.special
from evaluation_cases import case
from matplotlib.colors import to_hex

import fusedloss as fl
from fusedloss import plot

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _no_figure_stays_open() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture
def evaluation(rng) -> fl.Evaluation:
    return fl.evaluate(*case(rng, (503, 10)), bins=8, device="numpy")


@pytest.fixture
def binary(rng) -> fl.BinaryEvaluation:
    return fl.evaluate_binary(rng.standard_normal((203, 3)), rng.random((203, 3)) < 0.4, bins=4, device="numpy")


@pytest.fixture
def pictures(rng, evaluation, binary) -> dict[str, plt.Axes]:
    """One of each."""
    x, y = case(rng, (503, 10))
    return {
        "loss": plot.binary_loss(),
        "loss of logits": plot.binary_loss(over="logit"),
        "gradient": plot.binary_gradient(),
        "gradient of logits": plot.binary_gradient(over="logit"),
        "saturation": plot.saturation(),
        "descent": plot.descent(),
        "temperature": plot.temperature(),
        "reliability": plot.reliability(evaluation),
        "reliability, binary": plot.reliability(binary),
        "histogram": plot.loss_histogram(fl.score(x, y, device="numpy")),
    }


def curves(ax: plt.Axes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The lines of a picture by their labels."""
    return {line.get_label(): (line.get_xdata(), line.get_ydata()) for line in ax.get_lines()}


# ---- curves ----------------------------------------------------------------------------------------------------------


def test_binary_loss():
    drawn = curves(plot.binary_loss())
    p, one = drawn["target 1: $-\\log p$"]
    q, zero = drawn["target 0: $-\\log(1-p)$"]
    assert 0 < p[0] < 0.01
    assert 0.99 < p[-1] < 1
    np.testing.assert_array_equal(p, q)
    np.testing.assert_allclose(one, -np.log(p), rtol=1e-12)
    np.testing.assert_allclose(zero, -np.log1p(-p), rtol=1e-12)


def test_binary_loss_of_logits():
    x, one = curves(plot.binary_loss(over="logit"))["target 1: $-\\log p$"]
    _, zero = curves(plot.binary_loss(over="logit"))["target 0: $-\\log(1-p)$"]
    np.testing.assert_allclose(one, -scipy.special.log_expit(x), rtol=1e-12)
    np.testing.assert_allclose(zero, -scipy.special.log_expit(-x), rtol=1e-12)


def test_binary_gradient():
    drawn = curves(plot.binary_gradient())
    p, one = drawn["target 1: $-1/p$"]
    _, zero = drawn["target 0: $1/(1-p)$"]
    np.testing.assert_allclose(one, -1 / p, rtol=1e-12)
    np.testing.assert_allclose(zero, 1 / (1 - p), rtol=1e-12)
    drawn = curves(plot.binary_gradient(over="logit"))
    x, one = drawn["target 1: $p-1$"]
    _, zero = drawn["target 0: $p$"]
    np.testing.assert_allclose(one, -scipy.special.expit(-x), rtol=1e-12)
    np.testing.assert_allclose(zero, scipy.special.expit(x), rtol=1e-12)


def test_saturation():
    (x, steep), (_, flat) = curves(plot.saturation()).values()
    p = scipy.special.expit(x)
    np.testing.assert_allclose(steep, scipy.special.expit(-x), rtol=1e-12)
    np.testing.assert_allclose(flat, 2 * (1 - p) ** 2 * p, rtol=1e-9, atol=1e-15)
    assert steep[0] > 0.999
    assert flat[0] < 0.001


def test_descent():
    drawn = curves(plot.descent(start=-4.0, rate=0.25, steps=30))
    for label, gradient in (
        ("cross-entropy", lambda p: p - 1),
        ("squared error", lambda p: 2 * (p - 1) * p * (1 - p)),
    ):
        x = [-4.0]
        for _ in range(30):
            x.append(x[-1] - 0.25 * gradient(scipy.special.expit(x[-1])))
        steps, p = drawn[label]
        np.testing.assert_array_equal(steps, np.arange(31))
        np.testing.assert_allclose(p, scipy.special.expit(x), rtol=1e-12)
    _, learnt = curves(plot.descent())["cross-entropy"]
    _, stuck = curves(plot.descent())["squared error"]
    assert learnt[-1] > 0.95
    assert stuck[-1] < 0.01


def test_temperature():
    logits, temperatures = np.float32([0.5, -1, 2]), (0.5, 3)
    ax = plot.temperature(logits, temperatures)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["$T=0.5$", "$T=3$"]
    spans = []
    for bars, t in zip(ax.containers, temperatures, strict=True):
        np.testing.assert_allclose([bar.get_height() for bar in bars], scipy.special.softmax(logits / t), rtol=1e-6)
        spans += [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars]
    ends = np.array(sorted(spans)).ravel()
    assert np.all(np.diff(ends) > -1e-12)  # no bar hides another
    assert [text.get_text() for text in ax.get_xticklabels()] == [
        f"class {c}\n$x={x}$" for c, x in enumerate(("0.5", "-1", "2"))
    ]
    assert len(plot.temperature([1, 2], 2.0).containers) == 1


# ---- evaluations -----------------------------------------------------------------------------------------------------


def test_reliability(evaluation, binary):
    for of, names in (
        (evaluation, ("accuracy", "confidence")),
        (binary, ("share of positives", "probability")),
    ):
        ax = plot.reliability(of)
        bins = [each for each in of.calibration if each.count]
        assert 1 < len(bins) <= of.bins
        (bars,), (lines,) = ax.containers, ax.collections
        boxes = [(bar.get_x(), bar.get_x() + bar.get_width(), bar.get_height()) for bar in bars]
        np.testing.assert_allclose(boxes, [(each.lower, each.upper, each.accuracy) for each in bins], rtol=1e-12)
        ends = [((each.lower, each.confidence), (each.upper, each.confidence)) for each in bins]
        np.testing.assert_allclose(lines.get_segments(), ends, rtol=1e-12)
        assert [text.get_text() for text in ax.texts] == [f"{each.count:,}" for each in bins]
        assert (ax.get_ylabel(), ax.get_xlabel()) == names
        assert ax.get_title() == f"Reliability: calibration error {of.ece:.3f}"


def test_reliability_without_rows():
    ax = plot.reliability(fl.evaluate(np.zeros((0, 3), np.float32), [], device="numpy"))
    assert (len(ax.patches), ax.get_title()) == (0, "Reliability: calibration error nan")
    ax.figure.canvas.draw()


def test_loss_histogram(rng):
    x, y = case(rng, (1003, 10))
    scores = fl.score(x, y, device="numpy")
    ax = plot.loss_histogram(scores, bins=20)
    losses = scores.nll[y >= 0]
    counts, edges = np.histogram(losses.astype(np.float64), 20)
    (bars,), (mean,) = ax.containers, ax.get_lines()
    assert [bar.get_height() for bar in bars] == counts.tolist()
    np.testing.assert_allclose([bar.get_x() for bar in bars], edges[:-1], atol=1e-12)
    assert ax.get_yscale() == "log"
    assert mean.get_xdata()[0] == pytest.approx(fl.evaluate(x, y, device="numpy").nll, rel=1e-6)
    assert ax.get_title() == f"Losses of {losses.size} rows"


def test_loss_histogram_of_what_is_not_finite():
    x = np.float32([[0, -np.inf], [0, -np.inf], [1, 0], [np.nan, 0], [0, 0]])
    ax = plot.loss_histogram(fl.score(x, [0, 1, 0, 0, -100], device="numpy"), bins=3)
    assert ax.get_title() == "Losses of 4 rows, 2 not finite"
    assert sum(bar.get_height() for bar in ax.containers[0]) == 2
    ax = plot.loss_histogram(fl.score(x[:2], [1, 1], device="numpy"))
    assert ax.get_title() == "Losses of 2 rows, 2 not finite"


def test_loss_histogram_of_elements_and_of_tensors(rng):
    torch = pytest.importorskip("torch")
    x = rng.standard_normal((40, 3), np.float32)
    for logits, target in ((x, x > 0), (torch.from_numpy(x), torch.from_numpy(x > 0))):
        ax = plot.loss_histogram(fl.score_binary(logits, target, device="numpy"))
        assert ax.get_title() == "Losses of 120 elements"
        assert sum(bar.get_height() for bar in ax.containers[0]) == 120


# ---- all -------------------------------------------------------------------------------------------------------------


def test_draws_where_it_is_told():
    figure, axes = plt.subplots(1, 2)
    for function in (plot.binary_loss, plot.binary_gradient, plot.saturation, plot.descent):
        assert function(axes[1]) is axes[1]
    assert plot.temperature(ax=axes[1]) is axes[1]
    assert not axes[0].has_data()
    assert plt.get_fignums() == [figure.number]


def test_every_picture_has_its_own_figure_with_labels_that_fit(pictures):
    assert len(plt.get_fignums()) == len(pictures)
    for name, ax in pictures.items():
        figure = ax.figure
        figure.canvas.draw()
        inside, whole = figure.get_tightbbox(), figure.bbox_inches
        assert whole.x0 <= inside.x0 < inside.x1 <= whole.x1, name
        assert whole.y0 <= inside.y0 < inside.y1 <= whole.y1, name
        assert ax.get_title(), name
        assert ax.get_ylabel(), name
        if name != "temperature":
            assert ax.get_xlabel(), name
        assert ax.get_legend(), name


def test_lines_differ_in_colour_and_in_dashes(pictures):
    for ax in pictures.values():
        lines = ax.get_lines()
        assert len({to_hex(line.get_color()) for line in lines}) == len(lines)
        assert len({line.get_linestyle() for line in lines}) == len(lines)


def luminance(colour: str) -> float:
    """Relative, as WCAG 2.2 defines it."""
    parts = np.array(mpl.colors.to_rgb(colour))
    return float(np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_lines_and_text_stand_out(style, evaluation):
    """By WCAG 2.2: 3 to 1 for graphics, 4.5 to 1 for text."""
    with plt.style.context(style):
        for ax in (plot.binary_loss(), plot.saturation(), plot.reliability(evaluation)):
            ground = luminance(ax.get_facecolor())
            bars, shown = [bar.get_facecolor() for bar in ax.patches], [line.get_color() for line in ax.get_lines()]
            texts = [text.get_color() for text in (ax.title, ax.xaxis.label, *ax.get_legend().get_texts(), *ax.texts)]
            for colours, least in ((bars + shown, 3), (texts, 4.5)):
                for colour in colours:
                    low, high = sorted((luminance(colour), ground))
                    assert (high + 0.05) / (low + 0.05) >= least, colour


def test_what_cannot_be_drawn(rng, evaluation):
    x = rng.standard_normal((5, 3))
    for call, said in (
        (lambda: plot.binary_loss(over="logits"), "over is 'logits', expected one of 'probability', 'logit'"),
        (lambda: plot.binary_gradient(over=1), "over is 1, expected one of"),
        (lambda: plot.saturation(plt.subplots(2)[1]), "ax is of type ndarray, expected matplotlib's Axes"),
        (lambda: plot.descent(steps=0), "steps is 0"),
        (lambda: plot.temperature(temperatures=()), r"temperatures is \(\), expected numbers above 0"),
        (lambda: plot.temperature(temperatures=(1, 0)), r"temperatures is \(1, 0\), expected numbers above 0"),
        (lambda: plot.temperature(temperatures=np.nan), "temperatures is nan, expected numbers above 0"),
        (lambda: plot.reliability(fl.score(x, [0] * 5)), "evaluation is of type Scores, expected Evaluation or Bin"),
        (lambda: plot.loss_histogram(evaluation), "scores is of type Evaluation, expected Scores or BinaryScores"),
        (lambda: plot.loss_histogram(fl.score(x)), "scores have no nll, expected what is scored with a target"),
        (lambda: plot.loss_histogram(fl.score(x, [0] * 5), bins=0), "bins is 0"),
    ):
        with pytest.raises(fl.OptionError, match=said):
            call()
    with pytest.raises(fl.ShapeError, match=re.escape("logits has shape (5, 3), expected (C,)")):
        plot.temperature(x)


def test_a_missing_matplotlib_names_the_extra():
    code = "import sys; sys.modules['matplotlib'] = None; from fusedloss import plot"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ModuleNotFoundError: matplotlib is not installed" in done.stderr
    assert "which fusedloss.plot needs: pip install 'fusedloss[plot]'" in done.stderr
