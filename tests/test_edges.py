"""The edges of the specification, each on every backend: logits far out, infinite, masked; one class and many; one row
and none; and that neither threads nor chunks change a bit."""

import itertools

import mpmath
import numpy as np
import pytest
import scipy.special
from kernel_cases import HOST, assert_close, bits, fewer

import fusedloss as fl
from fusedloss.layout import kind_of, layout

INF, NAN = np.inf, np.nan
LANES, ROWS = 12, 600
"""Few classes, of which kernels take many rows at once, and more, which they take row by row."""


@pytest.fixture(params=["hard", "soft"])
def kind(request):
    return request.param


@pytest.fixture(params=[LANES, ROWS])
def classes(request):
    return request.param


def cross_entropy(x, target, device, **options):
    """Row losses and the gradient of their sum. Without it the losses, by a kernel of their own, are as good."""
    losses, gradient = fl.value_and_grad(fl.cross_entropy)(x, target, reduction="none", device=device, **options)
    alone = fl.cross_entropy(x, target, reduction="none", device=device, **options)
    assert_close(alone, losses.astype(np.float64), 2, scale=1e-8)
    return losses, gradient


def one_hot(index, classes, dtype=np.float32):
    return (np.asarray(index)[..., None] == np.arange(classes)).astype(dtype)


def target_of(kind, index, classes, dtype=np.float32):
    return index if kind == "hard" else one_hot(index, classes, dtype)


def exact(x, index):
    """Losses and gradient of the logits as they are, to 50 digits."""
    with mpmath.workdps(50):
        rows = [[mpmath.mpf(float(v)) for v in row] for row in x]
        peaks = [max(row) for row in rows]
        terms = [[mpmath.exp(v - peak) for v in row] for row, peak in zip(rows, peaks, strict=True)]
        sums = [mpmath.fsum(row) for row in terms]
        losses = [float(mpmath.log(d) + m - row[t]) for d, m, row, t in zip(sums, peaks, rows, index, strict=True)]
        p = np.array([[float(v / d) for v in row] for row, d in zip(terms, sums, strict=True)])
    return np.array(losses), p - one_hot(index, x.shape[1], np.float64)


class TestLargeOffsets:
    @pytest.mark.parametrize("offset", [1e4, -1e4, 1e6, -1e6])
    def test_cost_no_accuracy(self, backend, rng, kind, classes, offset):
        """A loss has the relative error of float32 itself: keeping lse alone would err by 5e-4, or by 0.06."""
        x = (rng.standard_normal((20, classes)) + offset).astype(np.float32)
        index = rng.integers(0, classes, 20)
        losses, gradient = cross_entropy(x, target_of(kind, index, classes), backend)
        want, slopes = exact(x, index)
        assert_close(losses, want, 2)
        assert_close(gradient, slopes, 2, scale=1)

    def test_change_no_bit_where_the_shift_is_exact(self, backend, rng, classes):
        """Logits of a few binary digits, so that adding 1e4 rounds nothing."""
        x, index = rng.integers(-64, 64, (20, classes)) / np.float32(8), rng.integers(0, classes, 20)
        plain, shifted = (cross_entropy(x + np.float32(c), index, backend) for c in (0, 1e4))
        assert_close(shifted[0], plain[0], 2)
        assert_close(shifted[1], plain[1], 2, scale=1)

    def test_of_a_tiny_loss(self, backend):
        """log(1 + e^-20), beside an offset of 1e6."""
        losses, _ = cross_entropy(np.array([[1e6, 1e6 - 20]], np.float32), np.array([0]), backend)
        assert_close(losses, [np.log1p(np.exp(-20))], 2, scale=1)

    @pytest.mark.parametrize("offset", [-1e4, -1e9, float(np.finfo(np.float32).min)])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize(("classes", "low"), [(32, 16), (5000, 4500)])
    def test_of_a_leading_block(self, backend, rng, kind, classes, low, dtype, offset):
        """Masked by a large number, as is the custom: what comes after loses nothing by it, in float64 either."""
        x, index = rng.standard_normal((5, classes)).astype(dtype), rng.integers(low, classes, 5)
        x[:, :low] = offset
        losses, gradient = cross_entropy(x, target_of(kind, index, classes, dtype), backend)
        want, slopes = exact(x[:, low:], index - low)
        assert_close(losses, want, 2)
        assert_close(gradient[:, low:], slopes, 2, scale=1)
        assert (gradient[:, :low] == 0).all()

    @pytest.mark.parametrize(("classes", "offsets"), [(600, (-200, -60, -39, 39, 41, 89, 355, 1e4)), (5000, (-60, 41))])
    def test_of_a_stretch_wherever_it_lies(self, backend, rng, kind, classes, offsets):
        """What a row's maximum may be guessed from says nothing of the rest, nor one block of another."""
        third, half, last = classes // 3, classes // 2, classes - 1
        stretches = [slice(20), slice(half + 16), slice(third, half), slice(half, None), slice(last), slice(last, None)]
        x = rng.standard_normal((len(offsets) * len(stretches), classes)).astype(np.float32)
        for row, (offset, stretch) in zip(x, itertools.product(offsets, stretches), strict=True):
            row[stretch] += offset
        index = np.where(np.arange(len(x)) % 2, x.argmax(1), rng.integers(0, classes, len(x)))
        losses, gradient = cross_entropy(x, target_of(kind, index, classes), backend)
        want, slopes = exact(x, index)
        assert_close(losses, want, 2, scale=1e-8)  # the sum is float64's
        assert_close(gradient, slopes, 2, scale=1)


