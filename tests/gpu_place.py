"""A card for PyTorch's tensors: a real one, or the simulated one, on which tensors in host memory say that they are."""

from types import SimpleNamespace

import pytest
import torch
from fusedloss.kernels.cuda_card import SIMULATED

import fusedloss as fl

DEVICE = "cpu" if SIMULATED else "cuda"


@pytest.fixture
def tensors_on_card(monkeypatch):
    """Let every tensor say that it is on a card, if that is simulated."""
    if SIMULATED:
        monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda _: True), raising=False)
        monkeypatch.setattr(torch.Tensor, "get_device", lambda _: 0)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: SimpleNamespace(cuda_stream=0))
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    yield
    fl.synchronize()
