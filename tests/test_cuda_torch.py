"""PyTorch's tensors on a card, and the losses of fusedloss.torch: here in host memory, which they say is a card's."""

import sys
import weakref
from types import SimpleNamespace

import cards
import pytest
import torch

import fusedloss as fl
import fusedloss.torch as ft
from fusedloss.arrays import adopt, on_card
from fusedloss.cuda.card import card

assert cards

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.fixture(autouse=True)
def stream(monkeypatch):
    """Let every tensor say that it is on a card, and the current stream be one that can be told from others."""
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda _: True), raising=False)
    monkeypatch.setattr(torch.Tensor, "get_device", lambda _: 0)
    current = SimpleNamespace(cuda_stream=77)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: current)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    yield current
    fl.synchronize()


class TestAdoption:
    @pytest.mark.parametrize("dtype", [*DTYPES, torch.int8, torch.int64, torch.uint8, torch.bool])
    def test_where_it_is(self, dtype):
        tensor = torch.zeros(3, 4).to(dtype).T[::2]
        seen = adopt(tensor, "x")
        assert on_card(seen)
        assert (seen.address, seen.shape) == (tensor.data_ptr(), (2, 3))
        assert seen.strides == tuple(step * tensor.element_size() for step in tensor.stride())
        assert str(seen.dtype) == str(dtype).removeprefix("torch.")
        assert (seen.device, seen.stream, seen.readonly) == (0, 77, False)

    def test_without_ml_dtypes(self, monkeypatch):
        from fusedloss.cuda import adopting

        monkeypatch.setitem(sys.modules, "ml_dtypes", None)
        for cached in (adopting.bfloat16, adopting._of_torch):
            cached.cache_clear()
        assert adopt(torch.zeros(3, dtype=torch.bfloat16), "x").dtype.name == "bfloat16"
        for cached in (adopting.bfloat16, adopting._of_torch):
            cached.cache_clear()

    @pytest.mark.parametrize(
        ("tensor", "message"),
        [
            (torch.zeros(3, dtype=torch.complex64), "x has dtype torch.complex64, which cannot be read on a CUDA"),
            (torch.zeros(3, dtype=torch.float8_e5m2), "x has dtype torch.float8_e5m2, which cannot be read on a CUDA"),
            (torch.eye(2).to_sparse(), "x is no plain strided tensor"),
            (torch.zeros(3)._neg_view(), "x is no plain strided tensor"),
        ],
    )
    def test_what_cannot_be_read(self, tensor, message):
        with pytest.raises(fl.DTypeError, match=message):
            fl.softmax(tensor)


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_in_torch_out(dtype):
    logits, target = torch.linspace(-2, 2, 12).reshape(3, 4).to(dtype), torch.tensor([0, 3, 1])
    loss, gradient = fl.value_and_grad(fl.cross_entropy)(logits, target)
    scores = fl.score(logits, target)
    fl.synchronize()
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert (loss.shape, loss.dtype) == ((), wide)
    assert (gradient.shape, gradient.dtype) == (logits.shape, dtype)
    reference = torch.nn.functional.cross_entropy(logits.double(), target)
    assert float(loss) == pytest.approx(float(reference), rel=1e-6)
    assert (scores.prediction.dtype, scores.nll.dtype) == (torch.int64, wide)
    assert fl.score_binary(logits).prediction.dtype == torch.int8


def test_logits_are_not_kept():
    """PyTorch gives their memory to nobody on that stream before the kernels are done."""
    logits, target = torch.zeros(3, 4), torch.tensor([0, 3, 1])
    dead = weakref.ref(logits)
    fl.value_and_grad(fl.cross_entropy)(logits, target)
    cards.settle()
    del logits
    assert dead() is None


def test_in_place():
    logits, target = torch.linspace(-2, 2, 12).reshape(3, 4), torch.tensor([0, 3, 1])
    expected = logits.clone().requires_grad_()
    torch.nn.functional.cross_entropy(expected, target).backward()
    _, gradient = fl.value_and_grad(fl.cross_entropy, out=logits)(logits, target)
    fl.synchronize()
    assert gradient is logits
    torch.testing.assert_close(logits, expected.grad)


def test_what_a_cuda_graph_captures(monkeypatch):
    """Nothing is asked of the card then; what a replay finds wrong is raised by a later call."""
    logits, target = torch.zeros(3, 4), torch.tensor([0, 3, 1])
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        for name in ("record", "is_done", "wait_for"):
            patch.setattr(type(card(0)), name, lambda *_: pytest.fail("it asks the card"))
        fl.cross_entropy(logits, target)
    (standing,) = card(0).pending._standing
    fl.synchronize()
    target[2] = 9
    standing.slot.numbers[0] = 2  # as a replay would leave it
    with pytest.raises(fl.TargetError, match=r"^target\[2\] is 9, "):
        fl.cross_entropy(logits, logits)
    fl.synchronize()
    card(0).pending._standing.clear()


def test_a_target_that_is_ready_elsewhere(stream, monkeypatch):
    followed = []
    monkeypatch.setattr(type(card(0)), "follow", lambda self, *streams: followed.append(streams))
    logits = torch.zeros(3, 4)
    fl.cross_entropy(logits, torch.tensor([0, 3, 1]))
    fl.cross_entropy(logits, cards.ByInterface(torch.tensor([0, 3, 1]).numpy(), 5))
    assert followed == [(77, 5)]


class TestOperators:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
    def test_cross_entropy(self, dtype, reduction):
        x = torch.linspace(-2, 2, 24).reshape(2, 4, 3).to(dtype).requires_grad_()
        y = torch.tensor([[0, 3, 1], [2, -100, 1]])
        weight = torch.tensor([1.0, 2, 3, 4], dtype=dtype)
        ours = ft.cross_entropy(x, y, weight, reduction=reduction)
        fl.synchronize()
        wide = x.detach().double().requires_grad_()
        theirs = torch.nn.functional.cross_entropy(wide, y, weight.double(), reduction=reduction)
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
        (grad,), (expected,) = (torch.autograd.grad(loss.sum(), at) for loss, at in ((ours, x), (theirs, wide)))
        tol = 1e-2 if x.element_size() == 2 else 1e-5
        torch.testing.assert_close(grad.double(), expected, rtol=tol, atol=tol)

    def test_elements(self):
        x = torch.linspace(0.1, 0.9, 12).reshape(3, 4).requires_grad_()
        y = torch.ones(3, 4)
        for name in ("binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss"):
            ours, theirs = getattr(ft, name)(x, y), getattr(torch.nn.functional, name)(x, y)
            fl.synchronize()
            torch.testing.assert_close(ours, theirs)

    def test_what_is_wrong_is_also_of_pytorchs_type(self):
        ft.cross_entropy(torch.zeros(3, 4), torch.tensor([0, 9, 1]))
        cards.settle()
        with pytest.raises(IndexError, match=r"^target\[1\] is 9, "):
            ft.cross_entropy(torch.zeros(3, 4), torch.tensor([0, 3, 1]))
