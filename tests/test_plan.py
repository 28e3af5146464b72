"""Normal forms, blocks, slabs and staging: the same numbers for every memory layout of the same arrays."""

import math

import ml_dtypes
import numpy as np
import pytest
from fusedloss.kernels import SEGMENT
from hypothesis import given
from hypothesis import strategies as st

import fusedloss as fl
from fusedloss.layout import across, kind_of, layout, slabs

BACKENDS = ["numpy", "cpu"]  # of arrays in host memory

SHAPE, AXIS = (6, 5, 4, 3), 1


def strided(values, step=(2, 1, 2, 2)):
    """The same values where leading and trailing axes do not merge."""
    whole = np.zeros([n * s for n, s in zip(values.shape, step, strict=True)], values.dtype)
    view = whole[tuple(slice(None, None, s) for s in step)]
    view[...] = values
    return view


def read_only(values):
    values = values.copy()
    values.flags.writeable = False
    return values


def foreign(values):
    return values.astype(values.dtype.newbyteorder())


def unaligned(values):
    raw = np.zeros(values.nbytes + 1, np.uint8)[1:]
    view = raw.view(values.dtype).reshape(values.shape)
    view[...] = values
    return view


def reversed_(values):
    return values[::-1, ::-1].copy()[::-1, ::-1]


LAYOUTS = [strided, foreign, unaligned, reversed_, read_only, np.asfortranarray, lambda v: strided(foreign(v))]
DTYPES = [ml_dtypes.bfloat16, np.float32]  # staging does not look at dtypes; the losses are tested in all of them


def tolerance(dtype):
    return 8e-3 if np.dtype(dtype).itemsize == 2 else 2e-6


def close(actual, expected, dtype=np.float32):
    tol = tolerance(dtype)
    np.testing.assert_allclose(np.asarray(actual, float), np.asarray(expected, float), rtol=tol, atol=tol)


@given(st.data())
def test_a_normal_form_is_a_view(data):
    """Whatever the strides, NumPy reshapes to the decided form without a copy; and no form means that it could not."""
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    array = np.zeros([2 * n for n in lengths], np.float32)
    cuts = [data.draw(st.sampled_from([slice(0, n), slice(0, 2 * n, 2), slice(n, 0, -1)])) for n in lengths]
    array = array[tuple(cuts)].transpose(data.draw(st.permutations(range(len(lengths)))))
    axis = data.draw(st.integers(0, array.ndim - 1))
    for form in ("rows", "elements", "labels"):
        normal = layout(form, axis, array.shape, 4, (kind_of(array),)).normal
        if normal is not None:
            assert np.shares_memory(array.reshape(normal), array)
        elif form == "rows":
            before, after = array.shape[:axis], array.shape[axis + 1 :]
            target = (math.prod(before), array.shape[axis], math.prod(after))
            assert not np.shares_memory(array.reshape(target), array)


def test_broadcast_axes_merge():
    array = np.broadcast_to(np.float32(1), (3, 4, 5))
    assert layout("elements", 0, array.shape, 4, (kind_of(array),)).normal == (1, 60)
    both = kind_of(array), kind_of(np.zeros((3, 4, 5), np.float32))
    assert layout("elements", 0, array.shape, 4, both).normal == (1, 60)
    row = np.broadcast_to(np.zeros(5, np.float32), (3, 4, 5))
    assert layout("elements", 0, row.shape, 4, (kind_of(row), both[1])).normal == (12, 5)


@pytest.mark.parametrize("itemsize", [2, 4, 8])
@pytest.mark.parametrize("shape", [(100_000, 10), (32_768, 1000), (3, 262_144), (64, 1000, 7), (5, 20, 50_000)])
def test_blocks_are_of_moderate_size(shape, itemsize):
    kind = kind_of(np.zeros(shape, f"V{itemsize}"))
    _, units, block, threads = layout("rows", 1, shape, itemsize, (kind,))
    assert block >= 1
    assert block == units if threads == 1 else block * shape[1] * itemsize <= max(1 << 20, shape[1] * itemsize)
    assert units == math.prod(shape) // shape[1]


@given(st.lists(st.integers(0, 5), max_size=4), st.integers(1, 40))
def test_slabs_cover_every_position_once_and_in_order(shape, limit):
    shape = tuple(shape)
    numbers = np.arange(math.prod(shape)).reshape(shape)
    cuts = slabs(shape, limit)
    met = []
    for number in range(cuts.count):
        index, lo, hi = cuts.slab(number)
        assert np.array_equal(numbers[index].ravel(), np.arange(lo, hi))
        assert 0 < hi - lo <= limit
        met.extend(range(lo, hi))
    assert met == list(range(math.prod(shape)))


def test_across_spans_the_class_axis():
    assert across((slice(0, 1), slice(2, 3)), "rows", 1) == (slice(0, 1), slice(None), slice(2, 3))
    assert across((slice(0, 1),), "elements", 0) == (slice(0, 1),)


