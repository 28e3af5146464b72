"""The simulated CUDA machine: how its threads wait for each other, and every fault that it finds."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from cuda_machines import aligned, launch, lent
from cuda_machines import twins as m
from fusedloss.kernels.cuda_schedule import Fault
from greenlet import greenlet

F4, F8 = np.float32, np.float64


# ---- agreement -------------------------------------------------------------------------------------------------------


def test_positions():
    seen_at = []
    launch(lambda: seen_at.append((m.block(), m.blocks(), m.thread(), m.threads())), grid=3, threads=5)
    assert sorted(seen_at) == [(b, 3, t, 5) for b in range(3) for t in range(5)]


@pytest.mark.parametrize("kind", [F4, F8, int])
def test_a_warp_adds_up(kind):
    sums = []

    def kernel():
        value, mask = kind(m.thread()), 16
        while mask:
            value = value + m.shuffle_xor(value, mask)
            mask //= 2
        sums.append((m.thread() // 32, value))

    launch(kernel, threads=96)
    assert set(sums) == {(w, sum(range(32 * w, 32 * w + 32))) for w in range(3)}
    assert {type(value) for _, value in sums} == {kind}


def test_flags_of_a_warp_and_of_a_block():
    found = {}

    def kernel():
        me = m.thread()
        found[me] = m.vote_any(me == 40), m.sync_any(me == 70), m.sync_any(me > 100), m.vote_any(me < 32)

    launch(kernel, threads=96)
    assert found == {t: (t // 32 == 1, True, False, t < 32) for t in range(96)}


def test_a_block_adds_up_through_shared_memory():
    held, hold = m.held("f8"), m.hold("f8")

    def kernel(out):
        me, half = m.thread(), m.threads() // 2
        hold(8 * me, F8(me + m.block()))
        m.sync()
        while half:
            if me < half:
                hold(8 * me, held(8 * me) + held(8 * (me + half)))
            m.sync()
            half //= 2
        if me == 0:
            m.poke("f8")(out + 8 * m.block(), held(0))

    out = np.zeros(3)
    launch(kernel, out, grid=3, threads=64, shared=512)
    assert out.tolist() == [2016, 2080, 2144]


def test_shared_memory_starts_as_nan_in_every_block():
    found = []

    def kernel():
        found.extend(m.held(code)(8) for code in ("f4", "f8", "bf", "f2"))
        m.hold("f8")(8, F8(1))

    launch(kernel, grid=2, shared=16)
    assert len(found) == 8
    assert all(np.isnan(found))


# ---- faults ----------------------------------------------------------------------------------------------------------


def faulty(kernel, message, *args, **launching):
    with pytest.raises(Fault, match=message):
        launch(kernel, *args, **launching)


@pytest.mark.parametrize("reach", [1, -1])
@pytest.mark.parametrize("forwards", [True, False])
def test_a_missing_barrier_is_found_whoever_runs_first(reach, forwards):
    held, hold = m.held("f4"), m.hold("f4")

    def kernel(out):
        me = m.thread()
        if (m.block() == 0) == forwards:
            hold(4 * me, F4(1))
            m.poke("f4")(out + 4 * me, held(4 * ((me + reach) % 64)))

    faulty(
        kernel,
        "of shared memory, which thread .* since the last barrier",
        np.zeros(64, F4),
        grid=2,
        threads=64,
        shared=256,
    )


def test_a_barrier_between_reading_and_writing():
    held, hold, hold8 = m.held("f4"), m.hold("f4"), m.hold("f8")

    def shared_read(barrier):
        if m.thread() < 2:
            hold(4 * m.thread(), F4(1))
        m.sync()
        held(0)
        if barrier:
            m.sync()
        if m.thread() == 1:
            hold8(0, F8(2))

    launch(shared_read, True, threads=64, shared=16)
    faulty(shared_read, "writes byte 0 of shared memory, which several threads read", False, threads=64, shared=16)

    def written_twice():
        hold(4, F4(m.thread()))

    faulty(written_twice, "thread 1 of block 0: writes byte 4 of .* which thread 0 wrote", threads=2, shared=16)


def test_what_only_one_thread_touches_needs_no_barrier():
    def kernel():
        at = 16 * m.thread()
        for _ in range(2):
            m.hold16(at, m.pack("f4")((F4(1),) * 4))
            m.hold("bf")(at + 2, m.held("f4")(at + 4))
            m.held16(at)

    launch(kernel, threads=64, shared=1024)


def test_threads_that_do_not_come_are_named():
    def early():
        if m.thread() == 5:
            return
        m.sync()

    faulty(
        early,
        r"thread 5 of block 0, which has 32, never came to the barrier at .*test_cuda_simulator.py:\d+ \(early\)",
        threads=32,
    )

    def half():
        if m.thread() % 32 < 16:
            m.shuffle_xor(F4(1), 1)

    faulty(half, r"thread 16, 17, .* never came to the shuffle", threads=64)

    def crossed():
        if m.thread() < 16:
            m.sync()
        else:
            m.shuffle_xor(F4(1), 1)

    faulty(crossed, "never came to the shuffle", threads=32)


def test_barriers_at_different_places_are_no_barrier():
    def kernel():
        if m.thread() < 16:
            m.sync()
        else:
            m.sync()

    faulty(kernel, "thread 16 of block 0: came to the barrier at .*, where others came to .*", threads=32)


def test_part_of_a_warp_cannot_shuffle():
    faulty(lambda: m.shuffle_xor(F4(1), 1), "thread 40, 41, .* of block 0, which has 40, never", threads=40)


@pytest.mark.parametrize(("at", "message"), [(-4, "outside"), (64, "outside"), (62, "not a multiple of 4")])
def test_accesses_outside_or_across(at, message):
    room = aligned(96)[16:80]
    faulty(lambda x: m.peek("f4")(x + at), message, room)
    faulty(lambda x: m.poke("i4")(x + at, 1), message, room)


def test_sixteen_bytes_need_their_alignment_and_all_of_their_memory():
    room = aligned(64)
    faulty(lambda x: m.load16(x + 8), "not a multiple of 16", room)
    faulty(lambda x: m.load16(x + 48), "outside", room[:56])
    faulty(lambda x: m.held16(4), "not a multiple of 16", room, shared=64)
    faulty(lambda x: m.held16(16), "outside", room, shared=24)
    faulty(lambda x: m.hold("f4")(-4, 0.0), "outside", room, shared=24)
    faulty(lambda: None, "bytes of shared memory", shared=1 << 20)


def test_what_is_lent_for_reading_is_not_written():
    room = np.zeros(4, F4)
    room.flags.writeable = False
    faulty(lambda x: m.poke("f4")(x, 1.0), "read-only", room)


def test_memory_that_was_taken_back_is_gone():
    room = np.zeros(4, F4)
    with lent(room):
        launch(lambda: m.poke("f4")(room.ctypes.data, 2.0))
        with lent(room[2:]):
            launch(lambda: m.poke("f4")(room.ctypes.data + 4, 3.0))
        launch(lambda: m.poke("f4")(room.ctypes.data + 8, 4.0))
    faulty(lambda: m.peek("f4")(room.ctypes.data), "outside")
    assert room.tolist() == [2, 3, 4, 0]


def test_words_of_the_wrong_size():
    faulty(lambda: m.pack("f4")((F4(0),) * 8), "8 numbers for the 4 of 16 bytes")


def test_a_fault_leaves_the_next_launch_alone():
    faulty(lambda: 1 // (m.thread() - 3), "thread 3 of block 0: integer division", threads=32)
    test_a_warp_adds_up(F8)


# ---- launches --------------------------------------------------------------------------------------------------------


def test_a_block_of_1024_threads_of_which_each_runs_into_the_next():
    def kernel(out):
        for _ in range(3):
            m.sync()
        m.poke("i4")(out + 4 * m.thread(), m.thread())

    out = np.zeros(1024, "i4")
    launch(kernel, out, threads=1024)
    assert out.tolist() == list(range(1024))


def test_launches_from_other_threads_and_greenlets_wait_for_each_other():
    def kernel(out):
        total = F8(m.thread())
        for mask in (16, 8, 4, 2, 1):
            total = total + m.shuffle_xor(total, mask)
        m.sync()
        m.poke("f8")(out + 8 * m.thread(), total)

    def run():
        out = np.zeros(64)
        for _ in range(20):
            launch(kernel, out, grid=3, threads=64)
        found.append(out.tolist())

    found = []
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    greenlet(run).switch()
    run()
    for thread in threads:
        thread.join()
    assert found == [[496.0] * 32 + [1520.0] * 32] * 6


def test_a_process_that_simulated_ends_in_silence():
    code = """
from fusedloss.kernels import cuda_schedule, cuda_twins
cuda_twins.launch(cuda_schedule.sync, (), 2, 64, 0)
try:
    cuda_twins.launch(lambda: cuda_schedule.thread() and cuda_schedule.sync(), (), 2, 64, 0)
except cuda_schedule.Fault as fault:
    print("found")
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "found\n", "")
