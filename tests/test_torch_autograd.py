"""fusedloss.torch under autograd, torch.compile, vmap and the rest of PyTorch's machinery."""

import shutil
import weakref
from functools import partial

import pytest
import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import fusedloss as fl
import fusedloss.torch as ft

BACKENDS = ["numpy", "cpu"]  # of arrays in host memory

N, C = 4, 5
REDUCTIONS = ["mean", "sum", "none"]
NAMES = [
    "cross_entropy", "kl_divergence", "binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss",
]  # fmt: skip
REST = {
    "cross_entropy": (None, -100, 0.1),
    "kl_divergence": (),
    "binary_cross_entropy": (None,),
    "binary_cross_entropy_with_logits": (None, None),
    "mse_loss": (None,),
}
"""The arguments of each operator that follow input, target, reduction and gradient."""
COMPILERS = ["aot_eager", *(["inductor"] if shutil.which("g++") else [])]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def leaf(*shape, dtype=torch.float32):
    return torch.rand(shape or (N, C), dtype=torch.float64).to(dtype).requires_grad_()


def hard(*shape):
    return torch.randint(0, C, shape or (N,))


@pytest.mark.usefixtures("on_numpy")
class TestDerivatives:
    @pytest.mark.parametrize("reduction", REDUCTIONS)
    @pytest.mark.parametrize("name", NAMES)
    def test_by_input_and_target(self, name, reduction):
        x, y = leaf(dtype=torch.float64), leaf(dtype=torch.float64)
        call = partial(getattr(ft, name), reduction=reduction)
        assert torch.autograd.gradcheck(call, (x, y), check_batched_grad=True)

    @pytest.mark.parametrize("reduction", REDUCTIONS)
    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("cross_entropy", {"weight": torch.rand(C).double() - 0.5, "label_smoothing": 0.3}),
            ("binary_cross_entropy", {"weight": torch.rand(C).double() - 0.5}),
            (
                "binary_cross_entropy_with_logits",
                {"weight": torch.rand(N, 1), "pos_weight": 3 * torch.rand(C).double()},
            ),
            ("mse_loss", {"weight": torch.rand(N, C).double()}),
        ],
    )
    def test_weighted(self, name, options, reduction):
        x, y = leaf(dtype=torch.float64), leaf(dtype=torch.float64)
        call = partial(getattr(ft, name), reduction=reduction, **options)
        assert torch.autograd.gradcheck(call, (x, y))

    def test_the_class_axis(self):
        x, y = leaf(2, 3, 4, dtype=torch.float64), leaf(2, 3, 4, dtype=torch.float64)
        for reduction in REDUCTIONS:
            call = partial(ft.cross_entropy, weight=torch.rand(3).double(), reduction=reduction)
            assert torch.autograd.gradcheck(call, (x, y))
            assert torch.autograd.gradcheck(lambda x, call=call: call(x, torch.ones(2, 4).long()), (x,))

    @pytest.mark.parametrize("name", NAMES)
    def test_by_target_alone(self, name):
        x, y = leaf(dtype=torch.float64), leaf(dtype=torch.float64)
        loss = getattr(ft, name)
        (alone,) = torch.autograd.grad(loss(x.detach(), y), y)
        assert torch.equal(alone, torch.autograd.grad(loss(x, y), (x, y))[1])

    def test_by_weights_there_is_none(self):
        x, w = leaf(), leaf(C)
        calls = [
            lambda: ft.cross_entropy(x, hard(), w),
            lambda: ft.binary_cross_entropy(x, x.detach(), w),
            lambda: ft.binary_cross_entropy_with_logits(x, x.detach(), pos_weight=w),
            lambda: ft.mse_loss(x, x.detach(), weight=leaf()),
        ]
        for call in calls:
            with pytest.raises(fl.OptionError, match="a weight requires a gradient, expected one that does not"):
                call()
            with torch.no_grad():
                assert call().isfinite()


