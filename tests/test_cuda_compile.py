"""The leaves of CUDA hardware, and what the compiler and the assembler make of them on a machine without a card."""

import os
import subprocess
import sys

import numpy as np
import pytest
from cuda_machines import ON_LINUX, card
from fusedloss.kernels import numerics

if not ON_LINUX:
    pytest.skip("nothing compiles for CUDA here", allow_module_level=True)

from cubins import ARCHITECTURES, cubin
from fusedloss.kernels import cuda_ptx

F4, F8 = np.float32, np.float64
FORMATS = "bf f2 f4 f8".split()
CODES = [*FORMATS, *"b1 i1 i2 i4 i8 u1 u2 u4 u8".split()]


@pytest.fixture(scope="module")
def m():
    return card()


def assembled(kernel, integers=2, reals=0, threads=128, archs=ARCHITECTURES):
    """A kernel for each architecture, without local memory."""
    ptx = cuda_ptx.compiled(kernel, integers, reals, threads)
    for arch in archs:
        found = cubin(ptx, arch)
        assert (found.stack, found.spills, found.shared) == (0, 0, 0), arch
        assert not found.count("LDL"), arch
        assert not found.count("STL"), arch
        yield found


def at_128_bits(found, name):
    """The number of accesses of a kind, each of 16 bytes."""
    kinds = {kind: count for kind, count in found.instructions.items() if kind.split(".")[0] == name}
    assert all("128" in kind.split(".") for kind in kinds), kinds
    return sum(kinds.values())


def turned(m, count):
    """A helper that puts the first of so many numbers last."""
    names = [f"v[{k}]" for k in (*range(1, count), 0)]
    return m.jit(eval(f"lambda v: ({', '.join(names)})"))


@pytest.mark.parametrize("code", FORMATS)
def test_sixteen_bytes_are_one_access(m, code):
    thread, sync, load16, load16_kept, store16 = m.thread, m.sync, m.load16, m.load16_kept, m.store16
    held16, hold16, unpack, pack = m.held16, m.hold16, m.unpack(code), m.pack(code)
    turn = turned(m, {"bf": 8, "f2": 8, "f4": 4, "f8": 2}[code])

    def kernel(x, out):
        at = thread() * 16
        hold16(at, pack(turn(unpack(load16(x + at)))))
        sync()
        store16(out + at, held16(2032 - at))
        store16(out + at + 2048, load16_kept(x + at))

    for found in assembled(kernel):
        assert [at_128_bits(found, name) for name in ("LDG", "STG", "LDS", "STS")] == [2, 2, 1, 1]
        assert found.count("LDG.E.NA.128") == 1
        assert found.count("STG.E.EF.128") == 2
        assert not found.calls
        assert found.count("F2FP") == (4 if code in ("bf", "f2") else 0)  # each rounds two
        assert found.count("BAR.SYNC") == 1
        assert found.registers <= 32


def test_the_funnel_is_selects_and_shifts(m):
    load16, store16, funnel, thread = m.load16, m.store16, m.funnel, m.thread

    def kernel(x, out, shift):
        at = 16 * thread()
        store16(out + at, funnel(load16(x + at), load16(x + at + 16), shift))

    for found in assembled(kernel, 3):
        assert found.count("SHF.R.W") == 4
        assert found.count("SEL") <= 11


@pytest.mark.parametrize("code", CODES)
def test_elements(m, code):
    peek, poke, held, hold, thread, sync = m.peek(code), m.poke(code), m.held(code), m.hold(code), m.thread, m.sync
    size = 2 if code == "bf" else int(code[1])

    def kernel(x, out):
        at = thread() * size
        hold(at, peek(x + at))
        sync()
        poke(out + at, held(128 * size - size - at))

    for found in assembled(kernel, archs=["sm_90a"]):
        width = {1: "8", 2: "16", 4: "", 8: "64"}[size]
        for name in ("LDG", "STG", "LDS", "STS"):
            (kind,) = (kind for kind in found.instructions if kind.split(".")[0] == name)
            assert width in kind.removeprefix(name)
        assert not found.calls


