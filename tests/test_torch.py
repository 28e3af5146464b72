"""fusedloss.torch means what torch.nn.functional means: arguments, dtypes, reductions, edges, refusals."""

import pickle
import sys
import warnings

import numpy as np
import pytest
import torch
from torch.nn import functional

import fusedloss as fl
import fusedloss.torch as ft
from fusedloss.errors import AnswerError, FusedLossError
from fusedloss.torch import operators
from fusedloss.torch.errors import as_torch

N, C = 6, 5
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
CALLS = [("cross_entropy", dtype) for dtype in DTYPES]
ELEMENTWISE = ["binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss"]
CALLS += [(name, torch.bfloat16) for name in ELEMENTWISE]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def logits(*shape, dtype=torch.float32):
    return torch.randn(shape or (N, C)).to(dtype).requires_grad_()


def classes(*shape):
    return torch.randint(0, C, shape or (N,))


def arguments(name, dtype=torch.float32, n=N):
    """An input and a target for a loss."""
    x = logits(n, C, dtype=dtype)
    if name == "cross_entropy":
        return x, classes(n)
    if name == "binary_cross_entropy":
        x = x.detach().sigmoid().requires_grad_()
    return x, torch.rand(n, C).to(dtype)


def bits(tensor):
    return tensor.detach().flatten().view(torch.uint8).tolist()


class TestZeroCopy:
    """What the kernels read is the caller's memory, and the gradient is the memory that they wrote."""

    @pytest.fixture
    def solved(self, monkeypatch):
        """The problems that were solved, and where their gradients lie."""
        calls, solve = [], operators.solve

        def spy(problem, gradient=False):
            result = solve(problem, gradient=gradient)
            calls.append((problem, result[1].data_ptr() if gradient else None))
            return result

        monkeypatch.setattr(operators, "solve", spy)
        return calls

    @pytest.mark.parametrize(("name", "dtype"), CALLS)
    def test_inputs_and_gradients(self, solved, name, dtype):
        x, y = arguments(name, dtype)
        before = bits(x), bits(y)
        getattr(ft, name)(x, y, reduction="sum").backward()
        (problem, gradient), given = solved[0], problem_target(solved[0][0])
        assert problem.x.__array_interface__["data"][0] == x.data_ptr()
        assert given.__array_interface__["data"][0] == y.data_ptr()
        assert x.grad.data_ptr() == gradient
        assert (bits(x), bits(y)) == before

    def test_strided_inputs(self, solved):
        x = torch.randn(C, N).T.requires_grad_()
        ft.cross_entropy(x, classes()).backward()
        assert solved[0][0].x.__array_interface__["data"][0] == x.data_ptr()
        assert solved[0][0].x.strides == (4, 4 * N)

    def test_no_gradient_unless_one_is_wanted(self, solved):
        x, y = logits(), classes()
        ft.cross_entropy(x.detach(), y)
        with torch.no_grad():
            ft.cross_entropy(x, y)
        with torch.inference_mode():
            ft.cross_entropy(x, y)
        assert [gradient for _, gradient in solved] == [None] * 3
        assert not ft.cross_entropy(x.detach(), y).requires_grad


def problem_target(problem):
    return problem.reads.get("target", problem.rows.get("target"))


class TestDTypes:
    @pytest.mark.parametrize(("name", "dtype"), CALLS)
    def test_losses_are_never_of_16_bits(self, name, dtype):
        x, y = arguments(name, dtype)
        loss, wide = getattr(ft, name)(x, y), torch.float64 if dtype == torch.float64 else torch.float32
        (gradient,) = torch.autograd.grad(loss, x)
        z = x.detach().double().requires_grad_()
        theirs = getattr(functional, name)(z, y.double() if y.is_floating_point() else y)
        (truth,) = torch.autograd.grad(theirs, z)
        torch.testing.assert_close(loss, theirs.to(wide), rtol=8 * torch.finfo(wide).eps, atol=0)
        torch.testing.assert_close(gradient, truth.to(dtype), rtol=8 * torch.finfo(dtype).eps, atol=1e-7)

    def test_autocast(self):
        model, y = torch.nn.Linear(8, C), classes()
        with torch.autocast("cpu", torch.bfloat16):
            x = model(torch.randn(N, 8))
            ours, theirs = ft.cross_entropy(x, y), functional.cross_entropy(x, y)
        assert (x.dtype, ours.dtype) == (torch.bfloat16, theirs.dtype)
        (mine,) = torch.autograd.grad(ours, x, retain_graph=True)
        (their,) = torch.autograd.grad(theirs, x)
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
        torch.testing.assert_close(mine, their, rtol=2**-8, atol=0)

    def test_a_scaled_float16_mean_loses_nothing(self):
        """Divided by 8192 rows, most of this gradient is below the least float16; a scaler of losses must save it."""
        x, y, scale = torch.randn(8192, 100).half().requires_grad_(), torch.randint(0, 100, (8192,)), 2.0**16
        (ft.cross_entropy(x, y) * scale).backward()
        (truth,) = torch.autograd.grad(functional.cross_entropy(wide := x.detach().double().requires_grad_(), y), wide)
        assert (truth.abs() < 2**-24).any()
        torch.testing.assert_close(x.grad.double() / scale, truth, rtol=2**-10, atol=2**-41)

    def test_operands_of_other_dtypes(self):
        x = logits(dtype=torch.bfloat16)
        y, w = torch.rand(N, C, dtype=torch.float64), torch.rand(C)
        ours = ft.cross_entropy(x, y, w)
        theirs = functional.cross_entropy(x.double(), y, w.double())
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)