class TestTwice:
    """A gradient comes with its loss, as numbers; nobody may take it for a constant."""

    MATCH = "cannot be differentiated again: take the loss of torch.nn.functional"

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("by", [0, 1])
    def test_gradients_of_gradients(self, name, by):
        pair = leaf(), leaf()
        (gradient,) = torch.autograd.grad(getattr(ft, name)(*pair), pair[by], create_graph=True)
        assert gradient.requires_grad
        with pytest.raises(RuntimeError, match=self.MATCH):
            torch.autograd.grad(gradient.sum(), pair[by])

    def test_hessians(self):
        with pytest.raises(RuntimeError, match=self.MATCH):
            torch.autograd.functional.hessian(lambda x: ft.cross_entropy(x, hard()), leaf())

    def test_a_penalty_of_the_gradient(self):
        x = leaf()
        loss = ft.cross_entropy(x, hard())
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        with pytest.raises(RuntimeError, match=self.MATCH):
            (loss + gradient.square().sum()).backward()

    @pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
    def test_forward_mode(self):
        x, y = leaf().detach(), hard()
        with pytest.raises(NotImplementedError, match="no derivatives in forward mode"):
            torch.func.jvp(lambda x: ft.cross_entropy(x, y), (x,), (x,))

    def test_functional_transforms(self):
        """PyTorch has none for operators that Python differentiates, and says so."""
        with pytest.raises(RuntimeError, match="functorch transforms"):
            torch.func.grad(lambda x: ft.cross_entropy(x, hard()))(leaf().detach())


class TestMemory:
    def test_what_is_kept_is_the_gradient(self):
        x, weight = leaf(), leaf()
        product = x * weight
        alive, loss = weakref.ref(product), ft.cross_entropy(product, hard())
        del product
        assert alive() is None
        assert [each.shape for each in loss.grad_fn.saved_tensors] == [(), (N, C), (0,)]

    def test_it_is_handed_on(self):
        x = leaf()
        loss = ft.cross_entropy(x, hard())
        kept = loss.grad_fn.saved_tensors[1].data_ptr()
        loss.backward()
        assert x.grad.data_ptr() == kept

    def test_it_is_multiplied_in_its_place(self):
        x, y = leaf(), hard()
        (once,) = torch.autograd.grad(ft.cross_entropy(x, y), x)
        loss = ft.cross_entropy(x, y)
        kept = loss.grad_fn.saved_tensors[1].data_ptr()
        (loss * 0.5).backward()
        assert x.grad.data_ptr() == kept
        assert torch.equal(x.grad, once * 0.5)

    @pytest.mark.parametrize("factor", [1.0, 3.0])
    def test_a_graph_that_is_retained_keeps_its_own(self, factor):
        x, y = leaf(), hard()
        (once,) = torch.autograd.grad(ft.cross_entropy(x, y) * factor, x)
        loss = ft.cross_entropy(x, y) * factor
        for _ in range(3):
            x.grad = None
            loss.backward(retain_graph=True)
            assert torch.equal(x.grad, once)
            x.grad.fill_(7)
        loss.backward()
        assert torch.equal(x.grad, once + 7)

    @pytest.mark.parametrize("factor", [1.0, 3.0])
    def test_the_operators_own_caller_may_keep_it(self, factor):
        x, y = leaf(), hard()
        loss, gradient, _ = torch.ops.fusedloss.cross_entropy(x, y, "mean", True, None, -100, 0.0)
        before = gradient.clone()
        (loss * factor).backward()
        assert torch.equal(gradient, before)
        torch.testing.assert_close(x.grad, factor * before)
        assert x.grad.data_ptr() != gradient.data_ptr()

    def test_it_is_not_computed_unasked(self):
        x, y = leaf(), hard()
        _, gradient, scale = torch.ops.fusedloss.cross_entropy(x.detach(), y, "mean", False, None, -100, 0.0)
        assert (gradient.shape, scale.shape) == ((0,), (0,))
        with pytest.raises(fl.OptionError, match="gradient is False, expected True"):
            torch.ops.fusedloss.cross_entropy(x, y, "mean", False, None, -100, 0.0)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_cotangents_of_rows_do_not_widen_it(self, dtype):
        x, by = leaf(dtype=dtype), torch.tensor([1.0, -2, 0, 0.1])
        ft.cross_entropy(x, hard(), reduction="none").backward(by)
        assert x.grad.dtype == dtype
        assert (x.grad[2] == 0).all()

    def test_through_checkpoints_and_hooks(self):
        x, y = leaf(), hard()
        (once,) = torch.autograd.grad(ft.cross_entropy(x * 2, y), x)
        (again,) = torch.autograd.grad(checkpoint(lambda x: ft.cross_entropy(x * 2, y), x, use_reentrant=False), x)
        with torch.autograd.graph.save_on_cpu():
            loss = ft.cross_entropy(x * 2, y)
        loss.backward()
        assert torch.equal(again, once)
        assert torch.equal(x.grad, once)


