"""What a CUDA machine does, on the simulated one: arithmetic and memory against NumPy, agreement, and every fault."""

import importlib
import math
from fractions import Fraction

import ml_dtypes
import mpmath
import numpy as np
import pytest
from cuda_machines import calculated, launch, lent
from cuda_machines import twins as m
from fusedloss.kernels import numerics
from fusedloss.kernels.cuda_schedule import Fault

F4, F8, INF, NAN = np.float32, np.float64, math.inf, math.nan
REALS = [F4, F8]
DTYPE = {"bf": ml_dtypes.bfloat16, "b1": "?", **{c: c for c in "f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8".split()}}
SPECIAL = [0.0, -0.0, 1.0, -1.5, 3e-42, 1e30, -7e37, INF, -INF, NAN]


def same(found, wanted, kind):
    """Equal to the bit but for NaN's, and all of one type."""
    assert {type(value) for value in found} == {kind}
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(np.signbit(found), np.where(np.isnan(wanted), np.signbit(found), np.signbit(wanted)))


def pairs(real):
    return (np.array(v, real) for v in zip(*[(a, b) for a in SPECIAL for b in SPECIAL], strict=True))


def test_both_machines_have_the_same_leaves():
    twins = {"cuda_schedule", "cuda_twin_memory", "cuda_twins"}
    assert set(vars(m)) == {name for module in twins for name in leaves_of(module)}
    assert set(vars(m)) == set(leaves_of("cuda_memory")) | set(leaves_of("cuda_prims"))


def leaves_of(module):
    return importlib.import_module(f"fusedloss.kernels.{module}").__all__


# ---- arithmetic ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("real", REALS)
def test_fma_rounds_once(rng, real):
    a, b = (rng.standard_normal(300).astype(real) for _ in range(2))
    c = -(a * b)  # all but the rounding error cancels
    a3, b3, c3 = (map(Fraction, v.tolist()) for v in (a, b, c))
    same(
        calculated(m.fma, a, b, c), np.array([real(float(x * y + z)) for x, y, z in zip(a3, b3, c3, strict=True)]), real
    )


@pytest.mark.parametrize("real", REALS)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_the_greater_and_the_lesser_of_two(real):
    a, b = pairs(real)
    same(calculated(m.maximum, a, b), np.where(a > b, a, b), real)
    same(calculated(m.minimum, a, b), np.where(a < b, a, b), real)
    same(calculated(m.fmax, a, b), np.where((a == 0) & (b == 0), a + b, np.fmax(a, b)), real)


def test_numbers_keep_their_types():
    def kernel():
        found.extend([m.select(1 < 2, 0.0, F8(1)), m.maximum(0.0, F8(-1)), m.absolute(-2.0), m.fmax(0.0, F8(-1))])
        found.extend([m.select(True, F4(1), F4(2)), m.absolute(F4(-1)), m.real("f4")(3), m.ex2(F4(1))])
        found.extend([m.maximum(3, 4), m.select(False, 3, 4), m.absolute(-3), m.whole(F4(2.5))])

    found = []
    launch(kernel)
    assert [type(value) for value in found] == [F8] * 4 + [F4] * 4 + [int] * 4


@pytest.mark.parametrize("real", REALS)
def test_powers_of_two_come_from_the_low_bits_of_a_sum(real):
    bits, bias, least = (23, 127, -126) if real is F4 else (52, 1023, -1022)
    n = np.arange(least, bias + 1)
    shifted = (n + 1.5 * 2**bits + bias).astype(real)
    same(calculated(m.pow2, shifted), np.ldexp(real(1), n), real)
    same(calculated(m.pow2, np.array([1.5 * 2**bits], real)), np.zeros(1), real)


def test_exponent_and_mantissa(rng):
    x = np.abs(rng.standard_normal(200) * 10.0 ** rng.integers(-300, 300, 200))
    mantissa, exponent = np.frexp(x)
    same(calculated(m.exponent, x), exponent - 1.0, F8)
    same(calculated(m.mantissa, x), mantissa * 2, F8)
    assert len(calculated(m.exponent, np.array(SPECIAL))) == len(calculated(m.mantissa, np.array(SPECIAL)))


def test_ex2_flushes_what_is_subnormal(rng):
    x = np.concatenate([rng.uniform(-126, 127, 200), [-126, -126.001, -INF, INF, NAN, 128, 127.99, 5000, -5000, 0]])
    x = x.astype(F4)
    with np.errstate(over="ignore"):
        wanted = np.exp2(x.astype(F8)).astype(F4)
    wanted[np.abs(wanted) < 2.0**-126] = 0
    same(calculated(m.ex2, x), wanted, F4)


@pytest.mark.parametrize("real", REALS)
def test_following_is_the_next_number_up(real):
    x = np.array([v for v in SPECIAL if v < INF] + [np.finfo(real).max], real)
    with np.errstate(over="ignore"):
        same(calculated(m.following, x), np.nextafter(x, real(INF)), real)
    assert all(np.isnan(calculated(m.following, np.array([INF, NAN], real))))