class TestInfiniteLogits:
    def test_a_masked_class_is_as_if_it_were_not_there(self, backend, rng, kind, classes):
        x, index = rng.standard_normal((20, classes)).astype(np.float32), rng.integers(4, classes, 20)
        x[:, [1, 3]] = -INF
        losses, gradient = cross_entropy(x, target_of(kind, index, classes), backend)
        want, slopes = exact(np.delete(x, [1, 3], 1), index - 2)
        assert_close(losses, want, 2)
        assert_close(np.delete(gradient, [1, 3], 1), slopes, 2, scale=1)
        assert (gradient[:, [1, 3]] == 0).all()

    def test_a_bad_row_is_nan_alone(self, backend, rng, kind, classes):
        """All −inf, one +inf, one NaN, both; no bit of a neighbour changes."""
        x, index = rng.standard_normal((40, classes)).astype(np.float32), rng.integers(0, classes, 40)
        target = target_of(kind, index, classes)
        clean = cross_entropy(x, target, backend)
        x[3], x[7, 2], x[8, classes - 1], x[20, 0], x[20, 1] = -INF, INF, NAN, INF, NAN
        losses, gradient = cross_entropy(x, target, backend)
        bad = np.isin(np.arange(40), [3, 7, 8, 20])
        assert np.isnan(losses[bad]).all()
        assert np.isnan(gradient[bad]).all()
        assert bits(losses[~bad]) == bits(clean[0][~bad])
        assert bits(gradient[~bad]) == bits(clean[1][~bad])

    def test_a_masked_target_costs_infinitely_much(self, backend, rng, kind, classes):
        x, index = rng.standard_normal((20, classes)).astype(np.float32), np.full(20, 5)
        x[2, 5] = -INF
        losses, gradient = cross_entropy(x, target_of(kind, index, classes), backend)
        assert losses[2] == INF
        assert np.isfinite(np.delete(losses, 2)).all()
        assert gradient[2, 5] == -1
        assert np.isfinite(gradient).all()

    @pytest.mark.parametrize("inner", [1, 3, 40])
    @pytest.mark.parametrize(("masked", "offset"), [(4500, 0), (4500, -1000), (4999, 0)])
    def test_a_leading_block_of_masked_classes(self, backend, rng, kind, masked, offset, inner):
        """Longer than any block in which a kernel takes the classes, whether they lie side by side or apart."""
        x = np.full((1, 5000, inner), -INF, np.float32)
        x[:, masked:] = rng.standard_normal((1, 5000 - masked, inner)) + offset
        index = rng.integers(masked, 5000, (1, inner))
        target = index if kind == "hard" else np.moveaxis(one_hot(index, 5000), -1, 1)
        losses, gradient = cross_entropy(x, target, backend, axis=1)
        want, slopes = exact(x[0, masked:].T, index[0] - masked)
        assert_close(losses[0], want, 4, scale=1)
        assert_close(gradient[0, masked:].T, slopes, 2, scale=1)
        assert (gradient[:, :masked] == 0).all()

    def test_smoothing_a_masked_class_is_infinite_and_nothing_else_is(self, backend):
        """Every class has a share of a smoothed target. It enters by Σz: a logit of −1e4 is far from −inf."""
        x = np.zeros((3, LANES))
        x[1, 4], x[2, 4] = -1e4, -INF
        losses, _ = cross_entropy(x, np.zeros(3, int), backend, label_smoothing=0.1, class_weight=np.ones(LANES))
        assert_close(losses[0], np.log(LANES), 2)
        assert_close(losses[1], np.log(LANES - 1) + 0.1 / LANES * 1e4, 2)
        assert losses[2] == INF

    def test_softcap_keeps_masked_classes_masked(self, backend, rng, classes):
        x, index = 20 * rng.standard_normal((20, classes)).astype(np.float32), rng.integers(4, classes, 20)
        x[:, [1, 3]] = -INF
        losses, gradient = cross_entropy(x, index, backend, softcap=10.0)
        assert (gradient[:, [1, 3]] == 0).all()
        wide = np.delete(x, [1, 3], 1).astype(np.float64)
        want, slopes = exact(10 * np.tanh(wide / 10), index - 2)
        # z = 10·tanh(x/10) has an error of an ulp or two of 10, a loss or gradient that of z
        assert_close(losses, want, 2, scale=10)
        assert_close(np.delete(gradient, [1, 3], 1), slopes / np.cosh(wide / 10) ** 2, 2, scale=5)

    def test_softcap_keeps_faults_visible(self, backend, classes):
        x = np.zeros((3, classes), np.float32)
        x[0, 1], x[1, 1] = INF, NAN
        losses, _ = cross_entropy(x, np.zeros(3, int), backend, softcap=10.0)
        assert np.isnan(losses[:2]).all()
        assert_close(losses[2], np.log(classes), 1)

    def test_masked_rows_are_not_read(self, backend, classes):
        x, index, weight = np.zeros((4, classes)), np.array([0, -100, 1, 2]), [1, 1, 0, 1]
        x[1], x[2] = NAN, INF
        losses, gradient = cross_entropy(x, index, backend, sample_weight=weight)
        assert (losses[1:3] == 0).all()
        assert (gradient[1:3] == 0).all()
        assert_close(losses[[0, 3]], np.full(2, np.log(classes)), 1)

    def test_binary_logits_reach_their_limits(self, backend):
        x = np.array([[INF, -INF, INF, -INF, NAN]])
        y = np.array([[1.0, 0.0, 0.0, 1.0, 1.0]])
        losses, gradient = fl.value_and_grad(fl.binary_cross_entropy)(
            x, y, sample_weight=[1], pos_weight=np.ones(5), reduction="none", device=backend
        )
        np.testing.assert_array_equal(losses, [[0, 0, INF, INF, NAN]])
        np.testing.assert_array_equal(gradient, [[0, 0, 1, -1, NAN]])

    def test_nothing_times_infinity_is_nothing(self, backend):
        """0·log 0 of a divergence, 0·inf of a soft target."""
        x, y = np.array([[0.0, -INF], [0.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 0.0]])
        for loss in (fl.kl_divergence, fl.cross_entropy):
            losses, gradient = fl.value_and_grad(loss)(x, y, reduction="none", device=backend)
            np.testing.assert_array_equal(losses, [0, 0])
            np.testing.assert_array_equal(gradient, np.zeros((2, 2)))