@pytest.mark.parametrize("arrange", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("small_blocks")
class TestEveryLayout:
    def test_rows(self, arrange, dtype, backend, rng):
        x = rng.normal(size=SHAPE).astype(dtype)
        target = rng.integers(0, SHAPE[AXIS], (6, 4, 3))
        target[2, 1, 1] = -100
        weights = rng.random((6, 4, 3))
        call = {"axis": AXIS, "sample_weight": weights, "device": backend}
        for y in (target, rng.random(SHAPE)):
            loss, gradient = fl.value_and_grad(fl.cross_entropy)(x, y, **call)
            given_ = arrange(x)
            same, again = fl.value_and_grad(fl.cross_entropy)(given_, y, **call)
            close(same, loss)
            close(again, gradient, dtype)
            assert again.dtype == given_.dtype
            assert np.array_equal(given_.astype(float), x.astype(float))
            close(
                fl.cross_entropy(given_, y, reduction="none", **call), fl.cross_entropy(x, y, reduction="none", **call)
            )

    def test_in_place(self, arrange, dtype, backend, rng):
        arrange = np.copy if arrange is read_only else arrange
        x = rng.normal(size=SHAPE).astype(dtype)
        target = rng.integers(0, SHAPE[AXIS], (6, 4, 3))
        _, gradient = fl.value_and_grad(fl.cross_entropy)(x, target, axis=AXIS, device=backend)
        given_ = arrange(x)
        _, out = fl.value_and_grad(fl.cross_entropy, out=given_)(given_, target, axis=AXIS, device=backend)
        assert out is given_
        close(given_, gradient, dtype)

    def test_elements(self, arrange, dtype, backend, rng):
        x = rng.normal(size=SHAPE).astype(dtype)
        y = rng.random(SHAPE).astype(np.float32)
        for target in (y, arrange(y), y > 0.5):
            for reduction in ("mean", "none"):
                call = {
                    "pos_weight": [1, 2, 3],
                    "sample_weight": np.arange(6),
                    "reduction": reduction,
                    "device": backend,
                }
                loss, gradient = fl.value_and_grad(fl.binary_cross_entropy)(x, target, **call)
                same, again = fl.value_and_grad(fl.binary_cross_entropy)(arrange(x), target, **call)
                close(same, loss)
                close(again, gradient, dtype)

    def test_activations(self, arrange, dtype, backend, rng):
        x = rng.normal(size=SHAPE).astype(dtype)
        for function in (fl.softmax, fl.log_softmax, fl.logsumexp):
            close(function(arrange(x), AXIS, device=backend), function(x, AXIS, device=backend), dtype)
        close(fl.sigmoid(arrange(x), device=backend), fl.sigmoid(x, device=backend), dtype)

    def test_evaluations(self, arrange, dtype, backend, rng):
        x = rng.normal(size=SHAPE).astype(dtype)
        target, labels = rng.integers(0, SHAPE[AXIS], (6, 4, 3)), rng.random(SHAPE) > 0.5
        close(
            fl.evaluate(arrange(x), target, axis=AXIS, device=backend).sums,
            fl.evaluate(x, target, axis=AXIS, device=backend).sums,
        )
        close(
            fl.evaluate_binary(arrange(x), labels, device=backend).sums,
            fl.evaluate_binary(x, labels, device=backend).sums,
        )


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("arrange", [np.copy, strided, foreign])
class TestOffences:
    """A kernel's number becomes the index of the element, staged or not."""

    def test_targets(self, arrange, backend):
        target = np.zeros((6, 4, 3), np.int16)
        target[3, 2, 1], target[5, 0, 0] = 5, -1
        for call in (fl.cross_entropy, fl.score, fl.evaluate):
            with pytest.raises(
                fl.TargetError, match=r"^target\[3, 2, 1\] is 5, expected a class in \[0, 5\) or ignore_i"
            ):
                call(arrange(np.zeros(SHAPE, np.float32)), target, axis=AXIS, device=backend)

    def test_probabilities(self, arrange, backend):
        probs = np.full(SHAPE, 0.2, np.float32)
        probs[4, 2, 3, 1] = 1.5
        with pytest.raises(
            fl.ProbabilityError, match=r"^probs\[4, 2, 3, 1\] is 1.5, expected a probability in \[0, 1\]"
        ):
            fl.log_loss(arrange(probs), np.zeros((6, 4, 3), int), axis=AXIS, device=backend)
        with pytest.raises(fl.ProbabilityError, match=r"^probs\[4, 2, 3, 1\] is 1.5"):
            fl.binary_log_loss(arrange(probs), probs, device=backend)


class TestOut:
    @pytest.mark.parametrize(
        ("out", "error", "message"),
        [
            ([0.0] * 4, fl.DTypeError, "out is a list"),
            (np.zeros((2, 3)), fl.ShapeError, r"out has shape \(2, 3\), expected \(3, 4\)"),
            (np.zeros((3, 4), np.float32), fl.DTypeError, "out has dtype float32, expected float64"),
            (read_only(np.zeros((3, 4))), fl.OptionError, "read-only"),
            (np.lib.stride_tricks.as_strided(np.zeros(4), (3, 4), (0, 8)), fl.OptionError, "broadcast"),
        ],
    )
    def test_what_does_not_fit(self, out, error, message):
        with pytest.raises(error, match=message):
            fl.value_and_grad(fl.cross_entropy, out=out)(np.zeros((3, 4)), [0, 1, 2])

    def test_memory_that_overlaps(self):
        memory = np.zeros(16)
        logits, target = memory[:12].reshape(3, 4), np.full((3, 4), 0.25)
        with pytest.raises(fl.OptionError, match="overlaps logits in part"):
            fl.value_and_grad(fl.cross_entropy, out=memory[4:].reshape(3, 4))(logits, target)
        with pytest.raises(fl.OptionError, match="overlaps x in part"):
            fl.softmax(memory[:9].reshape(3, 3), out=memory[:9].reshape(3, 3).T)
        with pytest.raises(fl.OptionError, match="overlaps target"):
            fl.value_and_grad(fl.cross_entropy, out=target)(logits, target)

    def test_memory_that_interleaves_does_not_overlap(self, backend):
        memory = np.ones((3, 8))
        out = memory[:, 4:]
        fl.softmax(memory[:, :4], out=out, device=backend)
        assert np.array_equal(memory, np.repeat([[1, 0.25]], 4, axis=1).repeat(3, axis=0))

    def test_the_other_byte_order_is_written(self, backend):
        x = np.arange(6.0).reshape(2, 3)
        out = np.empty((2, 3), x.dtype.newbyteorder())
        assert fl.softmax(x, out=out, device=backend) is out
        close(out, fl.softmax(x, device=backend))

    def test_logsumexp(self, backend):
        x = np.arange(12, dtype=np.float16).reshape(3, 4)
        out = np.empty(6, np.float32)[::2]
        assert fl.logsumexp(x, out=out, device=backend) is out
        assert np.array_equal(out, fl.logsumexp(x, device=backend))


@pytest.mark.usefixtures("every_thread")
@pytest.mark.parametrize("count", [1, 2, 5])
def test_threads_change_no_bit(count, backend, rng):
    x, y = rng.normal(size=(3000, 300)).astype(np.float32), rng.integers(0, 300, 3000)
    results = []
    for threads in (count, 3):
        fl.set_num_threads(threads)
        loss, gradient = fl.value_and_grad(fl.cross_entropy)(x, y, device=backend)
        elements = fl.mse(x, x[::-1], device=backend)
        results.append((loss, gradient.tobytes(), elements, fl.evaluate(x, y, device=backend)))
    assert results[0] == results[1]


def test_long_rows_of_elements_are_cut_into_segments(backend):
    x = np.ones((3, SEGMENT + 1), np.float32)
    assert fl.mse(x, np.zeros_like(x), reduction="sum", device=backend) == x.size


@pytest.mark.parametrize("shape", [(), (1,), (0,), (0, 3), (3, 0)])
def test_few_elements_or_none(shape, backend):
    x = np.full(shape, 0.5, np.float32)
    loss, gradient = fl.value_and_grad(fl.mse)(x, np.zeros(shape), device=backend)
    assert gradient.shape == shape
    assert loss == 0.25 if x.size else np.isnan(loss)
    assert fl.mse(x, x, reduction="sum", device=backend) == 0


def test_one_row(backend):
    loss, gradient = fl.value_and_grad(fl.cross_entropy)(np.zeros(4), 2, reduction="none", device=backend)
    assert isinstance(loss, np.float64)
    assert gradient.shape == (4,)
    assert fl.score(np.zeros(4), 2, device=backend).rank == 2


def test_threads_are_woken_for_much_to_do():
    """Two bytes take as long as four, a short row longer than its bytes, and what must be copied longest."""

    def threads(form, shape, dtype, array=None):
        array = np.empty(shape, dtype) if array is None else array
        return layout(form, 1, shape, array.itemsize, (kind_of(array),)).threads

    assert threads("rows", (500, 1000), np.float32) == 1
    few, many = threads("rows", (20_000, 1000), np.float32), threads("rows", (40_000, 1000), np.float32)
    assert 2 < few < many
    assert threads("rows", (20_000, 1000), np.float16) == few
    assert threads("rows", (2_000_000, 10), np.float32) > few
    assert threads("elements", (20_000, 1000), np.float32) > few
    assert threads("rows", (500, 1000), np.float32, foreign(np.zeros((500, 1000), np.float32))) > 1
