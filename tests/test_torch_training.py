"""A classifier of handwritten digits learns by fusedloss.torch what it learns by torch.nn, step by step."""

from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional

import fusedloss.torch as ft

LOSSES = ["CrossEntropyLoss", "BCELoss", "BCEWithLogitsLoss", "MSELoss"]
STEPS, TRAINED = 60, 1400


@cache
def digits():
    data = load_digits()
    return torch.tensor(data.data / 16), torch.tensor(data.target)


@cache
def train(library, name, dtype):
    """The loss of every step, the weights at the end, and the accuracy on digits that were not seen."""
    torch.manual_seed(0)
    # Smooth: a value that is rounded to the other side of a kink of ReLU takes another path from there.
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10)).to(dtype)
    optimizer, criterion, losses = torch.optim.Adam(model.parameters(), lr=2e-2), getattr(library, name)(), []
    pixels, labels = digits()[0].to(dtype), digits()[1]
    for rows in torch.randint(0, TRAINED, (STEPS, 128)):
        outputs, target = model(pixels[rows]), labels[rows]
        if name == "BCELoss":
            outputs = outputs.sigmoid()
        if name != "CrossEntropyLoss":
            target = functional.one_hot(target, 10).to(dtype)
        loss = criterion(outputs, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    right = model(pixels[TRAINED:]).argmax(1) == labels[TRAINED:]
    weights = torch.cat([each.detach().double().flatten() for each in model.parameters()])
    return np.array(losses), weights.numpy(), right.double().mean().item()


@pytest.mark.usefixtures("on_numpy")
@pytest.mark.parametrize("name", LOSSES)
def test_in_float64(name):
    ours, theirs = (train(library, name, torch.float64) for library in (ft, torch.nn))
    np.testing.assert_allclose(ours[0], theirs[0], rtol=0, atol=1e-13)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=0, atol=1e-12)
    assert ours[2] == theirs[2] > 0.7
    assert ours[0][-1] < ours[0][0] / 4


@pytest.mark.parametrize("name", LOSSES)
def test_in_float32(name):
    """Rounding drifts from the float64 run, by the framework's own losses as well; ours must not drift further."""
    truth = train(torch.nn, name, torch.float64)
    ours, theirs = (train(library, name, torch.float32) for library in (ft, torch.nn))
    for quantity in (0, 1):
        mine, their = (np.abs(each[quantity] - truth[quantity]).max() for each in (ours, theirs))
        assert mine <= 2 * their + 4 * np.finfo(np.float32).eps * np.abs(truth[quantity]).max()
    assert ours[2] > 0.7