@pytest.mark.parametrize("real", REALS)
def test_conversions(rng, real):
    x = (rng.standard_normal(100) * 1e6).astype(real)
    same(calculated(m.real("f4"), x), x.astype(F4), F4)
    same(calculated(m.wide, x), x.astype(F8), F8)
    assert calculated(m.whole, x) == [int(v) for v in x]
    same(calculated(m.real("f8"), range(-5, 5)), np.arange(-5.0, 5), F8)
    assert m.whole(real(INF)) == 2**63 - 1
    assert m.whole(real(-INF)) == -(2**63)


# ---- the formulas that are made of it --------------------------------------------------------------------------------


def ulps(found, x, exact, real):
    """How far results are from exact ones, in units of the last place."""
    worst = 0
    with mpmath.workprec(200):
        for value, argument in zip(found, x, strict=True):
            truth = exact(mpmath.mpf(float(argument)))
            ulp = max(float(np.spacing(real(abs(float(truth))))), float(np.finfo(real).tiny * np.finfo(real).eps))
            worst = max(worst, abs(float((mpmath.mpf(float(value)) - truth) / ulp)))
    return worst


@pytest.mark.parametrize("real", REALS)
def test_formulas_are_as_exact_as_on_the_cpu(rng, real):
    exp = numerics.exponential(m.jit, m, real)
    x = -np.abs(rng.standard_normal(200) * 20).astype(real)
    assert ulps(calculated(exp, x), x, mpmath.exp, real) < 1.01
    assert calculated(exp, np.array([0, -1e5, NAN], real))[:2] == [1, 0]
    gradual = numerics.exponential(m.jit, m, real, gradual=True)
    deep = np.linspace(-103 if real is F4 else -744, -80, 50).astype(real)
    assert ulps(calculated(gradual, deep), deep, mpmath.exp, real) < 1.51
    tanh = numerics.hyperbolic_tangent(m.jit, m, real)
    x = (rng.standard_normal(200) * 3).astype(real)
    assert ulps(calculated(tanh, x), x, mpmath.tanh, real) < 2.1


def test_the_logarithm(rng):
    log = numerics.logarithm(m.jit, m)
    x = np.abs(rng.standard_normal(300) * 10.0 ** rng.integers(-300, 300, 300))
    assert ulps(calculated(log, x), x, mpmath.log, F8) < 1.01
    same(calculated(log, np.array([0, 1, INF, NAN, 3e-320])), np.array([-INF, 0, INF, NAN, -INF]), F8)


@pytest.mark.parametrize("real", REALS)
def test_losses_of_logits(rng, real):
    exp = numerics.exponential(m.jit, m, real)
    formulas = numerics.binary_formulas(m.jit, m, real, exp)
    x = (rng.standard_normal(100) * 8).astype(real)
    y = rng.random(100).astype(real)
    loss, gradient = zip(*calculated(formulas.loss_and_gradient, x, y, 1 - y), strict=True)
    wide, tolerance = x.astype(F8), {"rtol": 4 * np.finfo(real).eps, "atol": 2 * np.finfo(real).eps}
    wanted = np.maximum(wide, 0) + np.log1p(np.exp(-np.abs(wide))) - wide * y
    np.testing.assert_allclose(np.array(loss, F8), wanted, **tolerance)
    np.testing.assert_allclose(np.array(gradient, F8), 1 / (1 + np.exp(-wide)) - y, **tolerance)
    np.testing.assert_allclose(np.array(calculated(formulas.sigmoid, x), F8), 1 / (1 + np.exp(-wide)), **tolerance)


def test_losses_of_probabilities(rng):
    formulas = numerics.probability_formulas(m.jit, m, numerics.logarithm(m.jit, m))
    p, y = rng.random(100), rng.random(100)
    zero = np.zeros(100)
    loss, gradient = zip(*calculated(formulas.loss_and_gradient, p, y, 1 - y, zero, zero), strict=True)
    np.testing.assert_allclose(loss, -(y * np.log(p) + (1 - y) * np.log1p(-p)), rtol=1e-14)
    np.testing.assert_allclose(gradient, (p - y) / (p * (1 - p)), rtol=1e-13)


# ---- memory ----------------------------------------------------------------------------------------------------------


def samples(code, rng):
    """Numbers of a code, the greatest and least among them."""
    dtype = np.dtype(DTYPE[code])
    if code == "b1":
        return rng.random(16) < 0.5
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return np.append(rng.integers(info.min, info.max, 14, dtype), np.array([info.min, info.max], dtype))
    return np.append(rng.standard_normal(11) * 300, [NAN, INF, -INF, 1e-7, 0]).astype(dtype)


def seen(values):
    """What a kernel makes of them."""
    if values.dtype.kind in "iub":
        return np.minimum(values, np.array(2**63 - 1, "u8")) if values.dtype == "u8" else values.astype("i8")
    return values.astype(F8 if values.dtype == F8 else F4)


