"""Arrays of a card: seen where they are, as NumPy would see them; refused in words; given back in the caller's kind."""

import math
import re
import sys

import ml_dtypes
import numpy as np
import pytest
from cards import KINDS, ByCapsule, ByInterface, Namespaced, host
from hypothesis import given
from hypothesis import strategies as st

import fusedloss as fl
from fusedloss.arrays import adopt, is_array, on_card
from fusedloss.cuda import adopting
from fusedloss.cuda.arrays import Bfloat16, CardArray, packed

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.int64, np.uint8, np.bool_]


def seen(array):
    """What NumPy knows of an array, as a card's."""
    return CardArray(array.ctypes.data, array.shape, array.strides, array.dtype, 0, owner=array)


def place(array):
    return array.__array_interface__["data"][0]


@st.composite
def views(draw):
    lengths = draw(st.lists(st.integers(1, 4), max_size=4))
    array = np.zeros([2 * n for n in lengths], np.float32)
    cuts = [draw(st.sampled_from([slice(0, n), slice(0, 2 * n, 2), slice(n, 0, -1)])) for n in lengths]
    return np.asarray(array[tuple(cuts)]).transpose(draw(st.permutations(range(len(lengths)))))


class TestViews:
    @given(views(), st.data())
    def test_reshape_as_numpy(self, array, data):
        divisors = [n for n in range(1, array.size + 1) if array.size % n == 0]
        first = data.draw(st.sampled_from(divisors))
        second = data.draw(st.sampled_from([n for n in divisors if (array.size // first) % n == 0]))
        shape = data.draw(st.permutations([first, second, array.size // first // second, 1]))
        expected = array.reshape(shape)
        if np.shares_memory(expected, array):
            view = seen(array).reshape(tuple(shape))
            wide = [(s, n) for s, n in zip(view.strides, view.shape, strict=True) if n > 1]
            assert wide == [(s, n) for s, n in zip(expected.strides, expected.shape, strict=True) if n > 1]
            assert view.address == place(array)
        else:
            with pytest.raises(ValueError, match="has no view of shape"):
                seen(array).reshape(tuple(shape))

    @given(views())
    def test_what_numpy_says_of_it(self, array):
        view = seen(array)
        assert (view.ndim, view.size, view.itemsize, view.nbytes) == (array.ndim, array.size, 4, array.nbytes)
        assert view.contiguous == array.flags.c_contiguous
        assert packed(array.shape, 4) == np.zeros(array.shape, np.float32).strides

    @given(views(), st.data())
    def test_parts(self, array, data):
        cuts = [slice(a := data.draw(st.integers(0, n)), data.draw(st.integers(a, n))) for n in array.shape]
        part, expected = seen(array)[tuple(cuts)], array[(*cuts, ...)]
        assert part.shape == expected.shape
        assert not part.size or part.address == place(expected)

    def test_lengths_of_minus_one(self):
        array = seen(np.zeros((2, 3, 4)))
        assert array.reshape(-1, 4).shape == (6, 4)
        assert array.ravel().shape == (24,)
        assert seen(np.zeros((0, 3))).reshape(-1).shape == (0,)
        with pytest.raises(ValueError, match="24 elements has no view of shape"):
            array.reshape(5, 5)

    def test_broadcasting(self):
        array = seen(np.zeros((3, 1)))
        view = array.broadcast_to((2, 3, 4))
        assert view.strides == np.broadcast_to(np.zeros((3, 1)), (2, 3, 4)).strides
        assert view.distinct().shape == (1, 3, 1)
        for shape in ((2, 4), (3,)):
            with pytest.raises(ValueError, match="does not broadcast"):
                array.broadcast_to(shape)


@pytest.mark.parametrize("kind", KINDS)
class TestAdoption:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_where_it_is(self, kind, dtype):
        array = np.zeros((4, 6)).astype(dtype)[::2, ::-1].T
        seen = adopt(kind(array), "x")
        assert on_card(seen)
        assert (seen.address, seen.shape, seen.strides) == (place(array), array.shape, array.strides)
        assert (seen.dtype, seen.device) == (array.dtype, 0)

    def test_empty(self, kind):
        seen = adopt(kind(np.zeros((0, 3), np.float32)), "x")
        assert (seen.shape, seen.size) == ((0, 3), 0)

    def test_its_owner_is_kept(self, kind):
        given = kind(np.zeros(3))
        owner = adopt(given, "x").owner
        assert given is owner or given in owner

    def test_it_is_an_array(self, kind):
        assert is_array(kind(np.zeros(3)))


class TestByInterface:
    @pytest.mark.parametrize(("stream", "expected"), [(None, 0), (1, 0), (2, 2), (0x7F00, 0x7F00), (..., 0)])
    def test_its_stream(self, stream, expected):
        assert adopt(ByInterface(np.zeros(3), stream), "x").stream == expected

    def test_read_only(self):
        array = np.zeros(3)
        array.flags.writeable = False
        assert adopt(ByInterface(array), "x").readonly
        assert not adopt(ByInterface(array.copy()), "x").readonly

    def test_without_strides_the_order_is_c(self):
        assert adopt(ByInterface(np.zeros((2, 3)), strides=None), "x").strides == (24, 8)
        assert adopt(ByInterface(np.zeros((2, 3)), strides=...), "x").strides == (24, 8)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            (
                {"shape": ...},
                "x cannot be read as an array: its __cuda_array_interface__ is malformed: KeyError: 'shape'",
            ),
            ({"typestr": "nonsense"}, "its __cuda_array_interface__ is malformed: TypeError"),
            ({"data": 3}, "its __cuda_array_interface__ is malformed: TypeError"),
            ({"strides": (8, 8)}, r"it has shape (3,) and strides (8, 8)"),
            ({"shape": (-3,)}, r"it has shape (-3,)"),
            ({"mask": ByInterface(np.zeros(3))}, "x is a masked array, expected a plain one"),
            ({"typestr": ">f8"}, "x is of foreign byte order, expected the native one on a CUDA device"),
            ({"typestr": "<c8"}, "x has dtype complex64, expected float16"),
            ({"typestr": "<V2"}, "x has dtype |V2, expected float16"),
        ],
    )
    def test_what_cannot_be_read(self, changed, message):
        with pytest.raises(fl.DTypeError, match=re.escape(message)):
            fl.softmax(ByInterface(np.zeros(3), **changed))


class TestByCapsule:
    def test_it_is_to_be_ready_on_the_default_stream(self):
        given = ByCapsule(np.zeros(3))
        assert adopt(given, "x").stream == 0
        assert given.streams == [1]

    def test_its_device(self):
        assert adopt(ByCapsule(np.zeros(3), device=1), "x").device == 1

    def test_bfloat16_without_ml_dtypes(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "ml_dtypes", None)
        adopting.bfloat16.cache_clear()
        seen = adopt(ByCapsule(np.zeros((2, 3), ml_dtypes.bfloat16)), "x")
        adopting.bfloat16.cache_clear()
        assert seen.dtype == Bfloat16()
        assert (str(seen.dtype), seen.itemsize, seen.strides) == ("bfloat16", 2, (6, 2))


class TestResults:
    X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)

    @pytest.mark.parametrize("kind", KINDS)
    def test_of_no_known_library(self, kind):
        result = fl.softmax(kind(self.X))
        assert isinstance(result, CardArray)
        assert result.__dlpack_device__() == (2, 0)
        described = result.__cuda_array_interface__
        assert (described["shape"], described["typestr"], described["strides"]) == ((3, 4), "<f4", None)
        assert described["data"] == (result.address, False)
        np.testing.assert_allclose(host(result), fl.softmax(self.X, device="numpy"), rtol=1e-6)

    def test_a_result_can_be_given_back_in(self):
        once = fl.log_softmax(ByInterface(self.X))
        np.testing.assert_allclose(host(fl.log_softmax(once)), host(once), atol=1e-6)

    def test_the_array_api_standard(self):
        result = fl.softmax(Namespaced(self.X))
        assert isinstance(result, Namespaced)
        np.testing.assert_allclose(result.array, fl.softmax(self.X, device="numpy"), rtol=1e-6)

    def test_bfloat16(self):
        x = self.X.astype(ml_dtypes.bfloat16)
        result = fl.softmax(Namespaced(x))
        assert result.tensor.dtype == "bfloat16"
        assert np.array_equal(result.array, fl.softmax(x, device="numpy"))

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_reduced_loss_is_an_array_without_axes(self, kind):
        loss = fl.cross_entropy(kind(self.X), kind(np.array([0, 3, 1])))
        assert (loss.shape, loss.dtype) == ((), np.float32)
        assert math.isclose(host(loss), fl.cross_entropy(self.X, [0, 3, 1], device="numpy"), rel_tol=1e-6)


class TestDevices:
    X, Y = np.zeros((3, 4), np.float32), np.array([0, 1, 2])

    def refuses(self, message, call, *args, **options):
        with pytest.raises(fl.DeviceError, match=f"^{re.escape(message)}"):
            call(*args, **options)

    @pytest.mark.parametrize("kind", KINDS)
    def test_host_arrays_beside_those_of_a_card(self, kind):
        x, y = kind(self.X), kind(self.Y)
        message = "target is in host memory, expected on cuda:0, where logits are"
        self.refuses(message, fl.cross_entropy, x, self.Y)
        self.refuses(message.replace("logits are", "pred is"), fl.mse, x, self.X)
        message = "target is on cuda:0, expected in host memory, where logits are"
        self.refuses(message, fl.cross_entropy, self.X, y)
        for name, shape in (("class_weight", 4), ("sample_weight", 3)):
            message = f"{name} is in host memory, expected on cuda:0, where logits are"
            self.refuses(message, fl.cross_entropy, x, y, **{name: np.ones(shape)})
        message = "out is in host memory, expected on cuda:0, where x is"
        self.refuses(message, fl.softmax, x, out=self.X)

    def test_two_cards(self):
        message = "target is on cuda:1, expected on cuda:0, where logits are"
        self.refuses(message, fl.cross_entropy, ByCapsule(self.X), ByCapsule(self.Y, device=1))

    def test_another_device_by_name(self):
        for name in ("cpu", "numpy", "cuda:1"):
            message = f"device is {name!r}, expected 'auto' or 'cuda:0', where the arrays are"
            self.refuses(message, fl.softmax, ByInterface(self.X), device=name)

    @pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0"])
    def test_its_own_by_name(self, name):
        assert isinstance(fl.softmax(ByInterface(self.X), device=name), CardArray)

    @pytest.mark.parametrize("name", ["cuda:", "cuda:x", "cuda:-1", "cuda:1.0", "gpu"])
    def test_unknown(self, name):
        self.refuses(f"device is {name!r}, expected one of 'auto'", fl.softmax, self.X, device=name)
        self.refuses(f"device is {name!r}, expected 'cuda', or one device such as", fl.synchronize, name)

    def test_that_is_not_there(self):
        self.refuses("there is no cuda:7, expected one of cuda:0", fl.softmax, self.X, device="cuda:7")
        self.refuses("there is no cuda:7, expected one of cuda:0", fl.synchronize, "cuda:7")

    def test_host_arrays_stay(self):
        assert isinstance(fl.softmax(self.X), np.ndarray)

    def test_the_environment_is_for_host_arrays(self, monkeypatch, on_numpy):
        assert isinstance(fl.softmax(ByInterface(self.X)), CardArray)

    def test_they_are_listed(self):
        cuda = fl.devices()["cuda"]
        assert cuda.available
        assert cuda.name