def test_loops_over_tuples_are_unrolled(m):
    load16, unpack, peek, poke = m.load16, m.unpack("f4"), m.peek("f4"), m.poke("f4")

    @m.jit
    def product(items, k, a):
        return items[0] * (peek(a + 4 * k) if k < 3 else items[0])

    @m.jit
    def more(state, items, k, a):
        return state + items[0] * a

    @m.jit
    def plus(a, b):
        return a + b

    @m.jit
    def words(k, at):
        return load16(at + 16 * k)

    two, times, total, on = m.table(words, 2), m.each(product), m.fold(plus), m.chain(more)

    def kernel(x, out):
        first, second = two(x)
        reals = unpack(first)
        poke(out, total(times((reals,), x + 256)))
        poke(out + 4, on(reals[0], (unpack(second),), reals[1]))

    for found in assembled(kernel, archs=["sm_90a"]):
        assert found.count("LDG.E.NA.128") == 2
        assert found.count("FMUL") == found.count("FADD") + 1 == 8
        assert not found.calls
        assert found.count("BRA") == 1  # after the end


def test_agreement(m):
    thread, vote_any, sync_any, shuffle_xor = m.thread, m.vote_any, m.sync_any, m.shuffle_xor
    peek, number, poke, wide, atomic_least = m.peek("f4"), m.peek("i8"), m.poke("f8"), m.wide, m.atomic_least

    def kernel(x, out):
        me = thread()
        v = peek(x + 8 * me)
        v += shuffle_xor(v, 1)
        w = wide(v)
        w += shuffle_xor(w, 2)
        if vote_any(v > 1.0):
            w += 8.0
        if sync_any(w > 2.0):
            w += 16.0
        poke(out + 8 * me, w)
        atomic_least(out, shuffle_xor(number(x + 8 * me), 4))

    for found in assembled(kernel):
        assert found.count("SHFL.BFLY") == 1 + 2 + 2
        assert found.count("VOTE") >= 1
        assert found.count("BAR.RED.OR") == 1
        assert found.count("RED") + found.count("REDG") + found.count("ATOMG") >= 1
        assert not found.calls


