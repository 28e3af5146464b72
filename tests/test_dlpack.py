"""Tensors come in by DLPack as they lie, and are given back exactly once; whatever is malformed is refused."""

import ctypes
import gc
import subprocess
import sys
import threading
import weakref
from importlib.util import find_spec

import ml_dtypes
import numpy as np
import pytest
import torch
from dlpack_capsules import OldProducer, Producer

import fusedloss as fl
from fusedloss import dlpack
from fusedloss.arrays import adopt, give

BACKENDS = ["numpy", "cpu"]  # of arrays in host memory

PRODUCERS = [Producer, OldProducer]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16", BFLOAT16]
FRAMEWORKS = [name for name in ("torch", "jax", "tensorflow") if find_spec(name)]


@pytest.fixture(autouse=True)
def _collect_what_is_new():
    """Whole libraries are imported: to look through them takes the collector a second each time."""
    gc.freeze()
    yield
    gc.unfreeze()


def address(array):
    return array.__array_interface__["data"][0]


def renamed(capsule):
    return ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))(capsule)


def same(given, array):
    assert (given.shape, given.dtype, given.strides) == (array.shape, array.dtype, array.strides)
    assert address(given) == address(array)


class TestViews:
    @pytest.mark.parametrize("producer", PRODUCERS)
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_every_dtype(self, producer, dtype):
        array = np.arange(12).reshape(3, 4).astype(dtype)
        given = adopt(producer(array), "x")
        same(given, array)
        assert np.array_equal(given, array)

    @pytest.mark.parametrize("producer", PRODUCERS)
    @pytest.mark.parametrize(
        "cut",
        [np.s_[:, ::2], np.s_[::-1, ::-1], np.s_[1:, 1:], np.s_[..., 0, 0], np.s_[:0], np.s_[:, :0], np.s_[..., None]],
        ids=str,
    )
    def test_every_order(self, producer, cut):
        array = np.arange(12.0).reshape(3, 4).T[cut]
        same(adopt(producer(array), "x"), array)

    def test_broadcast(self):
        array = np.broadcast_to(np.float32([1, 2]), (3, 2))
        same(adopt(Producer(array), "x"), array)

    @pytest.mark.parametrize("producer", PRODUCERS)
    def test_without_strides_the_order_is_c(self, producer):
        array = np.arange(12.0).reshape(3, 4)
        same(adopt(producer(array, strides=None), "x"), array)

    def test_an_offset_in_bytes(self):
        array = np.arange(12.0)
        same(adopt(Producer(array[3:], data=address(array), byte_offset=24), "x"), array[3:])

    def test_nothing_at_null(self):
        given = adopt(Producer(np.empty((0, 3)), data=None), "x")
        assert (given.shape, given.dtype) == ((0, 3), np.float64)

    @pytest.mark.parametrize("device", [1, 3, 11, 13])
    def test_devices_of_the_host(self, device):
        array = np.arange(3.0)
        same(adopt(Producer(array, device_type=device), "x"), array)

    def test_what_may_be_written_to(self):
        array = np.arange(3.0)
        assert adopt(Producer(array), "x").flags.writeable
        assert not adopt(Producer(array, flags=1), "x").flags.writeable
        assert adopt(Producer(array, flags=6), "x").flags.writeable
        assert not adopt(OldProducer(array), "x").flags.writeable

    def test_a_gradient_into_what_is_read_only(self):
        x = np.zeros((3, 4), np.float32)
        with pytest.raises(fl.OptionError, match="out is read-only"):
            fl.value_and_grad(fl.cross_entropy, out=OldProducer(x.copy()))(x, [0, 1, 2])

    def test_the_version_that_is_asked_for(self):
        producer = Producer(np.arange(3.0))
        adopt(producer, "x")
        assert producer.asked == (1, 1)


class TestDescription:
    """What a tensor on another device says of itself, for a backend that can read it there."""

    def test_of_a_cuda_tensor(self):
        producer = Producer(np.arange(12.0, dtype=np.float32).reshape(3, 4).T, device_type=2, device_id=1)
        tensor = dlpack.read(producer)
        assert tensor[:-1] == (address(producer.array), (4, 3), (1, 4), "float32", (2, 1), False)
        del tensor
        assert producer.returned == 1

    def test_elsewhere(self):
        producer = Producer(np.zeros((3, 4)), device_type=10)
        with pytest.raises(fl.DeviceError, match="x is on .*DLPack type 10, expected host memory or a CUDA device"):
            fl.softmax(producer)
        assert producer.returned == 1


