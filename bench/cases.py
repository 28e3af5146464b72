"""What is timed: the shapes, the inputs, the contenders, and whether they are right."""

import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special

import fusedloss as fl
from fusedloss.cli.info import processor

SHAPES = [(32768, 1000), (4096, 32000), (1024, 128256)]
CHECKED = 64  # rows that are compared with float64

Contender = Callable[[np.ndarray, np.ndarray, np.ndarray], Any]


def inputs(rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits and targets."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((rows, classes), dtype=np.float32), rng.integers(0, classes, rows)


# ---- fusedloss: each takes logits, targets and a buffer of the logits' shape -----------------------------------------


def loss(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> Any:
    """The mean loss."""
    return fl.cross_entropy(x, y)


def gradient(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> Any:
    """The mean loss and its gradient, in an array of its own."""
    return fl.value_and_grad(fl.cross_entropy)(x, y)


def into_buffer(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> Any:
    """The mean loss, and its gradient in a buffer that is there."""
    return fl.value_and_grad(fl.cross_entropy, out=out)(x, y)


def in_place(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> Any:
    """The mean loss of logits that lie in the buffer, and its gradient in their place."""
    return fl.value_and_grad(fl.cross_entropy, out=out)(out, y)


def evaluate(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> Any:
    """The mean loss, accuracy and entropy; top-5, Brier score and calibration come with them."""
    report = fl.evaluate(x, y)
    return report.nll, report.accuracy, report.entropy


# ---- peers -----------------------------------------------------------------------------------------------------------


def numpy_loss(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> Any:
    top = x.max(1)
    total = np.exp(x - top[:, None]).sum(1)
    return (np.log(total) + top - x[np.arange(len(x)), y]).mean()


def numpy_gradient(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> Any:
    rows, top = np.arange(len(x)), x.max(1)
    p = np.exp(x - top[:, None])
    total = p.sum(1)
    value = (np.log(total) + top - x[rows, y]).mean()
    p /= total[:, None] * np.float32(len(x))
    p[rows, y] -= np.float32(1 / len(x))
    return value, p


def numpy_evaluate(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> Any:
    rows, best = np.arange(len(x)), x.argmax(1)
    shifted = x - x[rows, best][:, None]
    p = np.exp(shifted)
    total = p.sum(1)
    entropy = np.log(total) - np.einsum("ij,ij->i", p, shifted) / total
    return (np.log(total) - shifted[rows, y]).mean(), (best == y).mean(), entropy.mean()


def torch_loss(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> Any:
    import torch

    with torch.inference_mode():
        return torch.nn.functional.cross_entropy(torch.from_numpy(x), torch.from_numpy(y)).item()


def torch_gradient(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> Any:
    import torch

    logits = torch.from_numpy(x).requires_grad_()
    value = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y))
    value.backward()
    return value.item(), logits.grad.numpy()


def torch_evaluate(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> Any:
    import torch

    with torch.inference_mode():
        target = torch.from_numpy(y)
        log_p = torch.log_softmax(torch.from_numpy(x), 1)
        nll = torch.nn.functional.nll_loss(log_p, target)
        accuracy = (log_p.argmax(1) == target).double().mean()
        return nll.item(), accuracy.item(), -(log_p.exp() * log_p).sum(1).mean().item()


CONTENDERS: dict[str, dict[str, Contender]] = {
    "loss": {"fusedloss": loss, "numpy": numpy_loss, "torch": torch_loss},
    "loss + gradient": {"fusedloss": gradient, "numpy": numpy_gradient, "torch": torch_gradient},
    "loss + gradient into a buffer": {"fusedloss": into_buffer},
    "loss + gradient in place": {"fusedloss": in_place},
    "evaluate": {"fusedloss": evaluate, "numpy": numpy_evaluate, "torch": torch_evaluate},
}


def bytes_moved(case: str, x: np.ndarray) -> int:
    """The least that a case must move: one read of the logits, and one write of a gradient."""
    return x.nbytes * (2 if "gradient" in case else 1)


def check(case: str, run: Contender, x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
    """Compare with float64 on the first rows; a gradient also where it is part of the whole."""
    part, target = x[:CHECKED], y[:CHECKED]
    rows = np.arange(len(part))
    log_p = scipy.special.log_softmax(part.astype(np.float64), 1)
    p, nll = np.exp(log_p), -log_p[rows, target].mean()
    buffer = out[:CHECKED]
    buffer[...] = part
    got = run(part, target, buffer)
    if case == "evaluate":
        want = nll, np.mean(part.argmax(1) == target), scipy.special.entr(p).sum(1).mean()
        np.testing.assert_allclose(got, want, rtol=1e-5)
        return
    np.testing.assert_allclose(got if case == "loss" else got[0], nll, rtol=1e-5)
    if case != "loss":
        p[rows, target] -= 1
        out[...] = x
        gradient = run(x, y, out)[1][:CHECKED]
        np.testing.assert_allclose(gradient, p / len(x), rtol=1e-4, atol=1e-6 / len(x) / x.shape[1])


# ---- where it is timed -----------------------------------------------------------------------------------------------


def about() -> dict[str, Any]:
    """The machine and the versions that a result belongs to."""
    names = ("fusedloss", "numpy", "numba", "llvmlite", "torch")
    return {
        "machine": {
            "processor": processor(),
            "architecture": platform.machine(),
            "system": platform.system(),
            "cpus": os.cpu_count(),
            "threads": fl.get_num_threads(),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in names if importlib.util.find_spec(name)},
        },
    }