def test_a_loop_around_a_shuffle_keeps_the_warp_together(m):
    """Nothing may be moved into a branch that only some lanes take."""
    thread, shuffle_xor, peek, poke = m.thread, m.shuffle_xor, m.peek("f4"), m.poke("f4")

    def kernel(x, out):
        me = thread()
        v, mask = peek(x + 4 * me), 16
        while mask > 0:
            v += shuffle_xor(v, mask)
            mask //= 2
        if me % 32 == 0:
            poke(out + me // 8, v)

    for found in assembled(kernel):
        shuffles = [line for line in found.sass.splitlines() if "SHFL.BFLY" in line]
        assert len(shuffles) == 5
        assert not any("@" in line for line in shuffles)


@pytest.mark.parametrize("code", ["f4", "f8"])
def test_arithmetic(m, code):
    real, peek, poke, thread = F4 if code == "f4" else F8, m.peek(code), m.poke(code), m.thread
    fma, select, maximum, minimum, fmax, absolute = m.fma, m.select, m.maximum, m.minimum, m.fmax, m.absolute
    pow2, following, of, whole, keep = m.pow2, m.following, m.real(code), m.whole, m.poke("i8")
    two = real(2)

    def kernel(x, out):
        at = 8 * thread()
        a, b = peek(x + at), peek(x + at + 1024)
        poke(out + at, fma(a, b, two))
        poke(out + at + 1024, select(a > b, maximum(a, b), minimum(b, two)))
        poke(out + at + 2048, fmax(absolute(a), b))
        poke(out + at + 3072, pow2(a) + following(b))
        poke(out + at + 4096, of(whole(a)) * of(maximum(at, 3)))
        keep(out + at + 5120, absolute(select(a > b, at, -at)) + whole(b))

    for found in assembled(kernel):
        assert not found.calls
        assert found.count("FFMA" if code == "f4" else "DFMA") == 1


def test_ex2_is_one_instruction_of_the_special_function_unit(m):
    ex2, peek, poke, thread = m.ex2, m.peek("f4"), m.poke("f4"), m.thread
    log2e = F4(1.4426950408889634)

    def kernel(x, out):
        poke(out + 4 * thread(), ex2(peek(x + 4 * thread()) * log2e))

    for found in assembled(kernel):
        assert found.count("MUFU.EX2") == 1
        assert found.count("FMUL") == 1
        assert not found.count("FSETP")  # no care is taken of subnormal results


@pytest.mark.parametrize("code", ["f4", "f8"])
def test_products_are_rounded_before_sums(m, code):
    peek, poke = m.peek(code), m.poke(code)

    def kernel(x, out):
        poke(out, peek(x) * peek(x + 8) + peek(x + 16))

    for found in assembled(kernel):
        letter = "F" if code == "f4" else "D"
        assert [found.count(letter + name) for name in ("MUL", "ADD", "FMA")] == [1, 1, 0]


@pytest.mark.parametrize("real", [F4, F8])
def test_formulas(m, real):
    """Polynomials are unrolled, their coefficients are constants, nothing is called but a division's rare cases."""
    code = "f4" if real is F4 else "f8"
    exp = numerics.exponential(m.jit, m, real)
    gradual = numerics.exponential(m.jit, m, real, gradual=True)
    log, bend = numerics.logarithm(m.jit, m), numerics.soft_cap(m.jit, m, real)
    logit = numerics.binary_formulas(m.jit, m, real, exp)
    probability = numerics.probability_formulas(m.jit, m, log)
    rows = numerics.row_formulas(m.jit, m)
    loss_and_gradient, sigmoid, of_probability = logit.loss_and_gradient, logit.sigmoid, probability.loss_and_gradient
    nll, smooth, normalizer = rows.nll, rows.smooth, rows.log_normalizer
    peek, poke, put, wide, thread = m.peek(code), m.poke(code), m.poke("f8"), m.wide, m.thread
    one = real(1)

    def kernel(x, out, eps):
        at = 8 * thread()
        a, b = peek(x + at), peek(x + at + 1024)
        poke(out + at, exp(a))
        poke(out + at + 1024, gradual(a) + bend(b, a, one))
        loss, gradient = loss_and_gradient(a, b, one - b)
        poke(out + at + 2048, loss)
        poke(out + at + 3072, gradient + sigmoid(a))
        p, y = wide(a), wide(b)
        loss, gradient = of_probability(p, y, 1.0 - y, eps, 1.0 - eps, 0.0)
        put(out + at + 4096, loss)
        put(out + at + 5120, gradient + normalizer(p, y))
        put(out + at + 6144, smooth(nll(p, y, log(p)), eps, 10.0, p, y, p))

    for found in assembled(kernel, reals=1, archs=["sm_90a"]):
        assert found.calls <= found.count("MUFU.RCP") + found.count("MUFU.RCP64H")
        assert found.count("LDG") == 2  # and no table of coefficients in memory


# ---- on disk ---------------------------------------------------------------------------------------------------------

RACE = """
import sys, warnings
warnings.simplefilter("error")
from fusedloss.kernels.cuda_machine import peek, poke
from fusedloss.kernels.cuda_compile import Kernel, ptx_of
load, store = peek("f4"), poke("f4")
def kernel(x, out): store(out, load(x))
print(ptx_of(Kernel(kernel, "test", 2, 0, 32)).count("st.global.f32"))
"""


def test_two_processes_may_write_the_same_ptx(tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "FUSEDLOSS_CUDA_SIMULATOR"}
    env |= {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    racing = [
        subprocess.Popen([sys.executable, "-c", RACE], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    assert [(*process.communicate(timeout=120), process.returncode) for process in racing] == [(b"1\n", b"", 0)] * 2
    (kept,) = tmp_path.rglob("fusedloss.*")  # and nothing temporary
    assert cuda_ptx._read(kept)


@pytest.fixture
def compiles(m, monkeypatch):
    """Ask for the PTX of a kernel; whether it was compiled."""
    peek, poke, compiled = m.peek("f4"), m.poke("f4"), cuda_ptx.compiled

    def kernel(x, out):
        poke(out, peek(x))

    def counting(*args):
        calls.append(args)
        return compiled(*args)

    def ask(key="test"):
        calls.clear()
        assert "st.global.f32" in cuda_ptx.ptx_for(kernel, key, 2, 0, 32)
        return bool(calls)

    calls = []
    monkeypatch.setattr(cuda_ptx, "compiled", counting)
    return ask


def test_ptx_is_kept_on_disk_and_damage_is_repaired(compiles, monkeypatch, tmp_path):
    monkeypatch.setattr(cuda_ptx, "_folder", lambda: tmp_path)
    assert compiles()
    assert not compiles()
    (kept,) = tmp_path.iterdir()
    whole = kept.read_bytes()
    for damaged in (whole[:-10], b"", b"\xff" * 100, whole.replace(b"sm_80", b"sm_90")):
        kept.write_bytes(damaged)
        assert compiles()
        assert kept.read_bytes() == whole
    assert compiles("another key")
    monkeypatch.setattr(cuda_ptx, "_origin", lambda: "another compiler, or other sources")
    assert compiles()
    assert not compiles()
    assert len(list(tmp_path.iterdir())) == 2  # what is stale is replaced


def test_no_directory_for_ptx_is_no_error(compiles, monkeypatch, tmp_path):
    for folder in (None, tmp_path / "gone"):
        monkeypatch.setattr(cuda_ptx, "_folder", lambda folder=folder: folder)
        assert compiles()
        assert compiles()