class TestSizes:
    def test_a_vocabulary(self, backend, rng, kind):
        x, index = 3 * rng.standard_normal((1, 262_144)).astype(np.float32), np.array([262_143])
        target = index if kind == "hard" else (np.arange(262_144)[None] == index).astype(np.float32)
        losses, gradient = cross_entropy(x, target, backend)
        wide = x.astype(np.float64)
        assert_close(losses, scipy.special.logsumexp(wide, axis=1) - wide[0, -1], 2)
        slopes = scipy.special.softmax(wide, axis=1)
        slopes[0, -1] -= 1
        assert_close(gradient, slopes, 4, scale=1e-3)

    def test_rows_far_apart(self, backend, tmp_path):
        """More than 2**31 elements, and 2**32 bytes, between two rows: of a file that is one hole."""
        far = (1 << 31) + 40
        holes = np.memmap(tmp_path / "holes", np.float32, "w+", shape=(2, far))
        holes[1, :ROWS] = np.arange(ROWS) % 3
        x = holes[:, :ROWS]
        losses, _ = cross_entropy(x, np.array([0, 1]), backend)
        want, slopes = exact(x, [0, 1])
        assert_close(losses, want, 2)
        _, out = fl.value_and_grad(fl.cross_entropy, out=x)(x, np.array([0, 1]), reduction="sum", device=backend)
        assert_close(np.asarray(out), slopes, 2, scale=1)

    def test_one_class_whatever_its_logit(self, backend, kind):
        """Its probability is 1, though exp(logit) overflows or vanishes; but NaN for NaN."""
        x = np.array([[0], [1e30], [-1e30], [NAN]], np.float32)
        losses, gradient = cross_entropy(x, target_of(kind, np.zeros(4, int), 1), backend)
        np.testing.assert_array_equal(losses, [0, 0, 0, NAN])
        np.testing.assert_array_equal(gradient[:, 0], [0, 0, 0, NAN])

    def test_no_rows(self, backend, kind, classes):
        x, target = np.zeros((0, classes), np.float32), target_of(kind, np.zeros(0, int), classes)
        losses, gradient = cross_entropy(x, target, backend)
        assert (losses.shape, gradient.shape) == ((0,), (0, classes))
        assert np.isnan(fl.cross_entropy(x, target, device=backend))
        assert fl.cross_entropy(x, target, reduction="sum", device=backend) == 0

    @pytest.mark.parametrize("loss", [fl.cross_entropy, fl.log_loss, fl.kl_divergence])
    def test_no_classes(self, backend, loss):
        with pytest.raises(fl.ShapeError, match=r"shape \(3, 0\), expected at least one class along axis 1"):
            loss(np.zeros((3, 0)), np.zeros((3, 0)), device=backend)


