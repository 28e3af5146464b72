"""PyTorch's tensors on a card, against float64: simulated, or a real one and then larger ones too."""

import numpy as np
import pytest
import torch
from fusedloss.kernels.cuda_card import SIMULATED
from gpu_place import DEVICE, tensors_on_card
from torch.nn import functional

import fusedloss as fl

pytestmark = pytest.mark.usefixtures(tensors_on_card.__name__)

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
EPS = {dtype: torch.finfo(dtype).eps for dtype in DTYPES}
LONG = [] if SIMULATED else [(2, 50257), (3, 300_001), (70_000, 10), (4096, 1000)]


def drawn(shape, dtype=torch.float32):
    torch.manual_seed(0)
    return (3 * torch.randn(shape, device=DEVICE)).to(dtype)


def apart(x):
    """The same values, one element further than a multiple of 16 bytes."""
    room = torch.empty(x.numel() + 1, dtype=x.dtype, device=x.device)
    room[1:] = x.reshape(-1)
    return room[1:].view(x.shape)


LAYOUTS = {
    "as they come": lambda x: x,
    "at an odd address": apart,
    "rows apart": lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
    "classes apart": lambda x: x.t().contiguous().t(),
    "every other class": lambda x: x.repeat_interleave(2, 1)[:, ::2],
}
SHAPES = [(5, 333), (150, 10), (3, 9), (2, 5000), *LONG]


def agree(got, wanted, dtype, scale=1.0):
    """Within some units in the last place of what is wanted, or of a scale."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert got.dtype in (dtype, wide)
    tolerance = 8 * EPS[got.dtype] * (4 if dtype == torch.float64 else 1)
    got, wanted = got.double(), wanted.double()
    off = ((got - wanted).abs() / wanted.abs().clamp(min=scale)).max()
    assert float(off) <= tolerance


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_loss_and_gradient(dtype, shape, layout):
    x = layout(drawn(shape, dtype))
    y = torch.randint(shape[1], shape[:1], device=DEVICE)
    y[1] = -100
    z = x.double().clone().requires_grad_()
    rows = functional.cross_entropy(z, y, reduction="none")
    rows.sum().backward()
    out = torch.full_like(x, float("nan"))
    loss, gradient = fl.value_and_grad(fl.cross_entropy, out=out)(x, y, reduction="sum")
    agree(loss, rows.detach().sum(), dtype)
    agree(gradient, z.grad, dtype)
    assert gradient is out
    agree(fl.cross_entropy(x, y, reduction="none"), rows.detach(), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(4, 100), (2, 1501), *LONG[:2]], ids=str)
def test_options(dtype, shape):
    """Smoothing, weights and soft targets, in place."""
    x, y = drawn(shape, dtype), torch.randint(shape[1], shape[:1], device=DEVICE)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    weight = torch.rand(shape[1], device=DEVICE, dtype=wide)
    soft = torch.softmax(drawn(shape).roll(1, 0), 1)
    z = x.double().clone().requires_grad_()
    given = {"weight": weight.double(), "label_smoothing": 0.1}
    for target, wanted in ((y, y), (soft, soft.double())):
        z.grad, mine = None, x.clone()
        functional.cross_entropy(z, wanted, **given, reduction="sum").backward()
        loss, gradient = fl.value_and_grad(fl.cross_entropy, out=mine)(
            mine, target, class_weight=weight, label_smoothing=0.1, reduction="sum"
        )
        agree(loss, functional.cross_entropy(z, wanted, **given, reduction="sum").detach(), dtype)
        agree(gradient, z.grad, dtype)
        assert gradient is mine


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(40, 10), (3, 1501), *LONG], ids=str)
def test_scores_and_activations(dtype, shape):
    x, y = drawn(shape, dtype), torch.randint(shape[1], shape[:1], device=DEVICE)
    scores, z = fl.score(x, y), x.double()
    agree(scores.nll, functional.cross_entropy(z, y, reduction="none"), dtype)
    assert torch.equal(z.gather(1, scores.prediction[:, None])[:, 0], z.max(1).values)
    before = torch.arange(shape[1], device=DEVICE)[None] < y[:, None]
    of_target = z.gather(1, y[:, None])
    assert torch.equal(scores.rank, ((z > of_target) | ((z == of_target) & before)).sum(1))
    log_p = torch.log_softmax(z, 1)
    agree(scores.entropy, -(log_p.exp() * log_p).sum(1), dtype)
    agree(fl.softmax(x), log_p.exp(), dtype)
    agree(fl.log_softmax(x), log_p, dtype)
    agree(fl.logsumexp(x), z.logsumexp(1), dtype)
    report = fl.evaluate(x, y)
    assert report.count == shape[0]
    assert report.nll == pytest.approx(float(functional.cross_entropy(z, y)), rel=1e-6)
    assert report.accuracy == pytest.approx(float((scores.prediction == y).double().mean()))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 41), *LONG[2:]], ids=str)
def test_elements(dtype, shape):
    x, y = drawn(shape, dtype), (drawn(shape).roll(1, 0) > 0).to(dtype)
    z = x.double().clone().requires_grad_()
    ours = (fl.binary_cross_entropy, fl.mse)
    theirs = (functional.binary_cross_entropy_with_logits, functional.mse_loss)
    for mine, wanted in zip(ours, theirs, strict=True):
        z.grad = None
        total = wanted(z, y.double(), reduction="sum")
        total.backward()
        loss, gradient = fl.value_and_grad(mine)(x, y, reduction="sum")
        agree(loss, total.detach(), dtype)
        agree(gradient, z.grad, dtype)


def test_images():
    x, y = drawn((2, 7, 4, 5)), torch.randint(7, (2, 4, 5), device=DEVICE)
    agree(fl.cross_entropy(x, y, axis=1), functional.cross_entropy(x.double(), y), torch.float32)


def test_a_target_that_is_no_class():
    x, y = drawn((70, 37)), torch.zeros(70, dtype=torch.int64, device=DEVICE)
    y[[30, 60]] = 37
    fl.cross_entropy(x, y)
    with pytest.raises(fl.TargetError, match=r"^target\[30\] is 37, "):
        fl.synchronize()
    agree(fl.cross_entropy(x, y.zero_()), functional.cross_entropy(x.double(), y), torch.float32)


@pytest.mark.parametrize("shape", [(0, 5), (3, 1)])
def test_hardly_any(shape):
    x, y = drawn(shape), torch.zeros(shape[0], dtype=torch.int64, device=DEVICE)
    assert float(fl.cross_entropy(x, y, reduction="sum")) == 0
    assert tuple(fl.score(x, y).nll.shape) == shape[:1]


def test_host_arrays():
    x, y = np.random.default_rng(0).standard_normal((64, 1000 if SIMULATED else 200_000), np.float32), np.arange(64)
    loss = fl.cross_entropy(x[:4], y[:4], device="cuda")
    assert loss == pytest.approx(fl.cross_entropy(x[:4], y[:4], device="numpy"), rel=1e-6)
    if not SIMULATED:  # several blocks
        assert fl.cross_entropy(x, y, device="cuda") == pytest.approx(fl.cross_entropy(x, y, device="cpu"), rel=1e-6)
    with pytest.raises(fl.DeviceError):
        fl.cross_entropy(x[:4], y[:4], device="cuda:99")