@pytest.mark.usefixtures("on_numpy")
class TestShapes:
    @pytest.mark.parametrize("shape", [(C,), (1, C), (2, C), (2, C, 3), (2, C, 3, 4), (0, C), (2, C, 0)])
    @pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
    @pytest.mark.parametrize("soft", [False, True])
    def test_the_class_axis(self, shape, reduction, soft):
        x = logits(*shape, dtype=torch.float64)
        y = torch.rand(shape, dtype=torch.float64) if soft else torch.randint(0, C, shape[:-1][:1] + shape[2:])
        ours, theirs = ft.cross_entropy(x, y, reduction=reduction), functional.cross_entropy(x, y, reduction=reduction)
        torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=1e-14, equal_nan=True)
        (mine,) = torch.autograd.grad(ours.sum(), x)
        assert mine.shape == x.shape
        if x.numel():
            torch.testing.assert_close(mine, torch.autograd.grad(theirs.sum(), x)[0], rtol=1e-14, atol=1e-14)

    @pytest.mark.parametrize("name", ELEMENTWISE)
    @pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (2, 3, 4)])
    def test_elements(self, name, shape):
        x, y = torch.rand(shape, dtype=torch.float64), torch.rand(shape, dtype=torch.float64)
        for reduction in ("none", "sum", "mean"):
            ours = getattr(ft, name)(x, y, reduction=reduction)
            torch.testing.assert_close(ours, getattr(functional, name)(x, y, reduction=reduction), equal_nan=True)

    @pytest.mark.parametrize("name", ["binary_cross_entropy", "binary_cross_entropy_with_logits"])
    @pytest.mark.parametrize("shape", [(), (1,), (C,), (1, C), (N, 1), (N, C)])
    def test_weights_broadcast_from_the_last_axis(self, name, shape):
        x, y = arguments(name, torch.float64)
        for weight in (torch.rand(shape).double(), -torch.rand(shape).double()):
            for reduction in ("none", "sum", "mean"):
                options = {"weight": weight, "reduction": reduction}
                ours, theirs = getattr(ft, name)(x, y, **options), getattr(functional, name)(x, y, **options)
                torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-15)

    def test_mse_broadcasts_with_a_warning(self):
        x, y = torch.randn(N, 1).double().requires_grad_(), torch.randn(C).double().requires_grad_()
        with pytest.warns(UserWarning, match="Using a target size") as given:
            ours = ft.mse_loss(x, y)
        assert given[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = functional.mse_loss(x, y)
        for mine, their in zip(torch.autograd.grad(ours, (x, y)), torch.autograd.grad(theirs, (x, y)), strict=True):
            torch.testing.assert_close(mine, their, rtol=1e-14, atol=1e-15)


@pytest.mark.usefixtures("on_numpy")
class TestMeanings:
    def test_all_ignored(self):
        x = logits()
        loss = ft.cross_entropy(x, torch.full((N,), 2), ignore_index=2)
        loss.backward()
        assert loss.isnan()
        assert (x.grad == 0).all()
        assert ft.cross_entropy(x, torch.full((N,), -100), reduction="sum") == 0

    def test_all_ignored_in_float16(self):
        x = logits(dtype=torch.float16)
        loss = ft.cross_entropy(x, torch.full((N,), -100))
        loss.backward()
        assert loss.isnan()
        assert (x.grad == 0).all()

    @pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
    def test_classes(self, dtype):
        x, y = logits(), classes()
        assert bits(ft.cross_entropy(x, y.to(dtype))) == bits(ft.cross_entropy(x, y))

    def test_weights_of_any_sign(self):
        x, y, w = logits(dtype=torch.float64), classes(), torch.tensor([1.0, -2, 0, 3, -0.5]).double()
        for smoothing in (0.0, 0.1):
            options = {"weight": w, "label_smoothing": smoothing}
            ours, theirs = ft.cross_entropy(x, y, **options), functional.cross_entropy(x, y, **options)
            torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=0)

    def test_legacy_reductions(self):
        x, y = logits(), classes()
        with pytest.warns(UserWarning, match="please use reduction='none'"):
            assert ft.cross_entropy(x, y, reduce=False).shape == (N,)
        with pytest.warns(UserWarning, match="please use reduction='sum'"):
            assert bits(ft.cross_entropy(x, y, size_average=False)) == bits(ft.cross_entropy(x, y, reduction="sum"))

    def test_masked_classes(self):
        """PyTorch gives NaN where a target of 0 meets −inf."""
        x = torch.tensor([[0.0, 0.0, -torch.inf]], requires_grad=True)
        loss = ft.cross_entropy(x, torch.tensor([[0.5, 0.5, 0.0]]))
        loss.backward()
        assert loss.item() == pytest.approx(np.log(2))
        assert x.grad.tolist() == [[0, 0, 0]]

    @pytest.mark.parametrize("log_target", [False, True])
    @pytest.mark.parametrize("shape", [(N, C), (2, C, 3), (C,)])
    def test_kl_divergence(self, shape, log_target):
        axis = min(len(shape) - 1, 1)
        x, y = logits(*shape, dtype=torch.float64), torch.rand(shape).double().log_softmax(axis)
        y = (y if log_target else y.exp()).requires_grad_()
        rows = functional.kl_div(x.log_softmax(axis), y, reduction="none", log_target=log_target).sum(axis)
        batch = shape[0] if len(shape) > 1 else 1
        wanted = {"none": rows, "sum": rows.sum(), "mean": rows.mean(), "batchmean": rows.sum() / batch}
        for reduction, theirs in wanted.items():
            ours = ft.kl_divergence(x, y, reduction=reduction, log_target=log_target)
            torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-14)
            grads = [torch.autograd.grad(loss.sum(), (x, y), retain_graph=True) for loss in (ours, theirs)]
            for mine, their in zip(*grads, strict=True):
                torch.testing.assert_close(mine, their, rtol=1e-13, atol=1e-14)