class TestOperators:
    @pytest.mark.parametrize("reduction", ["mean", "none"])
    @pytest.mark.parametrize("name", NAMES)
    def test_opcheck(self, name, reduction):
        args = (leaf(), leaf(), reduction, True, *REST[name])
        torch.library.opcheck(getattr(torch.ops.fusedloss, name).default, args)

    def test_opcheck_of_hard_targets(self):
        args = (leaf(2, C, 3), hard(2, 3), "none", True, torch.rand(C), 1, 0.1)
        torch.library.opcheck(torch.ops.fusedloss.cross_entropy.default, args)

    @pytest.mark.usefixtures("on_numpy")
    def test_opcheck_in_float16(self):
        args = (leaf(dtype=torch.float16), hard(), "mean", True, None, -100, 0.0)
        torch.library.opcheck(torch.ops.fusedloss.cross_entropy.default, args)

    @pytest.mark.parametrize("dynamic", [False, True])
    @pytest.mark.parametrize("name", NAMES)
    def test_compiled(self, name, dynamic):
        torch.compiler.reset()
        loss = getattr(ft, name)
        compiled = torch.compile(lambda x, y: loss(0.5 * x, y), backend="aot_eager", fullgraph=True, dynamic=dynamic)
        for n in (N, N + 1, N + 2):
            x, y = leaf(n, C), leaf(n, C)
            for scale in (1.0, 2.0):
                ours, theirs = compiled(x, y) * scale, loss(0.5 * x, y) * scale
                assert torch.equal(ours, theirs)
                for pair in zip(torch.autograd.grad(ours, (x, y)), torch.autograd.grad(theirs, (x, y)), strict=True):
                    torch.testing.assert_close(*pair)

    @pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
    @pytest.mark.parametrize("backend", COMPILERS)
    def test_a_compiled_step(self, backend):
        torch.compiler.reset()
        model, y = torch.nn.Linear(8, C), hard()
        criterion = ft.CrossEntropyLoss(weight=torch.rand(C), label_smoothing=0.1)
        x = torch.randn(N, 8)

        def step(x, y):
            return criterion(model(x), y)

        step(x, y).backward()
        want = [each.grad.clone() for each in model.parameters()]
        model.zero_grad()
        compiled = torch.compile(step, backend=backend, fullgraph=True)
        compiled(x, y).backward()
        for each, grad in zip(model.parameters(), want, strict=True):
            torch.testing.assert_close(each.grad, grad)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x, y), step(x, y))
        with pytest.raises(IndexError, match="expected a class"):
            compiled(x, y + C)


class TestBatching:
    def test_vmap(self):
        x, y = leaf(3, N, C), hard(3, N)
        want = torch.stack([ft.cross_entropy(*each) for each in zip(x, y, strict=True)])
        assert torch.equal(torch.vmap(ft.cross_entropy)(x, y), want)
        rows = torch.vmap(partial(ft.cross_entropy, reduction="none"), in_dims=(1, None), out_dims=1)
        assert torch.equal(rows(x.transpose(0, 1), y[0])[:, 2], ft.cross_entropy(x[2], y[0], reduction="none"))

    def test_gradients_through_vmap(self):
        x, y, by = leaf(3, N, C), hard(3, N), torch.tensor([1.0, 2.0, 3.0])
        torch.vmap(ft.cross_entropy)(x, y).backward(by)
        for i in range(3):
            z = x[i].detach().requires_grad_()
            ft.cross_entropy(z, y[i]).backward(by[i])
            torch.testing.assert_close(x.grad[i], z.grad)

    @pytest.mark.filterwarnings("ignore:.*vmap.*:UserWarning")
    def test_batched_cotangents(self):
        x, y = leaf(), hard()
        for reduction, by in (("none", torch.eye(N)), ("sum", torch.tensor([1.0, 2.0]))):
            rows = ft.cross_entropy(x, y, reduction=reduction)
            (ours,) = torch.autograd.grad(rows, x, by, is_grads_batched=True)
            rows = functional.cross_entropy(x, y, reduction=reduction)
            (theirs,) = torch.autograd.grad(rows, x, by, is_grads_batched=True)
            torch.testing.assert_close(ours, theirs)
