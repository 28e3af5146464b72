"""The CUDA driver's functions: that calls arrive as they should, and every failure; and the twin's."""

import os
import subprocess
import sys

import numpy as np
import pytest
from cuda_machines import ON_LINUX, launch
from cuda_machines import twins as m
from fusedloss.kernels import cuda_twin_driver as twin
from stub_driver import build

START = """
import os, sys
from fusedloss.kernels import cuda_card as card
def failing(function, code, call):
    os.environ |= {"STUB_FAIL": function, "STUB_CODE": str(code)}
    try:
        call()
    except card.CudaError as error:
        print(repr(error.name), repr(error.text), error.out_of_memory)
    finally:
        del os.environ["STUB_FAIL"]
"""


@pytest.fixture(scope="module")
def stub(tmp_path_factory):
    if not ON_LINUX:
        pytest.skip("no CUDA driver here")
    folder = tmp_path_factory.mktemp("stub")
    build(folder)
    return folder


@pytest.fixture
def talk(stub):
    """Run code that knows the stub as the driver; what both print."""

    def run(code, **env):
        env = {name: value for name, value in os.environ.items() if name != "FUSEDLOSS_CUDA_SIMULATOR"} | env
        env["LD_LIBRARY_PATH"] = f"{stub}:{env.get('LD_LIBRARY_PATH', '')}"
        command = [sys.executable, "-u", "-W", "error", "-c", START + code]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    return run


def test_devices(talk):
    told = talk("""
print(card.why_not(), card.count(), card.why_not(1))
print(card.name(0), card.capability(0), card.multiprocessors(0), card.shared_limit(0))
print(card.device_of(5), card.device_of(8192))
print(card.context(0).is_current())
with card.context(0):
    print(card.context(0).is_current())
print(card.memory(0))
""")
    assert told == [
        "None 1 there is no CUDA device 1, but 1", "Stub (9, 5) 132 232448", "None 3", "False",
        "push 40", "True", "pop", "push 40", "pop", "(5, 9)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({"STUB_DEVICES": "0"}, "there is no CUDA device"),
        ({"STUB_MAJOR": "7"}, "Stub has compute capability 7.5, and 8.0 is needed"),
        ({"STUB_FAIL": "cuInit", "STUB_CODE": "2"}, "CUDA_ERROR_OUT_OF_MEMORY: what it means"),
        ({"STUB_FAIL": "cuDeviceGetCount", "STUB_CODE": "999"}, "error 999: what it means"),
    ],
)
def test_why_a_device_cannot_serve(talk, env, reason):
    assert talk("print(card.why_not())", **env) == [reason]


def test_without_what_it_needs_there_is_a_reason(talk):
    for module, distribution in (
        ("cuda", "cuda-bindings"),
        ("cuda.bindings", "cuda-bindings"),
        ("numba_cuda", "numba-cuda"),
    ):
        hidden = f"sys.modules[{module!r}] = None\nprint(card.why_not(), card.count())"
        assert talk(hidden) == [f"{distribution} is not installed 0"]


def test_a_kernel_is_loaded_once_and_launched_with_its_arguments(talk):
    told = talk("""
from fusedloss.kernels import cuda_compile
cuda_compile.ptx_of = lambda kernel: f"ptx of {kernel.key}"
kernel = cuda_compile.Kernel(None, "add", 2, 1, 128)
call = kernel.call.pack(-7, 8, 0.5)
kernel.launch(0, 9, 3, 1000, call)
with card.context(0):
    kernel.launch(0, 0, 2**31 - 1, 0, call)
kernel.launch(0, 0, 0, 0, call)
""")
    arguments = "tags 1 2 0: -7 8 0.5"
    assert told == [
        "push 40", "load ptx of add options 2: 5 6 8192, 0", "kernel fusedloss_kernel of 5",
        "attribute 8 of 6 on 40: 232448", "pop",
        "push 40", f"launch 6: 3 1 1 x 128 1 1, 1000 bytes, stream 9, 0; {arguments}", "pop",
        "push 40", f"launch 6: 2147483647 1 1 x 128 1 1, 0 bytes, stream 0, 0; {arguments}", "pop",
    ]  # fmt: skip


