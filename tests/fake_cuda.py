"""A stand-in for the driver and the kernels: a card whose memory is the host's, and that works only when waited for."""

import ctypes
import sys
import threading
import types

import ml_dtypes
import numpy as np
from fusedloss.kernels import SEGMENT, reference

queue, memory, events = [], {}, {}
log = []
CLEAN = 2**63 - 1


class CudaError(Exception):
    def __init__(self, name, text):
        self.name, self.text = name, text


def context(device):
    return Context(device)


class Context:
    def __init__(self, device):
        self.device = device

    def __enter__(self):
        log.append("push")

    def __exit__(self, *_):
        log.append("pop")


lock = threading.Lock()


def flush():
    with lock:
        while queue:
            queue.pop(0)()


def allocate(device, nbytes, stream):
    block = np.full(nbytes + 256, 0xA5, np.uint8)
    at = -(-block.ctypes.data // 256) * 256
    memory[at] = block
    return at


def free(device, address, stream):
    queue.append(lambda: memory.pop(address))


def pin(nbytes):
    return (allocate(0, nbytes, 0),) * 2


def unpin(address):
    free(0, address, 0)


def copy(target, source, nbytes, stream):
    if not any(a <= source < a + b.size for a, b in memory.items()) or log_pageable(source):
        pass
    data = None
    if source not in ranges():
        data = ctypes.string_at(source, nbytes)  # pageable memory is staged at once
    queue.append(lambda: ctypes.memmove(target, data if data is not None else source, nbytes))


def log_pageable(_):
    return False


class ranges:
    def __contains__(self, address):
        return any(a <= address < a + b.size for a, b in memory.items()) or address in foreign


foreign = set()


def stream():
    return 1000 + len(log)


def synchronize(stream):
    log.append("wait")
    flush()


def wait_for(stream, event):
    log.append(("order", stream))


def event():
    events[len(events) + 1] = True
    return len(events)


def destroy_event(event):
    pass


def record(event, stream):
    events[event] = False

    def done():
        events[event] = True

    queue.append(done)


def finished(event):
    return events[event]


def wait_event(event):
    log.append("wait")
    flush()


def why_not():
    return None


def count():
    return 2


def name(device):
    return "a fake"


def device_of(address):
    return 0


def view(a):
    if a is None or not hasattr(a, "address"):
        return a
    dtype = np.dtype(ml_dtypes.bfloat16) if a.dtype.name == "bfloat16" else a.dtype
    interface = {"version": 3, "typestr": dtype.str, "shape": a.shape, "strides": a.strides, "data": (a.address, False)}
    array = np.asarray(type("V", (), {"__array_interface__": interface})())
    return array.view(dtype) if dtype.kind == "V" else array


class Queue(tuple):
    def __new__(cls, device, stream, status):
        return super().__new__(cls, (device, stream, status))


class Backend:
    def __init__(self, queue):
        self.device, self.stream, self.status = queue

    def report(self, number):
        if number >= 0:
            slot = ctypes.c_int64.from_address(self.status)
            slot.value = min(slot.value, number)

    def __getattr__(self, name):
        kernel = getattr(reference, name)

        def bind(*args, **given):
            def run(lo, hi):
                def work():
                    a = [view(x) for x in args]
                    g = {k: view(v) for k, v in given.items()}
                    g.pop("weight_total", None)
                    if isinstance(g.get("grad_scale"), np.ndarray):
                        g["grad_scale"] = float(g["grad_scale"])
                    kernel_args = {k: v for k, v in g.items()}
                    t = kernel_args.get("target")
                    if t is not None and t.ndim == 1 and name not in ("tally_binary",):
                        kernel_args["target"] = (np.minimum(t, CLEAN) if t.dtype == np.uint64 else t).astype(np.int64)
                    self.report(kernel(*a, **kernel_args)(lo, hi))

                queue.append(work)
                return -1

            return run

        return bind

    # positional arguments of tallies and scores
    def score(self, x, target=None, **given):
        return self.__getattr__("score")(x=x, target=target, **given)

    def score_binary(self, x, target=None, **given):
        return self.__getattr__("score_binary")(x=x, target=target, **given)

    def tally(self, target, sample_weight, **given):
        return self.__getattr__("tally")(target=target, sample_weight=sample_weight, **given)

    def tally_binary(self, target, sample_weight, **given):
        return self.__getattr__("tally_binary")(target=target, sample_weight=sample_weight, **given)

    def copy(self, source, target):
        queue.append(lambda: np.copyto(view(target), view(source), casting="unsafe"))

    def total(self, values, out, divisor):
        def work():
            d = view(divisor)
            with np.errstate(all="ignore"):
                view(out)[...] = np.add.reduce(view(values), None, np.float64) / (float(d) or np.nan)

        queue.append(work)

    def weigh(self, target, class_weight, sample_weight, ignore_index, rows, out):
        def work():
            if target is None and sample_weight is None:
                total = rows
            elif target is None:
                w = view(sample_weight)
                total = w.sum(dtype=np.float64) * (rows / w.size)
            else:
                t = view(target)
                weight = np.ones(t.size)
                if class_weight is not None:
                    weight = view(class_weight).astype(np.float64).take(t, mode="clip")
                if sample_weight is not None:
                    weight = weight * view(sample_weight)
                total = weight[t != ignore_index].sum()
            view(out)[:] = total, 1 / total if total else 0

        queue.append(work)

    def check_weights(self, values):
        def work():
            with np.errstate(all="ignore"):
                bad = ~((view(values) >= 0) & (view(values) < np.inf))
            self.report(int(bad.argmax()) if bad.any() else -1)

        queue.append(work)

    def witness(self, x, at):
        def work():
            number = ctypes.c_int64.from_address(self.status).value
            if number < x.size:
                ctypes.c_double.from_address(at).value = float(view(x).flat[number])

        queue.append(work)


def install():
    driver, cuda = types.ModuleType("cuda_driver"), types.ModuleType("cuda")
    here = globals()
    driver.__dict__.update(here)
    cuda.Queue, cuda.Backend = Queue, Backend
    import fusedloss.kernels

    sys.modules["fusedloss.kernels.cuda_driver"] = fusedloss.kernels.cuda_driver = driver
    sys.modules["fusedloss.kernels.cuda"] = fusedloss.kernels.cuda = cuda
