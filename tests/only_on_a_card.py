"""What only a real card can show; ``python -m bench.gpu`` runs it with pytest, which does not find it by its name."""

import importlib

import numpy as np
import pytest
import torch
from test_gpu import DEVICE, agree, drawn
from torch.nn import functional

import fusedloss as fl


def test_streams():
    """A call works in its stream: after what is there, and before what follows."""
    stream, y = torch.cuda.Stream(), torch.zeros(64, dtype=torch.int64, device=DEVICE)
    x = torch.zeros(64, 1000, device=DEVICE)
    for _ in range(20):
        x.zero_()
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(1_000_000)
            x[:, 0] = 5.0
            loss = fl.cross_entropy(x, y)
            x.fill_(float("nan"))
        stream.synchronize()
        assert float(loss) == pytest.approx(float(np.log(999 + np.exp(5)) - 5), rel=1e-5)


def test_a_graph():
    x, y = drawn((64, 1000)), torch.randint(1000, (64,), device=DEVICE)
    out = torch.empty_like(x)
    step = fl.value_and_grad(fl.cross_entropy, out=out)
    step(x, y)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss, _gradient = step(x, y)
    x.copy_(drawn((64, 1000)).flip(0))
    graph.replay()
    torch.cuda.synchronize()
    agree(loss, functional.cross_entropy(x.double(), y), torch.float32)


def test_more_than_2_to_the_31_elements():
    x = torch.zeros(70_000, 32_768, dtype=torch.bfloat16, device=DEVICE)
    y = torch.arange(70_000, device=DEVICE) % 32_768
    x[-1, y[-1]] = 7.0
    rows = fl.cross_entropy(x, y, reduction="none")
    agree(rows[[0, -2]], torch.full((2,), float(np.log(32_768)), device=DEVICE), torch.float32)
    agree(rows[-1], functional.cross_entropy(x[-1].double(), y[-1]), torch.float32)
    _, gradient = fl.value_and_grad(fl.cross_entropy, out=x)(x, y, reduction="sum")
    assert float(gradient[-2, y[-2]]) == pytest.approx(-1.0, rel=1e-2)
    assert bool(torch.isfinite(gradient[-100:]).all())


@pytest.mark.parametrize("library", ["cupy", "jax", "numba"])
def test_arrays_of_others(library):
    taken = {"cupy": "cupy", "jax": "jax.numpy", "numba": "numba.cuda"}[library]
    module = pytest.importorskip(taken)
    put = {"cupy": "asarray", "jax": "asarray", "numba": "to_device"}[library]
    if library == "jax":
        pytest.importorskip("cffi")  # which reads DLPack's capsules
        if importlib.import_module("jax").default_backend() != "gpu":
            pytest.skip("JAX sees no card")
    x, y = drawn((64, 1000)).cpu().numpy(), np.arange(64)
    loss, gradient = fl.value_and_grad(fl.cross_entropy)(*(getattr(module, put)(array) for array in (x, y)))
    fl.synchronize()
    assert type(gradient).__module__.split(".")[0] in (library, "jaxlib", "numba_cuda")
    wanted = fl.cross_entropy(x, y, device="numpy")
    held = loss.copy_to_host() if library == "numba" else loss
    assert float(held) == pytest.approx(float(wanted), rel=1e-6)


def test_memory_is_given_back():
    x, y = drawn((1024, 4096)), torch.randint(4096, (1024,), device=DEVICE)
    for _ in range(3):
        fl.value_and_grad(fl.cross_entropy)(x, y)
    fl.synchronize()
    free, _ = torch.cuda.mem_get_info()
    for _ in range(200):
        fl.value_and_grad(fl.cross_entropy)(x, y)
        fl.evaluate(x, y)
    fl.synchronize()
    assert torch.cuda.mem_get_info()[0] > free - (256 << 20)