def test_failures_name_themselves(talk):
    told = talk("""
failing("cuMemAllocAsync", 2, lambda: card.allocate(0, 100, 0))
failing("cuLibraryLoadData", 222, lambda: card.kernel_of("ptx", "entry", 0))
failing("cuEventQuery", 999, lambda: card.finished(card.event()))
failing("cuEventQuery", 600, lambda: print(card.finished(card.event())))
print(card.finished(card.event()))
""")
    hint = "what it means; the driver is older than numba-cuda's toolkit: update it, or install fusedloss[cuda12]"
    assert [line for line in told if line[0] in "'TF"] == [
        "'CUDA_ERROR_OUT_OF_MEMORY' 'what it means' True",
        f"""'CUDA_ERROR_UNSUPPORTED_PTX_VERSION' "{hint}\\nptxas says" False""",
        "'error 999' 'what it means' False",
        "False",
        "True",
    ]
    assert told.count("push 40") == told.count("pop") == 1


WORK = """
at = card.allocate(0, 100, 3)
card.copy(at, 20, 100, 3)
card.copy(at, 20, 0, 3)
card.free(0, at, 3)
host, mapped = card.pin(64)
print(host, mapped)
card.unpin(host)
stream, event = card.stream(), card.event()
card.record(event, stream)
card.wait_for(5, event)
card.wait_event(event)
card.synchronize(stream)
card.destroy_event(event)
card.destroy_stream(stream)
"""


def test_memory_streams_and_events(talk):
    assert talk(WORK) == [
        "take 100 on 3", "copy 20 to 8192: 100 on 3", "give 8192 on 3", "pin 64: 3", "7 8", "unpin 7", "stream: 1",
        "event: 2", "record 12 on 11", "5 waits for 12", "wait event 12", "wait stream 11", "end event 12",
        "end stream 11",
    ]  # fmt: skip
    assert talk(WORK, STUB_POOLS="0")[:3] == ["take 100", "copy 20 to 8192: 100 on 3", "give 8192"]


def test_the_twin_has_the_same_functions(talk):
    only = {"Arguments", "kernel_of", "launch"}  # which only `Kernel` calls, and not on the twin
    (names,) = talk("from fusedloss.kernels import cuda_driver; print(*cuda_driver.__all__)")
    assert set(names.split()) - only == set(twin.__all__)


def test_the_twin_of_memory():
    before = twin.memory(0)
    address = twin.allocate(0, 1000, 0)
    assert address % 256 == 0
    assert twin.device_of(address + 999) == 0
    assert twin.device_of(address + 1000) is None
    host = np.arange(250, dtype=np.float32)
    twin.copy(address, host.ctypes.data, 1000, 0)
    launch(lambda: m.poke("f4")(address, m.peek("f4")(address + 996)))
    twin.copy(host.ctypes.data, address, 1000, 0)
    assert host[0] == 249
    twin.free(0, address, 0)
    assert twin.memory(0) == before
    with pytest.raises(twin.CudaError, match="CUDA_ERROR_INVALID_VALUE"):
        twin.free(0, address, 0)
    with pytest.raises(twin.CudaError) as caught:
        twin.allocate(0, 1 << 50, 0)
    assert caught.value.out_of_memory


def test_the_twin_of_the_rest():
    assert (twin.why_not(), twin.count(), twin.capability(0)) == (None, 1, (9, 0))
    assert twin.why_not(1) == "there is no CUDA device 1, but 1"
    assert (twin.multiprocessors(0), twin.shared_limit(0), twin.name(0)) == (2, 232448, "simulated CUDA device")
    with twin.context(0):
        host, mapped = twin.pin(64)
        launch(lambda: m.atomic_least(mapped, -5))
        stream, event = twin.stream(), twin.event()
        for call in (twin.record, twin.wait_for):
            call(event, stream)
        assert twin.finished(event)
        for call, what in ((twin.wait_event, event), (twin.synchronize, stream), (twin.destroy_event, event)):
            call(what)
        twin.destroy_stream(stream)
        twin.unpin(host)