MANY = 301
EVERYTHING = {"class_weight": np.linspace(0, 3, MANY), "label_smoothing": 0.1, "z_loss": 0.1, "softcap": 5.0}


class TestSameBits:
    """Blocks depend on the shape alone, and no row on its neighbours."""

    @pytest.mark.parametrize(
        ("dtype", "classes", "options"),
        [
            (np.float64, 12, {}),
            (np.float64, MANY, {}),
            (np.float32, 12, {}),
            (np.float32, MANY, {"z_loss": 0.01, "sample_weight": np.linspace(0, 2, 300)}),
            (np.float64, 12, {"class_weight": np.linspace(0, 3, 12)}),
            (np.float32, MANY, EVERYTHING),
        ],
        ids=lambda value: " and ".join(value) or "plain" if isinstance(value, dict) else None,
    )
    def test_one_hot_is_hard_to_the_last_bit(self, backend, rng, dtype, classes, options):
        """In kernels for few classes and for many, with classes that are masked."""
        rows = fewer(backend, 300, 40)
        x, y = (4 * rng.standard_normal((rows, classes))).astype(dtype), rng.integers(0, classes, rows)
        options = {k: v[:rows] if k == "sample_weight" else v for k, v in options.items()}
        if "softcap" not in options:  # a masked class that has a share of the target makes the loss infinite
            x[::7, 3], y[::7] = -np.inf, 4
        losses, _ = cross_entropy(x, y, backend, **options)
        same, _ = cross_entropy(x, target_of("soft", y, classes, dtype), backend, **options)
        assert np.isfinite(losses).all()
        assert bits(losses) == bits(same)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_one_hot_is_hard_for_probabilities(self, backend, rng, dtype):
        p, y = rng.random((40, MANY)).astype(dtype), rng.integers(0, MANY, 40)
        options = {"class_weight": np.linspace(0, 3, MANY), "label_smoothing": 0.2, "reduction": "none"}
        hard, soft = (fl.log_loss(p, each, device=backend, **options) for each in (y, one_hot(y, MANY, dtype)))
        assert bits(hard) == bits(soft)

    @HOST
    @pytest.mark.usefixtures("every_thread")
    @pytest.mark.parametrize("shape", [(3000, 200), (60_000, LANES), (1, 300_000)], ids=str)
    def test_for_any_number_of_threads(self, backend, rng, kind, shape):
        x = rng.standard_normal(shape).astype(np.float32)
        _, units, block, _ = layout("rows", 1, shape, 4, (kind_of(x),))
        assert shape[0] == 1 or units > 2 * block
        index = rng.integers(0, shape[1], shape[0])
        target = index if kind == "hard" else rng.random(shape, np.float32)
        results = set()
        for count in (1, 2, 5, 2):
            fl.set_num_threads(count)
            mean, gradient = fl.value_and_grad(fl.cross_entropy)(x, target, device=backend)
            results.add((bits(mean), bits(gradient)))
        assert len(results) == 1

    @HOST
    @pytest.mark.usefixtures("every_thread")
    def test_of_elements_for_any_number_of_threads(self, backend, rng):
        x, y, s = rng.standard_normal((3000, 200)), rng.random((3000, 200)), rng.random(3000)
        results = set()
        for count in (1, 2, 5, 2):
            fl.set_num_threads(count)
            mean, gradient = fl.value_and_grad(fl.mse)(x, y, sample_weight=s, device=backend)
            results.add((bits(mean), bits(gradient)))
        assert len(results) == 1

    @pytest.mark.parametrize("classes", [1, LANES, 33, 200])
    def test_of_rows_for_any_chunks(self, backend, rng, kind, classes):
        rows = fewer(backend, 301, 25)
        x, index = (3 * rng.standard_normal((rows, classes))).astype(np.float32), rng.integers(0, classes, rows)
        target = index if kind == "hard" else rng.random((rows, classes), np.float32)
        losses, gradient = cross_entropy(x, target, backend)
        for edges in ([0, 1, 2, 19, rows - 1, rows], range(0, rows + 1, 7), range(rows + 1)):
            parts = [
                cross_entropy(x[lo:hi], target[lo:hi], backend)
                for lo, hi in zip(edges, [*edges[1:], rows], strict=True)
                if lo < hi
            ]
            assert bits(np.concatenate([loss for loss, _ in parts])) == bits(losses)
            assert bits(np.concatenate([slope for _, slope in parts])) == bits(gradient)

    def test_sums_merge_to_float64_rounding(self, backend, rng, kind):
        """Each of 100 chunks' sums has half an ulp of rounding, and so has the whole."""
        rows = fewer(backend, 3000, 300)
        x, index = rng.standard_normal((rows, LANES)), rng.integers(0, LANES, rows)
        target = target_of(kind, index, LANES, np.float64)
        call = fl.value_and_grad(fl.cross_entropy)
        whole, _ = call(x, target, reduction="sum", device=backend)
        parts = [
            call(x[lo : lo + 30], target[lo : lo + 30], reduction="sum", device=backend)[0] for lo in range(0, rows, 30)
        ]
        np.testing.assert_allclose(np.sum(parts), whole, rtol=2e-15)
