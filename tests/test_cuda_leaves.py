"""What a CUDA machine does, on the simulated one: arithmetic and memory, against NumPy and mpmath."""

import math
from fractions import Fraction

import ml_dtypes
import mpmath
import numpy as np
import pytest
from cuda_machines import ON_LINUX, aligned, calculated, card, launch
from cuda_machines import twins as m
from fusedloss.kernels import numerics

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


@pytest.mark.skipif(not ON_LINUX, reason="nothing compiles for CUDA here")
def test_both_machines_have_the_same_leaves():
    assert set(vars(m)) == set(vars(card()))


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
    bend, x = numerics.soft_cap(m.jit, m, real), (rng.standard_normal(200) * 12).astype(real)
    bent = calculated(bend, x, np.full(200, 4, real), np.full(200, 0.25, real))
    assert ulps(bent, x, lambda v: 4 * mpmath.tanh(v / 4), real) < 3.1
    assert calculated(bend, np.array([1e30, -1e30], real), *np.array([[4, 4], [0.25, 0.25]], real)) == [4, -4]


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
    loss, gradient = zip(*calculated(formulas.loss_and_gradient, p, y, 1 - y, zero, zero + 1, zero), strict=True)
    np.testing.assert_allclose(loss, -(y * np.log(p) + (1 - y) * np.log1p(-p)), rtol=1e-14)
    np.testing.assert_allclose(gradient, (p - y) / (p * (1 - p)), rtol=1e-13)


# ---- tuples ----------------------------------------------------------------------------------------------------------


def test_loops_over_tuples():
    assert m.table(lambda k, a: (k, a), 3)("x") == ((0, "x"), (1, "x"), (2, "x"))
    assert m.each(lambda items, k, a: (*items, k, a))(((5, 6), (7, 8)), "x") == ((5, 7, 0, "x"), (6, 8, 1, "x"))
    assert m.fold(lambda p, q: f"({p}{q})")(("a", "b", "c", "d", "e")) == "(((ab)(cd))e)"
    assert m.fold(min)((3,)) == 3
    assert m.chain(lambda state, items, k, a: (*state, *items, k, a))((0,), ((5, 6),), 9) == (0, 5, 0, 9, 6, 1, 9)


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
