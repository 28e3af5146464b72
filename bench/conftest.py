"""What the benchmarks share: inputs of every shape, made once, and what the results say of this machine."""

from typing import Any

import numpy as np
import pytest

import fusedloss as fl

from .cases import SHAPES, about, inputs
from .ceilings import aligned


@pytest.fixture(scope="module", params=SHAPES, ids="{0[0]}x{0[1]}".format)
def arrays(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, targets, and a buffer as large as the logits."""
    x, y = inputs(*request.param)
    return x, y, aligned(x.shape)


@pytest.fixture
def torch() -> Any:
    """Torch, with as many threads as the library."""
    module = pytest.importorskip("torch")
    module.set_num_threads(fl.get_num_threads())
    return module


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Add the machine and the versions, as in ``bench/results``."""
    machine_info["fusedloss"] = about()
