"""Arrays of every kind come in without a copy, and results go out in the caller's kind."""

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import torch

import fusedloss as fl
from fusedloss.arrays import adopt, give

BACKENDS = ["numpy", "cpu"]  # of arrays in host memory

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


class OnDevice:
    """An array somewhere else, by DLPack."""

    def __init__(self, kind):
        self.kind = kind

    def __dlpack__(self, **_):
        raise BufferError("not here")

    def __dlpack_device__(self):
        return self.kind, 0


class Interface:
    """An array by ``__array_interface__`` alone."""

    def __init__(self, array):
        self.__array_interface__ = array.__array_interface__
        self.keep = array


class Dlpack:
    """An array by DLPack alone."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Namespaced(Dlpack):
    """An array of a library that follows the array API standard."""

    def __array_namespace__(self):
        return NAMESPACE


class NAMESPACE:
    @staticmethod
    def from_dlpack(array):
        return Namespaced(np.from_dlpack(array))


@pytest.mark.parametrize("wrap", [np.asarray, Interface, Dlpack, torch.from_numpy, memoryview])
def test_no_copy(wrap):
    array = np.arange(12.0).reshape(3, 4)
    assert np.shares_memory(adopt(wrap(array), "x"), array)


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_tensors_are_viewed(dtype):
    tensor = torch.arange(12.0, dtype=dtype, requires_grad=True).reshape(3, 4).T
    array = adopt(tensor, "x")
    assert array.__array_interface__["data"][0] == tensor.data_ptr()
    assert array.shape == (4, 3)
    assert np.array_equal(array.astype(float), tensor.detach().double().numpy())


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_in_torch_out(dtype, backend):
    logits = torch.linspace(-2, 2, 12).reshape(3, 4).to(dtype)
    target = torch.tensor([0, 3, 1])
    loss, gradient = fl.value_and_grad(fl.cross_entropy)(logits, target, device=backend)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert (loss.shape, loss.dtype) == ((), wide)
    assert (gradient.shape, gradient.dtype) == (logits.shape, dtype)
    reference = torch.nn.functional.cross_entropy(logits.double(), target)
    assert float(loss) == pytest.approx(float(reference), rel=1e-6)
    scores = fl.score(logits, target, device=backend)
    assert scores.prediction.dtype == torch.int64
    assert scores.nll.dtype == wide


def test_a_gradient_into_a_tensor(backend):
    logits, target = torch.zeros(3, 4), torch.tensor([0, 3, 1])
    buffer = torch.empty(3, 4)
    _, gradient = fl.value_and_grad(fl.cross_entropy, out=buffer)(logits, target, device=backend)
    assert gradient is buffer
    assert torch.allclose(buffer.sum(1), torch.zeros(3), atol=1e-7)


def test_the_kind_of_the_logits_decides(backend):
    logits = np.zeros((3, 4), np.float32)
    loss = fl.cross_entropy(logits, torch.tensor([0, 3, 1]), device=backend)
    assert isinstance(loss, np.float32)


def test_the_array_api_standard(backend):
    result = fl.softmax(Namespaced(np.zeros((2, 2), np.float32)), device=backend)
    assert isinstance(result, Namespaced)
    assert np.array_equal(result.array, np.full((2, 2), 0.5))
    assert isinstance(give(np.float32(1), Namespaced(np.zeros(1))), Namespaced)


def test_memory_maps(tmp_path, backend):
    path = tmp_path / "logits.npy"
    np.save(path, np.zeros((3, 4), np.float32))
    mapped = np.load(path, mmap_mode="r")
    loss = fl.cross_entropy(mapped, [0, 3, 1], device=backend)
    assert loss == pytest.approx(np.log(4))
    assert type(fl.softmax(mapped, device=backend)) is np.ndarray


@pytest.mark.parametrize(
    "logits", [[[0, 1], [1, 0]], [[False, True], [True, False]], [[0.0, 1], [1, 0]], ((0, 1), (1, 0))]
)
def test_lists_convert_to_float64(logits, backend):
    loss = fl.cross_entropy(logits, [1, 0], device=backend)
    assert isinstance(loss, np.float64)
    assert loss == pytest.approx(np.log1p(np.exp(-1)))


def test_an_empty_list_of_classes(backend):
    assert fl.cross_entropy(np.zeros((0, 3)), [], reduction="sum", device=backend) == 0


@pytest.mark.parametrize(("kind", "where"), [(2, "a CUDA device"), (10, "DLPack type 10")])
def test_arrays_elsewhere(kind, where, no_card):
    with pytest.raises(fl.DeviceError, match=f"logits is on .*{where}"):
        fl.cross_entropy(OnDevice(kind), [0])


def test_cuda_array_interface(no_card):
    class Foreign:
        __cuda_array_interface__ = {}  # noqa: RUF012

    with pytest.raises(fl.DeviceError, match="CUDA"):
        fl.softmax(Foreign())


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (np.ma.masked_array([1.0], [True]), fl.DTypeError),
        ([[1.0], [1.0, 2.0]], fl.ShapeError),
        (OnDevice(1), fl.DTypeError),
        (torch.eye(2).to_sparse(), fl.DTypeError),
        ("text", fl.DTypeError),
        (object(), fl.DTypeError),
        (np.zeros(2, complex), fl.DTypeError),
        (np.zeros(2, np.longdouble), fl.DTypeError),
        (np.zeros(2, ml_dtypes.float8_e5m2), fl.DTypeError),
        (np.zeros(2, "V2"), fl.DTypeError),
    ],
)
def test_what_cannot_be_read(value, error):
    with pytest.raises(error):
        fl.softmax(value)


def test_the_import_is_light():
    heavy = {"numba", "torch", "ml_dtypes", "cffi", "pyarrow", "jax", "tensorflow", "cupy"}
    program = f"import sys, fusedloss; print(sorted({heavy} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"