@pytest.mark.parametrize("code", DTYPE)
def test_elements_come_and_go(rng, code):
    peek, poke, held, hold = m.peek(code), m.poke(code), m.held(code), m.hold(code)
    given = samples(code, rng)
    out, size = np.zeros_like(given), given.itemsize
    found = []

    def kernel(x, out):
        at = m.thread() * size
        hold(at, peek(x + at))
        found.append(held(at))
        poke(out + at, found[-1])

    launch(kernel, given, out, threads=16, shared=128)
    np.testing.assert_array_equal(found, seen(given))
    kept = given if code != "u8" else seen(given)
    np.testing.assert_array_equal(out.astype(F4) if code == "bf" else out, kept.astype(F4) if code == "bf" else kept)
    assert {type(v) for v in found} <= {int, F8 if code == "f8" else F4}


@pytest.mark.parametrize("code", ["bf", "f2", "f4"])
def test_reals_are_rounded_to_nearest_even(rng, code):
    out = np.zeros(1000, DTYPE[code])
    given = np.append(
        rng.standard_normal(990) * 1000, [1e9, -1e9, 1e-9, 6e-8, 1 + 2**-9, 1 + 3 * 2**-9, 0, -0.0, INF, NAN]
    )
    given = given.astype(F4)
    poke, pack, count, size = m.poke(code), m.pack(code), 16 // out.itemsize, out.itemsize

    def one(out):
        for k, value in enumerate(given):
            poke(out + k * size, value)

    def many(out):
        for k in range(0, 1000, count):
            m.store16(out + k * size, pack(tuple(given[k : k + count])))

    with np.errstate(over="ignore"):
        wanted = given.astype(DTYPE[code]).astype(F4)
    for kernel in (one, many):
        out[:] = 0
        room = aligned(out.nbytes)
        room[:] = 0
        view = room.view(DTYPE[code])
        launch(kernel, view)
        np.testing.assert_array_equal(view.astype(F4), wanted)


def aligned(nbytes):
    room = np.zeros(nbytes + 16, "u1")
    skip = -room.ctypes.data % 16
    return room[skip : skip + nbytes]


def test_integers_keep_their_low_bits():
    out = np.zeros(3, "u1")

    def kernel(out):
        for k, value in enumerate((-1, 300, 7)):
            m.poke("u1")(out + k, value)
            m.poke("i1")(out + k, value)

    launch(kernel, out)
    assert out.tolist() == [255, 44, 7]


@pytest.mark.parametrize("code", ["bf", "f2", "f4", "f8"])
def test_sixteen_bytes_at_a_time(rng, code):
    room = aligned(64).view(DTYPE[code])
    count = 16 // room.itemsize
    given = room[:count]
    given[:] = rng.standard_normal(count).astype(DTYPE[code])
    found = []

    def kernel(at):
        words = m.load16(at)
        found.extend(m.unpack(code)(words))
        m.hold16(16, words)
        m.store16(at + 16, m.held16(16))
        m.store16(at + 32, m.load16_kept(at))
        m.store16(at + 48, m.pack(code)(m.unpack(code)(words)))

    launch(kernel, room, shared=32)
    same(found, seen(given), F8 if code == "f8" else F4)
    for k in range(1, 4):
        assert room[k * count : (k + 1) * count].tobytes() == given.tobytes()


@pytest.mark.parametrize("shift", range(16))
def test_the_funnel_shifts_by_bytes(shift):
    room = aligned(48)
    room[:32] = np.arange(32) + 100

    def kernel(at):
        m.store16(at + 32, m.funnel(m.load16(at), m.load16(at + 16), shift))

    launch(kernel, room)
    np.testing.assert_array_equal(room[32:], np.arange(16) + shift + 100)


def test_the_least_of_all_threads():
    slot = np.full(1, np.iinfo("i8").max)
    launch(lambda at: m.atomic_least(at, 1000 - m.thread() - 64 * m.block()), slot, grid=3, threads=64)
    assert slot[0] == 1000 - 191


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


def test_a_missing_barrier_is_found_in_either_direction():
    for reach in (1, -1):

        def kernel(out, reach=reach):
            me = m.thread()
            m.hold("f4")(4 * me, F4(1))
            m.poke("f4")(out + 4 * (64 * m.block() + me), m.held("f4")(4 * ((me + reach) % 64)))

        out = np.zeros(128, F4)
        launch(kernel, out, grid=2, threads=64, shared=256)
        assert np.isnan(out).any()


def test_threads_that_do_not_come_are_named():
    def early():
        if m.thread() == 5:
            return
        m.sync()

    faulty(early, r"thread 5 of block 0 never came to the barrier at .*test_cuda_leaves.py:\d+ \(early\)", threads=32)

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
    faulty(
        lambda: m.shuffle_xor(F4(1), 1), "thread 32 of block 0: a shuffle or vote in a warp of 8 threads", threads=40
    )


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