@pytest.mark.usefixtures("on_numpy")
class TestModules:
    WEIGHT = torch.rand(C)
    MODULES = (
        ("CrossEntropyLoss", {"weight": WEIGHT, "ignore_index": 1, "label_smoothing": 0.2}),
        ("BCELoss", {"weight": WEIGHT, "reduction": "sum"}),
        ("BCEWithLogitsLoss", {"weight": WEIGHT, "pos_weight": WEIGHT, "reduction": "none"}),
        ("MSELoss", {"reduction": "none"}),
    )
    NAMES = ("cross_entropy", *ELEMENTWISE)

    @pytest.mark.parametrize(("name", "options"), MODULES)
    def test_they_are_pytorchs_own(self, name, options):
        ours, theirs = getattr(ft, name)(**options), getattr(torch.nn, name)(**options)
        assert isinstance(ours, getattr(torch.nn, name))
        assert repr(ours) == repr(theirs)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        other = getattr(ft, name)(
            **{key: 0 * each if key in theirs.state_dict() else each for key, each in options.items()}
        )
        other.load_state_dict(theirs.state_dict())
        x, y = arguments(self.NAMES[[each for each, _ in self.MODULES].index(name)], torch.float32)
        for module in (ours, other, pickle.loads(pickle.dumps(ours)), torch.nn.Sequential(ours)[0].float()):
            torch.testing.assert_close(module(x, y), theirs(x, y), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("on_numpy")
class TestRefusals:
    def test_a_class_out_of_range(self):
        with pytest.raises(IndexError, match=r"target\[2\] is 5, expected a class in \[0, 5\)") as raised:
            ft.cross_entropy(logits(), torch.tensor([0, 1, C, 0, 0, 0]))
        assert isinstance(raised.value, fl.TargetError)
        assert isinstance(pickle.loads(pickle.dumps(raised.value)), fl.TargetError)

    def test_a_probability_out_of_range(self):
        with pytest.raises(RuntimeError, match=r"input\[0, 1\] is 1.5, expected a probability in \[0, 1\]") as raised:
            ft.binary_cross_entropy(torch.tensor([[0.5, 1.5]]), torch.zeros(1, 2))
        assert isinstance(raised.value, fl.ProbabilityError)

    @pytest.mark.parametrize(
        ("name", "args", "options", "error", "match"),
        [
            ("cross_entropy", (logits(), classes(4)), {}, fl.ShapeError, r"target has shape \(4,\), expected \(6,\)"),
            ("cross_entropy", (logits(2, C, 3), classes(2, 4)), {}, fl.ShapeError, r"expected \(2, 3\)"),
            ("cross_entropy", (logits(), classes(N, C)), {}, fl.ShapeError, "a soft target must be floating"),
            ("cross_entropy", (logits(), torch.rand(N)), {}, fl.DTypeError, "expected integers for classes"),
            ("cross_entropy", (logits(), classes().int()), {}, fl.DTypeError, "expected torch.int64 or torch.uint8"),
            ("cross_entropy", (logits(), torch.zeros(N, dtype=torch.bool)), {}, fl.DTypeError, "torch.bool, expected"),
            ("cross_entropy", (classes(N, C), classes()), {}, fl.DTypeError, "input has dtype int64, expected float16"),
            ("cross_entropy", (logits().detach().to(torch.complex64), classes()), {}, fl.DTypeError, "dtype complex64"),
            ("cross_entropy", (torch.tensor(0.0), torch.tensor(0)), {}, fl.ShapeError, "input has no axes"),
            ("cross_entropy", (torch.zeros(2, 0), classes(2)), {}, fl.ShapeError, "at least one class along axis 1"),
            ("cross_entropy", (logits(), torch.rand(N, C)), {"ignore_index": 0}, fl.OptionError, "ignore_index is 0"),
            ("cross_entropy", (logits(), classes()), {"label_smoothing": 1.5}, fl.OptionError, "_smoothing is 1.5"),
            ("cross_entropy", (logits(), classes()), {"weight": torch.ones(2)}, fl.ShapeError, r"expected \(5,\)"),
            ("cross_entropy", (logits(), classes()), {"reduction": "batchmean"}, fl.OptionError, "'sum', 'none'"),
            ("cross_entropy", (logits(), classes()), {"reduction": None}, fl.OptionError, "reduction is None"),
            ("cross_entropy", ([[0.0]], classes()), {}, fl.DTypeError, "input is a list, expected a tensor"),
            ("cross_entropy", (logits(), np.zeros(N, int)), {}, fl.DTypeError, "target is a ndarray"),
            ("cross_entropy", (logits(), None), {}, fl.DTypeError, "target is a NoneType, expected a tensor"),
            ("cross_entropy", (logits(), classes()), {"weight": [1.0] * C}, fl.DTypeError, "weight is a list"),
            ("cross_entropy", (torch.eye(3).to_sparse(), classes(3)), {}, fl.DTypeError, "input cannot be read"),
            ("binary_cross_entropy", (torch.rand(2, 3), torch.rand(3)), {}, fl.ShapeError, r"expected \(2, 3\)"),
            ("binary_cross_entropy", (torch.rand(3), torch.ones(3, dtype=int)), {}, fl.DTypeError, "as the input"),
            ("binary_cross_entropy_with_logits", (logits(), torch.rand(C)), {}, fl.ShapeError, r"expected \(6, 5\)"),
            (
                "binary_cross_entropy_with_logits", (logits(), torch.rand(N, C)), {"weight": torch.ones(2, N, C)},
                fl.ShapeError, r"has shape \(2, 6, 5\), expected one that broadcasts to \(6, 5\)",
            ),
            (
                "binary_cross_entropy_with_logits", (logits(), torch.rand(N, C)), {"pos_weight": torch.ones(N)},
                fl.ShapeError, r"pos_weight has shape \(6,\), expected one that broadcasts to \(6, 5\)",
            ),
            ("mse_loss", (logits(), logits()), {"weight": torch.ones(C)}, fl.ShapeError, r"expected \(6, 5\)"),
            ("kl_divergence", (logits(), classes()), {}, fl.DTypeError, "expected probabilities"),
            ("kl_divergence", (logits(), logits()), {"reduction": "max"}, fl.OptionError, "'none', 'batchmean'"),
        ],
    )  # fmt: skip
    def test_others(self, name, args, options, error, match):
        with pytest.raises(error, match=match) as raised:
            getattr(ft, name)(*args, **options)
        assert isinstance(raised.value, RuntimeError)

    @pytest.mark.filterwarnings("ignore:Using a target size")
    def test_shapes_that_do_not_broadcast(self):
        with pytest.raises(RuntimeError, match="must match"):
            ft.mse_loss(torch.zeros(2, 3), torch.zeros(4))

    def test_every_error_is_of_a_type_of_both(self):
        for kind in FusedLossError.__subclasses__():
            if kind not in (fl.FileError, AnswerError):  # which no loss raises
                twin = as_torch(kind("said"))
                assert isinstance(twin, kind)
                assert isinstance(twin, IndexError if kind is fl.TargetError else RuntimeError)
                assert twin.args == ("said",)

    def test_without_pytorch(self, monkeypatch):
        for name in [each for each in sys.modules if each.startswith("fusedloss.torch")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(ModuleNotFoundError, match=r"torch is not installed, .* pip install 'fusedloss\[torch\]'"):
            __import__("fusedloss.torch")
