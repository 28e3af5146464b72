"""Large results take the memory of the one before, once nobody has it any more, and only then."""

import gc
import mmap
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import fusedloss as fl
import fusedloss.torch
from fusedloss import blocks

BACKENDS = ["numpy", "cpu"]  # of arrays in host memory

ROWS, CLASSES = 1 << 13, 1 << 10  # in float32 as large as a block must be to be kept


@pytest.fixture(autouse=True)
def _nothing_kept():
    blocks.drop()
    yield
    blocks.drop()


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    return rng.standard_normal((ROWS, CLASSES), dtype=np.float32), rng.integers(0, CLASSES, ROWS)


def address(array):
    return array.__array_interface__["data"][0]


def test_a_gradient_takes_the_place_of_one_let_go(arrays, backend):
    both = fl.value_and_grad(fl.cross_entropy)
    loss, grad = both(*arrays, device=backend)
    want, before = grad.copy(), address(grad)
    del grad
    again, grad = both(*arrays, device=backend)
    assert (again, address(grad)) == (loss, before)
    np.testing.assert_array_equal(grad, want)
    grad[:] = np.nan
    del grad
    np.testing.assert_array_equal(both(*arrays, device=backend)[1], want)


def test_a_loop_needs_two_blocks(arrays):
    places = set()
    for _ in range(5):
        _, grad = fl.value_and_grad(fl.cross_entropy)(*arrays)  # while that of the turn before lives
        places.add(address(grad))
    assert len(places) == 2


@pytest.mark.parametrize("view", [
    lambda grad: grad[-1:], lambda grad: grad.T, lambda grad: grad.view(np.int32), lambda grad: grad.ravel()[::2],
    memoryview, torch.from_numpy, torch.from_dlpack, lambda grad: np.asarray(torch.from_numpy(grad)[5:]),
])  # fmt: skip
def test_no_result_takes_the_place_of_one_that_is_viewed(arrays, view):
    seen = view(fl.value_and_grad(fl.cross_entropy)(*arrays)[1])
    assert not blocks._kept
    new = [fl.value_and_grad(fl.cross_entropy)(*arrays)[1] for _ in range(2)]
    assert not any(np.shares_memory(np.asarray(seen), grad) for grad in new)
    del seen, new
    assert len(blocks._kept) == 1


def test_the_gradient_of_a_tensor(arrays):
    logits, target = (torch.from_numpy(array) for array in arrays)
    logits = logits.clone().requires_grad_()

    def gradient():
        logits.grad = None
        fusedloss.torch.cross_entropy(logits, target).backward()
        return logits.grad.data_ptr()

    places = [gradient() for _ in range(3)]
    assert len(set(places)) == 1


def test_losses_of_elements(arrays):
    x = arrays[0]
    before = address(fl.mse(x, x, reduction="none"))
    assert address(fl.mse(x, x, reduction="none")) == before


@pytest.mark.parametrize(("size", "same"), [
    (blocks.LEAST, True), (blocks.LEAST // 5 * 4, True), (blocks.LEAST // 4 * 3 - (4 << 20), False),
    (blocks.LEAST + 1, False),
])  # fmt: skip
def test_a_block_is_kept_for_results_of_its_size(size, same):
    before = address(blocks.take(blocks.LEAST))
    taken = blocks.take(size)
    assert (taken.size, address(taken) == before) == (size, same)
    assert len(blocks._kept) == (not same)  # it is left for others
    del taken
    assert len(blocks._kept) == 1


def test_small_results_are_of_their_own(arrays):
    x, target = arrays
    grad = fl.value_and_grad(fl.cross_entropy)(x[:-1], target[:-1])[1]
    del grad
    assert not blocks._kept


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux alone tells")
def test_the_system_may_take_what_is_kept():
    def lazily_free():
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("LazyFree")) << 10

    before = lazily_free()
    taken = blocks.take(blocks.LEAST)
    taken[:] = 1
    assert lazily_free() - before < blocks.LEAST // 10
    del taken
    assert lazily_free() - before > blocks.LEAST // 10 * 9


def test_more_than_there_is():
    with pytest.raises(MemoryError):
        blocks.take(1 << 60)
    with pytest.raises(MemoryError):
        fl.softmax(np.broadcast_to(np.float32(0), (1 << 28, 1 << 30)))


@pytest.mark.parametrize("has", [False, True])
def test_a_system_that_keeps_nothing(monkeypatch, has):
    if has:
        monkeypatch.setattr(mmap, "MADV_FREE", -1)  # as a process that locks its memory is refused
    else:
        monkeypatch.delattr(mmap, "MADV_FREE")
    taken = blocks.take(blocks.LEAST)
    taken[:] = 1
    del taken
    assert not blocks._kept


def test_threads_have_blocks_of_their_own():
    def work(me):
        for _ in range(20):
            taken = blocks.take(blocks.LEAST)
            taken[:: 1 << 12] = me
            if not (taken[:: 1 << 12] == me).all():
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_a_cycle_lets_go(arrays):
    loop = [fl.value_and_grad(fl.cross_entropy)(*arrays)[1]]
    loop.append(loop)
    del loop
    gc.collect()
    assert len(blocks._kept) == 1


def test_a_process_ends_with_a_result_at_hand():
    code = f"import numpy as np, fusedloss as fl; p = fl.softmax(np.zeros(({ROWS}, {CLASSES}), 'f4'), device='numpy')"
    done = subprocess.run([sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