@pytest.mark.parametrize("producer", PRODUCERS)
class TestLifetime:
    def test_given_back_with_the_last_view(self, producer):
        given = producer(np.arange(12.0).reshape(3, 4))
        view = adopt(given, "x")
        assert renamed(given.capsule) == b"used_" + given.name
        part = view[1:].T[0]
        del view
        gc.collect()
        assert given.returned == 0
        assert part.tolist() == [4, 8]
        del part
        assert given.returned == 1
        given.capsule = None
        assert given.returned == 1

    def test_given_back_by_another_thread(self, producer):
        given = producer(np.arange(3.0))
        views = [adopt(given, "x")]
        thread = threading.Thread(target=views.clear)
        thread.start()
        thread.join()
        assert given.returned == 1

    def test_a_capsule_serves_once(self, producer):
        given = producer(np.arange(3.0))
        view = adopt(given, "x")
        with pytest.raises(fl.DTypeError, match=f"named b'used_{given.name.decode()}', expected one of b'dltensor"):
            adopt(given, "x")
        del view
        assert given.returned == 1

    def test_without_a_deleter(self, producer):
        given = producer(np.arange(3.0), deleter=None)
        view = adopt(given, "x")
        assert view.tolist() == [0, 1, 2]
        del view
        assert given.returned == 0

    def test_no_bfloat16(self, producer, monkeypatch):
        given = producer(np.zeros((3, 4), BFLOAT16))
        monkeypatch.setitem(sys.modules, "ml_dtypes", None)
        with pytest.raises(fl.DTypeError, match="x is bfloat16, which needs the package ml_dtypes"):
            fl.softmax(given)
        assert given.returned == 1

    def test_a_loss_keeps_nothing(self, producer):
        x, y = producer(np.zeros((3, 4), np.float32)), producer(np.array([0, 3, 1]))
        assert fl.cross_entropy(x, y) == pytest.approx(np.log(4))
        assert (x.returned, y.returned) == (1, 1)


AXES = ctypes.c_int64 * 2
MALFORMED = [
    ({"name": b"tensor"}, fl.DTypeError, "is named b'tensor', expected one of b'dltensor_versioned', b'dltensor'"),
    ({"major": 2}, fl.DTypeError, "DLPack version 2, expected 1"),
    ({"major": 0}, fl.DTypeError, "DLPack version 0, expected 1"),
    ({"data": None}, fl.DTypeError, r"data is NULL, expected memory for shape \(3, 4\)"),
    ({"ndim": -1}, fl.DTypeError, "has -1 axes, expected 0 to 64"),
    ({"ndim": 65}, fl.DTypeError, "has 65 axes, expected 0 to 64"),
    ({"ndim": 2**31 - 1}, fl.DTypeError, "has 2147483647 axes"),
    ({"shape": None}, fl.DTypeError, "has 2 axes and no shape"),
    ({"shape": AXES(-3, 4)}, fl.ShapeError, "negative dimensions"),
    ({"shape": AXES(2**62, 4)}, fl.ShapeError, "x cannot be read as an array"),
    ({"shape": AXES(2**63 - 1, 2**63 - 1), "strides": AXES(0, 0)}, fl.ShapeError, "x cannot be read as an array"),
    ({"strides": AXES(2**62, 1)}, fl.ShapeError, "x cannot be read as an array"),
    ({"lanes": 4}, fl.DTypeError, "DLPack code 2, 64 bits and 4 lanes, expected one that NumPy has, or bfloat16"),
    ({"lanes": 0}, fl.DTypeError, "0 lanes"),
    ({"bits": 63}, fl.DTypeError, "code 2, 63 bits"),
    ({"bits": 128}, fl.DTypeError, "code 2, 128 bits"),
    ({"code": 3}, fl.DTypeError, "code 3"),
    ({"code": 10, "bits": 8}, fl.DTypeError, "code 10, 8 bits"),
    ({"code": 6, "bits": 1}, fl.DTypeError, "code 6, 1 bits"),
    ({"code": 4, "bits": 32}, fl.DTypeError, "code 4, 32 bits"),
]  # fmt: skip


class TestMalformed:
    @pytest.mark.parametrize(("fields", "error", "match"), MALFORMED)
    def test_capsules(self, fields, error, match):
        given = Producer(np.zeros((3, 4)), **fields)
        with pytest.raises(error, match=match) as raised:
            adopt(given, "x")
        assert str(raised.value).startswith("x ")
        del raised
        given.capsule = None
        gc.collect()
        assert given.returned == 1

    @pytest.mark.parametrize("returned", [None, b"dltensor", 3, object()])
    def test_no_capsule(self, returned):
        class Foreign:
            def __dlpack__(self, **_):
                return returned

        with pytest.raises(fl.DTypeError, match=f"returned a {type(returned).__name__}, expected a capsule"):
            adopt(Foreign(), "x")

    @pytest.mark.parametrize("error", [BufferError, RuntimeError, TypeError, ValueError, NotImplementedError])
    def test_what_refuses_is_asked_for_an_array(self, error):
        class Refuses:
            def __dlpack__(self, **_):
                raise error("not so")

        class Converts(Refuses):
            def __array__(self, dtype=None, copy=None):
                return np.arange(3.0)

        with pytest.raises((fl.DTypeError, fl.ShapeError), match="x cannot be read as an array: not so"):
            adopt(Refuses(), "x")
        assert adopt(Converts(), "x").tolist() == [0, 1, 2]


def made(framework, array):
    """An array as a tensor of a framework, and where that lies."""
    if framework == "torch":
        tensor = (
            torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
            if array.dtype == BFLOAT16
            else (torch.from_numpy(array))
        )
        return tensor, tensor.data_ptr()
    if framework == "jax":
        import jax.numpy as jnp

        tensor = jnp.asarray(array)
        return tensor, tensor.unsafe_buffer_pointer()
    import tensorflow as tf

    tensor = tf.convert_to_tensor(array)
    return tensor, address(np.from_dlpack(tf.bitcast(tensor, tf.uint16) if array.dtype == BFLOAT16 else tensor))


@pytest.mark.parametrize("framework", FRAMEWORKS)
class TestFrameworks:
    @pytest.mark.parametrize("dtype", ["?", "u1", "i4", "f2", "f4", BFLOAT16])
    def test_no_copy(self, framework, dtype):
        array = np.arange(12).reshape(3, 4).astype(dtype)
        tensor, place = made(framework, array)
        read = dlpack.read(tensor)
        assert (read.address, read.shape, read.dtype) == (place, (3, 4), array.dtype.name)
        for given in (adopt(tensor, "x"), dlpack.view(read, array.dtype)):
            assert address(given) == place
            assert given.dtype == dtype
            assert np.array_equal(given, array)

    def test_the_view_outlives_the_tensor(self, framework):
        array = np.arange(1 << 16, dtype=np.float32)
        views = [adopt(made(framework, array + step)[0], "x") for step in range(8)]
        gc.collect()
        for step, view in enumerate(views):
            assert np.array_equal(view, array + step)

    def test_who_may_write(self, framework):
        """JAX's and TensorFlow's tensors do not change."""
        given = adopt(made(framework, np.zeros(3, np.float32))[0], "x")
        assert given.flags.writeable == (framework == "torch")

    @pytest.mark.parametrize("dtype", ["f2", "f4", BFLOAT16])
    def test_there_and_back(self, framework, dtype):
        x, y = np.linspace(-2, 2, 12).reshape(3, 4).astype(dtype), np.array([0, 3, 1])
        want = fl.value_and_grad(fl.cross_entropy)(x, y)
        tensor, _ = made(framework, x)
        got = fl.value_and_grad(fl.cross_entropy)(tensor, y)
        for ours, theirs in zip(got, want, strict=True):
            assert type(ours) is type(tensor)
            assert np.array_equal(adopt(ours, "x"), theirs)

    def test_a_large_result(self, framework):
        tensor, _ = made(framework, np.zeros((1024, 512), BFLOAT16))
        result = fl.softmax(tensor)
        assert type(result) is type(tensor)
        assert np.array_equal(adopt(result, "x"), np.full((1024, 512), 1 / 512, BFLOAT16))


class TestGive:
    @pytest.mark.parametrize("dtype", ["i8", "f2", "f4", "f8", BFLOAT16])
    def test_no_copy_to_torch(self, dtype):
        array = np.arange(12).reshape(3, 4).astype(dtype)
        given = give(array, torch.zeros(1))
        assert given.data_ptr() == address(array)
        array[0] = 7
        assert given[0].tolist() == [7] * 4
        alive = weakref.ref(array)
        del array
        assert given[0].tolist() == [7] * 4
        del given
        gc.collect()
        assert alive() is None

    def test_a_scalar(self):
        given = give(np.float32(1.5), torch.zeros(1))
        assert (given.shape, given.dtype, float(given)) == ((), torch.float32, 1.5)


def test_a_negative_bit_is_no_data():
    """Torch exports such a tensor as if its sign had been flipped; that must not be read."""
    tensor = torch.complex(torch.ones(3, 4), torch.ones(3, 4)).conj().imag
    with pytest.raises(fl.DTypeError, match="negative bit"):
        fl.softmax(tensor)


def test_a_tensor_without_data():
    with pytest.raises(fl.DeviceError, match="x is not in host memory, nor anywhere that DLPack knows: .*meta"):
        fl.softmax(torch.zeros(3, 4, device="meta"))


def test_arrays_that_live_to_the_end():
    program = (
        "import numpy as np, torch; from fusedloss.arrays import adopt\n"
        "class Foreign:\n"
        "    def __init__(self, it): self.it = it\n"
        "    def __dlpack__(self, **options): return self.it.__dlpack__(**options)\n"
        "kept = [adopt(Foreign(it), 'x') for it in (np.zeros(3), torch.zeros(3), torch.zeros(3).bfloat16())]\n"
        "class Cycle: pass\n"
        "cycle = Cycle(); cycle.it, cycle.own = kept, cycle\n"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")
